#include "codegen/cuda/split_product.h"

#include <fmt/format.h>

namespace kiln::cuda {
namespace {

// bf16 has 8 bits, f16 has 11.
bool is_exact(const Expr &e) {
  return e.is(Expr::Kind::convert) && (e.args[0].dtype == DType::bf16 || e.args[0].dtype == DType::f16);
}

// Whether both operands count.
std::string inside(const Product &p, c::Helpers &helpers) {
  std::string text;
  for (const auto *edges : {&p.a_edges, &p.b_edges})
    for (const Guard &g : edges->guards) {
      std::string value = c::c_dim(g.value, helpers);
      text += fmt::format("{}{} >= 0", text.empty() ? "" : " && ", value);
      if (g.limit)
        text += fmt::format(" && {} < {}", value, c::c_dim(*g.limit, helpers));
    }
  return text.empty() ? "true" : text;
}

} // namespace

bool SplitProduct::rows_are_exact() const { return is_exact(product.a); }
bool SplitProduct::columns_are_exact() const { return is_exact(product.b); }

std::string SplitProduct::multiply(const std::string &rows, const std::string &columns) const {
  auto split = [](bool is_exact, std::string_view pad, std::string_view of, std::string_view small, int count) {
    return is_exact ? "" : fmt::format("#pragma unroll\n{0}for (int e = 0; e < {3}; ++e)\n{0}  kiln_split({1}, {2});\n", pad, of, small, count);
  };
  // Products that follow each other add to different sums.
  auto turn = [&](std::string_view a, std::string_view b) {
    return fmt::format("#pragma unroll\n            for (int j = 0; j < {0}; ++j)\n              kiln_mma_f32(kiln_part[j], {1}, {2}[j / 2][j % 2 * 2], {2}[j / 2][j % 2 * 2 + 1]);\n", across, a, b);
  };
  std::string turns = (rows_are_exact() ? "" : turn("kiln_small_rows", "kiln_columns")) + (columns_are_exact() ? "" : turn("kiln_rows", "kiln_small_columns")) +
                      turn("kiln_rows", "kiln_columns");
  return fmt::format(R"(#pragma unroll
        for (int k = 0; k < {0}; ++k) {{
          uint32_t kiln_columns[{1}][4], kiln_small_columns[{1}][4];
          (void)kiln_small_columns;
#pragma unroll
          for (int j = 0; j < {1}; ++j)
            {2}
{3}#pragma unroll
          for (int i = 0; i < {4}; ++i) {{
            uint32_t kiln_rows[4], kiln_small_rows[4];
            (void)kiln_small_rows;
            {5}
{6}            float kiln_part[{7}][4] = {{}};
{8}#pragma unroll
            for (int j = 0; j < {7} * 4; ++j)
              kiln_acc[i][j / 4][j % 4] = kiln_acc[i][j / 4][j % 4] + kiln_part[j / 4][j % 4];
          }}
        }}
)",
                     depth / 8, across / 2, columns, split(columns_are_exact(), "          ", "kiln_columns[e / 4][e % 4]", "kiln_small_columns[e / 4][e % 4]", across * 2), down, rows,
                     split(rows_are_exact(), "            ", "kiln_rows[e]", "kiln_small_rows[e]", 4), across, turns);
}

std::string SplitProduct::repair(const std::string &row, const std::string &column, const std::string &begin, const std::string &end, c::Helpers &helpers) const {
  helpers.insert("kiln_fmaf");
  const std::string &index = context.index_type;
  auto total = [&](const Loops &loops) { return c::c_dim(product_of(loops), helpers); };
  // One loop over the sums, so that the code is there once and the sums stay in registers.
  return fmt::format(R"(    uint64_t kiln_odd = 0;
#pragma unroll
    for (int n = 0; n < {0}; ++n)
      kiln_odd |= (uint64_t)!(fabsf(kiln_acc[n / {1}][n / 4 % {2}][n % 4]) < INFINITY) << n;
#pragma unroll 1
    for (int n = 0; n < (kiln_odd == 0 ? 0 : {0}); ++n) {{
      const int i = n / {1}, j = n / 4 % {2}, e = n % 4;
      const {3} kiln_row = {4}, kiln_column = {5};
      if ((kiln_odd >> n & 1) == 0 || kiln_row >= {6} || kiln_column >= {7})
        continue;
{8}{9}      float kiln_sum = {10};
      const {3} kiln_end = {11} < {12} ? {11} : {12};
#pragma unroll 1
      for ({3} kiln_at = {13}; kiln_at < kiln_end; ++kiln_at) {{
{14}        if ({17})
          kiln_sum = kiln_fmaf({15}, {16}, kiln_sum);
      }}
#pragma unroll
      for (int l = 0; l < {0}; ++l)
        kiln_acc[l / {1}][l / 4 % {2}][l % 4] = l == n ? kiln_sum : kiln_acc[l / {1}][l / 4 % {2}][l % 4];
    }}
)",
                     down * across * 4, across * 4, across, index, row, column, c::c_dim(product.count_rows(), helpers), c::c_dim(product.count_columns(), helpers), coordinates(product.rows, "kiln_row", context, helpers, "      "),
                     coordinates(product.columns, "kiln_column", context, helpers, "      "), c::c_expr(product.init->value, helpers), end, total(product.sum), begin,
                     coordinates(product.sum, "kiln_at", context, helpers, "        "), c::c_expr(product.a, helpers), c::c_expr(product.b, helpers), inside(product, helpers));
}

} // namespace kiln::cuda
