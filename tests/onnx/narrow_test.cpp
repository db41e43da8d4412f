// Element types of 8, 4 and 2 bits: packed tensors, casts by ONNX's rules, quantisation.
#include "ir/narrow.h"
#include "tests/onnx/harness.h"

#include <cmath>
#include <limits>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::numeric_limits<double>::quiet_NaN();

// ONNX's numbers of the types.
enum { kE4m3 = 17, kE4m3uz = 18, kE5m2 = 19, kE5m2uz = 20, kU4 = 21, kI4 = 22, kF4 = 23, kE8m0 = 24, kU2 = 25, kI2 = 26 };

std::vector<double> cast(const std::vector<double> &x, int to, const std::vector<std::string> &more = {},
                         DType from = DType::f32) {
  GraphMaker g;
  std::vector<std::string> attributes = {attr_i("to", to)};
  attributes.insert(attributes.end(), more.begin(), more.end());
  int64_t n = int64_t(x.size());
  g.input("x", from, {n}).node("Cast", {"x"}, {"y"}, attributes).output("y");
  Imported m(g.model(25));
  Tensor in(from, {n});
  for (int64_t i = 0; i < n; ++i)
    in.set_f64(i, x[size_t(i)]);
  return values(m.run({in})[0]);
}

// A packed weight, dequantised with a scale of 1.
std::vector<double> unpacked(const std::string &proto) {
  GraphMaker g;
  g.input("s", DType::f32, {}).raw_weight(proto).node("DequantizeLinear", {"w", "s"}, {"y"}).output("y");
  Imported m(g.model(25));
  return values(m.run({floats({}, {1})})[0]);
}

std::string in_int32s(int type, const std::vector<int64_t> &dims, const std::vector<int32_t> &numbers) {
  std::string out;
  pbf_writer w(out);
  for (int64_t d : dims)
    w.add_int64(1, d);
  w.add_int32(2, type);
  w.add_packed_int32(5, numbers.begin(), numbers.end());
  w.add_string(8, "w");
  return out;
}

} // namespace

TEST_CASE("packed tensors") {
  auto raw = [](int type, const std::vector<int64_t> &dims, const std::string &bytes) {
    return unpacked(tensor_proto("w", type, dims, bytes));
  };
  CHECK(raw(kI4, {3}, "\x87\x01") == std::vector<double>{7, -8, 1});
  CHECK(raw(kU4, {2}, "\x87") == std::vector<double>{7, 8});
  CHECK(raw(kI2, {5}, "\xe4\x03") == std::vector<double>{0, 1, -2, -1, -1});
  CHECK(raw(kU2, {4}, "\xe4") == std::vector<double>{0, 1, 2, 3});
  CHECK(raw(kF4, {2}, "\xf1") == std::vector<double>{0.5, -6});
  CHECK(raw(kE4m3, {2}, "\x7e\xb8") == std::vector<double>{448, -1});
  CHECK(unpacked(in_int32s(kI4, {3}, {0x87, 0x01})) == std::vector<double>{7, -8, 1});
  CHECK(unpacked(in_int32s(kE5m2, {2}, {0x7b, 0x01})) == std::vector<double>{57344, 0x1p-16});

  GraphMaker g;
  g.input("s", DType::f32, {}).raw_weight(tensor_proto("w", kI4, {3}, "\x87\x01\x02"));
  Imported wrong(g.node("DequantizeLinear", {"w", "s"}, {"y"}).output("y").model(25));
  CHECK_THAT(wrong.errors(), Contains("it holds 3 bytes, but its shape [3] needs 2"));
}

TEST_CASE("casts that saturate, and those that do not") {
  std::vector<double> x = {1.0625, 464, 465, -1e6, -kInf};
  CHECK(cast(x, kE4m3) == std::vector<double>{1, 448, 448, -448, -448});
  CHECK(cast({248, 60000, -70000}, kE4m3uz) == std::vector<double>{240, 240, -240});
  auto open = cast(x, kE4m3, {attr_i("saturate", 0)});
  CHECK((open[0] == 1 && open[1] == 448 && std::isnan(open[2]) && std::isnan(open[3]) && std::isnan(open[4])));
  CHECK(cast({61439, 61440, -kInf}, kE5m2, {attr_i("saturate", 0)}) == std::vector<double>{57344, kInf, -kInf});
  auto uz = cast({247, 248, -0.0, kNan}, kE4m3uz, {attr_i("saturate", 0)});
  CHECK((uz[0] == 240 && std::isnan(uz[1]) && uz[2] == 0 && !std::signbit(uz[2]) && std::isnan(uz[3])));
  // Rounded once: f32 in between would make 1.0625 + a little a tie.
  CHECK(cast({1.0625 + 0x1p-40}, kE4m3, {}, DType::f64) == std::vector<double>{1.125});
}

TEST_CASE("powers of two, by each way to round") {
  std::vector<double> x = {1, 1.25, 1.5, 1.75, 0, 3e38};
  auto rounded = [&](const std::string &mode) { return cast(x, kE8m0, {attr_s("round_mode", mode)}); };
  CHECK(rounded("up") == std::vector<double>{1, 2, 2, 2, 0x1p-127, 0x1p127});
  CHECK(rounded("down") == std::vector<double>{1, 1, 1, 1, 0x1p-127, 0x1p127});
  CHECK(rounded("nearest") == std::vector<double>{1, 1, 2, 2, 0x1p-127, 0x1p127});
  auto open = cast({0, 3e38, kInf, 4}, kE8m0, {attr_s("round_mode", "nearest"), attr_i("saturate", 0)});
  CHECK((std::isnan(open[0]) && std::isnan(open[1]) && std::isnan(open[2]) && open[3] == 4));
  // Below what f32 has as normal numbers.
  CHECK(cast({0x1.2p-127, 0x1.8p-127, 0x1.4p-126}, kE8m0, {attr_s("round_mode", "nearest")}, DType::f64) ==
        std::vector<double>{0x1p-127, 0x1p-126, 0x1p-126});
  GraphMaker g;
  g.input("x", DType::f32, {1}).node("Cast", {"x"}, {"y"}, {attr_i("to", kE8m0), attr_s("round_mode", "odd")}).output("y");
  CHECK_THAT(Imported(g.model(25)).errors(), Contains("'round_mode' is 'odd'; it can be up, down or nearest"));
}

TEST_CASE("floats that do not fit a small integer wrap") {
  CHECK(cast({-9, 8.5, -1.9, 3}, kI4) == std::vector<double>{7, -8, -1, 3});
  CHECK(cast({-1, 5, 2}, kU2) == std::vector<double>{3, 1, 2});
}

TEST_CASE("quantising to narrow types") {
  auto quantized = [](int type, const std::string &zero, const std::vector<double> &x, const std::vector<std::string> &more = {}) {
    GraphMaker g;
    g.input("x", DType::f32, {int64_t(x.size())}).weight("s", floats({}, {2})).raw_weight(tensor_proto("z", type, {}, zero));
    Imported m(g.node("QuantizeLinear", {"x", "s", "z"}, {"y"}, more).output("y").model(25));
    return values(m.run({floats({int64_t(x.size())}, x)})[0]);
  };
  CHECK(quantized(kI4, "\x01", {5, 1, -100, 100}) == std::vector<double>{3, 1, -8, 7}); // 2.5 and 0.5: even
  CHECK(quantized(kE4m3, std::string(1, '\0'), {5, 1e6}) == std::vector<double>{2.5, 448});
  CHECK(std::isnan(quantized(kE4m3, std::string(1, '\0'), {5, 1e6}, {attr_i("saturate", 0)})[1]));
  CHECK(quantized(kF4, std::string(1, '\0'), {5, 7, 100}) == std::vector<double>{2, 4, 6});
}

TEST_CASE("a scale for each block") {
  auto model = [](int64_t columns, int64_t block, std::vector<int64_t> scales) {
    GraphMaker g;
    g.input("x", DType::u8, {2, columns});
    std::vector<double> list;
    for (int64_t i = 0; i < scales[0] * scales[1]; ++i)
      list.push_back(double(i + 1));
    g.weight("s", floats(std::move(scales), list));
    return g.node("DequantizeLinear", {"x", "s"}, {"y"}, {attr_i("axis", 1), attr_i("block_size", block)}).output("y").model(21);
  };
  auto ones = [](int64_t columns) {
    Tensor x(DType::u8, {2, columns});
    for (int64_t i = 0; i < x.count(); ++i)
      x.set_i64(i, 1);
    return x;
  };
  CHECK(values(Imported(model(4, 2, {2, 2})).run({ones(4)})[0]) == std::vector<double>{1, 1, 2, 2, 3, 3, 4, 4});
  CHECK(values(Imported(model(3, 2, {2, 2})).run({ones(3)})[0]) == std::vector<double>{1, 1, 2, 3, 3, 4});
  CHECK_THAT(Imported(model(4, 2, {2, 3})).errors(), Contains("scales of f32[2, 3] do not fit u8[2, 4] in blocks of 2 along axis 1"));
  CHECK_THAT(Imported(model(4, -2, {2, 2})).errors(), Contains("block_size -2"));
}

TEST_CASE("bits as another type") {
  GraphMaker g;
  g.input("x", DType::f32, {2}).node("BitCast", {"x"}, {"y"}, {attr_i("to", 6)}).output("y");
  CHECK(values(Imported(g.model(26)).run({floats({2}, {1, -2})})[0]) == std::vector<double>{0x3f800000, -1073741824});
  GraphMaker wrong;
  wrong.input("x", DType::f32, {2}).node("BitCast", {"x"}, {"y"}, {attr_i("to", 7)}).output("y");
  CHECK_THAT(Imported(wrong.model(26)).errors(), Contains("bitcast keeps the width"));
}

TEST_CASE("arithmetic on narrow types is refused") {
  GraphMaker g;
  g.input("x", DType::f32, {2}).node("Cast", {"x"}, {"c"}, {attr_i("to", kE5m2)}).node("Add", {"c", "c"}, {"y"}).output("y");
  CHECK_THAT(Imported(g.model(25)).errors(), Contains("operand 0 is f8e5m2[2]; it must be of a float or integer dtype; convert it first"));
}

TEST_CASE("infinities and NaNs of eight bits are found") {
  GraphMaker g;
  g.input("x", DType::f32, {4}).node("Cast", {"x"}, {"c"}, {attr_i("to", kE5m2), attr_i("saturate", 0)});
  g.node("IsNaN", {"c"}, {"nan"}).node("IsInf", {"c"}, {"inf"}).output("nan").output("inf");
  auto out = Imported(g.model(25)).run({floats({4}, {1, std::nanf(""), 1e9f, -1e9f})});
  check_near(out[0], {0, 1, 0, 0});
  check_near(out[1], {0, 0, 1, 1});
}
