// Trees as tables, which the operators of ensembles read in their own ways and walk in one.
#pragma once

#include "frontend/onnx/node.h"

#include <map>

namespace kiln::onnx {

inline constexpr size_t kMaxTreeNodes = size_t(1) << 24;

enum class Compare { le, lt, ge, gt, eq, ne };

struct Trees {
  std::vector<int64_t> feature, yes, no, roots;
  std::vector<double> value;
  std::vector<bool> missing; // whether NaN leads to yes
  std::vector<Compare> compare;
  std::vector<bool> leaf;
  std::map<std::pair<int64_t, int64_t>, int64_t> index; // of (tree, node), before arrange()
  std::vector<int64_t> source; // after arrange(): which of those each is
  int64_t height = 0;

  size_t size() const { return feature.size(); }
};

struct Leaves {
  std::vector<int64_t> trees, nodes, targets;
  std::vector<double> weights;
};

enum class Aggregate { sum, average, min, max };

// Sets the height, the deepest leaf's, and arranges the nodes for walk(); an error where a walk would not
// end or two branches lead to one node.
Status finish_trees(Trees &trees);

// The leaf that each row of x[N, F] ends in, in each tree: [N, T].
Result<Val> walk(OnnxNode &n, const Trees &trees, const Val &x);

// The weights of the leaves `at` over the trees: [N, C].
Result<Val> aggregate(OnnxNode &n, const Trees &trees, const Leaves &leaves, int64_t targets, Aggregate how,
                      const Val &x, const Val &at);

} // namespace kiln::onnx
