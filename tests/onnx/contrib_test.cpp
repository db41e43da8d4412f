// The domain com.microsoft: fused and quantised operators, weights of a few bits.
#include "tests/onnx/harness.h"

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

Tensor bytes(DType dtype, std::vector<int64_t> dims, const std::vector<int64_t> &list) {
  Tensor out(dtype, std::move(dims));
  for (size_t i = 0; i < list.size(); ++i)
    out.set_i64(int64_t(i), list[i]);
  return out;
}

// The first input is the model's, the others are weights.
struct MadeNode {
  GraphMaker g;
  MadeNode(const std::string &type, const Tensor &x, const std::vector<Tensor> &weights, const std::vector<std::string> &attributes) {
    g.input("x", x.dtype(), {x.dims().begin(), x.dims().end()});
    Names names = {"x"};
    for (size_t i = 0; i < weights.size(); ++i)
      g.weight(names.emplace_back("w" + std::to_string(i)), weights[i]);
    g.node(type, names, {"y"}, attributes, "", "com.microsoft").output("y");
  }
};

std::vector<double> result(const std::string &type, const Tensor &x, const std::vector<Tensor> &weights,
                           const std::vector<std::string> &attributes) {
  Imported m(MadeNode(type, x, weights, attributes).g.model());
  return values(m.run({x})[0]);
}

} // namespace

TEST_CASE("weights of four bits") {
  // One row of three weights in blocks of two: (1 - 8) * 0.5, (15 - 8) * 0.5, (9 - 8) * 2.
  Tensor x = floats({1, 3}, {1, 2, 3}), packed = bytes(DType::u8, {1, 2, 1}, {0xf1, 0x09}), scales = floats({2}, {0.5, 2});
  std::vector<std::string> attributes = {attr_i("K", 3), attr_i("N", 1), attr_i("bits", 4), attr_i("block_size", 2)};
  CHECK(result("MatMulNBits", x, {packed, scales}, attributes) == std::vector<double>{-3.5 + 7 + 6});
  // Zero points 1 and 9, four bits each.
  Tensor zeros = bytes(DType::u8, {1}, {0x91});
  CHECK(result("MatMulNBits", x, {packed, scales, zeros}, attributes) == std::vector<double>{14});
  attributes[1] = attr_i("N", 2);
  Imported wrong(MadeNode("MatMulNBits", x, {packed, scales}, attributes).g.model());
  CHECK_THAT(wrong.errors(), Contains("2 packed bytes and 2 scales are not those of 2 rows of 2 blocks"));
}

TEST_CASE("quantised operands") {
  Tensor x = bytes(DType::u8, {2}, {10, 20}), scale = floats({}, {0.5}), zero = bytes(DType::u8, {}, {10});
  std::vector<Tensor> weights = {scale, zero, bytes(DType::u8, {2}, {12, 14}), scale, zero, floats({}, {0.25}), bytes(DType::u8, {}, {0})};
  CHECK(result("QLinearAdd", x, weights, {}) == std::vector<double>{4, 28}); // 0 + 1 and 5 + 2 in quarters
  CHECK(result("QLinearMul", x, weights, {}) == std::vector<double>{0, 40});
}

TEST_CASE("fused operators") {
  check_near(Imported(MadeNode("FusedMatMul", floats({1, 2}, {1, 2}), {floats({1, 2}, {3, 4})}, {attr_i("transB", 1), attr_f("alpha", 2)}).g.model())
                 .run({floats({1, 2}, {1, 2})})[0],
             {22});
  CHECK(result("FusedConv", floats({1, 1, 1, 2}, {1, -1}), {floats({1, 1, 1, 1}, {2})}, {attr_s("activation", "Relu")}) ==
        std::vector<double>{2, 0});
  auto normal = result("SkipLayerNormalization", floats({1, 1, 2}, {1, 2}), {floats({1, 1, 2}, {0, 1}), floats({2}, {3, 3}), floats({2}, {1, 1})}, {});
  CHECK(normal[0] == Approx(-2).margin(1e-4));
  CHECK(normal[1] == Approx(4).margin(1e-4));
  Imported unknown(MadeNode("FusedConv", floats({1, 1, 1, 2}, {1, -1}), {floats({1, 1, 1, 1}, {2})}, {attr_s("activation", "Swirl")}).g.model());
  CHECK_THAT(unknown.errors(), Contains("its activation 'Swirl' is not supported"));
}

TEST_CASE("attention of one product") {
  // One head of size 1; the weights make q = k = 0 and v = x: the mean of the keys that are seen.
  Tensor x = floats({1, 2, 1}, {4, 8});
  Tensor weights = floats({1, 3}, {0, 0, 1}), bias = floats({3}, {0, 0, 0});
  CHECK(result("Attention", x, {weights, bias}, {attr_i("num_heads", 1)}) == std::vector<double>{6, 6});
  CHECK(result("Attention", x, {weights, bias}, {attr_i("num_heads", 1), attr_i("unidirectional", 1)}) == std::vector<double>{4, 6});
  CHECK(result("Attention", x, {weights, bias, bytes(DType::i32, {1}, {1})}, {attr_i("num_heads", 1)}) == std::vector<double>{4, 4});
}
