// The loops over a kernel's results: in the physical order of the result's layout, so that stores are
// contiguous; the dims of a row last where reductions over the row stand in between.
#include "passes/lower/kernel_lowering.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr int64_t kMaxRowElements = 8192; // of a row buffer on a worker's stack: 64 KiB of f64
constexpr int64_t kPanel = 16;            // of packed weights

// Wide blocks are computed by panels.
int64_t loop_block(const Layout &layout, int dim) {
  int64_t block = layout.block_of(dim);
  return block > kPanel && block % kPanel == 0 ? kPanel : block;
}

std::vector<int> reduced_axes(const Node &node, const TensorType &operand) {
  std::vector<int> out;
  if (const Attr *axes = node.attrs.find("axes"))
    for (const Dim &d : std::get<std::vector<Dim>>(*axes))
      out.push_back(int(d.as_const() < 0 ? d.as_const() + operand.rank() : d.as_const()));
  else if (node.attrs.has("axis"))
    out.push_back(int(node.attrs.get_int("axis") < 0 ? node.attrs.get_int("axis") + operand.rank()
                                                     : node.attrs.get_int("axis")));
  std::sort(out.begin(), out.end());
  return out;
}

} // namespace

// Row axes: what the reductions inside a fusion reduce, where a result still has those dims.
void KernelLowering::find_row_axes() {
  if (!region_)
    return;
  const TensorType &result = type(roots_.at(0));
  for (NodeId id : region_->nodes) {
    const Node &n = function_.node(id);
    if (!op_def(n.op).has(kReduction))
      continue;
    const TensorType &operand = type(n.operands[0]);
    auto axes = reduced_axes(n, operand);
    if (operand.rank() != result.rank() || axes.empty())
      continue;
    bool kept = std::all_of(axes.begin(), axes.end(), [&](int a) {
      return result.shape[size_t(a)] == operand.shape[size_t(a)];
    });
    if (!kept || std::find(roots_.begin(), roots_.end(), n.results[0]) != roots_.end())
      continue;
    row_axes_ = axes;
    row_size_ = 1;
    for (int a : axes)
      row_size_ *= operand.shape[size_t(a)];
    return;
  }
}

// Expensive values that more than one pass over the row needs are kept in a row buffer: the exponential
// of a softmax, needed for the sum and for the result.
void KernelLowering::choose_materialised() {
  if (row_axes_.empty() || !row_size_.is_const() || row_size_.as_const() > kMaxRowElements)
    return;
  std::vector<int> passes(function_.values.size()), last(function_.values.size(), -1);
  int pass = 0;
  std::function<void(ValueId)> walk = [&](ValueId v) {
    if (!is_inner(v) || last[size_t(v)] == pass)
      return;
    last[size_t(v)] = pass;
    const Node &n = function_.node(function_.value(v).def);
    if (op_def(n.op).reduce)
      return; // its operands belong to its own pass
    ++passes[size_t(v)];
    for (ValueId operand : n.operands)
      walk(operand);
  };
  for (ValueId root : roots_)
    walk(root);
  for (NodeId id : region_->nodes) {
    const Node &n = function_.node(id);
    if (!op_def(n.op).reduce)
      continue;
    ++pass;
    for (ValueId operand : n.operands)
      walk(operand);
  }
  for (NodeId id : region_->nodes) {
    const Node &n = function_.node(id);
    ValueId v = n.results.empty() ? ValueId() : n.results[0];
    if (!v.valid() || passes[size_t(v)] < 2 || !op_def(n.op).has(kExpensive) || !op_def(n.op).scalar)
      continue;
    const Shape &shape = type(v).shape;
    bool full = type(v).rank() == type(roots_[0]).rank();
    for (int a : row_axes_)
      full = full && shape[size_t(a)] == type(roots_[0]).shape[size_t(a)];
    materialised_[size_t(v)] = full;
  }
}

// Whether each panel of the result reads all channels of an operand, and weights that are all its own.
bool KernelLowering::sums_over_channels() const {
  auto sums = [&](const Node &n) {
    return n.op == Op::conv ? !type(n.operands[1]).shape[1].is_const(1) : op_def(n.op).has(kContraction);
  };
  return region_ ? std::any_of(region_->nodes.begin(), region_->nodes.end(),
                               [&](NodeId id) { return sums(function_.node(id)); })
                 : sums(node_);
}

std::vector<KernelLowering::Nest> KernelLowering::nest_order(ValueId result) const {
  const Value &value = function_.value(result);
  auto is_row = [&](int d) {
    return std::find(row_axes_.begin(), row_axes_.end(), d) != row_axes_.end();
  };
  std::vector<Nest> outer, inner;
  for (int i = 0; i < value.type.rank(); ++i) {
    int d = value.layout.order.empty() ? i : value.layout.order[size_t(i)];
    bool blocked = value.layout.block_of(d) > 1;
    (is_row(d) ? inner : outer).push_back({d, blocked ? Nest::Part::block : Nest::Part::whole});
  }
  for (const auto &block : value.layout.blocks) {
    auto &to = is_row(block.dim) ? inner : row_axes_.empty() ? inner : outer;
    if (loop_block(value.layout, block.dim) < block.size && row_axes_.empty() && !sums_over_channels()) { // as it lies in memory
      auto at = std::find_if(outer.begin(), outer.end(), [&](const Nest &n) { return n.dim == block.dim; });
      outer.erase(at);
      to.push_back({block.dim, Nest::Part::block});
    }
    to.push_back({block.dim, Nest::Part::lane});
  }
  outer.insert(outer.end(), inner.begin(), inner.end());
  return outer;
}

// Whether lanes past the end of a blocked dim may be computed from whatever lies there: every operand
// that is read along that dim has the same block, or is a vector along it (readable past its end).
bool KernelLowering::block_overrun_allowed(ValueId result, int dim) const {
  const Value &value = function_.value(result);
  const Dim &size = value.type.shape[size_t(dim)];
  int64_t block = loop_block(value.layout, dim);
  if (auto n = size.try_const(); n && *n % block == 0)
    return true;
  if (!region_ && !op_def(node_.op).scalar && !op_def(node_.op).reduce)
    return false;
  for (ValueId operand : node_.operands) {
    const Value &v = function_.value(resolve(operand));
    Dim count = element_count(v.type.shape);
    bool blocked = !v.layout.blocks.empty();
    bool vector = count == size && dtype_bytes(v.type.dtype) <= 4;
    if (!blocked && !vector && !count.is_const(1))
      return false;
  }
  if (region_)
    for (NodeId id : region_->nodes)
      if (op_def(function_.node(id).op).element)
        return false; // movement or data-dependent indices
  return true;
}

// The node with `lower`, or any other.
const Node &KernelLowering::root_node() const {
  if (!region_)
    return node_;
  for (NodeId id : region_->nodes)
    if (op_def(function_.node(id).op).lower)
      return function_.node(id);
  return function_.node(function_.value(roots_[0]).def);
}

void KernelLowering::lower_results() {
  for (ValueId result : results_)
    if (!stage_ || scratch_of(result)) // a chain's own result is no part of a stage
      zero_halo(result);
  const Node &root = root_node();
  if (op_def(root.op).lower)
    return lower_root(root);
  if (attention_)
    return lower_attention();
  if (held_)
    return lower_row_blocks();
  lower_elements();
}

void KernelLowering::lower_elements() {
  // Results of one shape and layout share their loops.
  std::vector<bool> done(results_.size());
  for (size_t i = 0; i < results_.size(); ++i)
    done[i] = held_ && held_->result == results_[i];
  for (size_t i = 0; i < results_.size(); ++i) {
    if (done[i])
      continue;
    std::vector<ValueId> group;
    for (size_t k = i; k < results_.size(); ++k) {
      const Value &a = function_.value(results_[i]), &b = function_.value(results_[k]);
      if (!done[k] && a.type.shape == b.type.shape && a.layout == b.layout) {
        group.push_back(results_[k]);
        done[k] = true;
      }
    }
    lower_nest(group);
  }
}

// The strides of a transposed convolution: elements of one phase (of equal remainder) have the same
// taps, so each phase is a nest of its own in which every index is linear.
std::vector<int64_t> KernelLowering::phases(const Shape &shape) const {
  constexpr int64_t kMostPhases = 16;
  std::vector<int64_t> none(shape.size(), 1), out = none;
  auto look = [&](const Node &n) {
    if (n.op != Op::conv_transpose || type(n.results[0]).shape != shape)
      return;
    const auto &stride = n.attrs.get_dims("stride");
    int64_t product = 1;
    for (size_t d = 0; d < stride.size(); ++d) {
      out[d + 2] = stride[d].try_const().value_or(1);
      product = std::min(product * std::min(out[d + 2], kMostPhases + 1), kMostPhases + 1);
    }
    if (product > kMostPhases)
      out = none;
  };
  if (!region_)
    look(node_);
  else
    for (NodeId id : region_->nodes)
      look(function_.node(id));
  return out;
}

void KernelLowering::lower_nest(const std::vector<ValueId> &results) {
  const Value &first = function_.value(results[0]);
  const std::vector<int64_t> steps = phases(first.type.shape);
  std::vector<int64_t> phase(steps.size(), 0);
  while (true) {
    lower_phase(results, steps, phase);
    size_t d = phase.size();
    while (d > 0 && ++phase[d - 1] == steps[d - 1])
      phase[--d] = 0;
    if (d == 0)
      return;
  }
}

void KernelLowering::lower_phase(const std::vector<ValueId> &results,
                                 const std::vector<int64_t> &steps,
                                 const std::vector<int64_t> &phase) {
  const Value &first = function_.value(results[0]);
  auto order = nest_order(results[0]);
  std::vector<Dim> index(first.type.shape.size());
  // The next stage of a chain computes whole blocks of what only this one has written. Zeros for the rest of the last
  // block have a nest of their own, so that this one stays one.
  bool leaves_rest = false, past_end = false;
  std::function<void(size_t)> nest = [&](size_t i) {
    if (i == order.size()) {
      std::vector<Dim> at;
      for (const Dim &d : index)
        at.push_back(simplified(d));
      for (ValueId result : results) {
        size_t k = size_t(std::find(results_.begin(), results_.end(), result) - results_.begin());
        Expr value = past_end ? kb::constant(compute_dtype(function_.value(result).type.dtype), 0)
                              : pull(roots_[k], at);
        emit(store(result, at, std::move(value)));
      }
      return;
    }
    auto [dim, part] = order[i];
    const Dim &size = first.type.shape[size_t(dim)];
    int64_t block = loop_block(first.layout, dim);
    switch (part) {
    case Nest::Part::whole:
      if (const IndexRange *range = range_of(dim))
        return loop("i", held_ ? Dim(0) : max(0, -range->begin),
                    held_ ? range->count : min(range->count, size - range->begin), LoopKind::parallel,
                    [&](const Dim &var) {
                      index[size_t(dim)] = range->begin + var;
                      nest(i + 1);
                    });
      if (size.is_const(1)) {
        index[size_t(dim)] = 0;
        return phase[size_t(dim)] == 0 ? nest(i + 1) : void();
      }
      return loop("i", 0, ceildiv(size - Dim(phase[size_t(dim)]), steps[size_t(dim)]),
                  LoopKind::parallel, [&](const Dim &var) {
                    index[size_t(dim)] = var * Dim(steps[size_t(dim)]) + Dim(phase[size_t(dim)]);
                    nest(i + 1);
                  });
    case Nest::Part::block:
      if (const IndexRange *range = range_of(dim))
        return loop("o", 0, ceildiv(range->count, block), LoopKind::parallel, [&](const Dim &var) {
          index[size_t(dim)] = range->begin + var * Dim(block);
          nest(i + 1);
        });
      return loop("o", past_end ? floordiv(size, block) : Dim(0), ceildiv(size, block), LoopKind::parallel, [&](const Dim &var) {
        index[size_t(dim)] = var * Dim(block);
        nest(i + 1);
      });
    case Nest::Part::lane: {
      Dim base = index[size_t(dim)];
      Dim end = block_overrun_allowed(results[0], dim) ? Dim(block) : min(block, size - base);
      auto lanes = [&](const Dim &var) {
        index[size_t(dim)] = base + var;
        nest(i + 1);
        index[size_t(dim)] = base;
      };
      if (past_end)
        return loop("z", end, block, LoopKind::parallel, lanes);
      leaves_rest |= scratch_of(results[0]) && !end.is_const(block);
      return loop("l", 0, end, LoopKind::parallel, lanes);
    }
    }
  };
  nest(0);
  past_end = leaves_rest;
  if (past_end)
    nest(0);
}

// Zeroes what lies around a result with a halo, one dim after the other: its low and high side over the
// inside of the dims before and everything of the dims after.
void KernelLowering::zero_halo(ValueId result) {
  const Value &value = function_.value(result);
  if (value.layout.halos.empty())
    return;
  const Scratch *scratch = scratch_of(result);
  BlockPlace place = block_place(value, scratch ? scratch->block : std::span<const IndexRange>());
  Shape physical = physical_shape(place.shape, place.layout);
  size_t rank = value.type.shape.size();
  Symbol buffer = scratch ? scratch->buffer
                          : Symbol("out" + std::to_string(std::find(results_.begin(), results_.end(), result) -
                                                          results_.begin()));
  // What is not zero, along each physical dim, and where the zeros after it end.
  std::vector<std::pair<Dim, Dim>> inside;
  std::vector<Dim> limit = physical;
  for (size_t p = 0; p < physical.size(); ++p) {
    size_t d = p < rank && !value.layout.order.empty() ? size_t(value.layout.order[p]) : p;
    auto halo = p < rank ? place.layout.halo_of(int(d)) : Layout::Halo{0, 0, 0};
    Dim begin = halo.lo, end = physical[p] - Dim(halo.hi);
    auto own = p < rank ? value.layout.halo_of(int(d)) : Layout::Halo{0, 0, 0};
    if (const IndexRange *range = scratch && own.lo + own.hi > 0 ? range_of(int(d)) : nullptr) {
      begin = max(0, -range->begin);
      end = min(range->count, value.type.shape[d] - range->begin);
      limit[p] = simplified(min(physical[p], end + Dim(own.hi))); // a block that sticks out by more is read so far
    }
    inside.emplace_back(simplified(begin), simplified(end));
  }
  for (size_t h = 0; h < rank; ++h) {
    for (bool high : {false, true}) {
      if (high ? inside[h].second == limit[h] : inside[h].first.is_const(0))
        continue;
      std::function<void(size_t, Dim)> nest = [&](size_t p, Dim offset) {
        if (p == physical.size()) {
          emit(kb::store(buffer, simplified(offset), kb::constant(value.type.dtype, 0)));
          return;
        }
        Dim begin = 0, end = limit[p];
        if (p == h) {
          begin = high ? inside[h].second : Dim(0);
          end = high ? limit[p] : inside[h].first;
        } else if (p < h) {
          begin = inside[p].first;
          end = inside[p].second;
        }
        loop("z", 0, end - begin, LoopKind::parallel,
             [&](const Dim &var) { nest(p + 1, offset * physical[p] + begin + var); });
      };
      nest(0, 0);
    }
  }
}

} // namespace kiln
