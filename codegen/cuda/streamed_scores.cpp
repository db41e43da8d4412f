#include "codegen/cuda/streamed_scores.h"

#include "codegen/cuda/vector_body.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kiln::cuda {
namespace {

// 1 where the value never falls as the symbol grows, -1 where it never rises, 0 without the symbol; nothing where that is not known.
std::optional<int> direction(const Dim &d, Symbol name) {
  int out = 0;
  for (const DimTerm &t : d.terms()) {
    bool moves = std::any_of(t.factors.begin(), t.factors.end(), [&](const DimAtom &a) {
      return a.kind == DimAtom::Kind::symbol ? a.symbol == name : a.args[0].depends_on(name) || a.args[1].depends_on(name);
    });
    if (!moves)
      continue;
    const DimAtom &atom = t.factors[0];
    std::optional<int> own = 1;
    if (atom.kind == DimAtom::Kind::floordiv && atom.args[1].is_const())
      own = direction(atom.args[0], name);
    else if (atom.kind != DimAtom::Kind::symbol)
      return std::nullopt;
    int way = own ? *own * (t.coefficient > 0 ? 1 : -1) : 0;
    if (t.factors.size() != 1 || !own || out * way < 0)
      return std::nullopt;
    out = way;
  }
  return out;
}

} // namespace

StreamedScores::StreamedScores(const StreamedSoftmax &s, const NestContext &context) : s_(s), context_(context), index_(context.index_type) {
  read_score();
  read_bands();
}

void StreamedScores::read_score() {
  score_ = s_.scores.after;
  auto number = [](const Expr &e) { return e.is(Expr::Kind::number) && e.number > 0 && e.number < 1e30 && e.lanes == 1; };
  auto factor = [&](Expr &e) {
    bool is_scaled = e.is(Expr::Kind::binary) && e.binary == BinaryOp::mul && e.args[0].is(Expr::Kind::load) && e.args[0].name == s_.scores.acc->name && number(e.args[1]);
    if (!is_scaled)
      return false;
    factor_ = e.args[1].number;
    e = Expr(e.args[0]);
    return true;
  };
  auto is_hidden = [](const Expr &e) { return e.is(Expr::Kind::number) && std::isinf(e.number) && e.number < 0; };
  bool is_one = score_.size() == 1 || (score_.size() == 2 && score_[1].value.is(Expr::Kind::var) && score_[1].value.name == score_[0].name);
  if (!is_one)
    return;
  Expr &e = score_[0].value;
  if (!factor(e) && e.is(Expr::Kind::select)) {
    if (is_hidden(e.args[2]))
      factor(e.args[1]);
    else if (is_hidden(e.args[1]))
      factor(e.args[2]);
  }
}

// Choices by a comparison that holds for all later queries and earlier keys where it holds.
void StreamedScores::read_bands() {
  if (s_.scores.rows.empty())
    return;
  Symbol row = s_.scores.rows[0]->name, key = s_.scores.columns[0]->name;
  seen_ = score_;
  visit_exprs(seen_, [&](Expr &e) {
    if (!e.is(Expr::Kind::select) || !e.args[0].is(Expr::Kind::binary))
      return;
    const Expr &c = e.args[0];
    if ((c.binary != BinaryOp::lt && c.binary != BinaryOp::le) || !c.args[0].is(Expr::Kind::index) || !c.args[1].is(Expr::Kind::index))
      return;
    // less(early, late): by how much `late` is more.
    Dim more = c.args[1].index - c.args[0].index;
    auto by_row = direction(more, row), by_key = direction(more, key);
    if (!by_row || !by_key || *by_key == 0 || *by_row == *by_key)
      return;
    bool holds = *by_key < 0; // for late queries and early keys
    // What is left of the sum where nothing is added to -inf but numbers.
    const Expr other = e.args[holds ? 2 : 1], &whole = seen_[0].value;
    bool is_last = &e == &whole || (whole.is(Expr::Kind::binary) && whole.binary == BinaryOp::add && (&e == &whole.args[0] || &e == &whole.args[1]));
    bool names_it = seen_.size() == 1 || (seen_.size() == 2 && seen_[1].value.is(Expr::Kind::var) && seen_[1].value.name == seen_[0].name);
    bands_.push_back({c, holds, is_last && names_it && other.is(Expr::Kind::number) && std::isinf(other.number) && other.number < 0});
    e = Expr(e.args[holds ? 1 : 2]);
  });
}

// Whether a mask hides nothing from a row at a key and before it; whether it hides all behind a row from a key on.
std::string StreamedScores::bands(c::Helpers &helpers) const {
  std::string all, some;
  for (const Band &b : bands_) {
    std::string text = fmt::format("{}({})", b.holds ? "" : "!", c::c_expr(b.condition, helpers));
    all += fmt::format("{}{}", all.empty() ? "" : " && ", text);
    if (b.is_infinite)
      some += fmt::format("{}{}", some.empty() ? "" : " && ", text);
  }
  std::string head = fmt::format("(const {0} {1}, const int kiln_row, const int kiln_column) -> bool {{\n{2}{3}{4}      return ", index_, c::c_name(s_.span->name), c::c_body(s_.inside, 3, style(), helpers),
                                 coordinates(s_.scores.rows, "kiln_row", context_, helpers, "      "), coordinates(s_.scores.columns, "kiln_column", context_, helpers, "      "));
  std::string text = bands_.empty() ? "" : fmt::format("    auto kiln_sees_all = [&]{}{};\n    }};\n", head, all);
  if (!some.empty())
    text += fmt::format("    auto kiln_sees_some = [&]{}{};\n    }};\n    while (kiln_spans > 0 && !kiln_sees_some(kiln_spans - 1, kiln_rows - 1, 0))\n      --kiln_spans;\n", head, some);
  return text;
}

std::string StreamedScores::functions(c::Helpers &helpers) const {
  std::string text = function("kiln_score", score_, helpers);
  if (!bands_.empty())
    text += function("kiln_seen_score", seen_, helpers);
  return text;
}

// What is made of the sums of two neighbouring keys.
std::string StreamedScores::function(std::string_view name, const std::vector<Stmt> &score, c::Helpers &helpers) const {
  const Symbol sums("kiln_sums"), out("kiln_scores");
  Stmt columns = *s_.scores.columns.back();
  columns.body = score;
  columns.end = Dim(s_.keys);
  bool has_loads = false;
  visit_exprs(columns.body, [&](Expr &e) {
    if (e.is(Expr::Kind::load) && e.name == s_.scores.acc->name)
      e = kb::load(sums, e.dtype, Dim::symbol(lane_));
    else
      has_loads |= e.is(Expr::Kind::load) || e.is(Expr::Kind::gather);
  });
  columns.body.back().name = out;
  columns.body.back().index = Dim::symbol(lane_);
  std::string text = fmt::format("    auto {2} = [&](const {0} {1}, const int kiln_keys, const int kiln_row, const int kiln_column, float &kiln_low, float &kiln_high) {{\n"
                                 "      const float kiln_given[2] = {{kiln_low, kiln_high}};\n      float v_kiln_scores[2] = {{-INFINITY, -INFINITY}};\n      const float *const v_kiln_sums = kiln_given;\n",
                                 index_, c::c_name(s_.span->name), name);
  text += c::c_body(s_.inside, 3, style(), helpers) + coordinates(s_.scores.rows, "kiln_row", context_, helpers, "      ");
  if (!s_.scores.rows.empty())
    text += fmt::format("      (void){};\n", c::c_name(s_.scores.rows[0]->name));
  bool pairs = vector_width(columns, false, {sums, out}, context_) >= 2;
  std::string variable = c::c_name(columns.name), both, each;
  if (pairs)
    both = fmt::format("        const {0} {1} = kiln_column;\n{2}", index_, variable, vector_turn(columns, 2, 4, {sums, out}, context_, helpers));
  each = fmt::format("#pragma unroll\n        for (int {0} = 0; {0} < 2; ++{0}) {{\n          const {1} {2} = kiln_column + {0};\n          (void){2};\n", c::c_name(lane_), index_, variable);
  std::string one = c::c_body(columns.body, 5, style(), helpers);
  if (!has_loads)
    text += each + one + "        }\n";
  else if (pairs)
    text += fmt::format("      if (kiln_row < kiln_rows && kiln_column + 1 < kiln_keys) {{\n{}      }} else {{\n{}          if (kiln_row >= kiln_rows || kiln_column + {} >= kiln_keys)\n            break;\n{}        }}\n      }}\n", both, each, c::c_name(lane_),
                        one);
  else
    text += each + fmt::format("          if (kiln_row >= kiln_rows || kiln_column + {} >= kiln_keys)\n            break;\n", c::c_name(lane_)) + one + "        }\n";
  return text + "      kiln_low = v_kiln_scores[0];\n      kiln_high = v_kiln_scores[1];\n    };\n";
}

} // namespace kiln::cuda
