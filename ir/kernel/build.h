// Short constructors for kernel IR. They check types (KILN_CHECK), so that an ill-typed expression
// cannot be built, and fold the trivial cases (x + 0, select of a constant, convert to the same type).
#pragma once

#include "ir/kernel/kernel.h"

namespace kiln::kb {

Expr number(DType dtype, double value, int lanes = 1);
Expr integer(DType dtype, int64_t value, int lanes = 1);
Expr boolean(bool value, int lanes = 1);
Expr index(const Dim &value);                      // i64 scalar
Expr var(Symbol name, DType dtype, int lanes = 1);
Expr load(Symbol buffer, DType dtype, const Dim &offset, int lanes = 1);
Expr load(const KernelBuffer &buffer, const Dim &offset, int lanes = 1);
Expr gather(Symbol buffer, DType dtype, Expr offsets);
Expr unary(UnaryOp op, Expr a);
Expr binary(BinaryOp op, Expr a, Expr b);
Expr select(Expr condition, Expr a, Expr b);
Expr convert(DType dtype, Expr a);
Expr bitcast(DType dtype, Expr a);
Expr broadcast(Expr a, int lanes); // a itself if it has as many lanes already
Expr iota(DType dtype, int lanes);
Expr fma(Expr a, Expr b, Expr c);
Expr reduce(BinaryOp op, Expr a);
Expr extract(Expr a, int lane);

inline Expr add(Expr a, Expr b) { return binary(BinaryOp::add, std::move(a), std::move(b)); }
inline Expr sub(Expr a, Expr b) { return binary(BinaryOp::sub, std::move(a), std::move(b)); }
inline Expr mul(Expr a, Expr b) { return binary(BinaryOp::mul, std::move(a), std::move(b)); }
inline Expr div(Expr a, Expr b) { return binary(BinaryOp::div, std::move(a), std::move(b)); }
inline Expr min(Expr a, Expr b) { return binary(BinaryOp::min, std::move(a), std::move(b)); }
inline Expr max(Expr a, Expr b) { return binary(BinaryOp::max, std::move(a), std::move(b)); }
inline Expr lt(Expr a, Expr b) { return binary(BinaryOp::lt, std::move(a), std::move(b)); }
inline Expr le(Expr a, Expr b) { return binary(BinaryOp::le, std::move(a), std::move(b)); }
inline Expr eq(Expr a, Expr b) { return binary(BinaryOp::eq, std::move(a), std::move(b)); }
inline Expr logical_and(Expr a, Expr b) { return binary(BinaryOp::bit_and, std::move(a), std::move(b)); }
inline Expr logical_or(Expr a, Expr b) { return binary(BinaryOp::bit_or, std::move(a), std::move(b)); }
inline Expr logical_not(Expr a) { return unary(UnaryOp::bit_not, std::move(a)); }
// A constant of the dtype's kind: number() or integer().
Expr constant(DType dtype, double value, int lanes = 1);

Stmt let(Symbol name, Expr value);
Stmt alloc(Symbol name, DType dtype, int64_t size, int lanes, MemorySpace space);
Stmt store(Symbol buffer, const Dim &offset, Expr value);
Stmt loop(Symbol var, const Dim &begin, const Dim &end, LoopKind kind, std::vector<Stmt> body,
          int64_t step = 1);
Stmt if_(Expr condition, std::vector<Stmt> body, std::vector<Stmt> other = {});
Stmt while_(Expr condition, std::vector<Stmt> body);
Stmt assert_(Expr condition, int trap);
Stmt prefetch(Symbol buffer, const Dim &offset, int level);
Stmt barrier();

} // namespace kiln::kb
