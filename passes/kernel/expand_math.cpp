// exp, tanh, sin, pow, ... become polynomials and bit operations, written in front of the statement
// that uses them. After this pass a kernel holds primitive operations only.
#include "passes/kernel/math_builder.h"
#include "passes/kernel/schedule.h"

namespace kiln {
namespace {

bool is_expanded(const Expr &e) {
  if (e.is(Expr::Kind::unary))
    return !is_primitive(e.unary);
  bool float_remainder = e.is(Expr::Kind::binary) && e.binary == BinaryOp::rem && is_float(e.dtype);
  return float_remainder || (e.is(Expr::Kind::binary) && !is_primitive(e.binary));
}

bool needs_expansion(const Expr &e) {
  bool found = false;
  visit_exprs(e, [&](const Expr &x) { found = found || is_expanded(x); });
  return found;
}

class MathExpander {
public:
  explicit MathExpander(Kernel &kernel) : kernel_(kernel), names_(kernel) {}

  bool run() {
    body(kernel_.body);
    return changed_;
  }

private:
  void expr(Expr &e, MathBuilder &b) {
    for (Expr &a : e.args)
      expr(a, b);
    if (!is_expanded(e))
      return;
    if (e.is(Expr::Kind::unary)) {
      MathValue x{std::move(e.args[0])};
      bool wide = x.e.dtype == DType::f64;
      e = (wide ? math_unary_f64(e.unary, x, b) : math_unary_f32(e.unary, x, b)).e;
    } else {
      DType dtype = e.dtype;
      MathValue x = cast(DType::f64, {std::move(e.args[0])});
      MathValue y = cast(DType::f64, {std::move(e.args[1])});
      MathValue r = e.binary == BinaryOp::pow ? math_pow_f64(x, y, b)
                    : e.binary == BinaryOp::atan2
                        ? math_atan2_f64(x, y, b)
                        : math_rem_f64(x, b.bind(y), dtype == DType::f32, b);
      e = cast(dtype, r).e;
    }
  }

  // The value again, from statements in front of it.
  std::vector<Stmt> expanded(Expr &e) {
    std::vector<Stmt> out;
    MathBuilder b(names_, out);
    expr(e, b);
    changed_ = true;
    return out;
  }

  void body(std::vector<Stmt> &stmts) {
    std::vector<Stmt> out;
    for (Stmt &s : stmts) {
      body(s.body);
      body(s.other);
      if (needs_expansion(s.value)) {
        if (s.is(Stmt::Kind::while_)) {
          expand_while(s, out);
          continue;
        }
        for (Stmt &before : expanded(s.value))
          out.push_back(std::move(before));
      }
      out.push_back(std::move(s));
    }
    stmts = std::move(out);
  }

  // The condition is computed in front of the loop and again at the end of its body.
  void expand_while(Stmt &s, std::vector<Stmt> &out) {
    Symbol flag = names_.fresh("goes_on");
    Expr condition = s.value;
    std::vector<Stmt> first = expanded(condition);
    first.push_back(kb::store(flag, 0, std::move(condition)));
    std::vector<Stmt> again = first;
    rename_declarations(again, names_);
    out.push_back(kb::alloc(flag, DType::bool_, 1, 1, MemorySpace::reg));
    for (Stmt &x : first)
      out.push_back(std::move(x));
    for (Stmt &x : again)
      s.body.push_back(std::move(x));
    s.value = kb::load(flag, DType::bool_, 0);
    out.push_back(std::move(s));
  }

  Kernel &kernel_;
  Names names_;
  bool changed_ = false;
};

} // namespace

bool expand_math(Kernel &kernel, const MachineDesc &) {
  return MathExpander(kernel).run();
}

} // namespace kiln
