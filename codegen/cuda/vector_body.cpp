// One iteration of  out[i] = f(a[i], b[j])  becomes, for four of them,
//
//   pack a4 = load(a + i);          what does not depend on i stands before
//   for lane in 0..4 unrolled:  out4[lane] = f(a4[lane], b[j])
//   store(out + i, out4);
//
// The packs are registers once the loop is unrolled. All loads come before all stores, which a parallel loop allows: no
// iteration reads what another one writes.
#include "codegen/cuda/vector_body.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace kiln::cuda {
namespace {

bool depends(const Expr &e, const std::set<Symbol> &names) {
  bool has_index = e.is(Expr::Kind::load) || e.is(Expr::Kind::index);
  bool here = (e.is(Expr::Kind::var) && names.contains(e.name)) ||
              (has_index && std::any_of(names.begin(), names.end(), [&](Symbol n) { return e.index.depends_on(n); }));
  return here || std::any_of(e.args.begin(), e.args.end(), [&](const Expr &arg) { return depends(arg, names); });
}

// The loop's variable and the lets that depend on it.
std::set<Symbol> varying_names(const Stmt &loop, const std::set<Symbol> &accumulators) {
  std::set<Symbol> out{loop.name};
  for (const Stmt &s : loop.body) {
    bool reads_sum = false;
    Expr value = s.value;
    visit_exprs(value, [&](const Expr &e) { reads_sum |= e.is(Expr::Kind::load) && accumulators.contains(e.name); });
    if (s.is(Stmt::Kind::let) && (depends(s.value, out) || reads_sum))
      out.insert(s.name);
  }
  return out;
}

struct Access {
  Symbol buffer;
  const Dim &index;
  DType dtype;
};

class Body {
public:
  Body(const Stmt &loop, const std::set<Symbol> &accumulators, const NestContext &context)
      : loop_(loop), accumulators_(accumulators), context_(context), varying_(varying_names(loop, accumulators)) {
    for (const Stmt &s : loop.body)
      if (s.is(Stmt::Kind::store))
        is_plain_ &= accumulators.contains(s.name) || stored_.emplace(s.name, s.index).second;
  }

  // Whether the body fits; the bytes of the widest elements that would lie in packs.
  bool look(int64_t &most) const {
    if (!is_plain_ || !is_normalised(loop_))
      return false;
    bool fits = true;
    most = 0;
    auto note = [&](DType dtype) { most = std::max(most, int64_t(dtype_bytes(dtype))); };
    for (const Stmt &s : loop_.body) {
      bool known = s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store) || s.is(Stmt::Kind::assert_);
      if (!known || s.value.is(Expr::Kind::none))
        return false;
      Expr value = s.value;
      visit_exprs(value, [&](const Expr &e) {
        if (e.is(Expr::Kind::gather))
          fits = false;
        if (!e.is(Expr::Kind::load) || accumulators_.contains(e.name))
          return;
        // What is stored may be read where it is stored alone.
        if (auto it = stored_.find(e.name); it != stored_.end())
          fits &= it->second == e.index;
        if (moves(e.index))
          fits &= by_one(e.index), note(e.dtype);
      });
      if (s.is(Stmt::Kind::store) && !accumulators_.contains(s.name))
        fits &= by_one(s.index), note(s.value.dtype);
    }
    return fits && most > 0;
  }

  bool is_aligned(int width) const {
    bool aligned = true;
    auto check = [&](Symbol buffer, const Dim &index) {
      aligned &= !context_.unaligned.contains(buffer) && is_multiple(index - Dim::symbol(loop_.name), width);
    };
    for (const Stmt &s : loop_.body) {
      Expr value = s.value;
      visit_exprs(value, [&](const Expr &e) {
        if (in_pack(e))
          check(e.name, e.index);
      });
      if (s.is(Stmt::Kind::store) && !accumulators_.contains(s.name))
        check(s.name, s.index);
    }
    return aligned;
  }

  std::string emit(int width, int depth, c::Helpers &helpers) const {
    c::StmtStyle style{"*trap = {}; return;", nullptr, "", context_.index_type};
    std::string pad(size_t(depth) * 2, ' '), before, loads, declared, stores;
    std::vector<Stmt> lanes;
    std::map<std::pair<Symbol, std::string>, Symbol> packs;
    int count = 0;
    for (const Stmt &s : loop_.body) {
      if (s.is(Stmt::Kind::let) && !varying_.contains(s.name)) {
        before += c::c_body({s}, depth, style, helpers);
        continue;
      }
      Stmt lane = s;
      visit_exprs(lane.value, [&](Expr &e) {
        if (!in_pack(e))
          return;
        std::string at = c::c_dim(e.index, helpers);
        auto [it, is_new] = packs.try_emplace({e.name, at}, Symbol(fmt::format("kiln_pack{}", count)));
        if (is_new) {
          ++count;
          loads += fmt::format("{}const auto {} = kiln_load<{}>({} + ({}));\n", pad, c::c_name(it->second), width, c::c_name(e.name), at);
        }
        e = kb::load(it->second, e.dtype, Dim::symbol(lane_));
      });
      if (s.is(Stmt::Kind::store) && !accumulators_.contains(s.name)) {
        Symbol pack(fmt::format("kiln_pack{}", count++));
        declared += fmt::format("{}kiln_pack<{}, {}> {};\n", pad, c::c_type(s.value.dtype), width, c::c_name(pack));
        stores += fmt::format("{}kiln_store({} + ({}), {});\n", pad, c::c_name(s.name), c::c_dim(s.index, helpers), c::c_name(pack));
        lane.name = pack;
        lane.index = Dim::symbol(lane_);
      }
      lanes.push_back(std::move(lane));
    }
    std::string variable = c::c_name(loop_.name), lane = c::c_name(lane_);
    std::string text = before + loads + declared;
    text += fmt::format("{0}const {1} kiln_first = {2};\n#pragma unroll\n{0}for (int {3} = 0; {3} < {4}; ++{3}) {{\n{0}  const {1} {2} = kiln_first + {3};\n{0}  (void){2};\n",
                        pad, context_.index_type, variable, lane, width);
    return text + c::c_body(lanes, depth + 1, style, helpers) + pad + "}\n" + stores;
  }

private:
  bool moves(const Dim &index) const {
    return std::any_of(varying_.begin(), varying_.end(), [&](Symbol n) { return index.depends_on(n); });
  }
  bool by_one(const Dim &index) const {
    auto step = index.coefficient_of(loop_.name);
    return step && step->is_const(1) && std::none_of(varying_.begin(), varying_.end(), [&](Symbol n) { return n != loop_.name && index.depends_on(n); });
  }
  bool in_pack(const Expr &e) const { return e.is(Expr::Kind::load) && !accumulators_.contains(e.name) && moves(e.index); }

  const Stmt &loop_;
  const std::set<Symbol> &accumulators_;
  const NestContext &context_;
  std::set<Symbol> varying_;
  std::map<Symbol, Dim> stored_;
  bool is_plain_ = true; // no buffer is stored to twice
  const Symbol lane_{"kiln_lane"};
};

} // namespace

bool is_multiple(const Dim &dim, int64_t n) {
  return dim.constant_part() % n == 0 &&
         std::all_of(dim.terms().begin(), dim.terms().end(), [&](const DimTerm &t) { return t.coefficient % n == 0; });
}

int vector_width(const Stmt &loop, bool has_tail, const std::set<Symbol> &accumulators, const NestContext &context) {
  Body body(loop, accumulators, context);
  int64_t most;
  if (!body.look(most))
    return 1;
  // The widest elements in one access: lanes that take two would leave half of each sector to the other one.
  int64_t width = context.machine.vector_bytes / most;
  while (width > 1 && ((!has_tail && !is_multiple(loop.end, width)) || !body.is_aligned(int(width))))
    width /= 2;
  return int(width);
}

std::string vector_turn(const Stmt &loop, int width, int depth, const std::set<Symbol> &accumulators, const NestContext &context,
                        c::Helpers &helpers) {
  Body body(loop, accumulators, context);
  if (is_multiple(loop.end, width))
    return body.emit(width, depth, helpers);
  c::StmtStyle style{"*trap = {}; return;", nullptr, "", context.index_type};
  std::string pad(size_t(depth) * 2, ' '), variable = c::c_name(loop.name), end = c::c_dim(loop.end, helpers);
  std::string text = fmt::format("{}if ({} + {} <= {}) {{\n{}{}}} else {{\n", pad, variable, width, end, body.emit(width, depth + 1, helpers), pad);
  text += fmt::format("{0}  const {1} kiln_first = {2};\n{0}  for ({1} kiln_tail = kiln_first; kiln_tail < {3}; ++kiln_tail) {{\n{0}    const {1} {2} = kiln_tail;\n", pad,
                      context.index_type, variable, end);
  return text + c::c_body(loop.body, depth + 2, style, helpers) + pad + "  }\n" + pad + "}\n";
}

} // namespace kiln::cuda
