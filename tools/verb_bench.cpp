// kiln bench: latency of one entry, percentiles or slices, and where the time goes.
#include "tools/cli.h"
#include "tools/peak.h"
#include "tools/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <numeric>

namespace kiln {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchVerb {
  ModelOptions model;
  std::vector<std::string> inputs;
  SessionOptions session;
  double seconds = 2;
  std::string level = "2";
  bool slices = false, profile = false;
};

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

double percentile(const std::vector<double> &sorted, double p) {
  return sorted[size_t(std::min(double(sorted.size() - 1), std::floor(p * double(sorted.size()))))];
}

// Runs for `seconds`, once at least.
Result<std::vector<double>> time_slice(Session &session, double seconds) {
  std::vector<double> times;
  auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (true) {
    auto start = Clock::now();
    if (auto status = session.run(); !status)
      return status.error();
    auto stop = Clock::now();
    times.push_back(milliseconds(start, stop));
    if (stop > end)
      return times;
  }
}

struct Profile {
  std::vector<std::vector<double>> times; // by kernel, milliseconds
  Clock::time_point last;
  static void hook(void *self, uint32_t, uint32_t kernel) {
    auto *profile = static_cast<Profile *>(self);
    auto now = Clock::now();
    if (kernel < profile->times.size())
      profile->times[kernel].push_back(milliseconds(profile->last, now));
    profile->last = Clock::now();
  }
};

// What the kernel would wait for if it ran at the machine's limits: arithmetic, or memory (of which a
// kernel whose data lies in a cache can take more than the limit). Far from both it is neither: calls,
// latency, work that is no multiply-add.
const char *bound_by(const KilnKernelInfo &kernel, double ms, double peak_gflops, double peak_gbps) {
  double compute = kernel.flops / peak_gflops * 1e-6, memory = kernel.bytes / peak_gbps * 1e-6;
  if (std::max(compute, memory) < 0.1 * ms)
    return "overhead";
  return compute >= memory ? "compute" : "memory";
}

// Per kernel: median over the runs of the time it took in a run (all its launches in a loop together).
Status profile_kernels(Session &session, const BenchVerb &verb) {
  std::vector<KilnKernelInfo> kernels = session.kernels();
  Profile profile;
  std::vector<std::vector<double>> per_run(kernels.size());
  profile.times.resize(kernels.size());
  session.set_kernel_hook(Profile::hook, &profile);
  auto end = Clock::now() + std::chrono::duration<double>(verb.seconds);
  std::vector<double> flops_peak, bandwidth;
  do {
    for (auto &times : profile.times)
      times.clear();
    profile.last = Clock::now();
    if (auto status = session.run(); !status)
      return status.error();
    for (size_t k = 0; k < kernels.size(); ++k)
      per_run[k].push_back(std::accumulate(profile.times[k].begin(), profile.times[k].end(), 0.0));
    if (flops_peak.size() * 8 < per_run[0].size() + 8) {
      flops_peak.push_back(measure_fma_peak());
      bandwidth.push_back(measure_read_bandwidth());
    }
  } while (Clock::now() < end);
  session.set_kernel_hook(nullptr, nullptr);
  double peak = *std::max_element(flops_peak.begin(), flops_peak.end()) * verb.session.threads;
  double bytes_peak = *std::max_element(bandwidth.begin(), bandwidth.end());
  double total = 0;
  std::vector<double> medians(kernels.size());
  for (size_t k = 0; k < kernels.size(); ++k) {
    std::nth_element(per_run[k].begin(), per_run[k].begin() + std::ptrdiff_t(per_run[k].size() / 2), per_run[k].end());
    medians[k] = per_run[k][per_run[k].size() / 2];
    total += medians[k];
  }
  if (verb.model.json) {
    std::cout << fmt::format("{{\"fma_peak_gflops\": {:.1f}, \"read_gbps\": {:.1f}, \"total_ms\": {:.6f}, \"kernels\": [",
                             peak, bytes_peak, total);
    for (size_t k = 0; k < kernels.size(); ++k)
      std::cout << fmt::format("{}{{\"name\": {}, \"node\": {}, \"ms\": {:.6f}, \"share\": {:.4f}, \"gflops\": {:.2f}, "
                               "\"gbps\": {:.2f}, \"bound_by\": \"{}\"}}",
                               k ? ", " : "", json_quote(kernels[k].name), json_quote(kernels[k].node), medians[k],
                               medians[k] / total, kernels[k].flops / medians[k] * 1e-6,
                               kernels[k].bytes / medians[k] * 1e-6,
                               bound_by(kernels[k], medians[k], peak, bytes_peak));
    std::cout << "]}\n";
    return Unit{};
  }
  std::cout << fmt::format("FMA peak {:.1f} GFLOP/s ({} thread(s)), read bandwidth {:.1f} GB/s, measured between the runs\n",
                           peak, verb.session.threads, bytes_peak);
  std::cout << fmt::format("{:>9} {:>6} {:>9} {:>6} {:>8} {:>6}  {:<9} kernel\n", "ms", "share", "GFLOP/s", "%peak", "GB/s", "%read", "bound by");
  std::vector<size_t> order(kernels.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return medians[a] > medians[b]; });
  for (size_t k : order) {
    double gflops = kernels[k].flops / medians[k] * 1e-6, gbps = kernels[k].bytes / medians[k] * 1e-6;
    std::cout << fmt::format("{:9.4f} {:5.1f}% {:9.2f} {:5.1f}% {:8.2f} {:5.1f}%  {:<9} {}\n", medians[k],
                             100 * medians[k] / total, gflops, 100 * gflops / peak, gbps,
                             100 * gbps / bytes_peak, bound_by(kernels[k], medians[k], peak, bytes_peak),
                             kernels[k].name);
  }
  std::cout << fmt::format("{:9.4f} ms in {} kernels\n", total, kernels.size());
  return Unit{};
}

int bench(const BenchVerb &verb) {
  auto fail = [&](const Error &error) { return report(error, verb.model.json); };
  auto inputs = parse_inputs(verb.inputs);
  if (!inputs)
    return fail(inputs.error());
  auto dims = fixed_dims(verb.model);
  auto level = parse_level(verb.level);
  if (!dims || !level)
    return report(dims ? level.error() : dims.error(), verb.model.json), kBadUsage;
  Opened opened;
  auto start = Clock::now();
  if (int code = open_session(verb.model, verb.session, *level, opened); code != kFine)
    return code;
  Session *session = &*opened.session;
  std::string made;
  if (auto status = session->fill_inputs(*inputs, *dims, made); !status)
    return fail(status.error());
  if (!made.empty())
    std::cerr << "kiln: note: random values for " << made << "\n";
  if (auto status = session->bind(std::move(*inputs)); !status)
    return fail(status.error());
  auto loaded = Clock::now();
  if (auto status = session->run(); !status)
    return fail(status.error());
  double load_ms = milliseconds(start, loaded), first_ms = milliseconds(loaded, Clock::now());
  if (verb.slices) {
    std::cout << fmt::format("{{\"load_ms\": {:.6f}, \"first_ms\": {:.6f}}}\n", load_ms, first_ms) << std::flush;
    std::string line;
    while (std::getline(std::cin, line)) {
      char *end = nullptr;
      double seconds = std::strtod(line.c_str(), &end);
      if (end == line.c_str() || !(seconds >= 0))
        return fail(Error{fmt::format("'{}' is no number of seconds", line)});
      auto times = time_slice(*session, seconds);
      if (!times)
        return fail(times.error());
      std::string list;
      for (double t : *times)
        list += fmt::format("{}{:.6f}", list.empty() ? "" : ", ", t);
      std::cout << "{\"times_ms\": [" << list << "]}\n" << std::flush;
    }
    return kFine;
  }
  if (verb.profile) {
    auto status = profile_kernels(*session, verb);
    return status ? kFine : fail(status.error());
  }
  auto times = time_slice(*session, verb.seconds);
  if (!times)
    return fail(times.error());
  std::sort(times->begin(), times->end());
  auto at = [&](double p) { return percentile(*times, p); };
  if (verb.model.json)
    std::cout << fmt::format("{{\"load_ms\": {:.6f}, \"first_ms\": {:.6f}, \"runs\": {}, \"min_ms\": {:.6f}, \"median_ms\": {:.6f}, "
                             "\"p90_ms\": {:.6f}, \"p99_ms\": {:.6f}, \"max_ms\": {:.6f}, \"threads\": {}, \"target\": \"{}\"}}\n",
                             load_ms, first_ms, times->size(), at(0), at(0.5), at(0.9), at(0.99), times->back(),
                             verb.session.threads, session->target());
  else
    std::cout << fmt::format("{} runs on {} thread(s), {}: median {:.3f} ms, min {:.3f}, p90 {:.3f}, p99 {:.3f}, max {:.3f}\n"
                             "open {:.3f} ms, first run {:.3f} ms\n",
                             times->size(), verb.session.threads, session->target(), at(0.5), at(0), at(0.9), at(0.99),
                             times->back(), load_ms, first_ms);
  return kFine;
}

} // namespace

void add_bench(CLI::App &app, int &exit_code) {
  auto verb = std::make_shared<BenchVerb>();
  CLI::App *sub = app.add_subcommand("bench", "Time a package or a model");
  verb->model.add_to(*sub);
  sub->add_option("-i,--input", verb->inputs, "NAME=@FILE.npy or NAME=2x2xf32=1,2,3,4")->allow_extra_args(false);
  sub->add_option("--entry", verb->session.entry, "which exported function (default: the first)");
  sub->add_option("--threads", verb->session.threads, "threads to run on")->check(CLI::Range(1, 1024));
  sub->add_option("-O", verb->level, "0, 1 or 2, where a model is compiled");
  sub->add_option("--target", verb->session.target, "code section of the package to use");
  sub->add_option("--seconds", verb->seconds, "how long to measure")->check(CLI::Range(0.0, 3600.0));
  sub->add_flag("--slices", verb->slices, "run one slice for each line of standard input (seconds), one line of JSON each");
  sub->add_flag("--profile", verb->profile, "per kernel: time, share, FLOP/s and bytes/s beside the machine's limits");
  sub->callback([verb, &exit_code] { exit_code = bench(*verb); });
}

} // namespace kiln
