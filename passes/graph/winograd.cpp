// 3x3 convolutions with stride 1 by Winograd's minimal filtering, where that is faster.
//
//   y = conv(x, w, b)   ->   u = winograd_weights(w); y = winograd_conv(x, u, b)
//
// Large tiles (4) need the fewest multiplications, but their weights are four times as large; small
// tiles (2) suit small maps; where weights are larger than images, neither is worth the memory they
// read. A cost model in clock cycles of one worker decides for each convolution. Transformed weights
// are constants as long as all of them stay within kGrowth of the module's; the rest is transformed
// in every run, which pays where an image has many tiles. Where other code of the package keeps the weights as they are,
// the package holds those alone.
#include "passes/graph/winograd.h"

#include "passes/graph/rewrite.h"
#include "passes/graph/typical.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <map>

namespace kiln {
namespace {

// How much larger constants may become: a package stays within 1.25 times its model, code included.
constexpr double kGrowth = 0.2;
// A form must save this part of the direct one's time.
constexpr double kLeastGain = 0.1;
// Bytes a cycle from memory, a part of which arithmetic hides, and to and from the shared cache.
constexpr double kMemoryBytes = 5, kSharedBytes = 8;
// The same of what a run writes anew and another core reads, or read last: a mean over one thread, where it costs
// little, and two, where transformed weights took ten times as long as on one.
constexpr double kHandedBytes = 4;
constexpr int64_t kPanel = 16;
constexpr int64_t kTileRows = 24; // rows that register tiles of 4, 6, 8 and 12 cut evenly

struct Shapes {
  int64_t batch, in, out, height, width; // channels in and out, size of the result, or what it usually is
  bool known;                            // height and width
  int64_t groups;
  double cells() const { return double(in) * double(out) / double(groups); }
};

struct Form { // how to compute a convolution: direct where `tile` is 0
  int64_t tile = 0;
  bool stored = false; // transformed weights are a constant
  double cycles = 0;
  int64_t extra_bytes = 0;
};

struct Candidate {
  NodeId node;
  std::vector<Form> forms; // stored ones
  Form chosen;
};

class Costs {
public:
  explicit Costs(const PassFlags &flags)
      : lanes_(double(flags.vector_bytes) / 4), cache_(flags.cache_bytes) {}

  double direct(const Shapes &s) const {
    double fmas = 9 * s.cells() * double(s.batch * s.height * s.width);
    return multiply(fmas) + memory(36 * s.cells());
  }

  double transformed(const Shapes &s, int64_t tile, bool stored) const {
    int64_t points = (tile + 2) * (tile + 2);
    double tiles = double(tiles_of(s, tile));
    double bytes = 4 * double(points) * s.cells();
    double sum = multiply(double(points) * tiles * s.cells());
    // Vectors that the transforms load, store and compute.
    double into = tile == 4 ? 110 : 36, out = tile == 4 ? 85 : 22;
    sum += tiles * (into * double(s.in) + out * double(s.out)) / lanes_;
    if (stored)
      return sum + memory(bytes);
    return sum + memory(36 * s.cells()) + (tile == 4 ? 80 : 35) * s.cells() / lanes_ +
           (bytes > double(cache_) ? 2 * bytes / kSharedBytes : 0) + bytes / kHandedBytes;
  }

  static int64_t tiles_of(const Shapes &s, int64_t tile) {
    return s.batch * ((s.height + tile - 1) / tile) * ((s.width + tile - 1) / tile);
  }

  // Tile rows of a block: what it holds stays in the cache, and two or four workers have equal
  // shares, against reading the weights again for every block.
  int64_t rows_of_block(const Shapes &s, int64_t tile) const {
    int64_t points = (tile + 2) * (tile + 2), rows = (s.height + tile - 1) / tile,
            columns = (s.width + tile - 1) / tile;
    int64_t channels = s.in + std::min<int64_t>(s.out, 4 * kPanel) + 2 * kPanel;
    int64_t most = std::clamp<int64_t>(cache_ * 3 / 4 / (4 * points * columns * channels), 1, rows);
    int64_t best = 1;
    double least = 0;
    for (int64_t size = 1; size <= most; ++size) {
      int64_t blocks = s.batch * ((rows + size - 1) / size);
      double cost = 0;
      for (auto [workers, weight] : {std::pair(1, 2), std::pair(2, 2), std::pair(4, 1)}) {
        int64_t share = (blocks + workers - 1) / workers;
        double longest = double(std::min(share * size, s.batch * rows)) + double(share) / double(columns);
        cost += weight * workers * longest;
      }
      if (size == 1 || cost < least) {
        least = cost;
        best = size;
      }
    }
    return best;
  }

  // The same where the size of images is not known: equal numbers of rows for the register tiles.
  int64_t tiles_of_block(const Shapes &s, int64_t tile) const {
    int64_t points = (tile + 2) * (tile + 2), channels = s.in + std::min<int64_t>(s.out, 4 * kPanel) + 2 * kPanel;
    int64_t most = cache_ * 3 / 4 / (4 * points * channels);
    return std::clamp<int64_t>(most / kTileRows * kTileRows, kTileRows, 4 * kTileRows);
  }

private:
  double multiply(double fmas) const { return fmas / (2 * lanes_) * 1.1; }
  double memory(double bytes) const {
    return bytes > double(cache_) ? bytes / kMemoryBytes * 0.5 : bytes / kSharedBytes * 0.5;
  }

  double lanes_;
  int64_t cache_;
};

std::optional<Shapes> suitable(const Function &function, const Node &node, const TypicalSizes &sizes) {
  if (node.op != Op::conv)
    return std::nullopt;
  const TensorType &x = function.type(node.operands[0]), &w = function.type(node.operands[1]),
                   &y = function.type(node.results[0]);
  bool plain = x.dtype == DType::f32 && x.rank() == 4 && w.shape[2].is_const(3) &&
               w.shape[3].is_const(3) && node.attrs.get_dim("groups").is_const() &&
               is_static(node.attrs.get_dims("pad"));
  for (const char *name : {"stride", "dilation"})
    for (const Dim &d : node.attrs.get_dims(name))
      plain = plain && d.is_const(1);
  plain = plain && x.shape[1].is_const() && y.shape[1].is_const();
  if (!plain)
    return std::nullopt;
  for (int64_t p : node.attrs.get_ints("pad"))
    if (p < 0 || p > 2)
      return std::nullopt;
  Shapes s{sizes.of(y.shape[0]), x.shape[1].as_const(),   y.shape[1].as_const(),
           sizes.of(y.shape[2]), sizes.of(y.shape[3]), is_static(std::span(y.shape).subspan(2)), node.attrs.get_int("groups")};
  // Groups that are not blocks of channels are computed row by row of pixels.
  if (s.groups > 1 && (s.in / s.groups % kPanel != 0 || s.out / s.groups % kPanel != 0))
    return std::nullopt;
  // Fewer channels than a vector has lanes leave most of the transforms' work undone.
  if (s.in < kPanel || s.out < kPanel || s.batch < 1 || s.height < 2 || s.width < 2)
    return std::nullopt;
  return s;
}

// A constant, or one that is converted.
const Tensor *constant_weights(const Module &module, const Function &function, ValueId v) {
  const Node *def = function.def(v);
  return constant_tensor(module, function, def && def->op == Op::convert ? def->operands[0] : v);
}

int64_t constant_bytes(const Module &module) {
  std::vector<bool> seen(module.constants.size());
  int64_t bytes = 0;
  for (const Function &function : module.functions)
    for (const Node &node : function.nodes) {
      if (node.removed || node.op != Op::constant)
        continue;
      auto id = size_t(node.attrs.get_constant("value"));
      if (!seen[id])
        bytes += int64_t(module.constants[id].tensor.bytes().size());
      seen[id] = true;
    }
  return bytes;
}

Candidate consider(const Module &module, const Function &function, NodeId id, const Shapes &s,
                   const std::vector<int> &uses, const Costs &costs, Winograd flag) {
  Candidate out{id, {}, {}};
  const Node &node = function.node(id);
  const Tensor *constant = constant_weights(module, function, node.operands[1]);
  bool forced = flag != Winograd::automatic;
  out.chosen.cycles = costs.direct(s);
  double most = out.chosen.cycles * (1 - kLeastGain);
  for (int64_t tile : {2, 4}) {
    if (forced && tile != (flag == Winograd::two ? 2 : 4))
      continue;
    Form stored{tile, true, costs.transformed(s, tile, true), 0};
    int64_t kept = uses[size_t(node.operands[1])] > 1 || !constant ? 0 : 9 * dtype_bytes(constant->dtype());
    stored.extra_bytes = (4 * (tile + 2) * (tile + 2) - kept) * int64_t(s.cells());
    if (constant && (forced || stored.cycles < most))
      out.forms.push_back(stored);
    Form computed{tile, false, costs.transformed(s, tile, false), 0};
    if (forced || (computed.cycles < most && computed.cycles < out.chosen.cycles))
      out.chosen = computed;
  }
  return out;
}

// Stored weights, first where a byte saves most.
void spend(std::vector<Candidate> &candidates, double budget) {
  struct Offer {
    double worth;
    size_t candidate, form;
  };
  std::vector<Offer> offers;
  for (size_t c = 0; c < candidates.size(); ++c)
    for (size_t f = 0; f < candidates[c].forms.size(); ++f) {
      const Form &form = candidates[c].forms[f];
      double saved = candidates[c].chosen.cycles - form.cycles;
      if (saved > 0)
        offers.push_back({saved / double(std::max<int64_t>(form.extra_bytes, 1)), c, f});
    }
  std::stable_sort(offers.begin(), offers.end(),
                   [](const Offer &a, const Offer &b) { return a.worth > b.worth; });
  for (const Offer &offer : offers) {
    Form &now = candidates[offer.candidate].chosen;
    const Form &form = candidates[offer.candidate].forms[offer.form];
    double more = double(form.extra_bytes - now.extra_bytes);
    if (form.cycles >= now.cycles || more > budget)
      continue;
    budget -= more;
    now = form;
  }
}

void rewrite(Sweep &s, NodeId id, const Form &form, const Shapes &shapes, const Costs &costs) {
  Node node = s.node(id);
  Attrs tile{{"tile", Dim(form.tile)}};
  ValueId weights = s.resolve(node.operands[1]), u;
  if (const Tensor *stored = constant_weights(s.module(), s.function(), weights);
      stored && form.stored) {
    Tensor converted;
    const Tensor *w = stored;
    if (stored->dtype() != DType::f32) {
      converted = Tensor(DType::f32, stored->dims());
      for (int64_t i = 0; i < stored->count(); ++i)
        converted.set_f64(i, stored->at_f64(i));
      w = &converted;
    }
    const TensorType &type = s.function().type(weights);
    int64_t points = (form.tile + 2) * (form.tile + 2);
    TensorType result{type.dtype, {Dim(points), type.shape[0], type.shape[1]}};
    auto made = op_def(Op::winograd_weights).ref({{&w, 1}, tile, {&result, 1}});
    KILN_CHECK(made.ok(), "weights can be transformed");
    std::string name = s.function().value(weights).name;
    u = s.builder().constant(std::move((*made)[0]), name.empty() ? name : name + ".winograd");
  } else {
    u = s.builder()(Op::winograd_weights, {weights}, tile);
  }
  std::vector<ValueId> operands = node.operands;
  operands[1] = u;
  ValueId y = s.builder()(Op::winograd_conv, std::move(operands),
                          {{"tile", Dim(form.tile)},
                           {"pad", node.attrs.get_dims("pad")},
                           {"rows", Dim(shapes.known ? costs.rows_of_block(shapes, form.tile) : 1)},
                           {"tiles", Dim(shapes.known ? 0 : costs.tiles_of_block(shapes, form.tile))},
                           {"groups", Dim(shapes.groups)}});
  s.replace_results(id, std::vector{y});
}

} // namespace

double winograd_gain(const Module &module, const Function &function, const Node &conv, const PassFlags &flags) {
  auto shapes = suitable(function, conv, TypicalSizes(module));
  if (!shapes || flags.winograd == Winograd::off || !flags.blocked_layouts)
    return 1;
  Costs costs(flags);
  double direct = costs.direct(*shapes), best = direct;
  for (int64_t tile : {2, 4})
    if (flags.winograd == Winograd::automatic || tile == (flags.winograd == Winograd::two ? 2 : 4))
      best = std::min(best, costs.transformed(*shapes, tile, true));
  return direct / best;
}

Changed winograd(Module &module, PassContext &context) {
  if (context.flags.winograd == Winograd::off || !context.flags.blocked_layouts)
    return Changed::no;
  Costs costs(context.flags);
  TypicalSizes sizes(module);
  std::vector<Candidate> candidates;
  std::vector<std::pair<size_t, NodeId>> places;
  for (size_t f = 0; f < module.functions.size(); ++f) {
    const Function &function = module.functions[f];
    auto uses = function.use_counts();
    for_each_node(function, [&](NodeId id) {
      if (auto shapes = suitable(function, function.node(id), sizes)) {
        candidates.push_back(
            consider(module, function, id, *shapes, uses, costs, context.flags.winograd));
        places.emplace_back(f, id);
      }
    });
  }
  if (!context.flags.shares_weights)
    spend(candidates, kGrowth * double(constant_bytes(module)));
  std::map<std::pair<size_t, NodeId>, Form> forms;
  for (size_t c = 0; c < candidates.size(); ++c)
    if (candidates[c].chosen.tile > 0)
      forms.emplace(places[c], candidates[c].chosen);
  Changed changed = Changed::no;
  for (size_t f = 0; f < module.functions.size(); ++f) {
    Changed here = Sweep(module, module.functions[f]).run([&](Sweep &s, NodeId id) {
      if (auto it = forms.find({f, id}); it != forms.end())
        rewrite(s, id, it->second, *suitable(s.function(), s.node(id), sizes), costs);
    });
    if (here == Changed::yes)
      module.functions[f].compact();
    changed |= here;
  }
  if (changed == Changed::yes)
    dce(module, context);
  return changed;
}

} // namespace kiln
