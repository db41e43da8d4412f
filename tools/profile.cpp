#include "tools/profile.h"

#include "codegen/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <numeric>

namespace kiln {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kMaxSpans = 20000;
constexpr double kCallMs = 0.002; // what starting a kernel, and timing it, may take of its time

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

double median(std::vector<double> values) {
  if (values.empty())
    return 0;
  auto middle = values.begin() + std::ptrdiff_t(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Numbers for threads, in the order in which they are first seen.
int thread_number() {
  static std::atomic<int> next{1};
  thread_local int number = next.fetch_add(1);
  return number;
}

struct Recorder {
  struct Part {
    Clock::time_point begin, end;
    int thread;
  };
  Clock::time_point start, last;
  std::vector<double> ms;     // by kernel, of one run
  std::vector<int64_t> calls; // likewise
  std::vector<Span> spans;
  std::vector<Part> parts;
  std::atomic<size_t> part_count{0};
  bool is_cut = false;

  explicit Recorder(size_t kernels) : ms(kernels), calls(kernels), parts(kMaxSpans) { spans.reserve(kMaxSpans); }

  void begin() {
    std::fill(ms.begin(), ms.end(), 0.0);
    std::fill(calls.begin(), calls.end(), int64_t(0));
    spans.clear();
    part_count = 0;
    is_cut = false;
    start = last = Clock::now();
  }
  static void after_kernel(void *self, uint32_t, uint32_t kernel) {
    auto &r = *static_cast<Recorder *>(self);
    auto now = Clock::now();
    if (kernel < r.ms.size()) {
      r.ms[kernel] += milliseconds(r.last, now);
      ++r.calls[kernel];
      if (r.spans.size() < kMaxSpans)
        r.spans.push_back({int(kernel), 0, milliseconds(r.start, r.last), milliseconds(r.start, now)});
      else
        r.is_cut = true;
    }
    r.last = Clock::now();
  }
  static void after_part(void *self, Clock::time_point begin, Clock::time_point end) {
    auto &r = *static_cast<Recorder *>(self);
    size_t at = r.part_count.fetch_add(1, std::memory_order_relaxed);
    if (at < kMaxSpans)
      r.parts[at] = {begin, end, thread_number()};
  }

  // Each part belongs to the kernel during which it ended.
  std::vector<Span> part_spans() const {
    std::vector<Span> out;
    int caller = thread_number();
    std::vector<int> numbers{caller};
    for (size_t i = 0; i < std::min(part_count.load(), kMaxSpans); ++i) {
      Span span{-1, 0, milliseconds(start, parts[i].begin), milliseconds(start, parts[i].end)};
      auto after = std::lower_bound(spans.begin(), spans.end(), span.end, [](const Span &s, double t) { return s.end < t; });
      if (after == spans.end())
        continue;
      span.kernel = after->kernel;
      auto number = std::find(numbers.begin(), numbers.end(), parts[i].thread);
      span.thread = int(number - numbers.begin());
      if (number == numbers.end())
        numbers.push_back(parts[i].thread);
      out.push_back(span);
    }
    std::stable_sort(out.begin(), out.end(), [](const Span &a, const Span &b) {
      return a.thread != b.thread ? a.thread < b.thread : a.begin < b.begin;
    });
    return out;
  }
};

Level level_of(double bytes, const CacheSizes &caches) {
  return bytes <= double(caches.l2) ? Level::l2 : bytes <= double(caches.l3) ? Level::l3 : Level::memory;
}

// Reading `bytes` of data that lies in a set of `footprint` bytes, of which the caches hold what fits.
double read_ms(double bytes, double footprint, const Profile &p) {
  if (bytes <= 0)
    return 0;
  double in_l2 = std::min(1.0, double(p.caches.l2) / footprint);
  double in_l3 = std::min(1.0, double(p.caches.l3) / footprint) - in_l2;
  double seconds_per_gb = in_l2 / p.limits.l2_gbps + std::max(0.0, in_l3) / p.limits.l3_gbps +
                          std::max(0.0, 1 - in_l2 - in_l3) / p.limits.memory_gbps;
  return bytes * seconds_per_gb * 1e-6;
}

// Fills in what follows from times and costs. Costs are of one call; weights are read in each.
void judge(Profile &p) {
  double weights = 0, least_ms = 0;
  for (const KernelProfile &k : p.kernels) {
    weights += k.calls > 0 ? k.weight_bytes / double(k.calls) : 0;
    least_ms += k.flops / k.peak_gflops * 1e-6;
    p.total_ms += k.ms;
  }
  for (KernelProfile &k : p.kernels) {
    k.share = p.total_ms > 0 ? k.ms / p.total_ms : 0;
    if (k.calls == 0 || k.target.starts_with("cuda")) // the limits are the processor's
      continue;
    double others = k.bytes - k.weight_bytes;
    // In a loop the same weights are read again while they are warm.
    double footprint = k.calls > 1 ? k.weight_bytes / double(k.calls) : weights;
    Level from = level_of(footprint, p.caches), near = level_of(others / double(k.calls), p.caches);
    double weight_ms = read_ms(k.weight_bytes, footprint, p);
    double other_ms = read_ms(others, others / double(k.calls), p);
    double compute_ms = k.flops / k.peak_gflops * 1e-6, memory_ms = weight_ms + other_ms;
    k.level = weight_ms > other_ms ? from : near;
    k.limit_ms = std::max(compute_ms, memory_ms);
    if (k.limit_ms >= 0.5 * k.ms)
      k.bound = compute_ms >= memory_ms ? Bound::compute : Bound::memory;
    else if (k.ms < kCallMs * double(k.calls))
      k.bound = Bound::calls;
    else
      k.bound = Bound::neither;
  }
  p.peak_efficiency = p.run_ms > 0 ? least_ms / p.run_ms : 0;
  p.by_time.resize(p.kernels.size());
  std::iota(p.by_time.begin(), p.by_time.end(), size_t(0));
  std::stable_sort(p.by_time.begin(), p.by_time.end(), [&](size_t a, size_t b) { return p.kernels[a].ms > p.kernels[b].ms; });
}

MachineLimits medians(const std::vector<MachineLimits> &all) {
  auto of = [&](double MachineLimits::*member) {
    std::vector<double> values;
    for (const MachineLimits &l : all)
      values.push_back(l.*member);
    return median(std::move(values));
  };
  MachineLimits out{of(&MachineLimits::fma_gflops), of(&MachineLimits::l2_gbps), of(&MachineLimits::l3_gbps), of(&MachineLimits::memory_gbps)};
  for (size_t i = 0; i < out.dot_gops.size(); ++i) {
    std::vector<double> values;
    for (const MachineLimits &l : all)
      values.push_back(l.dot_gops[i]);
    out.dot_gops[i] = median(std::move(values));
  }
  return out;
}

} // namespace

const char *bound_name(Bound bound) {
  constexpr const char *kNames[] = {"compute", "memory", "calls", "neither"};
  return kNames[size_t(bound)];
}

std::vector<DeviceShare> device_shares(const Profile &p) {
  std::vector<DeviceShare> out;
  for (const KernelProfile &k : p.kernels) {
    auto it = std::find_if(out.begin(), out.end(), [&](const DeviceShare &share) { return share.target == k.target; });
    DeviceShare &share = it != out.end() ? *it : out.emplace_back(DeviceShare{k.target});
    ++share.kernels;
    share.ms += k.ms;
  }
  return out;
}

const char *level_name(Level level) {
  constexpr const char *kNames[] = {"L2", "L3", "RAM"};
  return kNames[size_t(level)];
}

std::string bound_text(const KernelProfile &kernel) {
  std::string out = bound_name(kernel.bound);
  return kernel.bound == Bound::memory ? out + ": " + level_name(kernel.level) : out;
}

Result<Profile> profile_session(Session &session, std::vector<std::pair<std::string, Tensor>> inputs,
                                const ProfileOptions &options) {
  Profile p;
  p.model = options.model;
  p.target = session.target();
  p.threads = options.threads;
  p.caches = cache_sizes();
  const MachineDesc machine = find_machine(std::string_view(p.target).substr(0, p.target.find(' '))).value_or(host_machine());
  std::vector<KilnKernelInfo> kernels = session.kernels();
  Recorder recorder(kernels.size());
  session.set_part_hook(Recorder::after_part, &recorder);
  KILN_RETURN_IF_ERROR(session.bind(std::move(inputs)));
  KILN_RETURN_IF_ERROR(session.run());
  std::vector<std::vector<double>> per_run(kernels.size());
  uint32_t units = 0;
  for (const KernelCost &cost : session.kernel_costs())
    units |= cost.units;
  std::vector<double> whole, hooked;
  std::vector<MachineLimits> limits;
  std::vector<int64_t> calls(kernels.size());
  double best_distance = INFINITY;
  auto started = Clock::now();
  do {
    // Limits a few times along the way: machines drift.
    double spent = milliseconds(started, Clock::now()) * 1e-3;
    if (limits.empty() || spent > options.seconds * double(limits.size()) / 5) {
      limits.push_back(measure_limits(machine, units, options.threads));
      KILN_RETURN_IF_ERROR(session.run()); // fills the caches again
    }
    session.set_kernel_hook(nullptr, nullptr);
    auto start = Clock::now();
    KILN_RETURN_IF_ERROR(session.run());
    whole.push_back(milliseconds(start, Clock::now()));
    session.set_kernel_hook(Recorder::after_kernel, &recorder);
    recorder.begin();
    KILN_RETURN_IF_ERROR(session.run());
    double ms = milliseconds(recorder.start, Clock::now());
    hooked.push_back(ms);
    for (size_t k = 0; k < kernels.size(); ++k)
      per_run[k].push_back(recorder.ms[k]);
    calls = recorder.calls;
    // The run that is kept is the one nearest to the median so far.
    if (double distance = std::abs(ms - median(hooked)); distance <= best_distance || hooked.size() < 4) {
      best_distance = distance;
      p.timeline_ms = ms;
      p.spans = recorder.spans;
      p.parts = recorder.part_spans();
      p.is_cut = recorder.is_cut;
    }
  } while (milliseconds(started, Clock::now()) < options.seconds * 1e3);
  session.set_kernel_hook(nullptr, nullptr);
  p.runs = int64_t(hooked.size());
  p.run_ms = median(whole);
  p.limits = medians(limits);
  std::vector<KernelCost> costs = session.kernel_costs();
  for (size_t k = 0; k < kernels.size(); ++k) {
    double n = double(calls[k]);
    p.kernels.push_back({kernels[k].name, kernels[k].node, session.kernel_target(uint32_t(k)), calls[k], median(std::move(per_run[k])), 0, costs[k].flops * n,
                         costs[k].bytes * n, costs[k].weight_bytes * n, p.limits.peak(costs[k].units)});
  }
  judge(p);
  return p;
}

} // namespace kiln
