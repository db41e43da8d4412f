// Bounds and indices folded by what their symbols' ranges say, loops that run once or never,
// branches whose condition is known, lets and local buffers that nothing reads. Run before the
// other passes, so that they see plain bounds, and after them, to clean up.
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"

#include <algorithm>
#include <unordered_set>

namespace kiln {
namespace {

// A let-bound index may hold anything.
constexpr int64_t kAnyIndex = -(int64_t(1) << 60);

class Simplifier {
public:
  explicit Simplifier(Kernel &kernel)
      : kernel_(kernel), names_(kernel), ranges_(kernel_ranges(kernel)) {}

  bool run() {
    body(kernel_.body);
    while (remove_unused())
      changed_ = true;
    return changed_;
  }

private:
  void fold(Dim &d) {
    if (d.is_const())
      return;
    Dim s = simplify(d, ranges_);
    if (!(s == d)) {
      d = std::move(s);
      changed_ = true;
    }
  }

  void fold_count(std::optional<Dim> &count, int lanes) {
    if (!count)
      return;
    fold(*count);
    if (known_nonnegative(*count - Dim(lanes), ranges_)) {
      count.reset();
      changed_ = true;
    }
  }

  void expr(Expr &e) {
    if (e.is(Expr::Kind::index) || e.is(Expr::Kind::load)) {
      fold(e.index);
      fold(e.stride);
      fold_count(e.count, e.lanes);
    }
    for (Expr &a : e.args)
      expr(a);
    if (e.is(Expr::Kind::binary) && is_comparison(e.binary))
      fold_comparison(e);
  }

  void fold_comparison(Expr &e) {
    if (!e.args[0].is(Expr::Kind::index) || !e.args[1].is(Expr::Kind::index))
      return;
    const Dim a = e.args[0].index, b = e.args[1].index;
    auto at_least = [&](const Dim &x, const Dim &y) { return known_nonnegative(x - y, ranges_); };
    auto becomes = [&](bool value) {
      e = kb::boolean(value);
      changed_ = true;
    };
    if (e.binary == BinaryOp::lt) {
      if (at_least(b, a + Dim(1)))
        becomes(true);
      else if (at_least(a, b))
        becomes(false);
    } else if (e.binary == BinaryOp::le) {
      if (at_least(b, a))
        becomes(true);
      else if (at_least(a, b + Dim(1)))
        becomes(false);
    }
  }

  // Statements that take the place of `s`; nothing if `s` stays.
  std::optional<std::vector<Stmt>> replace(Stmt &s) {
    if (s.is(Stmt::Kind::loop)) {
      if (known_nonnegative(s.begin - s.end, ranges_))
        return std::vector<Stmt>();
      Dim trips = s.end - s.begin;
      if (trips.is_const() && trips.as_const() <= s.step && s.loop != LoopKind::threads) {
        substitute(s.body, s.name, s.begin);
        if (s.body.size() == 1 && is_loop(s.body[0], LoopKind::parallel) && s.body[0].index.is_const(0))
          keep_turn(s.body[0], s);
        rename_declarations(s.body, names_);
        return std::move(s.body);
      }
    } else if (s.is(Stmt::Kind::if_) && s.value.is(Expr::Kind::number)) {
      std::vector<Stmt> taken = std::move(s.value.integer ? s.body : s.other);
      rename_declarations(taken, names_);
      return taken;
    }
    return std::nullopt;
  }

  void body(std::vector<Stmt> &stmts) {
    size_t mark = ranges_.size();
    for (size_t i = 0; i < stmts.size();) {
      Stmt &s = stmts[i];
      if (!s.value.is(Expr::Kind::none))
        expr(s.value);
      fold(s.index);
      fold(s.stride);
      fold_count(s.count, s.value.lanes);
      fold(s.begin);
      fold(s.end);
      if (auto now = replace(s)) {
        changed_ = true;
        stmts.erase(stmts.begin() + long(i));
        stmts.insert(stmts.begin() + long(i), std::make_move_iterator(now->begin()),
                     std::make_move_iterator(now->end()));
        continue; // what was put here is folded in its turn
      }
      if (s.is(Stmt::Kind::let) && s.dtype == DType::i64 && s.lanes == 1)
        ranges_.set(s.name, s.value.is(Expr::Kind::index)
                                ? DimRange{s.value.index, s.value.index + Dim(1)}
                                : DimRange{Dim(kAnyIndex), std::nullopt});
      size_t inner = ranges_.size();
      if (s.is(Stmt::Kind::loop))
        push_loop(ranges_, s);
      body(s.body);
      body(s.other);
      ranges_.truncate(inner);
      ++i;
    }
    ranges_.truncate(mark);
  }

  bool remove_unused() {
    std::unordered_set<Symbol> used;
    for (const KernelBuffer &b : kernel_.buffers)
      used.insert(b.name);
    visit_dims(kernel_.body, [&](const Dim &d) {
      for (Symbol s : d.symbols())
        used.insert(s);
    });
    visit_exprs(kernel_.body, [&](const Expr &e) {
      if (!e.name.empty())
        used.insert(e.name);
    });
    return remove_unused(kernel_.body, used);
  }

  static bool remove_unused(std::vector<Stmt> &stmts, const std::unordered_set<Symbol> &used) {
    bool removed = false;
    for (Stmt &s : stmts) {
      removed |= remove_unused(s.body, used);
      removed |= remove_unused(s.other, used);
    }
    auto unused = [&](const Stmt &s) {
      switch (s.kind) {
      case Stmt::Kind::let:
      case Stmt::Kind::store:
      case Stmt::Kind::alloc:
      case Stmt::Kind::prefetch:
        return !used.count(s.name) && !s.is(Stmt::Kind::prefetch);
      case Stmt::Kind::loop:
        return s.body.empty();
      case Stmt::Kind::if_:
        return s.body.empty() && s.other.empty();
      default:
        return false;
      }
    };
    auto it = std::remove_if(stmts.begin(), stmts.end(), unused);
    removed |= it != stmts.end();
    stmts.erase(it, stmts.end());
    return removed;
  }

  Kernel &kernel_;
  Names names_;
  DimRanges ranges_;
  bool changed_ = false;
};

} // namespace

bool simplify_kernel(Kernel &kernel) {
  return Simplifier(kernel).run();
}

} // namespace kiln
