// A finding as a file: the module's text, and as comments the inputs, the number of runs and how it was
// compiled. `graphs --replay FILE` reads it.
#pragma once

#include "tests/fuzz/graph_check.h"

namespace kiln::fuzz {

// A module with one exported function, and inputs for it.
struct StoredGraph {
  Module module;
  std::vector<Tensor> inputs;
  int runs = 1;
  std::vector<std::string> config; // words of the command line

  const Function &function() const;
  GraphCase graph_case() const { return {&module, &function(), inputs, runs}; }
};

std::string graph_text(const StoredGraph &graph, const std::string &why);
Result<StoredGraph> read_graph(const std::string &path);

} // namespace kiln::fuzz
