// Sums of products by tiles: matrix products, convolutions, their gradients, whatever the layouts.
//
// The parallel loops of the nest fall into those that only one operand knows (rows), those that only the other one
// knows (columns), and those of both (batch). Rows, columns and the reduction are counted by one number each, so a
// convolution is a matrix product whose operands are looked up by coordinates: nothing is copied into place before. A
// block computes a tile: pieces of both operands go through registers into shared memory, the next ones while these
// are multiplied, and every thread keeps a small tile of sums in registers. What stands behind the reduction is done
// with each sum. Sums are added in the order of the reduction, whatever the tile.
//
// Where both operands are bf16 or both are f16, warps multiply 16x8x16 at a time on the tensor cores (mma.sync), which
// add exact products in f32.
#include "codegen/cuda/nest.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <span>

namespace kiln::cuda {
namespace {

using Loops = std::vector<const Stmt *>;

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

// Whether some load moves by one element with the loop.
bool moves_by_one(const Expr &e, Symbol loop) {
  if (e.is(Expr::Kind::load)) {
    auto step = e.index.coefficient_of(loop);
    if (step && step->is_const(1))
      return true;
  }
  return std::any_of(e.args.begin(), e.args.end(), [&](const Expr &arg) { return moves_by_one(arg, loop); });
}

struct Product {
  const Stmt *acc = nullptr, *init = nullptr;
  Expr a, b;
  Loops batch, rows, columns, sum;
  std::vector<Stmt> after;
  DType dtype = DType::f32;
};

// The loop that moves an operand by one becomes the fastest.
void put_last(Loops &loops, const std::function<bool(Symbol)> &is_fast) {
  auto it = std::find_if(loops.begin(), loops.end(), [&](const Stmt *l) { return is_fast(l->name); });
  if (it != loops.end())
    std::rotate(it, it + 1, loops.end());
}

std::optional<Product> match(const Stmt &nest) {
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
  if (out.rows.empty() || out.columns.empty())
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
  put_last(out.sum, [&](Symbol s) { return moves_by_one(out.a, s); });
  return out;
}

// Tiles that were found to be good, from large to small. `cost`: of a multiplication, beside that of the largest.
struct Tile {
  int rows, columns, depth, thread_rows, thread_columns;
  double cost;
};
constexpr Tile kTiles[] = {
    {128, 128, 8, 8, 8, 1}, {128, 64, 8, 8, 4, 1.15}, {64, 128, 8, 4, 8, 1.15}, {64, 64, 16, 4, 4, 1.4},
    {32, 64, 16, 2, 4, 1.9}, {64, 32, 16, 4, 2, 1.9}, {32, 32, 16, 2, 2, 2.6},  {16, 64, 16, 1, 4, 3}, {64, 16, 16, 4, 1, 3},
};
// The same for warps that multiply on tensor cores, two by four of them: a thread's rows and columns are a warp's.
constexpr Tile kHalfTiles[] = {{128, 128, 32, 64, 32, 1}, {128, 64, 32, 64, 16, 1.2}, {64, 128, 32, 32, 32, 1.2}, {64, 64, 32, 32, 16, 1.5}, {32, 64, 32, 16, 16, 2.2}, {32, 32, 32, 16, 8, 3}};
constexpr int kThreads = 256;

Tile choose_tile(std::span<const Tile> tiles, const Dim &rows, const Dim &columns, const Dim &batch, const GpuMachine &machine) {
  int64_t m = rows.is_const() ? rows.as_const() : 512, n = columns.is_const() ? columns.as_const() : 512,
          b = batch.is_const() ? batch.as_const() : 1;
  const Tile *best = nullptr;
  double least = 0;
  for (const Tile &t : tiles) {
    int64_t count = (m + t.rows - 1) / t.rows * ((n + t.columns - 1) / t.columns) * b;
    // Two blocks on a multiprocessor hide each other's waits.
    double waves = std::max(1.0, double(count) / (2 * machine.multiprocessors));
    double cost = waves * t.rows * t.columns * t.cost;
    if (!best || cost < least)
      best = &t, least = cost;
  }
  return *best;
}

// The 16-bit floats that are multiplied, where both operands are such; `a` and `b` become the loads.
std::optional<DType> take_halves(Product &p) {
  auto narrow = [](const Expr &e) {
    return e.is(Expr::Kind::convert) && e.dtype == DType::f32 && e.args[0].is(Expr::Kind::load) &&
           (e.args[0].dtype == DType::bf16 || e.args[0].dtype == DType::f16);
  };
  if (p.dtype != DType::f32 || !narrow(p.a) || !narrow(p.b) || p.a.args[0].dtype != p.b.args[0].dtype)
    return std::nullopt;
  p.a = Expr(p.a.args[0]);
  p.b = Expr(p.b.args[0]);
  return p.a.dtype;
}

// The way of one operand's tile into registers and shared memory.
struct Operand {
  std::string name; // "a", "b"
  const Expr &value;
  const Loops &own, &sum; // its rows or columns; the reduction
  std::string own_total, sum_total;
  std::string own_first; // of the tile
  int own_size = 0, depth = 0;
  bool sum_is_fast = false; // neighbouring threads take neighbouring steps of the sum
  int count() const { return own_size * depth / kThreads; }
};

class TileEmitter {
public:
  TileEmitter(const Product &p, const Tile &tile, std::optional<DType> half, const NestContext &context)
      : p_(p), tile_(tile), half_(half), context_(context), type_(c::c_type(half.value_or(p.dtype))) {}

  GpuNest emit() {
    c::Helpers &h = out_.helpers;
    Dim rows = product_of(p_.rows), columns = product_of(p_.columns), batch = product_of(p_.batch), sum = product_of(p_.sum);
    Dim row_tiles = ceildiv(rows, tile_.rows), column_tiles = ceildiv(columns, tile_.columns);
    out_.blocks = row_tiles * column_tiles * batch;
    out_.threads = kThreads;
    const std::string &index = context_.index_type;
    Operand a{"a", p_.a, p_.rows, p_.sum, c::c_dim(rows, h), c::c_dim(sum, h), "kiln_row0", tile_.rows, tile_.depth, is_fast_along_sum(p_.a)};
    Operand b{"b", p_.b, p_.columns, p_.sum, c::c_dim(columns, h), c::c_dim(sum, h), "kiln_column0", tile_.columns, tile_.depth,
              is_fast_along_sum(p_.b)};
    std::string &t = out_.text;
    if (half_) {
      // Rows of the tiles are the steps of the sum; their distance keeps a warp's reads in different banks.
      t += fmt::format("  __shared__ __align__(16) {0} kiln_a[{1}][{3}];\n  __shared__ __align__(16) {0} kiln_b[{2}][{3}];\n", type_, tile_.rows, tile_.columns,
                       tile_.depth + 8);
      t += fmt::format("  const int kiln_thread = (int)threadIdx.x, kiln_lane = kiln_thread % 32, kiln_warp_row = kiln_thread / 128 * {}, "
                       "kiln_warp_column = kiln_thread / 32 % 4 * {};\n",
                       tile_.thread_rows, tile_.thread_columns);
    } else {
      t += fmt::format("  __shared__ {0} kiln_a[{1}][{2}];\n  __shared__ {0} kiln_b[{1}][{3}];\n", type_, tile_.depth, tile_.rows + 4, tile_.columns + 4);
      t += fmt::format("  const int kiln_thread = (int)threadIdx.x, kiln_x = kiln_thread % {0}, kiln_y = kiln_thread / {0};\n",
                       tile_.columns / tile_.thread_columns);
    }
    t += fmt::format("  for ({0} kiln_tile = ({0})blockIdx.x; kiln_tile < {1}; kiln_tile += ({0})gridDim.x) {{\n", index, c::c_dim(out_.blocks, h));
    t += fmt::format("    const {0} kiln_column0 = kiln_tile % ({1}) * {2}, kiln_rest = kiln_tile / ({1});\n", index, c::c_dim(column_tiles, h), tile_.columns);
    t += fmt::format("    const {0} kiln_row0 = kiln_rest % ({1}) * {2}, kiln_batch = kiln_rest / ({1});\n    (void)kiln_batch;\n", index,
                     c::c_dim(row_tiles, h), tile_.rows);
    if (!p_.batch.empty())
      t += coordinates(p_.batch, "kiln_batch", context_, h, "    ");
    t += places(a) + places(b);
    t += fmt::format("    {} kiln_acc[{}][{}]{};\n    {} kiln_next_a[{}], kiln_next_b[{}];\n", c::c_type(p_.dtype), sums_down(), sums_across(),
                     half_ ? "[4]" : "", type_, a.count(), b.count());
    t += each_sum("    ", fmt::format("kiln_acc[i][j]{} = {};", half_ ? "[e]" : "", c::c_expr(p_.init->value, h)));
    t += fetch(a, "0") + fetch(b, "0");
    t += fmt::format("    for ({0} kiln_step = 0; kiln_step < {1}; kiln_step += {2}) {{\n      __syncthreads();\n", index, a.sum_total, tile_.depth);
    t += keep(a) + keep(b) + "      __syncthreads();\n";
    t += fmt::format("      if (kiln_step + {} < {}) {{\n", tile_.depth, a.sum_total);
    std::string next = fmt::format("kiln_step + {}", tile_.depth);
    t += fetch(a, next) + fetch(b, next) + "      }\n" + multiply() + "    }\n" + finish(a, b) + "  }\n";
    return std::move(out_);
  }

private:
  // Of a thread: sums, or groups of 16x8 of its warp, four of which are its own.
  int sums_down() const { return half_ ? tile_.thread_rows / 16 : tile_.thread_rows; }
  int sums_across() const { return half_ ? tile_.thread_columns / 8 : tile_.thread_columns; }
  std::string each_sum(const std::string &pad, const std::string &what) const {
    return fmt::format("#pragma unroll\n{0}for (int i = 0; i < {1}; ++i)\n#pragma unroll\n{0}  for (int j = 0; j < {2}; ++j)\n{3}{0}    {4}\n", pad, sums_down(),
                       sums_across(), half_ ? "#pragma unroll\n" + pad + "    for (int e = 0; e < 4; ++e)\n" : "", what);
  }

  bool is_fast_along_sum(const Expr &e) const { return moves_by_one(e, p_.sum.back()->name); }

  // The number of an operand's row that turn j of a thread is about, and of the step.
  std::string own_at(const Operand &o) const {
    return o.sum_is_fast ? fmt::format("kiln_thread / {} + j * {}", o.depth, kThreads / o.depth) : fmt::format("kiln_thread % {}", o.own_size);
  }
  std::string sum_at(const Operand &o) const {
    return o.sum_is_fast ? fmt::format("kiln_thread % {}", o.depth) : fmt::format("kiln_thread / {} + j * {}", o.own_size, kThreads / o.own_size);
  }

  std::string held(const Operand &o, const Stmt *loop) const { return fmt::format("kiln_{}_{}", o.name, c::c_name(loop->name)); }

  // Coordinates of the rows that the thread fetches, the same in every step.
  std::string places(const Operand &o) {
    int turns = o.sum_is_fast ? o.count() : 1;
    std::string text;
    for (const Stmt *l : o.own)
      text += fmt::format("    {} {}[{}];\n", context_.index_type, held(o, l), turns);
    text += fmt::format("    bool kiln_{0}_inside[{1}];\n#pragma unroll\n    for (int j = 0; j < {1}; ++j) {{\n      const {2} kiln_own = {3} + {4};\n"
                        "      kiln_{0}_inside[j] = kiln_own < {5};\n",
                        o.name, turns, context_.index_type, o.own_first, own_at(o), o.own_total);
    text += coordinates(o.own, "kiln_own", context_, out_.helpers, "      ");
    for (const Stmt *l : o.own)
      text += fmt::format("      {}[j] = {};\n", held(o, l), c::c_name(l->name));
    return text + "    }\n";
  }

  std::string fetch(const Operand &o, const std::string &first) {
    std::string step = fmt::format("const {} kiln_sum = {} + {};\n", context_.index_type, first, sum_at(o));
    std::string where = coordinates(o.sum, "kiln_sum", context_, out_.helpers, "        ");
    std::string text = "      {\n";
    if (o.sum_is_fast)
      text += "        " + step + where;
    text += fmt::format("#pragma unroll\n        for (int j = 0; j < {}; ++j) {{\n", o.count());
    if (!o.sum_is_fast)
      text += "        " + step + where;
    for (const Stmt *l : o.own)
      text += fmt::format("        const {} {} = {}[{}];\n", context_.index_type, c::c_name(l->name), held(o, l), o.sum_is_fast ? "j" : "0");
    text += fmt::format("        kiln_next_{0}[j] = kiln_{0}_inside[{1}] && kiln_sum < {2} ? {3} : ({4})0;\n        }}\n      }}\n", o.name,
                        o.sum_is_fast ? "j" : "0", o.sum_total, c::c_expr(o.value, out_.helpers), type_);
    return text;
  }

  std::string keep(const Operand &o) const {
    return fmt::format("#pragma unroll\n      for (int j = 0; j < {0}; ++j)\n        kiln_{1}[{2}][{3}] = kiln_next_{1}[j];\n", o.count(), o.name,
                       half_ ? own_at(o) : sum_at(o), half_ ? sum_at(o) : own_at(o));
  }

  // Threads side by side read neighbouring groups of four, without conflicts between banks.
  static std::string spread(std::string_view at, int per_thread, int threads, std::string_view i) {
    if (per_thread < 4)
      return fmt::format("{} * {} + {}", at, per_thread, i);
    return fmt::format("{} / 4 * {} + {} * 4 + {} % 4", i, threads * 4, at, i);
  }
  std::string row_at(std::string_view i) const {
    if (half_)
      return fmt::format("kiln_warp_row + {} * 16 + kiln_lane / 4 + e / 2 * 8", i);
    return spread("kiln_y", tile_.thread_rows, tile_.rows / tile_.thread_rows, i);
  }
  std::string column_at(std::string_view j) const {
    if (half_)
      return fmt::format("kiln_warp_column + {} * 8 + kiln_lane % 4 * 2 + e % 2", j);
    return spread("kiln_x", tile_.thread_columns, tile_.columns / tile_.thread_columns, j);
  }

  // Fragments as mma.sync has them: a lane holds two neighbouring steps of the sum in each register.
  std::string multiply_halves() const {
    return fmt::format(R"(#pragma unroll
      for (int k = 0; k < {0}; k += 16) {{
        uint32_t kiln_rows[{1}][4], kiln_columns[{2}][2];
        const int kiln_at = k + kiln_lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < {1}; ++i) {{
          const int r = kiln_warp_row + i * 16 + kiln_lane / 4;
          kiln_rows[i][0] = *(const uint32_t *)&kiln_a[r][kiln_at];
          kiln_rows[i][1] = *(const uint32_t *)&kiln_a[r + 8][kiln_at];
          kiln_rows[i][2] = *(const uint32_t *)&kiln_a[r][kiln_at + 8];
          kiln_rows[i][3] = *(const uint32_t *)&kiln_a[r + 8][kiln_at + 8];
        }}
#pragma unroll
        for (int j = 0; j < {2}; ++j) {{
          const int c = kiln_warp_column + j * 8 + kiln_lane / 4;
          kiln_columns[j][0] = *(const uint32_t *)&kiln_b[c][kiln_at];
          kiln_columns[j][1] = *(const uint32_t *)&kiln_b[c][kiln_at + 8];
        }}
#pragma unroll
        for (int i = 0; i < {1}; ++i)
#pragma unroll
          for (int j = 0; j < {2}; ++j)
            kiln_mma_{3}(kiln_acc[i][j], kiln_rows[i], kiln_columns[j]);
      }}
)",
                       tile_.depth, sums_down(), sums_across(), dtype_name(*half_));
  }

  std::string multiply() {
    if (half_)
      return multiply_halves();
    std::string add;
    if (is_float(p_.dtype)) {
      out_.helpers.insert(p_.dtype == DType::f64 ? "kiln_fma" : "kiln_fmaf");
      add = fmt::format("{}(kiln_rows[i], kiln_columns[j], kiln_acc[i][j])", p_.dtype == DType::f64 ? "kiln_fma" : "kiln_fmaf");
    } else {
      std::string u = dtype_bits(p_.dtype) == 64 ? "uint64_t" : "uint32_t";
      add = fmt::format("({0})(({1})kiln_acc[i][j] + ({1})kiln_rows[i] * ({1})kiln_columns[j])", type_, u);
    }
    return fmt::format("#pragma unroll\n      for (int k = 0; k < {0}; ++k) {{\n        {1} kiln_rows[{2}], kiln_columns[{3}];\n"
                       "#pragma unroll\n        for (int i = 0; i < {2}; ++i)\n          kiln_rows[i] = kiln_a[k][{4}];\n"
                       "#pragma unroll\n        for (int j = 0; j < {3}; ++j)\n          kiln_columns[j] = kiln_b[k][{5}];\n"
                       "#pragma unroll\n        for (int i = 0; i < {2}; ++i)\n#pragma unroll\n          for (int j = 0; j < {3}; ++j)\n"
                       "            kiln_acc[i][j] = {6};\n      }}\n",
                       tile_.depth, type_, tile_.thread_rows, tile_.thread_columns, row_at("i"), column_at("j"), add);
  }

  std::string finish(const Operand &a, const Operand &b) {
    c::StmtStyle style{"*trap = {}; return;", nullptr, "", context_.index_type};
    std::string index = context_.index_type;
    // Of tensor cores four sums of a lane lie in two rows: e counts them.
    std::string text = half_ ? fmt::format("#pragma unroll\n    for (int i_e = 0; i_e < {}; ++i_e) {{\n      const int i = i_e / 2, half = i_e % 2, e = half * 2;\n", 2 * sums_down())
                             : fmt::format("#pragma unroll\n    for (int i = 0; i < {}; ++i) {{\n", sums_down());
    int across = half_ ? 2 * sums_across() : sums_across();
    text += fmt::format("      const {} kiln_row = kiln_row0 + {};\n", index, row_at("i"));
    text += fmt::format("      if (kiln_row < {}) {{\n{}", a.own_total, coordinates(p_.rows, "kiln_row", context_, out_.helpers, "      "));
    text += half_ ? fmt::format("#pragma unroll\n      for (int j_e = 0; j_e < {}; ++j_e) {{\n        const int j = j_e / 2, e = half * 2 + j_e % 2;\n", across)
                  : fmt::format("#pragma unroll\n      for (int j = 0; j < {}; ++j) {{\n", across);
    text += fmt::format("        const {} kiln_column = kiln_column0 + {};\n", index, column_at("j"));
    text += fmt::format("        if (kiln_column < {}) {{\n{}", b.own_total, coordinates(p_.columns, "kiln_column", context_, out_.helpers, "        "));
    text += fmt::format("        const {} {}[1] = {{kiln_acc[i][j]{}}};\n", c::c_type(p_.dtype), c::c_name(p_.acc->name), half_ ? "[e]" : "");
    text += c::c_body(p_.after, 4, style, out_.helpers);
    return text + "        }\n      }\n      }\n    }\n";
  }

  const Product &p_;
  Tile tile_;
  std::optional<DType> half_; // what tensor cores multiply
  const NestContext &context_;
  std::string type_;
  GpuNest out_;
};

} // namespace

std::optional<GpuNest> try_emit_tile(const Stmt &nest, const NestContext &context) {
  auto product = match(nest);
  if (!product || dtype_bits(product->dtype) < 32)
    return std::nullopt;
  Dim rows = product_of(product->rows), columns = product_of(product->columns), sum = product_of(product->sum), batch = product_of(product->batch);
  auto is_at_least = [](const Dim &d, int64_t least) { return !d.is_const() || d.as_const() >= least; };
  // Smaller ones are not worth a tile's padding.
  if (!is_at_least(rows, 4) || !is_at_least(columns, 4) || !is_at_least(sum, 8) || !is_at_least(rows * columns, 64))
    return std::nullopt;
  bool is_large = is_at_least(rows, 16) && is_at_least(columns, 16) && is_at_least(sum, 16) && context.machine.has_half_tiles;
  std::optional<DType> half = is_large ? take_halves(*product) : std::nullopt;
  Tile tile = choose_tile(half ? std::span<const Tile>(kHalfTiles) : std::span<const Tile>(kTiles), rows, columns, batch, context.machine);
  return TileEmitter(*product, tile, half, context).emit();
}

} // namespace kiln::cuda
