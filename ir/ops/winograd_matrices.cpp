#include "ir/ops/winograd.h"

namespace kiln {
namespace {

WinogradMatrices small_tile() {
  return {2,
          4,
          {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}},
          {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}},
          {{1, 1, 1, 0}, {0, 1, -1, 1}}};
}

WinogradMatrices large_tile() {
  constexpr double p = kWinogradP, q = kWinogradQ, pp = p * p, qq = q * q;
  constexpr double at_p = 2 * pp * (pp - qq), at_q = 2 * qq * (qq - pp);
  return {4,
          6,
          {{pp * qq, 0, -(pp + qq), 0, 1, 0},
           {0, -p * qq, -qq, p, 1, 0},
           {0, p * qq, -qq, -p, 1, 0},
           {0, -pp * q, -pp, q, 1, 0},
           {0, pp * q, -pp, -q, 1, 0},
           {0, pp * qq, 0, -(pp + qq), 0, 1}},
          {{1 / (pp * qq), 0, 0},
           {1 / at_p, p / at_p, pp / at_p},
           {1 / at_p, -p / at_p, pp / at_p},
           {1 / at_q, q / at_q, qq / at_q},
           {1 / at_q, -q / at_q, qq / at_q},
           {0, 0, 1}},
          {{1, 1, 1, 1, 1, 0},
           {0, p, -p, q, -q, 0},
           {0, pp, pp, qq, qq, 0},
           {0, p * pp, -p * pp, q * qq, -q * qq, 1}}};
}

Expr times(double factor, Expr x) { return kb::mul(std::move(x), kb::number(DType::f32, factor)); }
// factor * x + y
Expr scaled_sum(double factor, Expr x, Expr y) {
  return kb::fma(std::move(x), kb::number(DType::f32, factor), std::move(y));
}

} // namespace

const WinogradMatrices &winograd_matrices(int64_t tile) {
  static const WinogradMatrices small = small_tile(), large = large_tile();
  KILN_CHECK(tile == 2 || tile == 4, "a Winograd tile is 2 or 4 wide");
  return tile == 2 ? small : large;
}

std::vector<Expr> winograd_input_row(LowerContext &c, int64_t tile, const std::vector<Expr> &d) {
  auto named = [&](Expr e) { return c.bind(std::move(e)); };
  if (tile == 2)
    return {named(kb::sub(d[0], d[2])), named(kb::add(d[2], d[1])), named(kb::sub(d[2], d[1])),
            named(kb::sub(d[3], d[1]))};
  constexpr double p = kWinogradP, q = kWinogradQ, pp = p * p, qq = q * q;
  Expr even_p = named(scaled_sum(-qq, d[2], d[4])), odd_p = named(scaled_sum(-qq, d[1], d[3]));
  Expr even_q = named(scaled_sum(-pp, d[2], d[4])), odd_q = named(scaled_sum(-pp, d[1], d[3]));
  return {named(scaled_sum(pp * qq, d[0], scaled_sum(-(pp + qq), d[2], d[4]))),
          named(scaled_sum(p, odd_p, even_p)),
          named(scaled_sum(-p, odd_p, even_p)),
          named(scaled_sum(q, odd_q, even_q)),
          named(scaled_sum(-q, odd_q, even_q)),
          named(scaled_sum(pp * qq, d[1], scaled_sum(-(pp + qq), d[3], d[5])))};
}

std::vector<Expr> winograd_output_row(LowerContext &c, int64_t tile, const std::vector<Expr> &m) {
  auto named = [&](Expr e) { return c.bind(std::move(e)); };
  Expr sum_p = named(kb::add(m[1], m[2])), difference_p = named(kb::sub(m[1], m[2]));
  if (tile == 2)
    return {named(kb::add(m[0], sum_p)), named(kb::add(difference_p, m[3]))};
  constexpr double p = kWinogradP, q = kWinogradQ, pp = p * p, qq = q * q;
  Expr sum_q = named(kb::add(m[3], m[4])), difference_q = named(kb::sub(m[3], m[4]));
  return {named(kb::add(m[0], kb::add(sum_p, sum_q))),
          named(scaled_sum(p, difference_p, times(q, difference_q))),
          named(scaled_sum(pp, sum_p, times(qq, sum_q))),
          named(scaled_sum(p * pp, difference_p, scaled_sum(q * qq, difference_q, m[5])))};
}

std::vector<Expr> winograd_weights_row(LowerContext &c, int64_t tile, const std::vector<Expr> &g) {
  auto named = [&](Expr e) { return c.bind(std::move(e)); };
  if (tile == 2) {
    Expr even = named(times(0.5, kb::add(g[0], g[2])));
    return {g[0], named(scaled_sum(0.5, g[1], even)), named(scaled_sum(-0.5, g[1], even)), g[2]};
  }
  constexpr double p = kWinogradP, q = kWinogradQ, pp = p * p, qq = q * q;
  constexpr double at_p = 2 * pp * (pp - qq), at_q = 2 * qq * (qq - pp);
  Expr even_p = named(scaled_sum(pp / at_p, g[2], times(1 / at_p, g[0])));
  Expr even_q = named(scaled_sum(qq / at_q, g[2], times(1 / at_q, g[0])));
  return {named(times(1 / (pp * qq), g[0])),
          named(scaled_sum(p / at_p, g[1], even_p)),
          named(scaled_sum(-p / at_p, g[1], even_p)),
          named(scaled_sum(q / at_q, g[1], even_q)),
          named(scaled_sum(-q / at_q, g[1], even_q)),
          g[2]};
}

} // namespace kiln
