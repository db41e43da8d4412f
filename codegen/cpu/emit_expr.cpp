// Expressions: what is neither arithmetic, conversion nor memory.
#include "codegen/cpu/kernel_emitter.h"
#include "codegen/cpu/types.h"
#include "ir/kernel/dot.h"

#include <llvm/IR/IntrinsicsX86.h>

#include <numeric>

namespace kiln::cpu {

llvm::Value *KernelEmitter::emit(const Expr &e) {
  using Kind = Expr::Kind;
  llvm::Type *type = value_type(context_, e.dtype, e.lanes);
  switch (e.kind) {
  case Kind::none:
    break;
  case Kind::number:
    return emit_number(e);
  case Kind::index:
    return emit_dim(e.index);
  case Kind::var: {
    const Binding *binding = find(e.name);
    if (!binding || binding->is_buffer || binding->value->getType() != type)
      return fail("no value " + std::string(e.name.text()) + " of this type", type);
    return binding->value;
  }
  case Kind::load:
    return emit_load(e);
  case Kind::gather:
    return emit_gather(e);
  case Kind::unary:
    return emit_unary(e, emit(e.args[0]));
  case Kind::binary: {
    llvm::Value *a = emit(e.args[0]);
    llvm::Value *b = emit(e.args[1]);
    if (a->getType() != b->getType())
      return fail("operands of different types", type);
    return emit_binary(e.binary, e.args[0].dtype, a, b);
  }
  case Kind::select:
    return emit_select(e);
  case Kind::convert:
    if (e.dtype == DType::u8 && e.args[0].dtype == DType::f32) {
      const Expr &arg = e.args[0];
      bool rounds = arg.is(Kind::unary) && arg.unary == UnaryOp::round;
      if (llvm::Value *codes = float_to_code(emit(rounds ? arg.args[0] : arg), rounds, e.lanes))
        return codes;
    }
    return emit_convert(emit(e.args[0]), e.args[0].dtype, e.dtype, e.lanes);
  case Kind::bitcast: {
    llvm::Value *a = emit(e.args[0]);
    if (dtype_bits(e.dtype) != dtype_bits(e.args[0].dtype) || is_bool(e.dtype) ||
        is_bool(e.args[0].dtype))
      return fail("bitcast between types of different width", type);
    return b_.CreateBitCast(a, type);
  }
  case Kind::broadcast: {
    llvm::Value *a = emit(e.args[0]);
    if (a->getType() == type)
      return a;
    return a->getType()->isVectorTy() ? fail("broadcast of a vector", type)
                                      : b_.CreateVectorSplat(unsigned(e.lanes), a);
  }
  case Kind::fma: {
    if (dot_width(e) > 0)
      return emit_dot(e);
    llvm::Value *a = emit(e.args[0]);
    llvm::Value *b = emit(e.args[1]);
    return emit_fma(a, b, emit(e.args[2]));
  }
  case Kind::reduce:
    return emit_reduce(e);
  case Kind::iota:
  case Kind::extract:
  case Kind::concat:
  case Kind::shuffle:
    return emit_lanes(e);
  }
  return fail("an expression of no kind", type);
}

llvm::Value *KernelEmitter::emit_number(const Expr &e) {
  llvm::Type *type = value_type(context_, e.dtype, e.lanes);
  switch (e.dtype) {
  case DType::f64:
  case DType::f32:
    return splat_float(type, e.number);
  case DType::f16:
    return splat_int(type, f32_to_f16(float(e.number)));
  case DType::bf16:
    return splat_int(type, f32_to_bf16(float(e.number)));
  case DType::bool_:
    return splat_int(type, e.integer != 0);
  default:
    return splat_int(type, uint64_t(e.integer));
  }
}

llvm::Value *KernelEmitter::emit_select(const Expr &e) {
  llvm::Value *condition = emit(e.args[0]);
  llvm::Value *a = emit(e.args[1]);
  llvm::Value *b = emit(e.args[2]);
  bool lanes_fit = !condition->getType()->isVectorTy() || e.args[0].lanes == e.lanes;
  if (a->getType() != b->getType() || !lanes_fit)
    return fail("select of different types", value_type(context_, e.dtype, e.lanes));
  return b_.CreateSelect(condition, a, b);
}

llvm::Value *KernelEmitter::emit_reduce(const Expr &e) {
  DType dtype = e.args[0].dtype;
  llvm::Value *v = emit(e.args[0]);
  int lanes = e.args[0].lanes;
  if ((lanes & (lanes - 1)) != 0)
    return fail("reduce over lanes that are no power of two", scalar_type(context_, e.dtype));
  bool maximum = e.binary == BinaryOp::max;
  if (maximum || e.binary == BinaryOp::min)
    if (llvm::Value *extremum = emit_float_extremum(maximum, v))
      return extremum;
  while (lanes > 1) {
    lanes /= 2;
    std::vector<int> low(size_t(lanes), 0), high(size_t(lanes), 0);
    std::iota(low.begin(), low.end(), 0);
    std::iota(high.begin(), high.end(), lanes);
    llvm::Value *a, *b;
    if (lanes == 1) {
      a = b_.CreateExtractElement(v, uint64_t(0));
      b = b_.CreateExtractElement(v, uint64_t(1));
    } else {
      a = b_.CreateShuffleVector(v, low);
      b = b_.CreateShuffleVector(v, high);
    }
    v = emit_binary(e.binary, dtype, a, b);
  }
  return v;
}

llvm::Value *KernelEmitter::emit_lanes(const Expr &e) {
  llvm::Type *type = value_type(context_, e.dtype, e.lanes);
  if (e.is(Expr::Kind::iota)) {
    if (e.lanes == 1)
      return splat_int(type, 0);
    std::vector<llvm::Constant *> lanes;
    for (int i = 0; i < e.lanes; ++i)
      lanes.push_back(splat_int(type->getScalarType(), uint64_t(i)));
    return llvm::ConstantVector::get(lanes);
  }
  std::vector<llvm::Value *> args;
  std::vector<std::pair<int, int>> where; // argument and lane of each lane of their concatenation
  for (const Expr &arg : e.args) {
    for (int lane = 0; lane < arg.lanes; ++lane)
      where.push_back({int(args.size()), lane});
    args.push_back(emit(arg));
  }
  auto extract = [&](int at) {
    auto [arg, lane] = where[size_t(at)];
    llvm::Value *v = args[size_t(arg)];
    return v->getType()->isVectorTy() ? b_.CreateExtractElement(v, uint64_t(lane)) : v;
  };
  std::vector<int> map;
  if (e.is(Expr::Kind::extract)) {
    map = {int(e.integer)};
  } else if (e.is(Expr::Kind::concat)) {
    map.resize(where.size());
    std::iota(map.begin(), map.end(), 0);
  } else {
    map = e.lanes_map;
  }
  if (int(map.size()) != e.lanes)
    return fail("a wrong number of lanes", type);
  for (int lane : map)
    if (lane < 0 || size_t(lane) >= where.size())
      return fail("a lane out of range", type);
  if (e.lanes == 1)
    return extract(map[0]);
  if (args.size() == 2 && args[0]->getType() == args[1]->getType() &&
      args[0]->getType()->isVectorTy())
    return b_.CreateShuffleVector(args[0], args[1], map);
  if (args.size() == 1 && args[0]->getType()->isVectorTy())
    return b_.CreateShuffleVector(args[0], map);
  llvm::Value *out = llvm::PoisonValue::get(type);
  for (int i = 0; i < e.lanes; ++i)
    out = b_.CreateInsertElement(out, extract(map[size_t(i)]), uint64_t(i));
  return out;
}

} // namespace kiln::cpu
