// Walking kernel IR: every Dim, every expression, every statement of a body, in order.
#pragma once

#include "ir/kernel/kernel.h"

#include <functional>

namespace kiln {

// f(Dim&) for every index, stride, count and bound, in statements and in the expressions below them.
template <typename F>
void visit_dims(Expr &e, const F &f) {
  if (e.is(Expr::Kind::index) || e.is(Expr::Kind::load)) {
    f(e.index);
    if (e.is(Expr::Kind::load)) {
      f(e.stride);
      if (e.count)
        f(*e.count);
    }
  }
  for (Expr &arg : e.args)
    visit_dims(arg, f);
}

template <typename F>
void visit_dims(Stmt &s, const F &f) {
  visit_dims(s.value, f);
  if (s.is(Stmt::Kind::store) || s.is(Stmt::Kind::prefetch)) {
    f(s.index);
    f(s.stride);
    if (s.count)
      f(*s.count);
  }
  if (s.is(Stmt::Kind::loop)) {
    f(s.index);
    f(s.begin);
    f(s.end);
  }
  for (Stmt &inner : s.body)
    visit_dims(inner, f);
  for (Stmt &inner : s.other)
    visit_dims(inner, f);
}

template <typename F>
void visit_dims(std::vector<Stmt> &body, const F &f) {
  for (Stmt &s : body)
    visit_dims(s, f);
}

// f(Expr&) for every expression, arguments before the expression they belong to.
template <typename F>
void visit_exprs(Expr &e, const F &f) {
  for (Expr &arg : e.args)
    visit_exprs(arg, f);
  f(e);
}

template <typename F>
void visit_exprs(std::vector<Stmt> &body, const F &f) {
  for (Stmt &s : body) {
    if (!s.value.is(Expr::Kind::none))
      visit_exprs(s.value, f);
    visit_exprs(s.body, f);
    visit_exprs(s.other, f);
  }
}

// f(Stmt&) for every statement, outer before inner.
template <typename F>
void visit_stmts(std::vector<Stmt> &body, const F &f) {
  for (Stmt &s : body) {
    f(s);
    visit_stmts(s.body, f);
    visit_stmts(s.other, f);
  }
}

} // namespace kiln
