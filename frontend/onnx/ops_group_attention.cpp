// GroupQueryAttention of com.microsoft: attention with a cache, positions turned inside, and query heads
// that share keys and values.
//
// A group's query heads are a dim of their own, [B, groups, heads of a group, L, E], against which its keys
// and values broadcast; with one query for each head they are the rows, [B, groups, heads of a group, E], so
// that a group's keys and values are read once.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace kiln::onnx {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class GroupAttention {
public:
  explicit GroupAttention(OnnxNode &n) : n_(n), e_(n.emitter()) {}

  Status run() {
    KILN_RETURN_IF_ERROR(read_attributes());
    KILN_RETURN_IF_ERROR(read_operands());
    KILN_RETURN_IF_ERROR(find_lengths());
    KILN_RETURN_IF_ERROR(normalise());
    KILN_RETURN_IF_ERROR(turn());
    KILN_RETURN_IF_ERROR(join_past());
    if (n_.wants(1))
      n_.set(1, k_);
    if (n_.wants(2))
      n_.set(2, v_);
    KILN_TRY(seen, seen_keys());
    KILN_TRY(weights, weights_of(seen));
    KILN_TRY(values, shared(v_));
    KILN_TRY(narrow, convert(e_, weights, values.dtype()));
    KILN_TRY(out, n_.emit(Op::dot, {narrow, values}));
    KILN_TRY(heads, reshape(e_, out, {batch_, Dim(heads_), queries_, Dim(size_)}));
    KILN_TRY(turned, permute(e_, heads, {0, 2, 1, 3}));
    return n_.finish(reshape(e_, turned, {batch_, queries_, Dim(heads_ * size_)}));
  }

private:
  Status read_attributes() {
    heads_ = n_.get_int("num_heads", 0), groups_ = n_.get_int("kv_num_heads", 0);
    if (heads_ < 1 || groups_ < 1 || heads_ % groups_ != 0)
      return Error{fmt::format("{} query heads do not share {} key and value heads evenly", heads_, groups_)};
    for (const char *name : {"k_quant_type", "v_quant_type"})
      if (n_.get_string(name, "NONE") != "NONE")
        return Error{fmt::format("a cache of integers ('{}') is not supported", name)};
    n_.ignore({"kv_cache_bit_width"});
    if (n_.get_flag("sliding_window_cache", false))
      return Error{"a cache that is a window (sliding_window_cache) is not supported"};
    if (n_.get_int("qk_output", 0) != 0)
      return Error{"results between the products (qk_output) are not supported"};
    causal_ = n_.get_flag("causal", true);
    window_ = n_.get_int("local_window_size", -1);
    cap_ = n_.get_float("softcap", 0);
    smooth_ = n_.get_flag("smooth_softmax", false);
    rotary_ = n_.get_flag("do_rotary", false), interleaved_ = n_.get_flag("rotary_interleaved", false);
    if (window_ == 0 || window_ < -1 || (window_ > 0 && !causal_))
      return Error{fmt::format("'local_window_size' is {}; it is 1 or more, of causal attention, or -1", window_)};
    for (size_t i : {5, 6})
      if (!n_.has(i) || !is_integer(n_.dtype(i)))
        return Error{fmt::format("its input {}, lengths of keys, is missing or holds no integers", i)};
    if (n_.has(12) || n_.has(13))
      return Error{"a cache of integers (k_scale, v_scale) is not supported"};
    if (n_.has(3) != n_.has(4) || n_.has(1) != n_.has(2) || n_.has(14) != n_.has(15))
      return Error{"keys and values, their pasts and the weights of their norms come in pairs"};
    return Unit{};
  }

  Status read_operands() {
    auto width = n_.rank(0) == 3 ? n_.shape(0)[2].try_const() : std::nullopt;
    int64_t parts = n_.has(1) ? heads_ : heads_ + 2 * groups_;
    if (!width || *width % parts != 0)
      return Error{fmt::format("its queries {} are not [B, L, {} heads]", n_.in(0).type.text(), parts)};
    size_ = *width / parts;
    batch_ = n_.shape(0)[0], queries_ = n_.shape(0)[1];
    Val operands[3] = {n_.in(0), n_.has(1) ? n_.in(1) : n_.in(0), n_.has(1) ? n_.in(2) : n_.in(0)};
    int64_t from[3] = {0, heads_, heads_ + groups_};
    Val *to[3] = {&q_, &k_, &v_};
    for (size_t i = 0; i < 3; ++i) {
      int64_t count = i == 0 ? heads_ : groups_;
      Val part = operands[i];
      if (part.rank() != 3 || part.dim(0) != batch_ || part.dim(1) != queries_ || (n_.has(1) && part.dim(2) != Dim(count * size_)))
        return Error{fmt::format("its operand {} is {}, not [B, L, {} * {}]", i, part.type.text(), count, size_)};
      if (!n_.has(1)) {
        KILN_TRY(own, slice_axis(e_, part, 2, from[i] * size_, count * size_));
        part = own;
      }
      KILN_TRY(split, reshape(e_, part, {batch_, queries_, Dim(count), Dim(size_)}));
      *to[i] = split;
    }
    past_room_ = 0;
    if (n_.has(3)) {
      if (n_.rank(3) != 4 || n_.shape(3) != n_.shape(4) || n_.shape(3)[0] != batch_ || n_.shape(3)[1] != Dim(groups_) ||
          n_.shape(3)[3] != Dim(size_))
        return Error{fmt::format("its past is {} and {}, not [B, {}, P, {}]", n_.in(3).type.text(), n_.in(4).type.text(), groups_, size_)};
      past_room_ = n_.shape(3)[2];
    }
    return Unit{};
  }

  Val number(const Dim &d) { return e_.sizes(std::vector<Element>{{d, 1}}, {}); }

  // The cache has room for all (it is written into), or grows by the new keys. What cannot be told from the
  // sizes grows, unless the cache alone has a fixed size. Each sample has a past of its own length; one
  // sample's is all of a cache that grows.
  Status find_lengths() {
    auto total = e_.dims(n_.in(6));
    bool known = total && total->size() == 1;
    Dim grown = past_room_ + queries_;
    bool fits = known && (*total)[0].is_const() && past_room_.is_const() && past_room_.as_const() >= (*total)[0].as_const();
    bool fixed = past_room_.is_const() && past_room_.as_const() > 0 && (!known || !(*total)[0].is_const());
    shared_ = n_.has(3) && (fits || fixed) && !(known && (*total)[0] == grown);
    keys_ = shared_ ? past_room_ : grown;
    if (known && !shared_ && !e_.require_equal((*total)[0], grown, "GroupQueryAttention: past and new keys"))
      return Error{fmt::format("its total length {} is not that of {} past and {} new keys", (*total)[0].text(), past_room_.text(),
                               queries_.text())};
    if (!n_.has(3) || past_room_.is_const(0)) {
      past_ = number(0);
      return Unit{};
    }
    if (!shared_ && batch_.is_const(1)) {
      past_ = number(past_room_);
      return Unit{};
    }
    KILN_TRY(wide, convert(e_, n_.in(5), DType::i64));
    KILN_TRY(last, reshape(e_, wide, {batch_, 1}));
    KILN_TRY(lengths, n_.emit(Op::add, {last, number(Dim(1) - queries_)}));
    // A first prompt has no past, however short its sample is.
    KILN_TRY(whole, convert(e_, n_.in(6), DType::i64));
    KILN_TRY(total_length, reshape(e_, whole, {}));
    KILN_TRY(first, n_.emit(Op::eq, {total_length, number(queries_)}));
    KILN_TRY(own_past, n_.emit(Op::where, {first, number(0), lengths}));
    past_ = own_past, ragged_ = true;
    return Unit{};
  }

  // Each head by its root mean square.
  Status normalise() {
    if (!n_.has(14))
      return Unit{};
    double epsilon = n_.get_float("qk_norm_epsilon", 1e-6);
    for (size_t i : {0, 1}) {
      Val &x = i == 0 ? q_ : k_;
      KILN_TRY(y, n_.emit(Op::rms_norm, {x, n_.in(14 + i)}, {{"axis", attr_int(3)}, {"epsilon", epsilon}}));
      x = y;
    }
    return Unit{};
  }

  Result<Val> steps(const Shape &shape, int axis) {
    return n_.emit(Op::iota, {}, {{"shape", shape}, {"axis", attr_int(axis)}, {"dtype", DType::i64}});
  }

  Status turn() {
    if (!rotary_)
      return Unit{};
    if (!n_.has(7) || !n_.has(8))
      return Error{"do_rotary needs the operands cos_cache and sin_cache"};
    Val at;
    if (n_.has(9)) {
      if (n_.rank(9) != 2)
        return Error{fmt::format("its positions are {}, not [B, L]", n_.in(9).type.text())};
      at = n_.in(9);
    } else {
      KILN_TRY(step, steps({1, queries_}, 1));
      KILN_TRY(moved, n_.emit(Op::add, {step, past_}));
      at = moved;
    }
    KILN_TRY(cosines, angles_at(n_, n_.in(7), at));
    KILN_TRY(sines, angles_at(n_, n_.in(8), at));
    for (Val *x : {&q_, &k_}) {
      KILN_TRY(turned, rotate_pairs(n_, *x, cosines, sines, interleaved_));
      *x = turned;
    }
    return Unit{};
  }

  // k_ and v_ become the caches after this step, [B, groups, keys, E].
  Status join_past() {
    for (size_t i : {3, 4}) {
      Val &x = i == 3 ? k_ : v_;
      KILN_TRY(fresh, permute(e_, x, {0, 2, 1, 3}));
      if (!n_.has(i)) {
        x = fresh;
        continue;
      }
      if (!ragged_) {
        KILN_TRY(both, n_.emit(Op::concat, {n_.in(i), fresh}, {{"axis", attr_int(2)}}));
        x = both;
        continue;
      }
      // Row j is past[j] before the sample's length and then new[j - length], which may be in the middle.
      KILN_TRY(row, steps({1, keys_}, 1));
      KILN_TRY(place, n_.emit(Op::sub, {row, past_}));
      KILN_TRY(after, n_.emit(Op::ge, {place, number(0)}));
      KILN_TRY(before, n_.emit(Op::lt, {place, number(queries_)}));
      KILN_TRY(is_new, n_.emit(Op::logical_and, {after, before}));
      KILN_TRY(in_new, n_.emit(Op::add, {place, number(past_room_)}));
      KILN_TRY(in_past, n_.emit(Op::minimum, {row, number(past_room_ - Dim(1))}));
      KILN_TRY(from, n_.emit(Op::where, {is_new, in_new, in_past}));
      KILN_TRY(both, n_.emit(Op::concat, {n_.in(i), fresh}, {{"axis", attr_int(2)}}));
      KILN_TRY(column, reshape(e_, from, {batch_, 1, keys_, 1}));
      KILN_TRY(whole, broadcast_to(e_, column, {batch_, Dim(groups_), keys_, Dim(size_)}));
      KILN_TRY(picked, n_.emit(Op::gather_elements, {both, whole}, {{"axis", attr_int(2)}}));
      x = picked;
    }
    return Unit{};
  }

  // Which keys each query sees, [1 or B, 1, 1, L, keys] or with rows of heads [1 or B, 1, 1, keys]; nothing
  // where all of them.
  Result<std::optional<Val>> seen_keys() {
    bool one_sees_all = !ragged_ && queries_.is_const(1) && window_ < 0;
    if (one_sees_all || (!causal_ && !ragged_))
      return std::optional<Val>();
    Val length = past_;
    if (ragged_) {
      KILN_TRY(spread, reshape(e_, past_, {batch_, 1, 1}));
      length = spread;
    }
    KILN_TRY(key, steps({1, 1, keys_}, 2));
    KILN_TRY(step, steps({1, queries_, 1}, 1));
    Val last; // the last key that a query sees
    if (causal_) {
      KILN_TRY(at, n_.emit(Op::add, {step, length}));
      last = at;
    } else {
      KILN_TRY(end, n_.emit(Op::add, {length, number(queries_ - Dim(1))}));
      last = end;
    }
    KILN_TRY(seen, n_.emit(Op::le, {key, last}));
    if (window_ > 0) {
      KILN_TRY(edge, n_.emit(Op::sub, {last, number(window_)}));
      KILN_TRY(near, n_.emit(Op::gt, {key, edge}));
      KILN_TRY(both, n_.emit(Op::logical_and, {seen, near}));
      seen = both;
    }
    Shape shape = {seen.dim(0), 1, 1, seen.dim(1), keys_};
    if (by_rows())
      shape.erase(shape.begin() + 3);
    KILN_TRY(out, reshape(e_, seen, shape));
    return std::optional<Val>(out);
  }

  bool by_rows() const { return queries_.is_const(1); }

  // Keys or values against the query heads of a group.
  Result<Val> shared(const Val &x) {
    if (by_rows())
      return x;
    return reshape(e_, x, {batch_, Dim(groups_), 1, keys_, Dim(size_)});
  }

  // [..., H, L, keys] (H or L may be 1) against the scores.
  Result<Val> against_scores(const Val &x) {
    if (x.rank() != 4)
      return Error{fmt::format("its bias is {}, not [B, H, L, keys]", x.type.text())};
    bool each = !x.dim(1).is_const(1);
    Shape shape = {x.dim(0), each ? Dim(groups_) : Dim(1), each ? Dim(heads_ / groups_) : Dim(1), x.dim(2), x.dim(3)};
    if (by_rows())
      shape.erase(shape.begin() + 3);
    return reshape(e_, x, shape);
  }

  Result<Val> weights_of(const std::optional<Val> &seen) {
    KILN_TRY(turned, permute(e_, q_, by_rows() ? std::vector<int64_t>{0, 1, 2, 3} : std::vector<int64_t>{0, 2, 1, 3}));
    Shape shape = {batch_, Dim(groups_), Dim(heads_ / groups_)};
    if (!by_rows())
      shape.push_back(queries_);
    shape.push_back(size_);
    KILN_TRY(q, reshape(e_, turned, shape));
    KILN_TRY(keys, shared(k_));
    KILN_TRY(product, n_.emit(Op::dot, {q, keys}, {{"transpose_b", true}}));
    KILN_TRY(wide, convert(e_, product, compute_dtype(product.dtype())));
    DType t = wide.dtype();
    double scale = n_.get_float("scale", 0);
    KILN_TRY(scores, n_.emit(Op::mul, {wide, e_.scalar(t, scale != 0 ? scale : 1 / std::sqrt(double(size_)))}));
    if (cap_ > 0) {
      KILN_TRY(small, n_.emit(Op::mul, {scores, e_.scalar(t, 1 / cap_)}));
      KILN_TRY(bent, n_.emit(Op::tanh, {small}));
      KILN_TRY(capped, n_.emit(Op::mul, {bent, e_.scalar(t, cap_)}));
      scores = capped;
    }
    if (n_.has(10)) {
      KILN_TRY(bias, against_scores(n_.in(10)));
      Dim missing = keys_ - bias.last_dim();
      if (!missing.is_const(0) && !bias.last_dim().is_const(1)) { // of a cache with room left
        std::vector<Dim> lo(size_t(bias.rank()), 0), hi = lo;
        hi.back() = missing;
        KILN_TRY(padded, n_.emit(Op::pad, {bias}, {{"lo", lo}, {"hi", hi}, {"value", 0.0}}));
        bias = padded;
      }
      KILN_TRY(typed, convert(e_, bias, t));
      KILN_TRY(sum, n_.emit(Op::add, {scores, typed}));
      scores = sum;
    }
    if (seen) {
      KILN_TRY(kept, n_.emit(Op::where, {*seen, scores, e_.scalar(t, -kInfinity)}));
      scores = kept;
    }
    int last = scores.rank() - 1;
    if (!n_.has(11) && !smooth_)
      return n_.emit(Op::softmax, {scores}, {{"axis", attr_int(last)}});
    // One more key, which has a score but no value.
    Shape column = scores.type.shape;
    column.back() = 1;
    Val sink = e_.scalar(t, 0);
    if (n_.has(11)) {
      if (n_.shape(11) != Shape{Dim(heads_)})
        return Error{fmt::format("its sinks are {}, not one for each head", n_.in(11).type.text())};
      Shape by_head = {1, Dim(groups_), Dim(heads_ / groups_)};
      by_head.resize(column.size(), 1);
      KILN_TRY(typed, convert(e_, n_.in(11), t));
      KILN_TRY(spread, reshape(e_, typed, by_head));
      sink = spread;
    }
    KILN_TRY(extra, broadcast_to(e_, sink, column));
    KILN_TRY(all, n_.emit(Op::concat, {scores, extra}, {{"axis", attr_int(last)}}));
    KILN_TRY(weights, n_.emit(Op::softmax, {all}, {{"axis", attr_int(last)}}));
    return slice_axis(e_, weights, last, 0, keys_);
  }

  OnnxNode &n_;
  Emitter &e_;
  int64_t heads_ = 0, groups_ = 0, size_ = 0, window_ = -1;
  bool causal_ = true, smooth_ = false, rotary_ = false, interleaved_ = false;
  bool shared_ = false, ragged_ = false; // written into the cache; samples differ in length
  double cap_ = 0;
  Dim batch_, queries_, keys_, past_room_;
  Val q_, k_, v_; // [B, L, heads, E]
  Val past_;      // keys of a sample before this step: one number, or [B, 1]
};

} // namespace

Status import_group_query_attention(OnnxNode &n) { return GroupAttention(n).run(); }

} // namespace kiln::onnx
