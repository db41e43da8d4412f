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

} // namespace

TEST_CASE("ops take dims of 0") {
  auto targets = native_targets();
  Target &target = *targets.back();
  size_t checked = 0;
  for (const OpDef *def : all_ops()) {
    Op op = *find_op(def->name);
    std::vector<OpSample> samples = zero_samples(*def);
    for (const OpSample &sample : samples) {
      auto module = sample_module(op, sample);
      if (!module)
        continue; // the op says why it takes none
      std::vector<Tensor> inputs = sample_inputs(sample);
      VariableValues variables;
      auto want = interpret(*module, module->functions[0], inputs, variables);
      if (!want)
        continue;
      INFO(sample_text(op, sample));
      auto loaded = target.load(*module);
      INFO((loaded ? "" : loaded.error().message));
      CHECK(loaded.ok());
      if (!loaded)
        continue;
      auto got = (*loaded)->run(0, inputs);
      INFO((got ? "" : got.error().message));
      CHECK(got.ok());
      for (size_t r = 0; got && r < got->size(); ++r)
        CHECK(compare(*def, (*got)[r], (*want)[r]) == "");
      ++checked;
    }
  }
  CHECK(checked > 100);
}
