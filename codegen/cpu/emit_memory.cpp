// Loads and stores: plain, strided, counted, gathered.
//
// A count becomes a mask where the machine has cheap ones. Elsewhere a test picks the whole vector,
// or a loop over the lanes that go through a small slot on the stack: the test costs nothing next
// to the access, and tails are short.
#include "codegen/cpu/kernel_emitter.h"
#include "codegen/cpu/types.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace kiln::cpu {

KernelEmitter::Place KernelEmitter::emit_address(const Binding &buffer, const Dim &index) {
  Place place;
  place.element_bytes = dtype_bytes(buffer.dtype) * buffer.lanes;
  Linear offset = emit_linear(index);
  place.address = buffer.value;
  if (offset.variable)
    place.address = b_.CreateGEP(memory_type(context_, buffer.dtype, buffer.lanes), place.address,
                                 offset.variable);
  int64_t bytes = 0;
  if (__builtin_mul_overflow(offset.constant, place.element_bytes, &bytes))
    fail("the offset " + index.text() + " overflows");
  if (bytes != 0)
    place.address = b_.CreateGEP(b_.getInt8Ty(), place.address, b_.getInt64(uint64_t(bytes)));
  uint64_t natural = uint64_t(place.element_bytes & -place.element_bytes);
  uint64_t known = std::min<uint64_t>(buffer.alignment, natural);
  if (!offset.variable)
    known = llvm::commonAlignment(llvm::Align(buffer.alignment), uint64_t(bytes)).value();
  place.alignment = llvm::Align(known);
  place.element_bytes = dtype_bytes(buffer.dtype);
  return place;
}

llvm::Value *KernelEmitter::emit_load(const Expr &e) {
  llvm::Type *type = value_type(context_, e.dtype, e.lanes);
  const Binding *buffer = find(e.name);
  if (!buffer || !buffer->is_buffer || buffer->dtype != e.dtype)
    return fail("load from what is no buffer of its type: " + std::string(e.name.text()), type);
  Place place = emit_address(*buffer, e.index);
  llvm::Value *value = e.count ? load_counted(place, e.dtype, e.lanes, e.stride, *e.count)
                               : load_full(place, e.dtype, e.lanes, e.stride);
  return from_memory(b_, value, e.dtype, e.lanes);
}

void KernelEmitter::emit_store(const Stmt &s) {
  const Binding *buffer = find(s.name);
  llvm::Value *value = emit(s.value);
  if (!buffer || !buffer->is_buffer || buffer->dtype != s.value.dtype) {
    fail("store to what is no buffer of its type: " + std::string(s.name.text()));
    return;
  }
  int lanes = s.value.lanes;
  value = to_memory(b_, value, s.value.dtype, lanes);
  Place place = emit_address(*find(s.name), s.index);
  if (s.count)
    store_counted(place, value, lanes, s.stride, *s.count);
  else
    store_full(place, value, lanes, s.stride);
}

llvm::Value *KernelEmitter::emit_gather(const Expr &e) {
  llvm::Type *type = value_type(context_, e.dtype, e.lanes);
  const Binding *found = find(e.name);
  if (!found || !found->is_buffer || found->dtype != e.dtype || found->lanes != 1)
    return fail("gather from what is no buffer of its type: " + std::string(e.name.text()), type);
  Binding buffer = *found;
  llvm::Value *offsets = emit(e.args[0]);
  llvm::Type *element = memory_type(context_, e.dtype, 1);
  llvm::Align alignment(std::min<uint64_t>(buffer.alignment, uint64_t(dtype_bytes(e.dtype))));
  llvm::Value *address = b_.CreateGEP(element, buffer.value, offsets);
  llvm::Type *memory = memory_type(context_, e.dtype, e.lanes);
  llvm::Value *value =
      e.lanes == 1 ? static_cast<llvm::Value *>(b_.CreateAlignedLoad(memory, address, alignment))
                   : b_.CreateMaskedGather(memory, address, alignment);
  return from_memory(b_, value, e.dtype, e.lanes);
}

llvm::Value *KernelEmitter::lane_address(const Place &place, llvm::Value *lane, const Dim &stride) {
  llvm::Value *bytes = b_.CreateMul(emit_dim(stride), b_.getInt64(uint64_t(place.element_bytes)));
  return b_.CreateGEP(b_.getInt8Ty(), place.address, b_.CreateMul(lane, bytes));
}

llvm::Value *KernelEmitter::lane_addresses(const Place &place, int lanes, const Dim &stride) {
  llvm::Value *bytes = b_.CreateMul(emit_dim(stride), b_.getInt64(uint64_t(place.element_bytes)));
  std::vector<llvm::Constant *> iota;
  for (int i = 0; i < lanes; ++i)
    iota.push_back(b_.getInt64(uint64_t(i)));
  llvm::Value *offsets =
      b_.CreateMul(llvm::ConstantVector::get(iota), b_.CreateVectorSplat(unsigned(lanes), bytes));
  return b_.CreateGEP(b_.getInt8Ty(), place.address, offsets);
}

llvm::Value *KernelEmitter::load_full(const Place &place, DType dtype, int lanes,
                                      const Dim &stride) {
  llvm::Type *type = memory_type(context_, dtype, lanes);
  llvm::Type *element = memory_type(context_, dtype, 1);
  auto step = constant_dim(stride);
  if (lanes == 1 || step == 1)
    return b_.CreateAlignedLoad(type, place.address, place.alignment);
  llvm::Align alignment(std::min<uint64_t>(place.alignment.value(), uint64_t(place.element_bytes)));
  if (step == 0)
    return b_.CreateVectorSplat(unsigned(lanes),
                                b_.CreateAlignedLoad(element, place.address, alignment));
  if (step == -1) {
    llvm::Value *first = b_.CreateGEP(element, place.address, b_.getInt64(uint64_t(1 - lanes)));
    std::vector<int> reversed(size_t(lanes), 0);
    std::iota(reversed.rbegin(), reversed.rend(), 0);
    return b_.CreateShuffleVector(b_.CreateAlignedLoad(type, first, alignment), reversed);
  }
  if (step && *step >= 2 && *step <= 4)
    return load_deinterleaved({place.address, alignment, place.element_bytes}, dtype, lanes,
                              int(*step), lanes);
  return b_.CreateMaskedGather(type, lane_addresses(place, lanes, stride), alignment);
}

// Vectors that together cover the elements from the first lane's to the last of `active` lanes' and not one
// more, and a shuffle for each after the first. The other lanes are 0.
llvm::Value *KernelEmitter::load_deinterleaved(const Place &place, DType dtype, int lanes, int stride, int active) {
  llvm::Type *type = memory_type(context_, dtype, lanes);
  int span = (active - 1) * stride + 1, pieces = (span + lanes - 1) / lanes;
  llvm::Value *out = nullptr;
  for (int piece = 0; piece < pieces; ++piece) {
    int start = piece + 1 < pieces ? piece * lanes : std::max(0, span - lanes);
    Place from = place;
    from.address = b_.CreateGEP(b_.getInt8Ty(), place.address,
                                b_.getInt64(uint64_t(start) * uint64_t(place.element_bytes)));
    llvm::Value *loaded = span < lanes ? load_counted(from, dtype, lanes, 1, span)
                                       : b_.CreateAlignedLoad(type, from.address, from.alignment);
    std::vector<int> map(static_cast<size_t>(lanes), -1);
    for (int i = 0; i < active; ++i) {
      int owner = std::min(i * stride / lanes, pieces - 1);
      if (owner == piece)
        map[size_t(i)] = (out ? lanes : 0) + i * stride - start;
      else if (owner < piece)
        map[size_t(i)] = i;
    }
    out = out ? b_.CreateShuffleVector(out, loaded, map) : b_.CreateShuffleVector(loaded, map);
  }
  if (active == lanes)
    return out;
  std::vector<llvm::Constant *> within;
  for (int i = 0; i < lanes; ++i)
    within.push_back(b_.getInt1(i < active));
  return b_.CreateSelect(llvm::ConstantVector::get(within), out, llvm::Constant::getNullValue(type));
}

void KernelEmitter::store_full(const Place &place, llvm::Value *memory, int lanes,
                               const Dim &stride) {
  auto step = constant_dim(stride);
  if (lanes == 1 || step == 1) {
    b_.CreateAlignedStore(memory, place.address, place.alignment);
    return;
  }
  llvm::Align alignment(std::min<uint64_t>(place.alignment.value(), uint64_t(place.element_bytes)));
  for (int i = 0; i < lanes; ++i)
    b_.CreateAlignedStore(b_.CreateExtractElement(memory, uint64_t(i)),
                          lane_address(place, b_.getInt64(uint64_t(i)), stride), alignment);
}

// lane < count, compared in integers as wide as the elements, so that the mask is one instruction.
llvm::Value *KernelEmitter::lane_mask(llvm::Value *count, int lanes, int element_bits) {
  int bits = std::clamp(element_bits, 8, 32);
  if (lanes > 127)
    bits = std::max(bits, 16);
  llvm::Value *clamped = b_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, count, b_.getInt64(0));
  clamped = b_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, clamped, b_.getInt64(uint64_t(lanes)));
  llvm::Type *type = b_.getIntNTy(unsigned(bits));
  std::vector<llvm::Constant *> iota;
  for (int i = 0; i < lanes; ++i)
    iota.push_back(llvm::ConstantInt::get(type, uint64_t(i)));
  return b_.CreateICmpULT(llvm::ConstantVector::get(iota),
                          b_.CreateVectorSplat(unsigned(lanes), b_.CreateTrunc(clamped, type)));
}

void KernelEmitter::emit_lane_loop(llvm::Value *count,
                                   const std::function<void(llvm::Value *)> &body) {
  llvm::BasicBlock *before = b_.GetInsertBlock(), *loop = new_block(), *after = new_block();
  b_.CreateCondBr(b_.CreateICmpSGT(count, b_.getInt64(0)), loop, after);
  b_.SetInsertPoint(loop);
  llvm::PHINode *lane = b_.CreatePHI(b_.getInt64Ty(), 2);
  body(lane);
  llvm::Value *next = b_.CreateNSWAdd(lane, b_.getInt64(1));
  lane->addIncoming(b_.getInt64(0), before);
  lane->addIncoming(next, b_.GetInsertBlock());
  b_.CreateCondBr(b_.CreateICmpSLT(next, count), loop, after);
  b_.SetInsertPoint(after);
}

llvm::Value *KernelEmitter::load_counted(const Place &place, DType dtype, int lanes,
                                         const Dim &stride, const Dim &count) {
  auto known = constant_dim(count);
  llvm::Type *type = memory_type(context_, dtype, lanes);
  llvm::Constant *zero = llvm::Constant::getNullValue(type);
  if (known && *known >= lanes)
    return load_full(place, dtype, lanes, stride);
  if (known && *known <= 0)
    return zero;
  llvm::Value *n = emit_dim(count), *step = emit_dim(stride);
  int bits = dtype_bits(dtype);
  llvm::Align alignment(std::min<uint64_t>(place.alignment.value(), uint64_t(place.element_bytes)));
  bool unit = constant_dim(stride) == 1;
  if (lanes > 1 && unit && !machine_.has_masks && known && std::has_single_bit(uint64_t(*known))) {
    llvm::Type *few = *known > 1 ? memory_type(context_, dtype, int(*known)) : type->getScalarType();
    llvm::Value *part = b_.CreateAlignedLoad(few, place.address, place.alignment);
    if (*known == 1)
      return b_.CreateInsertElement(zero, part, uint64_t(0));
    std::vector<int> order(static_cast<size_t>(lanes), int(*known)); // a zero
    for (int i = 0; i < *known; ++i)
      order[size_t(i)] = i;
    return b_.CreateShuffleVector(part, llvm::Constant::getNullValue(few), order);
  }
  if (lanes > 1 && unit && (machine_.has_masks || known))
    return b_.CreateMaskedLoad(type, place.address, place.alignment, lane_mask(n, lanes, bits),
                               zero);
  if (auto apart = constant_dim(stride); lanes > 1 && known && apart && *apart >= 2 && *apart <= 4)
    return load_deinterleaved({place.address, alignment, place.element_bytes}, dtype, lanes, int(*apart), int(*known));
  if (lanes > 1 && machine_.has_masks && bits >= 32)
    return b_.CreateMaskedGather(type, lane_addresses(place, lanes, stride), alignment,
                                 lane_mask(n, lanes, bits), zero);
  llvm::AllocaInst *slot = lanes > 1 ? entry_alloca(type, 64) : nullptr;
  llvm::BasicBlock *full = new_block(), *part = new_block(), *join = new_block();
  b_.CreateCondBr(b_.CreateICmpSGE(n, b_.getInt64(uint64_t(lanes))), full, part);
  b_.SetInsertPoint(full);
  llvm::Value *whole;
  {
    Scope scope(*this);
    whole = load_full(place, dtype, lanes, stride);
  }
  llvm::BasicBlock *full_end = b_.GetInsertBlock();
  b_.CreateBr(join);
  b_.SetInsertPoint(part);
  llvm::Value *partial = zero;
  if (slot) {
    llvm::Type *element = memory_type(context_, dtype, 1);
    b_.CreateStore(zero, slot);
    llvm::Value *bytes = b_.CreateMul(step, b_.getInt64(uint64_t(place.element_bytes)));
    emit_lane_loop(n, [&](llvm::Value *lane) {
      llvm::Value *from = b_.CreateGEP(b_.getInt8Ty(), place.address, b_.CreateMul(lane, bytes));
      b_.CreateStore(b_.CreateAlignedLoad(element, from, alignment),
                     b_.CreateGEP(element, slot, lane));
    });
    partial = b_.CreateLoad(type, slot);
  }
  llvm::BasicBlock *part_end = b_.GetInsertBlock();
  b_.CreateBr(join);
  b_.SetInsertPoint(join);
  llvm::PHINode *phi = b_.CreatePHI(type, 2);
  phi->addIncoming(whole, full_end);
  phi->addIncoming(partial, part_end);
  return phi;
}

// The first `count` lanes, in stores of half as many again and again.
void KernelEmitter::store_lanes(const Place &place, llvm::Value *memory, int count) {
  llvm::Type *byte = b_.getInt8Ty();
  for (int at = 0; at < count;) {
    int size = int(std::bit_floor(unsigned(count - at)));
    std::vector<int> order;
    for (int i = 0; i < size; ++i)
      order.push_back(at + i);
    llvm::Value *part = size > 1 ? b_.CreateShuffleVector(memory, order)
                                 : b_.CreateExtractElement(memory, uint64_t(at));
    llvm::Align alignment(std::min<uint64_t>(place.alignment.value(), uint64_t(place.element_bytes)));
    b_.CreateAlignedStore(part, b_.CreateConstGEP1_64(byte, place.address, uint64_t(at) * uint64_t(place.element_bytes)),
                          at == 0 ? place.alignment : alignment);
    at += size;
  }
}

void KernelEmitter::store_counted(const Place &place, llvm::Value *memory, int lanes,
                                  const Dim &stride, const Dim &count) {
  auto known = constant_dim(count);
  if (known && *known >= lanes)
    return store_full(place, memory, lanes, stride);
  if (known && *known <= 0)
    return;
  llvm::Value *n = emit_dim(count), *step = emit_dim(stride);
  int bits = int(place.element_bytes) * 8;
  llvm::Align alignment(std::min<uint64_t>(place.alignment.value(), uint64_t(place.element_bytes)));
  bool unit = constant_dim(stride) == 1;
  if (lanes > 1 && unit && !machine_.has_masks && known)
    return store_lanes(place, memory, int(*known));
  if (lanes > 1 && unit && machine_.has_masks) {
    b_.CreateMaskedStore(memory, place.address, place.alignment, lane_mask(n, lanes, bits));
    return;
  }
  if (lanes > 1 && machine_.has_masks && bits >= 32) {
    b_.CreateMaskedScatter(memory, lane_addresses(place, lanes, stride), alignment,
                           lane_mask(n, lanes, bits));
    return;
  }
  llvm::BasicBlock *full = new_block(), *part = new_block(), *join = new_block();
  b_.CreateCondBr(b_.CreateICmpSGE(n, b_.getInt64(uint64_t(lanes))), full, part);
  b_.SetInsertPoint(full);
  {
    Scope scope(*this);
    store_full(place, memory, lanes, stride);
  }
  b_.CreateBr(join);
  b_.SetInsertPoint(part);
  if (lanes > 1) {
    llvm::AllocaInst *slot = entry_alloca(memory->getType(), 64);
    llvm::Type *element = memory->getType()->getScalarType();
    b_.CreateStore(memory, slot);
    llvm::Value *bytes = b_.CreateMul(step, b_.getInt64(uint64_t(place.element_bytes)));
    emit_lane_loop(n, [&](llvm::Value *lane) {
      llvm::Value *to = b_.CreateGEP(b_.getInt8Ty(), place.address, b_.CreateMul(lane, bytes));
      b_.CreateAlignedStore(b_.CreateLoad(element, b_.CreateGEP(element, slot, lane)), to,
                            alignment);
    });
  }
  b_.CreateBr(join);
  b_.SetInsertPoint(join);
}

} // namespace kiln::cpu
