// Runs passes by name: verifies what they leave, times them, dumps the module after each, stops
// where asked. `kiln opt --passes a,b` and the pipelines both go through it.
#pragma once

#include "passes/pass.h"

#include <string>

namespace kiln {

struct PassManagerOptions {
  // Verify after passes that say they changed nothing too, and fail where the module's text shows
  // that they did.
  bool verify_each = false;
  std::string dump_dir;   // where not empty, NN-pass.kir after each pass that changed something
  std::string stop_after; // the name of the last pass to run, whatever the pipeline
};

class PassManager {
public:
  explicit PassManager(PassContext &context, PassManagerOptions options = {})
      : context_(context), options_(std::move(options)) {}

  // False where the pipeline ends: a pass reported errors, or it was the one to stop after.
  bool run(Module &module, std::string_view pass);
  // Repeats the passes in order until none changes anything, at most `rounds` times.
  bool run_until_stable(Module &module, std::span<const std::string_view> passes, int rounds);
  bool stopped() const { return stopped_; }

  struct Timing {
    std::string_view pass;
    double seconds;
    Changed changed;
  };
  const std::vector<Timing> &timings() const { return timings_; } // one for each run
  std::string timing_table() const; // summed by pass, slowest first, for --time-passes

  PassContext &context() { return context_; }

private:
  void dump(const Module &module, std::string_view pass);

  PassContext &context_;
  PassManagerOptions options_;
  bool stopped_ = false;
  Changed last_ = Changed::no;
  std::vector<Timing> timings_;
};

// "cse,dce" as --passes takes it; an unknown name is an error that lists the known ones.
Result<std::vector<std::string_view>> parse_pass_list(std::string_view list);

} // namespace kiln
