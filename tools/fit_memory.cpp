// The choice is by measurement: each model of the program whose instances are called is tried, through the graph passes and the plan of
// memory, without code.
#include "tools/fit_memory.h"

#include "passes/lower/lower.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <cmath>

namespace kiln {
namespace {

struct Measured {
  int64_t bytes = 0;  // of the largest entry
  double flops = 0;   // of all kernels in all entries
  std::string open;   // an entry whose memory depends on sizes; empty: none
};

std::optional<Measured> measure(const ModelOptions &model, const CompileOptions &options, Diagnostics &diagnostics) {
  Module module;
  if (!load_model(model, module, diagnostics))
    return std::nullopt;
  CompileOptions plain = options;
  plain.progress = nullptr;
  plain.passes.dump_dir.clear();
  Program program;
  if (!optimise_module(module, plain, diagnostics) || !lower_module(module, program, diagnostics))
    return std::nullopt;
  Measured out;
  for (const Plan &plan : program.entries) {
    if (!plan.arena_size.is_const())
      out.open = plan.name;
    else
      out.bytes = std::max(out.bytes, plan.arena_size.as_const());
    auto add = [&](const std::vector<PlanStep> &steps, auto &&self) -> void {
      for (const PlanStep &step : steps) {
        if (step.kernel >= 0 && program.kernels[size_t(step.kernel)].flops.is_const())
          out.flops += double(program.kernels[size_t(step.kernel)].flops.as_const());
        for (const auto &inner : {std::cref(step.body), std::cref(step.other)})
          self(inner.get(), self);
      }
    };
    add(plan.steps, add);
  }
  return out;
}

std::string bytes_text(int64_t bytes) { return fmt::format("{:.1f} MiB", double(bytes) / 1048576); }

} // namespace

std::optional<int64_t> parse_bytes(std::string_view text) {
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !(value >= 0) || value > 1e15)
    return std::nullopt;
  std::string_view unit(end, size_t(text.data() + text.size() - end));
  double factor = unit.empty() ? 1 : unit == "K" ? 1024.0 : unit == "M" ? 1048576.0 : unit == "G" ? 1073741824.0 : 0;
  return factor == 0 ? std::nullopt : std::optional(int64_t(value * factor));
}

bool fit_memory(const ModelOptions &model, const CompileOptions &options, int64_t limit, Module &module, std::string &note,
                Diagnostics &diagnostics) {
  auto fail = [&](std::string message) {
    diagnostics.error({Symbol(model.path), 0, 0, {}}, std::move(message));
    return false;
  };
  ModelOptions tried = model;
  tried.called = std::make_shared<std::set<std::string>>();
  auto plain = measure(tried, options, diagnostics);
  if (!plain)
    return false;
  if (!plain->open.empty())
    return fail(fmt::format("--max-memory: what '{}' needs depends on its sizes; fix them with --dim N=SIZE", plain->open));
  if (plain->bytes <= limit)
    return true;
  std::set<std::string> called = *tried.called;
  tried.called = nullptr;
  std::vector<std::set<std::string>> choices;
  for (const std::string &name : called)
    choices.push_back({name});
  if (called.size() > 1)
    choices.push_back(called);
  int64_t least = plain->bytes;
  double cheapest = INFINITY;
  std::set<std::string> chosen;
  for (const auto &choice : choices) {
    tried.remat = choice;
    auto measured = measure(tried, options, diagnostics);
    if (!measured)
      return false;
    least = std::min(least, measured->bytes);
    if (measured->bytes > limit || measured->flops >= cheapest)
      continue;
    cheapest = measured->flops;
    chosen = choice;
    note = fmt::format("--max-memory: {} instead of {}, with the values of {} computed again for gradients ({:+.0f} % operations)",
                       bytes_text(measured->bytes), bytes_text(plain->bytes), fmt::join(choice, " and "),
                       100 * (measured->flops / std::max(plain->flops, 1.0) - 1));
  }
  if (chosen.empty())
    return fail(fmt::format("--max-memory: it needs {} at least, {} are allowed; make the batch smaller, or split the network into models whose "
                            "calls can be computed again", bytes_text(least), bytes_text(limit)));
  tried.remat = chosen;
  module = Module();
  return load_model(tried, module, diagnostics);
}

} // namespace kiln
