// kiln-run: runs one entry of a package, with nothing but the runtime.
//
//   kiln-run digits.kiln --input x=@x.npy --output probabilities=@p.npy
//   kiln-run digits.kiln --input x=1x4xf32=1,2,3,4 --repeat 100 --threads 4
//   kiln-run digits.kiln --describe
//
// It is what goes onto a device, and a worked example of the C interface. Exit status: 0 fine, 1
// bad input, 2 bad usage.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "runtime/device_name.h"
#include "runtime/include/kiln/kiln.h"
#include "tools/npy_mini.h"
#include "tools/tensor_text.h"

namespace {

using namespace kiln::tools;

constexpr const char *kUsage =
    "usage: kiln-run MODEL.kiln [options]\n"
    "  --input NAME=@FILE.npy      an input from a file ('-': standard input)\n"
    "  --input NAME=2x3xf32=1,2..  an input written out; one value fills all of it\n"
    "  --output NAME=@FILE.npy     where an output goes; others are printed\n"
    "  --entry NAME                the entry to run, where the package has several\n"
    "  --dim NAME=VALUE            a symbolic dim that no input tells\n"
    "  --threads N                 threads (1)\n"
    "  --repeat N                  runs N times and prints the times\n"
    "  --load FILE                 variables saved before\n"
    "  --save FILE                 a package with the variables as they are after the runs\n"
    "  --save-state FILE           the variables alone\n"
    "  --target NAME               the code to use, e.g. x86-64-v2\n"
    "  --device NAME               where it computes: cpu, cuda:0, auto (cpu)\n"
    "  --describe                  prints entries, inputs, outputs and variables\n";

enum Status { kFine = 0, kBadInput = 1, kBadUsage = 2 };

struct Named {
  std::string name;
  std::string value;
};

struct Options {
  std::string model;
  std::string entry;
  std::string target;
  std::string device;
  std::string load;
  std::string save;
  std::string save_state;
  std::vector<Named> inputs;
  std::vector<Named> outputs;
  std::vector<std::pair<std::string, int64_t>> sizes; // of --dim
  int64_t threads = 1;
  int64_t repeat = 0; // 0: once, without times
  bool describes = false;
};

int complain(Status status, const std::string &message) {
  std::fprintf(stderr, "kiln-run: %s\n", message.c_str());
  return status;
}

bool parse_count(const std::string &text, int64_t most, int64_t &value) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 && value <= most;
}

bool parse_named(const std::string &text, std::vector<Named> &list) {
  size_t split = text.find('=');
  if (split == 0 || split == std::string::npos)
    return false;
  list.push_back({text.substr(0, split), text.substr(split + 1)});
  return true;
}

bool parse_size(const std::string &text, std::vector<std::pair<std::string, int64_t>> &list) {
  size_t split = std::min(text.find('='), text.size() - 1);
  int64_t size = 0;
  if (split == 0 || text.empty() || !parse_count(text.substr(split + 1), INT64_MAX, size))
    return false;
  list.emplace_back(text.substr(0, split), size);
  return true;
}

bool is_device(const std::string &name) {
  int ordinal = 0;
  return kiln::rt::parse_device(name.c_str(), &ordinal) != kiln::rt::DeviceName::Unknown;
}

// Takes `--name value` or `--name=value`; returns an empty string or what is wrong.
std::string parse_option(const std::string &name, const std::string &value, Options &options) {
  const std::pair<const char *, std::string *> texts[] = {{"--entry", &options.entry},
                                                          {"--target", &options.target},
                                                          {"--load", &options.load},
                                                          {"--save", &options.save},
                                                          {"--save-state", &options.save_state}};
  for (auto &[known, text] : texts)
    if (name == known) {
      *text = value;
      return {};
    }
  bool is_fine = false;
  if (name == "--input")
    is_fine = parse_named(value, options.inputs);
  else if (name == "--output")
    is_fine = parse_named(value, options.outputs) && options.outputs.back().value[0] == '@';
  else if (name == "--dim")
    is_fine = parse_size(value, options.sizes);
  else if (name == "--device")
    is_fine = is_device(options.device = value);
  else if (name == "--threads")
    is_fine = parse_count(value, 1024, options.threads) && options.threads > 0;
  else if (name == "--repeat")
    is_fine = parse_count(value, 1000000000, options.repeat) && options.repeat > 0;
  else
    return "unknown option '" + name + "'";
  return is_fine ? "" : "bad value for " + name + ": '" + value + "'";
}

std::string parse_arguments(int argc, char **argv, Options &options) {
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "--describe") {
      options.describes = true;
    } else if (argument.rfind("--", 0) == 0) {
      size_t split = argument.find('=');
      bool has_value = split != std::string::npos;
      if (!has_value && i + 1 == argc)
        return argument + " wants a value";
      std::string value = has_value ? argument.substr(split + 1) : argv[++i];
      if (std::string error = parse_option(argument.substr(0, split), value, options);
          !error.empty())
        return error;
    } else if (options.model.empty()) {
      options.model = argument;
    } else {
      return "one model at a time: '" + options.model + "', '" + argument + "'";
    }
  }
  return options.model.empty() ? "which model?" : "";
}

struct FreeMemory {
  void operator()(void *memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, FreeMemory>;

Memory aligned_memory(size_t size) {
  constexpr size_t kUnit = KILN_MEMORY_ALIGNMENT;
  return Memory(std::aligned_alloc(kUnit, (size + kUnit) / kUnit * kUnit));
}

// One run of the tool: the module, what it needs, and what it says when something fails.
class Runner {
public:
  explicit Runner(const Options &options)
      : kiln_(*kiln_get_api(KILN_API_VERSION)), options_(options) {}
  Runner(const Runner &) = delete;
  Runner &operator=(const Runner &) = delete;
  ~Runner() {
    kiln_.pool_destroy(pool_);
    kiln_.close(module_);
  }

  int go() {
    KilnOpenOptions open_options{};
    open_options.target = options_.target.empty() ? nullptr : options_.target.c_str();
    open_options.flags = KILN_OPEN_DEVICE;
    open_options.device = options_.device.empty() ? nullptr : options_.device.c_str();
    if (kiln_.open(options_.model.c_str(), &open_options, &module_, &error_) != KILN_OK)
      return fail();
    if (options_.describes) {
      std::fputs(describe_module(kiln_, module_).c_str(), stdout);
      return kFine;
    }
    if (int status = choose_entry())
      return status;
    if (options_.device == "auto")
      std::fprintf(stderr, "kiln-run: computes on %s\n", target().c_str());
    if (int status = read_inputs())
      return status;
    if (int status = make_context())
      return status;
    if (int status = make_outputs())
      return status;
    if (int status = run())
      return status;
    return write_results();
  }

private:
  std::string target() const { return kiln_.entry_target(module_, entry_); }

  int fail() {
    std::string message = error_.message;
    if (error_.node[0] != 0)
      message += std::string("\n  in ") + error_.node;
    if (error_.location[0] != 0)
      message += std::string(" at ") + error_.location;
    return complain(kBadInput, message);
  }

  int choose_entry() {
    KilnModuleInfo info;
    kiln_.module_info(module_, &info);
    std::string names;
    for (uint32_t i = 0; kiln_.entry_info(module_, i, &entry_info_) == KILN_OK; ++i)
      names += (i != 0 ? ", " : "") + std::string(entry_info_.name);
    int32_t index = options_.entry.empty() && info.entry_count == 1
                        ? 0
                        : kiln_.find_entry(module_, options_.entry.c_str());
    if (index < 0 && options_.entry.empty())
      return complain(kBadInput, "choose an entry with --entry: " + names);
    if (index < 0)
      return complain(kBadInput, "no entry '" + options_.entry + "'; there are: " + names);
    entry_ = static_cast<uint32_t>(index);
    kiln_.entry_info(module_, entry_, &entry_info_);
    for (uint32_t i = 0; i < entry_info_.symbol_count; ++i) {
      kiln_.symbol_info(module_, entry_, i, &symbols_.emplace_back());
      dims_.push_back(-1);
    }
    return kFine;
  }

  int read_inputs() {
    for (const auto &[name, size] : options_.sizes) {
      auto same_name = [&, &wanted = name](const KilnSymbolInfo &symbol) { return wanted == symbol.name; };
      auto at = std::find_if(symbols_.begin(), symbols_.end(), same_name);
      if (at == symbols_.end())
        return complain(kBadInput, std::string("'") + entry_info_.name + "' has no size '" + name + "'");
      dims_[static_cast<size_t>(at - symbols_.begin())] = size;
    }
    inputs_.resize(entry_info_.input_count);
    for (const Named &input : options_.inputs) {
      uint32_t index = 0;
      KilnValueInfo info;
      while (kiln_.input_info(module_, entry_, index, &info) == KILN_OK && input.name != info.name)
        ++index;
      if (index == entry_info_.input_count)
        return complain(kBadInput, std::string("'") + entry_info_.name + "' has no input '" +
                                       input.name + "'");
      std::string error = input.value[0] == '@' ? read_npy(input.value.substr(1), inputs_[index])
                                                : parse_tensor(input.value, inputs_[index]);
      if (!error.empty())
        return complain(kBadInput, "input '" + input.name + "': " + error);
      take_as_codes(info.dtype, inputs_[index]);
      take_dims(info, inputs_[index]);
    }
    return kFine;
  }

  // The dims that an input's shape tells; disagreements are found by the runtime.
  void take_dims(const KilnValueInfo &info, const Tensor &input) {
    for (uint32_t i = 0; i < info.rank && i < input.dims.size(); ++i)
      if (info.dims[i].symbol >= 0 && dims_[static_cast<size_t>(info.dims[i].symbol)] < 0)
        dims_[static_cast<size_t>(info.dims[i].symbol)] = input.dims[i];
  }

  int make_context() {
    for (size_t i = 0; i < dims_.size(); ++i)
      if (dims_[i] < 0 && kiln_.capacity(module_, entry_, static_cast<uint32_t>(i)) < 0)
        return complain(kBadInput, std::string("no input tells the dim '") + symbols_[i].name +
                                       "': give it with --input or --dim");
    if (options_.threads > 1 && pool_ == nullptr &&
        kiln_.pool_create(static_cast<uint32_t>(options_.threads), &pool_, &error_) != KILN_OK)
      return fail();
    KilnContextOptions context_options{dims_.data(), nullptr, kiln_.pool_executor(pool_)};
    size_t size = 0;
    if (kiln_.context_size(module_, entry_, &context_options, &size, &error_) != KILN_OK)
      return fail();
    kiln_.context_end(context_);
    context_ = nullptr;
    memory_ = aligned_memory(size);
    if (!memory_)
      return complain(kBadInput, "no memory for " + std::to_string(size) + " bytes");
    if (kiln_.context_init(module_, entry_, &context_options, memory_.get(), size, &context_,
                           &error_) != KILN_OK)
      return fail();
    void *variables = kiln_.context_variables(context_);
    if (!options_.load.empty() &&
        kiln_.load(module_, variables, options_.load.c_str(), &error_) != KILN_OK)
      return fail();
    kiln_.set_dims(context_, dims_.data(), static_cast<uint32_t>(dims_.size()), nullptr);
    for (uint32_t i = 0; i < inputs_.size(); ++i)
      if (inputs_[i].dtype != 0 && !bind(i, inputs_[i], kiln_.bind_input))
        return fail();
    return kFine;
  }

  template <typename Bind>
  bool bind(uint32_t index, Tensor &tensor, Bind bind_tensor) {
    // A scalar has no dims, and still a shape.
    static constexpr int64_t kNoDims[1] = {0};
    KilnTensor bound{tensor.data.data(), tensor.data.size(), tensor.dtype,
                     static_cast<uint32_t>(tensor.dims.size()),
                     tensor.dims.empty() ? kNoDims : tensor.dims.data()};
    return bind_tensor(context_, index, &bound, &error_) == KILN_OK;
  }

  int make_outputs() {
    outputs_.resize(entry_info_.output_count);
    for (const Named &output : options_.outputs)
      if (find_output(output.name) == outputs_.size())
        return complain(kBadInput, std::string("'") + entry_info_.name + "' has no output '" +
                                       output.name + "'");
    for (uint32_t i = 0; i < outputs_.size(); ++i) {
      KilnValueInfo info;
      kiln_.output_info(module_, entry_, i, &info);
      Tensor &output = outputs_[i];
      output.dims.resize(KILN_MAX_RANK);
      if (kiln_.output_dims(context_, i, output.dims.data(), &error_) != KILN_OK)
        return fail();
      output.dtype = info.dtype;
      output.dims.resize(info.rank);
      uint64_t size = 0;
      if (!dense_size(output.dtype, output.dims, size))
        return complain(kBadInput, std::string("output '") + info.name + "' is too large");
      output.data.resize(size);
      if (!bind(i, output, kiln_.bind_output))
        return fail();
    }
    return kFine;
  }

  size_t find_output(const std::string &name) const {
    KilnValueInfo info;
    uint32_t index = 0;
    while (kiln_.output_info(module_, entry_, index, &info) == KILN_OK && name != info.name)
      ++index;
    return index;
  }

  // A run that lacks room for a size found in the data is repeated in a larger context, with the
  // variables as they were.
  int run_once() {
    KilnModuleInfo info;
    kiln_.module_info(module_, &info);
    std::vector<uint8_t> before;
    auto *variables = static_cast<uint8_t *>(kiln_.context_variables(context_));
    if (entry_info_.size_count != 0 && info.variables_size != 0)
      before.assign(variables, variables + info.variables_size);
    for (int32_t code; (code = kiln_.run(context_, &error_)) != KILN_OK;) {
      if (code != KILN_ERROR_CAPACITY || kiln_.grown_dims(context_, dims_.data(), nullptr) != KILN_OK)
        return fail();
      if (int status = make_context())
        return status;
      if (int status = make_outputs())
        return status;
      if (!before.empty())
        std::memcpy(kiln_.context_variables(context_), before.data(), before.size());
    }
    return kFine;
  }

  int run() {
    std::vector<double> times;
    for (int64_t i = 0; i < std::max<int64_t>(options_.repeat, 1); ++i) {
      auto start = std::chrono::steady_clock::now();
      if (int status = run_once())
        return status;
      std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
      times.push_back(time.count());
    }
    if (options_.repeat > 0) {
      std::sort(times.begin(), times.end());
      std::fprintf(stderr, "%zu runs: %.4f ms median, %.4f fastest, %.4f slowest\n", times.size(),
                   times[times.size() / 2], times.front(), times.back());
    }
    return kFine;
  }

  int write_results() {
    for (size_t i = 0; i < outputs_.size(); ++i) {
      KilnValueInfo info;
      kiln_.output_info(module_, entry_, static_cast<uint32_t>(i), &info);
      std::vector<int64_t> dims(KILN_MAX_RANK);
      if (kiln_.result_dims(context_, static_cast<uint32_t>(i), dims.data(), &error_) != KILN_OK)
        return fail();
      dims.resize(info.rank);
      uint64_t size = 0;
      if (dense_size(info.dtype, dims, size) && size <= outputs_[i].data.size()) {
        outputs_[i].dims = dims;
        outputs_[i].data.resize(size);
      }
      auto same_name = [&](const Named &output) { return output.name == info.name; };
      auto at = std::find_if(options_.outputs.begin(), options_.outputs.end(), same_name);
      if (at == options_.outputs.end())
        std::printf("%s: %s\n", info.name, print_tensor(outputs_[i]).c_str());
      else if (std::string error = write_npy(at->value.substr(1), outputs_[i]); !error.empty())
        return complain(kBadInput, error);
    }
    void *variables = kiln_.context_variables(context_);
    if (!options_.save.empty() &&
        kiln_.save(module_, variables, options_.save.c_str(), 0, &error_) != KILN_OK)
      return fail();
    if (!options_.save_state.empty() && kiln_.save(module_, variables, options_.save_state.c_str(),
                                                   KILN_SAVE_STATE_ONLY, &error_) != KILN_OK)
      return fail();
    return kFine;
  }

  const KilnApi &kiln_;
  const Options &options_;
  KilnModule *module_ = nullptr;
  KilnPool *pool_ = nullptr;
  KilnContext *context_ = nullptr;
  Memory memory_;
  uint32_t entry_ = 0;
  KilnEntryInfo entry_info_{};
  std::vector<KilnSymbolInfo> symbols_;
  std::vector<int64_t> dims_;
  std::vector<Tensor> inputs_;
  std::vector<Tensor> outputs_;
  KilnError error_{};
};

} // namespace

int main(int argc, char **argv) {
  if (argc == 2 && (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0)) {
    std::fputs(kUsage, stdout);
    return kFine;
  }
  Options options;
  if (std::string error = parse_arguments(argc, argv, options); !error.empty())
    return complain(kBadUsage, error + "\n" + kUsage);
  int code = Runner(options).go();
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    return complain(code == kFine ? kBadInput : Status(code), "cannot write all of standard output\n");
  return code;
}
