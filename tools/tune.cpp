#include "tools/tune.h"

#include "ir/placement.h"
#include "tools/cli.h"
#include "tools/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace kiln {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

constexpr double kWorthwhile = 0.98;   // of the time, to be taken for faster and not for luck
constexpr double kLeastShare = 0.003;  // of a run, below which a kernel is left alone
constexpr int kLeastRuns = 5;
constexpr double kTurnsMs = 400;       // for which two packages take turns, at least kLeastRuns times

// A variant of one setting, laid over what a kernel has already.
struct Variant {
  std::string name;
  std::function<void(KernelTuning &)> apply;
};

// Tiles that fill the registers, for each width the tallest one and some less tall, then the rest one
// by one: pieces of long reductions, unrolling, how far ahead operands are asked for, whether threads are worth it.
std::vector<Variant> variants(const MachineDesc &machine, int threads) {
  std::vector<Variant> out;
  auto add_tile = [&](int64_t rows, int64_t vectors) {
    out.push_back({fmt::format("tiles of {} x {}", rows, vectors), [=](KernelTuning &t) {
                     t.tile.rows = rows;
                     t.tile.vectors = vectors;
                   }});
  };
  for (int64_t vectors : {2, 3, 4, 1, 6, 5}) {
    int64_t rows = std::min<int64_t>(16, (machine.vector_registers - 2 - vectors) / vectors);
    for (int64_t less = 0; less < (vectors <= 3 ? 3 : 2); ++less)
      if (rows - less >= 2)
        add_tile(rows - less, vectors);
  }
  for (int64_t depth : {0, 128, 256, 512})
    out.push_back({depth > 0 ? fmt::format("reductions in pieces of {}", depth) : std::string("reductions in one piece"),
                   [=](KernelTuning &t) { t.tile.depth = depth; }});
  for (int64_t unroll : {2, 8, 1})
    out.push_back({fmt::format("{} steps a round", unroll), [=](KernelTuning &t) { t.tile.unroll = unroll; }});
  for (int64_t steps : {0, 4, 16})
    out.push_back({fmt::format("prefetch {} steps ahead", steps), [=](KernelTuning &t) { t.tile.prefetch_steps = steps; }});
  for (bool next : {false, true})
    out.push_back({next ? "next panels prefetched" : "no next panels", [=](KernelTuning &t) { t.tile.prefetch_next = next; }});
  if (threads > 1)
    out.push_back({"no threads", [](KernelTuning &t) { t.threads = false; }});
  return out;
}

// The launches of an entry by position; null where there is none.
void collect_launches(const std::vector<PlanStep> &steps, std::vector<const PlanStep *> &out) {
  for (const PlanStep &step : steps) {
    if (step.kind == PlanStep::Kind::launch) {
      if (out.size() <= size_t(step.position))
        out.resize(size_t(step.position) + 1);
      out[size_t(step.position)] = &step;
    }
    collect_launches(step.condition_body, out);
    collect_launches(step.body, out);
    collect_launches(step.other, out);
  }
}

// A package in memory with a session for each entry, and where each kernel's time goes.
class Candidate {
public:
  static Result<std::unique_ptr<Candidate>> open(const Module &module, const Compiled &compiled, const std::string &target,
                                                 const TuneOptions &how) {
    auto out = std::make_unique<Candidate>();
    std::vector<uint8_t> bytes;
    if (std::string error = build_package(package_spec(module, compiled), bytes); !error.empty())
      return Error{error};
    size_t rounded = (bytes.size() + 4095) / 4096 * 4096;
    out->memory_.reset(std::aligned_alloc(4096, rounded));
    if (!out->memory_)
      return Error{"no memory for a package"};
    std::memcpy(out->memory_.get(), bytes.data(), bytes.size());
    std::span package{static_cast<const std::byte *>(out->memory_.get()), bytes.size()};
    out->best_.assign(compiled.program.kernels.size(), INFINITY);
    out->times_.resize(compiled.program.kernels.size());
    for (const Plan &plan : compiled.program.entries) {
      if (is_gpu_twin(plan.name) || is_part(plan.name))
        continue;
      SessionOptions options;
      options.entry = plan.name;
      options.target = target;
      options.device = "cpu";
      options.threads = how.threads;
      KILN_TRY(session, Session::open(package, options));
      std::vector<std::pair<std::string, Tensor>> inputs;
      std::string made;
      KILN_RETURN_IF_ERROR(session.fill_inputs(inputs, how.dims, made));
      session.set_kernel_hook(after_kernel, out.get());
      KILN_RETURN_IF_ERROR(session.bind(std::move(inputs)));
      out->launches_.emplace_back();
      collect_launches(plan.steps, out->launches_.back());
      out->sessions_.push_back(std::move(session));
    }
    return out;
  }

  // Every entry once.
  Status run(bool is_counted) {
    now_.assign(best_.size(), 0);
    for (entry_ = 0; entry_ < sessions_.size(); ++entry_) {
      last_ = Clock::now();
      KILN_RETURN_IF_ERROR(sessions_[entry_].run());
    }
    for (size_t k = 0; is_counted && k < now_.size(); ++k) {
      times_[k].push_back(now_[k]);
      best_[k] = std::min(best_[k], now_[k]);
    }
    return Unit{};
  }
  void forget() {
    std::fill(best_.begin(), best_.end(), INFINITY);
    for (auto &times : times_)
      times.clear();
  }
  double best(size_t kernel) const { return best_[kernel]; }
  double median(size_t kernel) const {
    std::vector<double> sorted = times_[kernel];
    std::nth_element(sorted.begin(), sorted.begin() + std::ptrdiff_t(sorted.size() / 2), sorted.end());
    return sorted[sorted.size() / 2];
  }

private:
  struct Free {
    void operator()(void *p) const { std::free(p); }
  };
  static void after_kernel(void *self, uint32_t, uint32_t position) {
    auto &c = *static_cast<Candidate *>(self);
    auto now = Clock::now();
    const std::vector<const PlanStep *> &launches = c.launches_[c.entry_];
    if (position < launches.size() && launches[position])
      c.now_[size_t(launches[position]->kernel)] += milliseconds(c.last_, now);
    c.last_ = Clock::now();
  }

  std::unique_ptr<void, Free> memory_;
  std::vector<Session> sessions_; // go before the memory that they read
  std::vector<std::vector<const PlanStep *>> launches_; // by entry
  std::vector<std::vector<double>> times_; // by kernel of the program, one for each run
  std::vector<double> best_, now_;
  size_t entry_ = 0;
  Clock::time_point last_;
};

Status take_turns(Candidate &a, Candidate &b, double ms) {
  a.forget();
  b.forget();
  KILN_RETURN_IF_ERROR(a.run(false));
  KILN_RETURN_IF_ERROR(b.run(false));
  auto start = Clock::now();
  for (int turn = 0; turn < kLeastRuns || milliseconds(start, Clock::now()) < ms; ++turn) {
    KILN_RETURN_IF_ERROR((turn % 2 ? b : a).run(true));
    KILN_RETURN_IF_ERROR((turn % 2 ? a : b).run(true));
  }
  return Unit{};
}

class Tuner {
public:
  Tuner(const Module &module, Compiled &compiled, const CompileOptions &options, const TuneOptions &how, Tuning &tuning)
      : module_(module), compiled_(compiled), options_(options), how_(how), tuning_(tuning), machine_(options.machines[0]) {
    options_.machines = {machine_};
    options_.progress = nullptr;
  }

  Result<TuneReport> run() {
    auto start = Clock::now();
    auto seconds = [&] { return milliseconds(start, Clock::now()) * 1e-3; };
    group();
    KILN_TRY(first, candidate(tuning_));
    std::unique_ptr<Candidate> best = std::move(first);
    KILN_RETURN_IF_ERROR(best->run(false));
    KILN_RETURN_IF_ERROR(best->run(true));
    double total = 0;
    for (size_t k = 0; k < kernels().size(); ++k)
      total += best->best(k);
    for (size_t k = 0; k < kernels().size(); ++k)
      if (is_first_[k] && time_of(*best, k, false) > kLeastShare * total)
        heavy_.push_back(k);
    report_.kernels = heavy_.size();
    double longest = seconds();
    report_.is_complete = true;
    for (const Variant &variant : variants(machine_, how_.threads)) {
      double begin = seconds();
      if (begin + longest > how_.seconds && report_.variants > 0) {
        report_.is_complete = false;
        break;
      }
      Tuning changed = tuning_;
      std::vector<size_t> tried = lay_over(variant, changed);
      if (tried.empty())
        continue;
      if (how_.progress)
        how_.progress(fmt::format("tune: {} for {} kernels, {:.0f} of {:.0f} s", variant.name, tried.size(), begin, how_.seconds));
      KILN_TRY(other, candidate(changed));
      KILN_RETURN_IF_ERROR(take_turns(*best, *other, kTurnsMs));
      ++report_.variants;
      if (keep_better(tried, changed, *best, *other)) {
        KILN_TRY(next, candidate(tuning_));
        best = std::move(next);
      }
      longest = std::max(longest, seconds() - begin);
    }
    KILN_RETURN_IF_ERROR(compare_with_start(*best));
    for (size_t k : heavy_)
      if (!tuning_.find(kernels()[k], machine_))
        tuning_.set(kernels()[k], machine_, {}, fmt::format("{}: {:.4f} ms", names_[k], time_of(*best, k, true)));
    return report_;
  }

private:
  const std::vector<Kernel> &kernels() const { return compiled_.program.kernels; }

  // Kernels that are equal but for their names share a line, so they are judged together.
  void group() {
    std::map<std::string, size_t> firsts;
    for (size_t k = 0; k < kernels().size(); ++k) {
      auto [it, added] = firsts.try_emplace(tuning_key(kernels()[k]), k);
      group_.push_back(it->second);
      is_first_.push_back(added);
    }
    names_.resize(kernels().size());
    for (const Plan &plan : compiled_.program.entries) {
      std::vector<const PlanStep *> launches;
      collect_launches(plan.steps, launches);
      for (const PlanStep *step : launches)
        if (step && names_[group_[size_t(step->kernel)]].empty())
          names_[group_[size_t(step->kernel)]] = step->name;
    }
    start_ = tuning_;
  }

  double time_of(const Candidate &candidate, size_t kernel, bool by_median) const {
    double sum = 0;
    for (size_t k = 0; k < group_.size(); ++k)
      if (group_[k] == kernel)
        sum += by_median ? candidate.median(k) : candidate.best(k);
    return sum;
  }

  KernelTuning current(size_t kernel, const Tuning &tuning) const {
    const KernelTuning *found = tuning.find(kernels()[kernel], machine_);
    return found ? *found : KernelTuning();
  }

  Kernel scheduled(size_t kernel, const KernelTuning &tuning) const {
    Kernel out = kernels()[kernel];
    schedule(out, machine_, tuning.options());
    return out;
  }

  Result<std::unique_ptr<Candidate>> candidate(const Tuning &tuning) {
    options_.tuning = &tuning;
    Diagnostics diagnostics;
    if (!generate_code(options_, compiled_, diagnostics))
      return Error{diagnostics.render()};
    return Candidate::open(module_, compiled_, machine_.name, how_);
  }

  // Those heavy kernels whose code the variant changes.
  std::vector<size_t> lay_over(const Variant &variant, Tuning &tuning) const {
    std::vector<size_t> out;
    for (size_t k : heavy_) {
      KernelTuning now = current(k, tuning_), then = now;
      variant.apply(then);
      if (then == now || scheduled(k, then) == scheduled(k, now))
        continue;
      tuning.set(kernels()[k], machine_, then, "");
      out.push_back(k);
    }
    return out;
  }

  bool keep_better(const std::vector<size_t> &tried, const Tuning &laid, const Candidate &best, const Candidate &other) {
    bool changed = false;
    for (size_t k : tried) {
      double before = time_of(best, k, true), after = time_of(other, k, true);
      if (after > before * kWorthwhile || time_of(other, k, false) > time_of(best, k, false) * kWorthwhile)
        continue;
      double first = first_ms_.try_emplace(k, before).first->second;
      tuning_.set(kernels()[k], machine_, current(k, laid),
                  fmt::format("{}: {:.4f} ms, was {:.4f}", names_[k], after, first));
      changed = true;
    }
    return changed;
  }

  Status compare_with_start(Candidate &best) {
    KILN_TRY(before, candidate(start_));
    KILN_RETURN_IF_ERROR(take_turns(*before, best, kTurnsMs));
    for (size_t k = 0; k < kernels().size(); ++k) {
      report_.before_ms += before->median(k);
      report_.after_ms += best.median(k);
    }
    report_.changed = first_ms_.size();
    return Unit{};
  }

  const Module &module_;
  Compiled &compiled_;
  CompileOptions options_;
  const TuneOptions &how_;
  Tuning &tuning_; // the best so far
  Tuning start_;   // what it was
  const MachineDesc machine_;
  std::vector<size_t> group_; // the first kernel that is equal to each
  std::vector<bool> is_first_;
  std::vector<std::string> names_; // of a launch
  std::vector<size_t> heavy_;
  std::map<size_t, double> first_ms_;
  TuneReport report_;
};

} // namespace

Result<TuneReport> tune(const Module &module, Compiled &compiled, const CompileOptions &options, const TuneOptions &how,
                        Tuning &tuning) {
  return Tuner(module, compiled, options, how, tuning).run();
}

} // namespace kiln
