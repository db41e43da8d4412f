#include "passes/lower/mask_bound.h"

#include "ir/ops/op.h"
#include "passes/graph/rewrite.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr double kHidden = -1e30; // f32 scores are nowhere near it
constexpr int64_t kMaxElements = int64_t(1) << 24;

// The reach of one mask whose element at (b, i, j) hides if `hides` says so.
std::optional<int64_t> reach_of(const Tensor &mask, const Shape &scores,
                                const std::function<bool(int64_t)> &hides) {
  auto dims = mask.dims();
  if (dims.size() < 2 || mask.count() > kMaxElements || !scores.back().is_const(dims.back()) ||
      !scores[scores.size() - 2].is_const(dims[dims.size() - 2]))
    return std::nullopt;
  int64_t keys = dims.back(), queries = dims[dims.size() - 2];
  int64_t reach = -queries;
  for (int64_t row = 0; row < mask.count() / std::max<int64_t>(keys, 1); ++row) {
    int64_t end = keys;
    while (end > 0 && hides(row * keys + end - 1))
      --end;
    if (end == 0) // every key is hidden alike: the softmax is of what is left of the scores
      return std::nullopt;
    reach = std::max(reach, end - (row % queries + 1));
  }
  // Nothing is hidden from the first query on.
  return 1 + reach < keys ? std::optional(reach) : std::nullopt;
}

} // namespace

std::optional<int64_t> mask_reach(const Module &module, const Function &function,
                                  const AttentionParts &parts,
                                  const std::function<ValueId(ValueId)> &resolve) {
  std::optional<int64_t> out;
  auto constant = [&](ValueId v) { return constant_tensor(module, function, resolve(v)); };
  for (auto [id, operand] : parts.to_dot) {
    const Node &n = function.node(id);
    const Shape &shape = function.type(n.results[0]).shape;
    std::optional<int64_t> reach;
    if (n.op != Op::add && n.op != Op::where && n.op != Op::reshape)
      break; // a factor after the mask could change what it hides
    if (n.op == Op::add) {
      if (const Tensor *mask = constant(n.operands[size_t(1 - operand)]))
        reach = reach_of(*mask, shape, [&](int64_t i) { return mask->at_f64(i) <= kHidden; });
    } else if (n.op == Op::where && operand > 0) {
      const Tensor *seen = constant(n.operands[0]);
      auto other = splat_value(module, function, resolve(n.operands[size_t(3 - operand)]));
      if (seen && other && *other <= kHidden)
        reach = reach_of(*seen, shape, [&](int64_t i) { return (seen->at_i64(i) != 0) != (operand == 1); });
    }
    if (reach)
      out = std::min(out.value_or(*reach), *reach);
  }
  return out;
}

std::vector<BandMask> band_masks(const Module &module, const Function &function, const AttentionParts &parts, const std::function<ValueId(ValueId)> &resolve) {
  std::vector<BandMask> out;
  for (auto [id, operand] : parts.to_dot) {
    const Node &n = function.node(id);
    bool is_where = n.op == Op::where && operand > 0;
    if (!is_where && n.op != Op::add)
      continue;
    BandMask band;
    band.node = id;
    band.operand = is_where ? 0 : 1 - operand;
    band.is_condition = is_where;
    band.seen = operand == 1;
    const Tensor *mask = constant_tensor(module, function, resolve(n.operands[size_t(band.operand)]));
    const Shape &scores = function.type(n.results[0]).shape;
    if (!mask || mask->dims().size() < 2 || mask->count() == 0)
      continue;
    // The last element of the first row and column tells what is hidden.
    int64_t keys = mask->dims().back();
    band.hidden = is_where ? 0 : mask->at_f64(keys - 1);
    auto hides = [&](int64_t i) { return is_where ? (mask->at_i64(i) != 0) != band.seen : mask->at_f64(i) <= kHidden; };
    auto reach = reach_of(*mask, scores, hides);
    if (!reach)
      continue;
    band.reach = *reach + 1;
    bool is_band = true;
    int64_t queries = mask->dims()[mask->dims().size() - 2];
    for (int64_t i = 0; is_band && i < mask->count(); ++i) {
      bool hidden = i % keys >= i / keys % queries + band.reach;
      is_band = is_where ? hides(i) == hidden : mask->at_f64(i) == (hidden ? band.hidden : 0.0);
    }
    if (is_band)
      out.push_back(band);
  }
  return out;
}

} // namespace kiln
