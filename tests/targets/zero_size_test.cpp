// The op table with dims of 0: whatever an op accepts, compiled code computes as its reference does. Each
// size of a sample's operands becomes 0 in turn, wherever the sample has it.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "ir/interpret.h"
#include "tests/ops/sample.h"
#include "tests/targets/targets.h"

#include <set>

using namespace kiln;
using namespace kiln::test;

namespace {

void make_zero(Shape &shape, int64_t size) {
  for (Dim &d : shape)
    if (d.is_const(size))
      d = 0;
}

// The samples of an op with one of their sizes 0.
std::vector<OpSample> zero_samples(const OpDef &def) {
  std::vector<OpSample> out;
  for (const OpSample &sample : def.samples) {
    std::set<int64_t> sizes;
    for (const TensorType &type : sample.operands)
      for (const Dim &d : type.shape)
        if (d.is_const() && d.as_const() > 0)
          sizes.insert(d.as_const());
    for (int64_t size : sizes) {
      OpSample zero = sample;
      for (TensorType &type : zero.operands)
        make_zero(type.shape, size);
      if (const Attr *attr = sample.attrs.find("shape"))
        if (const auto *list = std::get_if<std::vector<Dim>>(attr)) {
          Shape shape = *list;
          make_zero(shape, size);
          zero.attrs.set("shape", shape);
        }
      out.push_back(std::move(zero));
    }
  }
  return out;
}

// One function for each of them that the op takes: compiled in one go.
struct ZeroModule {
  Module module;
  std::vector<OpSample> samples;
};

ZeroModule zero_module(const OpDef &def) {
  Op op = *find_op(def.name);
  ZeroModule out;
  out.module.name = "sample";
  for (OpSample &sample : zero_samples(def)) {
    auto one = sample_module(op, sample);
    if (!one || !one->constants.empty() || !one->variables.empty())
      continue; // the op says why it takes none; constants are numbered by module
    VariableValues variables;
    if (!interpret(*one, one->functions[0], sample_inputs(sample), variables))
      continue;
    one->functions[0].name = "f" + std::to_string(out.samples.size());
    out.module.functions.push_back(std::move(one->functions[0]));
    out.samples.push_back(std::move(sample));
  }
  return out;
}

} // namespace

TEST_CASE("ops take dims of 0") {
  auto targets = native_targets();
  Target &target = *targets.back();
  size_t checked = 0;
  for (const OpDef *def : all_ops()) {
    Op op = *find_op(def->name);
    ZeroModule made = zero_module(*def);
    if (made.samples.empty())
      continue;
    auto loaded = target.load(made.module);
    INFO(def->name << (loaded ? "" : ": " + loaded.error().message));
    CHECK(loaded.ok());
    for (size_t i = 0; loaded && i < made.samples.size(); ++i) {
      std::vector<Tensor> inputs = sample_inputs(made.samples[i]);
      VariableValues variables;
      auto want = interpret(made.module, made.module.functions[i], inputs, variables);
      auto got = (*loaded)->run(i, inputs);
      INFO(sample_text(op, made.samples[i]) << (got ? "" : ": " + got.error().message));
      CHECK(got.ok());
      for (size_t r = 0; got && want && r < got->size(); ++r)
        CHECK(compare(*def, (*got)[r], (*want)[r]) == "");
      ++checked;
    }
  }
  CHECK(checked > 100);
}
