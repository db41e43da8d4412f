#include "codegen/cuda/product.h"

#include <algorithm>
#include <functional>
#include <map>

namespace kiln::cuda {
namespace {

bool uses(const Dim &d, Symbol name) { return d.depends_on(name); }

bool uses(const Expr &e, Symbol name) {
  bool here = ((e.is(Expr::Kind::load) || e.is(Expr::Kind::index)) && uses(e.index, name)) || (e.is(Expr::Kind::var) && e.name == name);
  return here || std::any_of(e.args.begin(), e.args.end(), [&](const Expr &arg) { return uses(arg, name); });
}

Expr inline_lets(Expr e, const std::map<Symbol, Expr> &lets) {
  if (e.is(Expr::Kind::var))
    if (auto it = lets.find(e.name); it != lets.end())
      return it->second;
  for (Expr &arg : e.args)
    arg = inline_lets(std::move(arg), lets);
  return e;
}

// The loop that moves an operand by one becomes the fastest.
void put_last(Loops &loops, const std::function<bool(Symbol)> &is_fast) {
  auto it = std::find_if(loops.begin(), loops.end(), [&](const Stmt *l) { return is_fast(l->name); });
  if (it != loops.end())
    std::rotate(it, it + 1, loops.end());
}

// What the first load that a loop moves by one moves by with each loop; nothing where there is none.
const Expr *find_fast_load(const Expr &e, const Loops &loops) {
  if (e.is(Expr::Kind::load) && std::any_of(loops.begin(), loops.end(), [&](const Stmt *l) {
        auto step = e.index.coefficient_of(l->name);
        return step && step->is_const(1);
      }))
    return &e;
  for (const Expr &arg : e.args)
    if (const Expr *found = find_fast_load(arg, loops))
      return found;
  return nullptr;
}

// The loops in the order in which the operand's elements follow each other, the fastest last, as far as they do: the sixteen
// channels of a pixel before its neighbour.
void order_by_runs(Loops &loops, const Expr &operand) {
  const Expr *load = find_fast_load(operand, loops);
  if (!load)
    return;
  Loops run;
  for (Dim length = 1;;) {
    auto it = std::find_if(loops.begin(), loops.end(), [&](const Stmt *l) {
      return is_normalised(*l) && load->index.coefficient_of(l->name) == length;
    });
    if (it == loops.end())
      break;
    length *= (*it)->end;
    run.insert(run.begin(), *it);
    loops.erase(it);
  }
  loops.insert(loops.end(), run.begin(), run.end());
}

} // namespace

bool moves_by_one(const Expr &e, Symbol loop) {
  if (e.is(Expr::Kind::load)) {
    auto step = e.index.coefficient_of(loop);
    if (step && step->is_const(1))
      return true;
  }
  return std::any_of(e.args.begin(), e.args.end(), [&](const Expr &arg) { return moves_by_one(arg, loop); });
}

std::optional<Product> match_product(const Stmt &nest, bool may_be_row) {
  Loops outer = perfect_nest(nest, LoopKind::parallel);
  const std::vector<Stmt> &body = outer.back()->body;
  if (body.size() < 4 || !body[0].is(Stmt::Kind::alloc) || body[0].space != MemorySpace::reg || body[0].size != 1 ||
      !body[1].is(Stmt::Kind::store) || body[1].name != body[0].name || !body[1].value.is(Expr::Kind::number) || !is_loop(body[2], LoopKind::reduce))
    return std::nullopt;
  Product out;
  out.acc = &body[0];
  out.init = &body[1];
  out.dtype = body[0].dtype;
  for (size_t i = 3; i < body.size(); ++i) {
    if (!body[i].is(Stmt::Kind::let) && !body[i].is(Stmt::Kind::store) && !body[i].is(Stmt::Kind::if_))
      return std::nullopt;
    out.after.push_back(body[i]);
  }
  out.sum = perfect_nest(body[2], LoopKind::reduce);
  for (const Stmt *s : out.sum)
    for (const Stmt *o : outer)
      if (uses(s->begin, o->name) || uses(s->end, o->name))
        return std::nullopt;
  std::map<Symbol, Expr> lets;
  const std::vector<Stmt> &inner = out.sum.back()->body;
  for (size_t i = 0; i + 1 < inner.size(); ++i) {
    if (!inner[i].is(Stmt::Kind::let) || inner[i].dtype == DType::i64)
      return std::nullopt;
    lets[inner[i].name] = inline_lets(inner[i].value, lets);
  }
  const Stmt &update = inner.back();
  if (!update.is(Stmt::Kind::store) || update.name != out.acc->name)
    return std::nullopt;
  const Expr &v = update.value;
  auto is_acc = [&](const Expr &e) { return e.is(Expr::Kind::load) && e.name == out.acc->name; };
  const Expr *a = nullptr, *b = nullptr;
  if (v.is(Expr::Kind::fma) && is_acc(v.args[2])) {
    a = &v.args[0], b = &v.args[1];
  } else if (v.is(Expr::Kind::binary) && v.binary == BinaryOp::add && is_acc(v.args[0])) {
    Expr term = inline_lets(v.args[1], lets);
    if (!term.is(Expr::Kind::binary) || term.binary != BinaryOp::mul)
      return std::nullopt;
    out.a = term.args[0];
    out.b = term.args[1];
  } else {
    return std::nullopt;
  }
  if (a)
    out.a = inline_lets(*a, lets), out.b = inline_lets(*b, lets);
  for (const Stmt *l : outer) {
    bool in_a = uses(out.a, l->name), in_b = uses(out.b, l->name);
    (in_a && !in_b ? out.rows : in_b && !in_a ? out.columns : out.batch).push_back(l);
  }
  if ((out.rows.empty() && !may_be_row) || out.columns.empty())
    return std::nullopt;
  // Neighbouring columns are neighbours in the result.
  const Stmt &result = out.after.back();
  auto moves_result = [&](Symbol loop) {
    auto step = result.is(Stmt::Kind::store) ? result.index.coefficient_of(loop) : std::nullopt;
    return step && step->is_const(1);
  };
  if (std::any_of(out.rows.begin(), out.rows.end(), [&](const Stmt *l) { return moves_result(l->name); })) {
    std::swap(out.rows, out.columns);
    std::swap(out.a, out.b);
  }
  put_last(out.columns, moves_result);
  bool a_is_fast = find_fast_load(out.a, out.sum) != nullptr;
  order_by_runs(out.sum, a_is_fast ? out.a : out.b);
  if (!a_is_fast)
    order_by_runs(out.rows, out.a);
  return out;
}

bool take_edges(Product &p, const Rectangle &rectangle) {
  auto moves = [](const Guard &g, const Loops &loops) {
    return std::any_of(loops.begin(), loops.end(), [&](const Stmt *l) { return g.value.depends_on(l->name) || (g.limit && g.limit->depends_on(l->name)); });
  };
  for (const Guard &g : rectangle.guards) {
    bool by_rows = moves(g, p.rows), by_columns = moves(g, p.columns);
    bool is_linear = std::all_of(p.sum.begin(), p.sum.end(), [&](const Stmt *l) { return !g.value.depends_on(l->name) || g.value.coefficient_of(l->name); });
    if ((by_rows && by_columns) || !is_linear)
      return false;
    (by_columns ? p.b_edges : p.a_edges).guards.push_back(g);
  }
  if (!rectangle.ragged)
    return true;
  for (auto [loops, count] : {std::pair(&p.rows, &p.a_edges.count), std::pair(&p.columns, &p.b_edges.count)})
    if (loops->size() == 2 && (*loops)[0]->name == rectangle.ragged->outer && (*loops)[1]->name == rectangle.ragged->inner)
      *count = rectangle.ragged->total;
  return p.a_edges.count || p.b_edges.count;
}

void take_narrow(Product &p, const GpuMachine &machine) {
  auto byte = [](const Expr &e) {
    return e.is(Expr::Kind::convert) && e.args[0].is(Expr::Kind::load) && (e.args[0].dtype == DType::i8 || e.args[0].dtype == DType::u8);
  };
  if (p.dtype == DType::i32 && machine.has_byte_tiles && byte(p.a) && byte(p.b)) {
    p.a = Expr(p.a.args[0]);
    p.b = Expr(p.b.args[0]);
    p.narrow = p.a.dtype;
  }
  auto narrow = [](const Expr &e) {
    return e.is(Expr::Kind::convert) && e.dtype == DType::f32 && e.args[0].is(Expr::Kind::load) &&
           (e.args[0].dtype == DType::bf16 || e.args[0].dtype == DType::f16);
  };
  // Numbers that tf32 has all bits of.
  auto short_number = [&](const Expr &e) {
    return narrow(e) || (e.is(Expr::Kind::convert) && e.dtype == DType::f32 && byte(e));
  };
  if (p.dtype != DType::f32 || !machine.has_half_tiles)
    return;
  p.is_exact = short_number(p.a) && short_number(p.b);
  if (machine.rounds_products || p.is_exact)
    p.narrow = DType::f32;
  if (!narrow(p.a) || !narrow(p.b) || p.a.args[0].dtype != p.b.args[0].dtype)
    return;
  p.a = Expr(p.a.args[0]);
  p.b = Expr(p.b.args[0]);
  p.narrow = p.a.dtype;
}

} // namespace kiln::cuda
