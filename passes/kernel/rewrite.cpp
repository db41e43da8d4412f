#include "passes/kernel/rewrite.h"

#include <unordered_map>

namespace kiln {

Names::Names(const Kernel &kernel) {
  for (const KernelBuffer &b : kernel.buffers)
    used_.insert(b.name);
  for (Symbol d : kernel.dims)
    used_.insert(d);
  visit_stmts(kernel.body, [&](const Stmt &s) { used_.insert(s.name); });
}

Symbol Names::fresh(std::string_view stem) {
  // Stems do not pile up: a name derived from "m.1" is "m.2".
  size_t dot = stem.rfind('.');
  if (dot != std::string_view::npos && dot > 0 && dot + 1 < stem.size() &&
      stem.find_first_not_of("0123456789", dot + 1) == std::string_view::npos)
    stem = stem.substr(0, dot);
  for (int i = 1;; ++i) {
    Symbol s(std::string(stem) + "." + std::to_string(i));
    if (used_.insert(s).second)
      return s;
  }
}

void visit_exprs(const Expr &e, const std::function<void(const Expr &)> &f) {
  f(e);
  for (const Expr &a : e.args)
    visit_exprs(a, f);
}

void visit_stmts(const std::vector<Stmt> &body, const std::function<void(const Stmt &)> &f) {
  for (const Stmt &s : body) {
    f(s);
    visit_stmts(s.body, f);
    visit_stmts(s.other, f);
  }
}

void visit_exprs(const std::vector<Stmt> &body, const std::function<void(const Expr &)> &f) {
  visit_stmts(body, [&](const Stmt &s) {
    if (!s.value.is(Expr::Kind::none))
      visit_exprs(s.value, f);
  });
}

void visit_dims(const std::vector<Stmt> &body, const std::function<void(const Dim &)> &f) {
  visit_stmts(body, [&](const Stmt &s) {
    f(s.index);
    f(s.stride);
    if (s.count)
      f(*s.count);
    f(s.begin);
    f(s.end);
  });
  visit_exprs(body, [&](const Expr &e) {
    f(e.index);
    f(e.stride);
    if (e.count)
      f(*e.count);
  });
}

void substitute(Expr &e, const SymbolMap &map) {
  if (e.is(Expr::Kind::index) || e.is(Expr::Kind::load)) {
    e.index = e.index.substitute(map);
    e.stride = e.stride.substitute(map);
    if (e.count)
      e.count = e.count->substitute(map);
  }
  for (Expr &a : e.args)
    substitute(a, map);
}

void substitute(Stmt &s, const SymbolMap &map) {
  if (s.is(Stmt::Kind::loop)) {
    s.index = s.index.substitute(map);
    s.begin = s.begin.substitute(map);
    s.end = s.end.substitute(map);
  } else if (s.is(Stmt::Kind::store) || s.is(Stmt::Kind::prefetch)) {
    s.index = s.index.substitute(map);
    s.stride = s.stride.substitute(map);
    if (s.count)
      s.count = s.count->substitute(map);
  }
  substitute(s.value, map);
  substitute(s.body, map);
  substitute(s.other, map);
}

void substitute(std::vector<Stmt> &body, const SymbolMap &map) {
  for (Stmt &s : body)
    substitute(s, map);
}

void substitute(std::vector<Stmt> &body, Symbol name, const Dim &value) {
  substitute(body, [&](Symbol s) { return s == name ? std::optional(value) : std::nullopt; });
}

bool depends_on(const Expr &e, Symbol name) {
  if (e.is(Expr::Kind::var) && e.name == name)
    return true;
  if (e.is(Expr::Kind::index) || e.is(Expr::Kind::load))
    if (e.index.depends_on(name) || e.stride.depends_on(name) ||
        (e.count && e.count->depends_on(name)))
      return true;
  for (const Expr &a : e.args)
    if (depends_on(a, name))
      return true;
  return false;
}

bool depends_on(const std::vector<Stmt> &body, Symbol name) {
  bool found = false;
  visit_dims(body, [&](const Dim &d) { found = found || d.depends_on(name); });
  visit_exprs(body,
              [&](const Expr &e) { found = found || (e.is(Expr::Kind::var) && e.name == name); });
  return found;
}

namespace {

using Renames = std::unordered_map<Symbol, Symbol>;

void rename(Expr &e, const Renames &to) {
  if (auto it = to.find(e.name); it != to.end())
    e.name = it->second;
  for (Expr &a : e.args)
    rename(a, to);
}

void rename(std::vector<Stmt> &body, const Renames &to) {
  for (Stmt &s : body) {
    if (auto it = to.find(s.name); it != to.end())
      s.name = it->second;
    rename(s.value, to);
    rename(s.body, to);
    rename(s.other, to);
  }
}

} // namespace

void rename_declarations(std::vector<Stmt> &body, Names &names) {
  Renames to;
  visit_stmts(body, [&](const Stmt &s) {
    if (s.is(Stmt::Kind::let) || s.is(Stmt::Kind::alloc) || s.is(Stmt::Kind::loop))
      if (!to.count(s.name))
        to[s.name] = names.fresh(s.name.text());
  });
  if (to.empty())
    return;
  rename(body, to);
  substitute(body, [&](Symbol s) {
    auto it = to.find(s);
    return it == to.end() ? std::nullopt : std::optional(Dim::symbol(it->second));
  });
}

DimRanges kernel_ranges(const Kernel &kernel) {
  DimRanges out;
  for (Symbol d : kernel.dims)
    out.set(d, {Dim(0), std::nullopt});
  return out;
}

void push_loop(DimRanges &ranges, const Stmt &loop) {
  ranges.set(loop.name, {loop.begin, loop.end});
}

} // namespace kiln
