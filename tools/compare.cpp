#include "tools/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kiln {
namespace {

std::string place(const Tensor &tensor, int64_t i) {
  std::string out;
  for (size_t d = tensor.dims().size(); d-- > 0;) {
    out = fmt::format("{}{}{}", i % tensor.dims()[d], out.empty() ? "" : ", ", out);
    i /= tensor.dims()[d];
  }
  return "[" + out + "]";
}

std::string element(const Tensor &tensor, int64_t i) {
  return holds_floats(tensor.dtype()) ? fmt::format("{:.9g}", tensor.at_f64(i)) : fmt::format("{}", tensor.at_i64(i));
}

} // namespace

Difference compare(const Tensor &got, const Tensor &want) {
  Difference out;
  if (got.dtype() != want.dtype() || got.dims() != want.dims())
    return {false, INFINITY, INFINITY, -1, fmt::format("is {}, not {}", got.type().text(), want.type().text())};
  bool floats = holds_floats(got.dtype());
  double largest = 0;
  for (int64_t i = 0; i < got.count(); ++i) {
    double w = floats ? want.at_f64(i) : double(want.at_i64(i)), difference = 0;
    if (std::isfinite(w))
      largest = std::max(largest, std::abs(w));
    if (floats) {
      double g = got.at_f64(i);
      if (std::isnan(g) != std::isnan(w) || (std::isinf(w) || std::isinf(g) ? g != w && !std::isnan(w) : false))
        difference = INFINITY;
      else if (!std::isnan(g) && g != w)
        difference = std::abs(g - w);
    } else if (got.at_i64(i) != want.at_i64(i)) {
      difference = std::max(1.0, std::abs(double(got.at_i64(i)) - w));
    }
    if (difference > out.worst) {
      out.worst = difference;
      out.at = i;
    }
  }
  out.relative = out.worst == 0 ? 0 : out.worst / std::max(largest, 1e-30);
  if (out.at >= 0)
    out.text = fmt::format("element {} is {}, not {}", place(want, out.at), element(got, out.at), element(want, out.at));
  out.comparable = std::isfinite(out.worst);
  return out;
}

bool within(const Tensor &got, const Tensor &want, const Tolerance &tolerance, std::string &why) {
  Difference d = compare(got, want);
  why = d.text;
  if (!d.comparable)
    return false;
  if (!holds_floats(want.dtype()))
    return d.worst == 0;
  if (!tolerance.element_wise)
    return d.worst <= tolerance.absolute || d.relative <= tolerance.relative;
  for (int64_t i = 0; i < want.count(); ++i) {
    double g = got.at_f64(i), w = want.at_f64(i);
    if (g != w && !(std::isnan(g) && std::isnan(w)) &&
        !(std::abs(g - w) <= tolerance.absolute + tolerance.relative * std::abs(w))) {
      why = fmt::format("element {} is {}, not {}", place(want, i), element(got, i), element(want, i));
      return false;
    }
  }
  return true;
}

} // namespace kiln
