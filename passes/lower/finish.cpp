// What is done to a naive kernel before it leaves lowering: loops split where indices ask for it, names
// made canonical, sizes and work estimated.
#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"
#include "passes/lower/kernel_lowering.h"

#include <algorithm>
#include <map>
#include <set>

namespace kiln {
namespace {

using AtomKind = DimAtom::Kind;

// Constants b for which (v + ...) / b or % b stands in d, where v has the coefficient 1 there.
void collect_divisors(const Dim &d, std::map<Symbol, std::set<int64_t>> &divisors) {
  for (const DimTerm &term : d.terms())
    for (const DimAtom &factor : term.factors) {
      if (factor.args.empty())
        continue;
      const Dim &numerator = factor.args[0], &divisor = factor.args[1];
      bool divides = factor.kind == AtomKind::floordiv || factor.kind == AtomKind::mod;
      if (divides && divisor.is_const() && divisor.as_const() > 1)
        if (auto symbol = numerator.try_symbol())
          divisors[*symbol].insert(divisor.as_const());
      for (const Dim &arg : factor.args)
        collect_divisors(arg, divisors);
    }
}

struct Splitter {
  const std::map<Symbol, std::set<int64_t>> &divisors;
  DimRanges ranges;
  int next = 0;

  void run(std::vector<Stmt> &body) {
    for (Stmt &s : body) {
      if (!s.is(Stmt::Kind::loop)) {
        run(s.body);
        run(s.other);
        continue;
      }
      auto it = divisors.find(s.name);
      bool splits = it != divisors.end() && s.begin.is_const(0) && s.step == 1 &&
                    known_nonnegative(s.end - Dim(*it->second.begin()), ranges);
      if (splits)
        split(s, *it->second.begin());
      ranges.set(s.name, {s.begin, s.end});
      run(s.body);
    }
  }

  // The smallest divisor; where larger multiples are asked for as well, the outer loop splits again.
  void split(Stmt &s, int64_t by) {
    Symbol outer(std::string(s.name.text()) + ".o" + std::to_string(next)),
        inner(std::string(s.name.text()) + ".l" + std::to_string(next));
    ++next;
    Dim o = Dim::symbol(outer), l = Dim::symbol(inner);
    auto extent = s.end.try_const();
    Dim inner_end = extent && *extent % by == 0 ? Dim(by) : min(by, s.end - o * Dim(by));
    DimRanges inside = ranges;
    inside.set(outer, {0, ceildiv(s.end, by)});
    inside.set(inner, {0, Dim(by)});
    std::vector<Stmt> body = std::move(s.body);
    visit_dims(body, [&](Dim &d) {
      if (d.depends_on(s.name))
        d = simplify(d.substitute(s.name, o * Dim(by) + l), inside);
    });
    Stmt loop = kb::loop(inner, 0, inner_end, s.loop, std::move(body));
    s.name = outer;
    s.end = ceildiv(s.end, by);
    s.body.clear();
    s.body.push_back(std::move(loop));
  }
};

void simplify_all(std::vector<Stmt> &body, DimRanges &ranges) {
  for (Stmt &s : body) {
    auto here = [&](Dim &d) {
      if (!d.is_const())
        d = simplify(d, ranges);
    };
    std::vector<Stmt> inner = std::move(s.body), other = std::move(s.other);
    s.body.clear();
    s.other.clear();
    visit_dims(s, here);
    size_t before = ranges.size();
    if (s.is(Stmt::Kind::loop))
      ranges.set(s.name, {s.begin, s.end});
    simplify_all(inner, ranges);
    simplify_all(other, ranges);
    ranges.truncate(before);
    s.body = std::move(inner);
    s.other = std::move(other);
  }
}

void collect_symbols(const std::vector<Stmt> &body, std::set<Symbol> &used, std::set<Symbol> &defined) {
  auto &mutable_body = const_cast<std::vector<Stmt> &>(body);
  visit_dims(mutable_body, [&](Dim &d) {
    for (Symbol s : d.symbols())
      used.insert(s);
  });
  visit_stmts(mutable_body, [&](Stmt &s) {
    if (s.is(Stmt::Kind::loop) || s.is(Stmt::Kind::let))
      defined.insert(s.name);
  });
}

DimRanges dim_ranges(const Kernel &kernel) {
  std::set<Symbol> used, defined;
  collect_symbols(kernel.body, used, defined);
  DimRanges ranges;
  for (Symbol s : used)
    if (!defined.contains(s))
      ranges.set(s, {Dim(1), std::nullopt});
  return ranges;
}

// Iterations of a loop, taking the wider side of clamped bounds, without loop variables.
Dim loop_extent(const Stmt &s, const std::set<Symbol> &defined) {
  std::function<Dim(const Dim &, bool)> widen = [&](const Dim &d, bool upper) -> Dim {
    if (d.terms().size() == 1 && d.constant_part() == 0 && d.terms()[0].coefficient == 1 &&
        d.terms()[0].factors.size() == 1) {
      const DimAtom &atom = d.terms()[0].factors[0];
      if (atom.kind == AtomKind::min && upper)
        return atom.args[0].is_const() ? atom.args[0] : atom.args[1];
      if (atom.kind == AtomKind::max && !upper)
        return atom.args[0].is_const() ? atom.args[0] : atom.args[1];
    }
    return d;
  };
  Dim extent = widen(s.end, true) - widen(s.begin, false);
  extent = extent.substitute([&](Symbol symbol) -> std::optional<Dim> {
    return defined.contains(symbol) ? std::optional<Dim>(0) : std::nullopt;
  });
  return s.step > 1 ? ceildiv(extent, s.step) : extent;
}

int64_t expr_flops(const Expr &e) {
  int64_t flops = 0;
  for (const Expr &arg : e.args)
    flops += expr_flops(arg);
  switch (e.kind) {
  case Expr::Kind::binary:
    return flops + (is_primitive(e.binary) ? 1 : 20) * e.lanes;
  case Expr::Kind::unary:
    return flops + (is_primitive(e.unary) ? 1 : 10) * e.lanes;
  case Expr::Kind::fma:
    return flops + 2 * e.lanes;
  default:
    return flops;
  }
}

Dim body_flops(const std::vector<Stmt> &body, const std::set<Symbol> &defined) {
  Dim flops = 0;
  for (const Stmt &s : body) {
    Dim inner = body_flops(s.body, defined) + body_flops(s.other, defined);
    flops += s.is(Stmt::Kind::loop) ? inner * loop_extent(s, defined) : inner;
    if (!s.value.is(Expr::Kind::none))
      flops += expr_flops(s.value);
  }
  return flops;
}

// Elements of each buffer that are loaded or stored, counted as often as they are.
void count_accesses(const std::vector<Stmt> &body, const std::set<Symbol> &defined, const Dim &times,
                    std::map<Symbol, Dim> &counts) {
  std::function<void(const Expr &)> visit = [&](const Expr &e) {
    if (e.is(Expr::Kind::load) || e.is(Expr::Kind::gather))
      counts[e.name] += times * Dim(e.lanes);
    for (const Expr &arg : e.args)
      visit(arg);
  };
  for (const Stmt &s : body) {
    visit(s.value);
    if (s.is(Stmt::Kind::store))
      counts[s.name] += times * Dim(s.value.lanes);
    Dim inner = s.is(Stmt::Kind::loop) ? times * loop_extent(s, defined) : times;
    count_accesses(s.body, defined, inner, counts);
    count_accesses(s.other, defined, inner, counts);
  }
}

// A buffer is touched once, or as often as something looks at it: of a table, the rows looked up.
void estimate_bytes(Kernel &kernel, const std::set<Symbol> &defined) {
  std::map<Symbol, Dim> counts;
  DimRanges ranges = dim_ranges(kernel);
  count_accesses(kernel.body, defined, 1, counts);
  kernel.bytes = 0;
  for (const KernelBuffer &b : kernel.buffers) {
    Dim touched = b.size, accesses = counts[b.name];
    if (known_nonnegative(touched - accesses, ranges))
      touched = accesses;
    kernel.bytes += touched * Dim(dtype_bytes(b.dtype));
  }
}

} // namespace

void split_loops(Kernel &kernel) {
  // A split can show further divisions (a variable over 768 used as / 64 and % 16), so repeat.
  for (int round = 0; round < 4; ++round) {
    DimRanges ranges = dim_ranges(kernel);
    simplify_all(kernel.body, ranges);
    std::map<Symbol, std::set<int64_t>> divisors;
    visit_dims(kernel.body, [&](Dim &d) { collect_divisors(d, divisors); });
    std::set<Symbol> loops;
    visit_stmts(kernel.body, [&](Stmt &s) {
      if (s.is(Stmt::Kind::loop))
        loops.insert(s.name);
    });
    std::erase_if(divisors, [&](const auto &entry) { return !loops.contains(entry.first); });
    if (divisors.empty())
      return;
    Splitter{divisors, dim_ranges(kernel), round * 1000}.run(kernel.body);
  }
}

void rename_symbols(Kernel &kernel) {
  std::map<Symbol, Symbol> names;
  std::set<Symbol> used, defined;
  collect_symbols(kernel.body, used, defined);
  int counts[3] = {};
  auto name = [&](int &count, char stem) {
    Symbol out;
    do
      out = Symbol(stem + std::to_string(count++));
    while (used.contains(out) && !defined.contains(out)); // a dim of the model has that name
    return out;
  };
  visit_stmts(kernel.body, [&](Stmt &s) {
    if (names.contains(s.name))
      return;
    if (s.is(Stmt::Kind::loop))
      names.emplace(s.name, name(counts[0], 'i'));
    else if (s.is(Stmt::Kind::let))
      names.emplace(s.name, name(counts[1], 't'));
    else if (s.is(Stmt::Kind::alloc))
      names.emplace(s.name, name(counts[2], 'a'));
  });
  auto rename = [&](Symbol &s) {
    if (auto it = names.find(s); it != names.end())
      s = it->second;
  };
  visit_dims(kernel.body, [&](Dim &d) {
    if (!d.is_const())
      d = d.substitute([&](Symbol s) -> std::optional<Dim> {
        auto it = names.find(s);
        return it == names.end() ? std::nullopt : std::optional(Dim::symbol(it->second));
      });
  });
  visit_exprs(kernel.body, [&](Expr &e) { rename(e.name); });
  visit_stmts(kernel.body, [&](Stmt &s) { rename(s.name); });
}

void finish_kernel(Kernel &kernel) {
  std::set<Symbol> used, defined;
  collect_symbols(kernel.body, used, defined);
  for (const KernelBuffer &b : kernel.buffers)
    for (Symbol s : b.size.symbols())
      used.insert(s);
  kernel.dims.clear();
  for (Symbol s : used)
    if (!defined.contains(s))
      kernel.dims.push_back(s);
  kernel.flops = body_flops(kernel.body, defined);
  estimate_bytes(kernel, defined);
}

} // namespace kiln
