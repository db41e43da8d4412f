// What a compiled graph computes against what the interpreter says.
//
// Each op may be off by its tolerance, as in the op table's tests. What such errors become further on
// depends on the graph: an element is right if it is within its own op's tolerance, or within what the
// interpreter's results scatter by when every op's results are moved at random by as much as its
// tolerance allows (Monte Carlo arithmetic). An integer or a bool that such errors change, and what
// becomes NaN by them, says nothing and is not compared.
#pragma once

#include "ir/interpret.h"
#include "tests/fuzz/graph_run.h"

namespace kiln::fuzz {

struct GraphCase {
  const Module *module = nullptr; // as it was made, not compiled
  const Function *function = nullptr;
  std::vector<Tensor> inputs;
  int runs = 1; // one after the other: variables keep their values between them
};

enum class Finding : uint8_t { none, compile, error, value, crash };

struct CheckResult {
  Finding finding = Finding::none;
  std::string why;           // where there is a finding
  int64_t elements = 0;      // compared
  int64_t conditioned = 0;   // of those, right only because of what rounding does to them
  bool ran = false;          // false: the interpreter itself refuses these inputs
};

CheckResult check_graph(const GraphCase &graph, CompiledGraphs &compiled, Workers other);

} // namespace kiln::fuzz
