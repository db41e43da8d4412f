// Upper and lower case of UTF-8 text, byte by byte: a letter of the alphabets below and its other case have as many
// bytes (one in ASCII; two in Latin, Greek, Cyrillic and Armenian letters up to U+07FF), so that strings keep their
// lengths. Other characters stay as they are, as do the few whose other case is longer (as that of ß).
#include "frontend/onnx/text.h"

#include <vector>

namespace kiln::onnx {
namespace {

constexpr int kFirst = 0x80, kLast = 0x7ff; // characters of two bytes

// Pairs of an upper and a lower case letter.
template <typename F>
void each_pair(F pair) {
  auto block = [&](int upper, int last, int lower) {
    for (int c = upper; c <= last; ++c)
      pair(c, c - upper + lower);
  };
  auto neighbours = [&](int first, int last) {
    for (int c = first; c < last; c += 2)
      pair(c, c + 1);
  };
  block(0xc0, 0xd6, 0xe0), block(0xd8, 0xde, 0xf8), pair(0x178, 0xff);                              // Latin-1
  neighbours(0x100, 0x12f), neighbours(0x132, 0x137), neighbours(0x139, 0x148), neighbours(0x14a, 0x177), neighbours(0x179, 0x17e);
  neighbours(0x1cd, 0x1dc), neighbours(0x1de, 0x1ef), neighbours(0x1f8, 0x21f), neighbours(0x222, 0x233), neighbours(0x246, 0x24f);
  block(0x391, 0x3a1, 0x3b1), block(0x3a3, 0x3ab, 0x3c3), pair(0x386, 0x3ac), block(0x388, 0x38a, 0x3ad); // Greek
  pair(0x38c, 0x3cc), block(0x38e, 0x38f, 0x3cd), neighbours(0x3d8, 0x3ef);
  block(0x410, 0x42f, 0x430), block(0x400, 0x40f, 0x450), neighbours(0x460, 0x481), neighbours(0x48a, 0x4bf); // Cyrillic
  neighbours(0x4c1, 0x4ce), neighbours(0x4d0, 0x52f);
  block(0x531, 0x556, 0x561); // Armenian
}

Result<Val> look_up(Emitter &e, const std::vector<int> &table, const Val &at) {
  Tensor list(DType::i32, {int64_t(table.size())});
  for (size_t i = 0; i < table.size(); ++i)
    list.set_i64(int64_t(i), table[i]);
  return e.emit(Op::gather, {e.constant(std::move(list)), at}, {{"axis", attr_int(0)}});
}

} // namespace

Result<Val> change_case(Emitter &e, const Val &text, bool upper) {
  std::vector<int> ascii(256), two(size_t(kLast - kFirst + 1));
  for (int c = 0; c < 256; ++c)
    ascii[size_t(c)] = upper && c >= 'a' && c <= 'z' ? c - 32 : !upper && c >= 'A' && c <= 'Z' ? c + 32 : c;
  for (int c = kFirst; c <= kLast; ++c)
    two[size_t(c - kFirst)] = c;
  each_pair([&](int high, int low) { two[size_t((upper ? low : high) - kFirst)] = upper ? high : low; });
  if (upper)
    two[0x3c2 - kFirst] = 0x3a3; // the sigma at the end of words
  auto number = [&](int64_t v) { return e.constant(Tensor::scalar_i64(DType::i32, v)); };

  int last = text.rank() - 1;
  const Dim &width = text_width(text);
  KILN_TRY(wide, convert(e, text, DType::i32));
  auto shifted = [&](int by) -> Result<Val> { // byte i + by of the string, 0 outside
    std::vector<Dim> lo(size_t(text.rank()), 0), hi = lo;
    (by < 0 ? lo : hi).back() = 1;
    KILN_TRY(padded, e.emit(Op::pad, {wide}, {{"lo", lo}, {"hi", hi}}));
    return slice_axis(e, padded, last, by < 0 ? 0 : 1, width);
  };
  KILN_TRY(before, shifted(-1));
  KILN_TRY(after, shifted(1));
  // The character of two bytes that begins at the first, as a place in the table; no such one is clamped, and not used.
  auto place = [&](const Val &first, const Val &second) -> Result<Val> {
    KILN_TRY(high, e.emit(Op::sub, {first, number(0xc2)}));
    KILN_TRY(scaled, e.emit(Op::mul, {high, number(64)}));
    KILN_TRY(low, e.emit(Op::sub, {second, number(0x80)}));
    KILN_TRY(at, e.emit(Op::add, {scaled, low}));
    KILN_TRY(least, e.emit(Op::maximum, {at, number(0)}));
    return e.emit(Op::minimum, {least, number(kLast - kFirst)});
  };
  auto is_lead = [&](const Val &byte) -> Result<Val> {
    KILN_TRY(from, e.emit(Op::ge, {byte, number(0xc2)}));
    KILN_TRY(to, e.emit(Op::le, {byte, number(0xdf)}));
    return e.emit(Op::logical_and, {from, to});
  };
  KILN_TRY(leads, is_lead(wide));
  KILN_TRY(follows, is_lead(before));
  KILN_TRY(here, place(wide, after));
  KILN_TRY(there, place(before, wide));
  std::vector<int> first(two.size()), second(two.size());
  for (size_t i = 0; i < two.size(); ++i) {
    first[i] = 0xc0 | two[i] >> 6;
    second[i] = 0x80 | (two[i] & 0x3f);
  }
  KILN_TRY(lead, look_up(e, first, here));
  KILN_TRY(tail, look_up(e, second, there));
  KILN_TRY(plain, look_up(e, ascii, wide));
  KILN_TRY(rest, e.emit(Op::where, {follows, tail, plain}));
  KILN_TRY(all, e.emit(Op::where, {leads, lead, rest}));
  KILN_TRY(out, convert(e, all, text.dtype()));
  return as_text(out);
}

} // namespace kiln::onnx
