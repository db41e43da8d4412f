// One entry of a package, fed with Tensors by name: what `run`, `bench` and `check` do with the runtime.
#pragma once

#include "ir/tensor.h"

#include <kiln/kiln.h>

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kiln {

struct SessionOptions {
  std::string entry;  // empty: the first
  std::string target; // empty: the best code for this machine
  int threads = 1;
  // The variables get their first values from the entry `init`, where there is one. A package has values of its own.
  bool initialise = false;
  uint64_t seed = 0;
  std::string device = {}; // cpu (where empty), cuda:0, auto
  std::map<std::string, int64_t> dims = {}; // symbolic sizes that the inputs' shapes need not tell
};

// What a kernel has to do in a launch, for the bound shapes; 0 where nobody knows.
struct KernelCost {
  double flops = 0, bytes = 0;
  double weight_bytes = 0; // the part of `bytes` that is the same in every run
  uint32_t units = 0;      // what multiplies: package::kByteDots and its like
};

// Told by each thread, as it ends its part of a parallel loop, when that part began and ended.
using PartHook = void (*)(void *self, std::chrono::steady_clock::time_point begin,
                          std::chrono::steady_clock::time_point end);

class Session {
public:
  // From a file, or from a package's bytes, which stay the caller's (64-byte aligned).
  static Result<Session> open(const std::string &path, const SessionOptions &options);
  static Result<Session> open(std::span<const std::byte> package, const SessionOptions &options);

  Session(Session &&) noexcept;
  Session &operator=(Session &&) noexcept;
  ~Session();

  std::vector<std::string> input_names() const;
  std::vector<std::string> output_names() const;
  // Whether it is noted as strings (ir/argument_notes.h).
  bool is_text(bool is_output, const std::string &name) const;
  // Strings get zeros behind them, so that all inputs are as wide as the model's one width for strings says. bind()
  // does it too.
  Status widen_texts(std::vector<std::pair<std::string, Tensor>> &inputs) const;
  // "f32[N, 3, 224, 224]", "text[N]"
  std::string input_text(const std::string &name) const;
  const char *target() const; // of the entry: "x86-64-v4", "cuda:0 sm_90", "x86-64-v4 and cuda:0 sm_90"
  const char *kernel_target(uint32_t kernel) const;

  // Random values for the inputs that `given` lacks; symbolic dims take `dims`, the shapes of given
  // inputs, or the least size the model declares, 1 at least. `made` gets their names and types.
  Status fill_inputs(std::vector<std::pair<std::string, Tensor>> &given, const std::map<std::string, int64_t> &dims,
                     std::string &made) const;
  // Inputs by name; all must be given, no others. Sizes the context and makes the outputs.
  Status bind(std::vector<std::pair<std::string, Tensor>> inputs);
  Status run();
  // The values of an input that is bound, of the same type; one number for all its elements.
  Status set_input(const std::string &name, const Tensor &value);
  Status fill_input(const std::string &name, double value);
  std::vector<Tensor> &outputs(); // in the order of output_names(), made anew by each run

  void set_kernel_hook(KilnKernelHook hook, void *self);
  // Before bind(); of use where there is more than one thread.
  void set_part_hook(PartHook hook, void *self);
  std::vector<KilnKernelInfo> kernels() const;
  std::vector<KernelCost> kernel_costs() const; // one for each of kernels(), after bind()
  int64_t arena_bytes() const; // of the bound shapes: what the context holds beside its own record
  const KilnModule *module() const;
  uint32_t entry() const;
  uint32_t code_entry() const; // in the program and the manifest: on a device it may be another one
  // Where the arena and the bound arguments (inputs, then outputs) lie, for who looks at values between
  // kernels.
  const std::byte *arena() const;
  const std::byte *argument(int index) const;
  std::vector<std::pair<std::string, int64_t>> dims() const; // values of the symbolic dims, and
                                                                // of the sizes that the run has found

private:
  Session();
  Status take_codes(std::vector<std::pair<std::string, Tensor>> &given) const;
  Status initialise();
  Status make_context(const std::vector<int64_t> &dims);
  static Result<Session> start(Session session, const SessionOptions &options);
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace kiln
