// Positions that nobody reads are not computed. Where everybody who reads a value takes every s-th pixel of it, a
// 1x1 convolution with stride s, the step moves to whoever makes the value:
//
//   a = relu(conv(x, w, stride 1)); y = conv(a, v: [.., .., 1, 1], stride 2)
//     ->  a = relu(conv(x, w, stride 2)); y = conv(a, v, stride 1)
//
// through elementwise ops, as far as a convolution, whose stride grows. Other operands of an elementwise op on
// the way are sliced.
#include "passes/graph/rewrite.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace kiln {
namespace {

using Step = std::vector<int64_t>; // for each spatial dim; empty: not known yet

bool is_one(const Step &step) {
  return std::all_of(step.begin(), step.end(), [](int64_t s) { return s == 1; });
}

class Strides {
public:
  Strides(const Function &function, const Block &block) : function_(function) {
    for (NodeId id : block.nodes)
      for (ValueId v : function.node(id).results)
        made_.insert_or_assign(v, id);
    for (ValueId v : block.results)
      read(v, {});
    for (size_t i = block.nodes.size(); i-- > 0;)
      read_by(block.nodes[i]);
    for (NodeId id : block.nodes)
      choose(id);
  }

  // By how much of its steps a value is thinned out.
  Step thinned(ValueId v) const {
    auto it = thinned_.find(v);
    return it == thinned_.end() ? Step() : it->second;
  }
  bool any() const { return !thinned_.empty(); }

private:
  size_t spatial(ValueId v) const {
    int rank = function_.type(v).rank();
    return rank < 3 ? 0 : size_t(rank) - 2;
  }
  bool is_known(ValueId v) const {
    const Shape &shape = function_.type(v).shape;
    return std::all_of(shape.begin() + 2, shape.end(), [](const Dim &d) { return d.is_const(); });
  }
  Step ones(ValueId v) const { return Step(spatial(v), 1); }

  // Readers that do not agree read everything.
  void read(ValueId v, const Step &by) {
    if (!made_.contains(v))
      return;
    Step &step = steps_[v];
    if (by.empty() || (!step.empty() && step != by))
      step = ones(v);
    else
      step = by;
  }

  Step step_of(ValueId v) const {
    auto it = steps_.find(v);
    return it == steps_.end() || it->second.empty() ? ones(v) : it->second;
  }

  bool is_pointwise_conv(const Node &n) const {
    if (n.op != Op::conv)
      return false;
    const Shape &w = function_.type(n.operands[1]).shape;
    auto all = [](const std::vector<Dim> &dims, int64_t value) {
      return std::all_of(dims.begin(), dims.end(), [&](const Dim &d) { return d.is_const(value); });
    };
    return std::all_of(w.begin() + 2, w.end(), [](const Dim &d) { return d.is_const(1); }) &&
           all(n.attrs.get_dims("pad"), 0) && is_static(n.attrs.get_dims("stride"));
  }

  // Elementwise over maps, each operand of which is a map of the same size or one pixel.
  bool is_map(const Node &n) const {
    if (!op_def(n.op).scalar || n.results.size() != 1 || spatial(n.results[0]) == 0 || !is_known(n.results[0]))
      return false;
    return std::all_of(n.operands.begin(), n.operands.end(),
                       [&](ValueId v) { return is_whole(n, v) || is_pixel(v); });
  }
  bool is_whole(const Node &n, ValueId v) const {
    const Shape &a = function_.type(v).shape, &b = function_.type(n.results[0]).shape;
    return a.size() == b.size() && std::equal(a.begin() + 2, a.end(), b.begin() + 2);
  }
  bool is_pixel(ValueId v) const {
    const Shape &shape = function_.type(v).shape;
    size_t n = std::min<size_t>(shape.size(), spatial_of_maps_);
    return std::all_of(shape.end() - std::ptrdiff_t(n), shape.end(), [](const Dim &d) { return d.is_const(1); });
  }

  void read_by(NodeId id) {
    const Node &n = function_.node(id);
    for (const Block &region : n.regions) {
      for_each_node(function_, region, [&](NodeId inner) {
        for (ValueId v : function_.node(inner).operands)
          read(v, {});
        for (const Block &nested : function_.node(inner).regions)
          for (ValueId v : nested.results)
            read(v, {});
      });
      for (ValueId v : region.results)
        read(v, {});
    }
    spatial_of_maps_ = n.results.empty() ? 0 : spatial(n.results[0]);
    bool conv = is_pointwise_conv(n), map = is_map(n);
    for (size_t i = 0; i < n.operands.size(); ++i) {
      ValueId v = n.operands[i];
      if (map && is_whole(n, v)) {
        read(v, step_of(n.results[0]));
      } else if (conv && i == 0 && is_known(v)) {
        Step step = step_of(n.results[0]);
        auto stride = n.attrs.get_ints("stride");
        for (size_t d = 0; d < step.size(); ++d)
          step[d] *= stride[d];
        read(v, step);
      } else {
        read(v, {});
      }
    }
  }

  // Thinned are results of convolutions, and of elementwise ops that read any.
  void choose(NodeId id) {
    const Node &n = function_.node(id);
    if (n.results.size() != 1)
      return;
    ValueId v = n.results[0];
    Step step = step_of(v);
    if (is_one(step))
      return;
    spatial_of_maps_ = spatial(v);
    bool reads = is_map(n) && std::any_of(n.operands.begin(), n.operands.end(),
                                          [&](ValueId o) { return thinned_.contains(o); });
    if (reads || (n.op == Op::conv && is_static(n.attrs.get_dims("stride"))))
      thinned_.emplace(v, step);
  }

  const Function &function_;
  std::map<ValueId, NodeId> made_;
  std::map<ValueId, Step> steps_, thinned_;
  size_t spatial_of_maps_ = 0;
};

ValueId every(GraphBuilder &b, const Shape &shape, ValueId v, const Step &step) {
  std::vector<Dim> axes, starts, ends, steps;
  for (size_t d = 0; d < step.size(); ++d) {
    axes.push_back(int64_t(d) + 2);
    starts.push_back(0);
    ends.push_back(shape[d + 2]);
    steps.push_back(step[d]);
  }
  return b(Op::slice, {v}, {{"axes", axes}, {"starts", starts}, {"ends", ends}, {"steps", steps}});
}

void grow_stride(Node &conv, const Step &from, const Step &to) {
  auto stride = conv.attrs.get_ints("stride");
  std::vector<Dim> dims;
  for (size_t d = 0; d < stride.size(); ++d)
    dims.push_back(stride[d] * (to.empty() ? 1 : to[d]) / (from.empty() ? 1 : from[d]));
  conv.attrs.set("stride", dims);
}

Changed thin_out(Module &module, Function &function, Block &block) {
  const Strides strides(function, block);
  if (!strides.any())
    return Changed::no;
  for (size_t i = 0; i < block.nodes.size(); ++i) {
    NodeId id = block.nodes[i];
    Step to = function.node(id).results.size() == 1 ? strides.thinned(function.node(id).results[0]) : Step();
    if (function.node(id).op == Op::conv) {
      grow_stride(function.node(id), strides.thinned(function.node(id).operands[0]), to);
    } else if (!to.empty()) {
      const Shape whole = function.type(function.node(id).results[0]).shape;
      for (size_t o = 0; o < function.node(id).operands.size(); ++o) {
        ValueId v = function.node(id).operands[o];
        const Shape shape = function.type(v).shape;
        bool is_map = shape.size() == whole.size() && std::equal(shape.begin() + 2, shape.end(), whole.begin() + 2);
        if (!is_map) // thinned already, or one pixel
          continue;
        GraphBuilder b(module, function, block);
        b.set_position(block, i);
        b.set_location(function.node(id).location);
        ValueId thin = every(b, shape, v, to);
        function.node(id).operands[o] = thin;
        i = b.position();
      }
    }
    if (!to.empty()) {
      Shape &shape = function.value(function.node(id).results[0]).type.shape;
      for (size_t d = 0; d < to.size(); ++d)
        shape[d + 2] = (shape[d + 2].as_const() + to[d] - 1) / to[d];
    }
  }
  return Changed::yes;
}

} // namespace

Changed strides(Module &module, PassContext &context) {
  Changed changed = Changed::no;
  for (Function &function : module.functions)
    for (Block *block : kernel_blocks(function))
      changed |= thin_out(module, function, *block);
  if (changed == Changed::yes)
    dce(module, context);
  return changed;
}

} // namespace kiln
