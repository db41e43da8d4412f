// A warp takes 16x16 results on the tensor cores, whose operands it picks from wherever they lie: as tf32, which holds
// f16 and bf16 exactly. f32 goes there where that is asked for, or where the other operand is of halves: then the graph
// has rounded this one to halves too, which is coarser. Everything else is done by threads with two by four sums each.
#include "codegen/cuda/inner_product.h"

#include "codegen/cuda/product.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::cuda {
namespace {

class InnerProduct {
public:
  InnerProduct(const Product &p, int threads, int depth, const NestContext &context, c::Helpers &helpers)
      : p_(p), threads_(threads), pad_(size_t(depth) * 2, ' '), context_(context), helpers_(helpers), rows_(c::c_dim(product_of(p.rows), helpers)),
        columns_(c::c_dim(product_of(p.columns), helpers)), type_(c::c_type(p.dtype)) {}

  std::string emit(bool on_tensors) {
    std::string text = pad_ + "{\n";
    text += fmt::format("{0}  const int kiln_steps = (int)({1});\n", pad_, c::c_dim(product_of(p_.sum), helpers_));
    text += operand("a", "kiln_row", p_.rows, p_.a, rows_) + operand("b", "kiln_column", p_.columns, p_.b, columns_);
    text += finisher();
    return text + (on_tensors ? tensors() : scalars()) + pad_ + "}\n";
  }

private:
  // A function of a row or column and a step; 0 outside.
  std::string operand(std::string_view name, std::string_view own, const Loops &loops, const Expr &value, const std::string &count) {
    const std::string &index = context_.index_type;
    std::string text = fmt::format("{0}  auto kiln_{1} = [&](const {2} {3}, const {2} kiln_sum) -> {4} {{\n{0}    if ({3} >= {5} || kiln_sum >= kiln_steps)\n{0}      return 0;\n", pad_,
                                   name, index, own, type_, count);
    text += coordinates(loops, std::string(own), context_, helpers_, pad_ + "    ") + coordinates(p_.sum, "kiln_sum", context_, helpers_, pad_ + "    ");
    return text + fmt::format("{0}    return {1};\n{0}  }};\n", pad_, c::c_expr(value, helpers_));
  }

  // What is done with a sum.
  std::string finisher() {
    const std::string &index = context_.index_type;
    c::StmtStyle style{"*trap = {}; return;", nullptr, "", index};
    std::string text = fmt::format("{0}  auto kiln_finish = [&](const {1} kiln_row, const {1} kiln_column, const {2} kiln_value) {{\n{0}    if (kiln_row >= {3} || kiln_column >= {4})\n"
                                   "{0}      return;\n",
                                   pad_, index, type_, rows_, columns_);
    text += coordinates(p_.rows, "kiln_row", context_, helpers_, pad_ + "    ") + coordinates(p_.columns, "kiln_column", context_, helpers_, pad_ + "    ");
    text += fmt::format("{}    const {} {}[1] = {{kiln_value}};\n", pad_, type_, c::c_name(p_.acc->name));
    return text + c::c_body(p_.after, int(pad_.size() / 2) + 2, style, helpers_) + pad_ + "  };\n";
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

  // Neighbouring threads have neighbouring columns.
  std::string scalars() const {
    constexpr int kAcross = 16, kDown = 2, kEach = 4;
    helpers_.insert(p_.dtype == DType::f64 ? "kiln_fma" : "kiln_fmaf");
    return fmt::format(R"({0}  const int kiln_x = (int)threadIdx.x % {5}, kiln_y = (int)threadIdx.x / {5};
{0}  for ({1} kiln_row = kiln_y; kiln_row - kiln_y < {2}; kiln_row += {4} * {6})
{0}    for ({1} kiln_column = kiln_x; kiln_column - kiln_x < {3}; kiln_column += {5} * {7}) {{
{0}      {8} kiln_acc[{6}][{7}];
#pragma unroll
{0}      for (int e = 0; e < {6} * {7}; ++e)
{0}        kiln_acc[e / {7}][e % {7}] = {9};
#pragma unroll 4
{0}      for (int k = 0; k < kiln_steps; ++k) {{
{0}        {8} kiln_as[{6}], kiln_bs[{7}];
#pragma unroll
{0}        for (int i = 0; i < {6}; ++i)
{0}          kiln_as[i] = kiln_a(kiln_row + i * {4}, k);
#pragma unroll
{0}        for (int j = 0; j < {7}; ++j)
{0}          kiln_bs[j] = kiln_b(kiln_column + j * {5}, k);
#pragma unroll
{0}        for (int e = 0; e < {6} * {7}; ++e)
{0}          kiln_acc[e / {7}][e % {7}] = {10}(kiln_as[e / {7}], kiln_bs[e % {7}], kiln_acc[e / {7}][e % {7}]);
{0}      }}
#pragma unroll
{0}      for (int e = 0; e < {6} * {7}; ++e)
{0}        kiln_finish(kiln_row + e / {7} * {4}, kiln_column + e % {7} * {5}, kiln_acc[e / {7}][e % {7}]);
{0}    }}
)",
                       pad_, context_.index_type, rows_, columns_, threads_ / kAcross, kAcross, kDown, kEach, type_, first(),
                       p_.dtype == DType::f64 ? "kiln_fma" : "kiln_fmaf");
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

std::optional<std::string> try_inner_product(const Stmt &s, int threads, int depth, const std::set<Symbol> &halves, const NestContext &context,
                                             c::Helpers &helpers) {
  auto product = match_product(s);
  auto is_at_least = [](const Dim &d, int64_t least) { return !d.is_const() || d.as_const() >= least; };
  if (!product || !is_float(product->dtype) || !product->batch.empty() || threads % 32 != 0)
    return std::nullopt;
  Dim rows = product_of(product->rows), columns = product_of(product->columns);
  if (!is_at_least(rows, 4) || !is_at_least(columns, 8) || !is_at_least(rows * columns, 256) || !is_at_least(product_of(product->sum), 8))
    return std::nullopt;
  // A barrier of the group could be needed by what traps.
  bool plain = std::all_of(product->after.begin(), product->after.end(), [](const Stmt &a) { return a.is(Stmt::Kind::let) || a.is(Stmt::Kind::store); });
  if (!plain)
    return std::nullopt;
  bool may_round = context.machine.rounds_products || is_half_valued(product->a, halves) || is_half_valued(product->b, halves);
  bool on_tensors = product->dtype == DType::f32 && context.machine.has_half_tiles && may_round && is_at_least(rows, 16) && is_at_least(columns, 16);
  return InnerProduct(*product, threads, depth, context, helpers).emit(on_tensors);
}

} // namespace kiln::cuda
