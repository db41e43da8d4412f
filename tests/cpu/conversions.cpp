// Conversions between element types on every target, against the language's rules and ir/dtype.h.
#include "tests/cpu/harness.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

namespace kiln::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

template <typename From, typename To>
void check_convert(DType from, DType to, std::vector<From> values, std::vector<To> expected) {
  INFO(dtype_name(from) << " to " << dtype_name(to));
  while (values.size() % 16 != 0) {
    values.push_back(values[0]);
    expected.push_back(expected[0]);
  }
  int64_t size = int64_t(values.size());
  Run run;
  run.args = {bytes_of(values), Bytes(expected.size() * sizeof(To))};
  for (int lanes : {1, 8, 16}) {
    Expr x = kb::load(name("a"), from, sym("i"), lanes);
    Program program = make_program(
        {make_kernel("convert", {in("a", from, size), out("o", to, size)}, {},
                     {kb::loop(name("i"), 0, size, LoopKind::serial,
                               {kb::store(name("o"), sym("i"), kb::convert(to, x))}, lanes)})});
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      std::vector<To> got = values_of<To>(done.args[1]);
      for (size_t k = 0; k < expected.size(); ++k) {
        INFO("element " << k << ", " << lanes << " lanes");
        if constexpr (std::is_floating_point_v<To>)
          if (std::isnan(expected[k])) {
            CHECK(std::isnan(got[k]));
            continue;
          }
        CHECK(got[k] == expected[k]);
      }
    });
  }
}

template <typename From, typename To>
To saturated(From v) {
  if (std::isnan(v))
    return 0;
  long double wide = std::trunc(static_cast<long double>(v));
  if (wide <= static_cast<long double>(std::numeric_limits<To>::min()))
    return std::numeric_limits<To>::min();
  if (wide >= static_cast<long double>(std::numeric_limits<To>::max()))
    return std::numeric_limits<To>::max();
  return To(wide);
}

template <typename From, typename To>
void check_saturating(DType from, DType to) {
  std::vector<From> values{0.0f,      -0.5f,         1.9f,          -1.9f,         127.5f,
                           128.0f,    -129.0f,       255.9f,        256.0f,        32768.0f,
                           -32769.0f, 65536.0f,      2147483520.0f, 2147483648.0f, -2147483648.0f,
                           -3e9f,     4294967040.0f, 4294967296.0f, 9.2233715e18f, 9.3e18f,
                           -9.3e18f,  1.9e19f,       kInf,          -kInf,         kNan};
  std::vector<To> expected;
  for (From v : values)
    expected.push_back(saturated<From, To>(v));
  check_convert<From, To>(from, to, values, expected);
}

TEST_CASE("floats to integers saturate and NaN becomes 0") {
  check_saturating<float, int8_t>(DType::f32, DType::i8);
  check_saturating<float, uint8_t>(DType::f32, DType::u8);
  check_saturating<float, int16_t>(DType::f32, DType::i16);
  check_saturating<float, int32_t>(DType::f32, DType::i32);
  check_saturating<float, uint32_t>(DType::f32, DType::u32);
  check_saturating<float, int64_t>(DType::f32, DType::i64);
  check_saturating<float, uint64_t>(DType::f32, DType::u64);
  check_saturating<double, int32_t>(DType::f64, DType::i32);
  check_saturating<double, int64_t>(DType::f64, DType::i64);
}

TEST_CASE("integers wrap, widen by their sign, and become floats") {
  check_convert<int32_t, int8_t>(DType::i32, DType::i8, {1, -1, 128, 300, -129, 0, 255, INT32_MIN},
                                 {1, -1, -128, 44, 127, 0, -1, 0});
  check_convert<int8_t, int64_t>(DType::i8, DType::i64, {1, -1, -128, 127}, {1, -1, -128, 127});
  check_convert<uint8_t, int32_t>(DType::u8, DType::i32, {1, 255, 128, 127}, {1, 255, 128, 127});
  check_convert<int32_t, float>(DType::i32, DType::f32, {1, -7, INT32_MAX, INT32_MIN},
                                {1, -7, 2147483648.0f, -2147483648.0f});
  check_convert<uint64_t, float>(DType::u64, DType::f32, {1, UINT64_MAX, 1ull << 63},
                                 {1, 18446744073709551616.0f, 9223372036854775808.0f});
  check_convert<int32_t, uint8_t>(DType::i32, DType::bool_, {0, 1, -5, 256}, {0, 1, 1, 1});
  check_convert<float, uint8_t>(DType::f32, DType::bool_, {0, -0.0f, 0.5f, kNan}, {0, 0, 1, 1});
  check_convert<uint8_t, float>(DType::bool_, DType::f32, {0, 1, 1, 0}, {0, 1, 1, 0});
}

// One instruction, where denormals may be taken as zero.
TEST_CASE("bf16 is rounded by vcvtneps2bf16") {
  for (bool keep : {false, true}) {
    Program program = make_program({make_kernel("convert", {in("a", DType::f32, 16), out("o", DType::bf16, 16)}, {},
                                                {kb::store(name("o"), 0, kb::convert(DType::bf16, kb::load(name("a"), DType::f32, 0, 16)))})});
    cpu::CpuOptions options;
    options.denormals_keep = keep;
    auto assembly = cpu::emit_assembly(program, program.kernels, *find_machine("x86-64-v4+avx512vnni+avx512bf16"), options);
    REQUIRE(assembly.ok());
    CHECK((assembly->find("vcvtneps2bf16") == std::string::npos) == keep);
  }
}

TEST_CASE("f16 and bf16 round as the reference does") {
  std::vector<float> values{
      0.0f,    -0.0f,      1.0f,           -2.5f,          65504.0f,   65519.0f, 65520.0f,
      1e6f,    6.1e-5f,    6.09e-5f,       5.96e-8f,       2.98e-8f,   2.99e-8f, 1e-10f,
      kInf,    -kInf,      1.00048828125f, 1.00146484375f, 0.1f,       -0.3333f, 2049.0f,
      2051.0f, 3.3895e38f, 3.4e38f,        1.00390625f,    1.01171875f};
  std::vector<uint16_t> halves, brains;
  for (float v : values) {
    halves.push_back(f32_to_f16(v));
    brains.push_back(f32_to_bf16(v));
  }
  check_convert<float, uint16_t>(DType::f32, DType::f16, values, halves);
  check_convert<float, uint16_t>(DType::f32, DType::bf16, values, brains);
  check_convert<float, uint16_t>(DType::f32, DType::bf16, {kNan, -kNan}, {0x7fc0, 0xffc0});
  std::vector<uint16_t> bits;
  for (uint32_t b = 0; b < 0x10000; b += 37)
    bits.push_back(uint16_t(b));
  for (uint16_t b : {0x0001, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0x7c01, 0x8001, 0xfc00, 0xfe00})
    bits.push_back(b);
  std::vector<float> from_half, from_brain;
  for (uint16_t b : bits) {
    from_half.push_back(f16_to_f32(b));
    from_brain.push_back(bf16_to_f32(b));
  }
  check_convert<uint16_t, float>(DType::f16, DType::f32, bits, from_half);
  check_convert<uint16_t, float>(DType::bf16, DType::f32, bits, from_brain);
  check_convert<int32_t, uint16_t>(DType::i32, DType::f16, {1, -2048, 70000},
                                   {0x3c00, 0xe800, 0x7c00});
  // NaNs stay NaNs, whatever their payload.
  check_convert<uint16_t, float>(DType::f16, DType::f32, {0x7e01, 0xffff}, {kNan, kNan});
}

} // namespace
} // namespace kiln::test
