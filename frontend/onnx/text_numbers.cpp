#include "frontend/onnx/text_numbers.h"

#include "frontend/onnx/calc.h"
#include "frontend/onnx/importer.h"
#include "ir/narrow.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace kiln::onnx {
namespace {

constexpr int kMostPower = 308;
constexpr int64_t kMostWords = 1 << 16; // strings that are converted at once

double power_of_ten(int n) {
  std::string text = fmt::format("1e{}", n);
  double out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

Tensor f64_table(int first, int last) {
  Tensor out(DType::f64, {last - first + 1});
  for (int n = first; n <= last; ++n)
    out.set_f64(n - first, power_of_ten(n));
  return out;
}

// 10^0 to 10^(count - 1)
Tensor integer_powers(DType dtype, int64_t count) {
  Tensor out(dtype, {count});
  uint64_t power = 1;
  for (int64_t i = 0; i < count; ++i, power *= 10)
    out.set_i64(i, int64_t(power));
  return out;
}

// -- what is known

struct Parsed {
  double real = std::numeric_limits<double>::quiet_NaN();
  int64_t integer = 0; // the bits, of u64 too
};

bool is_space(char c) { return c == ' ' || (c >= 9 && c <= 13); }

// Of a number that is too large or too small for f64: the power of its first digit decides.
bool is_below_one(const std::string &s) {
  size_t e = std::min(s.find('e'), s.size()), point = std::min(s.find('.'), e), first = s.find_first_of("123456789");
  int64_t power = 0;
  if (e < s.size()) {
    size_t sign = s[e + 1] == '+' || s[e + 1] == '-' ? 1 : 0;
    auto [end, error] = std::from_chars(s.data() + e + 1 + sign, s.data() + s.size(), power);
    if (error == std::errc::result_out_of_range)
      power = INT64_MAX / 2;
    power = s[e + 1] == '-' ? -power : power;
  }
  return power + int64_t(point) - int64_t(first) - (first < point ? 1 : 0) < 0;
}

Parsed parse(std::string_view s, bool is_u64) {
  while (!s.empty() && is_space(s.front()))
    s.remove_prefix(1);
  while (!s.empty() && is_space(s.back()))
    s.remove_suffix(1);
  bool negative = !s.empty() && s[0] == '-';
  if (!s.empty() && (s[0] == '-' || s[0] == '+'))
    s.remove_prefix(1);
  std::string lower(s);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  Parsed out;
  double sign = negative ? -1 : 1;
  if (lower == "inf" || lower == "infinity") {
    out.real = sign * std::numeric_limits<double>::infinity();
  } else if (!lower.empty() && lower.find_first_not_of("0123456789.e+-") == std::string::npos && lower[0] != '-' && lower[0] != '+') {
    double value = 0;
    auto [end, error] = std::from_chars(lower.data(), lower.data() + lower.size(), value);
    if (end != lower.data() + lower.size() || error == std::errc::invalid_argument)
      return out;
    if (error == std::errc::result_out_of_range)
      value = is_below_one(lower) ? 0 : std::numeric_limits<double>::infinity();
    out.real = sign * value;
    uint64_t whole = 0;
    auto [stop, failed] = std::from_chars(lower.data(), lower.data() + lower.size(), whole);
    if (stop == lower.data() + lower.size() && failed == std::errc()) {
      out.integer = int64_t(negative ? 0 - whole : whole);
      return out;
    }
  }
  double x = std::isnan(out.real) ? 0 : std::trunc(out.real), most = is_u64 ? 0x1p64 : 0x1p63;
  if (x >= most)
    out.integer = is_u64 ? -1 : INT64_MAX;
  else if (x < (is_u64 ? 0 : -most))
    out.integer = is_u64 ? 0 : INT64_MIN;
  else
    out.integer = is_u64 ? int64_t(uint64_t(x)) : int64_t(x);
  return out;
}

// The fewest digits of a float, and where its point is: 0.00125 is "125" and -3.
std::pair<std::string, int> digits_of(double value, DType dtype) {
  for (int count = 1;; ++count) {
    std::string text = fmt::format("{:.{}e}", value, count - 1);
    Tensor back(dtype, {});
    double read = 0;
    std::from_chars(text.data(), text.data() + text.size(), read);
    back.set_f64(0, read);
    if (count < 17 && back.at_f64(0) != value)
      continue;
    size_t e = text.find('e');
    std::string digits = text.substr(0, e);
    std::erase(digits, '.');
    return {digits, std::atoi(text.c_str() + e + 1)};
  }
}

std::string float_text(double value, DType dtype) {
  if (std::isnan(value))
    return "NaN";
  std::string sign = std::signbit(value) ? "-" : "";
  value = std::fabs(value);
  if (std::isinf(value))
    return sign + "INF";
  if (value == 0)
    return sign + "0.0";
  auto [digits, e] = digits_of(value, dtype);
  if (e < -4 || e >= 16)
    return sign + digits.substr(0, 1) + (digits.size() > 1 ? "." + digits.substr(1) : "") + fmt::format("e{}{:02}", e < 0 ? '-' : '+', std::abs(e));
  if (e < 0)
    return sign + "0." + std::string(size_t(-e - 1), '0') + digits;
  if (digits.size() < size_t(e) + 2)
    digits.append(size_t(e) + 2 - digits.size(), '0');
  return sign + digits.substr(0, size_t(e) + 1) + "." + digits.substr(size_t(e) + 1);
}

std::string number_text(const Tensor &t, int64_t i) {
  if (holds_floats(t.dtype()))
    return float_text(t.at_f64(i), t.dtype());
  return t.dtype() == DType::u64 ? std::to_string(uint64_t(t.at_i64(i))) : std::to_string(t.at_i64(i));
}

// -- strings that a run brings

// States and kinds of bytes of what reads a number.
enum State : int { start, after_sign, whole, fraction, after_e, exponent_sign, exponent, trailing, bad, bare_point, kStates };
enum Kind : int { digit, point, plus, minus, letter_e, space, nothing, other, kKinds };

Tensor kinds_table() {
  Tensor out(DType::i32, {256});
  for (int c = 0; c < 256; ++c) {
    Kind kind = c >= '0' && c <= '9'   ? digit
                : c == '.'             ? point
                : c == '+'             ? plus
                : c == '-'             ? minus
                : c == 'e' || c == 'E' ? letter_e
                : is_space(char(c))    ? space
                : c == 0               ? nothing
                                       : other;
    out.set_i64(c, kind);
  }
  return out;
}

Tensor states_table() {
  Tensor out(DType::i32, {int64_t(kStates) * int64_t(kKinds)});
  for (int s = 0; s < kStates; ++s)
    for (int k = 0; k < kKinds; ++k)
      out.set_i64(int64_t(s) * kKinds + k, k == nothing ? s : bad);
  auto go = [&](State from, Kind by, State to) { out.set_i64(int64_t(from) * int64_t(kKinds) + int64_t(by), to); };
  go(start, space, start), go(start, plus, after_sign), go(start, minus, after_sign);
  for (State s : {start, after_sign})
    go(s, digit, whole), go(s, point, bare_point);
  go(bare_point, digit, fraction);
  go(whole, digit, whole), go(whole, point, fraction), go(fraction, digit, fraction);
  for (State s : {whole, fraction})
    go(s, letter_e, after_e);
  go(after_e, plus, exponent_sign), go(after_e, minus, exponent_sign);
  for (State s : {after_e, exponent_sign, exponent})
    go(s, digit, exponent);
  for (State s : {whole, fraction, exponent, trailing})
    go(s, space, trailing);
  return out;
}

struct Scanned {
  Num good, negative, digits, power; // bool, bool, u64, i32: the number is digits * 10^power
};

// One scan over the bytes of all strings, rows u8[R, L].
Scanned scan_numbers(Calc &c, const Num &rows, int most_digits) {
  Emitter &e = c.emitter();
  Num turned = permute(rows, {1, 0});
  Num kinds = gather(c(e.constant(kinds_table())), convert(turned, DType::i32), 0), values = convert(turned, DType::i32) - 48;
  Shape row = {rows.dim(0)};
  Val states = e.constant(states_table());
  constexpr DType kTypes[] = {DType::i32, DType::u64, DType::i32, DType::i32, DType::i32, DType::bool_, DType::bool_};
  std::vector<Val> operands;
  for (DType t : kTypes)
    operands.push_back(broadcast_to(c.number(t, 0), row).v);
  Block body;
  std::vector<Num> in;
  for (DType t : kTypes)
    in.push_back(c(e.argument(body, {t, row}, "")));
  Num kind = c(e.argument(body, {DType::i32, row}, "kind")), value = c(e.argument(body, {DType::i32, row}, "value"));
  {
    IntoBlock scope(e.builder(), body);
    Num next = gather(c(states), in[0] * double(kKinds) + kind, 0);
    Num fits = in[2] < double(most_digits), here = equal(kind, digit);
    Num is_whole = here && equal(next, whole), is_fraction = here && equal(next, fraction);
    Num taken = (is_whole || is_fraction) && fits;
    Num digits = where(taken, in[1] * 10.0 + convert(value, DType::u64), in[1]);
    Num count = in[2] + convert(taken && !equal(digits, 0), DType::i32);
    Num shift = convert(is_whole && !fits, DType::i32) - convert(is_fraction && fits, DType::i32);
    Num power = where(here && equal(next, exponent), min(in[4] * 10.0 + value, 9999), in[4]);
    Num negative = in[5] || (equal(kind, minus) && equal(next, after_sign));
    Num small = in[6] || (equal(kind, minus) && equal(next, exponent_sign));
    for (const Num &n : {next, digits, count, in[3] + shift, power, negative, small}) {
      auto id = e.materialize(n.v);
      if (!id)
        c.fail(id.error().message);
      body.results.push_back(*id);
    }
  }
  operands.push_back(kinds.v), operands.push_back(values.v);
  std::vector<Block> regions;
  regions.push_back(std::move(body));
  auto out = e.emit_all(Op::scan, operands, {{"carried", attr_int(int64_t(std::size(kTypes)))}}, std::move(regions));
  if (!out)
    c.fail(out.error().message);
  auto last = [&](size_t i) { return c((*out)[i]); };
  Num state = last(0);
  Num good = equal(state, whole) || equal(state, fraction) || equal(state, exponent) || equal(state, trailing);
  return {good, last(5), last(1), last(3) + where(last(6), 0 - last(4), last(4))};
}

// digits * 10^power; one rounding where both are exact in f64.
Num scaled(Calc &c, const Num &digits, const Num &power) {
  Num table = c(c.emitter().constant(f64_table(0, kMostPower)));
  auto factor = [&](const Num &n, double from) { return gather(table, min(max(n - from, 0), kMostPower), 0); };
  Num up = max(power, 0), down = max(0 - power, 0);
  Num value = convert(digits, DType::f64) * factor(up, 0) * factor(up, kMostPower);
  return value / factor(down, 0) / factor(down, kMostPower);
}

Result<Val> read_numbers(Emitter &e, const Val &text, DType to, const CastRule &rule) {
  Calc c(e);
  Shape shape = text_shape(text);
  Num rows = reshape(c(text), {element_count(shape), text_width(text)});
  Scanned s = scan_numbers(c, rows, to == DType::u64 ? 20 : 19);
  Num real = scaled(c, s.digits, s.power);
  real = where(s.negative, 0 - real, real);
  if (is_integer(to) || (is_narrow(to) && !narrow_float(to))) {
    DType wide = to == DType::u64 ? DType::u64 : DType::i64;
    Num exact = convert(s.digits, wide);
    exact = where(s.negative, 0 - exact, exact);
    Num out = where(s.good, where(equal(s.power, 0), exact, convert(real, wide)), 0);
    KILN_TRY(value, c.done(reshape(out, shape)));
    return cast(e, value, to, rule);
  }
  if (is_bool(to))
    return c.done(reshape(s.good && !equal(real, 0), shape));
  Num big = rows >= 'A' && rows <= 'Z', lower = where(big, rows + 32.0, rows);
  KILN_TRY(lower_rows, c.done(lower));
  const std::vector<std::string> above = {"inf", "+inf", "infinity", "+infinity"}, below = {"-inf", "-infinity"};
  auto is_any = [&](const std::vector<std::string> &keys) -> Result<Num> {
    KILN_TRY(matches, text_matches(e, as_text(lower_rows), keys));
    KILN_TRY(any, e.emit(Op::reduce_any, {matches}, {{"axes", std::vector<Dim>{1}}, {"keepdims", false}}));
    return c(any);
  };
  KILN_TRY(is_above, is_any(above));
  KILN_TRY(is_below, is_any(below));
  double infinity = std::numeric_limits<double>::infinity();
  Num out = where(s.good, real, c.number(DType::f64, std::numeric_limits<double>::quiet_NaN()));
  out = where(is_above, infinity, where(is_below, -infinity, out));
  KILN_TRY(value, c.done(reshape(out, shape)));
  return cast(e, value, to, rule);
}

// -- numbers that a run brings

Num counted_columns(Calc &c, const Num &column, int64_t width) {
  Shape shape(size_t(column.rank()), Dim(1));
  shape.back() = width;
  return c.iota(DType::i64, shape, column.rank() - 1);
}

Num column_of(const Num &x) {
  Shape shape = x.shape();
  shape.push_back(1);
  return reshape(x, shape);
}

// The number of powers of ten from table[0] on that are at most x, along a new last dim of 1.
Num powers_below(Calc &c, const Num &column, Tensor table) {
  Num reached = convert(column >= c(c.emitter().constant(std::move(table))), DType::i64);
  return sum(reached, {column.rank() - 1}, true);
}

Result<Val> write_integers(Emitter &e, const Val &given) {
  Calc c(e);
  DType dtype = given.dtype();
  int64_t width = dtype_bits(dtype) <= 8 ? 4 : dtype_bits(dtype) <= 16 ? 6 : dtype_bits(dtype) <= 32 ? 11 : 20;
  Num x = column_of(convert(c(given), dtype == DType::u64 ? DType::u64 : DType::i64));
  Num negative = x < 0, size = convert(x, DType::u64);
  size = where(negative, 0 - size, size);
  Tensor powers = integer_powers(DType::u64, 20), from_ten(DType::u64, {19});
  for (int64_t i = 0; i < 19; ++i)
    from_ten.set_i64(i, powers.at_i64(i + 1));
  Num count = powers_below(c, size, std::move(from_ten)) + 1.0;
  Num at = counted_columns(c, x, width) - convert(negative, DType::i64);
  Num power = gather(c(e.constant(std::move(powers))), min(max(count - 1.0 - at, 0), 19), 0);
  Num digit = c.op(Op::remainder, {size / power, c.number(DType::u64, 10)});
  Num byte = where(at < 0, double('-'), where(at < count, convert(digit, DType::i64) + double('0'), 0));
  KILN_TRY(out, c.done(convert(byte, DType::u8)));
  return as_text(out);
}

// Digits of a float: `digits` is a number of kDigits digits of which the first `count` say it, `power` that of the first.
constexpr int kDigits = 9;
struct Decimal {
  Num digits, count, power; // i64, [..., 1]
};

Decimal decimal_of(Calc &c, const Num &size, DType dtype) {
  Emitter &e = c.emitter();
  constexpr int kLeast = -46;
  Num power = powers_below(c, size, f64_table(kLeast, 39)) + double(kLeast - 1);
  power = where(equal(size, 0), 0, power);
  Num table = c(e.constant(f64_table(0, 64)));
  int first = dtype == DType::f32 ? 6 : dtype == DType::f16 ? 3 : 2, last = dtype == DType::f32 ? 9 : dtype == DType::f16 ? 5 : 4;
  Num digits;
  for (int k = last; k >= first; --k) {
    Num shift = double(k - 1) - power;
    Num up = gather(table, max(shift, 0), 0), down = gather(table, max(0 - shift, 0), 0);
    Num rounded = c.op(Op::round, {size * up / down});
    Num all = convert(rounded, DType::i64) * std::pow(10.0, kDigits - k);
    Num same = c.op(Op::eq, {convert(convert(rounded / up * down, dtype), DType::f64), size});
    digits = k == last ? all : where(same, all, digits);
  }
  // 9.99.. may have become 10.
  Num carried = digits >= std::pow(10.0, kDigits);
  digits = where(carried, digits / 10.0, digits);
  power = power + convert(carried, DType::i64);
  Tensor powers(DType::i64, {kDigits - 1});
  for (int64_t i = 0, p = 10; i < kDigits - 1; ++i, p *= 10)
    powers.set_i64(i, p);
  Num rests = c.op(Op::remainder, {digits, c(e.constant(std::move(powers)))});
  Num zeros = sum(convert(equal(rests, 0), DType::i64), {rests.rank() - 1}, true);
  return {digits, max(double(kDigits) - zeros, 1), power};
}

Result<Val> write_floats(Emitter &e, const Val &given) {
  constexpr int64_t kWidth = 20; // "-1234567900000000.0"
  Calc c(e);
  DType dtype = given.dtype();
  Num x = column_of(convert(c(given), DType::f32)), wide = convert(x, DType::f64);
  Num negative = c.op(Op::bitcast, {x}, {{"dtype", DType::i32}}) < 0, is_nan = c.op(Op::is_nan, {wide});
  Num size = abs(wide), infinite = equal(size, std::numeric_limits<double>::infinity());
  size = where(infinite || is_nan, 0, size);
  Decimal d = decimal_of(c, size, dtype);
  Num powers = c(e.constant(integer_powers(DType::i64, kDigits)));
  auto digit = [&](const Num &i) { // the i-th significant one
    Num power = gather(powers, min(max(double(kDigits - 1) - i, 0), kDigits - 1), 0);
    Num value = c.op(Op::remainder, {d.digits / power, c.number(DType::i64, 10)});
    return where(i >= 0 && i < d.count, value, 0) + double('0');
  };
  Num at = counted_columns(c, x, kWidth) - convert(negative, DType::i64);
  // 0.00123, 12.3, 1230.0: digits from the one before the point, or the first, on.
  Num lead = max(d.power, 0), first = min(d.power, 0);
  Num length = max(d.count - first, lead + 2.0) + 1.0;
  Num plain = where(equal(at - lead, 1), double('.'), digit(first + at - convert(at > lead, DType::i64)));
  plain = where(at < length, plain, 0);
  // 1.23e-05
  Num mantissa = where(d.count > 1, d.count + 1.0, 1), behind = at - mantissa, exponent = abs(d.power);
  Num power_digit = where(equal(behind, 2), exponent / 10.0, c.op(Op::remainder, {exponent, c.number(DType::i64, 10)})) + double('0');
  Num tail = where(equal(behind, 0), double('e'), where(equal(behind, 1), where(d.power < 0, c.number(DType::i64, '-'), double('+')), power_digit));
  Num head = where(equal(at, 1), double('.'), digit(at - convert(at > 1, DType::i64)));
  Num scientific = where(at < mantissa, head, where(behind < 4, tail, 0));
  Num byte = where(d.power < -4 || d.power >= 16, scientific, plain);
  byte = where(at < 0, double('-'), byte);
  // Words.
  auto word = [&](const char *text) {
    Tensor t(DType::i64, {kWidth});
    for (int64_t i = 0; i < kWidth; ++i)
      t.set_i64(i, *text ? *text++ : 0);
    return c(e.constant(std::move(t)));
  };
  byte = where(infinite, where(negative, word("-INF"), word("INF")), byte);
  byte = where(is_nan, word("NaN"), byte);
  KILN_TRY(out, c.done(convert(byte, DType::u8)));
  return as_text(out);
}

} // namespace

Result<Val> text_to_number(Emitter &e, const Val &text, DType to, const CastRule &rule) {
  if (!text.constant || text.constant->count() > kMostWords)
    return read_numbers(e, text, to, rule);
  std::vector<std::string> strings = strings_of(*text.constant);
  std::vector<int64_t> dims(text.constant->dims().begin(), text.constant->dims().end() - 1);
  bool whole_numbers = is_integer(to) || (is_narrow(to) && !narrow_float(to)), is_u64 = to == DType::u64;
  Tensor out(whole_numbers ? (is_u64 ? DType::u64 : DType::i64) : DType::f64, dims);
  for (size_t i = 0; i < strings.size(); ++i) {
    Parsed p = parse(strings[i], is_u64);
    if (whole_numbers)
      out.set_i64(int64_t(i), p.integer);
    else
      out.set_f64(int64_t(i), is_bool(to) && std::isnan(p.real) ? 0 : p.real);
  }
  return cast(e, e.constant(std::move(out)), to, rule);
}

Result<Val> number_to_text(Emitter &e, const Val &x) {
  if (x.constant && x.constant->count() <= kMostWords) {
    std::vector<std::string> strings;
    for (int64_t i = 0; i < x.constant->count(); ++i)
      strings.push_back(number_text(*x.constant, i));
    return text_constant(e, strings, std::vector<int64_t>(x.constant->dims().begin(), x.constant->dims().end()));
  }
  DType dtype = x.dtype();
  if (dtype == DType::f64)
    return Error{"f64 becomes strings only where it is constant; cast it to f32 first"};
  if (is_narrow(dtype)) {
    KILN_TRY(wide, convert(e, x, narrow_float(dtype) ? DType::f32 : DType::i32));
    return number_to_text(e, wide);
  }
  return is_float(dtype) ? write_floats(e, x) : write_integers(e, x);
}

} // namespace kiln::onnx
