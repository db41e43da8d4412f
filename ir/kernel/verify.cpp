// The rules of kernel IR that its constructors cannot see: every name is declared once and in
// scope, loads and stores agree with their buffers, operands have the types the operation takes,
// loops are nested as their kinds allow. Kernels may come from a file, so nesting is bounded too.
#include "ir/kernel/dot.h"

#include <unordered_map>

namespace kiln {
namespace {

constexpr int kMaxDepth = 200;
constexpr int kMaxLanes = 1024;

struct Declared {
  enum class Kind { dim, let, buffer } kind = Kind::dim;
  DType dtype = DType::i64;
  int lanes = 1;
  Access access = Access::inout;
  bool local = false;
};

bool is_vector_op(BinaryOp op) {
  switch (op) {
  case BinaryOp::add:
  case BinaryOp::mul:
  case BinaryOp::min:
  case BinaryOp::max:
  case BinaryOp::bit_and:
  case BinaryOp::bit_or:
    return true;
  default:
    return false;
  }
}

// Not for arithmetic.
bool is_half(DType d) {
  return compute_dtype(d) != d || is_narrow(d);
}

class Verifier {
public:
  explicit Verifier(const Kernel &kernel) : kernel_(kernel) {}

  Status run() {
    for (Symbol d : kernel_.dims)
      KILN_RETURN_IF_ERROR(declare(d, {}));
    for (const KernelBuffer &b : kernel_.buffers) {
      if (b.constant && b.access != Access::in)
        return fail("the constant buffer '" + text(b.name) + "' is written");
      KILN_RETURN_IF_ERROR(dim(b.size, "a buffer's size"));
    }
    for (const KernelBuffer &b : kernel_.buffers)
      KILN_RETURN_IF_ERROR(declare(b.name, {Declared::Kind::buffer, b.dtype, 1, b.access, false}));
    return body(kernel_.body, 0);
  }

private:
  static std::string text(Symbol s) { return std::string(s.text()); }

  Error fail(const std::string &message) const {
    std::string out = "kernel " + kernel_.name + ": " + message;
    if (!where_.empty())
      out += " (in " + where_ + ")";
    return Error{out};
  }

  Status declare(Symbol name, Declared d) {
    if (name.empty())
      return fail("a declaration without a name");
    if (!names_.emplace(name, d).second)
      return fail("'" + text(name) + "' is declared twice");
    order_.push_back(name);
    return Unit{};
  }

  const Declared *find(Symbol name) const {
    auto it = names_.find(name);
    return it == names_.end() ? nullptr : &it->second;
  }

  Status dim(const Dim &d, const char *what) const {
    if (!d.is_valid())
      return fail(std::string(what) + " overflows");
    for (Symbol s : d.symbols()) {
      const Declared *x = find(s);
      if (!x)
        return fail(std::string(what) + " uses '" + text(s) + "', which is not in scope");
      if (x->kind == Declared::Kind::buffer || x->dtype != DType::i64 || x->lanes != 1)
        return fail(std::string(what) + " uses '" + text(s) + "', which is no i64 scalar");
    }
    return Unit{};
  }

  Status access(Symbol name, DType dtype, int lanes, const Dim &index, const Dim &stride,
                const std::optional<Dim> &count, bool write) const {
    const Declared *b = find(name);
    if (!b || b->kind != Declared::Kind::buffer)
      return fail("'" + text(name) + "' is no buffer in scope");
    if (b->dtype != dtype)
      return fail("'" + text(name) + "' holds " + std::string(dtype_name(b->dtype)) + ", not " +
                  std::string(dtype_name(dtype)));
    if (write && b->access == Access::in)
      return fail("the input '" + text(name) + "' is written");
    KILN_RETURN_IF_ERROR(dim(index, "an index"));
    KILN_RETURN_IF_ERROR(dim(stride, "a stride"));
    if (count)
      KILN_RETURN_IF_ERROR(dim(*count, "a count"));
    if (b->lanes != 1 && (lanes != b->lanes || !stride.is_const(1) || count))
      return fail("elements of the tile '" + text(name) + "' are accessed whole");
    return Unit{};
  }

  Status expect(bool ok, const Expr &e, const char *what) const {
    if (ok)
      return Unit{};
    return fail(std::string(what) + ", at " + std::string(dtype_name(e.dtype)) + "x" +
                std::to_string(e.lanes));
  }

  Status expr(const Expr &e, int depth) const {
    if (depth > kMaxDepth)
      return fail("an expression is nested more than " + std::to_string(kMaxDepth) + " deep");
    if (e.lanes < 1 || e.lanes > kMaxLanes)
      return fail("a value of " + std::to_string(e.lanes) + " lanes");
    for (const Expr &a : e.args)
      KILN_RETURN_IF_ERROR(expr(a, depth + 1));
    auto same_lanes = [&] {
      for (const Expr &a : e.args)
        if (a.lanes != e.lanes)
          return false;
      return true;
    };
    auto has_args = [&](size_t n) { return e.args.size() == n; };
    switch (e.kind) {
    case Expr::Kind::none:
      return fail("an empty expression");
    case Expr::Kind::number:
      return expect(has_args(0), e, "a number takes no operands");
    case Expr::Kind::index:
      KILN_RETURN_IF_ERROR(
          expect(e.dtype == DType::i64 && e.lanes == 1, e, "an index is an i64 scalar"));
      return dim(e.index, "an index");
    case Expr::Kind::var: {
      const Declared *x = find(e.name);
      if (!x || x->kind != Declared::Kind::let)
        return fail("'" + text(e.name) + "' is no value in scope");
      return expect(x->dtype == e.dtype && x->lanes == e.lanes, e,
                    "a variable has the type of its let");
    }
    case Expr::Kind::load:
      KILN_RETURN_IF_ERROR(expect(has_args(0), e, "a load takes no operands"));
      return access(e.name, e.dtype, e.lanes, e.index, e.stride, e.count, false);
    case Expr::Kind::gather: {
      KILN_RETURN_IF_ERROR(expect(has_args(1) && same_lanes() && e.args[0].dtype == DType::i64, e,
                                  "gather takes an i64 offset for each lane"));
      const Declared *b = find(e.name);
      if (!b || b->kind != Declared::Kind::buffer || b->lanes != 1)
        return fail("'" + text(e.name) + "' is no buffer of scalars in scope");
      return expect(b->dtype == e.dtype, e, "a gather has the dtype of its buffer");
    }
    case Expr::Kind::unary:
      KILN_RETURN_IF_ERROR(
          expect(has_args(1) && same_lanes(), e, "a unary operation takes one operand"));
      return unary(e);
    case Expr::Kind::binary:
      KILN_RETURN_IF_ERROR(expect(has_args(2) && same_lanes() && e.args[0].dtype == e.args[1].dtype,
                                  e, "a binary operation takes two operands of one type"));
      return binary(e);
    case Expr::Kind::select:
      return expect(has_args(3) && same_lanes() && e.args[0].dtype == DType::bool_ &&
                        e.args[1].dtype == e.dtype && e.args[2].dtype == e.dtype,
                    e, "select takes a bool and two values of its type");
    case Expr::Kind::convert:
      return expect(has_args(1) && same_lanes(), e, "convert keeps the lanes");
    case Expr::Kind::bitcast:
      return expect(has_args(1) && same_lanes() &&
                        dtype_bits(e.args[0].dtype) == dtype_bits(e.dtype),
                    e, "bitcast keeps the width");
    case Expr::Kind::broadcast:
      return expect(has_args(1) && e.args[0].lanes == 1 && e.args[0].dtype == e.dtype, e,
                    "broadcast takes a scalar of its dtype");
    case Expr::Kind::iota:
      return expect(has_args(0) && is_integer(e.dtype), e, "iota is of an integer dtype");
    case Expr::Kind::fma:
      if (has_args(3) && fits_dot(e.args[0], e.args[1], e.args[2]))
        return expect(e.dtype == e.args[2].dtype && e.lanes == e.args[2].lanes, e,
                      "a dot has the type of its sum");
      KILN_RETURN_IF_ERROR(expect(!is_half(e.dtype) && !is_bool(e.dtype), e, "fma is arithmetic"));
      return expect(has_args(3) && same_lanes() && e.args[0].dtype == e.dtype &&
                        e.args[1].dtype == e.dtype && e.args[2].dtype == e.dtype,
                    e, "fma takes three values of its type");
    case Expr::Kind::reduce:
      KILN_RETURN_IF_ERROR(expect(has_args(1) && e.lanes == 1 && e.args[0].dtype == e.dtype, e,
                                  "reduce gives a scalar"));
      if (!is_vector_op(e.binary))
        return fail("reduce by " + std::string(binary_name(e.binary)));
      return operands(e.binary, e.dtype);
    case Expr::Kind::extract:
      return expect(has_args(1) && e.lanes == 1 && e.args[0].dtype == e.dtype && e.integer >= 0 &&
                        e.integer < e.args[0].lanes,
                    e, "extract names a lane of its operand");
    case Expr::Kind::concat: {
      int lanes = 0;
      bool same = !e.args.empty();
      for (const Expr &a : e.args) {
        lanes += a.lanes;
        same &= a.dtype == e.dtype;
      }
      return expect(same && lanes == e.lanes, e, "concat has the lanes of its operands");
    }
    case Expr::Kind::shuffle: {
      bool ok = has_args(2) && e.args[0].dtype == e.dtype && e.args[1].dtype == e.dtype &&
                e.args[0].lanes == e.args[1].lanes && int(e.lanes_map.size()) == e.lanes;
      for (int lane : e.lanes_map)
        ok = ok && lane >= 0 && lane < 2 * e.args[0].lanes;
      return expect(ok, e, "shuffle picks from the lanes of two equal operands");
    }
    }
    return fail("an unknown expression");
  }

  Status unary(const Expr &e) const {
    DType d = e.args[0].dtype;
    if (e.dtype != (e.unary == UnaryOp::is_nan ? DType::bool_ : d))
      return fail(std::string(unary_name(e.unary)) + " has the type of its operand");
    bool ok = false;
    switch (e.unary) {
    case UnaryOp::bit_not:
      ok = !is_float(d) && !is_narrow(d);
      break;
    case UnaryOp::neg:
    case UnaryOp::abs:
      ok = !is_bool(d) && !is_half(d);
      break;
    default:
      ok = d == DType::f32 || d == DType::f64;
      break;
    }
    if (!ok)
      return fail(std::string(unary_name(e.unary)) + " of " + std::string(dtype_name(d)));
    return Unit{};
  }

  Status operands(BinaryOp op, DType d) const {
    bool ok = !is_half(d);
    if (is_narrow(d) && (op == BinaryOp::eq || op == BinaryOp::ne))
      return Unit{};
    switch (op) {
    case BinaryOp::bit_and:
    case BinaryOp::bit_or:
    case BinaryOp::bit_xor:
      ok = ok && !is_float(d);
      break;
    case BinaryOp::shl:
    case BinaryOp::shr:
      ok = ok && is_integer(d);
      break;
    case BinaryOp::pow:
      ok = d == DType::f32 || d == DType::f64 || d == DType::u32 || d == DType::u64;
      break;
    case BinaryOp::atan2:
      ok = d == DType::f32 || d == DType::f64;
      break;
    default:
      ok = ok && (!is_bool(d) || is_comparison(op));
      break;
    }
    if (!ok)
      return fail(std::string(binary_name(op)) + " of " + std::string(dtype_name(d)));
    return Unit{};
  }

  Status binary(const Expr &e) const {
    DType d = e.args[0].dtype;
    if (e.dtype != (is_comparison(e.binary) ? DType::bool_ : d))
      return fail(std::string(binary_name(e.binary)) + " has the wrong result type");
    return operands(e.binary, d);
  }

  Status body(const std::vector<Stmt> &stmts, int depth) {
    if (depth > kMaxDepth)
      return fail("statements are nested more than " + std::to_string(kMaxDepth) + " deep");
    size_t mark = order_.size();
    for (const Stmt &s : stmts)
      KILN_RETURN_IF_ERROR(stmt(s, depth));
    while (order_.size() > mark) {
      names_.erase(order_.back());
      order_.pop_back();
    }
    return Unit{};
  }

  Status condition(const Expr &e, bool scalar) const {
    KILN_RETURN_IF_ERROR(expr(e, 0));
    return expect(e.dtype == DType::bool_ && (!scalar || e.lanes == 1), e, "a condition is a bool");
  }

  Status stmt(const Stmt &s, int depth) {
    if (!s.name.empty())
      where_ = text(s.name);
    switch (s.kind) {
    case Stmt::Kind::let:
      KILN_RETURN_IF_ERROR(expr(s.value, 0));
      if (s.dtype != s.value.dtype || s.lanes != s.value.lanes)
        return fail("a let has the type of its value");
      return declare(s.name, {Declared::Kind::let, s.dtype, s.lanes, Access::in, true});
    case Stmt::Kind::alloc:
      if (s.size < 0 || s.lanes < 1 || s.lanes > kMaxLanes || s.size > (int64_t(1) << 32))
        return fail("an alloc of a size out of range");
      return declare(s.name, {Declared::Kind::buffer, s.dtype, s.lanes, Access::inout, true});
    case Stmt::Kind::store:
      KILN_RETURN_IF_ERROR(expr(s.value, 0));
      return access(s.name, s.value.dtype, s.value.lanes, s.index, s.stride, s.count, true);
    case Stmt::Kind::loop:
      return loop(s, depth);
    case Stmt::Kind::if_:
      KILN_RETURN_IF_ERROR(condition(s.value, true));
      KILN_RETURN_IF_ERROR(body(s.body, depth + 1));
      return body(s.other, depth + 1);
    case Stmt::Kind::while_:
      KILN_RETURN_IF_ERROR(condition(s.value, true));
      return body(s.body, depth + 1);
    case Stmt::Kind::barrier:
      return Unit{};
    case Stmt::Kind::prefetch: {
      const Declared *b = find(s.name);
      if (!b || b->kind != Declared::Kind::buffer)
        return fail("'" + text(s.name) + "' is no buffer in scope");
      if (s.integer != 1 && s.integer != 2)
        return fail("prefetch into cache level 1 or 2");
      return dim(s.index, "an index");
    }
    case Stmt::Kind::assert_:
      return condition(s.value, false);
    }
    return fail("an unknown statement");
  }

  Status loop(const Stmt &s, int depth) {
    KILN_RETURN_IF_ERROR(dim(s.begin, "a loop's begin"));
    KILN_RETURN_IF_ERROR(dim(s.end, "a loop's end"));
    KILN_RETURN_IF_ERROR(dim(s.index, "a loop's turn"));
    if (s.step < 1)
      return fail("a loop's step is positive");
    if (!s.index.is_const(0) && s.loop != LoopKind::parallel && s.loop != LoopKind::threads)
      return fail("a loop that takes turns at its order is parallel or threads");
    if (s.integer < 0 || s.integer > (int64_t(1) << 30))
      return fail("a loop takes turns at its order on a number of threads");
    if (s.loop == LoopKind::unroll && !(s.begin.is_const() && s.end.is_const()))
      return fail("an unroll loop has constant bounds");
    bool threads = s.loop == LoopKind::threads;
    if (threads && loops_ > 0)
      return fail("a threads loop is outermost");
    ++loops_;
    size_t mark = order_.size();
    KILN_RETURN_IF_ERROR(declare(s.name, {}));
    KILN_RETURN_IF_ERROR(body(s.body, depth + 1));
    while (order_.size() > mark) {
      names_.erase(order_.back());
      order_.pop_back();
    }
    --loops_;
    return Unit{};
  }

  const Kernel &kernel_;
  std::unordered_map<Symbol, Declared> names_;
  std::vector<Symbol> order_;
  std::string where_;
  int loops_ = 0;
};

} // namespace

Status verify_kernel(const Kernel &kernel) {
  return Verifier(kernel).run();
}

} // namespace kiln
