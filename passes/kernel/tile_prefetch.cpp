#include "passes/kernel/tile_prefetch.h"

#include <algorithm>
#include <functional>

namespace kiln {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kMinPrefetchedTrips = 64;

// Counts the rounds of all loops inside the group's loop, the fastest last.
struct RoundCounter {
  Dim number = 0;
  int64_t count = 1;
  bool known = true;

  void add(const Dim &position, const Dim &trips) {
    auto n = trips.try_const();
    if (!n || *n <= 0) {
      known = false;
      return;
    }
    number = number * Dim(*n) + position;
    count *= *n;
  }
};

} // namespace

bool is_packed(const Expr &e, const TileNest &nest, const Kernel &kernel) {
  const KernelBuffer *b = e.is(Expr::Kind::load) ? kernel.find_buffer(e.name) : nullptr;
  return b && (b->constant || (nest.panel && b->access == Access::in));
}

std::vector<Stmt> prefetch_ahead(const Expr &operand, Symbol loop, const TileNest &nest, const TileShape &shape, const Kernel &kernel, const TileFrame &frame) {
  if (shape.prefetch_steps == 0 || !is_packed(operand, nest, kernel) || !operand.index.depends_on(loop))
    return {};
  Dim ahead = operand.index.substitute(loop, Dim::symbol(loop) + Dim(shape.prefetch_steps));
  // One line holds the vectors of a panel; without panels every vector is taken to be a line.
  if (nest.panel)
    return frame.over_panels(wrap(kb::prefetch(operand.name, ahead.substitute(nest.vector_loop().name, 0), 1)));
  return frame.over_vectors(wrap(kb::prefetch(operand.name, ahead, 1)));
}

std::vector<Stmt> prefetch_added(const std::vector<Stmt> &body, const TileNest &nest, const TileShape &shape, const Kernel &kernel, const TileFrame &frame) {
  auto last = std::find_if(body.rbegin(), body.rend(), [](const Stmt &s) { return s.is(Stmt::Kind::loop); });
  auto trips = last == body.rend() ? std::nullopt : trip_count(*last).try_const();
  if (shape.prefetch_steps == 0 || !nest.row || !trips || *trips < kMinPrefetchedTrips)
    return {};
  Symbol row = nest.loops[*nest.row].name;
  std::vector<Expr> asked;
  visit_exprs({last.base(), body.end()}, [&](const Expr &e) {
    if (!e.is(Expr::Kind::load) || !kernel.find_buffer(e.name) || !e.index.depends_on(row) ||
        std::find(asked.begin(), asked.end(), e) != asked.end())
      return;
    auto step = e.index.coefficient_of(nest.vector_loop().name);
    if (step && step->is_const(1))
      asked.push_back(e);
  });
  std::vector<Stmt> out;
  for (const Expr &e : asked)
    append(out, frame.over_rows(frame.over_columns(wrap(kb::prefetch(e.name, e.index, 1)))));
  return out;
}

std::vector<Stmt> prefetch_next_group(const Expr &operand, const TileNest &nest, int64_t steps, const TilePlace &place) {
  if (!nest.panel || !operand.is(Expr::Kind::load) || place.reductions.empty())
    return {};
  const Stmt &panel = nest.loops[*nest.panel];
  auto stride = operand.index.coefficient_of(panel.name);
  if (!stride || !stride->is_const() || trip_count(panel).is_const(place.panels))
    return {};
  const int64_t panel_size = stride->as_const();

  // Steps of the innermost reduction, so that the number is linear in its variable.
  RoundCounter rounds;
  for (size_t i = *nest.panel + 1; i < nest.loops.size(); ++i) {
    const Stmt &l = nest.loops[i];
    if (i != nest.vector && !(nest.row && i == *nest.row))
      rounds.add(Dim::symbol(l.name) - l.begin, trip_count(l));
  }
  if (nest.row)
    rounds.add(Dim::symbol(place.tile), place.row_tiles);
  // How often a reduction runs follows from how its steps divide the panel: it may be cut short.
  std::vector<int64_t> sizes{panel_size};
  for (const Stmt &r : place.reductions) {
    auto step = operand.index.coefficient_of(r.name);
    if (!step || !step->is_const() || step->as_const() <= 0)
      return {};
    sizes.push_back(step->as_const());
  }
  std::vector<int64_t> larger = sizes;
  std::sort(larger.begin(), larger.end(), std::greater<>());
  const int64_t block = nest.block * std::max(1, nest.dot_width);
  if (larger[0] != panel_size || larger.back() != block)
    return {};
  int64_t piece_size = 0;
  for (size_t i = 0; i < place.reductions.size(); ++i) {
    const Stmt &r = place.reductions[i];
    auto at = std::find(larger.begin() + 1, larger.end(), sizes[i + 1]);
    if (at[-1] % *at != 0)
      return {};
    bool cut = place.cut && r.begin.depends_on(place.cut->piece);
    if (cut && at[-1] != panel_size)
      return {};
    if (cut)
      rounds.add(Dim::symbol(r.name) - place.cut->begin(), place.cut->steps);
    else
      rounds.add(Dim::symbol(r.name), at[-1] / *at);
    if (cut)
      piece_size = *at * place.cut->steps;
  }
  if (!rounds.known)
    return {};

  Dim base = operand.index.substitute([&](Symbol s) -> std::optional<Dim> {
    if (s == nest.vector_loop().name)
      return Dim(0);
    for (const Stmt &r : place.reductions)
      if (s == r.name)
        return Dim(0);
    return std::nullopt;
  });
  // The whole of the next group is one stretch of memory; the next piece of this one, or the first
  // of the next, is one in each panel.
  std::vector<Dim> stretches;
  int64_t length = panel_size * place.panels;
  if (!place.cut) {
    stretches.push_back(base.substitute(panel.name, place.next_panel));
  } else {
    length = piece_size;
    Dim next = Dim::symbol(place.cut->piece) + Dim(1), last = floordiv(next, place.cut->pieces());
    Dim ahead = (Dim(1) - last) * next * Dim(piece_size) + last * Dim(panel_size * place.panels);
    for (int64_t p = 0; p < place.panels; ++p)
      stretches.push_back(base.substitute(panel.name, place.next_panel + Dim(p - place.panels)) +
                          ahead);
  }

  // Elements for each step, at most a line for each step and panel / 2.
  int64_t line = kLineBytes / int64_t(dtype_bytes(operand.dtype));
  int64_t per_step = (length + rounds.count - 1) / rounds.count;
  int64_t per_round = per_step * steps;
  int64_t lines = (per_round + line - 1) / line;
  if (lines * int64_t(stretches.size()) > std::max<int64_t>(2, steps * place.panels / 2))
    return {};
  std::vector<Stmt> out;
  for (const Dim &start : stretches)
    for (int64_t i = 0; i < lines; ++i)
      out.push_back(kb::prefetch(
          operand.name, start + rounds.number * Dim(per_step) + Dim(i * per_round / lines), 2));
  return out;
}

} // namespace kiln
