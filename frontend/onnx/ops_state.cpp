// Operators that carry a state from call to call: linear attention, the causal convolution before it, and
// writing into a cache. The state is an operand and a result; nothing is kept in the model.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <cmath>

namespace kiln::onnx {
namespace {

// One head of keys and values has a state S[K, V]; `shared` query heads read it.
//
//   S = exp(decay) * S + k (x) u       u = v, or beta * (v - S^T k) in the delta rules
//   y = scale * q^T S
class LinearAttention {
public:
  explicit LinearAttention(OnnxNode &n) : n_(n), e_(n.emitter()) {}

  Status run() {
    n_.ignore({"chunk_size"}); // how to split the work, not what it is
    KILN_RETURN_IF_ERROR(read_attributes());
    KILN_RETURN_IF_ERROR(read_operands());
    return steps_.is_const(1) ? one_step() : all_steps();
  }

private:
  struct Step {
    Val q, k, v;                     // [B, G, R, K], [B, G, K], [B, G, V]
    std::optional<Val> decay, beta; // [B, G, K or 1, 1], [B, G or 1, 1, 1]
  };

  Status read_attributes() {
    std::string rule = n_.get_string("update_rule", "gated_delta");
    if (rule != "linear" && rule != "gated" && rule != "delta" && rule != "gated_delta")
      return Error{fmt::format("'update_rule' is '{}'; there are linear, gated, delta and gated_delta", rule)};
    bool gated = rule.starts_with("gated"), delta = rule.ends_with("delta");
    if (gated != n_.has(4) || delta != n_.has(5))
      return Error{fmt::format("the rule '{}' {} a decay and {} a beta", rule, gated ? "needs" : "takes no", delta ? "needs" : "takes no")};
    int64_t heads = n_.get_int("q_num_heads", 0);
    groups_ = n_.get_int("kv_num_heads", 0);
    if (heads < 1 || groups_ < 1 || heads % groups_ != 0)
      return Error{fmt::format("{} query heads do not share {} states evenly", heads, groups_)};
    shared_ = heads / groups_;
    return Unit{};
  }

  // [B, T, heads * E] as [T, B, heads..., E] in the dtype of the state's arithmetic.
  Result<Val> split(size_t i, std::vector<int64_t> heads, std::string_view what) {
    int64_t count = 1;
    for (int64_t h : heads)
      count *= h;
    auto width = n_.rank(i) == 3 ? n_.shape(i)[2].try_const() : std::nullopt;
    if (!width || *width % count != 0)
      return Error{fmt::format("its {} {} is not [B, T, {} heads]", what, n_.in(i).type.text(), count)};
    if (n_.shape(i)[0] != batch_ || n_.shape(i)[1] != steps_)
      return Error{fmt::format("its {} {} has another batch or length than its queries", what, n_.in(i).type.text())};
    Shape shape = {batch_, steps_};
    std::vector<int64_t> order = {1, 0};
    for (int64_t h : heads)
      shape.push_back(h);
    shape.push_back(*width / count);
    for (size_t d = 2; d < shape.size(); ++d)
      order.push_back(int64_t(d));
    KILN_TRY(parts, reshape(e_, n_.in(i), shape));
    KILN_TRY(turned, permute(e_, parts, order));
    return convert(e_, turned, compute_);
  }

  Status read_operands() {
    if (n_.rank(0) != 3)
      return Error{fmt::format("its queries must be [B, T, heads * K], not {}", n_.in(0).type.text())};
    batch_ = n_.shape(0)[0], steps_ = n_.shape(0)[1];
    compute_ = compute_dtype(n_.dtype(0));
    KILN_TRY(q, split(0, {groups_, shared_}, "queries"));
    KILN_TRY(k, split(1, {groups_}, "keys"));
    KILN_TRY(v, split(2, {groups_}, "values"));
    all_ = {q, k, v, {}, {}};
    if (q.dim(4) != k.dim(3))
      return Error{fmt::format("queries have {} elements and keys {}", q.dim(4).text(), k.dim(3).text())};
    if (n_.has(4)) {
      KILN_TRY(decay, split(4, {groups_}, "decay"));
      if (decay.dim(3) != k.dim(3) && !decay.dim(3).is_const(1))
        return Error{fmt::format("its decay {} has neither one number for each head nor for each element of a key",
                                 n_.in(4).type.text())};
      KILN_TRY(factor, n_.emit(Op::exp, {decay}));
      KILN_TRY(column, with_dims(factor, {factor.dim(2), factor.dim(3), 1}));
      all_.decay = column;
    }
    if (n_.has(5)) {
      int64_t heads = n_.rank(5) == 3 && n_.shape(5)[2].is_const(1) ? 1 : groups_;
      KILN_TRY(beta, split(5, {heads}, "beta"));
      if (!beta.dim(3).is_const(1))
        return Error{fmt::format("its beta {} does not have one number for each head", n_.in(5).type.text())};
      KILN_TRY(row, with_dims(beta, {beta.dim(2), 1, 1}));
      all_.beta = row;
    }
    state_type_ = {n_.has(3) ? n_.dtype(3) : n_.dtype(0), {batch_, groups_, k.dim(3), v.dim(3)}};
    if (n_.has(3) && n_.shape(3) != state_type_.shape)
      return Error{fmt::format("its past state is {}, not {}", n_.in(3).type.text(), state_type_.text())};
    KILN_TRY(past, n_.has(3) ? convert(e_, n_.in(3), compute_)
                             : broadcast_to(e_, e_.scalar(compute_, 0), state_type_.shape));
    past_ = past;
    auto size = k.dim(3).try_const();
    scale_ = n_.get_float("scale", 0);
    if (scale_ == 0)
      scale_ = 1 / std::sqrt(double(std::max<int64_t>(*size, 1)));
    return Unit{};
  }

  // The first two dims of x, and then these.
  Result<Val> with_dims(const Val &x, const Shape &rest) {
    Shape shape = {x.dim(0), x.dim(1)};
    shape.insert(shape.end(), rest.begin(), rest.end());
    return reshape(e_, x, shape);
  }

  // The new state and the step's result [B, G, R, V].
  Result<std::pair<Val, Val>> step(const Val &before, const Step &s) {
    Val state = before;
    if (s.decay) {
      KILN_TRY(faded, n_.emit(Op::mul, {state, *s.decay}));
      state = faded;
    }
    KILN_TRY(written, with_dims(s.v, {1, s.v.dim(2)}));
    if (s.beta) {
      KILN_TRY(key, with_dims(s.k, {1, s.k.dim(2)}));
      KILN_TRY(found, n_.emit(Op::dot, {key, state}));
      KILN_TRY(change, n_.emit(Op::sub, {written, found}));
      KILN_TRY(part, n_.emit(Op::mul, {change, *s.beta}));
      written = part;
    }
    KILN_TRY(column, with_dims(s.k, {s.k.dim(2), 1}));
    KILN_TRY(product, n_.emit(Op::mul, {column, written}));
    KILN_TRY(after, n_.emit(Op::add, {state, product}));
    KILN_TRY(read, n_.emit(Op::dot, {s.q, after}));
    KILN_TRY(y, n_.emit(Op::mul, {read, e_.scalar(compute_, scale_)}));
    return std::pair(after, y);
  }

  std::vector<Val *> operands(Step &s) {
    std::vector<Val *> out = {&s.q, &s.k, &s.v};
    if (s.decay)
      out.push_back(&*s.decay);
    if (s.beta)
      out.push_back(&*s.beta);
    return out;
  }

  Status one_step() {
    for (Val *v : operands(all_)) {
      KILN_TRY(only, reshape(e_, *v, v->dims(1, v->rank())));
      *v = only;
    }
    KILN_TRY(done, step(past_, all_));
    KILN_TRY(y, with_dims(done.second, {done.second.dim(2), done.second.dim(3)}));
    return finish(y, done.first);
  }

  Status all_steps() {
    Block body;
    Val state = e_.argument(body, past_.type, "state");
    Step inner = all_;
    std::vector<Val> scanned = {past_};
    for (Val *v : operands(inner)) {
      scanned.push_back(*v);
      *v = e_.argument(body, {v->dtype(), v->dims(1, v->rank())}, "");
    }
    {
      IntoBlock scope(e_.builder(), body);
      KILN_TRY(done, step(state, inner));
      KILN_TRY(after, e_.materialize(done.first));
      KILN_TRY(y, e_.materialize(done.second));
      body.results = {after, y};
    }
    std::vector<Block> regions;
    regions.push_back(std::move(body));
    KILN_TRY(results, e_.emit_all(Op::scan, scanned, {{"carried", attr_int(1)}}, std::move(regions)));
    KILN_TRY(turned, permute(e_, results.at(1), {1, 0, 2, 3, 4}));
    return finish(turned, results.at(0));
  }

  // y is [B, T, G, R, V], or [B, G, R, V] of one step.
  Status finish(const Val &y, const Val &state) {
    const Dim &width = y.last_dim();
    KILN_TRY(flat, reshape(e_, y, {batch_, steps_, Dim(groups_ * shared_) * width}));
    KILN_TRY(out, convert(e_, flat, n_.dtype(0)));
    KILN_TRY(present, convert(e_, state, state_type_.dtype));
    n_.set(0, out);
    n_.set(1, present);
    return Unit{};
  }

  OnnxNode &n_;
  Emitter &e_;
  Dim batch_, steps_;
  DType compute_ = DType::f32;
  int64_t groups_ = 1, shared_ = 1;
  double scale_ = 1;
  TensorType state_type_;
  Step all_; // of all steps, [T, ...]
  Val past_;
};

} // namespace

Status import_linear_attention(OnnxNode &n) { return LinearAttention(n).run(); }

// A depthwise convolution over the past and the present; the last k - 1 positions are the next past.
Status import_causal_conv_with_state(OnnxNode &n) {
  Emitter &e = n.emitter();
  std::string activation = n.get_string("activation", "none");
  if (activation != "none" && activation != "silu" && activation != "swish")
    return Error{fmt::format("'activation' is '{}'; there are none, silu and swish", activation)};
  auto channels = n.rank(0) == 3 ? n.shape(0)[1].try_const() : std::nullopt;
  auto size = n.rank(1) == 3 ? n.shape(1)[2].try_const() : std::nullopt;
  if (!channels || !size || *channels < 1 || *size < 1 || n.shape(1) != Shape{*channels, 1, *size})
    return Error{fmt::format("its operands must be [B, C, L] and [C, 1, k], not {} and {}", n.in(0).type.text(), n.in(1).type.text())};
  Shape past_shape = {n.shape(0)[0], *channels, *size - 1};
  if (n.has(3) && n.shape(3) != past_shape)
    return Error{fmt::format("its past is {}, which does not fit {} taps", n.in(3).type.text(), *size)};
  Val x = n.in(0);
  if (*size > 1) {
    KILN_TRY(past, n.has(3) ? Result<Val>(n.in(3)) : broadcast_to(e, e.scalar(x.dtype(), 0), past_shape));
    KILN_TRY(both, n.emit(Op::concat, {past, x}, {{"axis", attr_int(2)}}));
    x = both;
  }
  std::vector<Val> operands = {x, n.in(1)};
  if (n.has(2))
    operands.push_back(n.in(2));
  KILN_TRY(y, n.emit(Op::conv, operands,
                     {{"stride", attr_ints(std::vector<int64_t>{1})}, {"pad", attr_ints(std::vector<int64_t>{0, 0})},
                      {"dilation", attr_ints(std::vector<int64_t>{1})}, {"groups", attr_int(*channels)}}));
  KILN_TRY(out, activation == "none" ? Result<Val>(y) : n.emit(Op::silu, {y}));
  n.set(0, out);
  KILN_TRY(present, slice_axis(e, x, 2, n.shape(0)[2], *size - 1));
  n.set(1, present);
  return Unit{};
}

// The cache with `update` written at an index of its own for each batch. Each element of the result is
// taken from where it comes from, so nothing is scattered.
Status import_tensor_scatter(OnnxNode &n) {
  Emitter &e = n.emitter();
  std::string mode = n.get_string("mode", "linear");
  if (mode != "linear" && mode != "circular")
    return Error{fmt::format("'mode' is '{}'; there are linear and circular", mode)};
  int rank = n.rank(0);
  KILN_TRY(axis, n.axis(n.get_int("axis", -2), rank));
  Shape expected = n.shape(0);
  if (axis > 0 && n.rank(1) == rank)
    expected[size_t(axis)] = n.shape(1)[size_t(axis)];
  if (axis == 0 || n.shape(1) != expected)
    return Error{fmt::format("an update {} does not go into a cache {} along axis {}", n.in(1).type.text(), n.in(0).type.text(), axis)};
  const Dim &room = n.shape(0)[size_t(axis)], &count = n.shape(1)[size_t(axis)];
  if (count.is_const(0))
    return n.finish(Result<Val>(n.in(0)));
  auto number = [&](const Dim &d) { return e.sizes(std::vector<Element>{{d, 1}}, {}); };
  Shape along(size_t(rank), Dim(1)), each = along;
  along[size_t(axis)] = room;
  each[0] = n.shape(0)[0];
  KILN_TRY(place, n.emit(Op::iota, {}, {{"shape", along}, {"axis", attr_int(axis)}, {"dtype", DType::i64}}));
  if (n.has(2)) {
    if (n.shape(2) != Shape{n.shape(0)[0]} || !is_integer(n.dtype(2)))
      return Error{fmt::format("its write indices are {}, not one for each batch", n.in(2).type.text())};
    KILN_TRY(wide, convert(e, n.in(2), DType::i64));
    KILN_TRY(first, reshape(e, wide, each));
    KILN_TRY(moved, n.emit(Op::sub, {place, first}));
    place = moved;
  }
  if (mode == "circular") {
    KILN_TRY(around, n.emit(Op::remainder, {place, number(room)}));
    place = around;
  }
  KILN_TRY(after, n.emit(Op::ge, {place, number(0)}));
  KILN_TRY(before, n.emit(Op::lt, {place, number(count)}));
  KILN_TRY(written, n.emit(Op::logical_and, {after, before}));
  KILN_TRY(low, n.emit(Op::maximum, {place, number(0)}));
  KILN_TRY(inside, n.emit(Op::minimum, {low, number(count - Dim(1))}));
  KILN_TRY(from, broadcast_to(e, inside, n.shape(0)));
  KILN_TRY(fresh, n.emit(Op::gather_elements, {n.in(1), from}, {{"axis", attr_int(axis)}}));
  return n.finish(Op::where, {written, fresh, n.in(0)});
}

} // namespace kiln::onnx
