// Where a run's time goes: every kernel timed in many runs, beside what the machine reached between
// them, and one run kept whole for a timeline.
//
// The limit of a kernel is the longer of two times: its arithmetic at the peak of multiply-adds, and
// reading its bytes from where they can lie. Weights lie where all of the entry's weights have room
// (they are read once a run), everything else where the kernel's own data has. What a kernel is bound
// by follows from how much of its time that explains.
#pragma once

#include "tools/peak.h"
#include "tools/session.h"

#include <string>
#include <vector>

namespace kiln {

struct ProfileOptions {
  double seconds = 2;
  int threads = 1;
  std::string model; // for titles
};

enum class Bound { compute, memory, calls, neither };
enum class Level { l2, l3, memory };

struct KernelProfile {
  std::string name, node; // node: the source's own name for it
  std::string target;     // "x86-64-v4", "cuda:0 sm_90"
  int64_t calls = 0;      // in a run
  double ms = 0;          // median over the runs of all calls in a run together
  double share = 0;       // of the sum of all kernels
  double flops = 0, bytes = 0, weight_bytes = 0; // in a run
  double peak_gflops = 0; // of the instruction that multiplies in it
  double limit_ms = 0;    // the machine's
  Level level = Level::l2; // where most of its bytes come from
  Bound bound = Bound::neither;

  double gflops() const { return ms > 0 ? flops / ms * 1e-6 : 0; }
  double of_peak() const { return peak_gflops > 0 ? gflops() / peak_gflops : 0; }
  double gbps() const { return ms > 0 ? bytes / ms * 1e-6 : 0; }
  double of_limit() const { return ms > 0 ? limit_ms / ms : 0; }
};

// A stretch of time, milliseconds from the start of the run. `kernel` ran on the calling thread from
// begin to end; a part of its loop, on one thread.
struct Span {
  int kernel = 0;
  int thread = 0; // 0 is the calling thread
  double begin = 0, end = 0;
};

struct Profile {
  std::string model, target;
  int threads = 1;
  int64_t runs = 0;
  MachineLimits limits;
  CacheSizes caches;
  double peak_efficiency = 0; // the time that all FLOPs of a run take at their peaks, as a part of its time
  double run_ms = 0;          // median of whole runs without the hook
  double total_ms = 0;        // sum of the kernels
  std::vector<KernelProfile> kernels; // by plan position
  std::vector<size_t> by_time;        // indices of kernels, the slowest first
  double timeline_ms = 0;             // the run that is kept
  std::vector<Span> spans, parts;     // kernels; their parts on threads
  bool is_cut = false;                // the run had more spans than are kept
};

// Where kernels ran and how long, in the order of the plan: one of most models, two where an entry computes on both sides.
struct DeviceShare {
  std::string target;
  size_t kernels = 0;
  double ms = 0;
};
std::vector<DeviceShare> device_shares(const Profile &profile);

// "FMA peak 217.0 GFLOP/s, dots of bytes 860.1": what was measured
std::string peaks_text(const MachineLimits &limits);
std::string flops_text(double flops); // "1.20 GFLOP"; "-" for none
std::string bytes_text(double bytes); // "3.14 MiB"
const char *bound_name(Bound bound);
const char *level_name(Level level);
// "compute", "memory: L3", "calls", "neither"
std::string bound_text(const KernelProfile &kernel);

// `session` is not bound yet: observing threads has to be arranged before.
Result<Profile> profile_session(Session &session, std::vector<std::pair<std::string, Tensor>> inputs,
                                const ProfileOptions &options);

std::string profile_table(const Profile &profile);
std::string profile_json(const Profile &profile);
std::string profile_html(const Profile &profile); // one page, nothing outside it
std::string profile_trace(const Profile &profile); // for chrome://tracing and ui.perfetto.dev

} // namespace kiln
