#include "passes/graph/layout_choice.h"

#include "codegen/layout_costs.h"
#include "ir/ops/op.h"
#include "passes/graph/typical.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <queue>

namespace kiln {
namespace {

// A minimum cut between kBlocked and kPlanar, by shortest augmenting paths.
class Cut {
public:
  static constexpr size_t kBlocked = 0, kPlanar = 1;

  size_t add() {
    arcs_.emplace_back();
    return arcs_.size() - 1;
  }
  void connect(size_t a, size_t b, double there, double back) {
    if (a == b)
      return;
    arcs_[a].push_back({b, arcs_[b].size(), there});
    arcs_[b].push_back({a, arcs_[a].size() - 1, back});
  }

  // By vertex: whether it must be planar. Where both are as dear, it is not.
  std::vector<bool> planar() {
    while (augment()) {
    }
    std::vector<bool> out(arcs_.size());
    std::vector<size_t> next{kPlanar};
    out[kPlanar] = true;
    while (!next.empty()) {
      size_t to = next.back();
      next.pop_back();
      for (const Arc &arc : arcs_[to])
        if (!out[arc.to] && arcs_[arc.to][arc.twin].room > kNothing) {
          out[arc.to] = true;
          next.push_back(arc.to);
        }
    }
    return out;
  }

private:
  static constexpr double kNothing = 1e-6;
  struct Arc {
    size_t to, twin;
    double room;
  };

  bool augment() {
    std::vector<std::pair<size_t, size_t>> from(arcs_.size(), {SIZE_MAX, 0}); // vertex, arc
    std::queue<size_t> next;
    next.push(kBlocked);
    from[kBlocked] = {kBlocked, 0};
    while (!next.empty() && from[kPlanar].first == SIZE_MAX) {
      size_t at = next.front();
      next.pop();
      for (size_t i = 0; i < arcs_[at].size(); ++i)
        if (const Arc &arc = arcs_[at][i]; arc.room > kNothing && from[arc.to].first == SIZE_MAX) {
          from[arc.to] = {at, i};
          next.push(arc.to);
        }
    }
    if (from[kPlanar].first == SIZE_MAX)
      return false;
    double least = 1e300;
    for (size_t v = kPlanar; v != kBlocked; v = from[v].first)
      least = std::min(least, arcs_[from[v].first][from[v].second].room);
    for (size_t v = kPlanar; v != kBlocked; v = from[v].first) {
      Arc &arc = arcs_[from[v].first][from[v].second];
      arc.room -= least;
      arcs_[arc.to][arc.twin].room += least;
    }
    return true;
  }

  std::vector<std::vector<Arc>> arcs_{2};
};

struct Costs { // cycles
  double blocked, planar;
  std::optional<double> mixed; // reads planar and writes blocked
};

class Choice {
public:
  Choice(const Module &module, const Function &function, const Block &block,
         const std::map<NodeId, KernelWants> &wants, const PassFlags &flags)
      : function_(function), block_(block), wants_(wants), flags_(flags), costs_(layout_costs(flags.vector_bytes)),
        sizes_(module) {}

  std::map<NodeId, ConvForm> run() {
    struct Conv {
      size_t reads, makes;
    };
    std::map<NodeId, Conv> convs;
    for (NodeId id : block_.nodes) {
      auto costs = costs_of(id);
      const bool is_pool = !costs && wants(id).makes == Makes::inherits && (costs = costs_of_pool(id));
      size_t vertex = costs || is_free(id) ? cut_.add() : fixed(id), reads = vertex;
      if (costs && costs->mixed) {
        reads = cut_.add();
        prefer(reads, *costs->mixed - costs->blocked);
        prefer(vertex, costs->planar - *costs->mixed);
        cut_.connect(reads, vertex, kNever, 0);
      } else if (costs) {
        prefer(vertex, costs->planar - costs->blocked);
      }
      if (costs && wants(id).makes == Makes::blocked)
        convs.emplace(id, Conv{reads, vertex});
      for (ValueId v : function_.node(id).results)
        if (can_block(function_.type(v)))
          maker_[v] = vertex;
      read_operands(id, vertex, reads);
      if (is_free(id))
        read_through(id, vertex, is_pool);
    }
    std::map<NodeId, ConvForm> out;
    if (convs.empty())
      return out;
    for (ValueId v : block_.results)
      read(v, Cut::kPlanar);
    std::vector<bool> planar = cut_.planar();
    for (auto [id, conv] : convs)
      if (planar[conv.reads])
        out.emplace(id, planar[conv.makes] ? ConvForm::rows : ConvForm::rows_to_blocks);
    return out;
  }

private:
  static constexpr double kNever = 1e15;

  // `dearer`: what being planar costs more than being blocked.
  void prefer(size_t vertex, double dearer) {
    if (dearer >= 0)
      cut_.connect(Cut::kBlocked, vertex, dearer, 0);
    else
      cut_.connect(vertex, Cut::kPlanar, -dearer, 0);
  }

  const KernelWants &wants(NodeId id) const { return wants_.at(id); }

  // Follows its neighbours.
  bool is_free(NodeId id) const {
    Makes makes = wants(id).makes;
    return makes == Makes::inherits || makes == Makes::as_read || makes == Makes::any;
  }
  size_t fixed(NodeId id) const { return wants(id).makes == Makes::blocked ? Cut::kBlocked : Cut::kPlanar; }

  // Where the values between two kernels of different kinds are copied. What no kernel of this block makes lies row by
  // row.
  void read(ValueId v, size_t reader) {
    auto it = maker_.find(v);
    if (!can_block(function_.type(v)))
      return;
    if (const Node *def = function_.def(v); def && def->op == Op::constant)
      return;
    size_t made = it == maker_.end() ? Cut::kPlanar : it->second;
    auto [copies, fresh] = copies_.try_emplace(v);
    if (fresh) { // one of each kind at most, for all readers
      copies->second = {cut_.add(), cut_.add()};
      double cycles = costs_.launch + elements(function_.type(v).shape) / costs_.copied;
      cut_.connect(made, copies->second.planar, cycles, 0);
      cut_.connect(copies->second.blocked, made, cycles, 0);
    }
    cut_.connect(copies->second.planar, reader, kNever, 0);
    cut_.connect(reader, copies->second.blocked, kNever, 0);
  }

  void read_operands(NodeId id, size_t vertex, size_t reads) {
    const Node &node = function_.node(id);
    for (size_t i = 0; i < node.operands.size(); ++i)
      switch (wants(id).operands[i]) {
      case Want::any: // elements that move are moved in blocks, or one by one
        if (function_.node(id).op != Op::fusion || describe_fusion(function_, id).form == FusionForm::elementwise)
          if (auto it = maker_.find(node.operands[i]); it != maker_.end() && !op_def(node.op).reduce)
            read(node.operands[i], Cut::kBlocked);
        break;
      case Want::weights:
        break;
      case Want::planar: // few inputs are read so by convolutions of either kind
      case Want::exact:
        read(node.operands[i], Cut::kPlanar);
        break;
      case Want::blocked:
        // What comes from outside is copied for its halo whatever the layout.
        if (maker_.contains(node.operands[i]) || int(i) != wants(id).padded)
          read(node.operands[i], reads);
        break;
      case Want::match:
        if (wants(id).makes != Makes::planar && !node.results.empty() &&
            function_.type(node.operands[i]).shape == function_.type(node.results[0]).shape)
          read(node.operands[i], vertex);
      }
  }

  // Operands of other shapes than the result (of pools, concats) are read in whatever layout they have: element by
  // element where that is not the kernel's own.
  void read_through(NodeId id, size_t vertex, bool is_pool) {
    const Node &node = function_.node(id);
    for (size_t i = 0; i < node.operands.size(); ++i) {
      const Shape &shape = function_.type(node.operands[i]).shape, &made = function_.type(node.results[0]).shape;
      auto it = maker_.find(node.operands[i]);
      if (it == maker_.end() || wants(id).operands[i] != Want::match || shape.size() != made.size() || shape == made)
        continue;
      double cycles = is_pool ? costs_of_pool(id)->planar : elements(shape) / costs_.copied;
      cut_.connect(it->second, vertex, cycles, cycles);
    }
  }

  double elements(const Shape &shape) const {
    double out = 1;
    for (const Dim &d : shape)
      out *= double(sizes_.of(d));
    return out;
  }

  const Node &root_of(NodeId id) const {
    const Node &node = function_.node(id);
    return node.op == Op::fusion ? function_.node(describe_fusion(function_, id).root) : node;
  }

  // Windows that step over pixels pick them out of rows; bytes one by one.
  std::optional<Costs> costs_of_pool(NodeId id) const {
    const Node &node = function_.node(id);
    if (node.op == Op::fusion && describe_fusion(function_, id).form != FusionForm::reduce)
      return std::nullopt;
    const Node &pool = root_of(id);
    if (pool.op != Op::max_pool && pool.op != Op::avg_pool)
      return std::nullopt;
    double window = 1;
    for (const Dim &d : pool.attrs.get_dims("kernel"))
      window *= double(sizes_.of(d));
    const TensorType &y = function_.type(pool.results[0]);
    double picked = elements(y.shape) * window;
    return Costs{picked * 4 / double(flags_.vector_bytes), picked * costs_.picked, {}};
  }

  // Of a convolution that can be of either kind.
  std::optional<Costs> costs_of(NodeId id) const {
    if (wants(id).makes != Makes::blocked)
      return std::nullopt;
    const Node &conv = root_of(id);
    if (conv.op != Op::conv)
      return std::nullopt;
    const TensorType &y = function_.type(conv.results[0]);
    const Shape &w = function_.type(conv.operands[1]).shape;
    auto is_f32 = [&](ValueId v) { return function_.type(v).dtype == DType::f32; };
    if (!is_f32(conv.operands[0]) || !is_f32(conv.operands[1]) || !is_f32(function_.node(id).results[0]) || y.rank() < 3 ||
        !is_static(w))
      return std::nullopt;
    int64_t outputs = w[0].as_const(), inputs = w[1].as_const();
    double taps = 1, lanes = double(flags_.vector_bytes) / 4;
    bool pointwise = true, strided = false, depthwise = inputs == 1 && conv.attrs.get_dim("groups").is_const(outputs);
    for (size_t d = 2; d < w.size(); ++d) {
      taps *= double(w[d].as_const());
      pointwise = pointwise && w[d].is_const(1);
    }
    for (const Dim &d : conv.attrs.get_dims("stride"))
      strided = strided || !d.is_const(1);
    double sums = elements(y.shape) * double(inputs) * taps / (2 * lanes); // cycles of full vectors
    double row = double(sizes_.of(y.shape.back()));
    if (pointwise && !strided)
      row = elements(Shape(y.shape.begin() + 2, y.shape.end()));
    double read = elements(function_.type(conv.operands[0]).shape) * 4;
    auto filled = [](double n, double by) { return n / (std::ceil(n / by) * by); };
    double of_rows = depthwise   ? (strided ? costs_.strided_depthwise_rows : costs_.depthwise_rows)
                     : pointwise ? (strided                                  ? costs_.strided_pointwise_rows
                                    : read > double(flags_.cache_bytes) * costs_.near_planes
                                        ? costs_.far_pointwise_rows
                                        : costs_.pointwise_rows)
                                 : (strided ? costs_.strided_rows : costs_.rows);
    if (!is_static(Shape(y.shape.begin() + 2, y.shape.end())))
      of_rows *= costs_.unknown_rows;
    double of_blocks = depthwise ? costs_.depthwise_blocks : costs_.blocks;
    double of_mixed = pointwise ? costs_.pointwise_blocks_of_rows : costs_.blocks_of_rows;
    // Empty lanes of blocks are written, and where they are read they are computed too.
    double lanes_used = filled(double(outputs), double(flags_.block)), outputs_used = filled(double(outputs), lanes);
    bool reads_rows = std::find(wants(id).operands.begin(), wants(id).operands.end(), Want::planar) != wants(id).operands.end();
    double pixels = elements(y.shape) * 4 + read;
    auto at_least = [&](double cycles, double used) { return std::max(cycles, pixels / used / costs_.streamed); };
    Costs out;
    out.blocked = at_least(sums / of_blocks / (reads_rows ? outputs_used : lanes_used), lanes_used);
    out.planar = at_least(sums / of_rows / filled(row, lanes), 1);
    if (!reads_rows && !depthwise && conv.attrs.get_dim("groups").is_const(1))
      out.mixed = at_least(sums / of_mixed / outputs_used, lanes_used);
    return out;
  }

  const Function &function_;
  const Block &block_;
  const std::map<NodeId, KernelWants> &wants_;
  const PassFlags &flags_;
  const LayoutCosts costs_;
  TypicalSizes sizes_;
  Cut cut_;
  std::map<ValueId, size_t> maker_;
  struct Copies {
    size_t planar = 0, blocked = 0;
  };
  std::map<ValueId, Copies> copies_; // vertices
};

} // namespace

std::map<NodeId, ConvForm> conv_forms(const Module &module, const Function &function, const Block &block,
                                      const std::map<NodeId, KernelWants> &wants, const PassFlags &flags) {
  return Choice(module, function, block, wants, flags).run();
}

} // namespace kiln
