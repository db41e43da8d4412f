#include "codegen/c/expr.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <map>

namespace kiln::c {
namespace {

using AtomKind = DimAtom::Kind;

std::string number_text(const Expr &e) {
  if (is_bool(e.dtype))
    return e.integer ? "1" : "0";
  if (is_float(e.dtype)) {
    if (std::isnan(e.number))
      return "NAN";
    if (std::isinf(e.number))
      return e.number < 0 ? "-INFINITY" : "INFINITY";
    std::string text = e.dtype == DType::f64 ? fmt::format("{}", e.number) : fmt::format("{}", float(e.number));
    if (text.find_first_of(".e") == std::string::npos)
      text += ".0";
    text += e.dtype == DType::f64 ? "" : "f";
    return e.number < 0 || std::signbit(e.number) ? "(" + text + ")" : text;
  }
  if (e.dtype == DType::i64)
    return e.integer == INT64_MIN ? "INT64_MIN" : fmt::format("INT64_C({})", e.integer);
  if (e.dtype == DType::u64)
    return fmt::format("UINT64_C({})", uint64_t(e.integer));
  if (e.dtype == DType::u32)
    return fmt::format("UINT32_C({})", uint32_t(e.integer));
  return e.dtype == DType::i32 && e.integer == INT32_MIN ? "INT32_MIN" : fmt::format("({}){}", c_type(e.dtype), e.integer);
}

bool is_wide(DType d) { return dtype_bits(d) == 64; }
std::string float_suffix(DType d) { return d == DType::f64 ? "" : "f"; }

std::string unary_text(const Expr &e, Helpers &helpers) {
  const Expr &arg = e.args[0];
  std::string a = c_expr(arg, helpers);
  DType d = arg.dtype;
  switch (e.unary) {
  case UnaryOp::neg:
    if (is_float(d))
      return "(-" + a + ")";
    return fmt::format("(({})(0 - ({}){}))", c_type(d), is_wide(d) ? "uint64_t" : "uint32_t", a);
  case UnaryOp::abs:
    if (is_float(d))
      return fmt::format("fabs{}({})", float_suffix(d), a);
    if (!is_signed_int(d))
      return a;
    return fmt::format("({} < 0 ? ({})(0 - ({}){}) : {})", a, c_type(d), is_wide(d) ? "uint64_t" : "uint32_t", a, a);
  case UnaryOp::ceil:
  case UnaryOp::floor:
  case UnaryOp::trunc:
  case UnaryOp::sqrt:
    return fmt::format("{}{}({})", unary_name(e.unary), float_suffix(d), a);
  case UnaryOp::round:
    return fmt::format("rint{}({})", float_suffix(d), a);
  case UnaryOp::bit_not:
    return is_bool(d) ? "(!" + a + ")" : fmt::format("(({})~{})", c_type(d), a);
  case UnaryOp::is_nan:
    return "(isnan(" + a + ") != 0)";
  case UnaryOp::sigmoid: {
    std::string name = d == DType::f64 ? "kiln_sigmoid" : "kiln_sigmoidf";
    helpers.insert(name);
    return fmt::format("{}({})", name, a);
  }
  default:
    return fmt::format("{}{}({})", unary_name(e.unary), float_suffix(d), a);
  }
}

std::string binary_text(const Expr &e, Helpers &helpers) {
  std::string a = c_expr(e.args[0], helpers), b = c_expr(e.args[1], helpers);
  DType d = e.args[0].dtype;
  auto helper = [&](std::string_view stem) {
    std::string name = fmt::format("kiln_{}_{}", stem, dtype_name(d));
    helpers.insert(name);
    return fmt::format("{}({}, {})", name, a, b);
  };
  // Integer arithmetic wraps: done unsigned and converted back.
  auto infix = [&](std::string_view op) {
    if (is_float(d) || is_bool(d) || is_unsigned_int(d))
      return is_integer(d) ? fmt::format("(({})({} {} {}))", c_type(d), a, op, b) : fmt::format("({} {} {})", a, op, b);
    std::string_view u = is_wide(d) ? "uint64_t" : "uint32_t";
    return fmt::format("(({})(({}){} {} ({}){}))", c_type(d), u, a, op, u, b);
  };
  switch (e.binary) {
  case BinaryOp::add:
    return infix("+");
  case BinaryOp::sub:
    return infix("-");
  case BinaryOp::mul:
    return infix("*");
  case BinaryOp::div:
    return is_float(d) ? fmt::format("({} / {})", a, b) : helper("div");
  case BinaryOp::rem:
    return is_float(d) ? fmt::format("fmod{}({}, {})", float_suffix(d), a, b) : helper("rem");
  case BinaryOp::min:
    return helper("min");
  case BinaryOp::max:
    return helper("max");
  case BinaryOp::bit_and:
    return fmt::format("(({})({} & {}))", c_type(d), a, b);
  case BinaryOp::bit_or:
    return fmt::format("(({})({} | {}))", c_type(d), a, b);
  case BinaryOp::bit_xor:
    return fmt::format("(({})({} ^ {}))", c_type(d), a, b);
  case BinaryOp::shl:
    return helper("shl");
  case BinaryOp::shr:
    return helper("shr");
  case BinaryOp::eq:
    return fmt::format("({} == {})", a, b);
  case BinaryOp::ne:
    return fmt::format("({} != {})", a, b);
  case BinaryOp::lt:
    return fmt::format("({} < {})", a, b);
  case BinaryOp::le:
    return fmt::format("({} <= {})", a, b);
  case BinaryOp::gt:
    return fmt::format("({} > {})", a, b);
  case BinaryOp::ge:
    return fmt::format("({} >= {})", a, b);
  case BinaryOp::pow:
  case BinaryOp::atan2:
    if (!is_float(d))
      return helper("pow");
    if (e.binary == BinaryOp::pow && e.args[0].is(Expr::Kind::number) && e.args[0].number == 2)
      return fmt::format("exp2{}({})", float_suffix(d), b);
    return fmt::format("{}{}({}, {})", binary_name(e.binary), float_suffix(d), a, b);
  }
  return "";
}

std::string convert_text(const Expr &e, Helpers &helpers) {
  const Expr &arg = e.args[0];
  std::string a = c_expr(arg, helpers);
  DType from = arg.dtype, to = e.dtype;
  auto call = [&](const std::string &name, const std::string &x) {
    helpers.insert(name);
    return fmt::format("{}({})", name, x);
  };
  if (from == DType::f16 || from == DType::bf16) {
    a = call(from == DType::f16 ? "kiln_f16_to_f32" : "kiln_bf16_to_f32", a);
    from = DType::f32;
  }
  if (to == DType::f16 || to == DType::bf16)
    return call(to == DType::f16 ? "kiln_f32_to_f16" : "kiln_f32_to_bf16", "(float)" + a);
  if (is_bool(to))
    return fmt::format("({} != 0)", a);
  if (is_float(from) && is_integer(to))
    return call(fmt::format("kiln_to_{}", dtype_name(to)), a);
  return fmt::format("(({}){})", c_type(to), a);
}

std::string dim_product(const DimTerm &term, int64_t coefficient, Helpers &helpers) {
  std::string out = coefficient != 1 ? fmt::format("{}", coefficient) : "";
  for (const DimAtom &factor : term.factors) {
    std::string text;
    if (factor.kind == AtomKind::symbol) {
      text = c_name(factor.symbol);
    } else {
      constexpr const char *kNames[] = {"", "kiln_floordiv", "kiln_mod", "kiln_least", "kiln_most"};
      const char *name = kNames[size_t(factor.kind)];
      helpers.insert(name);
      text = fmt::format("{}({}, {})", name, c_dim(factor.args[0], helpers), c_dim(factor.args[1], helpers));
    }
    out += (out.empty() ? "" : " * ") + text;
  }
  return out;
}

} // namespace

std::string c_type(DType dtype) {
  switch (dtype) {
  case DType::f64:
    return "double";
  case DType::f32:
    return "float";
  case DType::f16:
  case DType::bf16:
    return "uint16_t";
  case DType::bool_:
    return "uint8_t";
  default:
    return fmt::format("{}int{}_t", is_unsigned_int(dtype) ? "u" : "", dtype_bits(dtype));
  }
}

std::string c_name(Symbol symbol) {
  std::string out;
  for (char c : symbol.text()) {
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    out += plain ? std::string(1, c) : fmt::format("_{:02x}", static_cast<unsigned char>(c));
  }
  return "v_" + out;
}

std::string c_dim(const Dim &dim, Helpers &helpers) {
  std::string out;
  for (const DimTerm &term : dim.terms()) {
    bool negative = term.coefficient < 0;
    std::string text = dim_product(term, negative ? -term.coefficient : term.coefficient, helpers);
    out += out.empty() ? (negative ? "-" : "") : (negative ? " - " : " + ");
    out += text;
  }
  if (out.empty())
    return fmt::format("{}", dim.constant_part());
  if (dim.constant_part() != 0)
    out += fmt::format(" {} {}", dim.constant_part() < 0 ? '-' : '+', std::abs(dim.constant_part()));
  return out;
}

std::string c_expr(const Expr &e, Helpers &helpers) {
  KILN_CHECK(e.lanes == 1, "the c target takes scalar kernels");
  switch (e.kind) {
  case Expr::Kind::number:
    return number_text(e);
  case Expr::Kind::index:
    return "(int64_t)(" + c_dim(e.index, helpers) + ")";
  case Expr::Kind::var:
    return c_name(e.name);
  case Expr::Kind::load:
    return fmt::format("{}[{}]", c_name(e.name), c_dim(e.index, helpers));
  case Expr::Kind::gather:
    return fmt::format("{}[{}]", c_name(e.name), c_expr(e.args[0], helpers));
  case Expr::Kind::unary:
    return unary_text(e, helpers);
  case Expr::Kind::binary:
    return binary_text(e, helpers);
  case Expr::Kind::select:
    return fmt::format("({} ? {} : {})", c_expr(e.args[0], helpers), c_expr(e.args[1], helpers),
                       c_expr(e.args[2], helpers));
  case Expr::Kind::convert:
    return convert_text(e, helpers);
  case Expr::Kind::bitcast: {
    std::string name = fmt::format("kiln_bits_{}_{}", dtype_name(e.args[0].dtype), dtype_name(e.dtype));
    helpers.insert(name);
    return fmt::format("{}({})", name, c_expr(e.args[0], helpers));
  }
  case Expr::Kind::broadcast:
  case Expr::Kind::reduce:
  case Expr::Kind::extract:
    return c_expr(e.args[0], helpers);
  case Expr::Kind::iota:
    return "0";
  case Expr::Kind::fma:
    helpers.insert(e.dtype == DType::f64 ? "kiln_fma" : "kiln_fmaf");
    return fmt::format("{}({}, {}, {})", e.dtype == DType::f64 ? "kiln_fma" : "kiln_fmaf", c_expr(e.args[0], helpers),
                       c_expr(e.args[1], helpers), c_expr(e.args[2], helpers));
  default:
    break;
  }
  KILN_CHECK(false, "an expression that scalar kernels do not have");
  return "";
}

std::string helper_text(const std::string &name) {
  static const std::map<std::string, std::string> kFixed = {
      {"kiln_floordiv", "static int64_t kiln_floordiv(int64_t a, int64_t b) { if (b < 1) b = 1; return a / b - (a % b < 0); }"},
      {"kiln_mod", "static int64_t kiln_mod(int64_t a, int64_t b) { if (b < 1) b = 1; return a % b < 0 ? a % b + b : a % b; }"},
      {"kiln_least", "static int64_t kiln_least(int64_t a, int64_t b) { return a < b ? a : b; }"},
      {"kiln_most", "static int64_t kiln_most(int64_t a, int64_t b) { return a > b ? a : b; }"},
      {"kiln_fma", "static double kiln_fma(double a, double b, double c) { return a * b + c; }"},
      {"kiln_fmaf", "static float kiln_fmaf(float a, float b, float c) { return a * b + c; }"},
      {"kiln_sigmoid", "static double kiln_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }"},
      {"kiln_sigmoidf", "static float kiln_sigmoidf(float x) { return 1.0f / (1.0f + expf(-x)); }"},
      {"kiln_bf16_to_f32", "static float kiln_bf16_to_f32(uint16_t h) {\n  uint32_t u = (uint32_t)h << 16;\n  float f;\n"
                           "  memcpy(&f, &u, 4);\n  return f;\n}"},
      {"kiln_f32_to_bf16", "static uint16_t kiln_f32_to_bf16(float f) {\n  uint32_t u;\n  memcpy(&u, &f, 4);\n"
                           "  if (f != f) return (uint16_t)(u >> 16 | 0x40);\n"
                           "  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);\n}"},
      {"kiln_f16_to_f32",
       "static float kiln_f16_to_f32(uint16_t h) {\n  uint32_t e = h >> 10 & 31, m = h & 1023, u;\n  float f;\n"
       "  if (e == 0) {\n    f = (float)m * 5.9604644775390625e-8f;\n    return h & 0x8000 ? -f : f;\n  }\n"
       "  u = (uint32_t)(h & 0x8000) << 16 | (e == 31 ? 255u : e + 112) << 23 | m << 13;\n"
       "  memcpy(&f, &u, 4);\n  return f;\n}"},
      {"kiln_f32_to_f16",
       "static uint16_t kiln_f32_to_f16(float f) {\n  uint32_t u, s, odd;\n  memcpy(&u, &f, 4);\n"
       "  s = u >> 16 & 0x8000;\n  u &= 0x7fffffff;\n"
       "  if (u >= 0x7f800000) return (uint16_t)(s | (u > 0x7f800000 ? 0x7e00 : 0x7c00));\n"
       "  if (u >= 0x477ff000) return (uint16_t)(s | 0x7c00);\n"
       "  if (u < 0x38800000) {\n    float a;\n    memcpy(&a, &u, 4);\n    a += 0.5f;\n    memcpy(&u, &a, 4);\n"
       "    return (uint16_t)(s | (u - 0x3f000000));\n  }\n  odd = u >> 13 & 1;\n"
       "  return (uint16_t)(s | (u - 0x38000000 + 0xfff + odd) >> 13);\n}"},
  };
  if (auto it = kFixed.find(name); it != kFixed.end())
    return it->second;
  std::string_view rest = std::string_view(name).substr(5);
  if (rest.starts_with("to_")) {
    DType to = *dtype_from_name(rest.substr(3));
    std::string t = c_type(to), limit = fmt::format("{}INT{}", is_unsigned_int(to) ? "U" : "", dtype_bits(to));
    std::string least = is_unsigned_int(to) ? "0" : limit + "_MIN";
    return fmt::format("static {0} kiln_to_{1}(double x) {{\n  if (x != x) return 0;\n  if (x <= (double){2}) return {2};\n"
                       "  if (x >= (double){3}_MAX) return {3}_MAX;\n  return ({0})x;\n}}",
                       t, dtype_name(to), least, limit);
  }
  if (rest.starts_with("bits_")) {
    size_t second = rest.find('_', 5);
    DType from = *dtype_from_name(rest.substr(5, second - 5)), to = *dtype_from_name(rest.substr(second + 1));
    return fmt::format("static {1} {2}({0} x) {{\n  {1} y;\n  memcpy(&y, &x, sizeof y);\n  return y;\n}}", c_type(from),
                       c_type(to), name);
  }
  size_t split = rest.find('_');
  std::string_view stem = rest.substr(0, split);
  DType d = *dtype_from_name(rest.substr(split + 1));
  std::string t = c_type(d), head = fmt::format("static {0} {1}({0} a, {0} b) {{ ", t, name);
  if (stem == "min" || stem == "max") {
    std::string pick = fmt::format("a {} b ? a : b", stem == "min" ? "<" : ">");
    return head + (is_float(d) ? fmt::format("return a != a ? a : b != b ? b : {}; }}", pick) : fmt::format("return {}; }}", pick));
  }
  std::string_view u = is_wide(d) ? "uint64_t" : "uint32_t";
  if (stem == "div")
    return head + (is_signed_int(d) ? fmt::format("return b == -1 ? ({0})(0 - ({1})a) : ({0})(a / b); }}", t, u)
                                    : fmt::format("return ({})(a / b); }}", t));
  if (stem == "pow")
    return head + fmt::format("{0} r = 1; for (; b; b >>= 1, a *= a) r *= b & 1 ? a : 1; return r; }}", t);
  if (stem == "rem")
    return head + (is_signed_int(d) ? fmt::format("return b == -1 ? 0 : ({})(a % b); }}", t) : fmt::format("return ({})(a % b); }}", t));
  std::string outside = is_signed_int(d) ? fmt::format("b < 0 || b >= {}", dtype_bits(d)) : fmt::format("b >= {}", dtype_bits(d));
  if (stem == "shl")
    return head + fmt::format("return {} ? 0 : ({})(({})a << b); }}", outside, t, u);
  return head + fmt::format("return {} ? 0 : ({})(a >> b); }}", outside, t);
}

} // namespace kiln::c
