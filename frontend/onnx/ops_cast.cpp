// Cast, CastLike, BitCast. The language's convert saturates; the other ways to round and to overflow are made
// of comparisons and arithmetic on bits around it.
#include "frontend/onnx/cast.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/tensors.h"
#include "frontend/onnx/text_numbers.h"
#include "ir/narrow.h"

#include <fmt/format.h>

#include <cctype>
#include <cmath>

namespace kiln::onnx {
namespace {

Val code(Emitter &e, DType dtype, int value) {
  Tensor t(dtype, {});
  *t.data<uint8_t>() = narrow_byte(dtype, uint8_t(value));
  return e.constant(std::move(t));
}

// The float that x is cast from: exact, or beyond what a narrow float holds.
Result<Val> as_float(Emitter &e, const Val &x, DType to) {
  DType from = x.dtype();
  if (is_float(from))
    return x;
  bool wide = to == DType::f8e8m0 && !is_bool(from);
  return convert(e, x, wide ? DType::f64 : DType::f32);
}

// What rounds above the largest becomes NaN or an infinity.
Result<Val> unsaturated(Emitter &e, const Val &given, DType to) {
  const NarrowFloat &f = *narrow_float(to);
  KILN_TRY(x, as_float(e, given, to));
  double most = narrow_value(to, uint8_t(f.greatest));
  double step = std::ldexp(1.0, std::ilogb(most) - f.mantissa_bits);
  bool tie_stays = f.greatest % 2 == 0; // half a step above, the even of two
  KILN_TRY(size, e.emit(Op::abs, {x}));
  KILN_TRY(outside, e.emit(tie_stays ? Op::gt : Op::ge, {size, e.scalar(x.dtype(), most + step / 2)}));
  Val instead = code(e, to, f.has_infinity ? f.greatest + 1 : f.nan);
  if (f.negative_zero) {
    KILN_TRY(negative, e.emit(Op::lt, {x, e.scalar(x.dtype(), 0)}));
    Val other = code(e, to, (f.has_infinity ? f.greatest + 1 : f.nan) | 1 << f.sign_bit());
    KILN_TRY(signed_one, e.emit(Op::where, {negative, other, instead}));
    instead = signed_one;
  }
  KILN_TRY(inside, convert(e, x, to));
  return e.emit(Op::where, {outside, instead, inside});
}

// float8e8m0 by other rules than the language's, which rounds up and saturates. A power of two is what is
// left of a float without its mantissa.
Result<Val> power_of_two(Emitter &e, const Val &given, const CastRule &rule) {
  KILN_TRY(some, as_float(e, given, DType::f8e8m0));
  KILN_TRY(x, convert(e, some, some.dtype() == DType::f64 ? DType::f64 : DType::f32));
  bool wide = x.dtype() == DType::f64;
  DType integer = wide ? DType::i64 : DType::i32;
  int mantissa = wide ? 52 : 23;
  auto number = [&](int64_t value) { return e.constant(Tensor::scalar_i64(integer, value)); };
  int64_t below = (int64_t(1) << mantissa) - 1, infinity = int64_t(wide ? 2047 : 255) << mantissa;
  KILN_TRY(raw, e.emit(Op::bitcast, {x}, {{"dtype", integer}}));
  KILN_TRY(size, e.emit(Op::bitwise_and, {raw, number(infinity | below)}));
  // One is added where the rounding goes up: a half that carries, or all that is not 0.
  int64_t half = int64_t(1) << (mantissa - 1), add = rule.round == "nearest" ? half : rule.round == "up" ? below : 0;
  KILN_TRY(raised, e.emit(Op::add, {size, number(add)}));
  KILN_TRY(power, e.emit(Op::bitwise_and, {raised, number(infinity)}));
  // 2^-127 lies in the middle of the numbers of f32 without an exponent; f64 has it among the others.
  int64_t one = int64_t(1) << mantissa, least = wide ? int64_t(1023 - 127) << mantissa : half;
  if (!wide) {
    int64_t up_from = rule.round == "nearest" ? half + half / 2 : rule.round == "up" ? half + 1 : one;
    KILN_TRY(small, e.emit(Op::lt, {size, number(one)}));
    KILN_TRY(upper, e.emit(Op::ge, {size, number(up_from)}));
    KILN_TRY(which, e.emit(Op::where, {upper, number(one), number(least)}));
    KILN_TRY(both, e.emit(Op::where, {small, which, power}));
    power = both;
  }
  // NaN keeps its bits.
  KILN_TRY(is_nan, e.emit(Op::gt, {size, number(infinity)}));
  KILN_TRY(bits, e.emit(Op::where, {is_nan, size, power}));
  KILN_TRY(rounded, e.emit(Op::bitcast, {bits}, {{"dtype", x.dtype()}}));
  KILN_TRY(inside, convert(e, rounded, DType::f8e8m0));
  if (rule.saturate)
    return inside;
  int64_t most = int64_t(wide ? 1023 + 127 : 254) << mantissa;
  KILN_TRY(above, e.emit(Op::gt, {power, number(most)}));
  KILN_TRY(too_small, e.emit(Op::lt, {size, number(least)}));
  KILN_TRY(outside, e.emit(Op::logical_or, {above, too_small}));
  return e.emit(Op::where, {outside, code(e, DType::f8e8m0, 255), inside});
}

// The type that the attribute `to` names.
Result<int64_t> target_type(OnnxNode &n) {
  const AttributeView *to = n.find("to");
  if (!to)
    return Error{"the attribute 'to' is missing"};
  int64_t type = 0;
  if (to->type == AttrType::s) { // opset 1 to 5 named the type
    for (int known = 1; known < 24; ++known) {
      std::string name = onnx_type_name(known);
      for (char &c : name)
        c = char(std::toupper(static_cast<unsigned char>(c)));
      if (name == to->s)
        type = known;
    }
  } else {
    type = n.get_int("to", 0);
  }
  return type;
}

Result<DType> target(OnnxNode &n) {
  KILN_TRY(type, target_type(n));
  auto dtype = dtype_from_onnx(type);
  if (!dtype)
    return Error{fmt::format("a cast to {} is not supported", onnx_type_name(type))};
  return *dtype;
}

Status to_strings(OnnxNode &n) {
  n.ignore({"saturate", "round_mode"});
  const Val &x = n.in(0);
  return n.finish(x.text ? Result<Val>(x) : number_to_text(n.emitter(), x));
}

Result<Val> cast_any(OnnxNode &n, DType to, const CastRule &rule) {
  const Val &x = n.in(0);
  return x.text ? text_to_number(n.emitter(), x, to, rule) : cast(n.emitter(), x, to, rule);
}

} // namespace

Result<CastRule> cast_rule(OnnxNode &n) {
  CastRule rule{n.get_flag("saturate", true), n.get_string("round_mode", "up")};
  if (rule.round != "up" && rule.round != "down" && rule.round != "nearest")
    return Error{fmt::format("'round_mode' is '{}'; it can be up, down or nearest", rule.round)};
  return rule;
}

Result<Val> cast(Emitter &e, const Val &x, DType to, const CastRule &rule) {
  if (x.dtype() == to)
    return x;
  const NarrowFloat *f = narrow_float(to);
  if (is_narrow(to) && !f && holds_floats(x.dtype())) {
    KILN_TRY(whole, convert(e, x, DType::i32));
    return convert(e, whole, to);
  }
  if (to == DType::f8e8m0 && (!rule.saturate || rule.round != "up"))
    return power_of_two(e, x, rule);
  if (f && f->nan >= 0 && !rule.saturate)
    return unsaturated(e, x, to);
  return convert(e, x, to);
}

Status import_cast(OnnxNode &n) {
  KILN_TRY(type, target_type(n));
  if (type == kStringType)
    return to_strings(n);
  KILN_TRY(dtype, target(n));
  KILN_TRY(rule, cast_rule(n));
  return n.finish(cast_any(n, dtype, rule));
}

Status import_cast_like(OnnxNode &n) {
  if (n.in(1).text)
    return to_strings(n);
  KILN_TRY(rule, cast_rule(n));
  return n.finish(cast_any(n, n.dtype(1), rule));
}

Status import_bit_cast(OnnxNode &n) {
  KILN_TRY(dtype, target(n));
  return n.finish(Op::bitcast, {n.in(0)}, {{"dtype", dtype}});
}

} // namespace kiln::onnx
