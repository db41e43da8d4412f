// What every kernel pass needs: walking, substituting and naming.
#pragma once

#include "ir/kernel/build.h"

#include <functional>
#include <string>
#include <string_view>
#include <unordered_set>

namespace kiln {

// Names that are free in a kernel. The same kernel gives the same names in every run.
class Names {
public:
  explicit Names(const Kernel &kernel);
  Symbol fresh(std::string_view stem);

private:
  std::unordered_set<Symbol> used_;
};

using SymbolMap = std::function<std::optional<Dim>(Symbol)>;

void visit_exprs(const Expr &e, const std::function<void(const Expr &)> &f); // e and all below
void visit_exprs(const std::vector<Stmt> &body, const std::function<void(const Expr &)> &f);
void visit_stmts(const std::vector<Stmt> &body, const std::function<void(const Stmt &)> &f);
// Every Dim that stands in the statements, indices, bounds and counts alike.
void visit_dims(const std::vector<Stmt> &body, const std::function<void(const Dim &)> &f);

void substitute(Expr &e, const SymbolMap &map);
void substitute(Stmt &s, const SymbolMap &map);
void substitute(std::vector<Stmt> &body, const SymbolMap &map);
void substitute(std::vector<Stmt> &body, Symbol name, const Dim &value);

bool depends_on(const Expr &e, Symbol name);
bool depends_on(const std::vector<Stmt> &body, Symbol name);

// Renames everything the statements declare, so that a second copy can stand beside them.
void rename_declarations(std::vector<Stmt> &body, Names &names);

// The value ranges of a kernel's dims; push_loop adds a loop's variable.
DimRanges kernel_ranges(const Kernel &kernel);
void push_loop(DimRanges &ranges, const Stmt &loop);

inline bool is_loop(const Stmt &s, LoopKind kind) {
  return s.is(Stmt::Kind::loop) && s.loop == kind;
}
// `to` has iterations of `from`, and their order.
inline void keep_turn(Stmt &to, const Stmt &from) {
  to.index = from.index;
  to.integer = from.integer;
}
// Iterations of a loop of step 1.
inline Dim trip_count(const Stmt &loop) {
  return loop.end - loop.begin;
}

} // namespace kiln
