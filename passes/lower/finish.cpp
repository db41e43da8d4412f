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

// What loops and lets stand for in an estimate: the middle of a loop, the value of a let.
using Estimates = std::map<Symbol, Dim>;

Dim estimate(const Dim &d, const Estimates &estimates) {
  if (d.is_const())
    return d;
  return d.substitute([&](Symbol symbol) -> std::optional<Dim> {
    auto it = estimates.find(symbol);
    return it == estimates.end() ? std::nullopt : std::optional(it->second);
  });
}

Dim loop_extent(const Stmt &s, const Estimates &estimates) {
  Dim extent = estimate(s.end - s.begin, estimates);
  return s.step > 1 ? ceildiv(extent, s.step) : extent;
}

void collect_estimates(const std::vector<Stmt> &body, Estimates &estimates) {
  for (const Stmt &s : body) {
    if (s.is(Stmt::Kind::loop))
      estimates[s.name] = estimate(s.begin, estimates) +
                          floordiv(loop_extent(s, estimates) - Dim(1), 2) * Dim(s.step);
    else if (s.is(Stmt::Kind::let) && s.dtype == DType::i64)
      estimates[s.name] =
          s.value.is(Expr::Kind::index) ? estimate(s.value.index, estimates) : Dim(0);
    collect_estimates(s.body, estimates);
    collect_estimates(s.other, estimates);
  }
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

// Of the two sides of a condition the second, the general case, counts.
Dim body_flops(const std::vector<Stmt> &body, const Estimates &estimates) {
  Dim flops = 0;
  for (const Stmt &s : body) {
    Dim inner = body_flops(s.other.empty() ? s.body : s.other, estimates);
    flops += s.is(Stmt::Kind::loop) ? inner * loop_extent(s, estimates) : inner;
    if (!s.value.is(Expr::Kind::none))
      flops += expr_flops(s.value);
  }
  return flops;
}

// Elements of each buffer that are loaded or stored, counted as often as they are.
void count_accesses(const std::vector<Stmt> &body, const Estimates &estimates, const Dim &times,
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
    Dim inner = s.is(Stmt::Kind::loop) ? times * loop_extent(s, estimates) : times;
    count_accesses(s.body, estimates, inner, counts);
    count_accesses(s.other, estimates, inner, counts);
  }
}

// A buffer is touched once, or as often as something looks at it: of a table, the rows looked up.
void estimate_bytes(Kernel &kernel, const Estimates &estimates) {
  std::map<Symbol, Dim> counts;
  DimRanges ranges = dim_ranges(kernel);
  count_accesses(kernel.body, estimates, 1, counts);
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
  Estimates estimates;
  collect_estimates(kernel.body, estimates);
  kernel.flops = body_flops(kernel.body, estimates);
  estimate_bytes(kernel, estimates);
}

} // namespace kiln
