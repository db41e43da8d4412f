// Chooses how every value lies in memory (ir/type.h: Layout), for any machine with vectors.
//
//   x: f32[1, 64, 56, 56]  y = conv(x, w), padded by 1
//     ->  x {block 1:16, halo 2:1:1, halo 3:1:1}, w {block 1:16, block 0:16}, y {block 1:16}
//
// Convolutions make and take activations with blocked channels, except where rows of pixels cost less
// (layout_choice.h); what stands between them keeps that, and what does not care about it follows its
// users. Whoever makes the input of a padded convolution leaves a halo of zeros around it, so that no kernel tests for edges. Constant
// operands of convolutions and dots are packed as their kernels read them. Where one value is
// wanted in two ways, or comes from outside (arguments, constants), a `relayout` copies it: one for
// each layout. Runs after fuse, once.
#include "passes/graph/index_map.h"
#include "passes/graph/layout_choice.h"
#include "passes/graph/layout_roles.h"
#include "passes/graph/rewrite.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <map>
#include <set>

namespace kiln {
namespace {

class BlockLayout {
public:
  BlockLayout(Module &module, Function &function, Block &block, const PassFlags &flags)
      : module_(module), function_(function), block_(block), flags_(flags), channels_(flags.block),
        pairs_(flags.bf16_dots) {}

  Changed run() {
    collect();
    for (NodeId id : block_.nodes)
      choose_result(id);
    for (NodeId id : block_.nodes)
      gather_halos(id);
    for (size_t i = block_.nodes.size(); i-- > 0;)
      share_halos(block_.nodes[i]);
    set_layouts();
    merge_heads();
    for (size_t i = 0; i < block_.nodes.size(); ++i)
      i = adapt_operands(i);
    restore_results();
    return changed_;
  }

private:
  struct Use {
    NodeId node;
    size_t operand;
  };
  struct State {
    bool blocked = false;
    bool fixed = true;     // cannot be anything but row-major: not made by a kernel of this block
    bool captured = false; // by a region
    bool exact = false;    // somebody needs it row-major without a halo
    Padding halo[2];       // that users of its planar and blocked form read
    std::map<std::string, ValueId> copies;
  };

  void collect() {
    for (NodeId id : block_.nodes)
      wants_.emplace(id, kernel_wants(function_, id, channels_, pairs_));
    if (!flags_.gpu)
      for (auto [id, form] : conv_forms(module_, function_, block_, wants_, flags_))
        wants_.at(id) = kernel_wants(function_, id, channels_, pairs_, form);
    for (NodeId id : block_.nodes) {
      const Node &node = function_.node(id);
      const OpDef &def = op_def(node.op);
      for (ValueId r : node.results)
        state_[r].fixed = (def.structural && node.op != Op::fusion) ||
                          (wants_.at(id).makes == Makes::planar && node.op != Op::fusion &&
                           !def.reduce && !def.element && !def.scalar);
      for (size_t i = 0; i < node.operands.size(); ++i) {
        uses_[node.operands[i]].push_back({id, i});
        if (wants_.at(id).operands[i] == Want::exact)
          state_[node.operands[i]].exact = true;
      }
      if (node.op != Op::fusion)
        for (const Block &region : node.regions)
          mark_captured(region);
    }
    for (ValueId r : block_.results)
      state_[r].exact = true;
  }

  void mark_captured(const Block &region) {
    auto mark = [&](ValueId v) { state_[v].exact = state_[v].captured = state_[v].fixed = true; };
    for_each_node(function_, region, [&](NodeId id) {
      for (ValueId v : function_.node(id).operands)
        mark(v);
      for (const Block &inner : function_.node(id).regions)
        for (ValueId v : inner.results)
          mark(v);
    });
    for (ValueId v : region.results)
      mark(v);
  }

  void choose_result(NodeId id);
  void gather_halos(NodeId id);
  void share_halos(NodeId id);
  void set_layouts();
  void merge_heads();
  void permute_in_place(const Node &permute);
  size_t adapt_operands(size_t position);
  size_t pack_captured(size_t position);
  void restore_results();

  bool wants_blocks(ValueId v, bool &everyone_planar) const;
  Layout layout_of(ValueId v, bool blocked);
  ValueId in_layout(ValueId v, const Layout &layout, size_t &position);
  ValueId packed_constant(ValueId v, const Layout &layout, size_t &position);

  Module &module_;
  Function &function_;
  Block &block_;
  const PassFlags &flags_;
  int64_t channels_;
  bool pairs_;
  std::map<NodeId, KernelWants> wants_;
  std::map<ValueId, std::vector<Use>> uses_;
  std::map<ValueId, State> state_;
  Changed changed_ = Changed::no;
};

bool BlockLayout::wants_blocks(ValueId v, bool &everyone_planar) const {
  bool some = false, all_planar = false, neutral = false;
  if (auto it = uses_.find(v); it != uses_.end())
    for (auto [id, i] : it->second) {
      const KernelWants &wants = wants_.at(id);
      Want want = wants.operands[i];
      if (want == Want::match && wants.makes == Makes::blocked)
        want = element_count(function_.type(v).shape) ==
                       element_count(function_.type(function_.node(id).results[0]).shape)
                   ? Want::blocked
                   : Want::any;
      some |= want == Want::blocked;
      all_planar |= want == Want::planar || want == Want::exact;
      neutral |= want == Want::match || want == Want::any;
    }
  if (auto it = state_.find(v); it != state_.end())
    all_planar |= it->second.exact;
  everyone_planar = all_planar && !some && !neutral;
  return some;
}

void BlockLayout::choose_result(NodeId id) {
  const Node &node = function_.node(id);
  const KernelWants &wants = wants_.at(id);
  for (ValueId r : node.results) {
    State &state = state_[r];
    if (wants.makes == Makes::planar || state.fixed || !can_block(function_.type(r)))
      continue;
    bool everyone_planar = false;
    bool wanted = wants_blocks(r, everyone_planar);
    bool inherited = false;
    for (size_t i = 0; i < node.operands.size(); ++i)
      inherited |= wants.operands[i] == Want::match && state_[node.operands[i]].blocked;
    switch (wants.makes) {
    case Makes::blocked:
      state.blocked = true;
      break;
    case Makes::as_read: // statistics of a channel are read once more than they are written
      state.blocked = wanted || inherited;
      break;
    case Makes::inherits:
      state.blocked = wanted || (inherited && !everyone_planar);
      break;
    default:
      state.blocked = wanted;
    }
  }
}

void grow(std::vector<int64_t> &to, const std::vector<int64_t> &by) {
  to.resize(std::max(to.size(), by.size()));
  for (size_t i = 0; i < by.size(); ++i)
    to[i] = std::max(to[i], by[i]);
}

// GPUs test for edges as they copy tiles; the launches that would fill halos with zeros take longer than that.
void BlockLayout::gather_halos(NodeId id) {
  if (flags_.gpu)
    return;
  const KernelWants &wants = wants_.at(id);
  if (wants.spaced >= 0) {
    Padding &space = state_[function_.node(id).operands[size_t(wants.spaced)]].halo[1];
    grow(space.lo, {0});
    grow(space.hi, {1});
  }
  if (wants.padded < 0)
    return;
  ValueId v = function_.node(id).operands[size_t(wants.padded)];
  Padding &halo = state_[v].halo[wants.operands[size_t(wants.padded)] == Want::blocked];
  grow(halo.lo, wants.padding.lo);
  grow(halo.hi, wants.padding.hi);
}

// The parts of a concat and its result get the same halo, so that parts can be written in place.
void BlockLayout::share_halos(NodeId id) {
  const Node &node = function_.node(id);
  if (node.op != Op::concat || node.operands.empty())
    return;
  bool blocked = state_[node.results[0]].blocked;
  auto can_share = [&](ValueId v) {
    const State &state = state_[v];
    return !state.fixed && state.blocked == blocked && (blocked || !state.exact);
  };
  std::vector<ValueId> all = node.operands;
  all.push_back(node.results[0]);
  int64_t axis = node.attrs.get_int("axis");
  if ((axis != 1 && axis != 1 - function_.type(all[0]).rank()) ||
      !std::all_of(all.begin(), all.end(), can_share))
    return;
  Padding most;
  for (ValueId v : all) {
    grow(most.lo, state_[v].halo[blocked].lo);
    grow(most.hi, state_[v].halo[blocked].hi);
  }
  for (ValueId v : all)
    state_[v].halo[blocked] = most;
}

Layout BlockLayout::layout_of(ValueId v, bool blocked) {
  Layout out = blocked ? blocked_layout(function_.type(v), flags_) : Layout();
  const Padding &halo = state_[v].halo[blocked];
  for (size_t d = 0; d < halo.lo.size(); ++d)
    if (halo.lo[d] || halo.hi[d])
      out.halos.push_back({int(d) + 2, halo.lo[d], halo.hi[d]});
  return out;
}

void BlockLayout::set_layouts() {
  for (auto &[v, state] : state_) {
    if (state.fixed || (!state.blocked && state.exact))
      continue;
    Layout layout = layout_of(v, state.blocked);
    if (layout == function_.value(v).layout)
      continue;
    function_.value(v).layout = std::move(layout);
    changed_ = Changed::yes;
  }
}

// A permute that leaves rows whole copies nothing where its operand is made in the order of its result.
void BlockLayout::permute_in_place(const Node &permute) {
  ValueId from = permute.operands[0];
  size_t rank = function_.type(from).shape.size();
  std::vector<int> order;
  for (const Dim &d : permute.attrs.get_dims("dims"))
    order.push_back(int(d.as_const() < 0 ? d.as_const() + int64_t(rank) : d.as_const()));
  auto state = state_.find(from);
  const Node *maker = function_.def(from);
  if (rank < 3 || order.back() != int(rank) - 1 || !maker || is_view(*maker) ||
      state == state_.end() || state->second.fixed || state->second.exact ||
      state->second.blocked || uses_[from].size() != 1 ||
      !function_.value(from).layout.is_row_major() ||
      !function_.value(permute.results[0]).layout.is_row_major())
    return;
  function_.value(from).layout.order = std::move(order);
  changed_ = Changed::yes;
}

// y[B, H, L, D] that a dot reads as [B, L, H * D] is made in that order.
void BlockLayout::merge_heads() {
  for (NodeId id : block_.nodes) {
    const Node &node = function_.node(id);
    if (node.op == Op::permute)
      permute_in_place(node);
    if (node.op != Op::fusion)
      continue;
    const Block &region = node.regions[0];
    for (NodeId inner : region.nodes) {
      const Node &permute = function_.node(inner);
      if (permute.op != Op::permute)
        continue;
      auto arg = std::find(region.args.begin(), region.args.end(), permute.operands[0]);
      if (arg == region.args.end())
        continue;
      ValueId outer = node.operands[size_t(arg - region.args.begin())];
      auto state = state_.find(outer);
      auto uses = uses_.find(outer);
      bool merged = std::any_of(region.nodes.begin(), region.nodes.end(), [&](NodeId n) {
        return function_.node(n).op == Op::reshape &&
               function_.node(n).operands[0] == permute.results[0];
      });
      if (!merged || state == state_.end() || state->second.fixed || state->second.exact || state->second.blocked ||
          uses->second.size() != 1 || !function_.value(outer).layout.is_row_major())
        continue;
      Layout layout;
      for (const Dim &d : permute.attrs.get_dims("dims"))
        layout.order.push_back(
            int(d.as_const() < 0 ? d.as_const() + int64_t(permute.attrs.get_dims("dims").size())
                                 : d.as_const()));
      function_.value(outer).layout = std::move(layout);
      changed_ = Changed::yes;
    }
  }
}

ValueId BlockLayout::in_layout(ValueId v, const Layout &layout, size_t &position) {
  if (function_.value(v).layout == layout)
    return v;
  auto [it, fresh] = state_[v].copies.emplace(layout.text(), ValueId());
  if (fresh) {
    GraphBuilder b(module_, function_, block_);
    b.set_position(block_, position);
    if (const Node *def = function_.def(v))
      b.set_location(def->location);
    else if (position < block_.nodes.size())
      b.set_location(function_.node(block_.nodes[position]).location);
    it->second = b(Op::relayout, {v});
    function_.value(it->second).layout = layout;
    function_.value(it->second).name = function_.value(v).name;
    position = b.position();
    changed_ = Changed::yes;
  }
  return it->second;
}

// A constant is packed when the package is written: it costs nothing at run time.
ValueId BlockLayout::packed_constant(ValueId v, const Layout &layout, size_t &position) {
  const Node *def = function_.def(v);
  auto uses = uses_.find(v);
  // Kernels that read any layout read the packed one; a second copy of a large table costs more.
  bool alone = uses != uses_.end() && !state_[v].exact && !state_[v].captured &&
               std::all_of(uses->second.begin(), uses->second.end(), [&](const Use &use) {
                 const KernelWants &wants = wants_.at(use.node);
                 return wants.operands[use.operand] == Want::any ||
                        (wants.operands[use.operand] == Want::weights &&
                         wants.packed[use.operand] == layout);
               });
  if (alone && std::find(block_.nodes.begin(), block_.nodes.end(), function_.value(v).def) !=
                   block_.nodes.end()) {
    if (function_.value(v).layout != layout) {
      function_.value(v).layout = layout;
      changed_ = Changed::yes;
    }
    return v;
  }
  auto [it, fresh] = state_[v].copies.emplace(layout.text(), ValueId());
  if (fresh) {
    GraphBuilder b(module_, function_, block_);
    b.set_position(block_, position);
    b.set_location(def->location);
    Attrs attrs = def->attrs;
    it->second = b(Op::constant, {}, attrs);
    function_.value(it->second).layout = layout;
    function_.value(it->second).name = function_.value(v).name;
    position = b.position();
    changed_ = Changed::yes;
  }
  return it->second;
}

// Matrices that every turn of a loop multiplies by are packed before it.
size_t BlockLayout::pack_captured(size_t position) {
  NodeId loop = block_.nodes[position];
  for (size_t r = 0; r < function_.node(loop).regions.size(); ++r) {
    const std::vector<NodeId> nodes = function_.node(loop).regions[r].nodes;
    std::set<ValueId> inside(function_.node(loop).regions[r].args.begin(), function_.node(loop).regions[r].args.end());
    for (NodeId id : nodes)
      inside.insert(function_.node(id).results.begin(), function_.node(id).results.end());
    for (NodeId id : nodes) {
      const KernelWants wants = kernel_wants(function_, id, channels_, pairs_);
      for (size_t i = 0; i < wants.operands.size(); ++i) {
        ValueId v = function_.node(id).operands[i];
        const Node *def = function_.def(v);
        if (wants.operands[i] == Want::weights && !inside.contains(v) && !(def && def->op == Op::constant))
          function_.node(id).operands[i] = in_layout(v, wants.packed[i], position);
      }
    }
  }
  return position;
}

size_t BlockLayout::adapt_operands(size_t position) {
  NodeId id = block_.nodes[position];
  if (function_.node(id).op == Op::scan || function_.node(id).op == Op::while_)
    position = pack_captured(position);
  auto found = wants_.find(id);
  if (found == wants_.end())
    return position;
  const KernelWants wants = found->second;
  bool makes_blocked =
      !function_.node(id).results.empty() && state_[function_.node(id).results[0]].blocked;
  for (size_t i = 0; i < wants.operands.size(); ++i) {
    ValueId v = function_.node(id).operands[i];
    const Node *def = function_.def(v);
    bool constant = def && def->op == Op::constant;
    ValueId to = v;
    switch (wants.operands[i]) {
    case Want::any:
      break;
    case Want::match: {
      bool whole = can_block(function_.type(v)) &&
                   element_count(function_.type(v).shape) ==
                       element_count(function_.type(function_.node(id).results[0]).shape);
      if (makes_blocked && whole && !state_[v].blocked) {
        Layout layout = layout_of(v, true);
        to = constant ? packed_constant(v, layout, position) : in_layout(v, layout, position);
      }
      break;
    }
    case Want::weights:
      if (constant)
        to = packed_constant(v, wants.packed[i], position);
      else if (function_.node(id).op == Op::conv || function_.node(id).op == Op::conv_transpose ||
               makes_blocked)
        to = in_layout(v, wants.packed[i], position);
      break;
    case Want::exact:
      to = in_layout(v, Layout(), position);
      break;
    case Want::planar:
    case Want::blocked: {
      bool blocked = wants.operands[i] == Want::blocked;
      Layout layout = layout_of(v, blocked);
      // A halo that this kernel does not need is no reason for a copy; nor is another order of
      // dims.
      bool has_kind = state_[v].blocked == blocked && int(i) != wants.padded;
      if (!has_kind)
        to = constant ? packed_constant(v, layout, position) : in_layout(v, layout, position);
      break;
    }
    }
    function_.node(id).operands[i] = to;
  }
  return position;
}

void BlockLayout::restore_results() {
  for (ValueId &r : block_.results) {
    size_t position = block_.nodes.size();
    r = in_layout(r, Layout(), position);
  }
}

} // namespace

Changed layout(Module &module, PassContext &context) {
  if (!context.flags.blocked_layouts)
    return Changed::no;
  Changed changed = Changed::no;
  for (Function &function : module.functions) {
    std::vector<Block *> blocks = kernel_blocks(function);
    Changed here = Changed::no;
    for (Block *block : blocks)
      here |= BlockLayout(module, function, *block, context.flags).run();
    if (here == Changed::yes)
      function.compact();
    changed |= here;
  }
  if (changed == Changed::yes)
    dce(module, context);
  return changed;
}

} // namespace kiln
