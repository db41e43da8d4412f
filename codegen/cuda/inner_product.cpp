// Operands of f16 or bf16 are copied to shared memory and multiplied there by warps, 16x32 results each; the left one may
// also be f32 that the group has computed, which is rounded to the other one's type. Otherwise
// a warp takes 16x16 results on the tensor cores, whose operands it picks from wherever they lie: as tf32, which holds
// f16 and bf16 exactly. f32 goes there where that is asked for, or where the other operand is of halves: then the graph
// has rounded this one to halves too, which is coarser. Everything else is done by threads with two by four sums each.
#include "codegen/cuda/inner_product.h"

#include "codegen/cuda/product.h"
#include "codegen/cuda/tile_operand.h"
#include "codegen/cuda/vector_body.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace kiln::cuda {
namespace {

class InnerProduct {
public:
  InnerProduct(const Product &p, int threads, int depth, const NestContext &context, c::Helpers &helpers)
      : p_(p), threads_(threads), pad_(size_t(depth) * 2, ' '), context_(context), helpers_(helpers), rows_(c::c_dim(product_of(p.rows), helpers)),
        columns_(c::c_dim(product_of(p.columns), helpers)), type_(c::c_type(p.dtype)) {}

  std::string emit(bool on_tensors) {
    return text_of(operand("a", "kiln_row", p_.rows, p_.a, rows_) + operand("b", "kiln_column", p_.columns, p_.b, columns_) + finisher(), on_tensors ? tensors() : scalars());
  }

  // Of halves; `a` is their load or something else. Nothing where shared memory has no room.
  std::optional<std::string> emit_staged(InnerPlace &place) {
    const Expr &b = p_.b.args[0];
    bool is_staged = is_half_valued(p_.a, {}) && p_.a.args[0].is(Expr::Kind::load) && p_.a.args[0].dtype == b.dtype;
    auto power = [](int64_t n, int64_t least) {
      while (least < n)
        least *= 2;
      return int(least);
    };
    TileShape shape{power(product_of(p_.rows).as_const(), 16), power(product_of(p_.columns).as_const(), 32), power(product_of(p_.sum).as_const(), 16), 16, 32, threads_};
    shape.unit = TileUnit::tensor;
    std::optional<TileOperand> left;
    if (is_staged)
      left.emplace("a", p_.a.args[0], b.dtype, p_.rows, p_.sum, "0", shape.rows, shape, context_, helpers_);
    TileOperand right("b", b, b.dtype, p_.columns, p_.sum, "0", shape.columns, shape, context_, helpers_);
    int64_t left_bytes = left ? left->bytes() : 0;
    if (left_bytes + right.bytes() > place.stage_bytes)
      return std::nullopt;
    place.stage_bytes = left_bytes + right.bytes();
    std::string half(dtype_name(b.dtype)), right_at = fmt::format("kiln_stage + {}", left_bytes);
    std::string text = "  const int kiln_thread = (int)threadIdx.x, kiln_lane = kiln_thread % 32;\n";
    text += fmt::format("  unsigned char *const kiln_stage = kiln_shared + {};\n  __syncthreads();\n", place.stage_at);
    text += stage(left, "kiln_stage") + stage(right, right_at);
    text += "  kiln_copy_commit();\n  kiln_copy_wait<0>();\n  __syncthreads();\n";
    int across = (int(product_of(p_.columns).as_const()) + 31) / 32, down = (int(product_of(p_.rows).as_const()) + 15) / 16;
    text += fmt::format("  for (int kiln_tile = kiln_thread / 32; kiln_tile < {}; kiln_tile += {}) {{\n    const int kiln_row0 = kiln_tile / {} * 16, kiln_column0 = kiln_tile % {} * 32;\n", across * down,
                        threads_ / 32, across, across);
    text += fmt::format("    float kiln_acc[4][4];\n#pragma unroll\n    for (int e = 0; e < 16; ++e)\n      kiln_acc[e / 4][e % 4] = {};\n#pragma unroll\n    for (int k = 0; k < {}; ++k) {{\n", first(),
                        shape.depth / 16);
    text += "      uint32_t kiln_as[4], kiln_bs[2][4];\n      " + (left ? left->fragment(true, "kiln_as", "kiln_row0", "kiln_stage") : pairs(half));
    text += "\n#pragma unroll\n      for (int j = 0; j < 2; ++j)\n        " + right.fragment(false, "kiln_bs[j]", "kiln_column0 + j * 16", right_at);
    text += fmt::format("\n#pragma unroll\n      for (int j = 0; j < 4; ++j)\n        kiln_mma_{}(kiln_acc[j], kiln_as, kiln_bs[j / 2][j % 2 * 2], kiln_bs[j / 2][j % 2 * 2 + 1]);\n    }}\n", half);
    text += "#pragma unroll\n    for (int e = 0; e < 16; e += 2)\n      kiln_finish_pair(kiln_row0 + kiln_lane / 4 + e / 2 % 2 * 8, kiln_column0 + e / 4 * 8 + kiln_lane % 4 * 2, kiln_acc[e / 4][e % 4], kiln_acc[e / 4][e % 4 + 1]);\n  }\n";
    return text_of((left ? "" : left_packs(2)) + finisher(true), text);
  }

  // Of f32, where `b` lies along the sum: threads with neighbouring columns would read a line of memory each, so it goes to
  // shared memory in whole lines, and is read there four steps at a time, or as the fragments of tensor cores want it.
  std::optional<std::string> emit_staged_floats(InnerPlace &place, bool on_tensors) {
    TileShape shape{16, 64, 16, 16, 64, threads_};
    shape.unit = TileUnit::tensor;
    while (shape.columns < product_of(p_.columns).as_const())
      shape.columns *= 2;
    while (shape.depth < product_of(p_.sum).as_const())
      shape.depth *= 2;
    TileOperand right("b", p_.b, p_.dtype, p_.columns, p_.sum, "0", shape.columns, shape, context_, helpers_);
    if (right.bytes() > place.stage_bytes)
      return std::nullopt;
    place.stage_bytes = right.bytes();
    std::string text = "  const int kiln_thread = (int)threadIdx.x;\n";
    text += fmt::format("  unsigned char *const kiln_stage = kiln_shared + {};\n  __syncthreads();\n", place.stage_at);
    text += right.places() + (right.is_async() ? right.send("0", "kiln_stage") : right.fetch("0") + right.keep("kiln_stage"));
    text += "  kiln_copy_commit();\n  kiln_copy_wait<0>();\n  __syncthreads();\n";
    if (!on_tensors)
      return text_of(left_packs(4) + finisher(), text + scalars(shape.depth * 4));
    text += fmt::format("{0}  auto kiln_b = [&](const {1} kiln_column, const {1} kiln_sum) -> float {{\n{0}    return *(const float *)(kiln_stage + kiln_swizzle<{2}>((int)kiln_column, (int)kiln_sum * 4));\n{0}  }};\n",
                        pad_, context_.index_type, shape.depth * 4);
    return text_of(operand("a", "kiln_row", p_.rows, p_.a, rows_) + finisher(), text + tensors());
  }

private:
  std::string text_of(const std::string &operands, const std::string &body) {
    std::string text = pad_ + "{\n";
    text += fmt::format("{0}  const int kiln_steps = (int)({1});\n{0}  (void)kiln_steps;\n", pad_, c::c_dim(product_of(p_.sum), helpers_));
    return text + operands + body + pad_ + "}\n";
  }

  static std::string stage(const std::optional<TileOperand> &o, const std::string &at) {
    if (!o)
      return "";
    return o->places() + (o->is_async() ? o->send("0", at) : o->fetch("0") + o->keep(at));
  }

  // Fragments of values that the group has computed, two neighbouring steps of the sum in a register.
  std::string pairs(const std::string &half) const {
    helpers_.insert("kiln_f32_to_" + half); // what the shim makes pairs of
    return fmt::format("for (int e = 0; e < 4; ++e) {{\n        const auto kiln_two = kiln_a(kiln_row0 + kiln_lane / 4 + e % 2 * 8, k * 16 + kiln_lane % 4 * 2 + e / 2 * 8);\n"
                       "        kiln_as[e] = kiln_pair_{}(kiln_two[0], kiln_two[1]);\n      }}",
                       half);
  }
  // A function of a row and a step, of as many values from there on; the step is a multiple of them, and so are the steps.
  std::string left_packs(int width) {
    const Dim steps = product_of(p_.sum);
    Symbol step = p_.sum.back()->name;
    bool together = p_.a.is(Expr::Kind::load) && p_.sum.size() == 1 && is_multiple(steps, width) && moves_by_one(p_.a, step) && is_multiple(p_.a.index - Dim::symbol(step), width) &&
                    !context_.unaligned.contains(p_.a.name);
    const std::string &index = context_.index_type;
    std::string head = fmt::format("{0}  auto kiln_a = [&](const {1} kiln_row, const {1} kiln_sum) {{\n", pad_, index), pack = fmt::format("kiln_pack<{}, {}>", type_, width);
    if (!together) {
      std::string values;
      for (int e = 0; e < width; ++e)
        values += fmt::format("{}kiln_one(kiln_row, kiln_sum + {})", e == 0 ? "" : ", ", e);
      return operand("one", "kiln_row", p_.rows, p_.a, rows_) + head + fmt::format("{0}    return {1}{{{{{2}}}}};\n{0}  }};\n", pad_, pack, values);
    }
    std::string text = head + fmt::format("{0}    if (kiln_row >= {1} || kiln_sum >= kiln_steps)\n{0}      return {2}{{}};\n", pad_, rows_, pack);
    text += coordinates(p_.rows, "kiln_row", context_, helpers_, pad_ + "    ") + coordinates(p_.sum, "kiln_sum", context_, helpers_, pad_ + "    ");
    return text + fmt::format("{0}    return kiln_load<{3}>({1} + ({2}));\n{0}  }};\n", pad_, c::c_name(p_.a.name), c::c_dim(p_.a.index, helpers_), width);
  }

  // A function of a row or column and a step; 0 outside.
  std::string operand(std::string_view name, std::string_view own, const Loops &loops, const Expr &value, const std::string &count) {
    const std::string &index = context_.index_type;
    std::string text = fmt::format("{0}  auto kiln_{1} = [&](const {2} {3}, const {2} kiln_sum) -> {4} {{\n{0}    if ({3} >= {5} || kiln_sum >= kiln_steps)\n{0}      return 0;\n", pad_,
                                   name, index, own, type_, count);
    text += coordinates(loops, std::string(own), context_, helpers_, pad_ + "    ") + coordinates(p_.sum, "kiln_sum", context_, helpers_, pad_ + "    ");
    return text + fmt::format("{0}    return {1};\n{0}  }};\n", pad_, c::c_expr(value, helpers_));
  }

  // What is done with a sum; of `pairs`, with two neighbouring columns.
  std::string finisher(bool pairs = false) {
    const std::string &index = context_.index_type;
    const Symbol sums("kiln_sums"), lane("kiln_lane");
    Stmt columns = *p_.columns.back();
    columns.body = p_.after;
    visit_exprs(columns.body, [&](Expr &e) {
      if (e.is(Expr::Kind::load) && e.name == p_.acc->name)
        e = kb::load(sums, e.dtype, Dim::symbol(lane));
    });
    bool together = pairs && vector_width(columns, false, {sums}, context_) >= 2;
    Loops loops = p_.columns;
    loops.back() = &columns;
    std::string values = pairs ? fmt::format("const {0} kiln_first, const {0} kiln_second", type_) : fmt::format("const {} kiln_first", type_);
    std::string text = fmt::format("{0}  auto kiln_finish = [&](const {1} kiln_row, const {1} kiln_column, {2}) {{\n{0}    if (kiln_row >= {3} || kiln_column >= {4})\n{0}      return;\n", pad_, index,
                                   values, rows_, columns_);
    if (pairs && !together)
      return finisher() + fmt::format("{0}  auto kiln_finish_pair = [&](const {1} kiln_row, const {1} kiln_column, {2}) {{\n{0}    kiln_finish(kiln_row, kiln_column, kiln_first);\n"
                                      "{0}    kiln_finish(kiln_row, kiln_column + 1, kiln_second);\n{0}  }};\n",
                                      pad_, index, values);
    text += coordinates(p_.rows, "kiln_row", context_, helpers_, pad_ + "    ") + coordinates(loops, "kiln_column", context_, helpers_, pad_ + "    ");
    int depth = int(pad_.size() / 2) + 2;
    text += fmt::format("{}    const {} {}[] = {{kiln_first{}}};\n", pad_, type_, c::c_name(sums), pairs ? ", kiln_second" : "");
    if (together)
      return text + "{\n" + vector_turn(columns, 2, depth, {sums}, context_, helpers_) + pad_ + "  }\n" + pad_ + "  };\n" + pad_ + "  auto &kiln_finish_pair = kiln_finish;\n";
    c::StmtStyle style{"*trap = {}; return;", nullptr, "", index};
    text += fmt::format("{}    const int {} = 0;\n", pad_, c::c_name(lane));
    return text + c::c_body(columns.body, depth, style, helpers_) + pad_ + "  };\n";
  }

  std::string tensors() const {
    return fmt::format(R"({0}  const int kiln_lane = (int)threadIdx.x % 32;
{0}  for ({1} kiln_tile = (int)threadIdx.x / 32; kiln_tile < ({2} + 15) / 16 * (({3} + 15) / 16); kiln_tile += {4}) {{
{0}    const {1} kiln_row = kiln_tile / (({3} + 15) / 16) * 16 + kiln_lane / 4, kiln_column = kiln_tile % (({3} + 15) / 16) * 16;
{0}    float kiln_acc[2][4] = {{{{{5}, {5}, {5}, {5}}}, {{{5}, {5}, {5}, {5}}}}};
{0}    for (int k = kiln_lane % 4; k - kiln_lane % 4 < kiln_steps; k += 8) {{
{0}      uint32_t kiln_as[4], kiln_bs[4];
#pragma unroll
{0}      for (int e = 0; e < 4; ++e) {{
{0}        kiln_as[e] = kiln_to_tf32(__float_as_uint(kiln_a(kiln_row + e % 2 * 8, k + e / 2 * 4)));
{0}        kiln_bs[e] = kiln_to_tf32(__float_as_uint(kiln_b(kiln_column + kiln_lane / 4 + e / 2 * 8, k + e % 2 * 4)));
{0}      }}
{0}      kiln_mma_f32(kiln_acc[0], kiln_as, kiln_bs[0], kiln_bs[1]);
{0}      kiln_mma_f32(kiln_acc[1], kiln_as, kiln_bs[2], kiln_bs[3]);
{0}    }}
#pragma unroll
{0}    for (int e = 0; e < 8; ++e)
{0}      kiln_finish(kiln_row + e / 2 % 2 * 8, kiln_column + e / 4 * 8 + kiln_lane % 4 * 2 + e % 2, kiln_acc[e / 4][e % 4]);
{0}  }}
)",
                       pad_, context_.index_type, rows_, columns_, threads_ / 32, first());
  }

  std::string first() const {
    c::Helpers none;
    return c::c_expr(p_.init->value, none);
  }

  // Neighbouring threads have neighbouring columns. `row_bytes`: of columns in shared memory, where they are there.
  std::string scalars(int row_bytes = 0) const {
    constexpr int kAcross = 16, kDown = 2, kEach = 4;
    std::string fma = p_.dtype == DType::f64 ? "kiln_fma" : "kiln_fmaf";
    helpers_.insert(fma);
    std::string steps = fmt::format(R"(#pragma unroll 4
{0}      for (int k = 0; k < kiln_steps; ++k) {{
{0}        {1} kiln_as[{2}], kiln_bs[{3}];
#pragma unroll
{0}        for (int i = 0; i < {2}; ++i)
{0}          kiln_as[i] = kiln_a(kiln_row + i * {4}, k);
#pragma unroll
{0}        for (int j = 0; j < {3}; ++j)
{0}          kiln_bs[j] = kiln_b(kiln_column + j * {5}, k);
#pragma unroll
{0}        for (int e = 0; e < {2} * {3}; ++e)
{0}          kiln_acc[e / {3}][e % {3}] = {6}(kiln_as[e / {3}], kiln_bs[e % {3}], kiln_acc[e / {3}][e % {3}]);
{0}      }}
)",
                                    pad_, type_, kDown, kEach, threads_ / kAcross, kAcross, fma);
    if (row_bytes > 0)
      steps = fmt::format(R"(#pragma unroll 2
{0}      for (int k = 0; k < kiln_steps; k += 4) {{
{0}        kiln_pack<float, 4> kiln_as[{1}], kiln_bs[{2}];
#pragma unroll
{0}        for (int i = 0; i < {1}; ++i)
{0}          kiln_as[i] = kiln_a(kiln_row + i * {3}, k);
#pragma unroll
{0}        for (int j = 0; j < {2}; ++j)
{0}          kiln_bs[j] = kiln_load<4>((const float *)(kiln_stage + kiln_swizzle<{5}>((int)kiln_column + j * {4}, k * 4)));
#pragma unroll
{0}        for (int s = 0; s < 4; ++s)
#pragma unroll
{0}          for (int e = 0; e < {1} * {2}; ++e)
{0}            kiln_acc[e / {2}][e % {2}] = kiln_fmaf(kiln_as[e / {2}][s], kiln_bs[e % {2}][s], kiln_acc[e / {2}][e % {2}]);
{0}      }}
)",
                          pad_, kDown, kEach, threads_ / kAcross, kAcross, row_bytes);
    return fmt::format(R"({0}  const int kiln_x = (int)threadIdx.x % {5}, kiln_y = (int)threadIdx.x / {5};
{0}  for ({1} kiln_row = kiln_y; kiln_row - kiln_y < {2}; kiln_row += {4} * {6})
{0}    for ({1} kiln_column = kiln_x; kiln_column - kiln_x < {3}; kiln_column += {5} * {7}) {{
{0}      {8} kiln_acc[{6}][{7}];
#pragma unroll
{0}      for (int e = 0; e < {6} * {7}; ++e)
{0}        kiln_acc[e / {7}][e % {7}] = {9};
{10}#pragma unroll
{0}      for (int e = 0; e < {6} * {7}; ++e)
{0}        kiln_finish(kiln_row + e / {7} * {4}, kiln_column + e % {7} * {5}, kiln_acc[e / {7}][e % {7}]);
{0}    }}
)",
                       pad_, context_.index_type, rows_, columns_, threads_ / kAcross, kAcross, kDown, kEach, type_, first(), steps);
  }

  const Product &p_;
  int threads_;
  std::string pad_;
  const NestContext &context_;
  c::Helpers &helpers_;
  std::string rows_, columns_, type_;
};

} // namespace

bool is_half_valued(const Expr &e, const std::set<Symbol> &halves) {
  if (e.is(Expr::Kind::load))
    return halves.contains(e.name);
  return e.is(Expr::Kind::convert) && (e.args[0].dtype == DType::bf16 || e.args[0].dtype == DType::f16);
}

std::optional<std::string> try_inner_product(const Stmt &s, InnerPlace &place, const NestContext &context, c::Helpers &helpers) {
  int64_t room = std::exchange(place.stage_bytes, 0);
  auto product = match_product(s);
  auto is_at_least = [](const Dim &d, int64_t least) { return !d.is_const() || d.as_const() >= least; };
  if (!product || !is_float(product->dtype) || !product->batch.empty() || place.threads % 32 != 0)
    return std::nullopt;
  Dim rows = product_of(product->rows), columns = product_of(product->columns);
  if (!is_at_least(rows, 4) || !is_at_least(columns, 8) || !is_at_least(rows * columns, 256) || !is_at_least(product_of(product->sum), 8))
    return std::nullopt;
  // A barrier of the group could be needed by what traps.
  bool plain = std::all_of(product->after.begin(), product->after.end(), [](const Stmt &a) { return a.is(Stmt::Kind::let) || a.is(Stmt::Kind::store); });
  if (!plain)
    return std::nullopt;
  bool may_round = context.machine.rounds_products || is_half_valued(product->a, place.halves) || is_half_valued(product->b, place.halves);
  bool on_tensors = product->dtype == DType::f32 && context.machine.has_half_tiles && may_round && is_at_least(rows, 16) && is_at_least(columns, 16);
  InnerProduct inner(*product, place.threads, place.depth, context, helpers);
  constexpr int64_t kMostSteps = 256;
  bool is_known = constant(rows) && constant(columns) && constant(product_of(product->sum)) && *constant(product_of(product->sum)) <= kMostSteps;
  if (on_tensors && is_known && is_half_valued(product->b, {}) && product->b.args[0].is(Expr::Kind::load)) {
    place.stage_bytes = room;
    if (auto text = inner.emit_staged(place))
      return text;
    place.stage_bytes = 0;
  }
  bool along_sum = product->b.is(Expr::Kind::load) && !product->b.count && moves_by_one(product->b, product->sum.back()->name);
  if (is_known && product->dtype == DType::f32 && product->b.dtype == DType::f32 && along_sum && is_multiple(product_of(product->sum), 4)) {
    place.stage_bytes = room;
    if (auto text = inner.emit_staged_floats(place, on_tensors))
      return text;
    place.stage_bytes = 0;
  }
  return inner.emit(on_tensors);
}

} // namespace kiln::cuda
