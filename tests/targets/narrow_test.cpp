// Narrow dtypes: what their codes mean, and that compiled conversions agree with that for every code, every
// half and the numbers around every step, on every level of this machine and in C.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "ir/graph.h"
#include "ir/interpret.h"
#include "ir/narrow.h"
#include "tests/targets/targets.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr DType kNarrow[] = {DType::f8e4m3fn, DType::f8e4m3fnuz, DType::f8e5m2, DType::f8e5m2fnuz, DType::f8e8m0,
                             DType::f4e2m1,   DType::i4,         DType::u4,     DType::i2,         DType::u2};
constexpr DType kPlain[] = {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i64, DType::u64, DType::i32, DType::i8,
                            DType::u8,  DType::bool_};

// Values of every narrow float, the middles between them, and what lies next to those.
template <typename T>
std::vector<T> around_steps() {
  std::vector<T> out = {0, std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN(),
                        std::numeric_limits<T>::max(), std::numeric_limits<T>::min(), T(1e-30), T(448), T(464)};
  constexpr T kInf = std::numeric_limits<T>::infinity();
  for (DType d : kNarrow)
    for (int c = 0; c < 255; ++c) {
      double a = narrow_value(d, uint8_t(c)), b = narrow_value(d, uint8_t(c + 1));
      for (T v : {T(a), T((a + b) / 2)})
        for (T near : {v, std::nextafter(v, kInf), std::nextafter(v, -kInf)})
          if (std::isnan(near) || near == 0 || std::fabs(near) >= std::numeric_limits<T>::min())
            out.push_back(near);
    }
  for (size_t i = 0, n = out.size(); i < n; ++i)
    out.push_back(-out[i]);
  return out;
}

template <typename T>
Tensor tensor_of(DType dtype, const std::vector<T> &values) {
  Tensor out(dtype, {int64_t(values.size())});
  std::memcpy(out.mutable_bytes(), values.data(), values.size() * sizeof(T));
  return out;
}

Tensor source(DType dtype) {
  if (dtype == DType::f32)
    return tensor_of(dtype, around_steps<float>());
  if (dtype == DType::f64)
    return tensor_of(dtype, around_steps<double>());
  if (dtype_bytes(dtype) == 2) {
    std::vector<uint16_t> all;
    for (int i = 0; i < 65536; ++i)
      all.push_back(uint16_t(i));
    return tensor_of(dtype, all);
  }
  if (dtype == DType::bool_)
    return tensor_of(dtype, std::vector<uint8_t>{0, 1, 1});
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 256; ++i)
    bytes.push_back(uint8_t(i));
  if (dtype_bytes(dtype) == 1)
    return tensor_of(dtype, bytes);
  std::vector<int64_t> numbers;
  for (int64_t i = -300; i < 300; ++i)
    numbers.push_back(i);
  for (int shift = 4; shift < 64; ++shift)
    for (int64_t d : {-1, 0, 1})
      for (uint64_t sign : {0u, 1u})
        numbers.push_back(int64_t(((uint64_t(1) << shift) + uint64_t(d)) * (sign ? ~uint64_t(0) : 1)));
  Tensor out(dtype, {int64_t(numbers.size())});
  for (size_t i = 0; i < numbers.size(); ++i)
    out.set_i64(int64_t(i), numbers[i]);
  return out;
}

std::vector<DType> targets_of(DType from) {
  std::vector<DType> out;
  for (DType d : kNarrow)
    if (d != from)
      out.push_back(d);
  if (is_narrow(from))
    out.insert(out.end(), std::begin(kPlain), std::end(kPlain));
  return out;
}

std::vector<DType> sources() {
  std::vector<DType> out(std::begin(kPlain), std::end(kPlain));
  out.insert(out.end(), std::begin(kNarrow), std::end(kNarrow));
  return out;
}

// A function for each source, with a result for each target.
Module conversions() {
  Module module;
  module.name = "sample";
  for (DType from : sources()) {
    Function &f = module.functions.emplace_back();
    f.name = std::string(dtype_name(from));
    f.exported = true;
    ValueId x = f.add_argument(f.body, {from, {Dim(source(from).count())}}, "x");
    GraphBuilder b(module, f, f.body);
    for (DType to : targets_of(from)) {
      f.body.results.push_back(b(Op::convert, {x}, {{"dtype", to}}));
      f.result_names.push_back("to_" + std::string(dtype_name(to)));
    }
  }
  return module;
}

bool same_bits(const Tensor &a, const Tensor &b, int64_t i) {
  size_t n = size_t(dtype_bytes(a.dtype()));
  if (std::memcmp(a.bytes().data() + size_t(i) * n, b.bytes().data() + size_t(i) * n, n) == 0)
    return true;
  return holds_floats(a.dtype()) && std::isnan(a.at_f64(i)) && std::isnan(b.at_f64(i));
}

void check_target(Target &target) {
  Module module = conversions(), reference = module;
  auto loaded = target.load(std::move(module));
  INFO(target.name() << (loaded ? "" : loaded.error().message));
  REQUIRE(loaded.ok());
  std::vector<DType> from = sources();
  for (size_t i = 0; i < from.size(); ++i) {
    std::vector<Tensor> inputs = {source(from[i])};
    VariableValues none;
    auto want = interpret(reference, reference.functions[i], inputs, none);
    auto got = (*loaded)->run(i, inputs);
    REQUIRE(want.ok());
    REQUIRE(got.ok());
    for (size_t r = 0; r < want->size(); ++r)
      for (int64_t k = 0; k < inputs[0].count(); ++k)
        if (!same_bits((*got)[r], (*want)[r], k)) {
          INFO(dtype_name(from[i]) << " " << inputs[0].at_f64(k) << " (element " << k << ") to "
                                   << (*want)[r].type().text() << ": " << (*got)[r].at_f64(k) << ", not "
                                   << (*want)[r].at_f64(k));
          FAIL_CHECK();
          break;
        }
  }
}

} // namespace

TEST_CASE("codes mean what their formats say") {
  CHECK(narrow_value(DType::f8e4m3fn, 0x7e) == 448);
  CHECK(narrow_value(DType::f8e4m3fn, 0x01) == 0x1p-9);
  CHECK(narrow_value(DType::f8e4m3fn, 0xb8) == -1);
  CHECK(std::isnan(narrow_value(DType::f8e4m3fn, 0xff)));
  CHECK(narrow_value(DType::f8e4m3fnuz, 0x7f) == 240);
  CHECK(narrow_value(DType::f8e4m3fnuz, 0x40) == 1);
  CHECK(std::isnan(narrow_value(DType::f8e4m3fnuz, 0x80)));
  CHECK(narrow_value(DType::f8e5m2, 0x7b) == 57344);
  CHECK(narrow_value(DType::f8e5m2, 0xfc) == -std::numeric_limits<double>::infinity());
  CHECK(std::isnan(narrow_value(DType::f8e5m2, 0x7d)));
  CHECK(narrow_value(DType::f8e5m2fnuz, 0x7f) == 57344);
  CHECK(narrow_value(DType::f8e5m2fnuz, 0x01) == 0x1p-17);
  CHECK(narrow_value(DType::f8e8m0, 0) == 0x1p-127);
  CHECK(narrow_value(DType::f8e8m0, 0xfe) == 0x1p127);
  double f4[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (int c = 0; c < 16; ++c)
    CHECK(narrow_value(DType::f4e2m1, uint8_t(c)) == (c < 8 ? f4[c] : -f4[c - 8]));
  CHECK(narrow_value(DType::i4, 0x0f) == -1);
  CHECK(narrow_value(DType::i4, 0xf8) == -8);
  CHECK(narrow_value(DType::u4, 0xff) == 15);
  CHECK(narrow_value(DType::i2, 2) == -2);
}

TEST_CASE("numbers become codes by the rules") {
  constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
  CHECK(to_narrow(DType::f8e4m3fn, 464.0) == 0x7e);
  CHECK(to_narrow(DType::f8e4m3fn, -kInf) == 0xfe);
  CHECK(to_narrow(DType::f8e4m3fn, -0.0) == 0x80);
  CHECK(to_narrow(DType::f8e4m3fn, 0x1p-10) == 0x00); // the middle between 0 and the least: even
  CHECK(to_narrow(DType::f8e4m3fn, 0x1.8p-9) == 0x02);
  CHECK(to_narrow(DType::f8e4m3fnuz, -0.0) == 0x00);
  CHECK(to_narrow(DType::f8e4m3fnuz, -1e-9) == 0x00);
  CHECK(to_narrow(DType::f8e4m3fnuz, kNan) == 0x80);
  CHECK(to_narrow(DType::f8e5m2, kInf) == 0x7b);
  CHECK(to_narrow(DType::f8e5m2, kNan) == 0x7e);
  CHECK(to_narrow(DType::f8e8m0, 0.0) == 0);
  CHECK(to_narrow(DType::f8e8m0, 1.0) == 127);
  CHECK(to_narrow(DType::f8e8m0, 1.0000001) == 128);
  CHECK(to_narrow(DType::f8e8m0, kInf) == 0xfe);
  CHECK(to_narrow(DType::f8e8m0, (int64_t(1) << 62) + 1) == 127 + 63);
  CHECK(to_narrow(DType::f4e2m1, 2.5) == 4);
  CHECK(to_narrow(DType::f4e2m1, -100.0) == 15);
  CHECK(to_narrow(DType::f4e2m1, kNan) == 0);
  CHECK(to_narrow(DType::i4, 100.0) == 7);
  CHECK(to_narrow(DType::i4, -1.9) == 0xff);
  CHECK(to_narrow(DType::i4, int64_t(9)) == 0xf9); // integers wrap
  CHECK(to_narrow(DType::u2, int64_t(-1)) == 3);
}

TEST_CASE("what is packed") {
  std::byte bytes[] = {std::byte(0x21), std::byte(0xf3)};
  Tensor four = unpack_narrow(DType::i4, {3}, bytes);
  CHECK((four.at_i64(0) == 1 && four.at_i64(1) == 2 && four.at_i64(2) == 3));
  Tensor two = unpack_narrow(DType::u2, {5}, bytes);
  CHECK((two.at_i64(0) == 1 && two.at_i64(1) == 0 && two.at_i64(2) == 2 && two.at_i64(3) == 0 && two.at_i64(4) == 3));
  Tensor given(DType::i8, {2});
  given.set_i64(1, 8);
  CHECK(from_codes(given, DType::i4).error().message == "element 1 is 8, which is no i4");
}

TEST_CASE("what is moved keeps its code") {
  Tensor x(DType::f8e5m2, {4}), condition(DType::bool_, {4});
  uint8_t codes[] = {0x7c, 0xfe, 0x7d, 0x80}; // infinity, NaNs, -0
  std::memcpy(x.mutable_bytes(), codes, 4);
  Module module;
  auto moved = evaluate(module, Op::where, std::vector<const Tensor *>{&condition, &x, &x}, {});
  REQUIRE(moved.ok());
  CHECK(std::memcmp((*moved)[0].bytes().data(), codes, 4) == 0);
}

TEST_CASE("native code converts as the references do") {
  for (auto &target : native_targets())
    check_target(*target);
}

TEST_CASE("C converts as the references do") { check_target(*c_target()); }
