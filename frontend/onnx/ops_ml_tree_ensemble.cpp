// TreeEnsemble (ai.onnx.ml 5): inner nodes and leaves in lists of their own, and nodes that ask whether a
// feature is in a set. Those sets are looked up before the walk, each as one more feature that is 1 or 0.
#include "frontend/onnx/ml_scores.h"
#include "frontend/onnx/ml_trees.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kiln::onnx {
namespace {

constexpr int64_t kMember = 6;
constexpr size_t kMaxMembers = size_t(1) << 22; // of all sets, padded to the largest

struct Sets {
  std::vector<int64_t> features;
  std::vector<std::vector<double>> members;
};

Result<std::vector<double>> tensor_values(OnnxNode &n, std::string_view name) {
  KILN_TRY(tensor, n.get_tensor(name));
  if (tensor.count() > int64_t(kMaxTreeNodes))
    return Error{fmt::format("the attribute '{}' has {} elements", name, tensor.count())};
  std::vector<double> out;
  for (int64_t i = 0; i < tensor.count(); ++i)
    out.push_back(tensor.at_f64(i));
  return out;
}

// The lists of membership_values, which NaNs end.
Result<std::vector<std::vector<double>>> read_sets(OnnxNode &n) {
  std::vector<std::vector<double>> out;
  if (!n.has_attr("membership_values"))
    return out;
  KILN_TRY(values, tensor_values(n, "membership_values"));
  bool open = false;
  for (double v : values) {
    if (!open)
      out.emplace_back();
    open = !std::isnan(v);
    if (open)
      out.back().push_back(v);
  }
  return out;
}

// The trees, their leaves numbered after the inner nodes: one for each branch that leads to a leaf.
struct Ensemble {
  Trees trees;
  std::vector<int64_t> leaf_of; // of each node after the inner ones
  Sets sets;
};

Result<Ensemble> read_ensemble(OnnxNode &n, int64_t features, size_t leaves) {
  n.ignore({"nodes_hitrates"});
  auto feature = n.get_ints("nodes_featureids"), missing = n.get_ints("nodes_missing_value_tracks_true");
  std::vector<int64_t> to[2] = {n.get_ints("nodes_truenodeids"), n.get_ints("nodes_falsenodeids")};
  std::vector<int64_t> ends[2] = {n.get_ints("nodes_trueleafs"), n.get_ints("nodes_falseleafs")};
  KILN_TRY(modes, tensor_values(n, "nodes_modes"));
  KILN_TRY(splits, tensor_values(n, "nodes_splits"));
  size_t count = modes.size();
  if (count == 0 || count > kMaxTreeNodes / 4)
    return Error{fmt::format("it has {} nodes", count)};
  for (size_t size : {feature.size(), splits.size(), to[0].size(), to[1].size(), ends[0].size(), ends[1].size(),
                      missing.empty() ? count : missing.size()})
    if (size != count)
      return Error{"the attributes nodes_* are not of the same length"};
  KILN_TRY(sets, read_sets(n));
  Ensemble out;
  Trees &t = out.trees;
  for (size_t i = 0; i < count; ++i) {
    if (feature[i] < 0 || feature[i] >= features)
      return Error{fmt::format("node {} asks for feature {} of {}", i, feature[i], features)};
    if (!(modes[i] >= 0 && modes[i] <= double(kMember)))
      return Error{fmt::format("node {} has the mode {}; there are 0 to {}", i, modes[i], kMember)};
    bool member = int64_t(modes[i]) == kMember;
    if (member && out.sets.members.size() >= sets.size())
      return Error{fmt::format("membership_values has {} sets, and more nodes ask for one", sets.size())};
    t.feature.push_back(member ? features + int64_t(out.sets.members.size()) : feature[i]);
    t.value.push_back(member ? 0.5 : splits[i]);
    t.compare.push_back(member ? Compare::ge : Compare(int64_t(modes[i])));
    t.missing.push_back(!missing.empty() && missing[i] != 0);
    t.leaf.push_back(false);
    if (member) {
      out.sets.features.push_back(feature[i]);
      out.sets.members.push_back(sets[out.sets.members.size()]);
    }
  }
  t.yes.resize(count), t.no.resize(count);
  for (size_t i = 0; i < count; ++i)
    for (int way = 0; way < 2; ++way) {
      int64_t target = to[way][i], known = int64_t(ends[way][i] != 0 ? leaves : count);
      if (target < 0 || target >= known)
        return Error{fmt::format("node {} leads to {} {} of {}", i, ends[way][i] != 0 ? "leaf" : "node", target, known)};
      if (ends[way][i] != 0) {
        out.leaf_of.push_back(target);
        target = int64_t(count + out.leaf_of.size()) - 1;
      }
      (way == 0 ? t.yes : t.no)[i] = target;
    }
  for (size_t i = 0; i < out.leaf_of.size(); ++i) {
    t.yes.push_back(int64_t(count + i)), t.no.push_back(int64_t(count + i));
    t.feature.push_back(0), t.value.push_back(0), t.compare.push_back(Compare::le);
    t.missing.push_back(false), t.leaf.push_back(true);
  }
  for (size_t i = 0; i < t.size(); ++i)
    t.index.emplace(std::pair(int64_t(0), int64_t(i)), int64_t(i));
  t.roots = n.get_ints("tree_roots");
  for (int64_t root : t.roots)
    if (root < 0 || root >= int64_t(count))
      return Error{fmt::format("a tree begins at node {} of {}", root, count)};
  if (t.roots.empty())
    return Error{"it has no trees"};
  KILN_RETURN_IF_ERROR(finish_trees(t));
  return out;
}

// x with a column for each set: whether the set has the feature; NaN where the feature is NaN.
Result<Val> with_sets(OnnxNode &n, const Val &x, const Sets &sets) {
  if (sets.members.empty())
    return x;
  size_t largest = 1;
  for (const auto &list : sets.members)
    largest = std::max(largest, list.size());
  if (sets.members.size() > kMaxMembers / largest)
    return Error{fmt::format("{} sets of up to {} members are too many", sets.members.size(), largest)};
  std::vector<double> table;
  for (std::vector<double> list : sets.members) {
    list.resize(largest, std::numeric_limits<double>::quiet_NaN()); // equal to nothing
    table.insert(table.end(), list.begin(), list.end());
  }
  int64_t count = int64_t(sets.members.size());
  Val members = floats(n, table, {count, int64_t(largest)}, x.dtype());
  Val features = n.emitter().ints(sets.features);
  KILN_TRY(asked, n.emit(Op::gather, {x, features}, {{"axis", attr_int(1)}}));
  KILN_TRY(column, reshape(n.emitter(), asked, {x.dim(0), Dim(count), 1}));
  KILN_TRY(same, n.emit(Op::eq, {column, members}));
  KILN_TRY(any, n.emit(Op::reduce_any, {same}, {{"axes", attr_ints(std::vector<int64_t>{2})}, {"keepdims", false}}));
  KILN_TRY(is, convert(n.emitter(), any, x.dtype()));
  KILN_TRY(nan, n.emit(Op::is_nan, {asked}));
  KILN_TRY(known, n.emit(Op::where, {nan, asked, is}));
  return n.emit(Op::concat, {x, known}, {{"axis", attr_int(1)}});
}

} // namespace

Status import_tree_ensemble(OnnxNode &n) {
  KILN_TRY(x, feature_rows(n));
  auto features = x.dim(1).try_const();
  if (!features)
    return Error{"the number of features must be known"};
  Leaves leaves;
  leaves.targets = n.get_ints("leaf_targetids");
  KILN_TRY(weights, tensor_values(n, "leaf_weights"));
  if (weights.empty() || weights.size() != leaves.targets.size())
    return Error{"leaf_weights and leaf_targetids are not of the same length"};
  int64_t most = *std::max_element(leaves.targets.begin(), leaves.targets.end());
  int64_t targets = n.get_int("n_targets", most < INT64_MAX ? most + 1 : most);
  if (most >= targets || *std::min_element(leaves.targets.begin(), leaves.targets.end()) < 0)
    return Error{fmt::format("a leaf has a weight for another target than the {}", targets)};
  KILN_TRY(ensemble, read_ensemble(n, *features, weights.size()));
  std::vector<int64_t> ids = std::move(leaves.targets);
  leaves.targets.clear();
  size_t inner = ensemble.trees.index.size() - ensemble.leaf_of.size();
  for (size_t i = 0; i < ensemble.leaf_of.size(); ++i) {
    size_t leaf = size_t(ensemble.leaf_of[i]);
    leaves.trees.push_back(0);
    leaves.nodes.push_back(int64_t(inner + i));
    leaves.targets.push_back(ids[leaf]);
    leaves.weights.push_back(weights[leaf]);
  }
  constexpr Aggregate kAggregates[] = {Aggregate::average, Aggregate::sum, Aggregate::min, Aggregate::max};
  constexpr PostTransform kTransforms[] = {PostTransform::none, PostTransform::softmax, PostTransform::logistic,
                                           PostTransform::softmax_zero, PostTransform::probit};
  int64_t how = n.get_int("aggregate_function", 1), after = n.get_int("post_transform", 0);
  if (how < 0 || how > 3 || after < 0 || after > 4)
    return Error{"aggregate_function is 0 to 3 and post_transform 0 to 4"};
  KILN_TRY(rows, with_sets(n, x, ensemble.sets));
  KILN_TRY(at, walk(n, ensemble.trees, rows));
  KILN_TRY(sum, aggregate(n, ensemble.trees, leaves, targets, kAggregates[how], rows, at));
  KILN_TRY(scores, transform_scores(n, sum, kTransforms[after]));
  return n.finish(convert(n.emitter(), scores, n.dtype(0)));
}

} // namespace kiln::onnx
