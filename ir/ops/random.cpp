// random_bits: Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
// 1, 2, 3", 2011). Element i is word i % 4 of the block whose counter is (i / 4, key[1]), under
// key[0]; so every element can be computed on its own, on any machine, in any order.
#include "ir/ops/infer_util.h"
#include "ir/ops/ref_util.h"

#include <array>

namespace kiln {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;

Result<std::vector<TensorType>> infer(InferContext &c) {
  KILN_RETURN_IF_ERROR(
      check_dtype(c, 0, c.operands[0] == TensorType{DType::u64, {2}}, "a key, u64[2]"));
  const std::vector<Dim> &shape = c.attrs.get_dims("shape");
  KILN_RETURN_IF_ERROR(nonnegative_dims(c, shape, "'shape'"));
  return one_result(DType::u32, shape);
}

std::array<uint32_t, 4> philox(uint64_t block, uint64_t stream, uint64_t key) {
  std::array<uint32_t, 4> c{uint32_t(block), uint32_t(block >> 32), uint32_t(stream),
                            uint32_t(stream >> 32)};
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < kRounds; ++round, k0 += kWeyl0, k1 += kWeyl1) {
    uint64_t a = uint64_t(kMultiplier0) * c[0], b = uint64_t(kMultiplier1) * c[2];
    c = {uint32_t(b >> 32) ^ c[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ k1, uint32_t(a)};
  }
  return c;
}

Result<std::vector<Tensor>> ref(const RefContext &c) {
  Tensor out = make_tensor(c.results[0]);
  uint64_t key = uint64_t(c.operands[0]->at_i64(0)), stream = uint64_t(c.operands[0]->at_i64(1));
  auto *p = out.data<uint32_t>();
  for (int64_t i = 0; i < out.count(); i += 4) {
    auto words = philox(uint64_t(i) / 4, stream, key);
    for (int64_t j = i; j < std::min(i + 4, out.count()); ++j)
      p[j] = words[size_t(j - i)];
  }
  return std::vector{std::move(out)};
}

Expr xor3(Expr a, Expr b, Expr c) {
  return kb::binary(BinaryOp::bit_xor, kb::binary(BinaryOp::bit_xor, std::move(a), std::move(b)),
                    std::move(c));
}
Expr low(Expr wide) {
  return kb::convert(DType::u32, std::move(wide));
}
Expr high(Expr wide) {
  return low(kb::binary(BinaryOp::shr, std::move(wide), kb::integer(DType::u64, 32)));
}

Expr element(LowerContext &c, int, std::span<const Dim> index) {
  Dim linear = 0;
  for (size_t i = 0; i < index.size(); ++i)
    linear = linear * c.result_type().shape[i] + index[i];
  Expr block = c.bind(kb::convert(DType::u64, kb::index(floordiv(linear, 4))));
  auto word = [&](int64_t i) { return c.bind(c.operand(0, std::vector{Dim(i)})); };
  Expr key = word(0), stream = word(1);
  Expr x[4] = {low(block), high(block), low(stream), high(stream)};
  Expr k0 = c.bind(low(key)), k1 = c.bind(high(key));
  auto plus = [](const Expr &k, uint32_t weyl, int round) {
    return kb::add(k, kb::integer(DType::u32, int64_t(uint32_t(weyl * uint32_t(round)))));
  };
  auto product = [&](const Expr &a, uint32_t by) {
    return c.bind(kb::mul(kb::convert(DType::u64, a), kb::integer(DType::u64, by)));
  };
  for (int round = 0; round < kRounds; ++round) {
    Expr a = product(x[0], kMultiplier0), b = product(x[2], kMultiplier1);
    Expr next0 = c.bind(xor3(high(b), x[1], plus(k0, kWeyl0, round)));
    Expr next2 = c.bind(xor3(high(a), x[3], plus(k1, kWeyl1, round)));
    x[0] = next0, x[1] = low(b), x[2] = next2, x[3] = low(a);
  }
  Expr lane = kb::index(mod(linear, 4));
  auto is_lane = [&](int64_t i) { return kb::eq(lane, kb::integer(DType::i64, i)); };
  return kb::select(is_lane(0), x[0],
                    kb::select(is_lane(1), x[1], kb::select(is_lane(2), x[2], x[3])));
}

} // namespace

const OpDef op_random_bits{
    .name = "random_bits",
    .doc = "Uniform random words, a function of the key and of the element's position alone. (key: "
           "u64[2])",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"shape", AttrKind::dims}},
    .infer = infer,
    .ref = ref,
    .element = element,
    .traits = kNoFold | kExpensive,
    .samples = {{{{DType::u64, {2}}}, {{"shape", std::vector<Dim>{3, 7}}}, 0, 1e9},
                {{{DType::u64, {2}}}, {{"shape", std::vector<Dim>{}}}, 0, 1e9},
                {{{DType::u64, {2}}}, {{"shape", std::vector<Dim>{129}}}, 0, 1e9}},
};

} // namespace kiln
