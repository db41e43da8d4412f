// Random typed graphs over the whole op table. Nothing here names what an op needs: an op is drawn with one
// of its samples, whose sizes, dtypes and attributes are changed at random for as long as the op's own
// infer accepts them, and whose operands are values that the graph has already, fitted by movement ops.
//
// Every node is evaluated as it is made, so that a graph never fails at run time by accident (an index out
// of range, a division by zero), values stay in a range where comparing them means something, and
// the concrete sizes of symbolic dims are known.
#pragma once

#include "ir/interpret.h"
#include "tests/random.h"

#include <string>
#include <vector>

namespace kiln::fuzz {

using test::Random;

struct GraphStyle {
  std::vector<Op> ops;    // drawn from these; all of the table where empty
  int nodes = 0;          // 0: random
  bool no_control = false; // without control flow, calls and variables
};

struct RandomGraph {
  std::vector<Tensor> inputs; // one for each argument of the function
  // Other inputs, whose symbolic dims have other sizes; may fail where sizes must agree.
  std::vector<Tensor> resized;
  std::string error; // where an op's infer and ref disagree; else empty
};

// Appends an exported function `name` to the module (and whatever it calls). The same for the same seed.
RandomGraph make_random_graph(Module &module, uint64_t seed, const std::string &name, const GraphStyle &style = {});

// Random values of a type: mostly from [lo, hi].
Tensor random_tensor(Random &random, DType dtype, std::vector<int64_t> dims, double lo, double hi, bool nonzero);

} // namespace kiln::fuzz
