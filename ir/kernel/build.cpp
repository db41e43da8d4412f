#include "ir/kernel/build.h"

#include "ir/kernel/dot.h"
#include "ir/narrow.h"

namespace kiln {

std::string_view unary_name(UnaryOp op) {
  switch (op) {
#define KILN_UNARY(name, primitive)                                                                \
  case UnaryOp::name:                                                                              \
    return #name;
#include "ir/kernel/scalar_ops.def"
  }
  return "?";
}

std::string_view binary_name(BinaryOp op) {
  switch (op) {
#define KILN_BINARY(name, primitive)                                                               \
  case BinaryOp::name:                                                                             \
    return #name;
#include "ir/kernel/scalar_ops.def"
  }
  return "?";
}

bool is_primitive(UnaryOp op) {
  switch (op) {
#define KILN_UNARY(name, primitive)                                                                \
  case UnaryOp::name:                                                                              \
    return primitive;
#include "ir/kernel/scalar_ops.def"
  }
  return false;
}

bool is_primitive(BinaryOp op) {
  switch (op) {
#define KILN_BINARY(name, primitive)                                                               \
  case BinaryOp::name:                                                                             \
    return primitive;
#include "ir/kernel/scalar_ops.def"
  }
  return false;
}

bool is_comparison(BinaryOp op) { return op >= BinaryOp::eq && op <= BinaryOp::ge; }

std::string_view loop_kind_name(LoopKind kind) {
  constexpr std::string_view kNames[] = {"serial",  "parallel", "reduce",   "unroll",   "threads", "block_x",
                                         "block_y", "block_z",  "thread_x", "thread_y", "thread_z"};
  return kNames[size_t(kind)];
}

const KernelBuffer *Kernel::find_buffer(Symbol buffer) const {
  for (const KernelBuffer &b : buffers)
    if (b.name == buffer)
      return &b;
  return nullptr;
}

namespace kb {
namespace {

Expr make(Expr::Kind kind, DType dtype, int lanes, std::vector<Expr> args = {}) {
  Expr e;
  e.kind = kind;
  e.dtype = dtype;
  e.lanes = lanes;
  e.args = std::move(args);
  return e;
}

void check_same(const Expr &a, const Expr &b, std::string_view what) {
  KILN_CHECK(a.dtype == b.dtype && a.lanes == b.lanes,
             std::string(what) + ": operands of different types");
}

} // namespace

Expr number(DType dtype, double value, int lanes) {
  KILN_CHECK(is_float(dtype), "number() is for float dtypes");
  Expr e = make(Expr::Kind::number, dtype, lanes);
  e.number = value;
  return e;
}

Expr integer(DType dtype, int64_t value, int lanes) {
  KILN_CHECK(!is_float(dtype), "integer() is for integer dtypes, bool and codes");
  Expr e = make(Expr::Kind::number, dtype, lanes);
  e.integer = value;
  return e;
}

Expr boolean(bool value, int lanes) { return integer(DType::bool_, value, lanes); }

Expr constant(DType dtype, double value, int lanes) {
  if (is_narrow(dtype))
    return integer(dtype, narrow_code(dtype, to_narrow(dtype, value)), lanes);
  return is_float(dtype) ? number(dtype, value, lanes) : integer(dtype, int64_t(value), lanes);
}

Expr index(const Dim &value) {
  Expr e = make(Expr::Kind::index, DType::i64, 1);
  e.index = value;
  return e;
}

Expr var(Symbol name, DType dtype, int lanes) {
  Expr e = make(Expr::Kind::var, dtype, lanes);
  e.name = name;
  return e;
}

Expr load(Symbol buffer, DType dtype, const Dim &offset, int lanes) {
  Expr e = make(Expr::Kind::load, dtype, lanes);
  e.name = buffer;
  e.index = offset;
  return e;
}

Expr load(const KernelBuffer &buffer, const Dim &offset, int lanes) {
  return load(buffer.name, buffer.dtype, offset, lanes);
}

Expr gather(Symbol buffer, DType dtype, Expr offsets) {
  KILN_CHECK(offsets.dtype == DType::i64, "gather takes i64 offsets");
  int lanes = offsets.lanes;
  Expr e = make(Expr::Kind::gather, dtype, lanes, {std::move(offsets)});
  e.name = buffer;
  return e;
}

Expr unary(UnaryOp op, Expr a) {
  DType dtype = op == UnaryOp::is_nan ? DType::bool_ : a.dtype;
  int lanes = a.lanes;
  Expr e = make(Expr::Kind::unary, dtype, lanes, {std::move(a)});
  e.unary = op;
  return e;
}

Expr binary(BinaryOp op, Expr a, Expr b) {
  check_same(a, b, binary_name(op));
  auto is_zero = [](const Expr &x) {
    return x.is(Expr::Kind::number) && !is_float(x.dtype) && x.integer == 0;
  };
  if ((op == BinaryOp::add || op == BinaryOp::sub) && is_zero(b))
    return a;
  if (op == BinaryOp::add && is_zero(a))
    return b;
  DType dtype = is_comparison(op) ? DType::bool_ : a.dtype;
  int lanes = a.lanes;
  Expr e = make(Expr::Kind::binary, dtype, lanes, {std::move(a), std::move(b)});
  e.binary = op;
  return e;
}

Expr select(Expr condition, Expr a, Expr b) {
  check_same(a, b, "select");
  KILN_CHECK(condition.dtype == DType::bool_ && condition.lanes == a.lanes,
             "select takes a bool for each lane");
  if (condition.is(Expr::Kind::number))
    return condition.integer ? a : b;
  DType dtype = a.dtype;
  int lanes = a.lanes;
  return make(Expr::Kind::select, dtype, lanes, {std::move(condition), std::move(a), std::move(b)});
}

Expr convert(DType dtype, Expr a) {
  if (a.dtype == dtype)
    return a;
  // There and back: f16 and bf16 lose nothing in f32, so elements that are only moved keep their bits.
  if (a.is(Expr::Kind::convert) && a.dtype == compute_dtype(dtype) && a.args[0].dtype == dtype) {
    Expr inner = std::move(a.args[0]);
    return inner;
  }
  int lanes = a.lanes;
  return make(Expr::Kind::convert, dtype, lanes, {std::move(a)});
}

Expr bitcast(DType dtype, Expr a) {
  KILN_CHECK(dtype_bits(dtype) == dtype_bits(a.dtype), "bitcast between types of one width");
  if (a.dtype == dtype)
    return a;
  int lanes = a.lanes;
  return make(Expr::Kind::bitcast, dtype, lanes, {std::move(a)});
}

Expr broadcast(Expr a, int lanes) {
  if (a.lanes == lanes)
    return a;
  KILN_CHECK(a.lanes == 1, "broadcast takes a scalar");
  if (a.is(Expr::Kind::number)) {
    a.lanes = lanes;
    return a;
  }
  DType dtype = a.dtype;
  return make(Expr::Kind::broadcast, dtype, lanes, {std::move(a)});
}

Expr iota(DType dtype, int lanes) { return make(Expr::Kind::iota, dtype, lanes); }

Expr fma(Expr a, Expr b, Expr c) {
  if (!fits_dot(a, b, c)) {
    check_same(a, b, "fma");
    check_same(a, c, "fma");
  }
  DType dtype = c.dtype;
  int lanes = c.lanes;
  return make(Expr::Kind::fma, dtype, lanes, {std::move(a), std::move(b), std::move(c)});
}

Expr reduce(BinaryOp op, Expr a) {
  DType dtype = a.dtype;
  Expr e = make(Expr::Kind::reduce, dtype, 1, {std::move(a)});
  e.binary = op;
  return e;
}

Expr extract(Expr a, int lane) {
  KILN_CHECK(lane >= 0 && lane < a.lanes, "extract: no such lane");
  DType dtype = a.dtype;
  Expr e = make(Expr::Kind::extract, dtype, 1, {std::move(a)});
  e.integer = lane;
  return e;
}

Stmt let(Symbol name, Expr value) {
  Stmt s;
  s.kind = Stmt::Kind::let;
  s.name = name;
  s.dtype = value.dtype;
  s.lanes = value.lanes;
  s.value = std::move(value);
  return s;
}

Stmt alloc(Symbol name, DType dtype, int64_t size, int lanes, MemorySpace space) {
  Stmt s;
  s.kind = Stmt::Kind::alloc;
  s.name = name;
  s.dtype = dtype;
  s.size = size;
  s.lanes = lanes;
  s.space = space;
  return s;
}

Stmt store(Symbol buffer, const Dim &offset, Expr value) {
  Stmt s;
  s.kind = Stmt::Kind::store;
  s.name = buffer;
  s.index = offset;
  s.value = std::move(value);
  return s;
}

Stmt loop(Symbol var_name, const Dim &begin, const Dim &end, LoopKind kind, std::vector<Stmt> body,
          int64_t step) {
  Stmt s;
  s.kind = Stmt::Kind::loop;
  s.name = var_name;
  s.begin = begin;
  s.end = end;
  s.loop = kind;
  s.step = step;
  s.body = std::move(body);
  return s;
}

Stmt if_(Expr condition, std::vector<Stmt> body, std::vector<Stmt> other) {
  Stmt s;
  s.kind = Stmt::Kind::if_;
  s.value = std::move(condition);
  s.body = std::move(body);
  s.other = std::move(other);
  return s;
}

Stmt while_(Expr condition, std::vector<Stmt> body) {
  Stmt s;
  s.kind = Stmt::Kind::while_;
  s.value = std::move(condition);
  s.body = std::move(body);
  return s;
}

Stmt assert_(Expr condition, int trap) {
  Stmt s;
  s.kind = Stmt::Kind::assert_;
  s.value = std::move(condition);
  s.integer = trap;
  return s;
}

Stmt prefetch(Symbol buffer, const Dim &offset, int level) {
  Stmt s;
  s.kind = Stmt::Kind::prefetch;
  s.name = buffer;
  s.index = offset;
  s.integer = level;
  return s;
}

Stmt barrier() {
  Stmt s;
  s.kind = Stmt::Kind::barrier;
  return s;
}

} // namespace kb
} // namespace kiln
