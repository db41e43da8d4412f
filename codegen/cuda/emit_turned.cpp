// Values whose neighbours lie apart where they are read, or where they are written:
//
//   for i in 0..12544 { for j in 0..16 { out[16*i + j] = f(in[i + 12544*j]) } }
//
// Lanes side by side along j would take a sector of memory each. A block takes a tile of both axes: it reads it with lanes side by side
// along i, keeps it in shared memory, and does the rest with lanes along j, whatever else is read and done there.
#include "codegen/cuda/nest.h"
#include "codegen/cuda/product.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"
#include "passes/kernel/schedule.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::cuda {
namespace {

constexpr int kThreads = 256, kElements = 1024; // of a block's tile
constexpr int64_t kSector = 32;

struct Turned {
  Loops loops;
  const Stmt *across = nullptr; // neighbours where it is written
  const Stmt *along = nullptr;  // neighbours where it is read
  std::vector<Expr> loads;      // those that are turned around
};

bool moves_by(const Dim &index, Symbol name, int64_t step) { return index.coefficient_of(name) == Dim(step); }

// Whether lanes along `fast` take a sector each, and those along `slow` neighbouring elements.
bool is_turned(const Expr &e, Symbol fast, Symbol slow) {
  auto step = e.index.coefficient_of(fast);
  return step && step->is_const() && std::abs(step->as_const()) * int64_t(dtype_bytes(e.dtype)) >= kSector && moves_by(e.index, slow, 1);
}

std::optional<Turned> match_turned(const Stmt &nest, const NestContext &context) {
  constexpr int64_t kLeast = 8, kLeastElements = 1 << 15; // of fewer, what a launch takes counts, and flat ones can be joined
  constexpr size_t kMostLoads = 4; // of 48 KiB, whatever their elements
  Turned out;
  out.loops = perfect_nest(nest, LoopKind::parallel);
  const std::vector<Stmt> &body = out.loops.back()->body;
  out.across = out.loops.back();
  auto is_wide = [](const Stmt *l) { return !l->end.is_const() || l->end.as_const() >= kLeast; };
  if (out.loops.size() < 2 || !are_normalised(out.loops) || !is_wide(out.across) || constant(product_of(out.loops)).value_or(kLeastElements) < kLeastElements)
    return std::nullopt;
  for (const Stmt &s : body)
    if (!(s.is(Stmt::Kind::let) && s.dtype != DType::i64) && !(s.is(Stmt::Kind::store) && moves_by(s.index, out.across->name, 1)))
      return std::nullopt;
  std::vector<Expr> loads;
  std::vector<Stmt> copy = body;
  visit_exprs(copy, [&](Expr &e) {
    if (e.is(Expr::Kind::load) && context.kernel.find_buffer(e.name))
      loads.push_back(e);
  });
  for (const Stmt *l : out.loops)
    if (l != out.across && is_wide(l))
      for (const Expr &e : loads)
        if (!out.along && is_turned(e, out.across->name, l->name))
          out.along = l;
  if (!out.along)
    return std::nullopt;
  for (const Expr &e : loads)
    if (is_turned(e, out.across->name, out.along->name) && std::find(out.loads.begin(), out.loads.end(), e) == out.loads.end())
      out.loads.push_back(e);
  // What is stored may be what is read, by this iteration alone; here others' reads come behind it.
  return context.is_aliased || out.loads.size() > kMostLoads ? std::nullopt : std::optional<Turned>(out);
}

class TurnedEmitter {
public:
  TurnedEmitter(const Turned &t, const NestContext &context) : t_(t), context_(context), across_(*t.across), along_(*t.along) {
    int64_t a = constant(across_.end).value_or(kElements), b = constant(along_.end).value_or(kElements);
    constexpr int64_t kSide = 32;
    tile_across_ = a <= kSide ? a : b <= kSide ? kElements / b / kSide * kSide : kSide;
    tile_along_ = a <= kSide ? kElements / a / kSide * kSide : b <= kSide ? b : kSide;
    tile_across_ = std::min(tile_across_, a), tile_along_ = std::min(tile_along_, b);
    lies_across_ = a > kSide;
  }

  GpuNest emit() {
    out_.threads = kThreads;
    out_.work = estimate();
    Stmt across = across_, along = along_;
    across.step = tile_across_, along.step = tile_along_;
    Loops loops = t_.loops;
    std::replace(loops.begin(), loops.end(), t_.across, static_cast<const Stmt *>(&across));
    std::replace(loops.begin(), loops.end(), t_.along, static_cast<const Stmt *>(&along));
    out_.blocks = product_of(loops);
    std::string &t = out_.text, body;
    for (size_t i = 0; i < t_.loads.size(); ++i)
      t += fmt::format("  __shared__ {} kiln_turned{}[{}];\n", word(t_.loads[i].dtype), i, (lies_across_ ? tile_along_ : tile_across_) * pitch(t_.loads[i].dtype));
    t += fmt::format("  for ({0} kiln_tile = ({0})blockIdx.x; kiln_tile < {1}; kiln_tile += ({0})gridDim.x) {{\n", context_.index_type, c::c_dim(out_.blocks, out_.helpers));
    t += coordinates(loops, "kiln_tile", context_, out_.helpers, "    ");
    t += fmt::format("    const {0} kiln_across = {1}, kiln_along = {2};\n", context_.index_type, c::c_name(across_.name), c::c_name(along_.name));
    for (size_t i = 0; i < t_.loads.size(); ++i) {
      const Expr &load = t_.loads[i];
      body += fmt::format("        kiln_turned{}[{}] = {}[{}];\n", i, place(load.dtype), c::c_name(load.name), c::c_dim(load.index, out_.helpers));
    }
    t += turns(false, body) + "    __syncthreads();\n" + turns(true, rest()) + "    __syncthreads();\n  }\n";
    return std::move(out_);
  }

private:
  // Narrow elements lie in words, so that lanes meet in no bank.
  static std::string word(DType dtype) { return dtype_bytes(dtype) < 4 ? "uint32_t" : c::c_type(dtype); }
  // Lanes that go together are one above the other where a side of the tile is shorter than they are.
  int64_t pitch(DType dtype) const {
    int64_t lanes = 128 / std::max<int64_t>(int64_t(dtype_bytes(dtype)), 4);
    int64_t rows = lies_across_ ? tile_along_ : tile_across_, row = lies_across_ ? tile_across_ : tile_along_;
    return (row + lanes - 1) / lanes * lanes + std::max<int64_t>(1, (lanes + rows - 1) / rows);
  }
  std::string place(DType dtype) const { return fmt::format("{} * {} + {}", lies_across_ ? "kiln_b" : "kiln_a", pitch(dtype), lies_across_ ? "kiln_a" : "kiln_b"); }

  // The tile's elements, with lanes side by side along one of its axes.
  std::string turns(bool by_across, const std::string &body) {
    int64_t fast = by_across ? tile_across_ : tile_along_, total = tile_across_ * tile_along_;
    return fmt::format("#pragma unroll\n    for (int kiln_at = 0; kiln_at < {0}; kiln_at += {1}) {{\n      const int kiln_piece = kiln_at + (int)threadIdx.x, {2} = kiln_piece % {3}, {4} = kiln_piece / {3};\n"
                       "      const {5} {6} = kiln_across + kiln_a, {7} = kiln_along + kiln_b;\n      if (kiln_piece < {0} && {6} < {8} && {7} < {9}) {{\n{10}      }}\n    }}\n",
                       total, kThreads, by_across ? "kiln_a" : "kiln_b", fast, by_across ? "kiln_b" : "kiln_a", context_.index_type, c::c_name(across_.name), c::c_name(along_.name),
                       c::c_dim(across_.end, out_.helpers), c::c_dim(along_.end, out_.helpers), body);
  }

  static Symbol element(size_t i) { return Symbol(fmt::format("kiln_element{}", i)); }
  // The body, of what was turned around.
  std::vector<Stmt> by_elements() const {
    std::vector<Stmt> body = t_.loops.back()->body;
    visit_exprs(body, [&](Expr &e) {
      auto it = std::find(t_.loads.begin(), t_.loads.end(), e);
      if (it != t_.loads.end())
        e = kb::var(element(size_t(it - t_.loads.begin())), e.dtype);
    });
    return body;
  }
  std::string rest() {
    std::string text;
    for (size_t i = 0; i < t_.loads.size(); ++i)
      text += fmt::format("        const {0} {1} = ({0})kiln_turned{2}[{3}];\n", c::c_type(t_.loads[i].dtype), c::c_name(element(i)), i, place(t_.loads[i].dtype));
    c::StmtStyle style{"*trap = {}; return;", nullptr, "", context_.index_type};
    return text + c::c_body(by_elements(), 4, style, out_.helpers);
  }

  // Two nests, one behind the other.
  LaunchWork estimate() const {
    std::vector<Stmt> first, second = by_elements();
    for (size_t i = 0; i < t_.loads.size(); ++i) {
      first.push_back(kb::let(element(i), t_.loads[i]));
      second.push_back(kb::let(Symbol("kiln_kept"), kb::load(Symbol(fmt::format("kiln_turned{}", i)), t_.loads[i].dtype, 0)));
    }
    Loops turned = t_.loops;
    std::rotate(std::find(turned.begin(), turned.end(), t_.along), std::find(turned.begin(), turned.end(), t_.along) + 1, turned.end());
    LaunchWork out = work_of(context_.kernel, turned, first, {LaunchForm::turned}), rest = work_of(context_.kernel, t_.loops, second, {LaunchForm::turned});
    out.read += rest.read, out.written += rest.written, out.moved += rest.moved;
    out.cycles += rest.cycles, out.wait += rest.wait;
    for (const auto &[buffer, bytes] : rest.bytes)
      out.bytes[buffer] += bytes;
    return out;
  }

  const Turned &t_;
  const NestContext &context_;
  Stmt across_, along_;
  int64_t tile_across_, tile_along_;
  bool lies_across_;
  GpuNest out_;
};

} // namespace

std::optional<GpuNest> try_emit_turned(const Stmt &nest, const NestContext &context) {
  // Loops that are one long row become one.
  Kernel row;
  row.buffers = context.kernel.buffers;
  row.dims = context.kernel.dims;
  row.body = {nest};
  collapse_loops(row);
  auto turned = match_turned(row.body[0], context);
  return turned ? std::optional<GpuNest>(TurnedEmitter(*turned, context).emit()) : std::nullopt;
}

} // namespace kiln::cuda
