// Makes chains (fuse.h): kernels one after the other become one that computes block after block of the
// last one's result, where what lies between them then stays in the cache, or a launch is saved, and
// that is worth more than the rows computed twice at the borders of blocks. Runs after layout.
//
//   e = fusion(x, w0) {...}; d = fusion(e, w1) {...}; y = fusion(d, w2, x) {...}
//     ->  y = fusion(x, w0, w1, w2, block=[24, 8]) { e = fusion ..; d = fusion ..; fusion .. }
//
// A run of kernels that read each other is cut into chains such that the sum of their costs is least. Where
// images have sizes that nobody knows, costs are those of usual ones, and blocks are so many columns wide, so
// that what a block needs in between has a size that is known.
#include "passes/graph/chain.h"

#include "ir/ops/op.h"
#include "ir/clone.h"
#include "passes/graph/fuse.h"
#include "passes/graph/rewrite.h"
#include "passes/graph/typical.h"

#include <algorithm>
#include <limits>
#include <map>

namespace kiln {
namespace {

constexpr size_t kMaxStages = 4;
constexpr int64_t kMaxGroup = 256; // channels

// Costs are in cycles of one core.
constexpr double kLaunch = 4000;         // waking threads and waiting for them
constexpr double kFarBytesPerCycle = 20; // what one kernel wrote, half of it on another core, and the next reads
constexpr double kNearBytesPerCycle = 64; // from the second cache
constexpr double kHeld = 0.9;             // of the second cache, for what a block computes and its weights
constexpr double kShare = 600;            // starting one block: zeros around it, first misses
constexpr int64_t kGroupPanels = 2;       // groups are multiples of so many blocks of channels
constexpr int64_t kGoodPixels = 12; // of a register tile
constexpr int64_t kSides[] = {256, 640};  // of images whose size is not known
constexpr int64_t kMostRows = 64;         // of a block of those
constexpr int64_t kWidths[] = {16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512}; // and its columns
constexpr double kLine = 250; // starting another piece of a row: addresses, what is not yet fetched

// What a stage makes of one image.
struct Image {
  double flops = 0;
  int64_t rows = 0, columns = 0;
  int64_t bytes = 0; // of the result
};

struct Stage {
  NodeId node;
  ValueId result;
  Reach reach; // of the operand that the stage before makes
  int64_t channels = 0, planes = 0; // blocks of channels
  int64_t weight_bytes = 0;         // constants
  bool contracts = false;   // over all channels
  bool known_rows = false, known_columns = false;
  std::vector<Image> images; // of the sizes to decide by
};

struct Choice {
  double cost = std::numeric_limits<double>::infinity();
  int64_t channels = 0, rows = 0; // 0: not a chain
  int64_t columns = 0;            // 0: all
};

int64_t rounded(int64_t n, int64_t by) {
  return (n + by - 1) / by * by;
}

class Chainer {
public:
  Chainer(Module &module, Function &function, Block &block, const PassFlags &flags)
      : module_(module), function_(function), block_(block), flags_(flags) {
    for (int64_t side : kSides)
      sizes_.emplace_back(module, side);
  }

  Changed run() {
    uses_ = function_.use_counts();
    for (NodeId id : block_.nodes)
      for (ValueId operand : function_.node(id).operands)
        user_[operand] = id;
    for (NodeId id : block_.nodes)
      if (auto s = stage_of(id))
        stages_.emplace(id, std::move(*s));
    std::map<NodeId, NodeId> next, before;
    for (NodeId id : block_.nodes)
      if (stages_.contains(id))
        link(id, next, before);
    for (NodeId id : block_.nodes) {
      if (!stages_.contains(id) || before.contains(id))
        continue;
      std::vector<Stage> run;
      for (NodeId at = id;;) {
        run.push_back(stages_.at(at));
        auto to = next.find(at);
        if (to == next.end())
          break;
        at = to->second;
      }
      cut(run);
    }
    apply();
    return chains_.empty() ? Changed::no : Changed::yes;
  }

private:
  struct Chain {
    std::vector<NodeId> nodes;
    Choice block;
  };

  std::optional<Stage> stage_of(NodeId id) const;
  void link(NodeId id, std::map<NodeId, NodeId> &next, std::map<NodeId, NodeId> &before);
  void cut(const std::vector<Stage> &run);
  double alone(const std::vector<Stage> &run, size_t at) const;
  double passed_on(const Stage &stage) const;
  Choice together(std::span<const Stage> run) const;
  double cost_of(std::span<const Stage> run, const Choice &block, size_t image) const;
  void apply();
  NodeId build(const Chain &chain);
  // Two multiply-adds of a vector of floats.
  double flops_per_cycle() const { return double(flags_.vector_bytes); }

  Module &module_;
  Function &function_;
  Block &block_;
  const PassFlags &flags_;
  std::vector<TypicalSizes> sizes_;
  std::vector<int> uses_;
  std::map<ValueId, NodeId> user_;
  std::map<NodeId, Stage> stages_;
  std::vector<Chain> chains_;
};

// Images with a known number of channels, made by a window, a contraction or in place.
std::optional<Stage> Chainer::stage_of(NodeId id) const {
  const Node &node = function_.node(id);
  const OpDef &own = op_def(node.op);
  if (node.results.size() != 1 || (own.structural && node.op != Op::fusion) || is_chain(node) ||
      !(node.op == Op::fusion || own.scalar || own.element || own.reduce))
    return std::nullopt;
  const Value &value = function_.value(node.results[0]);
  const Shape &shape = value.type.shape;
  if (shape.size() != 4 || !shape[1].is_const() || !is_float(value.type.dtype) || !value.layout.order.empty())
    return std::nullopt;
  if (element_count(shape).is_const(0))
    return std::nullopt; // nothing to compute, and no rows to share the work by
  FusionInfo info = describe_fusion(function_, id);
  if (info.form != FusionForm::elementwise && info.form != FusionForm::reduce)
    return std::nullopt;
  Stage out;
  out.node = id;
  out.result = node.results[0];
  out.channels = shape[1].as_const();
  out.known_rows = shape[2].is_const();
  out.known_columns = shape[3].is_const();
  out.planes = rounded(out.channels, value.layout.block_of(1)) / value.layout.block_of(1);
  size_t inside = node.op == Op::fusion ? node.regions[0].nodes.size() : 1;
  double work = double(inside); // for an element
  if (info.form == FusionForm::reduce) {
    const Node &root = function_.node(info.root);
    double taps = 1;
    if (root.op == Op::conv) {
      const Shape &w = function_.type(root.operands[1]).shape;
      if (!is_static(w))
        return std::nullopt;
      taps = 2 * double(element_count(w).as_const()) / double(out.channels);
      out.contracts = !w[1].is_const(1);
    } else if (root.op == Op::max_pool || root.op == Op::avg_pool) {
      taps = double(element_count(root.attrs.get_dims("kernel")).as_const());
    } else {
      return std::nullopt;
    }
    work += taps;
  }
  for (const TypicalSizes &sizes : sizes_) {
    Image &image = out.images.emplace_back();
    image.rows = sizes.of(shape[2]);
    image.columns = sizes.of(shape[3]);
    int64_t count = rounded(out.channels, value.layout.block_of(1)) * image.rows * image.columns;
    image.bytes = count * dtype_bytes(value.type.dtype);
    image.flops = double(count) * work;
  }
  for (ValueId operand : node.operands) {
    const Node *def = function_.def(operand);
    const TensorType &type = function_.type(operand);
    auto elements = element_count(type.shape).try_const();
    if (def && def->op == Op::constant)
      out.weight_bytes += elements.value_or(0) * dtype_bytes(type.dtype);
  }
  return out;
}

// The result's only user is the next stage, unless that has another before it already.
void Chainer::link(NodeId id, std::map<NodeId, NodeId> &next, std::map<NodeId, NodeId> &before) {
  const Stage &stage = stages_.at(id);
  ValueId value = stage.result;
  auto user = user_.find(value);
  if (size_t(value) >= uses_.size() || uses_[size_t(value)] != 1 || user == user_.end())
    return;
  auto to = stages_.find(user->second);
  if (to == stages_.end() || before.contains(user->second))
    return;
  const Node &node = function_.node(user->second);
  size_t operand = size_t(std::find(node.operands.begin(), node.operands.end(), value) - node.operands.begin());
  auto reach = reach_of(function_, node, operand);
  if (!reach || function_.type(value).shape[0] != function_.type(to->second.result).shape[0])
    return;
  to->second.reach = *reach;
  next[id] = user->second;
  before[user->second] = id;
}

// How many stages may run over groups of channels: those before the first that needs all of them.
size_t grouped_stages(std::span<const Stage> run) {
  for (size_t i = 1; i < run.size(); ++i)
    if (run[i].reach.all_channels)
      return i;
  return run.size();
}

// A stage on its own; what the next kernel reads from far away is on its bill.
double Chainer::alone(const std::vector<Stage> &run, size_t at) const {
  double cost = 0;
  for (const Image &image : run[at].images)
    cost += image.flops / flops_per_cycle() + kLaunch;
  return cost + (at + 1 < run.size() ? passed_on(run[at]) : 0);
}

double Chainer::passed_on(const Stage &stage) const {
  double cost = 0;
  for (const Image &image : stage.images)
    cost += 2 * double(image.bytes) / kFarBytesPerCycle;
  return cost;
}

// How many of `size` rows, or columns, blocks of `n` of the last stage's compute, rows twice counted twice.
int64_t computed(const ReachOf &reach, int64_t blocks, int64_t n, int64_t size) {
  int64_t sum = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    int64_t begin = b * n * reach.stride + reach.lo, end = begin + reach.count(n);
    sum += std::max<int64_t>(0, std::min(end, size) - std::max<int64_t>(begin, 0));
  }
  return sum;
}

double Chainer::cost_of(std::span<const Stage> run, const Choice &block, size_t at) const {
  const Stage &last = run.back();
  size_t grouped = grouped_stages(run);
  int64_t rows = block.rows, columns = block.columns > 0 ? block.columns : last.images[at].columns;
  int64_t groups = run[grouped - 1].channels / block.channels;
  int64_t high = (last.images[at].rows + rows - 1) / rows, wide = (last.images[at].columns + columns - 1) / columns;
  int64_t blocks = high * wide;
  std::vector<Reach> reach(run.size());
  int64_t held = 0;
  double cost = 0;
  for (size_t i = run.size(); i-- > 0;) {
    const Stage &s = run[i];
    const Image &image = s.images[at];
    if (i + 1 < run.size()) {
      reach[i].rows = reach[i + 1].rows.behind(run[i + 1].reach.rows);
      reach[i].columns = reach[i + 1].columns.behind(run[i + 1].reach.columns);
    }
    int64_t lines = computed(reach[i].rows, high, rows, image.rows);
    cost += kLine * double(lines * (wide - 1) * s.planes);
    double part = double(lines) / double(image.rows);
    if (block.columns > 0)
      part *= double(computed(reach[i].columns, wide, columns, image.columns)) / double(image.columns);
    cost += image.flops * part / flops_per_cycle();
    int64_t of_groups = i + 1 < grouped || grouped == run.size() ? groups : 1;
    int64_t bytes = image.bytes / of_groups * std::min(reach[i].rows.count(rows), image.rows + reach[i].rows.hi) / image.rows;
    int64_t pixels = std::min(reach[i].rows.count(rows), image.rows) * image.columns;
    if (block.columns > 0) {
      int64_t across = std::min(reach[i].columns.count(columns), image.columns + reach[i].columns.hi);
      bytes = bytes * across / image.columns;
      pixels = pixels / image.columns * std::min(across, image.columns);
    }
    held += bytes + s.weight_bytes / of_groups;
    // Weights pass by once for each block.
    cost += 0.5 * double(s.weight_bytes) * double(blocks - 1) / kNearBytesPerCycle;
    // Tiles of few pixels load more than they multiply.
    if (s.contracts && pixels < kGoodPixels)
      cost += image.flops / flops_per_cycle() * (double(kGoodPixels) / double(pixels) - 1) * 0.5;
  }
  if (double(held) > kHeld * double(flags_.cache_bytes))
    return std::numeric_limits<double>::infinity();
  // Threads get equally many blocks, or one more: counted for two of them.
  int64_t shares = grouped == run.size() ? groups * blocks : blocks;
  shares *= function_.type(last.result).shape[0].try_const().value_or(1);
  cost *= (1 + double((shares + 1) / 2 * 2) / double(shares)) / 2;
  return cost + kLaunch + kShare * double(groups * blocks);
}

Choice Chainer::together(std::span<const Stage> run) const {
  const Stage &last = run.back();
  Choice best;
  size_t grouped = grouped_stages(run);
  const Stage &wide = run[grouped - 1];
  int64_t unit = function_.value(wide.result).layout.block_of(1);
  std::vector<int64_t> groups{wide.channels};
  if (grouped > 1 && unit > 1)
    for (int64_t g = kGroupPanels * unit; g < wide.channels && g <= kMaxGroup; g += kGroupPanels * unit)
      if (wide.channels % g == 0)
        groups.push_back(g);
  bool known_columns = true;
  for (const Stage &s : run)
    known_columns = known_columns && s.known_columns;
  std::vector<int64_t> widths{0};
  if (!known_columns)
    widths.assign(std::begin(kWidths), std::end(kWidths));
  int64_t most = last.known_rows ? last.images[0].rows : kMostRows;
  for (int64_t g : groups)
    for (int64_t rows = 1; rows <= most; ++rows) {
      if (last.known_rows && last.images[0].rows % rows != 0)
        continue;
      for (int64_t columns : widths) {
        Choice choice{0, g, rows, columns};
        for (size_t image = 0; image < last.images.size(); ++image)
          choice.cost += cost_of(run, choice, image);
        if (choice.cost < best.cost)
          best = choice;
      }
    }
  return best;
}

void Chainer::cut(const std::vector<Stage> &run) {
  size_t n = run.size();
  if (n < 2)
    return;
  std::vector<double> best(n + 1, std::numeric_limits<double>::infinity());
  std::vector<std::pair<size_t, Choice>> from(n + 1);
  best[0] = 0;
  for (size_t end = 1; end <= n; ++end)
    for (size_t count = 1; count <= std::min(end, kMaxStages); ++count) {
      size_t begin = end - count;
      Choice choice;
      if (count == 1) {
        choice.cost = alone(run, begin);
      } else {
        choice = together(std::span(run).subspan(begin, count));
        if (end < n)
          choice.cost += passed_on(run[end - 1]);
      }
      if (best[begin] + choice.cost < best[end]) {
        best[end] = best[begin] + choice.cost;
        from[end] = {begin, choice};
      }
    }
  for (size_t end = n; end > 0; end = from[end].first) {
    auto [begin, choice] = from[end];
    if (end - begin < 2)
      continue;
    Chain chain{{}, choice};
    for (size_t i = begin; i < end; ++i)
      chain.nodes.push_back(run[i].node);
    chains_.push_back(std::move(chain));
  }
}

NodeId Chainer::build(const Chain &chain) {
  Block region, scratch;
  std::vector<ValueId> captured;
  ValueMap map;
  GraphBuilder inside(module_, function_, region), outside(module_, function_, scratch);
  for (NodeId id : chain.nodes) {
    for (ValueId operand : std::vector<ValueId>(function_.node(id).operands)) {
      if (map.contains(operand))
        continue;
      Value value = function_.value(operand);
      ValueId arg = function_.add_argument(region, value.type, value.name);
      map[operand] = arg;
      captured.push_back(operand);
    }
    Status status = clone_node(inside, function_, id, map);
    KILN_CHECK(status.ok(), status.ok() ? "" : status.error().message);
  }
  ValueId last = function_.node(chain.nodes.back()).results[0];
  region.results = {map.at(last)};
  outside.set_location(function_.node(chain.nodes.back()).location);
  std::vector<Block> regions;
  regions.push_back(std::move(region));
  std::vector<Dim> block{chain.block.channels, chain.block.rows};
  if (chain.block.columns > 0)
    block.push_back(chain.block.columns);
  auto emitted = outside.emit(Op::fusion, captured, {{"block", std::move(block)}}, std::move(regions));
  KILN_CHECK(emitted.ok(), emitted.ok() ? "" : emitted.error().message);
  ValueId fresh = function_.node(*emitted).results[0];
  function_.value(fresh).layout = function_.value(last).layout;
  function_.value(fresh).name = function_.value(last).name;
  return *emitted;
}

// A chain stands where its last stage stood: nothing else reads what the others made.
void Chainer::apply() {
  for (const Chain &chain : chains_) {
    ValueId last = function_.node(chain.nodes.back()).results[0];
    NodeId fusion = build(chain);
    *std::find(block_.nodes.begin(), block_.nodes.end(), chain.nodes.back()) = fusion;
    for (NodeId id : chain.nodes)
      function_.node(id).removed = true;
    std::erase_if(block_.nodes, [&](NodeId id) { return function_.node(id).removed; });
    function_.replace_uses(last, function_.node(fusion).results[0]);
  }
}

} // namespace

Changed chain(Module &module, PassContext &context) {
  if (!context.flags.blocked_layouts || context.flags.cache_bytes == 0)
    return Changed::no;
  Changed changed = Changed::no;
  for (Function &function : module.functions) {
    Changed here = Changed::no;
    std::vector<Block *> blocks = kernel_blocks(function);
    for (Block *block : blocks)
      here |= Chainer(module, function, *block, context.flags).run();
    if (here == Changed::yes)
      function.compact();
    changed |= here;
  }
  return changed;
}

} // namespace kiln
