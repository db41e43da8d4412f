// Dots (ir/kernel/dot.h) as instructions, where the machine has them for this many lanes: vpdpbusd,
// vdpbf16ps, sdot, usdot, or two products of i16 twice (pmaddwd), whose operands are the even and the
// odd bytes of each lane. Products one by one elsewhere.
#include "codegen/cpu/kernel_emitter.h"
#include "codegen/cpu/types.h"
#include "ir/kernel/dot.h"

#include <llvm/IR/IntrinsicsAArch64.h>
#include <llvm/IR/IntrinsicsX86.h>

namespace kiln::cpu {
namespace {

namespace ID = llvm::Intrinsic;

ID::ID vnni_dot(int lanes) {
  return lanes == 16  ? ID::x86_avx512_vpdpbusd_512
         : lanes == 8 ? ID::x86_avx512_vpdpbusd_256
                      : ID::x86_avx512_vpdpbusd_128;
}

ID::ID multiply_add(int lanes) {
  return lanes == 16  ? ID::x86_avx512_pmaddw_d_512
         : lanes == 8 ? ID::x86_avx2_pmadd_wd
                      : ID::x86_sse2_pmadd_wd;
}

// Whether there is an instruction for sums of so many lanes.
bool has_dot(const MachineDesc &machine, int width, int lanes) {
  bool whole = lanes == machine.lanes(DType::i32);
  bool narrow = is_x86(machine) && lanes >= 4 && lanes < machine.lanes(DType::i32) &&
                (lanes & (lanes - 1)) == 0;
  return width == 2 ? machine.has_bf16_dots && whole
                    : machine.byte_dots != ByteDots::none && (whole || narrow);
}

} // namespace

// Sums of a few products for each lane; `a` and `b` have a few elements for each, or one group for all.
llvm::Value *KernelEmitter::emit_dot(const Expr &e) {
  const int width = dot_width(e), lanes = e.lanes;
  llvm::Value *operands[] = {emit(e.args[0]), emit(e.args[1])}, *sum = emit(e.args[2]);
  if (!has_dot(machine_, width, lanes))
    return dot_one_by_one(e, operands[0], operands[1], sum);
  auto vector = [&](llvm::Type *element, int count) {
    return llvm::FixedVectorType::get(element, unsigned(count));
  };
  llvm::Type *groups = vector(b_.getInt32Ty(), lanes);
  for (int i : {0, 1}) { // a group is 32 bits
    bool shared = e.args[size_t(i)].lanes == width;
    operands[i] = b_.CreateBitCast(operands[i], shared ? b_.getInt32Ty() : groups);
    if (shared)
      operands[i] = b_.CreateVectorSplat(unsigned(lanes), operands[i]);
  }
  llvm::Value *a = operands[0], *b = operands[1];
  if (width == 2) {
    llvm::Type *halves = vector(b_.getBFloatTy(), 2 * lanes);
    return b_.CreateIntrinsic(ID::x86_avx512bf16_dpbf16ps_512, {},
                              {sum, b_.CreateBitCast(a, halves), b_.CreateBitCast(b, halves)});
  }
  llvm::Type *bytes = vector(b_.getInt8Ty(), 4 * lanes);
  switch (machine_.byte_dots) {
  case ByteDots::vnni:
    return b_.CreateIntrinsic(vnni_dot(lanes), {}, {sum, a, b});
  case ByteDots::mixed:
    return b_.CreateIntrinsic(ID::aarch64_neon_usdot, {groups, bytes},
                              {sum, b_.CreateBitCast(a, bytes), b_.CreateBitCast(b, bytes)});
  case ByteDots::signed_: { // a = (a - 128) + 128; the sums of b are the same in all rows of a tile
    a = b_.CreateBitCast(a, bytes);
    b = b_.CreateBitCast(b, bytes);
    auto dot = [&](llvm::Value *to, llvm::Value *x) {
      return b_.CreateIntrinsic(ID::aarch64_neon_sdot, {groups, bytes}, {to, x, b});
    };
    llvm::Constant *top = splat_int(bytes, 0x80); // -128 as an operand
    llvm::Value *of_b = dot(llvm::Constant::getNullValue(groups), top);
    return b_.CreateSub(dot(sum, b_.CreateXor(a, top)), of_b);
  }
  default:
    return dot_by_pairs(a, b, sum, lanes);
  }
}

// The products of even bytes and of odd ones, as i16. Products of a u8 and an i8 fit in 16 bits.
llvm::Value *KernelEmitter::dot_by_pairs(llvm::Value *a, llvm::Value *b, llvm::Value *sum, int lanes) {
  llvm::Type *words = llvm::FixedVectorType::get(b_.getInt16Ty(), unsigned(2 * lanes));
  a = b_.CreateBitCast(a, words);
  b = b_.CreateBitCast(b, words);
  llvm::Constant *eight = splat_int(words, 8);
  llvm::Value *pairs[][2] = {
      {b_.CreateAnd(a, splat_int(words, 0xff)), b_.CreateAShr(b_.CreateShl(b, eight), eight)},
      {b_.CreateLShr(a, eight), b_.CreateAShr(b, eight)}};
  llvm::Value *both[2];
  for (int i : {0, 1})
    both[i] = is_x86(machine_)
                  ? b_.CreateIntrinsic(multiply_add(lanes), {}, {pairs[i][0], pairs[i][1]})
                  : b_.CreateIntrinsic(ID::aarch64_neon_saddlp, {sum->getType(), words},
                                       {b_.CreateMul(pairs[i][0], pairs[i][1])});
  if (is_x86(machine_)) // one addition waits for the sum
    return b_.CreateAdd(sum, b_.CreateAdd(both[0], both[1]));
  return b_.CreateAdd(b_.CreateAdd(sum, both[0]), both[1]); // two, each with its widening
}

llvm::Value *KernelEmitter::dot_one_by_one(const Expr &e, llvm::Value *a, llvm::Value *b,
                                           llvm::Value *sum) {
  const int width = dot_width(e);
  llvm::Value *operands[] = {a, b};
  for (int k = 0; k < width; ++k) {
    int at = width == 2 ? 1 - k : k;
    llvm::Value *factors[2];
    for (int i : {0, 1}) {
      const Expr &arg = e.args[size_t(i)];
      if (e.lanes == 1) {
        factors[i] = b_.CreateExtractElement(operands[i], uint64_t(at));
      } else {
        int step = arg.lanes == width ? 0 : width;
        std::vector<int> map;
        for (int lane = 0; lane < e.lanes; ++lane)
          map.push_back(step * lane + at);
        factors[i] = b_.CreateShuffleVector(operands[i], map);
      }
      factors[i] = emit_convert(factors[i], arg.dtype, e.dtype, e.lanes);
    }
    sum = width == 2 ? emit_fma(factors[0], factors[1], sum)
                     : b_.CreateAdd(sum, b_.CreateMul(factors[0], factors[1]));
  }
  return sum;
}

} // namespace kiln::cpu
