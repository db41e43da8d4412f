// Lowers chains (fuse.h): one loop over blocks of the result, and in it each stage's own nest over what
// the stages after it need for that block. Results of all stages but the last lie in memory of the
// worker's own, in their layout, with rows beyond the edge and halos zeroed in place.
//
//   y = fusion(x, w, v) { a = conv(x, w); conv(a, v) }, 3x3, blocks of 8 rows
//     ->  for b in 0..H/8 parallel {
//           alloc a: f32[C * 10 * (W + 2)] stack
//           for c, h in max(0, 1 - 8*b)..min(10, H + 1 - 8*b), w { a[..] = .. x .. }
//           for c, h in 0..8, w { y[.. 8*b + h ..] = .. a .. } }
//
// The stages before the first that needs all channels of its operand run over groups of channels: inside a
// block of rows where such a stage follows, else as an outer parallel loop.
#include "passes/graph/chain.h"

#include "passes/lower/kernel_lowering.h"

#include <algorithm>
#include <map>

namespace kiln {

BlockPlace block_place(const Value &value, std::span<const IndexRange> block) {
  BlockPlace place{value.type.shape, value.layout, std::vector<Dim>(value.type.shape.size())};
  for (const IndexRange &range : block) {
    place.shape[size_t(range.dim)] = range.count;
    place.base[size_t(range.dim)] = range.begin;
    std::erase_if(place.layout.halos, [&](const Layout::Halo &h) { return h.dim == range.dim; });
  }
  return place;
}

namespace {

constexpr int kBatch = 0, kChannels = 1, kRows = 2, kColumns = 3;

class ChainLowering {
public:
  ChainLowering(const Module &module, const Function &function, const Node &node)
      : module_(module), function_(function), node_(node), stages_(node.regions.at(0).nodes) {}

  LoweredNode run() {
    ValueId result = node_.results.at(0);
    const TensorType &type = function_.type(result);
    auto block = node_.attrs.get_ints("block");
    KILN_CHECK(block.size() >= 2 && block[0] > 0 && block[1] > 0, "a chain has a block");
    find_reaches(block[1]);
    const Dim &grouped = function_.type(result_of(grouped_ - 1)).shape[kChannels];
    bool groups = !grouped.is_const(block[0]);
    std::vector<Loop> outer, inner;
    Dim batch = over("n", type.shape[kBatch], 1, outer);
    Dim channels = groups ? over("g", grouped, block[0], grouped_ < stages_.size() ? inner : outer) : Dim(0);
    Dim rows = over("b", type.shape[kRows], block[1], outer);
    std::optional<Dim> columns;
    if (block.size() > kColumns - 1)
      columns = over("c", type.shape[kColumns], block[kColumns - 1], outer);
    place_values(batch, groups ? std::optional(channels) : std::nullopt, rows, columns, block);

    Kernel kernel;
    kernel.location = node_.location;
    std::vector<Stmt> body, group;
    for (size_t i = 0; i < stages_.size(); ++i) {
      bool last = i + 1 == stages_.size();
      if (!last && (i + 1 < grouped_)) // lives as long as the group
        allocate(i, group);
      else if (!last)
        allocate(i, body);
      ChainStage stage{node_, ranges_, scratch_, blocks_[i], int(i)};
      KernelLowering lowering(module_, function_, function_.node(stages_[i]), &stage);
      append(i < grouped_ ? group : body, lowering.run_stage());
      merge_inputs(lowering);
      if (i + 1 == grouped_)
        append(body, within(inner, std::move(group)));
      if (last)
        kernel.body = KernelLowering(module_, function_, function_.node(stages_[i])).run_zero_halo();
    }
    append(kernel.body, within(outer, std::move(body)));
    LoweredNode out;
    for (auto &[position, input] : inputs_) {
      kernel.buffers.push_back(input.second);
      out.values.push_back(input.first);
    }
    const Value &value = function_.value(result);
    kernel.buffers.push_back({Symbol("out0"), value.type.dtype, physical_size(value.type, value.layout),
                              Access::out, false});
    out.values.push_back(result);
    split_loops(kernel);
    rename_symbols(kernel);
    finish_kernel(kernel);
    out.kernel = std::move(kernel);
    return out;
  }

private:
  struct Loop {
    Symbol name;
    Dim end;
  };

  ValueId result_of(size_t stage) const { return function_.node(stages_[stage]).results.at(0); }

  static void append(std::vector<Stmt> &to, std::vector<Stmt> from) {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  }

  static std::vector<Stmt> within(const std::vector<Loop> &loops, std::vector<Stmt> body) {
    for (size_t i = loops.size(); i-- > 0;) {
      std::vector<Stmt> outer;
      outer.push_back(kb::loop(loops[i].name, 0, loops[i].end, LoopKind::parallel, std::move(body)));
      body = std::move(outer);
    }
    return body;
  }

  void allocate(size_t stage, std::vector<Stmt> &to) const {
    const Value &v = function_.value(result_of(stage));
    const Scratch &scratch = scratch_.at(result_of(stage));
    BlockPlace place = block_place(v, scratch.block);
    int64_t size = physical_size({v.type.dtype, place.shape}, place.layout).as_const();
    to.push_back(kb::alloc(scratch.buffer, v.type.dtype, size, 1, MemorySpace::stack));
  }

  // A loop over blocks of a dim, and the first index of one.
  Dim over(const char *name, const Dim &size, int64_t block, std::vector<Loop> &loops) {
    Dim trips = ceildiv(size, block);
    if (trips.is_const(1))
      return 0;
    Symbol symbol(std::string(name) + "$block");
    ranges_.set(symbol, {0, trips});
    loops.push_back({symbol, trips});
    return Dim::symbol(symbol) * Dim(block);
  }

  // From the last stage to the first: which rows of its result are needed.
  void find_reaches(int64_t rows) {
    reach_.resize(stages_.size());
    grouped_ = stages_.size();
    for (size_t i = stages_.size() - 1; i-- > 0;) {
      const Node &next = function_.node(stages_[i + 1]);
      auto at = std::find(next.operands.begin(), next.operands.end(), result_of(i));
      KILN_CHECK(at != next.operands.end(), "a stage reads the one before it");
      auto step = reach_of(function_, next, size_t(at - next.operands.begin()));
      KILN_CHECK(step && reach_[i + 1].rows.count(rows) > 0, "a stage reads a block");
      reach_[i].rows = reach_[i + 1].rows.behind(step->rows);
      reach_[i].columns = reach_[i + 1].columns.behind(step->columns);
      if (step->all_channels)
        grouped_ = i + 1;
    }
  }

  void place_values(const Dim &batch, const std::optional<Dim> &channels, const Dim &rows,
                    const std::optional<Dim> &columns, const std::vector<int64_t> &block) {
    auto part = [](int dim, const ReachOf &reach, const Dim &first, int64_t count) {
      return IndexRange{dim, first * Dim(reach.stride) + Dim(reach.lo), reach.count(count)};
    };
    for (size_t i = 0; i < stages_.size(); ++i) {
      IndexRange image{kBatch, batch, 1}, some{kChannels, channels.value_or(0), block[0]};
      blocks_.push_back({image, part(kRows, reach_[i].rows, rows, block[kRows - 1])});
      if (columns)
        blocks_.back().push_back(part(kColumns, reach_[i].columns, *columns, block[kColumns - 1]));
      std::vector<IndexRange> held = blocks_.back();
      if (channels && i < grouped_)
        blocks_.back().push_back(some);
      if (i + 1 == stages_.size())
        continue;
      Scratch &scratch = scratch_[result_of(i)];
      scratch = {Symbol("scratch$" + std::to_string(i)), std::move(held)};
      if (channels && i + 1 < grouped_)
        scratch.block.push_back(some);
    }
  }

  void merge_inputs(const KernelLowering &lowering) {
    for (size_t i = 0; i < lowering.inputs().size(); ++i) {
      const KernelBuffer &buffer = lowering.input_buffers()[i];
      inputs_.emplace(std::stoull(std::string(buffer.name.text().substr(2))),
                      std::pair(lowering.inputs()[i], buffer));
    }
  }

  const Module &module_;
  const Function &function_;
  const Node &node_;
  const std::vector<NodeId> &stages_;
  DimRanges ranges_;
  std::vector<Reach> reach_; // of the chain's result, by stage
  size_t grouped_ = 0;           // so many stages run over groups of channels
  std::vector<std::vector<IndexRange>> blocks_; // by stage
  std::unordered_map<ValueId, Scratch> scratch_;
  std::map<size_t, std::pair<ValueId, KernelBuffer>> inputs_; // by position among the operands
};

} // namespace

LoweredNode lower_chain(const Module &module, const Function &function, NodeId node) {
  return ChainLowering(module, function, function.node(node)).run();
}

} // namespace kiln
