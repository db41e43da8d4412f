// Ensembles of decision trees. The nodes of all trees lie in one set of tables; a walk of as many steps as
// the deepest tree is high takes every row through every tree at the same time:
//
//   at = roots[T]                                         spread over the rows: [N, T]
//   at = yes[at] + (x[row, feature[at]] <= value[at] ? 0 : 1)
//   ...                                                   a leaf leads to itself
//   scores[N, C] = sum over trees of weights[at, C]
//
// The children of a node lie side by side, and `yes` and `feature` in one number, so that a step looks
// up three values for each row and tree. Two kernels a step, without branches, vectorised over rows
// and trees.
#include "frontend/onnx/ml_scores.h"
#include "frontend/onnx/ml_trees.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>

namespace kiln::onnx {
namespace {

constexpr int64_t kMaxHeight = 4096;
constexpr int64_t kMaxWeights = int64_t(1) << 26; // of the table of leaves and targets

// Steps from the roots to the deepest leaf; an error for a walk that does not end or a node reached twice.
Result<int64_t> find_height(const Trees &trees) {
  std::vector<bool> seen(trees.size());
  std::vector<std::pair<int64_t, int64_t>> work;
  for (int64_t root : trees.roots)
    work.emplace_back(root, 0);
  int64_t height = 0;
  while (!work.empty()) {
    auto [at, steps] = work.back();
    work.pop_back();
    if (seen[size_t(at)])
      return Error{fmt::format("two branches lead to the node with index {}; that is no tree", at)};
    seen[size_t(at)] = true;
    height = std::max(height, steps);
    if (height > kMaxHeight)
      return Error{fmt::format("a tree is more than {} nodes high", kMaxHeight)};
    if (trees.leaf[size_t(at)])
      continue;
    work.emplace_back(trees.yes[size_t(at)], steps + 1);
    if (trees.no[size_t(at)] != trees.yes[size_t(at)])
      work.emplace_back(trees.no[size_t(at)], steps + 1);
  }
  return height;
}

Result<Compare> compare_of(std::string_view mode) {
  constexpr std::string_view kModes[] = {"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE",
                                         "BRANCH_GT",  "BRANCH_EQ", "BRANCH_NEQ"};
  for (size_t i = 0; i < std::size(kModes); ++i)
    if (mode == kModes[i])
      return Compare(i);
  return Error{fmt::format("the node mode '{}' is not known", mode)};
}

// The numbers of an attribute, or of the tensor of the same name with _as_tensor.
Result<std::vector<double>> numbers(OnnxNode &n, const std::string &name) {
  if (!n.has_attr(name + "_as_tensor"))
    return n.get_floats(name);
  KILN_TRY(tensor, n.get_tensor(name + "_as_tensor"));
  std::vector<double> out;
  for (int64_t i = 0; i < tensor.count(); ++i)
    out.push_back(tensor.at_f64(i));
  return out;
}

// The nodes level by level, the two children of each side by side: `no` is the one after `yes`. A leaf
// above the last level leads to two copies of itself, both of which stay.
void arrange(Trees &trees) {
  Trees out;
  std::vector<int64_t> depth, like; // like: the slot whose `yes` this one has too
  auto add = [&](int64_t node, int64_t at_depth) {
    out.source.push_back(node);
    out.yes.push_back(int64_t(out.yes.size()));
    depth.push_back(at_depth);
    like.push_back(-1);
    return int64_t(out.source.size()) - 1;
  };
  for (int64_t root : trees.roots)
    out.roots.push_back(add(root, 0));
  for (size_t slot = 0; slot < out.source.size(); ++slot) {
    size_t node = size_t(out.source[slot]);
    bool last = depth[slot] >= trees.height;
    if (like[slot] >= 0 || last)
      continue;
    int64_t yes = trees.yes[node], no = trees.no[node], below = trees.leaf[node] ? trees.height : depth[slot] + 1;
    int64_t first = add(yes, below), second = add(no, below);
    if (yes == no)
      like[size_t(second)] = first;
    out.yes[slot] = first;
  }
  for (size_t slot = 0; slot < out.source.size(); ++slot) {
    size_t node = size_t(out.source[slot]);
    if (like[slot] >= 0)
      out.yes[slot] = out.yes[size_t(like[slot])];
    out.feature.push_back(trees.feature[node]);
    out.value.push_back(trees.value[node]);
    out.missing.push_back(trees.missing[node]);
    out.compare.push_back(trees.compare[node]);
    out.leaf.push_back(trees.leaf[node]);
  }
  out.index = std::move(trees.index);
  out.height = trees.height;
  trees = std::move(out);
}

} // namespace

Status finish_trees(Trees &trees) {
  KILN_TRY(height, find_height(trees));
  trees.height = height;
  arrange(trees);
  return Unit{};
}

namespace {

Result<Trees> read_trees(OnnxNode &n, const Dim &features) {
  n.ignore({"nodes_hitrates", "nodes_hitrates_as_tensor"});
  auto ids = n.get_ints("nodes_nodeids"), tree_ids = n.get_ints("nodes_treeids");
  auto yes = n.get_ints("nodes_truenodeids"), no = n.get_ints("nodes_falsenodeids");
  auto modes = n.get_strings("nodes_modes");
  auto missing = n.get_ints("nodes_missing_value_tracks_true");
  Trees trees;
  trees.feature = n.get_ints("nodes_featureids");
  KILN_TRY(values, numbers(n, "nodes_values"));
  trees.value = std::move(values);
  size_t count = ids.size();
  if (count == 0 || count > kMaxTreeNodes)
    return Error{fmt::format("it has {} nodes", count)};
  if (tree_ids.size() != count || yes.size() != count || no.size() != count || modes.size() != count ||
      trees.feature.size() != count || trees.value.size() != count ||
      (!missing.empty() && missing.size() != count))
    return Error{"the attributes nodes_* are not of the same length"};
  std::map<int64_t, int64_t> roots;
  for (size_t i = 0; i < count; ++i) {
    if (!trees.index.emplace(std::pair(tree_ids[i], ids[i]), int64_t(i)).second)
      return Error{fmt::format("tree {} has the node {} twice", tree_ids[i], ids[i])};
    roots.emplace(tree_ids[i], int64_t(i)); // the first of a tree
  }
  for (auto [tree, root] : roots)
    trees.roots.push_back(root);
  trees.yes = trees.no = std::vector<int64_t>(count);
  for (size_t i = 0; i < count; ++i) {
    bool leaf = modes[i] == "LEAF";
    trees.leaf.push_back(leaf);
    trees.missing.push_back(!missing.empty() && missing[i] != 0);
    if (leaf) {
      trees.yes[i] = trees.no[i] = int64_t(i);
      trees.feature[i] = 0;
      trees.value[i] = 0;
      trees.compare.push_back(Compare::le);
      continue;
    }
    KILN_TRY(compare, compare_of(modes[i]));
    trees.compare.push_back(compare);
    if (trees.feature[i] < 0 || (features.is_const() && trees.feature[i] >= features.as_const()))
      return Error{fmt::format("node {} of tree {} asks for feature {} of {}", ids[i], tree_ids[i],
                               trees.feature[i], features.text())};
    for (auto [to, table] : {std::pair(yes[i], &trees.yes), std::pair(no[i], &trees.no)}) {
      auto it = trees.index.find({tree_ids[i], to});
      if (it == trees.index.end())
        return Error{fmt::format("node {} of tree {} leads to node {}, which is not there", ids[i],
                                 tree_ids[i], to)};
      (*table)[i] = it->second;
    }
  }
  KILN_RETURN_IF_ERROR(finish_trees(trees));
  return trees;
}

Val table(OnnxNode &n, const std::vector<int64_t> &values) {
  Tensor tensor(DType::i32, {int64_t(values.size())});
  for (size_t i = 0; i < values.size(); ++i)
    tensor.set_i64(int64_t(i), values[i]);
  return n.emitter().constant(std::move(tensor));
}

Val flags(OnnxNode &n, size_t size, const std::function<bool(size_t)> &f) {
  Tensor tensor(DType::bool_, {int64_t(size)});
  for (size_t i = 0; i < size; ++i)
    tensor.set_i64(int64_t(i), f(i));
  return n.emitter().constant(std::move(tensor));
}

Result<Val> look_up(OnnxNode &n, const Val &values, const Val &at) {
  return n.emit(Op::gather, {values, at}, {{"axis", attr_int(0)}});
}

// Where x goes to `yes`.
Result<Val> takes_yes(OnnxNode &n, const Trees &trees, const Val &x, const Val &value, const Val &at) {
  constexpr Op kOps[] = {Op::le, Op::lt, Op::ge, Op::gt, Op::eq, Op::ne};
  std::vector<bool> used(std::size(kOps));
  for (size_t i = 0; i < trees.size(); ++i)
    used[size_t(trees.compare[i])] = used[size_t(trees.compare[i])] || !trees.leaf[i];
  std::optional<Val> out;
  for (size_t c = 0; c < std::size(kOps); ++c) {
    if (!used[c])
      continue;
    KILN_TRY(here, n.emit(kOps[c], {x, value}));
    if (!out) {
      out = here;
      continue;
    }
    Val is_mode = flags(n, trees.size(), [&](size_t i) { return size_t(trees.compare[i]) == c; });
    KILN_TRY(mode, look_up(n, is_mode, at));
    KILN_TRY(chosen, n.emit(Op::where, {mode, here, *out}));
    out = chosen;
  }
  if (!out) // leaves only
    return n.emit(Op::le, {x, value});
  if (std::find(trees.missing.begin(), trees.missing.end(), true) == trees.missing.end())
    return *out;
  KILN_TRY(nan, n.emit(Op::is_nan, {x}));
  KILN_TRY(missing, look_up(n, flags(n, trees.size(), [&](size_t i) { return bool(trees.missing[i]); }), at));
  KILN_TRY(leads, n.emit(Op::logical_and, {nan, missing}));
  return n.emit(Op::logical_or, {*out, leads});
}

// Bits that hold 0 to the largest of these.
int bits_of(const std::vector<int64_t> &values) {
  int64_t most = values.empty() ? 0 : *std::max_element(values.begin(), values.end());
  return int(std::bit_width(uint64_t(most)));
}

} // namespace

Result<Val> walk(OnnxNode &n, const Trees &trees, const Val &x) {
  int bits = bits_of(trees.feature);
  bool packed = bits + bits_of(trees.yes) < 32;
  std::vector<int64_t> both = trees.yes;
  for (size_t i = 0; packed && i < both.size(); ++i)
    both[i] = both[i] << bits | trees.feature[i];
  Val feature = table(n, trees.feature), next = table(n, both);
  Val value = floats(n, trees.value, {int64_t(trees.size())}, x.dtype());
  auto number = [&](int64_t v) { return n.emitter().scalar(DType::i32, double(v)); };
  Shape whole = {x.dim(0), Dim(int64_t(trees.roots.size()))};
  Val roots = table(n, trees.roots);
  KILN_TRY(at, broadcast_to(n.emitter(), roots, whole));
  for (int64_t step = 0; step < trees.height; ++step) {
    // At the roots everything but x is known.
    const Val &place = step == 0 ? roots : at;
    KILN_TRY(to, look_up(n, next, place));
    KILN_TRY(which, packed ? n.emit(Op::bitwise_and, {to, number((int64_t(1) << bits) - 1)})
                           : look_up(n, feature, place));
    KILN_TRY(yes, packed ? n.emit(Op::shift_right, {to, number(bits)}) : Result<Val>(to));
    KILN_TRY(here, step == 0 ? n.emit(Op::gather, {x, which}, {{"axis", attr_int(1)}})
                             : n.emit(Op::gather_elements, {x, which}, {{"axis", attr_int(1)}}));
    KILN_TRY(limit, look_up(n, value, place));
    KILN_TRY(takes, takes_yes(n, trees, here, limit, place));
    KILN_TRY(other, n.emit(Op::logical_not, {takes}));
    KILN_TRY(past, convert(n.emitter(), other, DType::i32));
    KILN_TRY(next_place, n.emit(Op::add, {yes, past}));
    at = next_place;
  }
  return at;
}

namespace {

Result<Leaves> read_leaves(OnnxNode &n, const std::string &what, int64_t target_count) {
  Leaves out;
  out.trees = n.get_ints(what + "_treeids");
  out.nodes = n.get_ints(what + "_nodeids");
  out.targets = n.get_ints(what + "_ids");
  KILN_TRY(weights, numbers(n, what + "_weights"));
  out.weights = std::move(weights);
  size_t count = out.weights.size();
  if (out.trees.size() != count || out.nodes.size() != count || out.targets.size() != count)
    return Error{fmt::format("the attributes {}_* are not of the same length", what)};
  for (int64_t t : out.targets)
    if (t < 0 || t >= target_count)
      return Error{fmt::format("a leaf has a weight for {} {} of {}", what, t, target_count)};
  return out;
}

} // namespace

Result<Val> aggregate(OnnxNode &n, const Trees &trees, const Leaves &leaves, int64_t targets, Aggregate how,
                      const Val &x, const Val &at) {
  int64_t nodes = int64_t(trees.index.size()), slots = int64_t(trees.size());
  if (targets > kMaxWeights / slots)
    return Error{fmt::format("{} nodes times {} targets is too large a table", nodes, targets)};
  bool adds = how == Aggregate::sum || how == Aggregate::average;
  double infinity = std::numeric_limits<double>::infinity();
  std::vector<double> weights(size_t(nodes * targets),
                              adds ? 0 : how == Aggregate::min ? infinity : -infinity);
  for (size_t i = 0; i < leaves.weights.size(); ++i) {
    auto it = trees.index.find({leaves.trees[i], leaves.nodes[i]});
    if (it == trees.index.end())
      return Error{fmt::format("tree {} has no node {}, which has a weight", leaves.trees[i], leaves.nodes[i])};
    double &w = weights[size_t(it->second * targets + leaves.targets[i])];
    w = adds ? w + leaves.weights[i] : how == Aggregate::min ? std::min(w, leaves.weights[i]) : std::max(w, leaves.weights[i]);
  }
  std::vector<double> table;
  for (int64_t node : trees.source)
    table.insert(table.end(), weights.begin() + node * targets, weights.begin() + (node + 1) * targets);
  Op op = adds ? Op::reduce_sum : how == Aggregate::min ? Op::reduce_min : Op::reduce_max;
  std::vector<int64_t> shape = {slots};
  if (targets > 1)
    shape.push_back(targets);
  KILN_TRY(each, look_up(n, floats(n, table, shape, x.dtype()), at));
  KILN_TRY(sum, n.emit(op, {each}, {{"axes", attr_ints(std::vector<int64_t>{1})}, {"keepdims", targets == 1}}));
  if (how != Aggregate::average)
    return sum;
  return n.emit(Op::div, {sum, n.emitter().scalar(x.dtype(), double(trees.roots.size()))});
}

namespace {

Result<Val> add_base(OnnxNode &n, const Val &scores, int64_t targets) {
  KILN_TRY(base, numbers(n, "base_values"));
  if (base.empty())
    return scores;
  if (base.size() != 1 && int64_t(base.size()) != targets)
    return Error{fmt::format("it has {} base values for {} targets", base.size(), targets)};
  return n.emit(Op::add, {scores, floats(n, base, {int64_t(base.size())}, scores.dtype())});
}

// One score s of two classes: 1 - s and s where s is a probability as it is, else -s and s.
Result<Val> two_classes(OnnxNode &n, const Val &score, bool probability, PostTransform transform) {
  DType t = score.dtype();
  probability &= transform == PostTransform::none || transform == PostTransform::probit;
  KILN_TRY(other, probability ? n.emit(Op::sub, {n.emitter().scalar(t, 1), score}) : n.emit(Op::neg, {score}));
  KILN_TRY(both, n.emit(Op::concat, {other, score}, {{"axis", attr_int(1)}}));
  return transform_scores(n, both, transform);
}

} // namespace

Status import_tree_ensemble_regressor(OnnxNode &n) {
  KILN_TRY(x, feature_rows(n));
  int64_t targets = n.get_int("n_targets", 1);
  if (targets < 1)
    return Error{fmt::format("'n_targets' is {}", targets)};
  std::string function = n.get_string("aggregate_function", "SUM");
  constexpr std::string_view kNames[] = {"SUM", "AVERAGE", "MIN", "MAX"};
  auto name = std::find(std::begin(kNames), std::end(kNames), function);
  if (name == std::end(kNames))
    return Error{fmt::format("'aggregate_function' is '{}'; there are SUM, AVERAGE, MIN and MAX", function)};
  KILN_TRY(transform, post_transform(n));
  KILN_TRY(trees, read_trees(n, x.dim(1)));
  KILN_TRY(leaves, read_leaves(n, "target", targets));
  KILN_TRY(at, walk(n, trees, x));
  KILN_TRY(sum, aggregate(n, trees, leaves, targets, Aggregate(name - std::begin(kNames)), x, at));
  KILN_TRY(scores, add_base(n, sum, targets));
  KILN_TRY(out, transform_scores(n, scores, transform));
  return n.finish(convert(n.emitter(), out, DType::f32));
}

Status import_tree_ensemble_classifier(OnnxNode &n) {
  KILN_TRY(x, feature_rows(n));
  KILN_TRY(labels, class_labels(n, "classlabels_int64s"));
  KILN_TRY(transform, post_transform(n));
  KILN_TRY(trees, read_trees(n, x.dim(1)));
  int64_t classes = int64_t(labels.size());
  KILN_TRY(leaves, read_leaves(n, "class", std::max<int64_t>(classes, 2)));
  bool one_score = classes == 2 && !leaves.targets.empty() &&
                   std::all_of(leaves.targets.begin(), leaves.targets.end(),
                               [&](int64_t t) { return t == leaves.targets[0]; });
  if (classes < 2)
    return Error{"it has one class label; two are the least"};
  if (one_score)
    std::fill(leaves.targets.begin(), leaves.targets.end(), 0);
  int64_t columns = one_score ? 1 : classes;
  KILN_TRY(at, walk(n, trees, x));
  KILN_TRY(sum, aggregate(n, trees, leaves, columns, Aggregate::sum, x, at));
  KILN_TRY(raw, add_base(n, sum, columns));
  KILN_TRY(scores, convert(n.emitter(), raw, DType::f32));
  if (!one_score) {
    KILN_TRY(label, best_label(n, scores, labels));
    KILN_RETURN_IF_ERROR(set_label(n, label));
    KILN_TRY(out, transform_scores(n, scores, transform));
    n.set(1, out);
    return Unit{};
  }
  bool probability = std::all_of(leaves.weights.begin(), leaves.weights.end(), [](double w) { return w >= 0; });
  KILN_TRY(positive, n.emit(Op::gt, {scores, n.emitter().scalar(DType::f32, probability ? 0.5 : 0)}));
  KILN_TRY(flat, reshape(n.emitter(), positive, {x.dim(0)}));
  KILN_TRY(which, convert(n.emitter(), flat, DType::i64));
  KILN_TRY(label, pick_labels(n, which, labels));
  KILN_RETURN_IF_ERROR(set_label(n, label));
  KILN_TRY(out, two_classes(n, scores, probability, transform));
  n.set(1, out);
  return Unit{};
}

} // namespace kiln::onnx
