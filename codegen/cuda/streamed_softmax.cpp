#include "codegen/cuda/streamed_softmax.h"

#include "codegen/cuda/nest.h"

#include "ir/kernel/visit.h"

#include <algorithm>

namespace kiln::cuda {
namespace {

bool is_memory(const Stmt &s) { return s.is(Stmt::Kind::alloc) && s.space == MemorySpace::stack && s.dtype == DType::f32; }

bool updates(const std::vector<Stmt> &body, BinaryOp op, Symbol buffer) {
  return any_stmt(body, [&](const Stmt &s) {
    return is_loop(s, LoopKind::reduce) && any_stmt(s.body, [&](const Stmt &u) {
      return u.is(Stmt::Kind::store) && u.value.is(Expr::Kind::binary) && u.value.binary == op && u.value.args[1].is(Expr::Kind::load) && u.value.args[1].name == buffer;
    });
  });
}

// A product whose row loop may be missing, and whose columns are one loop.
std::optional<Product> product_of_rows(const Stmt &s) {
  if (!is_loop(s, LoopKind::parallel))
    return std::nullopt;
  auto p = match_product(s, true);
  bool fits = p && p->dtype == DType::f32 && p->batch.empty() && p->rows.size() <= 1 && p->columns.size() == 1 && p->init->value.number == 0;
  if (!fits || !are_normalised(p->rows) || !are_normalised(p->sum) || !are_normalised(p->columns))
    return std::nullopt;
  bool plain = std::all_of(p->after.begin(), p->after.end(), [&](const Stmt &a) {
    return a.is(Stmt::Kind::let) || (a.is(Stmt::Kind::store) && &a == &p->after.back());
  });
  return plain && p->after.back().is(Stmt::Kind::store) ? p : std::nullopt;
}

bool lets_alone(const std::vector<Stmt> &body, size_t end) {
  return std::all_of(body.begin(), body.begin() + long(end), [](const Stmt &s) { return s.is(Stmt::Kind::let); });
}

} // namespace

std::optional<StreamedSoftmax> match_streamed_softmax(const std::vector<Stmt> &body) {
  StreamedSoftmax out;
  size_t at = 0;
  std::vector<Symbol> memory;
  for (; at < body.size() && !is_loop(body[at], LoopKind::serial); ++at)
    if (is_memory(body[at]))
      memory.push_back(body[at].name);
    else if (body[at].is(Stmt::Kind::let))
      out.before.push_back(body[at]);
    else if (!is_loop(body[at], LoopKind::parallel) && !body[at].is(Stmt::Kind::store))
      return std::nullopt;
  if (at == body.size() || memory.size() != 3 || !is_normalised(body[at]))
    return std::nullopt;
  out.span = &body[at];

  // The span: scores, what is made of them, weighted values.
  const std::vector<Stmt> &turn = out.span->body;
  std::optional<Product> scores, values;
  Symbol weights;
  size_t first = 0;
  for (; first < turn.size() && !scores; ++first)
    if (turn[first].is(Stmt::Kind::let))
      out.inside.push_back(turn[first]);
    else if (is_loop(turn[first], LoopKind::parallel))
      scores = product_of_rows(turn[first]);
    else if (!is_memory(turn[first]))
      return std::nullopt;
  if (!scores || first == turn.size())
    return std::nullopt;
  values = product_of_rows(turn.back());
  weights = scores->after.back().name;
  if (!values || !values->a.is(Expr::Kind::load) || values->a.name != weights || reads(values->b, weights) || values->sum.size() != 1 || scores->rows.size() != values->rows.size())
    return std::nullopt;
  std::vector<Stmt> between(turn.begin() + long(first), turn.end() - 1);
  bool has_weights = any_stmt(between, [&](const Stmt &s) {
    return s.is(Stmt::Kind::store) && s.name == weights && s.value.is(Expr::Kind::unary) && s.value.unary == UnaryOp::exp && s.value.args[0].is(Expr::Kind::binary) &&
           s.value.args[0].binary == BinaryOp::sub && s.value.args[0].args[0].is(Expr::Kind::load) && s.value.args[0].args[0].name == weights;
  });
  if (!has_weights || !updates(between, BinaryOp::max, weights) || !updates(between, BinaryOp::add, weights))
    return std::nullopt;
  for (const Stmt &s : turn)
    if (is_memory(s) && s.name == weights)
      out.keys = s.size;
  out.weighted = values->after.back().name;

  // The last step, row by row.
  std::vector<Stmt> const *rest = &body;
  size_t from = at + 1;
  if (body.size() == from + 1 && is_loop(body[from], LoopKind::parallel) && !body[from].body.empty() && is_loop(body[from].body.back(), LoopKind::parallel)) {
    out.last_rows = &body[from];
    rest = &out.last_rows->body;
    from = 0;
  }
  if (from >= rest->size() || !is_loop(rest->back(), LoopKind::parallel) || bool(out.last_rows) != !scores->rows.empty())
    return std::nullopt;
  out.last.assign(rest->begin() + long(from), rest->end() - 1);
  out.last_columns = &rest->back();
  if (!lets_alone(out.last, out.last.size()) || !is_normalised(*out.last_columns) || (out.last_rows && !is_normalised(*out.last_rows)))
    return std::nullopt;
  const std::vector<Stmt> &column = out.last_columns->body;
  if (column.empty() || !lets_alone(column, column.size() - 1) || !column.back().is(Stmt::Kind::store))
    return std::nullopt;
  for (Symbol m : memory)
    if (m != out.weighted && std::any_of(out.last.begin(), out.last.end(), [&](const Stmt &s) { return reads(s.value, m); }))
      out.sums = m;
  const Dim count = out.last_rows ? out.last_rows->end : Dim(1);
  for (const Stmt &s : body)
    if (is_memory(s) && s.name == out.sums)
      out.rows = s.size;
  auto columns = constant(product_of(values->columns)), size = constant(product_of(scores->sum));
  bool agrees = out.rows > 0 && out.keys % out.rows == 0 && columns && size && out.last_columns->end == Dim(*columns) && product_of(scores->columns) == product_of(values->sum) &&
                (scores->rows.empty() || (extent_of(*scores->rows[0]) == extent_of(*out.last_rows) && extent_of(*values->rows[0]) == extent_of(*out.last_rows)));
  if (!agrees)
    return std::nullopt;
  out.keys /= out.rows;
  out.scores = std::move(*scores);
  out.values = std::move(*values);
  return out;
}

} // namespace kiln::cuda
