// Attention of the default domain.
//
// Attention becomes the dots and the softmax that it is: the passes make one kernel of them. Heads that
// share keys and values (grouped queries) are a dim of their own, [B, groups, heads of a group, L, E],
// against which keys and values broadcast without being repeated.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace kiln::onnx {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class AttentionImporter {
public:
  explicit AttentionImporter(OnnxNode &n) : n_(n), e_(n.emitter()) {}

  Status run() {
    KILN_RETURN_IF_ERROR(read_operands());
    KILN_RETURN_IF_ERROR(append_past());
    KILN_RETURN_IF_ERROR(group_heads());
    KILN_RETURN_IF_ERROR(read_mask());
    KILN_RETURN_IF_ERROR(hide_by_position());
    KILN_TRY(scores, scores_of());
    KILN_TRY(weights, n_.emit(Op::softmax, {scores}, {{"axis", attr_int(-1)}}));
    KILN_TRY(narrow, convert(e_, weights, v_.dtype()));
    KILN_TRY(seen, rows_that_see());
    KILN_TRY(product, n_.emit(Op::dot, {narrow, v_}));
    KILN_TRY(out, without_blind_rows(product, seen));
    KILN_TRY(whole, joined_heads(out));
    n_.set(0, whole);
    if (n_.wants(1))
      n_.set(1, present_k_);
    if (n_.wants(2))
      n_.set(2, present_v_);
    if (!n_.wants(3))
      return Unit{};
    Val stage = stage_;
    if (mode_ == 3) {
      KILN_TRY(shown, without_blind_rows(narrow, seen));
      stage = shown;
    }
    KILN_TRY(flat, reshape(e_, stage, {q_.dim(0), heads_, queries_, keys_}));
    KILN_TRY(typed, convert(e_, flat, n_.dtype(0)));
    n_.set(3, typed);
    return Unit{};
  }

private:
  // [B, L, H * E] as [B, H, L, E]
  Result<Val> split_heads(const Val &x, int64_t heads, std::string_view what) {
    if (x.rank() == 4)
      return x;
    auto width = x.dim(2).try_const();
    if (heads < 1 || !width || *width % heads != 0)
      return Error{fmt::format("{} has {} in its last dim, which is not a multiple of {} heads", what, x.dim(2).text(), heads)};
    KILN_TRY(split, reshape(e_, x, {x.dim(0), x.dim(1), Dim(heads), Dim(*width / heads)}));
    return permute(e_, split, {0, 2, 1, 3});
  }

  Status read_operands() {
    flat_ = n_.rank(0) == 3;
    for (size_t i = 0; i < 3; ++i)
      if (n_.rank(i) != n_.rank(0) || n_.rank(i) < 3 || n_.rank(i) > 4)
        return Error{fmt::format("its operands must all be [B, H, L, E] or all [B, L, H * E], not {}", n_.in(i).type.text())};
    int64_t q_heads = n_.get_int("q_num_heads", 0), kv_heads = n_.get_int("kv_num_heads", 0);
    KILN_TRY(q, split_heads(n_.in(0), q_heads, "Q"));
    KILN_TRY(k, split_heads(n_.in(1), kv_heads, "K"));
    KILN_TRY(v, split_heads(n_.in(2), kv_heads, "V"));
    q_ = q, k_ = k, v_ = v;
    auto heads = q_.dim(1).try_const(), groups = k_.dim(1).try_const();
    if (!heads || !groups || *groups < 1 || *heads % *groups != 0 || v_.dim(1) != k_.dim(1))
      return Error{fmt::format("{} query heads do not share {} key and {} value heads evenly", q_.dim(1).text(),
                               k_.dim(1).text(), v_.dim(1).text())};
    heads_ = *heads, groups_ = *groups;
    auto size = q_.dim(3).try_const();
    if (!size && !n_.has_attr("scale"))
      return Error{"the size of a head must be known"};
    scale_ = n_.get_float("scale", size ? 1 / std::sqrt(double(std::max<int64_t>(*size, 1))) : 1);
    cap_ = n_.get_float("softcap", 0);
    causal_ = n_.get_flag("is_causal", false);
    left_ = n_.get_int("left_window_size", -1), right_ = n_.get_int("right_window_size", -1);
    mode_ = n_.get_int("qk_matmul_output_mode", 0);
    n_.ignore({"softmax_precision"}); // f32 at least
    if (mode_ < 0 || mode_ > 3 || left_ < -1 || right_ < -1)
      return Error{"an attribute is out of range: qk_matmul_output_mode is 0 to 3, window sizes are -1 or more"};
    if (n_.has(4) != n_.has(5))
      return Error{"past_key and past_value come together"};
    if (n_.has(6) && n_.has(4))
      return Error{"nonpad_kv_seqlen and a past exclude each other"};
    if (n_.has(6) && n_.rank(6) != 1)
      return Error{fmt::format("nonpad_kv_seqlen is {}, not [B]", n_.in(6).type.text())};
    return Unit{};
  }

  Status append_past() {
    past_ = 0;
    if (n_.has(4)) {
      if (n_.rank(4) != 4 || n_.rank(5) != 4)
        return Error{"past_key and past_value must be [B, H, P, E]"};
      past_ = n_.shape(4)[2];
      KILN_TRY(k, n_.emit(Op::concat, {n_.in(4), k_}, {{"axis", attr_int(2)}}));
      KILN_TRY(v, n_.emit(Op::concat, {n_.in(5), v_}, {{"axis", attr_int(2)}}));
      k_ = k, v_ = v;
    }
    present_k_ = k_, present_v_ = v_;
    queries_ = q_.dim(2), keys_ = k_.dim(2);
    return Unit{};
  }

  bool is_grouped() const { return groups_ != heads_; }

  Status group_heads() {
    if (!is_grouped())
      return Unit{};
    int64_t shared = heads_ / groups_;
    KILN_TRY(q, reshape(e_, q_, {q_.dim(0), Dim(groups_), Dim(shared), queries_, q_.dim(3)}));
    KILN_TRY(k, reshape(e_, k_, {k_.dim(0), Dim(groups_), 1, keys_, k_.dim(3)}));
    KILN_TRY(v, reshape(e_, v_, {v_.dim(0), Dim(groups_), 1, keys_, v_.dim(3)}));
    q_ = q, k_ = k, v_ = v;
    return Unit{};
  }

  // [..., H, L, S] against grouped scores: H as [groups, heads of a group], or 1 as [1, 1].
  Result<Val> grouped(const Val &mask) {
    if (!is_grouped() || mask.rank() < 3)
      return mask;
    Shape shape = mask.type.shape;
    size_t at = shape.size() - 3;
    bool each = !shape[at].is_const(1);
    shape[at] = each ? Dim(groups_) : Dim(1);
    shape.insert(shape.begin() + std::ptrdiff_t(at) + 1, each ? Dim(heads_ / groups_) : Dim(1));
    return reshape(e_, mask, shape);
  }

  Status hide(const Val &allowed) {
    if (!allowed_) {
      allowed_ = allowed;
      return Unit{};
    }
    KILN_TRY(both, n_.emit(Op::logical_and, {*allowed_, allowed}));
    allowed_ = both;
    return Unit{};
  }

  Status read_mask() {
    if (!n_.has(3))
      return Unit{};
    Val mask = n_.in(3);
    if (mask.rank() < 1 || mask.rank() > 4)
      return Error{fmt::format("the mask {} must broadcast to [B, H, L, S]", mask.type.text())};
    Dim missing = keys_ - mask.dim(mask.rank() - 1);
    bool is_bool_mask = is_bool(mask.dtype());
    if (!missing.is_const(0) && !mask.dim(mask.rank() - 1).is_const(1)) { // what it leaves out is hidden
      std::vector<Dim> lo(size_t(mask.rank()), 0), hi = lo;
      hi.back() = missing;
      KILN_TRY(padded, n_.emit(Op::pad, {mask}, {{"lo", lo}, {"hi", hi}, {"value", is_bool_mask ? 0.0 : -kInfinity}}));
      mask = padded;
    }
    KILN_TRY(shaped, grouped(mask));
    if (is_bool_mask)
      return hide(shaped);
    KILN_TRY(wide, convert(e_, shaped, compute_dtype(n_.dtype(0))));
    bias_ = wide;
    return Unit{};
  }

  Result<Val> positions(const Shape &shape, int axis) {
    return n_.emit(Op::iota, {}, {{"shape", shape}, {"axis", attr_int(axis)}, {"dtype", DType::i64}});
  }

  // Causal and window masks: query i stands at position i + offset.
  Status hide_by_position() {
    Shape lead(is_grouped() ? 3 : 2, Dim(1));
    std::optional<Val> valid; // keys of each batch, [B, 1, 1, 1]
    if (n_.has(6)) {
      Shape shape = lead;
      shape[0] = n_.shape(6)[0];
      shape.insert(shape.end(), {Dim(1), Dim(1)});
      KILN_TRY(counts, convert(e_, n_.in(6), DType::i64));
      KILN_TRY(each, reshape(e_, counts, shape));
      valid = each;
    }
    KILN_TRY(key, positions({1, keys_}, 1));
    if (valid) {
      KILN_TRY(inside, n_.emit(Op::lt, {key, *valid}));
      KILN_RETURN_IF_ERROR(hide(inside));
    }
    if (!causal_ && left_ < 0 && right_ < 0)
      return Unit{};
    KILN_TRY(row, positions({queries_, 1}, 0));
    Val at = row;
    if (valid) {
      KILN_TRY(ends, n_.emit(Op::sub, {*valid, e_.sizes(std::vector<Element>{{queries_, 1}}, {})}));
      KILN_TRY(moved, n_.emit(Op::add, {row, ends}));
      at = moved;
    } else if (!past_.is_const(0)) {
      KILN_TRY(moved, n_.emit(Op::add, {row, e_.sizes(std::vector<Element>{{past_, 1}}, {})}));
      at = moved;
    }
    if (causal_) {
      KILN_TRY(seen, n_.emit(Op::le, {key, at}));
      KILN_RETURN_IF_ERROR(hide(seen));
    }
    for (auto [size, sign] : {std::pair(left_, -1), std::pair(right_, 1)}) {
      if (size < 0)
        continue;
      KILN_TRY(edge, n_.emit(Op::add, {at, e_.constant(Tensor::scalar_i64(DType::i64, sign * size))}));
      KILN_TRY(seen, n_.emit(sign < 0 ? Op::ge : Op::le, {key, edge}));
      KILN_RETURN_IF_ERROR(hide(seen));
    }
    return Unit{};
  }

  Result<Val> scores_of() {
    KILN_TRY(product, n_.emit(Op::dot, {q_, k_}, {{"transpose_b", true}}));
    KILN_TRY(wide, convert(e_, product, compute_dtype(product.dtype())));
    DType t = wide.dtype();
    KILN_TRY(scores, n_.emit(Op::mul, {wide, e_.scalar(t, scale_)}));
    if (mode_ == 0)
      stage_ = scores;
    if (cap_ > 0) {
      KILN_TRY(small, n_.emit(Op::mul, {scores, e_.scalar(t, 1 / cap_)}));
      KILN_TRY(bent, n_.emit(Op::tanh, {small}));
      KILN_TRY(capped, n_.emit(Op::mul, {bent, e_.scalar(t, cap_)}));
      scores = capped;
    }
    if (mode_ == 0 && cap_ > 0)
      stage_ = scores;
    if (mode_ == 1)
      stage_ = scores;
    if (bias_) {
      KILN_TRY(sum, n_.emit(Op::add, {scores, *bias_}));
      scores = sum;
    }
    if (allowed_) {
      KILN_TRY(kept, n_.emit(Op::where, {*allowed_, scores, e_.scalar(t, -kInfinity)}));
      scores = kept;
    }
    if (mode_ == 2)
      stage_ = scores;
    return scores;
  }

  // Where a query sees a key at all, [..., L, 1]; nothing where every query does.
  Result<std::optional<Val>> rows_that_see() {
    bool always = !n_.has(3) && !n_.has(6) && left_ < 0 && right_ < 0;
    if (always || (!bias_ && !allowed_))
      return std::optional<Val>();
    std::optional<Val> seen = allowed_;
    if (bias_) {
      KILN_TRY(finite, n_.emit(Op::gt, {*bias_, e_.scalar(bias_->dtype(), -kInfinity)}));
      if (seen) {
        KILN_TRY(both, n_.emit(Op::logical_and, {*seen, finite}));
        seen = both;
      } else {
        seen = finite;
      }
    }
    KILN_TRY(any, n_.emit(Op::reduce_any, {*seen}, {{"axes", attr_ints(std::vector<int64_t>{seen->rank() - 1})}, {"keepdims", true}}));
    return std::optional<Val>(any);
  }

  Result<Val> without_blind_rows(const Val &x, const std::optional<Val> &seen) {
    if (!seen)
      return x;
    return n_.emit(Op::where, {*seen, x, e_.scalar(x.dtype(), 0)});
  }

  Result<Val> joined_heads(const Val &out) {
    Val x = out;
    const Dim &size = out.last_dim();
    if (is_grouped()) {
      KILN_TRY(all, reshape(e_, x, {q_.dim(0), Dim(heads_), queries_, size}));
      x = all;
    }
    if (!flat_)
      return x;
    KILN_TRY(turned, permute(e_, x, {0, 2, 1, 3}));
    return reshape(e_, turned, {q_.dim(0), queries_, Dim(heads_) * size});
  }

  OnnxNode &n_;
  Emitter &e_;
  Val q_, k_, v_, present_k_, present_v_, stage_;
  std::optional<Val> bias_, allowed_; // added to the scores; where a key is seen
  Dim queries_, keys_, past_;
  int64_t heads_ = 0, groups_ = 0, left_ = -1, right_ = -1, mode_ = 0;
  double scale_ = 1, cap_ = 0;
  bool flat_ = false, causal_ = false;
};

} // namespace

Status import_attention(OnnxNode &n) { return AttentionImporter(n).run(); }

} // namespace kiln::onnx
