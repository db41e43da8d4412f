// Every op and sample of the table on one target, against the references. Tests include it once.
#pragma once

#include "ir/interpret.h"
#include "tests/ops/sample.h"
#include "tests/targets/targets.h"

#include <catch2/catch.hpp>

#include <set>
#include <string_view>

namespace kiln::test {

// One function for each sample of an op: compiled in one go.
struct OpModule {
  Module module;
  std::vector<const OpSample *> samples;
};

inline OpModule op_module(Op op) {
  OpModule out;
  out.module.name = "sample";
  for (const OpSample &sample : op_def(op).samples) {
    auto one = sample_module(op, sample);
    if (!one || !one->constants.empty() || !one->variables.empty())
      continue; // constants are numbered by module; such samples are left to the other tests
    one->functions[0].name = "f" + std::to_string(out.samples.size());
    out.module.functions.push_back(std::move(one->functions[0]));
    out.samples.push_back(&sample);
  }
  return out;
}

// The whole table, or its first `most` ops, or those in `only`.
inline void check_target(Target &target, size_t most = SIZE_MAX, const std::set<std::string_view> &only = {}) {
  size_t checked = 0, ops = 0;
  for (const OpDef *def : all_ops()) {
    if (!only.empty() && !only.contains(def->name))
      continue;
    Op op = *find_op(def->name);
    OpModule made = op_module(op);
    if (made.samples.empty() || ops++ >= most)
      continue;
    Module reference = made.module;
    auto loaded = target.load(std::move(made.module));
    INFO(target.name() << ": " << def->name << ": " << (loaded ? "" : loaded.error().message));
    CHECK(loaded.ok());
    if (!loaded)
      continue;
    for (size_t i = 0; i < made.samples.size(); ++i) {
      std::vector<Tensor> inputs = sample_inputs(*made.samples[i]);
      VariableValues variables;
      auto want = interpret(reference, reference.functions[i], inputs, variables);
      if (!want)
        continue;
      auto got = (*loaded)->run(i, inputs);
      INFO(sample_text(op, *made.samples[i]) << (got ? "" : got.error().message));
      CHECK(got.ok());
      if (!got)
        continue;
      for (size_t r = 0; r < got->size(); ++r)
        CHECK(compare(*def, (*got)[r], (*want)[r]) == "");
      ++checked;
    }
  }
  CHECK(checked > (most == SIZE_MAX && only.empty() ? 300 : only.size()));
}

} // namespace kiln::test

