#include "tools/session.h"

#include "ir/argument_notes.h"
#include "ir/narrow.h"
#include "runtime/context.h"
#include "runtime/parts.h"
#include "tools/cli.h"
#include "tools/text_tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace kiln {
namespace {

const KilnApi &api() {
  static const KilnApi *table = kiln_get_api(KILN_API_VERSION);
  return *table;
}

Error error_of(const KilnError &e) {
  std::string message = e.message;
  if (e.node[0])
    message += fmt::format(" (node '{}')", e.node);
  if (e.location[0])
    message += fmt::format(" at {}", e.location);
  return Error{message};
}

KilnOpenOptions open_options(const SessionOptions &options) {
  return {KILN_OPEN_DEVICE, 0, options.target.empty() ? nullptr : options.target.c_str(),
          options.device.empty() ? nullptr : options.device.c_str()};
}

struct FreeDeleter {
  void operator()(void *p) const { std::free(p); }
};

std::string value_text(const KilnValueInfo &info, bool text = false) {
  std::string dims;
  for (uint32_t i = 0; i + text < info.rank; ++i)
    dims += (i ? ", " : "") + std::string(info.dims[i].text);
  auto dtype = dtype_from_code(int(info.dtype));
  return fmt::format("{}[{}]", text ? "text" : dtype ? dtype_name(*dtype) : "?", dims);
}

// One loop whose parts are timed.
struct TimedLoop {
  void (*body)(void *, int64_t, int64_t);
  void *closure;
  PartHook hook;
  void *hook_self;
  static void part(void *self, int64_t begin, int64_t end) {
    auto &loop = *static_cast<TimedLoop *>(self);
    auto start = std::chrono::steady_clock::now();
    loop.body(loop.closure, begin, end);
    loop.hook(loop.hook_self, start, std::chrono::steady_clock::now());
  }
};

} // namespace

struct Session::State {
  KilnModule *module = nullptr;
  KilnPool *pool = nullptr;
  uint32_t entry = 0;
  bool initialise = false;
  uint64_t seed = 0;
  std::map<uint32_t, int64_t> chosen_dims; // by symbol
  KilnEntryInfo info{};
  std::unique_ptr<void, FreeDeleter> memory;
  size_t memory_bytes = 0;
  KilnContext *context = nullptr;
  std::vector<std::pair<std::string, Tensor>> inputs;
  std::vector<Tensor> outputs; // as large as they can be
  std::vector<Tensor> results; // as large as they are: views of `outputs`, where sizes depend on the data
  std::vector<std::byte> variables_before; // where a run may have to be repeated
  KilnKernelHook hook = nullptr;
  void *hook_self = nullptr;
  PartHook part_hook = nullptr;
  void *part_hook_self = nullptr;
  KilnExecutor timed{}; // the pool's, with the clock read around each part

  static void timed_parallel_for(void *self, int64_t n, void (*body)(void *, int64_t, int64_t), void *closure) {
    auto &state = *static_cast<State *>(self);
    TimedLoop loop{body, closure, state.part_hook, state.part_hook_self};
    const KilnExecutor *pool = api().pool_executor(state.pool);
    pool->parallel_for(pool->self, n, TimedLoop::part, &loop);
  }

  ~State() {
    if (context)
      api().context_end(context);
    if (pool)
      api().pool_destroy(pool);
    if (module)
      api().close(module);
  }
};

Session::Session() : state_(std::make_unique<State>()) {}
Session::Session(Session &&) noexcept = default;
Session &Session::operator=(Session &&) noexcept = default;
Session::~Session() = default;

Result<Session> Session::open(const std::string &path, const SessionOptions &options) {
  Session session;
  KilnError error{};
  KilnOpenOptions open = open_options(options);
  if (api().open(path.c_str(), &open, &session.state_->module, &error) != KILN_OK)
    return error_of(error);
  return start(std::move(session), options);
}

Result<Session> Session::open(std::span<const std::byte> package, const SessionOptions &options) {
  Session session;
  KilnError error{};
  KilnOpenOptions open = open_options(options);
  if (api().open_memory(package.data(), package.size(), &open, &session.state_->module, &error) != KILN_OK)
    return error_of(error);
  return start(std::move(session), options);
}

Result<Session> Session::start(Session session, const SessionOptions &options) {
  State &s = *session.state_;
  KilnError error{};
  if (!options.entry.empty()) {
    int32_t index = api().find_entry(s.module, options.entry.c_str());
    if (index < 0) {
      std::string names;
      KilnEntryInfo info{};
      for (uint32_t i = 0; api().entry_info(s.module, i, &info) == KILN_OK; ++i)
        names += (i ? ", " : "") + std::string(info.name);
      return Error{fmt::format("no entry '{}'; the package has: {}", options.entry, names)};
    }
    s.entry = uint32_t(index);
  }
  api().entry_info(s.module, s.entry, &s.info);
  s.initialise = options.initialise;
  s.seed = options.seed;
  std::string symbols;
  KilnSymbolInfo symbol{};
  for (uint32_t i = 0; i < s.info.symbol_count; ++i) {
    api().symbol_info(s.module, s.entry, i, &symbol);
    symbols += (i ? ", " : "") + std::string(symbol.name);
    if (auto it = options.dims.find(symbol.name); it != options.dims.end())
      s.chosen_dims[i] = it->second;
  }
  for (const auto &[name, value] : options.dims)
    if (symbols.empty() || (", " + symbols + ", ").find(", " + name + ", ") == std::string::npos)
      return Error{fmt::format("--dim {}: '{}' has no size of this name; it has: {}", name, s.info.name, symbols.empty() ? "none" : symbols)};
  if (options.threads > 1 && api().pool_create(uint32_t(options.threads), &s.pool, &error) != KILN_OK)
    return error_of(error);
  return session;
}

std::vector<std::string> Session::input_names() const {
  std::vector<std::string> out;
  KilnValueInfo info{};
  for (uint32_t i = 0; i < state_->info.input_count; ++i) {
    api().input_info(state_->module, state_->entry, i, &info);
    out.emplace_back(info.name);
  }
  return out;
}

std::vector<std::string> Session::output_names() const {
  std::vector<std::string> out;
  KilnValueInfo info{};
  for (uint32_t i = 0; i < state_->info.output_count; ++i) {
    api().output_info(state_->module, state_->entry, i, &info);
    out.emplace_back(info.name);
  }
  return out;
}

std::string Session::input_text(const std::string &name) const {
  KilnValueInfo info{};
  for (uint32_t i = 0; i < state_->info.input_count; ++i) {
    api().input_info(state_->module, state_->entry, i, &info);
    if (name == info.name)
      return value_text(info, is_text(false, name));
  }
  return "";
}

bool Session::is_text(bool is_output, const std::string &name) const {
  const char *key = nullptr, *value = nullptr;
  for (uint32_t i = 0; api().metadata(state_->module, i, &key, &value) == KILN_OK; ++i)
    if (note_key(is_output, name) == key)
      return std::string_view(value) == kTextNote;
  return false;
}

Status Session::widen_texts(std::vector<std::pair<std::string, Tensor>> &inputs) const {
  const State &s = *state_;
  int64_t width = 1;
  std::vector<std::pair<std::string, Tensor> *> texts;
  for (auto &input : inputs)
    if (is_text(false, input.first) && input.second.dtype() == DType::u8 && input.second.rank() > 0) {
      texts.push_back(&input);
      width = std::max(width, input.second.dims().back());
    }
  KilnValueInfo info{};
  for (uint32_t i = 0; i < s.info.input_count; ++i) {
    api().input_info(s.module, s.entry, i, &info);
    if (is_text(false, info.name) && info.rank > 0 && info.dims[info.rank - 1].symbol < 0)
      width = info.dims[info.rank - 1].value;
  }
  for (auto *input : texts) {
    if (input->second.dims().back() == width)
      continue;
    auto wide = with_text_width(input->second, width);
    if (!wide)
      return Error{fmt::format("the input '{}' has a string of more than {} bytes, for which the model is compiled",
                               input->first, width)};
    input->second = std::move(*wide);
  }
  return Unit{};
}

const char *Session::target() const {
  return api().entry_target(state_->module, state_->entry);
}

const char *Session::kernel_target(uint32_t kernel) const {
  return api().kernel_target(state_->module, state_->entry, kernel);
}

Status Session::fill_inputs(std::vector<std::pair<std::string, Tensor>> &given,
                            const std::map<std::string, int64_t> &dims, std::string &made) const {
  const State &s = *state_;
  KILN_RETURN_IF_ERROR(take_codes(given));
  std::vector<int64_t> sizes(s.info.symbol_count);
  KilnSymbolInfo symbol{};
  for (uint32_t i = 0; i < sizes.size(); ++i) {
    api().symbol_info(s.module, s.entry, i, &symbol);
    auto chosen = dims.find(symbol.name);
    sizes[i] = chosen != dims.end() ? chosen->second : std::max<int64_t>(symbol.min, 1);
  }
  auto given_as = [&](const char *name) {
    return std::find_if(given.begin(), given.end(), [&](const auto &g) { return g.first == name; });
  };
  KilnValueInfo info{};
  for (uint32_t i = 0; i < s.info.input_count; ++i) {
    api().input_info(s.module, s.entry, i, &info);
    auto it = given_as(info.name);
    for (uint32_t d = 0; it != given.end() && d < info.rank && d < uint32_t(it->second.rank()); ++d)
      if (info.dims[d].symbol >= 0)
        sizes[size_t(info.dims[d].symbol)] = it->second.dims()[d];
  }
  for (uint32_t i = 0; i < s.info.input_count; ++i) {
    api().input_info(s.module, s.entry, i, &info);
    if (given_as(info.name) != given.end())
      continue;
    std::vector<int64_t> shape;
    for (uint32_t d = 0; d < info.rank; ++d)
      shape.push_back(info.dims[d].symbol >= 0 ? sizes[size_t(info.dims[d].symbol)] : info.dims[d].value);
    auto dtype = dtype_from_code(int(info.dtype));
    auto bytes = dtype ? checked_bytes(*dtype, shape) : std::nullopt;
    if (!bytes || *bytes > int64_t(8) << 30)
      return Error{fmt::format("no random values for the input '{}': {}; give it with --input", info.name, value_text(info))};
    given.emplace_back(info.name, random_tensor(info.name, *dtype, shape));
    made += fmt::format("{}{}: {}", made.empty() ? "" : ", ", info.name, given.back().second.type().text());
  }
  return Unit{};
}

// An array of bytes for an input of a narrow dtype holds its codes.
Status Session::take_codes(std::vector<std::pair<std::string, Tensor>> &given) const {
  const State &s = *state_;
  KilnValueInfo info{};
  for (uint32_t i = 0; i < s.info.input_count; ++i) {
    api().input_info(s.module, s.entry, i, &info);
    auto dtype = dtype_from_code(int(info.dtype));
    for (auto &[name, tensor] : given) {
      bool bytes = tensor.dtype() == DType::u8 || tensor.dtype() == DType::i8;
      if (name != info.name || !dtype || !is_narrow(*dtype) || !bytes)
        continue;
      auto codes = from_codes(tensor, *dtype);
      if (!codes)
        return Error{fmt::format("the input '{}': {}", name, codes.error().message)};
      tensor = std::move(*codes);
    }
  }
  return Unit{};
}

Status Session::bind(std::vector<std::pair<std::string, Tensor>> inputs) {
  State &s = *state_;
  std::vector<std::string> names = input_names();
  for (const auto &[name, tensor] : inputs)
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      std::string list;
      for (const std::string &n : names)
        list += fmt::format("{}{}: {}", list.empty() ? "" : ", ", n, input_text(n));
      return Error{fmt::format("the model has no input '{}'; it has {}", name, list)};
    } else if (std::count_if(inputs.begin(), inputs.end(), [&](const auto &i) { return i.first == name; }) > 1) {
      return Error{fmt::format("the input '{}' is given twice", name)};
    }
  KILN_RETURN_IF_ERROR(widen_texts(inputs));
  s.inputs = std::move(inputs);
  KILN_RETURN_IF_ERROR(take_codes(s.inputs));
  std::vector<const Tensor *> by_index;
  for (const std::string &name : names) {
    auto it = std::find_if(s.inputs.begin(), s.inputs.end(), [&](const auto &i) { return i.first == name; });
    if (it == s.inputs.end())
      return Error{fmt::format("no value for input '{}': {}; give one with --input {}=@FILE.npy", name,
                               input_text(name), name)};
    by_index.push_back(&it->second);
  }
  // The symbols' values come from the inputs' shapes; bind_input checks that they agree. Capacities are the
  // model's own, until a run finds that they are too small.
  std::vector<int64_t> dims(s.info.symbol_count, 1);
  for (uint32_t i = 0; i < dims.size(); ++i)
    if (api().capacity(s.module, s.entry, i) >= 0)
      dims[i] = -1;
  for (const auto &[i, value] : s.chosen_dims)
    dims[i] = value;
  KilnValueInfo info{};
  for (uint32_t i = 0; i < by_index.size(); ++i) {
    api().input_info(s.module, s.entry, i, &info);
    for (uint32_t d = 0; d < info.rank && d < uint32_t(by_index[i]->rank()); ++d)
      if (info.dims[d].symbol >= 0)
        dims[size_t(info.dims[d].symbol)] = by_index[i]->dims()[d];
  }
  for (const auto &[i, value] : s.chosen_dims)
    if (KilnSymbolInfo symbol{}; dims[i] != value && api().symbol_info(s.module, s.entry, i, &symbol) == KILN_OK)
      return Error{fmt::format("--dim {}={}: the inputs' shapes say {}", symbol.name, value, dims[i])};
  return make_context(dims);
}

// First values of the variables, where the model computes them from a seed: training begins with the same.
Status Session::initialise() {
  State &s = *state_;
  int32_t init = s.initialise ? api().find_entry(s.module, "init") : -1;
  void *variables = api().context_variables(s.context);
  KilnEntryInfo info{};
  KilnValueInfo seed{};
  if (init < 0 || uint32_t(init) == s.entry || !variables || api().entry_info(s.module, uint32_t(init), &info) != KILN_OK ||
      info.input_count != 1 || info.output_count != 0 || api().input_info(s.module, uint32_t(init), 0, &seed) != KILN_OK ||
      seed.dtype != uint32_t(DType::u64) || seed.rank != 0)
    return Unit{};
  KilnError error{};
  KilnContextOptions options{};
  options.variables = variables;
  size_t bytes = 0;
  if (api().context_size(s.module, uint32_t(init), &options, &bytes, &error) != KILN_OK)
    return error_of(error);
  std::unique_ptr<void, FreeDeleter> memory(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096));
  if (!memory)
    return Error{fmt::format("no memory for a context of {} bytes", bytes)};
  KilnContext *context = nullptr;
  KilnTensor bound{&s.seed, sizeof s.seed, seed.dtype, 0, nullptr};
  if (api().context_init(s.module, uint32_t(init), &options, memory.get(), bytes, &context, &error) != KILN_OK ||
      api().bind_input(context, 0, &bound, &error) != KILN_OK || api().run(context, &error) != KILN_OK)
    return error_of(error);
  return Unit{};
}

Status Session::make_context(const std::vector<int64_t> &dims) {
  State &s = *state_;
  std::vector<const Tensor *> by_index;
  for (const std::string &name : input_names())
    by_index.push_back(&std::find_if(s.inputs.begin(), s.inputs.end(), [&](const auto &i) { return i.first == name; })->second);
  KilnValueInfo info{};
  KilnError error{};
  KilnContextOptions options{};
  options.dims = dims.empty() ? nullptr : dims.data();
  options.executor = s.pool ? api().pool_executor(s.pool) : nullptr;
  if (s.pool && s.part_hook) {
    s.timed = {options.executor->threads, options.executor->hand_over, &s, State::timed_parallel_for};
    options.executor = &s.timed;
  }
  if (api().context_size(s.module, s.entry, &options, &s.memory_bytes, &error) != KILN_OK)
    return error_of(error);
  size_t rounded = (s.memory_bytes + 4095) / 4096 * 4096;
  if (s.context)
    api().context_end(s.context);
  s.context = nullptr;
  s.memory.reset(std::aligned_alloc(4096, rounded));
  if (!s.memory)
    return Error{fmt::format("no memory for a context of {} bytes", s.memory_bytes)};
  if (api().context_init(s.module, s.entry, &options, s.memory.get(), rounded, &s.context, &error) != KILN_OK)
    return error_of(error);
  KILN_RETURN_IF_ERROR(initialise());
  for (uint32_t i = 0; i < by_index.size(); ++i) {
    const Tensor &t = *by_index[i];
    KilnTensor bound{const_cast<std::byte *>(t.bytes().data()), t.bytes().size(), uint32_t(t.dtype()),
                     uint32_t(t.rank()), t.dims().data()};
    static const int64_t kNoDims[1] = {0};
    if (t.rank() == 0)
      bound.dims = kNoDims;
    if (api().bind_input(s.context, i, &bound, &error) != KILN_OK)
      return error_of(error);
  }
  s.outputs.clear();
  s.results.clear();
  for (uint32_t i = 0; i < s.info.output_count; ++i) {
    api().output_info(s.module, s.entry, i, &info);
    std::vector<int64_t> shape(KILN_MAX_RANK);
    if (api().output_dims(s.context, i, shape.data(), &error) != KILN_OK)
      return error_of(error);
    shape.resize(info.rank);
    auto dtype = dtype_from_code(int(info.dtype));
    if (!dtype || !checked_bytes(*dtype, shape))
      return Error{fmt::format("the output '{}' is too large", info.name)};
    s.outputs.emplace_back(*dtype, shape);
  }
  for (uint32_t i = 0; i < s.outputs.size(); ++i) {
    Tensor &t = s.outputs[i];
    KilnTensor bound{t.mutable_bytes(), t.bytes().size(), uint32_t(t.dtype()), uint32_t(t.rank()), nullptr};
    if (api().bind_output(s.context, i, &bound, &error) != KILN_OK)
      return error_of(error);
  }
  if (s.hook)
    api().set_kernel_hook(s.context, s.hook, s.hook_self);
  return Unit{};
}

// A run that lacks room for a size found in the data is repeated in a larger context, with the variables as
// they were.
Status Session::run() {
  State &s = *state_;
  KilnError error{};
  if (!s.context)
    return Error{"bind the inputs before a run"};
  KilnModuleInfo module{};
  api().module_info(s.module, &module);
  bool keeps = s.info.size_count > 0 && module.variables_size > 0;
  auto *variables = static_cast<std::byte *>(api().context_variables(s.context));
  if (keeps)
    s.variables_before.assign(variables, variables + module.variables_size);
  for (int32_t code; (code = api().run(s.context, &error)) != KILN_OK;) {
    std::vector<int64_t> dims(s.info.symbol_count);
    if (code != KILN_ERROR_CAPACITY || api().grown_dims(s.context, dims.data(), nullptr) != KILN_OK)
      return error_of(error);
    KILN_RETURN_IF_ERROR(make_context(dims));
    if (keeps)
      std::copy(s.variables_before.begin(), s.variables_before.end(),
                static_cast<std::byte *>(api().context_variables(s.context)));
  }
  if (s.info.size_count == 0)
    return Unit{};
  s.results.clear();
  for (uint32_t i = 0; i < s.outputs.size(); ++i) {
    std::vector<int64_t> shape(KILN_MAX_RANK);
    if (api().result_dims(s.context, i, shape.data(), &error) != KILN_OK)
      return error_of(error);
    shape.resize(size_t(s.outputs[i].rank()));
    auto bytes = checked_bytes(s.outputs[i].dtype(), shape);
    if (!bytes || size_t(*bytes) > s.outputs[i].bytes().size())
      return Error{"an output is larger than was planned"};
    s.results.emplace_back(s.outputs[i].dtype(), shape, s.outputs[i].bytes().first(size_t(*bytes)));
  }
  return Unit{};
}

Status Session::set_input(const std::string &name, const Tensor &value) {
  for (auto &[key, tensor] : state_->inputs)
    if (key == name) {
      if (tensor.type() != value.type())
        return Error{fmt::format("the input '{}' is {}, not {}", name, tensor.type().text(), value.type().text())};
      std::copy(value.bytes().begin(), value.bytes().end(), tensor.mutable_bytes());
      return Unit{};
    }
  return Error{fmt::format("no input '{}' is bound", name)};
}

Status Session::fill_input(const std::string &name, double value) {
  for (auto &[key, tensor] : state_->inputs)
    if (key == name) {
      for (int64_t i = 0; i < tensor.count(); ++i)
        is_integer(tensor.dtype()) ? tensor.set_i64(i, int64_t(value)) : tensor.set_f64(i, value);
      return Unit{};
    }
  return Error{fmt::format("no input '{}' is bound", name)};
}

std::vector<Tensor> &Session::outputs() { return state_->results.empty() ? state_->outputs : state_->results; }

void Session::set_kernel_hook(KilnKernelHook hook, void *self) {
  state_->hook = hook;
  state_->hook_self = self;
  if (state_->context)
    api().set_kernel_hook(state_->context, hook, self);
}

void Session::set_part_hook(PartHook hook, void *self) {
  state_->part_hook = hook;
  state_->part_hook_self = self;
}

std::vector<KernelCost> Session::kernel_costs() const {
  const State &s = *state_;
  const auto bound = dims();
  const rt::Manifest &manifest = s.module->manifest;
  auto value = [&](double known, package::String text) {
    if (known != 0)
      return known;
    auto dim = parse_dim(manifest.text(text));
    std::optional<int64_t> number;
    if (dim)
      number = dim->evaluate([&](Symbol symbol) -> std::optional<int64_t> {
        for (const auto &[name, size] : bound)
          if (symbol.text() == name)
            return size;
        return std::nullopt;
      });
    return double(number.value_or(0));
  };
  std::vector<KernelCost> out;
  bool is_on_device = false;
  for (uint32_t i = 0; i < s.info.kernel_count; ++i) {
    const package::KernelRecord &kernel = *rt::kernel_at(*s.module, code_entry(), i, &is_on_device);
    out.push_back({value(kernel.flops, kernel.flops_text), value(kernel.bytes, kernel.bytes_text), kernel.weight_bytes, kernel.units});
  }
  return out;
}

std::vector<KilnKernelInfo> Session::kernels() const {
  std::vector<KilnKernelInfo> out(state_->info.kernel_count);
  for (uint32_t i = 0; i < out.size(); ++i)
    api().kernel_info(state_->module, state_->entry, i, &out[i]);
  return out;
}

int64_t Session::arena_bytes() const { return state_->context ? int64_t(state_->context->arena_size) : -1; }

uint32_t Session::entry() const { return state_->entry; }
uint32_t Session::code_entry() const { return rt::code_entry(*state_->module, state_->entry); }

const std::byte *Session::arena() const {
  return reinterpret_cast<const std::byte *>(state_->context->frame.arena);
}

const std::byte *Session::argument(int index) const {
  return static_cast<const std::byte *>(state_->context->frame.args[index]);
}

std::vector<std::pair<std::string, int64_t>> Session::dims() const {
  std::vector<std::pair<std::string, int64_t>> out;
  KilnSymbolInfo symbol{};
  for (uint32_t i = 0; i < state_->info.symbol_count; ++i) {
    api().symbol_info(state_->module, state_->entry, i, &symbol);
    out.emplace_back(symbol.name, state_->context->dims[i]);
  }
  const rt::Manifest &manifest = state_->module->manifest;
  const package::EntryRecord &entry = manifest.entries()[code_entry()];
  for (uint32_t i = 0; i < entry.sizes.count; ++i)
    out.emplace_back(manifest.text(manifest.symbols()[entry.sizes.first + i].name), state_->context->sizes[i]);
  return out;
}

const KilnModule *Session::module() const { return state_->module; }

} // namespace kiln
