#include "codegen/cuda/kept_rows.h"

#include "codegen/cuda/sums.h"
#include "codegen/cuda/vector_body.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace kiln::cuda {
namespace {

constexpr int kMostThreads = 1024;
constexpr int64_t kShortest = 8; // elements that are a row
constexpr int64_t kThreadBytes = KeptRows::kThreadBytes;
constexpr int64_t kReserved = 4096;  // shared memory of a block that joins parts of sums
constexpr int64_t kLittle = 8 << 10; // bytes of rows that all groups load, and find in the caches anyway

// A loop over a row, directly in the body.
struct RowLoop {
  size_t at; // in the body
  std::vector<const Stmt *> nest;
  std::set<Symbol> accumulators;
  int64_t count = 0;
};

// An element of a buffer, by the number of an iteration, whatever loops count it.
struct Place {
  Symbol buffer;
  Dim index;
  friend bool operator==(const Place &, const Place &) = default;
};
struct Row {
  Place place;
  DType dtype;
  std::vector<size_t> loops;  // that use it
  bool is_own = false;        // memory of the nest, which these loops fill
  bool is_of_turn = true;     // not the same for all iterations of the outer loops
  int slot = 0;
};

Symbol flat_symbol() { return Symbol("kiln_flat"); }

// The number of an iteration, of its coordinates.
Dim flat_of(const std::vector<const Stmt *> &nest) {
  Dim flat = 0;
  for (const Stmt *l : nest)
    flat = flat * l->end + Dim::symbol(l->name);
  return flat;
}

// The same the other way around: no quotients where the nest's loops are one as far as the index goes.
Dim by_flat(const Dim &index, const std::vector<const Stmt *> &nest) {
  Dim flat = Dim::symbol(flat_symbol()), rest = index;
  auto step = index.coefficient_of(nest.back()->name);
  Dim inner = 1;
  bool is_one = step.has_value();
  for (size_t i = nest.size(); i-- > 0 && is_one;) {
    auto c = index.coefficient_of(nest[i]->name);
    is_one = c && *c == *step * inner;
    inner *= nest[i]->end;
    rest = rest.substitute(nest[i]->name, Dim(0));
  }
  if (is_one)
    return rest + *step * flat;
  Dim at = flat, out = index;
  for (size_t i = nest.size(); i-- > 0;) {
    out = out.substitute(nest[i]->name, i == 0 ? at : mod(at, nest[i]->end));
    at = floordiv(at, nest[i]->end);
  }
  return out;
}

bool stores_to(const std::vector<Stmt> &body, size_t first, size_t last, Symbol buffer) {
  bool found = false;
  std::vector<Stmt> between(body.begin() + ptrdiff_t(first), body.begin() + ptrdiff_t(last) + 1);
  visit_stmts(between, [&](const Stmt &s) { found |= s.is(Stmt::Kind::store) && s.name == buffer; });
  return found;
}

class Finder {
public:
  Finder(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const NestContext &context)
      : outer_(outer), body_(body), context_(context) {
    for (const Stmt &s : body)
      if (s.is(Stmt::Kind::alloc) && s.space == MemorySpace::reg && s.size == 1)
        own_.insert(s.name);
    for (size_t i = 0; i < body.size(); ++i)
      if (auto loop = row_loop(i))
        loops_.push_back(std::move(*loop));
  }

  KeptRows find() {
    KeptRows best;
    std::set<int64_t> counts;
    for (const RowLoop &l : loops_)
      counts.insert(l.count);
    for (int64_t count : counts) {
      KeptRows kept = of_count(count);
      if (kept.element_bytes * kept.count > best.element_bytes * best.count)
        best = std::move(kept);
    }
    if (!best.any())
      best.body = body_;
    return best;
  }

private:
  // Loops whose iterations any thread may do, with nothing inside but lets and stores.
  std::optional<RowLoop> row_loop(size_t at) const {
    const Stmt &s = body_[at];
    if (!is_loop(s, LoopKind::parallel) && !is_loop(s, LoopKind::reduce))
      return std::nullopt;
    RowLoop out{at, perfect_nest(s, s.loop), {}};
    Dim total = product_of(out.nest);
    bool is_fixed = total.is_const() && std::all_of(out.nest.begin(), out.nest.end(), [](const Stmt *l) { return is_normalised(*l) && l->end.is_const(); });
    if (!is_fixed || total.as_const() < kShortest)
      return std::nullopt;
    out.count = total.as_const();
    const std::vector<Stmt> &inside = out.nest.back()->body;
    if (!std::all_of(inside.begin(), inside.end(), [](const Stmt &i) { return i.is(Stmt::Kind::let) || i.is(Stmt::Kind::store) || i.is(Stmt::Kind::assert_); }))
      return std::nullopt;
    if (s.loop == LoopKind::reduce) {
      std::vector<Update> updates = updates_of(inside);
      for (const Update &u : updates)
        out.accumulators.insert(u.acc);
      if (updates.empty() || !std::includes(own_.begin(), own_.end(), out.accumulators.begin(), out.accumulators.end()))
        return std::nullopt;
    }
    return out;
  }

  // The place that a load of the loop reads, if it moves with the loop and is known before it.
  std::optional<Place> place_of(const Expr &e, const RowLoop &loop) const {
    if (!e.is(Expr::Kind::load) || e.lanes != 1 || e.count)
      return std::nullopt;
    bool moves = std::any_of(loop.nest.begin(), loop.nest.end(), [&](const Stmt *l) { return e.index.depends_on(l->name); });
    bool is_known = std::none_of(loop.nest.back()->body.begin(), loop.nest.back()->body.end(), [&](const Stmt &s) {
      return s.is(Stmt::Kind::let) && e.index.depends_on(s.name);
    });
    if (!moves || !is_known)
      return std::nullopt;
    return Place{e.name, by_flat(e.index, loop.nest)};
  }

  // What several loops of that many iterations load and none of them, nor what stands between them, writes.
  std::vector<Row> loaded_rows(int64_t count) const {
    std::vector<Row> out;
    for (size_t i = 0; i < loops_.size(); ++i) {
      if (loops_[i].count != count)
        continue;
      std::vector<Stmt> inside = loops_[i].nest.back()->body;
      visit_exprs(inside, [&](const Expr &e) {
        auto place = e.is(Expr::Kind::load) && context_.kernel.find_buffer(e.name) ? place_of(e, loops_[i]) : std::nullopt;
        if (!place)
          return;
        auto it = std::find_if(out.begin(), out.end(), [&](const Row &r) { return r.place == *place; });
        if (it == out.end()) {
          bool is_of_turn = outer_.empty() || std::any_of(outer_.begin(), outer_.end(), [&](const Stmt *l) { return place->index.depends_on(l->name); });
          it = out.insert(out.end(), Row{*place, e.dtype, {}, false, is_of_turn});
        }
        if (it->loops.empty() || it->loops.back() != i)
          it->loops.push_back(i);
      });
    }
    std::erase_if(out, [&](const Row &r) {
      return r.loops.size() < 2 || stores_to(body_, loops_[r.loops.front()].at, loops_[r.loops.back()].at, r.place.buffer);
    });
    return out;
  }

  // Memory of the nest's own of which an iteration uses its own element alone, in loops of that many iterations.
  std::vector<Row> own_rows(int64_t count) const {
    std::vector<Row> out;
    for (const Stmt &s : body_) {
      if (!s.is(Stmt::Kind::alloc) || s.size < count || s.lanes != 1)
        continue;
      Row row{{s.name, Dim::symbol(flat_symbol())}, s.dtype, {}, true};
      size_t uses = uses_of(s.name, body_), found = 0;
      for (size_t i = 0; i < loops_.size(); ++i) {
        std::vector<Stmt> inside = loops_[i].nest.back()->body;
        size_t before = found;
        visit_exprs(inside, [&](const Expr &e) { found += place_of(e, loops_[i]) == row.place; });
        visit_stmts(inside, [&](const Stmt &i_) { found += is_store_to(i_, row.place, loops_[i]); });
        if (found > before)
          row.loops.push_back(i);
      }
      bool fits = !row.loops.empty() && uses == found && std::all_of(row.loops.begin(), row.loops.end(), [&](size_t i) { return loops_[i].count == count; });
      if (fits)
        out.push_back(std::move(row));
    }
    return out;
  }

  static size_t uses_of(Symbol buffer, std::vector<Stmt> body) {
    size_t uses = 0;
    visit_exprs(body, [&](const Expr &e) { uses += (e.is(Expr::Kind::load) || e.is(Expr::Kind::gather)) && e.name == buffer; });
    visit_stmts(body, [&](const Stmt &s) { uses += (s.is(Stmt::Kind::store) || s.is(Stmt::Kind::prefetch)) && s.name == buffer; });
    return uses;
  }
  static bool is_store_to(const Stmt &s, const Place &place, const RowLoop &loop) {
    return s.is(Stmt::Kind::store) && s.name == place.buffer && !s.count && s.value.lanes == 1 && by_flat(s.index, loop.nest) == place.index;
  }

  KeptRows of_count(int64_t count) const {
    KeptRows out;
    std::vector<Row> kept, rows = own_rows(count), loaded = loaded_rows(count);
    // What other iterations load too comes last, and only where it is little.
    std::stable_partition(loaded.begin(), loaded.end(), [](const Row &r) { return r.is_of_turn; });
    rows.insert(rows.end(), loaded.begin(), loaded.end());
    bool has_others = false;
    std::vector<Stmt> all = body_;
    visit_stmts(all, [&](const Stmt &s) {
      has_others |= s.is(Stmt::Kind::alloc) && s.size > 1 && std::none_of(rows.begin(), rows.end(), [&](const Row &r) { return r.place.buffer == s.name; });
    });
    // What is computed with 64 bits needs more registers beside the rows.
    bool is_wide = std::any_of(rows.begin(), rows.end(), [](const Row &r) { return dtype_bytes(r.dtype) == 8; });
    int64_t in_registers = kThreadBytes * kMostThreads / (is_wide ? 2 : 1);
    int64_t room = has_others ? in_registers : std::max(in_registers, context_.machine.block_shared_bytes - kReserved);
    for (const Row &row : rows) {
      kept.push_back(row);
      int64_t bytes = count * take_slots(kept);
      if (bytes > (row.is_of_turn ? room : kLittle))
        kept.pop_back();
    }
    if (kept.empty())
      return out;
    out.count = count;
    out.element_bytes = take_slots(kept);
    out.in_registers = out.element_bytes * count <= in_registers;
    out.width = width_of(kept);
    rewrite(kept, out);
    return out;
  }

  // Slots for rows, of which a later one takes that of one that the same loop uses last; the bytes of an element of all.
  int64_t take_slots(std::vector<Row> &rows) const {
    struct Slot {
      int64_t bytes;
      std::vector<const Row *> users;
    };
    std::vector<Slot> slots;
    int64_t sum = 0;
    for (Row &r : rows) {
      int64_t bytes = int64_t(dtype_bytes(r.dtype));
      auto is_free = [&](const Slot &s) {
        return s.bytes == bytes && std::all_of(s.users.begin(), s.users.end(), [&](const Row *u) {
          return u->loops.back() < r.loops.front() || r.loops.back() < u->loops.front() || gives_way(*u, r) || gives_way(r, *u);
        });
      };
      auto it = std::find_if(slots.begin(), slots.end(), is_free);
      if (it == slots.end()) {
        it = slots.insert(slots.end(), Slot{bytes, {}});
        sum += bytes;
      }
      it->users.push_back(&r);
      r.slot = int(it - slots.begin());
    }
    return sum;
  }

  // Whether `before` is read for the last time in the loop that fills `after`, and no later than that is stored.
  bool gives_way(const Row &before, const Row &after) const {
    if (before.loops.back() != after.loops.front() || !after.is_own)
      return false;
    const RowLoop &loop = loops_[after.loops.front()];
    bool is_filled = false, is_late = false;
    for (const Stmt &s : loop.nest.back()->body) {
      std::vector<Stmt> one{s};
      visit_exprs(one, [&](const Expr &e) { is_late |= is_filled && place_of(e, loop) == before.place; });
      is_late |= is_store_to(s, before.place, loop);
      is_filled |= is_store_to(s, after.place, loop);
    }
    return !is_late;
  }

  int width_of(const std::vector<Row> &kept) const {
    std::set<size_t> users;
    for (const Row &l : kept)
      users.insert(l.loops.begin(), l.loops.end());
    int width = 16;
    for (size_t i : users)
      width = std::min(width, vector_width(*loops_[i].nest.back(), false, loops_[i].accumulators, context_));
    return width;
  }

  void rewrite(const std::vector<Row> &kept, KeptRows &out) const {
    auto name_of = [&](const Row &r) { return Symbol(fmt::format("kiln_row{}", &r - kept.data())); };
    for (const Row &r : kept)
      out.rows[name_of(r)] = {r.dtype, r.slot};
    size_t next = 0;
    for (size_t at = 0; at < body_.size(); ++at) {
      Stmt s = body_[at];
      if (s.is(Stmt::Kind::alloc) && std::any_of(kept.begin(), kept.end(), [&](const Row &r) { return r.place.buffer == s.name; }))
        continue;
      if (next < loops_.size() && loops_[next].at == at) {
        size_t loop = next++;
        std::vector<Stmt> loads;
        for (const Row &r : kept) {
          if (r.loops.front() != loop)
            continue;
          out.body.push_back(kb::alloc(name_of(r), r.dtype, out.count, 1, MemorySpace::reg));
          if (!r.is_own)
            loads.push_back(kb::store(name_of(r), flat_of(loops_[loop].nest), kb::load(r.place.buffer, r.dtype, index_in(r, loops_[loop]))));
        }
        if (!loads.empty())
          out.body.push_back(nest_with(loops_[loop].nest, std::move(loads)));
        replace(s, loops_[loop], kept, name_of);
      }
      out.body.push_back(std::move(s));
    }
  }

  // The index as that loop has it.
  Dim index_in(const Row &r, const RowLoop &loop) const {
    std::optional<Dim> out;
    std::vector<Stmt> inside = loop.nest.back()->body;
    visit_exprs(inside, [&](const Expr &e) {
      if (!out && place_of(e, loop) == r.place)
        out = e.index;
    });
    return *out;
  }

  static Stmt nest_with(const std::vector<const Stmt *> &nest, std::vector<Stmt> body) {
    for (size_t i = nest.size(); i-- > 0;)
      body = {kb::loop(nest[i]->name, nest[i]->begin, nest[i]->end, LoopKind::parallel, std::move(body))};
    return std::move(body[0]);
  }

  template <typename F>
  void replace(Stmt &s, const RowLoop &loop, const std::vector<Row> &kept, const F &name_of) const {
    std::vector<Stmt> whole{std::move(s)};
    visit_exprs(whole, [&](Expr &e) {
      auto place = place_of(e, loop);
      auto it = std::find_if(kept.begin(), kept.end(), [&](const Row &r) { return place && r.place == *place; });
      if (it != kept.end())
        e = kb::load(name_of(*it), e.dtype, flat_of(loop.nest));
    });
    visit_stmts(whole, [&](Stmt &i) {
      auto it = std::find_if(kept.begin(), kept.end(), [&](const Row &r) { return r.is_own && is_store_to(i, r.place, loop); });
      if (it != kept.end())
        i.name = name_of(*it), i.index = flat_of(loop.nest);
    });
    s = std::move(whole[0]);
  }

  const std::vector<const Stmt *> &outer_;
  const std::vector<Stmt> &body_;
  const NestContext &context_;
  std::set<Symbol> own_; // accumulators
  std::vector<RowLoop> loops_;
};

} // namespace

bool KeptRows::is_used_in(const Stmt &s) const {
  std::vector<Stmt> whole{s};
  bool found = false;
  visit_exprs(whole, [&](const Expr &e) { found |= e.is(Expr::Kind::load) && rows.contains(e.name); });
  visit_stmts(whole, [&](const Stmt &i) { found |= i.is(Stmt::Kind::store) && rows.contains(i.name); });
  return found;
}

int KeptRows::threads(int64_t groups, const GpuMachine &machine) const {
  if (!in_registers)
    return kMostThreads;
  int64_t packs = count / width, least = (element_bytes * count + kThreadBytes - 1) / kThreadBytes;
  // Half of the threads that the device has room for; never more than there are packs for.
  int64_t wanted = int64_t(machine.multiprocessors) * machine.threads / 2 / std::max<int64_t>(groups, 1);
  auto most = std::bit_ceil(uint64_t(std::max({least, std::min<int64_t>(packs / 4, 32), int64_t(2)})));
  auto more = std::bit_floor(uint64_t(std::min(wanted, (packs + 1) / 2)));
  return int(std::min<uint64_t>(kMostThreads, std::max(most, more)));
}

bool has_rows_along(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const NestContext &context) {
  bool is_along = !outer.empty() && std::any_of(body.begin(), body.end(), [&](const Stmt &s) { return is_loop(s, LoopKind::reduce) && reads_along(s, outer.back()->name); });
  return is_along && keep_rows(outer, body, context).any();
}

KeptRows keep_rows(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const NestContext &context) {
  return Finder(outer, body, context).find();
}

} // namespace kiln::cuda
