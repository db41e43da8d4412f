#include "tests/fuzz/graph_check.h"

#include "ir/ops/op.h"
#include "tests/random.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace kiln::fuzz {
namespace {

// What the tests of the op table allow.
double tolerance_of(const OpDef &def, DType dtype) {
  switch (dtype) {
  case DType::f64:
    return std::min(1e-9, def.tolerance);
  case DType::f16:
    return std::max(def.tolerance, 0x1p-9);
  case DType::bf16:
    return std::max(def.tolerance, 0x1p-6);
  default:
    return def.tolerance;
  }
}

// Ops that copy elements add no error of their own.
bool exact(const OpDef &def, DType dtype) { return !is_float(dtype) || def.tolerance == 0 || def.has(kMovement); }

Result<std::vector<Tensor>> reference(const GraphCase &graph, const EvaluateOptions &options = {}) {
  KILN_TRY(variables, initial_variables(*graph.module));
  std::vector<Tensor> all;
  for (int r = 0; r < graph.runs; ++r) {
    KILN_TRY(results, interpret(*graph.module, *graph.function, graph.inputs, variables, options));
    for (Tensor &t : results)
      all.push_back(std::move(t));
  }
  return all;
}

// Each member of the ensemble moves every result by its tolerance: all up, all down, or at random. What is no further from 0 than
// that becomes 0 in every fourth one, since ops behind it may ask whether it is.
// With `inexact`, what is exact moves by its last bits too, as sums inside of an op do.
Result<std::vector<Tensor>> perturbed(const GraphCase &graph, int member, bool inexact) {
  test::Random random{uint64_t(member) * 7919 + 5};
  EvaluateOptions options;
  auto move_last_bits = [&](Tensor &t) {
    double unit = t.dtype() == DType::f32 ? 0x1p-22 : t.dtype() == DType::f64 ? 0x1p-50 : 0;
    for (int64_t i = 0; i < t.count() && unit > 0; ++i)
      if (double v = t.at_f64(i); std::isfinite(v))
        t.set_f64(i, v * (1 + (random.chance(0.5) ? unit : -unit)));
  };
  GraphCase moved = graph;
  if (inexact)
    for (Tensor &t : moved.inputs)
      move_last_bits(t);
  options.perturb = [&](const Node &node, std::span<Tensor> results) {
    const OpDef &def = op_def(node.op);
    for (Tensor &t : results) {
      if (is_float(t.dtype()) && t.owns()) // no op says which NaN it makes
        for (int64_t i = 0; i < t.count(); ++i)
          if (std::isnan(t.at_f64(i)))
            t.set_f64(i, std::copysign(std::numeric_limits<double>::quiet_NaN(), member % 2 ? -1 : 1));
      if (inexact && exact(def, t.dtype()) && t.owns())
        move_last_bits(t);
      if (exact(def, t.dtype()) || !t.owns())
        continue;
      double tolerance = tolerance_of(def, t.dtype());
      for (int64_t i = 0; i < t.count(); ++i) {
        double v = t.at_f64(i), s = member == 0 ? 1 : member == 1 ? -1 : member % 2 ? random.uniform(-1, 1) : random.chance(0.5) ? 1 : -1;
        if (member % 4 == 3 && std::fabs(v) <= tolerance)
          t.set_f64(i, 0);
        else if (std::isfinite(v))
          t.set_f64(i, v + s * tolerance * std::max(1.0, std::fabs(v)));
        else if (std::isinf(v) && t.dtype() == DType::f16 && member == 1) // within a kernel it may be a number yet
          t.set_f64(i, std::copysign(65504, v));
      }
    }
  };
  return reference(moved, options);
}

bool same_bits(const Tensor &a, const Tensor &b) {
  return a.type() == b.type() && (a.bytes().empty() || std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0);
}

std::string element(const Tensor &t, int64_t i) {
  return is_float(t.dtype()) ? fmt::format("{:.9g}", t.at_f64(i)) : fmt::format("{}", t.at_i64(i));
}

// How far an element may be off; none: it says nothing.
struct Scatter {
  std::vector<std::vector<Tensor>> members;
  bool failed = false; // a member does not run: a tiny change decides whether the model traps

  std::optional<double> of(size_t result, int64_t i, const Tensor &want) const {
    double most = 0;
    if (failed)
      return std::nullopt;
    for (const auto &member : members) {
      const Tensor &t = member[result];
      if (t.dims() != want.dims())
        return std::nullopt; // how many there are depends on rounding
      if (!is_float(want.dtype())) {
        if (t.at_i64(i) != want.at_i64(i))
          return std::nullopt;
        continue;
      }
      double a = t.at_f64(i), b = want.at_f64(i);
      if (std::isfinite(a) != std::isfinite(b))
        return std::nullopt;
      if (std::isfinite(a))
        most = std::max(most, std::fabs(a - b));
      else if (std::isnan(a) != std::isnan(b) || (!std::isnan(a) && a != b))
        return std::nullopt;
    }
    return 2 * most;
  }
};

// The worst element that is not explained; "" where all are.
std::string compare(const Tensor &got, const Tensor &want, double tolerance, const Scatter *scatter, size_t result,
                    int64_t &unexplained) {
  if (got.dtype() != want.dtype() || (got.dims() != want.dims() && !scatter))
    return fmt::format("{} instead of {}", got.type().text(), want.type().text());
  if (got.dims() != want.dims())
    return scatter->of(result, 0, want) ? fmt::format("{} instead of {}", got.type().text(), want.type().text()) : "";
  double worst = -1;
  int64_t at = -1;
  for (int64_t i = 0; i < got.count(); ++i) {
    double over = 0;
    if (!is_float(got.dtype())) {
      if (got.at_i64(i) == want.at_i64(i))
        continue;
      over = 1;
    } else {
      double a = got.at_f64(i), b = want.at_f64(i);
      if (a == b || (std::isnan(a) && std::isnan(b)))
        continue;
      over = std::fabs(a - b) - tolerance * std::max(1.0, std::fabs(b));
      if (over <= 0)
        continue;
      if (!std::isfinite(over))
        over = 1e300;
    }
    if (scatter) {
      auto allowed = scatter->of(result, i, want);
      if (!allowed || over <= *allowed)
        continue;
    }
    ++unexplained;
    if (over > worst)
      worst = over, at = i;
  }
  if (at < 0)
    return "";
  return fmt::format("element {} of {} is {}, not {}{}", at, got.type().text(), element(got, at), element(want, at),
                     is_float(got.dtype()) ? fmt::format(" (tolerance {:.3g})", tolerance) : "");
}

} // namespace

CheckResult check_graph(const GraphCase &graph, CompiledGraphs &compiled, Workers other) {
  CheckResult out;
  auto found = [&](Finding finding, std::string why) {
    out.finding = finding;
    out.why = std::move(why);
    return out;
  };
  auto want = reference(graph);
  auto got = compiled.run(graph.function->name, graph.inputs, graph.runs, Workers::one);
  bool trapped = !got && got.error().message.starts_with("trap");
  if (!got && !trapped)
    return found(Finding::error, got.error().message);
  if (!want)
    return out; // what fails and is not used may have been removed, so both answers are right
  out.ran = true;
  if (!got) {
    for (int m = 0; m < 16; ++m)
      if (!perturbed(graph, m, false))
        return out;
    return found(Finding::error, got.error().message);
  }
  auto again = compiled.run(graph.function->name, graph.inputs, graph.runs, other);
  if (!again)
    return found(Finding::error, again.error().message);
  if (got->size() != want->size())
    return found(Finding::error, fmt::format("{} results, not {}", got->size(), want->size()));
  Scatter scatter;
  std::vector<double> tolerances;
  size_t each = graph.function->body.results.size();
  bool fine = true;
  for (size_t r = 0; r < want->size(); ++r) {
    if (!same_bits((*got)[r], (*again)[r]))
      return found(Finding::value, fmt::format("result {}: other bits with other threads", graph.function->result_names[r % each]));
    const Node *def = graph.function->def(graph.function->body.results[r % each]);
    tolerances.push_back(def && !op_def(def->op).structural ? tolerance_of(op_def(def->op), (*want)[r].dtype()) : 0);
    out.elements += (*want)[r].count();
    int64_t off = 0;
    fine &= compare((*got)[r], (*want)[r], tolerances.back(), nullptr, r, off).empty();
    out.conditioned += off;
  }
  if (fine)
    return out;
  // More and more of an ensemble, for as long as it does not explain what is seen.
  std::string why;
  for (auto [count, inexact] : {std::pair(8, false), {64, false}, {64, true}}) {
    for (int m = 0; m < count && !scatter.failed; ++m) {
      auto member = perturbed(graph, m, inexact);
      if (member)
        scatter.members.push_back(std::move(*member));
      else
        scatter.failed = true;
    }
    why.clear();
    for (size_t r = 0; r < want->size() && why.empty(); ++r) {
      int64_t off = 0;
      if (std::string text = compare((*got)[r], (*want)[r], tolerances[r], &scatter, r, off); !text.empty())
        why = fmt::format("result {}: {}", graph.function->result_names[r % each], text);
    }
    if (why.empty())
      return out;
  }
  return found(Finding::value, why);
}

} // namespace kiln::fuzz
