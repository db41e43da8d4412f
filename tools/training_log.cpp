#include "tools/training_log.h"

#include "frontend/files/file_writer.h"
#include "ir/support/diagnostic.h"
#include "tools/drawing.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

namespace kiln {
namespace {

constexpr double kWidth = 860, kHeight = 260, kLeft = 64, kRight = 16, kTop = 12, kBottom = 34;
constexpr size_t kMostPoints = 1500;

std::string number_text(double value) { return fmt::format("{:.4g}", value); }

struct Axis {
  double low = 0, high = 1;
  bool log = false;
  double at(double value) const {
    double a = log ? std::log10(low) : low, b = log ? std::log10(high) : high, v = log ? std::log10(value) : value;
    return (v - a) / (b - a);
  }
};

Axis axis_over(const std::vector<const Curves::Points *> &lists, bool x, bool log) {
  Axis out{INFINITY, -INFINITY, log};
  std::vector<double> values;
  for (const auto *list : lists)
    for (const auto &[px, py] : *list)
      if (double v = x ? px : py; std::isfinite(v) && (!log || v > 0))
        values.push_back(v);
  if (values.empty())
    return {1, 10, log};
  std::sort(values.begin(), values.end());
  out.low = values.front();
  out.high = values.back();
  // A few wild first steps would flatten everything else.
  if (!x && values.size() > 50)
    if (double most = values[values.size() * 98 / 100]; out.high - most > 2 * (most - out.low))
      out.high = most + (most - out.low) * 0.2;
  if (out.high <= out.low)
    out = log ? Axis{out.low * 0.9, out.low * 1.1, true} : Axis{out.low - 0.5, out.low + 0.5, false};
  return out;
}

// 1, 2 or 5 times a power of ten, about five of them; powers of ten on a logarithmic axis.
std::vector<double> ticks(const Axis &axis) {
  std::vector<double> out;
  if (axis.log) {
    for (int e = int(std::floor(std::log10(axis.low))); e <= int(std::ceil(std::log10(axis.high))); ++e)
      if (double v = std::pow(10.0, e); v >= axis.low * 0.999 && v <= axis.high * 1.001)
        out.push_back(v);
    return out;
  }
  double rough = (axis.high - axis.low) / 5, power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = power * (rough / power < 1.5 ? 1 : rough / power < 3.5 ? 2 : rough / power < 7.5 ? 5 : 10);
  for (double v = std::ceil(axis.low / step) * step; v <= axis.high + step * 1e-9 && out.size() < 20; v += step)
    out.push_back(std::abs(v) < step * 1e-9 ? 0 : v);
  return out;
}

// Of many points the means of stretches.
Curves::Points thinned(const Curves::Points &points) {
  if (points.size() <= kMostPoints)
    return points;
  Curves::Points out;
  for (size_t i = 0; i < kMostPoints; ++i) {
    size_t begin = points.size() * i / kMostPoints, end = points.size() * (i + 1) / kMostPoints;
    double x = 0, y = 0;
    for (size_t k = begin; k < end; ++k)
      x += points[k].first, y += points[k].second;
    out.emplace_back(x / double(end - begin), y / double(end - begin));
  }
  return out;
}

// Means over the points around each, a fortieth of them either way.
Curves::Points smoothed(const Curves::Points &points) {
  Curves::Points out = points;
  std::vector<double> sums(points.size() + 1);
  for (size_t i = 0; i < points.size(); ++i)
    sums[i + 1] = sums[i] + points[i].second;
  size_t reach = points.size() / 40;
  for (size_t i = 0; i < points.size(); ++i) {
    size_t begin = i > reach ? i - reach : 0, end = std::min(points.size(), i + reach + 1);
    out[i].second = (sums[end] - sums[begin]) / double(end - begin);
  }
  return out;
}

std::string path_of(const Curves::Points &points, const Axis &x, const Axis &y) {
  std::string out;
  for (const auto &[px, py] : points) {
    if (!std::isfinite(py) || (x.log && px <= 0))
      continue;
    double sx = kLeft + x.at(px) * (kWidth - kLeft - kRight);
    double sy = kTop + (1 - std::clamp(y.at(py), -0.02, 1.02)) * (kHeight - kTop - kBottom);
    out += fmt::format("{}{:.1f} {:.1f}", out.empty() ? "M" : "L", sx, sy);
  }
  return out;
}

std::string chart(const std::string &name, const Curves::Points *train, const Curves::Points *validation, const std::string &x_name, bool log_x) {
  std::vector<const Curves::Points *> lists;
  for (const auto *list : {train, validation})
    if (list)
      lists.push_back(list);
  Axis x = axis_over(lists, true, log_x), y = axis_over(lists, false, false);
  std::string out = fmt::format("<h2>{}</h2>\n<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", escape_markup(name), kWidth, kHeight, escape_markup(name));
  for (double v : ticks(y)) {
    double at = kTop + (1 - y.at(v)) * (kHeight - kTop - kBottom);
    out += fmt::format("<path class=\"grid\" d=\"M{} {:.1f}H{}\"/><text class=\"y\" x=\"{}\" y=\"{:.1f}\">{}</text>\n", kLeft, at, kWidth - kRight,
                       kLeft - 8, at + 4, number_text(v));
  }
  for (double v : ticks(x)) {
    double at = kLeft + x.at(v) * (kWidth - kLeft - kRight);
    out += fmt::format("<text class=\"x\" x=\"{:.1f}\" y=\"{}\">{}</text>\n", at, kHeight - kBottom + 18, number_text(v));
  }
  out += fmt::format("<text class=\"x\" x=\"{}\" y=\"{}\">{}</text>\n", (kLeft + kWidth - kRight) / 2, kHeight - 2, escape_markup(x_name));
  if (train) {
    auto points = thinned(*train);
    bool many = points.size() > 80;
    out += fmt::format("<path class=\"{}\" d=\"{}\"/>\n", many ? "raw" : "train", path_of(points, x, y));
    if (many)
      out += fmt::format("<path class=\"train\" d=\"{}\"/>\n", path_of(smoothed(points), x, y));
  }
  if (validation) {
    out += fmt::format("<path class=\"validation\" d=\"{}\"/>\n", path_of(*validation, x, y));
    for (const auto &[px, py] : thinned(*validation))
      if (std::isfinite(py))
        out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"><title>{} {}: {}</title></circle>\n", kLeft + x.at(px) * (kWidth - kLeft - kRight),
                           kTop + (1 - std::clamp(y.at(py), -0.02, 1.02)) * (kHeight - kTop - kBottom), escape_markup(x_name), number_text(px), number_text(py));
  }
  return out + "</svg>\n";
}

const Curves::Points *find(const std::vector<std::pair<std::string, Curves::Points>> &list, const std::string &name) {
  for (const auto &[key, points] : list)
    if (key == name)
      return &points;
  return nullptr;
}

} // namespace

void Curves::add(bool is_validation, const std::string &name, double step, double value) {
  auto &list = is_validation ? validation : train;
  for (auto &[key, points] : list)
    if (key == name) {
      points.emplace_back(step, value);
      return;
    }
  list.push_back({name, {{step, value}}});
}

std::string curves_page(const std::string &title, const std::vector<std::pair<std::string, std::string>> &facts, const Curves &curves,
                        const std::string &x_name, bool log_x) {
  std::string out = fmt::format("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n<style>\n", escape_markup(title));
  out += "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222;background:#fff}\n"
         "h1{font-size:1.4em}h2{font-size:1.05em;margin:1.4em 0 .2em}svg{width:100%;height:auto}dl{display:grid;grid-template-columns:max-content 1fr;"
         "gap:.1em 1.2em}dt{color:#666}dd{margin:0}text{font-size:12px;fill:#555}.y{text-anchor:end}.x{text-anchor:middle}path{fill:none}"
         ".grid{stroke:#8884}.raw{stroke:#2a6fdb;opacity:.25}.train{stroke:#2a6fdb;stroke-width:1.8}.validation{stroke:#d9480f;stroke-width:1.8}"
         "circle{fill:#d9480f}.key b{font-weight:600}.key .t{color:#2a6fdb}.key .v{color:#d9480f}\n"
         "@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}text{fill:#aaa}dt{color:#999}}\n</style></head><body>\n";
  out += fmt::format("<h1>{}</h1>\n<dl>\n", escape_markup(title));
  for (const auto &[name, value] : facts)
    out += fmt::format("<dt>{}</dt><dd>{}</dd>\n", escape_markup(name), escape_markup(value));
  out += "</dl>\n";
  if (!curves.validation.empty())
    out += "<p class=\"key\"><b class=\"t\">training</b>, <b class=\"v\">validation</b></p>\n";
  for (const auto &[name, points] : curves.train)
    out += chart(name, &points, find(curves.validation, name), x_name, log_x);
  for (const auto &[name, points] : curves.validation)
    if (!find(curves.train, name))
      out += chart(name, nullptr, &points, x_name, log_x);
  return out + "</body></html>\n";
}

Status TrainingLog::open(const std::string &path, bool resume, int64_t epoch, int64_t step) {
  if (path.empty())
    return Unit{};
  std::error_code ignored;
  std::string kept;
  if (resume && std::filesystem::is_regular_file(path, ignored)) {
    std::ifstream old(path);
    for (std::string line; std::getline(old, line) && !old.eof();) {
      auto json = nlohmann::json::parse(line, nullptr, false);
      if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer() || !json.contains("epoch") || !json["epoch"].is_number_integer())
        return Error{fmt::format("'{}' holds a line that `kiln train` did not write; take another file for the log", path)};
      auto at = json["step"].get<int64_t>();
      bool is_validation = json.contains("validation");
      if (at > step || (is_validation && json.value("epoch", int64_t(0)) >= epoch))
        continue;
      kept += line + "\n";
      for (const auto &[key, value] : json.items())
        if (value.is_number() && key != "step" && key != "epoch")
          curves_.add(is_validation, key, double(at), value.get<double>());
    }
  }
  if (auto status = write_file(path, kept); !status)
    return status;
  file_.open(path, std::ios::app);
  if (!file_)
    return Error{fmt::format("cannot write the log '{}'", path)};
  return Unit{};
}

void TrainingLog::write(bool is_validation, int64_t epoch, int64_t step, const std::vector<std::string> &names, const std::vector<double> &values) {
  std::string line = fmt::format("{{\"epoch\": {}, \"step\": {}{}", epoch, step, is_validation ? ", \"validation\": true" : "");
  for (size_t i = 0; i < values.size(); ++i)
    if (std::isfinite(values[i])) {
      line += fmt::format(", {}: {:.9g}", json_quote(names[i]), values[i]);
      curves_.add(is_validation, names[i], double(step), values[i]);
    }
  if (file_.is_open())
    file_ << line << "}\n" << std::flush;
}

void TrainingLog::step(int64_t epoch, int64_t step, const std::vector<std::string> &names, const std::vector<double> &values) {
  write(false, epoch, step, names, values);
}

void TrainingLog::validation(int64_t epoch, int64_t step, const std::vector<std::string> &names, const std::vector<double> &values) {
  write(true, epoch, step, names, values);
}

} // namespace kiln
