// A profile as a table, as JSON, and as a trace that chrome://tracing and ui.perfetto.dev read.
#include "ir/support/diagnostic.h"
#include "tools/profile.h"

#include <fmt/format.h>

namespace kiln {
namespace {

std::string quantity(double value, const char *const (&units)[4], double step) {
  int unit = 0;
  while (value >= step * 0.9995 && unit < 3) {
    value /= step;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, value >= 99.95 || unit == 0 ? 0 : value >= 9.995 ? 1 : 2, units[unit]);
}

// By bit of package::KernelRecord's units.
constexpr const char *kUnitNames[] = {"dots of bytes", "dots of bf16", "tiles of bytes", "tiles of bf16"};
constexpr const char *kUnitKeys[] = {"byte_dot_gops", "bf16_dot_gflops", "byte_tile_gops", "bf16_tile_gflops"};

} // namespace

std::string peaks_text(const MachineLimits &limits) {
  std::string out = fmt::format("FMA peak {:.1f} GFLOP/s", limits.fma_gflops);
  for (size_t i = 0; i < limits.dot_gops.size(); ++i)
    if (limits.dot_gops[i] > 0)
      out += fmt::format(", {} {:.1f}", kUnitNames[i], limits.dot_gops[i]);
  return out;
}

std::string flops_text(double flops) {
  constexpr const char *kUnits[] = {"FLOP", "kFLOP", "MFLOP", "GFLOP"};
  return flops > 0 ? quantity(flops, kUnits, 1000) : "-";
}

std::string bytes_text(double bytes) {
  constexpr const char *kUnits[] = {"B", "KiB", "MiB", "GiB"};
  return bytes > 0 ? quantity(bytes, kUnits, 1024) : "-";
}

std::string profile_table(const Profile &p) {
  const MachineLimits &l = p.limits;
  std::string out = fmt::format("{}: {} on {} thread(s); {}; reading {:.1f} GB/s from L2, {:.1f} from L3, {:.1f} "
                                "from RAM, measured between the runs\n",
                                p.model, p.target, p.threads, peaks_text(l), l.l2_gbps, l.l3_gbps, l.memory_gbps);
  out += fmt::format("{:>9} {:>6} {:>6} {:>11} {:>10} {:>8} {:>6} {:>7} {:>7}  {:<11} kernel\n", "ms", "share", "calls", "FLOPs", "bytes",
                     "GFLOP/s", "%peak", "GB/s", "%limit", "bound by");
  double flops = 0, bytes = 0, limit = 0, least = 0;
  for (size_t i : p.by_time) {
    const KernelProfile &k = p.kernels[i];
    flops += k.flops;
    bytes += k.bytes;
    limit += k.limit_ms;
    least += k.of_peak() * k.ms;
    out += fmt::format("{:9.4f} {:5.1f}% {:6} {:>11} {:>10} {:8.2f} {:5.1f}% {:7.1f} {:6.1f}%  {:<11} {}\n", k.ms, 100 * k.share, k.calls,
                       flops_text(k.flops), bytes_text(k.bytes), k.gflops(), 100 * k.of_peak(), k.gbps(),
                       100 * k.of_limit(), bound_text(k), k.name);
  }
  double ms = p.total_ms > 0 ? p.total_ms : 1e-9;
  if (auto shares = device_shares(p); shares.size() > 1)
    for (const DeviceShare &share : shares)
      out += fmt::format("{:9.4f} {:5.1f}% of it on {}: {} kernels\n", share.ms, 100 * share.ms / ms, share.target, share.kernels);
  out += fmt::format("{:9.4f} {:>6} {:>6} {:>11} {:>10} {:8.2f} {:5.1f}% {:7.1f} {:6.1f}%  {:<11} {} kernels; a run without the "
                     "profile takes {:.4f} ms, median of {}\n",
                     p.total_ms, "100%", "", flops_text(flops), bytes_text(bytes), flops / ms * 1e-6, 100 * least / ms,
                     bytes / ms * 1e-6, 100 * limit / ms, "total", p.kernels.size(), p.run_ms, p.runs);
  return out;
}

std::string profile_json(const Profile &p) {
  const MachineLimits &l = p.limits;
  std::string dots;
  for (size_t i = 0; i < l.dot_gops.size(); ++i)
    if (l.dot_gops[i] > 0)
      dots += fmt::format(", \"{}\": {:.2f}", kUnitKeys[i], l.dot_gops[i]);
  std::string out = fmt::format(
      "{{\"model\": {}, \"target\": {}, \"threads\": {}, \"runs\": {}, \"run_ms\": {:.6f}, \"total_ms\": {:.6f},\n \"limits\": "
      "{{\"fma_gflops\": {:.2f}{}, \"l2_gbps\": {:.2f}, \"l3_gbps\": {:.2f}, \"ram_gbps\": {:.2f}}},\n \"kernels\": [",
      json_quote(p.model), json_quote(p.target), p.threads, p.runs, p.run_ms, p.total_ms, l.fma_gflops, dots, l.l2_gbps, l.l3_gbps, l.memory_gbps);
  for (size_t i = 0; i < p.by_time.size(); ++i) {
    const KernelProfile &k = p.kernels[p.by_time[i]];
    out += fmt::format("{}\n  {{\"name\": {}, \"node\": {}, \"target\": {}, \"position\": {}, \"calls\": {}, \"ms\": {:.6f}, \"share\": {:.4f}, \"flops\": "
                       "{:.0f}, \"bytes\": {:.0f}, \"weight_bytes\": {:.0f}, \"gflops\": {:.3f}, \"gbps\": {:.3f}, \"peak_gflops\": {:.2f}, \"of_peak\": {:.4f}, "
                       "\"of_limit\": {:.4f}, \"level\": \"{}\", \"bound_by\": \"{}\"}}",
                       i ? "," : "", json_quote(k.name), json_quote(k.node), json_quote(k.target), p.by_time[i], k.calls, k.ms, k.share, k.flops, k.bytes,
                       k.weight_bytes, k.gflops(), k.gbps(), k.peak_gflops, k.of_peak(), k.of_limit(), level_name(k.level),
                       bound_name(k.bound));
  }
  return out + "]}\n";
}

// Complete events ("X"), in microseconds. Thread 0 is the plan; the others are the threads that run
// the parts of its loops, the calling one among them.
std::string profile_trace(const Profile &p) {
  std::string out = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n";
  out += fmt::format("{{\"ph\": \"M\", \"pid\": 1, \"tid\": 0, \"name\": \"process_name\", \"args\": {{\"name\": {}}}}}", json_quote(p.model));
  auto name_thread = [&](int thread, const std::string &name) {
    out += fmt::format(",\n{{\"ph\": \"M\", \"pid\": 1, \"tid\": {}, \"name\": \"thread_name\", \"args\": {{\"name\": {}}}}}", thread,
                       json_quote(name));
  };
  name_thread(0, "kernels");
  int threads = 0;
  for (const Span &s : p.parts)
    threads = std::max(threads, s.thread + 1);
  for (int t = 0; t < threads; ++t)
    name_thread(t + 1, fmt::format("thread {}", t));
  auto event = [&](const Span &s, int thread, bool with_arguments) {
    const KernelProfile &k = p.kernels[size_t(s.kernel)];
    out += fmt::format(",\n{{\"ph\": \"X\", \"pid\": 1, \"tid\": {}, \"ts\": {:.3f}, \"dur\": {:.3f}, \"cat\": \"kernel\", \"name\": {}", thread,
                       s.begin * 1e3, (s.end - s.begin) * 1e3, json_quote(k.name));
    if (with_arguments)
      out += fmt::format(", \"args\": {{\"node\": {}, \"flops\": {:.0f}, \"bytes\": {:.0f}, \"of_limit\": {:.4f}, \"bound_by\": {}}}",
                         json_quote(k.node), k.flops / double(std::max<int64_t>(1, k.calls)), k.bytes / double(std::max<int64_t>(1, k.calls)),
                         k.of_limit(), json_quote(bound_text(k)));
    out += "}";
  };
  for (const Span &s : p.spans)
    event(s, 0, true);
  for (const Span &s : p.parts)
    event(s, s.thread + 1, false);
  return out + "\n]}\n";
}

} // namespace kiln
