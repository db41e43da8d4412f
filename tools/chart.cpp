#include "tools/chart.h"

#include "tools/drawing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kiln {
namespace {

constexpr double kWidth = 900, kHeight = 420, kLeft = 70, kRight = 20, kTop = 40, kBottom = 40;
constexpr int64_t kMostPoints = int64_t(1) << 20;
constexpr const char *kColours[] = {"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"};

// A step of 1, 2 or 5 times a power of ten, for about `count` of them.
double tick_step(double range, int count) {
  double raw = range / count, power = std::pow(10.0, std::floor(std::log10(raw)));
  for (double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power)
      return factor * power;
  return 10 * power;
}

} // namespace

Result<std::string> chart_svg(const std::string &title, const Tensor &values) {
  int rank = values.rank();
  if (rank < 1 || rank > 2 || values.count() == 0 || values.count() > kMostPoints)
    return Error{fmt::format("a chart is drawn of [points] or [series, points], not of {}", values.type().text())};
  int64_t series = rank == 2 ? values.dims()[0] : 1, points = values.dims()[size_t(rank - 1)];
  double low = INFINITY, high = -INFINITY;
  for (int64_t i = 0; i < values.count(); ++i)
    if (double v = values.at_f64(i); std::isfinite(v))
      low = std::min(low, v), high = std::max(high, v);
  if (low > high)
    low = 0, high = 1;
  if (high - low < 1e-12 * std::max(1.0, std::abs(high)))
    low -= 0.5, high += 0.5;
  auto x = [&](double i) { return kLeft + (kWidth - kLeft - kRight) * (points > 1 ? i / double(points - 1) : 0.5); };
  auto y = [&](double v) { return kHeight - kBottom - (kHeight - kTop - kBottom) * (v - low) / (high - low); };
  std::string out = fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
                                "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n"
                                "<text x=\"{2}\" y=\"24\" font-size=\"16\">{3}</text>\n",
                                kWidth, kHeight, kLeft, escape_markup(title));
  double step = tick_step(high - low, 6);
  for (double t = std::ceil(low / step) * step; t <= high + 1e-9 * step; t += step)
    out += fmt::format("<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#ddd\"/><text x=\"{3}\" y=\"{4:.1f}\" "
                       "text-anchor=\"end\">{5:.6g}</text>\n",
                       kLeft, kWidth - kRight, y(t), kLeft - 6, y(t) + 4, std::abs(t) < 1e-9 * step ? 0.0 : t);
  double every = std::max(1.0, tick_step(double(std::max<int64_t>(points - 1, 1)), 10));
  for (double t = 0; t <= double(points - 1); t += every)
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{:.0f}</text>\n", x(t), kHeight - kBottom + 18, t);
  for (int64_t s = 0; s < series; ++s) {
    std::string path;
    bool drawn = false;
    for (int64_t i = 0; i < points; ++i) {
      double v = values.at_f64(s * points + i);
      if (std::isfinite(v))
        path += fmt::format("{}{:.1f} {:.1f}", drawn ? " L" : " M", x(double(i)), y(v));
      drawn = std::isfinite(v);
    }
    out += fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"/>\n", path.empty() ? "M0 0" : path.substr(1),
                       kColours[size_t(s) % std::size(kColours)]);
  }
  return out + "</svg>\n";
}

} // namespace kiln
