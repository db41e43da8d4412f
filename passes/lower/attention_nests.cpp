// Attention by blocks of query rows: the scores of a block stay in scratch memory between the two
// products, and the division by the sum of a row is left to the end.
//
//   for h parallel { for share parallel {
//     kt[j/16][e][j%16] = k[h, j, e]; vp[j][d] = v[h, j, d]          copies that vectors can read
//     for block {
//       for i, j { s[i, j] = scores(sum over e of q[h, i, e] * kt[..]) }
//       for i { m = max s[i, ..]; s[i, j] = exp(s[i, j] - m); sum[i] = sum s[i, ..] }
//       for i, d { out[h, i, d] = 1 / sum[i] * sum over j of s[i, j] * vp[j, d] }
//     }}}
//
// Where there are too many keys for that, or nobody knows how many, they come in spans: a share keeps
// the maximum, the sum and the weighted values of each row so far, and scales them down when a span has
// a larger maximum. Where a constant mask hides all keys from some distance after the query on, as a
// causal one does, those are not read.
//
// With a known number of queries, shares are of one size, and blocks where there are no spans: the last
// begins early enough to be whole and computes a few rows again, to the same bits.
//
// On a GPU shares are as many rows as a block of threads multiplies, and keys come in spans always, however few there
// are: one form, which codegen/cuda keeps in registers (streamed_softmax.h). Query heads that share keys and values have their
// rows side by side there, where a head alone would not fill a block: those of a query, then those of the next one.
#include "passes/lower/kernel_lowering.h"

#include "passes/graph/index_map.h"
#include "passes/lower/mask_bound.h"

#include <algorithm>
#include <limits>

namespace kiln {
namespace {

constexpr int64_t kPanel = 16;            // keys side by side
constexpr int64_t kBlockElements = 16384; // of the scores of a block: 64 KiB of f32
constexpr int64_t kTileRows = 6; // rows of most register tiles divide multiples of it
constexpr int64_t kMinBlockRows = 8, kMaxBlockRows = 64;
constexpr int64_t kHeldElements = 1 << 17; // of the keys and values of a head that are held at once
constexpr int64_t kSpanElements = 1 << 16; // of those of a span otherwise
constexpr int64_t kEnoughShares = 6;       // even, so that two threads get as much
constexpr int64_t kMinCopyRows = 4, kMinDirectKey = 32; // shorter keys make short vectors
// On a GPU a share is a block of threads: its keys, values and scores lie in shared memory.
constexpr int64_t kGpuShareRows = 32, kGpuSpan = 64;
// Halves are multiplied by tensor cores, which read keys and values where they lie: as many rows as keys of a span, whose
// scores lie eight elements apart, so that pairs of them in four rows meet in no bank.
constexpr int64_t kGpuRowGap = 8;
// Shares whose rows stay in registers: of keys and values up to this size, of halves up to the next, spans of so many bytes of both.
constexpr int64_t kStreamedSize = 128, kStreamedHalves = 256, kStreamedBytes = 32 << 10;
constexpr int64_t kStreamedRows = 64, kLeastStreamedRows = 16, kStreamedSpan = 64, kLeastStreamedSpan = 32;
constexpr int64_t kGpuShares = 128;  // that keep the multiprocessors of most devices busy
constexpr int64_t kUnknownBatch = 8; // a batch whose size only a run tells
constexpr int64_t kMinShareRows = 32, kShareRows = 256; // a share copies all keys and values

constexpr double kInfinity = std::numeric_limits<double>::infinity();

} // namespace

class AttentionNests {
public:
  AttentionNests(KernelLowering &lowering, const AttentionParts &parts)
      : l_(lowering), parts_(parts), function_(lowering.function_),
        values_dot_(function_.node(parts.values_dot)), keys_dot_(function_.node(parts.keys_dot)),
        out_(values_dot_.results[0]), dtype_(compute_dtype(lowering.type(parts.scores).dtype)) {
    const Shape &scores = l_.type(parts.scores).shape, &out = l_.type(out_).shape;
    queries_ = scores[scores.size() - 2];
    keys_ = scores.back();
    value_size_ = out.back().as_const();
    key_size_ = l_.type(keys_dot_.operands[0]).shape.back().as_const();
    auto is_half = [&](ValueId v) { return l_.type(v).dtype == DType::bf16 || l_.type(v).dtype == DType::f16; };
    on_tensors_ = l_.options_.gpu && is_half(keys_dot_.operands[1]) && is_half(values_dot_.operands[1]);
    auto is_small = [&](int64_t size) { return size >= 8 && size <= (on_tensors_ ? kStreamedHalves : kStreamedSize); };
    streams_ = l_.options_.gpu && dtype_ == DType::f32 && is_small(key_size_) && is_small(value_size_);
    choose_spans();
    if (streams_)
      choose_heads();
    choose_blocks();
    auto resolve = [&](ValueId v) { return l_.resolve(v); };
    reach_ = mask_reach(l_.module_, function_, parts_, resolve);
    if (streams_)
      bands_ = band_masks(l_.module_, function_, parts_, resolve);
  }

  void run() { over_batch(0); }

private:
  void choose_spans() {
    int64_t of_a_key = std::max<int64_t>(key_size_ + value_size_, 1); // any size may be 0
    if (streams_) {
      in_spans_ = true;
      span_ = of_a_key * (on_tensors_ ? 2 : 4) * kStreamedSpan <= kStreamedBytes ? kStreamedSpan : kLeastStreamedSpan;
      row_ = span_;
      values_row_ = value_size_;
      return;
    }
    bool gpu = l_.options_.gpu;
    in_spans_ = !keys_.is_const() || (gpu ? keys_.as_const() > kGpuSpan : keys_.as_const() * of_a_key > kHeldElements);
    span_ = !in_spans_ ? keys_.as_const() : gpu ? kGpuSpan : std::max<int64_t>(kSpanElements / of_a_key / 64, 1) * 64;
    values_row_ = value_size_ + (on_tensors_ ? kGpuRowGap : 0);
    row_ = on_tensors_ ? span_ + kGpuRowGap : padded_row(span_);
  }

  // As many heads together as have the same keys and values, where one of them has few queries, or nobody knows how many.
  void choose_heads() {
    const Shape &out = l_.type(out_).shape;
    bool is_full = queries_.is_const() && queries_.as_const() >= kStreamedRows;
    if (is_full || out.size() < 3 || !out[out.size() - 3].is_const())
      return;
    int64_t count = out[out.size() - 3].as_const();
    for (int64_t heads = std::min(count, kStreamedRows); heads > 1 && heads_ == 1; --heads)
      if (count % heads == 0 && heads_share(heads))
        heads_ = heads;
  }

  bool heads_share(int64_t heads) {
    bool shares = true;
    const Shape &out = l_.type(out_).shape;
    const std::vector<Dim> batch(out.size() - 2, 0);
    auto is_common = [&](const Node &dot, const std::vector<Dim> &index, Symbol head) {
      Expr value = l_.pull(dot.operands[1], operand_at(dot, 1, index, 0, 0));
      const Expr &load = value.is(Expr::Kind::convert) ? value.args[0] : value;
      return load.is(Expr::Kind::load) && !load.index.depends_on(head);
    };
    l_.in_scope(Symbol(), [&] {
      l_.loop("h", 0, out[out.size() - 3].as_const() / heads, LoopKind::parallel, [&](const Dim &group) {
        l_.loop("g", 0, heads, LoopKind::parallel, [&](const Dim &head) {
          batch_ = batch;
          batch_.back() = group * Dim(heads) + head;
          std::vector<Dim> of_keys = along(parts_.to_dot, scores_at(0, 0));
          of_keys.resize(of_keys.size() - 2);
          shares = is_common(keys_dot_, of_keys, *head.try_symbol()) && is_common(values_dot_, batch_, *head.try_symbol());
          batch_.clear();
        });
      });
    });
    return shares;
  }

  Dim all_rows() const { return queries_ * Dim(heads_); }

  // Fewer rows where there would be fewer blocks than multiprocessors: then warps share the keys of a span.
  void choose_streamed() {
    rows_ = kStreamedRows;
    int64_t heads = 1;
    const Shape &out = l_.type(out_).shape;
    for (size_t d = 0; d + 2 < out.size(); ++d)
      heads *= out[d].is_const() ? out[d].as_const() : kUnknownBatch;
    heads /= heads_;
    if (queries_.is_const()) {
      int64_t queries = std::max<int64_t>(all_rows().as_const(), 1);
      auto shares = [&] { return (queries + rows_ - 1) / rows_; };
      while (rows_ > kLeastStreamedRows && heads * shares() < kGpuShares)
        rows_ /= 2;
      rows_ = (queries + shares() - 1) / shares();
    }
    share_rows_ = rows_;
  }

  void choose_blocks() {
    if (streams_)
      return choose_streamed();
    bool gpu = l_.options_.gpu;
    int64_t gpu_rows = on_tensors_ ? kGpuSpan : kGpuShareRows;
    int64_t most = gpu ? gpu_rows : std::clamp(kBlockElements / std::max<int64_t>(row_, 1), kMinBlockRows, kMaxBlockRows);
    int64_t most_shared = gpu ? gpu_rows : kShareRows;
    if (!queries_.is_const()) {
      share_rows_ = most_shared;
      rows_ = std::max<int64_t>(most / kTileRows, 1) * kTileRows;
      return;
    }
    int64_t queries = std::max<int64_t>(queries_.as_const(), 1), heads = 1, shares = 1;
    const Shape &out = l_.type(out_).shape;
    for (size_t d = 0; d + 2 < out.size(); ++d)
      heads *= out[d].is_const() ? out[d].as_const() : 1;
    auto can_split = [&] { return queries / (shares + 1) >= kMinShareRows; };
    while (shares * heads < kEnoughShares && can_split())
      ++shares;
    if (shares * heads % 2 != 0 && can_split())
      ++shares;
    if (in_spans_ || gpu)
      shares = std::max(shares, (queries + most_shared - 1) / most_shared);
    share_rows_ = (queries + shares - 1) / shares;
    // The last block computes rows again where blocks do not add up: another size where it saves 2 %.
    auto upwards = [&](int64_t by) { return (share_rows_ + by - 1) / by; };
    int64_t blocks = upwards(most);
    for (int64_t b = upwards(most + most / 4); b <= upwards(most - most / 4); ++b)
      if (50 * b * upwards(b) < 49 * blocks * upwards(blocks))
        blocks = b;
    rows_ = upwards(blocks);
    if (in_spans_) // of whole blocks
      share_rows_ = std::min(rows_ * blocks, queries);
  }

  void over_batch(size_t d) {
    const Shape &out = l_.type(out_).shape;
    if (d + 2 == out.size())
      return over_shares([&](const Dim &first, const Dim &count) { share(first, count); });
    auto rest = [&](const Dim &var) {
      batch_.push_back(var);
      over_batch(d + 1);
      batch_.pop_back();
    };
    bool is_head = d + 3 == out.size();
    if (is_head && heads_ > 1 && out[d].is_const(heads_))
      return rest(0);
    l_.loop("h", 0, is_head ? floordiv(out[d], heads_) : out[d], LoopKind::parallel, [&](const Dim &var) { rest(is_head ? var * Dim(heads_) : var); });
  }

  // The batch index and the query of a row, where batch_ is that of the first of its heads.
  std::vector<Dim> batch_of(const Dim &row) const {
    std::vector<Dim> out = batch_;
    if (heads_ > 1)
      out.back() += mod(row, heads_);
    return out;
  }
  Dim query_of(const Dim &row) const { return l_.simplified(floordiv(row, heads_)); }

  // Shares of `size` rows of all queries.
  void over_shares(const std::function<void(const Dim &, const Dim &)> &f) {
    const Dim rows = all_rows();
    l_.loop("share", 0, ceildiv(rows, share_rows_), LoopKind::parallel, [&](const Dim &var) {
      Dim at = var * Dim(share_rows_);
      if (rows.is_const())
        f(min(at, rows - Dim(share_rows_)), share_rows_);
      else
        f(at, min(Dim(share_rows_), rows - at));
    });
  }

  // A value as a symbol, so that what is linear in it looks linear.
  Dim named(const Dim &value, const Dim &lo, const std::optional<Dim> &hi) {
    Dim v = l_.simplified(value);
    return v.is_const() || v.try_symbol() ? v : l_.bind_index(kb::index(v), lo, hi);
  }

  // The rows [first, first + count). A few rows, as where text is generated word by word, do not pay
  // for copies of all keys and values; threads of a GPU share those.
  void share(const Dim &first_row, const Dim &count) {
    Dim first = named(first_row, 0, all_rows());
    if (count.is_const())
      return share(first, count, true);
    Dim rows = named(count, 1, Dim(share_rows_) + Dim(1));
    if (key_size_ < kMinDirectKey || l_.options_.gpu)
      return share(first, rows, true);
    Expr few = kb::lt(kb::index(rows), kb::integer(DType::i64, kMinCopyRows));
    auto direct = l_.in_scope(Symbol(), [&] { share(first, rows, false); });
    auto copied = l_.in_scope(Symbol(), [&] { share(first, rows, true); });
    l_.emit(kb::if_(std::move(few), std::move(direct), std::move(copied)));
  }

  void share(const Dim &first, const Dim &count, bool copies) {
    copies_ = copies;
    if (!in_spans_) {
      copy_span(0, keys_);
      over_blocks(first, count, 0, keys_);
      l_.local_operands_.clear();
      return;
    }
    allocate_state(count);
    Dim keys = seen_by(query_of(first + count - Dim(1)) + Dim(1));
    auto span = [&](const Dim &begin, const Dim &size) {
      copy_span(begin, size);
      over_blocks(first, count, begin, size);
      l_.local_operands_.clear();
    };
    auto any_span = [&](const Dim &var) {
      Dim begin = var * Dim(span_);
      span(begin, named(min(Dim(span_), keys_ - begin), 1, Dim(span_) + Dim(1)));
    };
    if (streams_) { // a loop even where there is one span
      Symbol var = l_.fresh("span");
      Dim end = l_.simplified(ceildiv(keys, span_));
      l_.ranges_.set(var, {Dim(0), end});
      l_.emit(kb::loop(var, 0, end, LoopKind::serial, l_.in_scope(var, [&] { any_span(Dim::symbol(var)); })));
    } else if (!keys_.is_const()) {
      l_.loop("span", 0, ceildiv(keys, span_), LoopKind::serial, any_span);
    } else {
      Dim whole = keys_.as_const() / span_, rest = keys_ - whole * Dim(span_);
      l_.loop("span", 0, min(whole, ceildiv(keys, span_)), LoopKind::serial,
              [&](const Dim &var) { span(var * Dim(span_), span_); });
      auto last = [&] { span(whole * Dim(span_), rest); };
      if (!rest.is_const(0) && !reach_)
        last();
      else if (!rest.is_const(0))
        l_.if_then(kb::lt(kb::index(whole * Dim(span_)), kb::index(l_.simplified(keys))), last);
    }
    finish(first, count);
  }

  void over_blocks(const Dim &first, const Dim &count, const Dim &begin, const Dim &size) {
    if (streams_)
      return block(first, 0, count, begin, size);
    if (!copies_)
      return l_.loop("row", 0, count, LoopKind::parallel,
                     [&](const Dim &at) { block(first, at, 1, begin, size); });
    auto rows_from = [&](const Dim &at, const Dim &rows) {
      block(first, named(at, 0, queries_), rows, begin, size);
    };
    if (count.is_const() && !in_spans_)
      return l_.loop("block", 0, ceildiv(count, rows_), LoopKind::parallel, [&](const Dim &var) {
        rows_from(min(var * Dim(rows_), count - Dim(rows_)), rows_);
      });
    // What a row has gathered of the spans before may not be added to twice.
    Dim whole = l_.simplified(floordiv(count, rows_)), rest = l_.simplified(mod(count, rows_));
    l_.loop("block", 0, whole, LoopKind::parallel,
            [&](const Dim &var) { rows_from(var * Dim(rows_), rows_); });
    if (rest.is_const(0))
      return;
    Dim left = named(rest, 0, rows_);
    l_.if_then(kb::lt(kb::index(0), kb::index(left)),
               [&] { rows_from(whole * Dim(rows_), left); });
  }

  // Keys that queries before `end` can see: whole panels, where that is a plain number of them.
  Dim seen_by(const Dim &end) {
    if (!reach_)
      return keys_;
    Dim seen = max(Dim(1), min(keys_, end + Dim(*reach_)));
    if (!keys_.is_const())
      return named(seen, 1, std::nullopt);
    Dim panels = named(ceildiv(seen, kPanel), 1, ceildiv(keys_, kPanel) + Dim(1));
    return mod(keys_, kPanel).is_const(0) ? panels * Dim(kPanel)
                                          : named(min(keys_, panels * Dim(kPanel)), 1, keys_ + Dim(1));
  }

  // --- indices ----------------------------------------------------------------------------------

  std::vector<Dim> along(const OperandPath &path, std::vector<Dim> index) const {
    for (auto [id, operand] : path) {
      auto next = operand_index(function_, function_.node(id), operand, index, l_.ranges_);
      KILN_CHECK(next, "the way through an attention is of elements");
      index = std::move(*next);
    }
    return index;
  }

  // The index of a dot's operand, whose last two dims are at r and c, for a batch index of the dot.
  std::vector<Dim> operand_at(const Node &dot, int operand, std::span<const Dim> batch, const Dim &r,
                              const Dim &c) const {
    const Shape &shape = l_.type(dot.operands[size_t(operand)]).shape;
    std::vector<Dim> at;
    size_t own = shape.size() - 2;
    for (size_t d = 0; d < own; ++d)
      at.push_back(shape[d].is_const(1) ? Dim(0) : batch[batch.size() - own + d]);
    at.push_back(r);
    at.push_back(c);
    return at;
  }

  // Of the scores, which have the shape of the normalised weights.
  std::vector<Dim> scores_at(const Dim &row, const Dim &j) const {
    return along(parts_.to_normalised, operand_at(values_dot_, 0, batch_of(row), query_of(row), j));
  }

  // --- copies of keys and values -----------------------------------------------------------------

  void copy_span(const Dim &begin, const Dim &size) {
    keys_stay_ = false;
    if (!copies_ || on_tensors_ || streams_)
      return;
    keys_stay_ = l_.options_.gpu && size.is_const() && keys_lie_in_rows(begin);
    if (!keys_stay_)
      copy_keys(begin, size);
    copy_values(begin, size);
  }

  // Whether a key's elements lie side by side, as they are multiplied: a GPU's product takes them from there in whole lines.
  bool keys_lie_in_rows(const Dim &begin) {
    bool out = false, transposed = keys_dot_.attrs.get_bool("transpose_b");
    std::vector<Dim> at = along(parts_.to_dot, scores_at(0, 0));
    std::vector<Dim> batch(at.begin(), at.end() - 2);
    l_.in_scope(Symbol(), [&] {
      l_.loop("j", 0, span_, LoopKind::parallel, [&](const Dim &j) {
        l_.loop("e", 0, key_size_, LoopKind::parallel, [&](const Dim &e) {
          Expr value = l_.pull(keys_dot_.operands[1], operand_at(keys_dot_, 1, batch, transposed ? begin + j : e, transposed ? e : begin + j));
          auto element = e.try_symbol();
          auto step = element && value.is(Expr::Kind::load) && value.dtype == dtype_ ? value.index.coefficient_of(*element) : std::nullopt;
          out = step && step->is_const(1);
        });
      });
    });
    return out;
  }

  // kt[j / 16][e][j % 16]
  void copy_keys(const Dim &begin, const Dim &size) {
    Symbol kt = l_.fresh("kt");
    l_.emit(kb::alloc(kt, dtype_, (span_ + kPanel - 1) / kPanel * key_size_ * kPanel, 1,
                      MemorySpace::stack));
    bool transposed = keys_dot_.attrs.get_bool("transpose_b");
    std::vector<Dim> at = along(parts_.to_dot, scores_at(0, 0));
    std::vector<Dim> batch(at.begin(), at.end() - 2);
    auto panel = [&](const Dim &p, const Dim &width) {
      l_.loop("e", 0, key_size_, LoopKind::parallel, [&](const Dim &e) {
        l_.loop("j", 0, width, LoopKind::parallel, [&](const Dim &j) {
          Dim key = begin + p * Dim(kPanel) + j;
          auto index = operand_at(keys_dot_, 1, batch, transposed ? key : e, transposed ? e : key);
          Dim offset = p * Dim(key_size_ * kPanel) + e * Dim(kPanel) + j;
          Expr value = kb::convert(dtype_, l_.pull(keys_dot_.operands[1], index));
          l_.emit(kb::store(kt, l_.simplified(offset), std::move(value)));
        });
      });
    };
    Dim whole = l_.simplified(floordiv(size, kPanel)), rest = l_.simplified(mod(size, kPanel));
    l_.loop("p", 0, whole, LoopKind::parallel, [&](const Dim &p) { panel(p, kPanel); });
    if (!rest.is_const(0))
      panel(named(whole, 0, std::nullopt), named(rest, 0, kPanel));
    l_.local_operands_.push_back({keys_dot_.results[0], 1, [=, this](std::span<const Dim> index) {
      Dim key = index[index.size() - (transposed ? 2 : 1)] - begin,
          e = index[index.size() - (transposed ? 1 : 2)];
      Dim offset = floordiv(key, kPanel) * Dim(key_size_ * kPanel) + e * Dim(kPanel) + mod(key, kPanel);
      return kb::load(kt, dtype_, l_.simplified(offset));
    }});
  }

  // vp[j][d], unless they lie like that already.
  void copy_values(const Dim &begin, const Dim &size) {
    Symbol vp = l_.fresh("vp");
    bool dense = false, transposed = values_dot_.attrs.get_bool("transpose_b");
    auto stmts = l_.in_scope(Symbol(), [&] {
      l_.loop("j", 0, size, LoopKind::parallel, [&](const Dim &j) {
        l_.loop("d", 0, value_size_, LoopKind::parallel, [&](const Dim &d) {
          auto at = operand_at(values_dot_, 1, batch_, transposed ? d : begin + j, transposed ? begin + j : d);
          Expr value = l_.pull(values_dot_.operands[1], at);
          dense = lies_densely(value, j, d);
          Dim offset = l_.simplified(j * Dim(value_size_) + d);
          l_.emit(kb::store(vp, offset, kb::convert(dtype_, std::move(value))));
        });
      });
    });
    if (dense)
      return;
    l_.emit(kb::alloc(vp, dtype_, span_ * value_size_, 1, MemorySpace::stack));
    for (Stmt &s : stmts)
      l_.emit(std::move(s));
    l_.local_operands_.push_back({out_, 1, [=, this](std::span<const Dim> index) {
      Dim key = index[index.size() - (transposed ? 1 : 2)] - begin,
          d = index[index.size() - (transposed ? 2 : 1)];
      Dim offset = key * Dim(value_size_) + d;
      return kb::load(vp, dtype_, l_.simplified(offset));
    }});
  }

  bool lies_densely(const Expr &value, const Dim &j, const Dim &d) const {
    auto row = j.try_symbol(), column = d.try_symbol();
    if (!value.is(Expr::Kind::load) || value.dtype != dtype_ || !row || !column)
      return false;
    auto a = value.index.coefficient_of(*row), b = value.index.coefficient_of(*column);
    return a && b && a->is_const(value_size_) && b->is_const(1);
  }

  // --- one block --------------------------------------------------------------------------------

  // Rows `at` to at + rows of the share that begins at `first`, for the keys of one span.
  void block(const Dim &first, const Dim &at, const Dim &rows, const Dim &begin, const Dim &size) {
    Dim row = named(first + at, 0, all_rows()), seen = size;
    if (reach_ && !on_tensors_ && !keys_stay_ && !streams_) // a tile is whole; hidden keys weigh nothing
      seen = in_spans_ ? named(max(Dim(0), min(size, seen_by(row + rows) - begin)), 0, Dim(span_) + Dim(1))
                       : seen_by(row + rows);
    scores_ = l_.fresh("s");
    scale_ = l_.fresh("scale");
    l_.emit(kb::alloc(scores_, dtype_, rows_ * row_, 1, MemorySpace::stack));
    l_.emit(kb::alloc(scale_, dtype_, rows_, 1, MemorySpace::stack));
    query_keys(row, rows, begin, seen);
    softmax(at, rows, seen);
    weigh_values(row, at, rows, begin, seen);
  }

  Dim score_offset(const Dim &i, const Dim &j) const { return l_.simplified(i * Dim(row_) + j); }

  // Masks that are comparisons of a key's number with a query's.
  void compare_numbers() {
    for (const BandMask &band : bands_)
      l_.local_operands_.push_back({function_.node(band.node).results[0], band.operand, [=](std::span<const Dim> index) {
        Expr key = kb::index(index.back()), end = kb::index(index[index.size() - 2] + Dim(band.reach));
        if (band.is_condition)
          return band.seen ? kb::lt(std::move(key), std::move(end)) : kb::le(std::move(end), std::move(key));
        return kb::select(kb::lt(std::move(key), std::move(end)), kb::number(DType::f32, 0), kb::number(DType::f32, band.hidden));
      }});
  }

  void query_keys(const Dim &row, const Dim &rows, const Dim &begin, const Dim &seen) {
    compare_numbers();
    l_.loop("i", 0, rows, LoopKind::parallel, [&](const Dim &i) {
      auto score_of = [&](const Dim &j) {
        Expr score = l_.pull(parts_.scores, scores_at(row + i, begin + j));
        l_.emit(kb::store(scores_, score_offset(i, j), kb::convert(dtype_, std::move(score))));
      };
      if (on_tensors_ || keys_stay_ || streams_)
        return l_.loop("j", 0, seen, LoopKind::parallel, score_of);
      l_.loop("p", 0, ceildiv(seen, kPanel), LoopKind::parallel, [&](const Dim &p) {
        Dim width = min(Dim(kPanel), seen - p * Dim(kPanel));
        if (l_.simplified(mod(seen, kPanel)).is_const(0))
          width = kPanel;
        l_.loop("j", 0, width, LoopKind::parallel, [&](const Dim &lane) {
          score_of(p * Dim(kPanel) + lane);
        });
      });
    });
  }

  // exp(s - most) for s <= most, to be divided by a sum of such. On processors as a power of two, which takes fewer steps
  // where its result is known to be at most 1.
  Expr weight(Expr s, Expr most) const {
    constexpr double kLog2e = 1.4426950408889634;
    Expr x = kb::sub(std::move(s), std::move(most));
    if (l_.options_.gpu || dtype_ != DType::f32)
      return kb::unary(UnaryOp::exp, std::move(x));
    return kb::binary(BinaryOp::pow, number(2), kb::mul(kb::min(std::move(x), number(0)), number(kLog2e)));
  }

  // The maximum need not be NaN where a score is: the sum of the row is.
  Expr row_maximum(const Dim &i, const Dim &seen) {
    return reduce_row(i, seen, -kInfinity, [&](Expr acc, Expr s) {
      if (l_.options_.gpu)
        return kb::max(std::move(acc), std::move(s));
      Expr less = kb::lt(acc, s);
      return kb::select(std::move(less), std::move(s), std::move(acc));
    });
  }
  Expr row_sum(const Dim &i, const Dim &seen) { return reduce_row(i, seen, 0, kb::add); }

  // acc = op over j of s[i, j]
  Expr reduce_row(const Dim &i, const Dim &seen, double init, const std::function<Expr(Expr, Expr)> &op) {
    Symbol acc = l_.fresh("acc"), var = l_.fresh("j");
    l_.emit(kb::alloc(acc, dtype_, 1, 1, MemorySpace::reg));
    l_.emit(kb::store(acc, 0, kb::number(dtype_, init)));
    l_.ranges_.set(var, {Dim(0), seen});
    auto body = l_.in_scope(var, [&] {
      Expr element = kb::load(scores_, dtype_, score_offset(i, Dim::symbol(var)));
      l_.emit(kb::store(acc, 0, op(kb::load(acc, dtype_, 0), std::move(element))));
    });
    l_.emit(kb::loop(var, 0, seen, LoopKind::reduce, std::move(body)));
    return l_.bind(kb::load(acc, dtype_, 0));
  }

  Expr state(Symbol buffer, const Dim &row) const { return kb::load(buffer, dtype_, l_.simplified(row)); }
  Expr number(double x) const { return kb::number(dtype_, x); }

  // Rows first maxima, then exponentials, then sums: what one row waits for, the next ones need not.
  void softmax(const Dim &at, const Dim &rows, const Dim &seen) {
    Symbol most = l_.fresh("m");
    l_.emit(kb::alloc(most, dtype_, rows_, 1, MemorySpace::stack));
    auto over_rows = [&](const std::function<void(const Dim &)> &f) {
      l_.loop("i", 0, rows, LoopKind::parallel, f);
    };
    over_rows([&](const Dim &i) {
      Expr here = row_maximum(i, seen);
      l_.emit(kb::store(most, i, in_spans_ ? joined_maximum(i, at + i, here) : here));
    });
    over_rows([&](const Dim &i) {
      Expr m = l_.bind(kb::load(most, dtype_, i));
      l_.loop("j", 0, seen, LoopKind::parallel, [&](const Dim &j) {
        l_.emit(kb::store(scores_, score_offset(i, j), weight(kb::load(scores_, dtype_, score_offset(i, j)), m)));
      });
    });
    over_rows([&](const Dim &i) {
      Expr sum = row_sum(i, seen);
      if (!in_spans_)
        return l_.emit(kb::store(scale_, i, kb::div(number(1), std::move(sum))));
      Expr before = kb::mul(state(sum_, at + i), kb::load(scale_, dtype_, i));
      l_.emit(kb::store(sum_, l_.simplified(at + i), kb::add(std::move(before), std::move(sum))));
    });
  }

  // With the maximum of the spans before; scale[i] is what these are worth now. Row r of the share.
  Expr joined_maximum(const Dim &i, const Dim &r, const Expr &here) {
    Expr before = l_.bind(state(maximum_, r));
    Expr now = l_.bind(kb::max(before, here));
    // Rows that have seen nothing: exp(-inf - 0) = 0.
    Expr most = l_.bind(kb::select(kb::eq(now, number(-kInfinity)), number(0), now));
    l_.emit(kb::store(maximum_, l_.simplified(r), now));
    l_.emit(kb::store(scale_, i, weight(before, most)));
    return most;
  }

  void weigh_values(const Dim &row, const Dim &at, const Dim &rows, const Dim &begin, const Dim &seen) {
    l_.loop("i", 0, rows, LoopKind::parallel, [&](const Dim &i) {
      l_.loop("d", 0, value_size_, LoopKind::parallel, [&](const Dim &d) {
        Expr value = weighted(i, d, begin, seen), scale = kb::load(scale_, dtype_, i);
        if (!in_spans_)
          return store(row + i, d, kb::mul(std::move(value), scale), kb::eq(scale, scale));
        Dim offset = l_.simplified((at + i) * Dim(values_row_) + d);
        Expr before = kb::mul(kb::load(values_, dtype_, offset), scale);
        l_.emit(kb::store(values_, offset, kb::add(std::move(value), std::move(before))));
      });
    });
  }

  // The sum over j of weights[i, j] * values[begin + j, d], of the block's row i.
  Expr weighted(const Dim &i, const Dim &d, const Dim &begin, const Dim &seen) {
    Symbol acc = l_.fresh("acc"), var = l_.fresh("j");
    l_.emit(kb::alloc(acc, dtype_, 1, 1, MemorySpace::reg));
    l_.emit(kb::store(acc, 0, number(0)));
    l_.ranges_.set(var, {Dim(0), seen});
    auto body = l_.in_scope(var, [&] {
      Expr weight = kb::load(scores_, dtype_, score_offset(i, Dim::symbol(var)));
      Expr term = kb::mul(std::move(weight), value_at(begin + Dim::symbol(var), d));
      l_.emit(kb::store(acc, 0, kb::add(kb::load(acc, dtype_, 0), std::move(term))));
    });
    l_.emit(kb::loop(var, 0, seen, LoopKind::reduce, std::move(body)));
    return kb::load(acc, dtype_, 0);
  }

  Expr value_at(const Dim &j, const Dim &d) {
    bool transposed = values_dot_.attrs.get_bool("transpose_b");
    auto at = operand_at(values_dot_, 1, batch_, transposed ? d : j, transposed ? j : d);
    for (const auto &local : l_.local_operands_)
      if (local.result == out_ && local.operand == 1)
        return local.load(at);
    return l_.pull(values_dot_.operands[1], at);
  }

  // Stores what follows from the dot's element; without a `valid` sum of the row it may be 0.
  void store(const Dim &row, const Dim &d, Expr value, Expr valid) {
    std::vector<Dim> at = batch_of(row);
    at.push_back(query_of(row));
    at.push_back(d);
    if (parts_.nan_to_zero)
      value = kb::select(std::move(valid), std::move(value), number(0));
    if (l_.roots_[0] != out_) {
      value = l_.bind(std::move(value));
      l_.stack_.back()->memos.push_back({out_, at, value});
      value = l_.pull(l_.roots_[0], at);
    }
    l_.emit(l_.store(l_.results_[0], at, std::move(value)));
  }

  // --- rows over several spans ---------------------------------------------------------------------

  void allocate_state(const Dim &count) {
    maximum_ = l_.fresh("most");
    sum_ = l_.fresh("sum");
    values_ = l_.fresh("acc");
    l_.emit(kb::alloc(maximum_, dtype_, share_rows_, 1, MemorySpace::stack));
    l_.emit(kb::alloc(sum_, dtype_, share_rows_, 1, MemorySpace::stack));
    l_.emit(kb::alloc(values_, dtype_, share_rows_ * values_row_, 1, MemorySpace::stack));
    l_.loop("i", 0, count, LoopKind::parallel, [&](const Dim &i) {
      l_.emit(kb::store(maximum_, i, number(-kInfinity)));
      l_.emit(kb::store(sum_, i, number(0)));
    });
    l_.loop("i", 0, count * Dim(values_row_), LoopKind::parallel,
            [&](const Dim &i) { l_.emit(kb::store(values_, i, number(0))); });
  }

  void finish(const Dim &first, const Dim &count) {
    l_.loop("i", 0, count, LoopKind::parallel, [&](const Dim &i) {
      Expr sum = l_.bind(state(sum_, i));
      Expr inverse = l_.bind(kb::div(number(1), sum));
      l_.loop("d", 0, value_size_, LoopKind::parallel, [&](const Dim &d) {
        Expr value = kb::load(values_, dtype_, l_.simplified(i * Dim(values_row_) + d));
        store(first + i, d, kb::mul(std::move(value), inverse), kb::lt(number(0), sum));
      });
    });
  }

  KernelLowering &l_;
  const AttentionParts &parts_;
  const Function &function_;
  const Node &values_dot_, &keys_dot_;
  ValueId out_;
  DType dtype_;
  Dim queries_, keys_;
  int64_t key_size_ = 0, value_size_ = 0;
  int64_t heads_ = 1; // that share keys and values, and a share's rows
  std::vector<BandMask> bands_;
  std::optional<int64_t> reach_; // queries before `end` see keys before end + reach
  bool in_spans_ = false, copies_ = true;
  bool on_tensors_ = false; // of a GPU: operands are f16 or bf16
  bool streams_ = false;    // of a GPU: what a share has gathered stays in registers
  bool keys_stay_ = false;  // of a GPU: those of the span at hand are multiplied where they lie
  int64_t span_ = 0;       // keys at once
  int64_t row_ = 0;        // elements between rows of scores
  int64_t values_row_ = 0; // and of weighted values, over several spans
  int64_t rows_ = 1;       // of a block
  int64_t share_rows_ = 1;
  std::vector<Dim> batch_;
  Symbol scores_, scale_;
  Symbol maximum_, sum_, values_; // of each row of a share, over several spans
};

std::optional<AttentionParts> KernelLowering::find_attention() const {
  if (!region_)
    return std::nullopt;
  int dots = 0;
  NodeId last;
  for (NodeId id : region_->nodes)
    if (function_.node(id).op == Op::dot)
      last = id, ++dots;
  return dots == 2 ? match_attention(module_, function_, last) : std::nullopt;
}

void KernelLowering::lower_attention() { AttentionNests(*this, *attention_).run(); }

} // namespace kiln
