#include "passes/kernel/expand.h"

namespace kiln {
namespace {

class Expander {
public:
  Expander(Kernel &kernel, const std::function<bool(const Expr &)> &needs,
           const std::function<void(Expr &, MathBuilder &)> &rewrite)
      : names_(kernel), needs_(needs), rewrite_(rewrite) {}

  void body(std::vector<Stmt> &stmts) {
    std::vector<Stmt> out;
    for (Stmt &s : stmts) {
      body(s.body);
      body(s.other);
      if (!s.value.is(Expr::Kind::none) && found(s.value)) {
        if (s.is(Stmt::Kind::while_)) {
          expand_while(s, out);
          continue;
        }
        for (Stmt &before : expanded(s.value))
          out.push_back(std::move(before));
        if (s.is(Stmt::Kind::let))
          s.dtype = s.value.dtype;
      }
      out.push_back(std::move(s));
    }
    stmts = std::move(out);
  }

  bool changed() const { return changed_; }

private:
  bool found(const Expr &e) const {
    bool out = false;
    visit_exprs(e, [&](const Expr &x) { out = out || needs_(x); });
    return out;
  }

  // The value again, from statements in front of it.
  std::vector<Stmt> expanded(Expr &e) {
    std::vector<Stmt> out;
    MathBuilder b(names_, out);
    rewrite_(e, b);
    changed_ = true;
    return out;
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

  Names names_;
  const std::function<bool(const Expr &)> &needs_;
  const std::function<void(Expr &, MathBuilder &)> &rewrite_;
  bool changed_ = false;
};

} // namespace

bool expand_values(Kernel &kernel, const std::function<bool(const Expr &)> &needs,
                   const std::function<void(Expr &, MathBuilder &)> &rewrite) {
  Expander expander(kernel, needs, rewrite);
  expander.body(kernel.body);
  return expander.changed();
}

} // namespace kiln
