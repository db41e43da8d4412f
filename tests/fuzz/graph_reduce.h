// Makes a failing graph small: results, nodes, arguments and sizes are taken away for as long as it still
// fails in the same way.
#pragma once

#include "tests/fuzz/graph_file.h"

#include <functional>

namespace kiln::fuzz {

// `fails` says whether a candidate (which verifies and which the interpreter runs) shows the failure.
StoredGraph reduce_graph(StoredGraph graph, const std::function<bool(const StoredGraph &)> &fails);

} // namespace kiln::fuzz
