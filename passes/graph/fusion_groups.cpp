#include "passes/graph/fusion_groups.h"

#include "ir/ops/op.h"
#include "passes/graph/rewrite.h"

#include <algorithm>
#include <map>
#include <queue>

namespace kiln {
namespace {

constexpr size_t kMaxVisited = 512; // units searched for a cycle before a group is given up

// Rows of a product that follow each other at a step of so many bytes, or a multiple, share a few sets of the
// caches, and so many of them do not stay there until the next rows need the same lines. One transposed copy of
// them is dearer than what it saves where it feeds fewer columns.
constexpr int64_t kSharedSets = 4096, kMostShared = 256, kLeastColumns = 128;

// Whether operand 0 of a dot, a transposed matrix, is read with that step.
bool rows_share_sets(const Function &f, const Node &dot, const Node &permute) {
  const TensorType &read = f.type(permute.operands[0]);
  const auto &dims = permute.attrs.get_dims("dims");
  size_t rank = dims.size();
  if (rank < 2 || !dims[rank - 1].is_const(int64_t(rank) - 2) || !dims[rank - 2].is_const(int64_t(rank) - 1))
    return false;
  auto rows = read.shape[rank - 1].try_const(), steps = read.shape[rank - 2].try_const(),
       columns = f.type(dot.results[0]).shape.back().try_const();
  return rows && steps && columns && *columns >= kLeastColumns && *steps > kMostShared &&
         *rows * int64_t(dtype_bytes(read.dtype)) % kSharedSets == 0;
}

} // namespace

bool widens_for_product(const Function &function, const Node &product, ValueId operand) {
  const Node *n = function.def(operand);
  if ((product.op != Op::dot && product.op != Op::conv) || !n || n->op != Op::convert)
    return false;
  DType from = function.type(n->operands[0]).dtype, to = function.type(operand).dtype;
  return ((from == DType::bf16 || from == DType::f16) && to == DType::f32) || ((from == DType::i8 || from == DType::u8) && to == DType::i32);
}

bool has_ordered_effect(const Function &function, const Node &node) {
  if (op_def(node.op).has(kSideEffect))
    return true;
  for (const Block &region : node.regions)
    for (NodeId id : region.nodes)
      if (has_ordered_effect(function, function.node(id)))
        return true;
  return false;
}

BlockFuser::BlockFuser(Module &module, Function &function, Block &block, bool merge_heads, bool gpu)
    : module_(module), function_(function), block_(block), merge_heads_(merge_heads), gpu_(gpu) {
  index_block();
}

bool BlockFuser::run() {
  int count = int(block_.nodes.size());
  // What holds two contractions is taken whole, before either is taken alone.
  for (int p = 0; p < count; ++p)
    if (node(p).op == Op::dot && is_free(p))
      fuse_attention(p);
  // Contractions first: what can be computed in registers on the way out is never better elsewhere.
  for (int p = 0; p < count; ++p)
    if (const OpDef &def = op_def(node(p).op); def.reduce && !def.has(kReduction) && is_free(p))
      fuse_contraction(p);
  for (int p = 0; p < count; ++p)
    if (op_def(node(p).op).has(kEpilogue) && is_free(p))
      fuse_epilogue(p);
  for (int p = 0; p < count; ++p)
    if (op_def(node(p).op).has(kReduction) && op_def(node(p).op).reduce && is_free(p) &&
        trailing_axes(function_, node(p)) > 0)
      fuse_rows(p);
  join_rows();
  for (int p = 0; p < count; ++p)
    if (op_def(node(p).op).has(kReduction) && op_def(node(p).op).reduce && is_free(p))
      fuse_reduction(p);
  for (int p = 0; p < count; ++p)
    if (op_def(node(p).op).lower && (op_def(node(p).op).has(kMovement) || node(p).op == Op::pad) &&
        is_free(p))
      fuse_lower(p);
  fuse_elementwise();
  return build();
}

void BlockFuser::index_block() {
  size_t count = block_.nodes.size();
  position_.assign(function_.values.size(), -1);
  users_.resize(count);
  effects_after_.resize(count);
  escapes_.resize(count);
  inputs_.resize(count);
  seen_.resize(count);
  group_.assign(count, -1);
  index_.resize(count);
  int last_effect = -1;
  std::map<Symbol, int> sizes; // that a node of the block binds: whoever mentions one uses that node
  auto use = [&](int d, size_t p) {
    if (d >= 0 && d != int(p) && (users_[size_t(d)].empty() || users_[size_t(d)].back() != int(p)))
      users_[size_t(d)].push_back(int(p));
  };
  for (size_t p = 0; p < count; ++p) {
    const Node &n = node(int(p));
    for (ValueId r : n.results)
      position_[size_t(r)] = int(p);
    if (!sizes.empty()) {
      auto mention = [&](Symbol s) {
        if (auto it = sizes.find(s); it != sizes.end())
          use(it->second, p);
      };
      for_each_size(function_, n, mention);
      for (const Block &region : n.regions)
        for_each_node(function_, region, [&](NodeId id) { for_each_size(function_, function_.node(id), mention); });
    }
    if (n.op == Op::bind_size)
      sizes.emplace(Symbol(n.attrs.get_string("symbol")), int(p));
    inputs_[p] = n.operands;
    for (const Block &region : n.regions) {
      for_each_node(function_, region, [&](NodeId id) {
        const auto &operands = function_.node(id).operands;
        inputs_[p].insert(inputs_[p].end(), operands.begin(), operands.end());
        for (const Block &inner : function_.node(id).regions)
          inputs_[p].insert(inputs_[p].end(), inner.results.begin(), inner.results.end());
      });
      inputs_[p].insert(inputs_[p].end(), region.results.begin(), region.results.end());
    }
    for (ValueId v : inputs_[p])
      use(def(v), p);
    if (has_ordered_effect(function_, n)) {
      if (last_effect >= 0)
        effects_after_[size_t(last_effect)].push_back(int(p));
      last_effect = int(p);
    }
  }
  for (ValueId r : block_.results)
    if (int d = def(r); d >= 0)
      escapes_[size_t(d)] = true;
}

int BlockFuser::def(ValueId value) const {
  return position_[size_t(value)];
}

bool BlockFuser::is_scalar(int p) const {
  return op_def(node(p).op).scalar && node(p).results.size() == 1;
}

bool BlockFuser::is_output(int p, const std::set<int> &members) const {
  return escapes_[size_t(p)] ||
         !std::all_of(users(p).begin(), users(p).end(), [&](int u) { return members.contains(u); });
}

bool BlockFuser::used_only_in(int p, const std::set<int> &members) const {
  return !is_output(p, members);
}

size_t BlockFuser::output_count(const std::set<int> &members) const {
  return size_t(
      std::count_if(members.begin(), members.end(), [&](int p) { return is_output(p, members); }));
}

// Whether nothing outside that follows a member leads back to one. Groups count as one node each.
bool BlockFuser::is_convex(const std::set<int> &members) {
  ++epoch_;
  for (int p : members)
    seen_[size_t(p)] = epoch_;
  std::vector<int> work(members.begin(), members.end());
  size_t visited = 0;
  auto visit = [&](int p) {
    if (seen_[size_t(p)] == epoch_)
      return;
    seen_[size_t(p)] = epoch_;
    work.push_back(p);
    ++visited;
  };
  for (size_t i = 0; i < work.size(); ++i) {
    for (const auto *next : {&users_[size_t(work[i])], &effects_after_[size_t(work[i])]})
      for (int u : *next) {
        if (members.contains(u)) {
          if (i >= members.size())
            return false;
          continue;
        }
        if (group_[size_t(u)] < 0)
          visit(u);
        else
          for (int m : groups_[size_t(group_[size_t(u)])].members)
            if (!members.contains(m))
              visit(m);
      }
    if (visited > kMaxVisited)
      return false;
  }
  return true;
}

bool BlockFuser::is_unit_reshape(int p) const {
  const Node &n = node(p);
  return n.op == Op::reshape && squeezed(function_.type(n.operands[0]).shape) == squeezed(shape(p));
}

int BlockFuser::add_group(Kind kind, std::set<int> members) {
  for (int p : members)
    group_[size_t(p)] = int(groups_.size());
  groups_.push_back({kind, std::move(members)});
  return int(groups_.size()) - 1;
}

std::set<int> BlockFuser::grow_forward(int root, size_t max_results,
                                       const std::function<bool(int)> &joins) {
  std::set<int> members = {root}, best = members;
  std::priority_queue<int, std::vector<int>, std::greater<>> next;
  std::set<int> queued;
  auto push_users = [&](int p) {
    for (int u : users(p))
      if (is_free(u) && !node(u).results.empty() && queued.insert(u).second)
        next.push(u);
  };
  // `joins` sees the nodes accepted so far through group_.
  int candidate = add_group(Kind::contraction, {root});
  push_users(root);
  while (!next.empty() && members.size() < kMaxMembers) {
    int u = next.top();
    next.pop();
    if (node(u).results.empty() || !joins(u)) // an assign has none
      continue;
    members.insert(u);
    group_[size_t(u)] = candidate;
    push_users(u);
    size_t outputs = output_count(members);
    if (outputs == 1 || (outputs <= max_results && is_convex(members)))
      best = members;
  }
  for (int p : members)
    group_[size_t(p)] = -1;
  groups_.pop_back();
  return best;
}

void BlockFuser::grow_backward(std::set<int> &members, const std::function<bool(int)> &joins) {
  std::priority_queue<int> next;
  std::set<int> queued;
  auto push_inputs = [&](int p) {
    for (ValueId v : node(p).operands)
      if (int d = def(v); d >= 0 && is_free(d) && !members.contains(d) && queued.insert(d).second)
        next.push(d);
  };
  for (int p : members)
    push_inputs(p);
  while (!next.empty() && members.size() < kMaxMembers) {
    int p = next.top();
    next.pop();
    if (!used_only_in(p, members) || !joins(p))
      continue;
    members.insert(p);
    push_inputs(p);
  }
}

// Reshapes, permutes and broadcasts of captured values: offsets stay linear in the index of the
// member that reads through them.
void BlockFuser::absorb_views(std::set<int> &members, const std::set<int> &readers, size_t inner) {
  for (int reader : readers) {
    for (ValueId operand : node(reader).operands) {
      IndexSpace space = index_space(function_.type(operand).shape);
      if (inner > 0)
        std::erase_if(space.symbols, [&](Symbol s) {
          return std::find(space.index.begin(), space.index.end(), Dim::symbol(s)) -
                     space.index.begin() + std::ptrdiff_t(inner) <
                 std::ptrdiff_t(space.index.size());
        });
      std::vector<Dim> index = space.index;
      for (int p = def(operand);
           p >= 0 && is_view(node(p)) && is_free(p) && !members.contains(p);) {
        if (!used_only_in(p, members))
          break;
        if (!gpu_ && node(reader).op == Op::dot && operand == node(reader).operands[0] && node(p).op == Op::permute &&
            rows_share_sets(function_, node(reader), node(p)))
          break;
        int from = def(node(p).operands[0]);
        if (from >= 0 && members.contains(from)) // computed again at another index
          break;
        auto at = operand_index(function_, node(p), 0, index, space.ranges);
        const Shape &source = function_.type(node(p).operands[0]).shape;
        if (!at || !is_linear(simplify(physical_offset(source, {}, *at), space.ranges), space))
          break;
        members.insert(p);
        index = std::move(*at);
        p = from;
      }
    }
  }
}

// An operand of a dot may also be merged from dims that a permute has taken apart ([B, H, L, D] as
// [B, L, H * D]): the layout pass then has the producer write them in the order in which they
// merge.
void BlockFuser::absorb_dot_views(std::set<int> &members, int root) {
  std::set<int> readers = {root};
  if (gpu_)
    for (ValueId operand : node(root).operands)
      if (int p = def(operand); p >= 0 && members.contains(p) && node(p).op == Op::convert)
        readers.insert(p);
  absorb_views(members, readers);
  if (!merge_heads_)
    return;
  for (ValueId operand : node(root).operands) {
    int merge = def(operand);
    if (merge < 0 || node(merge).op != Op::reshape || !is_free(merge) ||
        !used_only_in(merge, {root}) || members.contains(merge))
      continue;
    int permute = def(node(merge).operands[0]);
    if (permute < 0 || node(permute).op != Op::permute || !is_free(permute) ||
        !used_only_in(permute, {merge}))
      continue;
    // Whoever makes it must be a kernel that nothing else reads.
    int source = def(node(permute).operands[0]);
    if (source < 0 || !used_only_in(source, {permute}) || !op_def(node(source).op).reduce ||
        node(source).op == Op::reshape)
      continue;
    members.insert(merge);
    members.insert(permute);
  }
}

// Weights that are kept in fewer bits are converted as they are loaded. So is what else of a product is, for GPUs: their tensor
// cores multiply what there was before.
void BlockFuser::absorb_weights(std::set<int> &members, int root) {
  if (node(root).operands.size() < 2)
    return;
  int p = def(node(root).operands[1]);
  if (p >= 0 && node(root).op == Op::dot && unpacks(function_, node(root).operands[1])) {
    std::set<int> made = {root};
    grow_backward(made, [&](int i) {
      ValueId v = node(i).results.empty() ? ValueId() : node(i).results[0];
      return v.valid() && !node(i).operands.empty() && v != node(root).operands[0] && is_made_of_constants(function_, v);
    });
    if (made.contains(p))
      members.insert(made.begin(), made.end());
    return;
  }
  if (gpu_)
    for (size_t i = 0; i < 2; ++i)
      if (int narrow = def(node(root).operands[i]);
          narrow >= 0 && is_free(narrow) && used_only_in(narrow, {root}) && widens_for_product(function_, node(root), node(root).operands[i]))
        members.insert(narrow);
  if (p < 0 || node(p).op != Op::convert || !is_free(p) || !used_only_in(p, {root}))
    return;
  int source = def(node(p).operands[0]);
  if (source >= 0 && node(source).op == Op::constant)
    members.insert(p);
}

// What computes the other operands of the ops behind a contraction, element by element, and is used
// nowhere else: a residual that is kept as codes of 8 bits.
void BlockFuser::absorb_operands(std::set<int> &members, int root) {
  const Shape space = shape(root);
  std::vector<int> work;
  auto feeds_root = [&](int p) {
    const auto &operands = node(root).operands;
    return std::any_of(operands.begin(), operands.end(), [&](ValueId v) { return def(v) == p; });
  };
  auto push_inputs = [&](int p) {
    for (ValueId v : node(p).operands)
      if (int d = def(v); d >= 0 && is_free(d) && !members.contains(d))
        work.push_back(d);
  };
  for (int p : members)
    if (p != root)
      push_inputs(p);
  while (!work.empty() && members.size() < kMaxMembers) {
    int p = work.back();
    work.pop_back();
    if (members.contains(p) || !is_scalar(p) || op_def(node(p).op).has(kExpensive) ||
        shape(p) != space || dtype_bits(function_.type(node(p).results[0]).dtype) == 8 || feeds_root(p) || !used_only_in(p, members))
      continue;
    members.insert(p);
    push_inputs(p);
  }
}

// Codes of 8 bits are where a kernel ends: nothing is smaller in memory.
bool BlockFuser::is_widening(int p) const {
  const Node &n = node(p);
  return n.op == Op::convert && dtype_bits(function_.type(n.operands[0]).dtype) == 8 &&
         is_integer(function_.type(n.operands[0]).dtype);
}

void BlockFuser::fuse_contraction(int root) {
  Shape space = squeezed(shape(root));
  auto members = grow_forward(root, 1, [&](int u) {
    return (is_scalar(u) && !is_widening(u) && squeezed(shape(u)) == space) || is_unit_reshape(u);
  });
  // A reshape that ends the group is free outside.
  while (members.size() > 1 && is_unit_reshape(*members.rbegin()))
    members.erase(std::prev(members.end()));
  absorb_operands(members, root);
  std::set<int> epilogue = members;
  epilogue.erase(root);
  absorb_views(members, epilogue);
  absorb_weights(members, root);
  if (node(root).op == Op::dot)
    absorb_dot_views(members, root);
  add_group(Kind::contraction, std::move(members));
}

void BlockFuser::fuse_rows(int root) {
  const Shape space = function_.type(node(root).operands[0]).shape;
  size_t inner = size_t(trailing_axes(function_, node(root)));
  Shape kept(space.begin(), space.end() - std::ptrdiff_t(inner)), dropped = kept;
  kept.resize(space.size(), Dim(1));
  auto is_full = [&](const Shape &s) { return s == space; };
  auto is_row = [&](const Shape &s) { return s == kept || s == dropped; };
  // Rows whose reduced dims were dropped only meet each other.
  auto operands_fit = [&](int p) {
    for (ValueId v : node(p).operands) {
      const Shape &s = function_.type(v).shape;
      if (is_full(shape(p)) && s.size() != space.size() && def(v) >= 0 &&
          group_[size_t(def(v))] >= 0 && group_[size_t(def(v))] == int(groups_.size()) - 1)
        return false;
    }
    return true;
  };
  auto members = grow_forward(root, kMaxResults, [&](int u) {
    const Node &n = node(u);
    const Shape &s = shape(u);
    if (op_def(n.op).has(kReduction) && op_def(n.op).reduce)
      return function_.type(n.operands[0]).shape == space &&
             size_t(trailing_axes(function_, n)) == inner;
    if (n.op == Op::reshape)
      return is_unit_reshape(u) && is_row(s) && is_row(function_.type(n.operands[0]).shape);
    if (n.op == Op::broadcast_to)
      return is_full(s) && function_.type(n.operands[0]).shape == kept;
    return is_scalar(u) && (is_full(s) || is_row(s)) && operands_fit(u);
  });
  while (members.size() > 1 && node(*members.rbegin()).op == Op::reshape)
    members.erase(std::prev(members.end()));
  grow_backward(members, [&](int p) {
    if (!is_scalar(p))
      return false;
    const Shape &s = shape(p);
    // What is smaller than a row's worth is computed again for each row.
    return is_full(s) || (s == kept) ||
           (s.size() <= space.size() && !op_def(node(p).op).has(kExpensive) && s != dropped);
  });
  absorb_views(members, std::set<int>(members));
  add_group(Kind::rows, std::move(members));
}

void BlockFuser::fuse_reduction(int root) {
  Shape space = squeezed(shape(root));
  auto members = grow_forward(root, 1, [&](int u) {
    return (is_scalar(u) && squeezed(shape(u)) == space) || is_unit_reshape(u);
  });
  while (members.size() > 1 && is_unit_reshape(*members.rbegin()))
    members.erase(std::prev(members.end()));
  const Shape &from = function_.type(node(root).operands[0]).shape;
  grow_backward(members, [&](int p) {
    return is_scalar(p) && (shape(p) == from || !op_def(node(p).op).has(kExpensive));
  });
  absorb_views(members, std::set<int>(members));
  add_group(Kind::reduction, std::move(members));
}

void BlockFuser::fuse_epilogue(int root) {
  auto members = grow_forward(root, 1, [&](int u) { return is_scalar(u) && shape(u) == shape(root); });
  std::set<int> epilogue = members;
  epilogue.erase(root);
  absorb_views(members, epilogue);
  add_group(Kind::lower, std::move(members));
}

// Ops that copy their operands take what computes these along: each element is read once.
void BlockFuser::fuse_lower(int root) {
  std::set<int> members = {root};
  grow_backward(members, [&](int p) {
    const Node &n = node(p);
    return is_scalar(p) || (n.op == Op::resize && n.attrs.get_string("mode") == "nearest");
  });
  absorb_views(members, std::set<int>(members));
  add_group(Kind::lower, std::move(members));
}

} // namespace kiln
