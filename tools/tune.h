// The search behind `kiln compile --tune`: whole packages that differ in how some kernels are scheduled
// run in turns with the best one so far, and every kernel keeps what is faster for it. So each variant
// is timed with the buffers, the neighbours and the caches that it has in the model, by the runtime.
#pragma once

#include "codegen/compile.h"
#include "codegen/tuning.h"

#include <functional>
#include <map>
#include <string>

namespace kiln {

struct TuneOptions {
  double seconds = 10; // after which no further variant is begun
  int threads = 1;     // that the model runs on
  std::map<std::string, int64_t> dims; // values of symbolic dims; the least where none is given
  std::function<void(std::string_view)> progress;
};

struct TuneReport {
  int variants = 0;                  // that were compiled and run
  size_t kernels = 0, changed = 0;   // that were looked at; that do better with another schedule
  double before_ms = 0, after_ms = 0; // sums over all entries' kernels, of the same turns
  bool is_complete = false;          // every variant was tried
};

// `compiled` holds the program; its code is left as the last variant made it. For the first machine of
// `options`, which has to be one that this computer runs. Adds to `tuning`, whose lines are the start.
Result<TuneReport> tune(const Module &module, Compiled &compiled, const CompileOptions &options, const TuneOptions &how,
                        Tuning &tuning);

} // namespace kiln
