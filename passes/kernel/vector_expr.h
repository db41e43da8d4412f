// Scalar expressions of one loop iteration as vector expressions of `lanes` iterations.
#pragma once

#include "passes/kernel/rewrite.h"

#include <unordered_map>
#include <unordered_set>

namespace kiln {

// The element of a tile of vectors that stands for an element of a local buffer of scalars: the one
// at `index`, or at the access's own index.
struct TileSlot {
  Dim index;
  bool own_index = false;
};

struct VectorContext {
  Symbol var; // lane i is the iteration var + i
  int lanes = 1;
  std::optional<Dim>
      count; // iterations that exist, if fewer than `lanes` may; masks loads and stores
  // Names bound inside the loop whose values differ from lane to lane.
  std::unordered_set<Symbol> vector_lets;
  // Local buffers that became tiles of vectors.
  std::unordered_map<Symbol, TileSlot> tiles;
  // True where all lanes of a load lie inside the buffer even past `count`.
  std::function<bool(const Expr &load)> may_overread;
};

bool is_uniform(const Expr &e, const VectorContext &context); // the same in every lane

// The vector form; nothing where an index is not linear in the variable or e is a vector already.
std::optional<Expr> vector_expr(const Expr &e, const VectorContext &context);
// The vector form of a let, store or assert; other statements and scatters give nothing.
std::optional<Stmt> vector_stmt(const Stmt &s, VectorContext &context);
// Lanes below context.count, as a bool vector.
Expr lane_mask(const VectorContext &context);

// The bytes of the widest type that differs between lanes in the statements (at least 1).
int widest_bytes(const std::vector<Stmt> &body, Symbol var);

} // namespace kiln
