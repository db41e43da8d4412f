#include "codegen/cuda/sums.h"

#include "codegen/cuda/nest.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::cuda {
namespace {

bool is_assoc(BinaryOp op) {
  return op == BinaryOp::add || op == BinaryOp::mul || op == BinaryOp::min || op == BinaryOp::max || op == BinaryOp::bit_and ||
         op == BinaryOp::bit_or || op == BinaryOp::bit_xor;
}

// acc[0] = op(acc[0], term), or a fused product added to it.
std::optional<Update> as_update(const Stmt &s) {
  if (!s.is(Stmt::Kind::store) || !s.index.is_const(0))
    return std::nullopt;
  const Expr &v = s.value;
  auto is_acc = [&](const Expr &e) { return e.is(Expr::Kind::load) && e.name == s.name && e.index.is_const(0); };
  if (v.is(Expr::Kind::fma) && is_acc(v.args[2]) && !reads(v.args[0], s.name) && !reads(v.args[1], s.name))
    return Update{s.name, BinaryOp::add, v.dtype};
  if (v.is(Expr::Kind::binary) && is_assoc(v.binary) && is_acc(v.args[0]) && !reads(v.args[1], s.name))
    return Update{s.name, v.binary, v.dtype};
  return std::nullopt;
}

} // namespace

std::vector<Update> updates_of(const std::vector<Stmt> &body) {
  std::vector<Update> out;
  for (const Stmt &s : body) {
    if (s.is(Stmt::Kind::let) || s.is(Stmt::Kind::assert_))
      continue;
    auto update = as_update(s);
    if (!update || std::any_of(out.begin(), out.end(), [&](const Update &u) { return u.acc == update->acc; }))
      return {};
    out.push_back(*update);
  }
  for (const Stmt &s : body)
    for (const Update &u : out)
      if (s.name != u.acc && !s.value.is(Expr::Kind::none) && reads(s.value, u.acc))
        return {};
  return out;
}

std::string identity_text(const Update &u) {
  std::string type = c::c_type(u.dtype);
  auto limit = [&](bool least) {
    if (is_float(u.dtype))
      return std::string(least ? "-INFINITY" : "INFINITY");
    if (is_bool(u.dtype))
      return std::string(least ? "0" : "1");
    std::string stem = fmt::format("{}INT{}", is_unsigned_int(u.dtype) ? "U" : "", dtype_bits(u.dtype));
    return least ? (is_unsigned_int(u.dtype) ? "0" : stem + "_MIN") : stem + "_MAX";
  };
  switch (u.op) {
  case BinaryOp::mul:
    return fmt::format("({})1", type);
  case BinaryOp::min:
    return fmt::format("({}){}", type, limit(false));
  case BinaryOp::max:
    return fmt::format("({}){}", type, limit(true));
  case BinaryOp::bit_and:
    return fmt::format("({}){}", type, is_bool(u.dtype) ? "1" : "~0ull");
  default:
    return fmt::format("({})0", type);
  }
}

std::string join_text(const Update &u, c::Helpers &helpers) {
  auto value = [&](std::string_view name) {
    Expr e;
    e.kind = Expr::Kind::var;
    e.dtype = u.dtype;
    e.name = Symbol(name);
    return e;
  };
  Expr joined;
  joined.kind = Expr::Kind::binary;
  joined.binary = u.op;
  joined.dtype = u.dtype;
  joined.args = {value("a"), value("b")};
  return c::c_expr(joined, helpers);
}

} // namespace kiln::cuda
