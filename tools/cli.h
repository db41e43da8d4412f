// What the verbs of the `kiln` command share: exit codes, loading models, tensors on the command line.
#pragma once

#include "codegen/compile.h"
#include "ir/graph.h"
#include "tools/session.h"

#include <CLI/CLI.hpp>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace kiln {

enum ExitCode { kFine = 0, kBadInput = 1, kBadUsage = 2, kMismatch = 3, kBug = 4 };

// Options that every verb that reads a model file has.
struct ModelOptions {
  std::string path;
  std::vector<std::string> dims;   // N=4 or N=1..64
  std::vector<std::string> shapes; // x=1x3x224x224
  std::vector<std::string> imports; // base=FILE
  std::set<std::string> remat;                   // models whose calls are computed again for gradients
  std::shared_ptr<std::set<std::string>> called; // filled with the models that could be
  std::vector<std::string> states; // auto, auto:256, past.0.k=present.0.k, past.0.k=present.0.k:256
  std::string weights;
  std::string compress_weights = "f32"; // or bf16, f16, i8
  std::string winograd = "auto"; // off, 2, 4
  bool json = false;

  void add_to(CLI::App &app, bool with_path = true);
};

// What ModelOptions say of the way a model is compiled.
void set_compile_options(const ModelOptions &model, CompileOptions &options);

bool is_package(const std::string &path); // by its first bytes
// Reads .kir, .onnx or standard input ("-", .kir). Reports to `diagnostics`.
bool load_model(const ModelOptions &options, Module &module, Diagnostics &diagnostics);

// A package is made of a model file: what is only of use for that is an error beside one.
Status for_package(const ModelOptions &options);
// Whether the file that is to be written is none of those that the model is read from.
Status spares_model(const ModelOptions &options, const std::string &output);
// The sizes of --dim N=4, without those that only bound.
Result<std::map<std::string, int64_t>> fixed_dims(const ModelOptions &options);

// "host", "x86-64-v3", ...; an error lists the known ones.
Result<std::vector<MachineDesc>> parse_targets(const std::vector<std::string> &names);
Result<GpuMachine> parse_gpu(const std::string &name); // "sm_90", ..., "ptx"; likewise
// Whether it is "cuda" or "cuda:N": a model that is compiled in memory needs code for a GPU then.
inline bool is_gpu(std::string_view device) { return device.starts_with("cuda"); }
// "x86-64-v3", "cuda:0 sm_90": what an opened module computes on.
std::string target_of(const KilnModule *module);
// What a module that is compiled in memory needs for that device, and for what its program has placed.
void place_in_memory(const std::string &device, Module &module, CompileOptions &options);
Result<OptLevel> parse_level(const std::string &level); // "0", "1", "2"
Winograd parse_winograd(const std::string &text);      // "off", "2", "4", "auto"

// Prints diagnostics to standard error (JSON where asked) and gives the exit code they mean.
int report(const Diagnostics &diagnostics, bool json);
// What has no place is about the model as a whole: its file is the place.
int report(const Diagnostics &diagnostics, const ModelOptions &model);
int report(const Error &error, bool json);

// "x=@x.npy", "x=2x2xf32=1,2,3,4", "x=f32=1" (a scalar), "x=@all.npz" (the array `x` of it).
Result<std::pair<std::string, Tensor>> parse_input(const std::string &text);
Result<std::vector<std::pair<std::string, Tensor>>> parse_inputs(const std::vector<std::string> &texts);
// "12", and nothing else; "1x3x224x224".
std::optional<int64_t> parse_int(std::string_view text);
std::optional<std::vector<int64_t>> parse_shape(std::string_view text);
// Values that every model takes: floats in [-1, 1), integers 0 or 1; the same for the same name.
Tensor random_tensor(const std::string &name, DType dtype, std::vector<int64_t> dims, uint64_t seed = 0);
// A few values and the shape, for people.
std::string tensor_text(const Tensor &tensor, int64_t limit = 1000);
// The first `limit` elements in brackets by their dims; `element` writes the one at a position in memory.
std::string nested_text(std::span<const int64_t> dims, int64_t limit, const std::function<std::string(int64_t)> &element);

// A model compiled in memory for this machine, as a package that a Session opens.
struct PackageBytes {
  std::span<const std::byte> bytes; // 64-byte aligned
  std::shared_ptr<void> owner;
};
bool compile_in_memory(Module &module, const CompileOptions &options, Compiled &compiled,
                       PackageBytes &package, Diagnostics &diagnostics);

// A package's entry ready to run, or a model file's compiled in memory for this machine.
struct Opened {
  Module module;
  Compiled compiled;
  PackageBytes package;
  std::optional<Session> session;
};
// Reports what went wrong; the exit code.
int open_session(const ModelOptions &model, const SessionOptions &options, OptLevel level, Opened &opened);

// One file a verb.
void add_compile(CLI::App &app, int &exit_code);
void add_run(CLI::App &app, int &exit_code);
void add_bench(CLI::App &app, int &exit_code);
void add_inspect(CLI::App &app, int &exit_code);
void add_check(CLI::App &app, int &exit_code);
void add_opt(CLI::App &app, int &exit_code);
void add_train(CLI::App &app, int &exit_code);
void add_eval(CLI::App &app, int &exit_code); // and repl

} // namespace kiln
