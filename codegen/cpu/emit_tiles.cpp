// Products of tiles (ir/kernel/tile_product.h) by AMX: neighbouring loops that hold nothing but products with
// the same sums are a region, in which the sums are in matrix registers.
//
//   tmm0..3   sums, of two tiles of rows by two columns, or of one by four
//   tmm4, 5   rows and columns of the products
//   tmm6, 7   the second of them, or those of products of another depth
//
// A region loads its configuration and releases it. That takes as long as ten products, so a function that calls
// nothing does it only where the configuration changes, and releases the last one when it returns. LLVM's intrinsics
// with numbers of registers are used: its allocation of tiles would configure them otherwise.
#include "codegen/cpu/kernel_emitter.h"
#include "passes/kernel/product_cost.h"

#include <llvm/IR/Instructions.h>
#include <llvm/IR/IntrinsicInst.h>
#include <llvm/IR/IntrinsicsX86.h>
#include <llvm/Transforms/Utils/BasicBlockUtils.h>

#include <algorithm>
#include <cmath>

namespace kiln::cpu {
namespace {

namespace ID = llvm::Intrinsic;

constexpr int64_t kSums = 4, kDepths = 2, kColumnBytes = 64;

bool is_zero(const Expr &e) {
  if (e.is(Expr::Kind::broadcast))
    return is_zero(e.args[0]);
  return e.is(Expr::Kind::number) && (is_float(e.dtype) ? e.number == 0 && !std::signbit(e.number) : e.integer == 0);
}

// Unrolled loops over every element of `sums`, that store zeros there.
bool zeroes(const Stmt &s, Symbol sums, int64_t size) {
  const Stmt *at = &s;
  Dim dense = 0;
  int64_t count = 1;
  std::vector<const Stmt *> loops;
  while (at->is(Stmt::Kind::loop)) {
    if (at->loop != LoopKind::unroll || !at->begin.is_const(0) || !at->end.is_const() ||
        at->step != 1 || at->body.size() != 1)
      return false;
    loops.push_back(at);
    at = &at->body[0];
  }
  for (auto it = loops.rbegin(); it != loops.rend(); ++it) { // the innermost moves by one
    dense += Dim::symbol((*it)->name) * Dim(count);
    count *= (*it)->end.as_const();
  }
  return at->is(Stmt::Kind::store) && at->name == sums && !at->count && at->index == dense &&
         count == size && at->value.lanes == 16 && is_zero(at->value);
}

} // namespace

// Adds the products in `s`; false if it holds anything else, or what the registers do not.
bool KernelEmitter::collect_products(const Stmt &s, TileRegion &region) const {
  if (s.is(Stmt::Kind::prefetch) && !region.depths.empty())
    return true;
  if (auto p = tile_product(s)) {
    if (!is_for_tiles(*p, machine_))
      return false;
    int64_t most = machine_.tile_rows;
    int64_t tiles = p->rows > most ? 2 : 1;
    if (p->rows % tiles != 0 || p->rows / tiles > most || tiles * p->columns > kSums ||
        4 * p->depth > machine_.tile_row_bytes)
      return false;
    if (region.depths.empty()) {
      region.sums = p->sums;
      region.dtype = p->dtype;
      region.tiles = tiles;
      region.height = p->rows / tiles;
      region.columns = p->columns;
    }
    if (std::find(region.depths.begin(), region.depths.end(), p->depth) == region.depths.end())
      region.depths.push_back(p->depth);
    return region.sums == p->sums && region.dtype == p->dtype && region.tiles * region.height == p->rows &&
           region.columns == p->columns && int64_t(region.depths.size()) <= kDepths;
  }
  bool walks = s.is(Stmt::Kind::loop) && !s.body.empty() &&
               (s.loop == LoopKind::serial || s.loop == LoopKind::unroll);
  return walks && std::all_of(s.body.begin(), s.body.end(),
                              [&](const Stmt &inner) { return collect_products(inner, region); });
}

// How many statements from body[at] on were emitted as products of tiles.
size_t KernelEmitter::emit_tiles(const std::vector<Stmt> &body, size_t at) {
  if (machine_.tile_rows == 0 || !body[at].is(Stmt::Kind::loop))
    return 0;
  if (region_) {
    auto product = tile_product(body[at]);
    if (!product)
      return 0;
    emit_product(*product);
    return 1;
  }
  auto region_from = [&](size_t first, TileRegion &region) {
    size_t end = first;
    for (; end < body.size(); ++end) {
      TileRegion more = region;
      if (!collect_products(body[end], more))
        break;
      region = std::move(more);
    }
    return end;
  };
  TileRegion region;
  size_t first = at, end = region_from(at, region);
  bool from_zero = false;
  if (end == at) {
    first = at + 1;
    end = region_from(first, region);
    from_zero = end > first && zeroes(body[at], region.sums,
                                      region.tiles * region.height * region.columns);
    if (!from_zero)
      return 0;
  }
  const Binding *sums = find(region.sums);
  if (!sums || !sums->is_buffer || sums->dtype != region.dtype || sums->lanes != 16)
    return 0;
  llvm::Value *memory = sums->value;
  b_.CreateIntrinsic(ID::x86_ldtilecfg, {}, {tile_configuration(region)});
  auto each_sum = [&](const std::function<void(llvm::Value *, llvm::Value *)> &f) {
    for (int64_t i = 0; i < region.tiles * region.columns; ++i) {
      int64_t tile = i / region.columns, column = i % region.columns;
      int64_t vector = tile * region.height * region.columns + column;
      f(b_.getInt8(uint8_t(i)),
        b_.CreateConstInBoundsGEP1_64(b_.getInt8Ty(), memory, uint64_t(vector * kColumnBytes)));
    }
  };
  llvm::Value *stride = b_.getInt64(uint64_t(region.columns * kColumnBytes));
  each_sum([&](llvm::Value *tile, llvm::Value *address) {
    if (from_zero)
      b_.CreateIntrinsic(ID::x86_tilezero, {}, {tile});
    else
      b_.CreateIntrinsic(ID::x86_tileloadd64, {}, {tile, address, stride});
  });
  region_ = &region;
  for (size_t i = first; i < end; ++i)
    if (emit_tiles(body, i) == 0)
      emit_stmt(body[i]);
  region_ = nullptr;
  each_sum([&](llvm::Value *tile, llvm::Value *address) {
    b_.CreateIntrinsic(ID::x86_tilestored64, {}, {tile, address, stride});
  });
  b_.CreateIntrinsic(ID::x86_tilerelease, {}, {});
  return end - at;
}

// Columns are loaded once for all rows, as changing them is what takes a product longest where it has fewer rows. Rows
// stay for all columns; in one register for two tiles, the next column begins with the tile that is there.
void KernelEmitter::emit_product(const TileProduct &p) {
  const TileRegion &region = *region_;
  auto depth = std::find(region.depths.begin(), region.depths.end(), p.depth);
  auto tile = [&](int64_t number) { return b_.getInt8(uint8_t(number)); };
  const bool alone = region.depths.size() == 1;
  const int64_t pair = kSums + 2 * (depth - region.depths.begin());
  auto load = [&](int64_t number, const Expr &e, const Dim &index, const Dim &stride) {
    const Binding *buffer = find(e.name);
    if (!buffer || !buffer->is_buffer || buffer->dtype != e.dtype || buffer->lanes != 1) {
      fail("load from what is no buffer of its type: " + std::string(e.name.text()));
      return;
    }
    llvm::Value *address = emit_address(*buffer, index).address;
    Dim bytes = stride * Dim(int64_t(dtype_bytes(e.dtype)));
    b_.CreateIntrinsic(ID::x86_tileloadd64, {}, {tile(number), address, emit_dim(bytes)});
  };
  ID::ID product = p.row.dtype == DType::bf16 ? ID::x86_tdpbf16ps
                   : p.row.dtype == DType::u8 ? ID::x86_tdpbusd
                                              : ID::x86_tdpbsud;
  int64_t rows_in[2] = {-1, -1}; // which tile's
  for (int64_t column = 0; column < p.columns; ++column) {
    const int64_t columns = pair + 1 + (alone ? 2 * (column % 2) : 0);
    load(columns, p.column, p.column.index + p.column_stride * Dim(column), p.column_step);
    for (int64_t i = 0; i < region.tiles; ++i) {
      const int64_t t = column % 2 == 0 ? i : region.tiles - 1 - i, second = alone ? t : 0;
      if (rows_in[second] != t)
        load(pair + 2 * second, p.row, p.row.index + p.row_stride * Dim(t * region.height), p.row_stride);
      rows_in[second] = t;
      b_.CreateIntrinsic(product, {}, {tile(t * p.columns + column), tile(pair + 2 * second), tile(columns)});
    }
  }
}

// The 64 bytes of ldtilecfg: palette 1, then the bytes of a row from 16 on and the rows from 48 on, by tile.
llvm::Constant *KernelEmitter::tile_configuration(const TileRegion &region) {
  std::vector<uint8_t> bytes(64, 0);
  bytes[0] = 1;
  std::string name = "tiles";
  auto set = [&](int64_t tile, int64_t rows, int64_t row_bytes) {
    bytes[size_t(16 + 2 * tile)] = uint8_t(row_bytes);
    bytes[size_t(48 + tile)] = uint8_t(rows);
    name += "." + std::to_string(rows) + "x" + std::to_string(row_bytes);
  };
  for (int64_t i = 0; i < kSums; ++i) // also where there are fewer: what is equal can be shared
    set(i, region.height, kColumnBytes);
  for (int64_t d = 0; d < kDepths; ++d) {
    int64_t depth = region.depths[std::min(size_t(d), region.depths.size() - 1)];
    set(kSums + 2 * d, region.height, 4 * depth);
    set(kSums + 2 * d + 1, depth, kColumnBytes);
  }
  if (llvm::GlobalVariable *known = module_.getGlobalVariable(name, true))
    return known;
  llvm::Constant *data = llvm::ConstantDataArray::get(context_, bytes);
  auto *global = new llvm::GlobalVariable(module_, data->getType(), true,
                                          llvm::GlobalValue::InternalLinkage, data, name);
  global->setAlignment(llvm::Align(64));
  global->setDSOLocal(true);
  return global;
}

// A function that calls nothing configures tiles where they are configured otherwise, and releases them at its end.
// What it calls might configure its own.
void KernelEmitter::share_configuration(llvm::Function &function) {
  std::vector<llvm::CallInst *> loads, releases;
  std::vector<llvm::ReturnInst *> ends;
  bool one = true;
  for (llvm::BasicBlock &block : function)
    for (llvm::Instruction &i : block) {
      if (auto *end = llvm::dyn_cast<llvm::ReturnInst>(&i))
        ends.push_back(end);
      auto *call = llvm::dyn_cast<llvm::CallInst>(&i);
      if (!call)
        continue;
      ID::ID id = call->getIntrinsicID();
      if (id == ID::not_intrinsic)
        return;
      if (id == ID::x86_tilerelease)
        releases.push_back(call);
      if (id != ID::x86_ldtilecfg)
        continue;
      loads.push_back(call);
      one &= call->getArgOperand(0) == loads[0]->getArgOperand(0);
    }
  if (loads.empty())
    return;
  for (llvm::CallInst *call : releases)
    call->eraseFromParent();
  llvm::IRBuilder<> b(&*function.getEntryBlock().getFirstInsertionPt());
  if (one) {
    b.SetInsertPoint(function.getEntryBlock().getTerminator());
    b.CreateIntrinsic(ID::x86_ldtilecfg, {}, {loads[0]->getArgOperand(0)});
    for (llvm::CallInst *call : loads)
      call->eraseFromParent();
  } else {
    llvm::AllocaInst *present = b.CreateAlloca(b.getPtrTy(), nullptr, "configuration");
    b.CreateStore(llvm::ConstantPointerNull::get(b.getPtrTy()), present);
    for (llvm::CallInst *call : loads) {
      llvm::Value *wanted = call->getArgOperand(0);
      b.SetInsertPoint(call);
      llvm::Value *differs = b.CreateICmpNE(b.CreateLoad(b.getPtrTy(), present), wanted);
      llvm::Instruction *then = llvm::SplitBlockAndInsertIfThen(differs, call->getIterator(), false);
      call->moveBefore(then);
      b.SetInsertPoint(then);
      b.CreateStore(wanted, present);
    }
  }
  for (llvm::ReturnInst *end : ends) {
    b.SetInsertPoint(end);
    b.CreateIntrinsic(ID::x86_tilerelease, {}, {});
  }
}

} // namespace kiln::cpu
