#include "passes/graph/layout_choice.h"

#include "ir/ops/op.h"
#include "passes/graph/typical.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <queue>

namespace kiln {
namespace {

// Parts of the peak that register tiles reach over blocks and over rows, and over rows of every other pixel.
constexpr double kOfBlocks = 0.93, kOfRows = 0.8, kOfStridedRows = 0.3;
constexpr double kCopied = 1.5; // elements a cycle, of any dtype
constexpr double kLaunch = 2000; // cycles
// With more channels than these, tiles over rows read more planes than the first cache has sets for.
constexpr int64_t kMostOutputs = 32, kMostInputs = 64;

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

struct Costs {
  double blocked, planar; // cycles
};

class Choice {
public:
  Choice(const Module &module, const Function &function, const Block &block,
         const std::map<NodeId, KernelWants> &wants, const PassFlags &flags)
      : function_(function), block_(block), wants_(wants), flags_(flags), sizes_(module) {}

  std::set<NodeId> run() {
    std::map<NodeId, size_t> convs;
    for (NodeId id : block_.nodes) {
      auto costs = costs_of(id);
      if (!costs && wants(id).makes == Makes::inherits)
        costs = costs_of_pool(id);
      size_t vertex = costs || is_free(id) ? cut_.add() : fixed(id);
      if (costs) {
        if (wants(id).makes == Makes::blocked)
          convs.emplace(id, vertex);
        cut_.connect(Cut::kBlocked, vertex, costs->planar, 0);
        cut_.connect(vertex, Cut::kPlanar, costs->blocked, 0);
      }
      for (ValueId v : function_.node(id).results)
        if (can_block(function_.type(v)))
          maker_[v] = vertex;
      read_operands(id, vertex);
    }
    std::set<NodeId> out;
    if (convs.empty())
      return out;
    for (ValueId v : block_.results)
      read(v, Cut::kPlanar);
    std::vector<bool> planar = cut_.planar();
    for (auto [id, vertex] : convs)
      if (planar[vertex])
        out.insert(id);
    return out;
  }

private:
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
    double cycles = kLaunch + elements(function_.type(v).shape) / kCopied;
    cut_.connect(it == maker_.end() ? Cut::kPlanar : it->second, reader, cycles, cycles);
  }

  void read_operands(NodeId id, size_t vertex) {
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
        read(node.operands[i], vertex);
        break;
      case Want::match:
        if (wants(id).makes != Makes::planar && !node.results.empty() &&
            function_.type(node.operands[i]).shape == function_.type(node.results[0]).shape)
          read(node.operands[i], vertex);
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
    return Costs{picked * 4 / double(flags_.vector_bytes), picked / double(dtype_bytes(y.dtype))};
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
    if (outputs > kMostOutputs || inputs > kMostInputs)
      return std::nullopt;
    double taps = 1, lanes = double(flags_.vector_bytes) / 4;
    bool pointwise = true, strided = false;
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
    auto filled = [&](double n) { return n / (std::ceil(n / lanes) * lanes); };
    return Costs{sums / kOfBlocks / filled(double(outputs)),
                     sums / (strided ? kOfStridedRows : kOfRows) / filled(row)};
  }

  const Function &function_;
  const Block &block_;
  const std::map<NodeId, KernelWants> &wants_;
  const PassFlags &flags_;
  TypicalSizes sizes_;
  Cut cut_;
  std::map<ValueId, size_t> maker_;
};

} // namespace

std::set<NodeId> planar_convolutions(const Module &module, const Function &function, const Block &block,
                                     const std::map<NodeId, KernelWants> &wants, const PassFlags &flags) {
  return Choice(module, function, block, wants, flags).run();
}

} // namespace kiln
