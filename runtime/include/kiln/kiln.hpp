// Kiln's runtime for C++20: kiln.h with owners, spans and names. Header only.
//
//   using namespace kiln::runtime;
//   Module module = Module::open("digits.kiln");
//   Context predict = module.context("predict");
//   std::vector<float> x(28 * 28), y(10);
//   predict.input("x", x, {1, 1, 28, 28});
//   predict.output("y", y);
//   predict.run();
//
// Each function that can fail comes twice. The plain one throws kiln::runtime::Error. The one whose
// name begins with try_ takes a KilnError, returns false (or an empty optional), and throws
// nothing; with exceptions switched off only these exist. Objects may be moved, and keep the module
// they came from open. A Context belongs to one thread at a time.
#pragma once

#include <kiln/kiln.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__cpp_exceptions)
#define KILN_HAS_EXCEPTIONS 1
#include <stdexcept>
#endif

namespace kiln::runtime {

inline const KilnApi &api() {
  static const KilnApi *const kTable = kiln_get_api(KILN_API_VERSION);
  return *kTable;
}

// The dtype code of a C++ type. Specialize it for types of your own (f16, bf16).
template <typename T>
struct DtypeOf;
#define KILN_DTYPE_OF(type, dtype)                                                                 \
  template <>                                                                                      \
  struct DtypeOf<type> : std::integral_constant<uint32_t, dtype> {};
KILN_DTYPE_OF(double, KILN_F64)
KILN_DTYPE_OF(float, KILN_F32)
KILN_DTYPE_OF(int64_t, KILN_I64)
KILN_DTYPE_OF(int32_t, KILN_I32)
KILN_DTYPE_OF(int16_t, KILN_I16)
KILN_DTYPE_OF(int8_t, KILN_I8)
KILN_DTYPE_OF(uint64_t, KILN_U64)
KILN_DTYPE_OF(uint32_t, KILN_U32)
KILN_DTYPE_OF(uint16_t, KILN_U16)
KILN_DTYPE_OF(uint8_t, KILN_U8)
KILN_DTYPE_OF(bool, KILN_BOOL)
#undef KILN_DTYPE_OF

// Anything with contiguous elements: a vector, an array, a span.
template <typename Container>
concept Contiguous = requires(Container &&c) {
  std::data(c);
  std::size(c);
};

#ifdef KILN_HAS_EXCEPTIONS
class Error : public std::runtime_error {
public:
  explicit Error(const KilnError &error) : std::runtime_error(text(error)), error_(error) {}
  int32_t code() const noexcept { return error_.code; }
  const char *node() const noexcept { return error_.node; }
  const char *location() const noexcept { return error_.location; }

private:
  static std::string text(const KilnError &error) {
    std::string result = error.message;
    if (error.node[0] != 0)
      result += std::string(" in '") + error.node + "'";
    if (error.location[0] != 0)
      result += std::string(" at ") + error.location;
    return result;
  }
  KilnError error_;
};
#endif

namespace detail {

inline KilnError usage_error(const std::string &message) {
  KilnError error{};
  error.code = KILN_ERROR_NOT_FOUND;
  message.copy(error.message, sizeof error.message - 1);
  return error;
}

struct AlignedDelete {
  void operator()(std::byte *memory) const noexcept {
    ::operator delete(memory, std::align_val_t{KILN_MEMORY_ALIGNMENT});
  }
};
using Block = std::unique_ptr<std::byte, AlignedDelete>;

inline Block make_block(size_t size, KilnError &error) {
  void *memory = ::operator new(size, std::align_val_t{KILN_MEMORY_ALIGNMENT}, std::nothrow);
  if (memory == nullptr) {
    error = usage_error("no memory for " + std::to_string(size) + " bytes");
    error.code = KILN_ERROR_MEMORY;
  }
  return Block(static_cast<std::byte *>(memory));
}

using ModuleHandle = std::shared_ptr<KilnModule>;

// A context with what it lies in: it gives back what it holds on a device before its memory goes.
class OwnedContext {
public:
  OwnedContext(ModuleHandle module, Block block, KilnContext *context)
      : module_(std::move(module)), block_(std::move(block)), context_(context) {}
  OwnedContext(OwnedContext &&other) noexcept
      : module_(std::move(other.module_)), block_(std::move(other.block_)), context_(std::exchange(other.context_, nullptr)) {}
  OwnedContext &operator=(OwnedContext other) noexcept {
    module_.swap(other.module_);
    block_.swap(other.block_);
    std::swap(context_, other.context_);
    return *this;
  }
  ~OwnedContext() {
    if (context_ != nullptr)
      api().context_end(context_);
  }
  operator KilnContext *() const { return context_; }

private:
  ModuleHandle module_;
  Block block_;
  KilnContext *context_;
};

#ifdef KILN_HAS_EXCEPTIONS
inline void require(bool is_fine, const KilnError &error) {
  if (!is_fine)
    throw Error(error);
}
template <typename T>
T require(std::optional<T> value, const KilnError &error) {
  require(value.has_value(), error);
  return std::move(*value);
}
#endif

} // namespace detail

// Threads for any number of contexts; outlives them.
class Pool {
public:
  static std::optional<Pool> try_create(uint32_t threads, KilnError &error) {
    KilnPool *pool = nullptr;
    if (api().pool_create(threads, &pool, &error) != KILN_OK)
      return std::nullopt;
    return Pool(pool);
  }
#ifdef KILN_HAS_EXCEPTIONS
  explicit Pool(uint32_t threads) : pool_(nullptr, api().pool_destroy) {
    KilnError error{};
    *this = detail::require(try_create(threads, error), error);
  }
#endif
  const KilnExecutor *executor() const { return api().pool_executor(pool_.get()); }

private:
  explicit Pool(KilnPool *pool) : pool_(pool, api().pool_destroy) {}
  std::unique_ptr<KilnPool, void (*)(KilnPool *)> pool_;
};

// A block of a module's params and state, to be read, written, saved, and shared by contexts.
class Variables {
public:
  void *data() const { return block_.get(); }

  bool try_save(const std::string &path, KilnError &error, bool state_only = false) const {
    uint32_t flags = state_only ? KILN_SAVE_STATE_ONLY : 0;
    return api().save(module_.get(), data(), path.c_str(), flags, &error) == KILN_OK;
  }
  bool try_load(const std::string &path, KilnError &error) {
    return api().load(module_.get(), data(), path.c_str(), &error) == KILN_OK;
  }
  // Back to the values that the package begins with: an empty cache, untrained parameters.
  bool try_reset(KilnError &error) {
    return api().variables_init(module_.get(), data(), &error) == KILN_OK;
  }
  template <typename T>
  bool try_read(const std::string &name, std::vector<T> &values, KilnError &error) const {
    std::optional<uint32_t> index = find<T>(name, error);
    if (!index)
      return false;
    values.resize(info(*index).size / sizeof(T));
    return api().variable_read(module_.get(), data(), *index, values.data(),
                               values.size() * sizeof(T), &error) == KILN_OK;
  }
  template <Contiguous Values>
  bool try_write(const std::string &name, const Values &values, KilnError &error) {
    using T = std::remove_cvref_t<decltype(*std::data(values))>;
    std::optional<uint32_t> index = find<T>(name, error);
    return index && api().variable_write(module_.get(), data(), *index, std::data(values),
                                         std::size(values) * sizeof(T), &error) == KILN_OK;
  }
#ifdef KILN_HAS_EXCEPTIONS
  void save(const std::string &path, bool state_only = false) const {
    KilnError error{};
    detail::require(try_save(path, error, state_only), error);
  }
  void load(const std::string &path) {
    KilnError error{};
    detail::require(try_load(path, error), error);
  }
  void reset() {
    KilnError error{};
    detail::require(try_reset(error), error);
  }
  template <typename T>
  std::vector<T> read(const std::string &name) const {
    KilnError error{};
    std::vector<T> values;
    detail::require(try_read(name, values, error), error);
    return values;
  }
  template <Contiguous Values>
  void write(const std::string &name, const Values &values) {
    KilnError error{};
    detail::require(try_write(name, values, error), error);
  }
#endif

private:
  friend class Module;
  Variables(detail::ModuleHandle module, detail::Block block)
      : module_(std::move(module)), block_(std::move(block)) {}

  KilnVariableInfo info(uint32_t index) const {
    KilnVariableInfo info{};
    api().variable_info(module_.get(), index, &info);
    return info;
  }
  template <typename T>
  std::optional<uint32_t> find(const std::string &name, KilnError &error) const {
    KilnVariableInfo info{};
    for (uint32_t i = 0; api().variable_info(module_.get(), i, &info) == KILN_OK; ++i) {
      if (name != info.name)
        continue;
      if (info.dtype == DtypeOf<T>::value)
        return i;
      error = detail::usage_error("the variable '" + name + "' has another dtype");
      error.code = KILN_ERROR_DTYPE;
      return std::nullopt;
    }
    error = detail::usage_error("no variable '" + name + "'");
    return std::nullopt;
  }

  detail::ModuleHandle module_;
  detail::Block block_;
};

struct ContextOptions {
  std::vector<int64_t> dims = {};         // the largest; empty takes the model's upper bounds
  Variables *variables = nullptr;         // shared; must outlive the context
  const KilnExecutor *executor = nullptr; // must outlive the context
};

// One entry, ready to run. What is bound must stay where it is until it is bound anew.
class Context {
public:
  template <Contiguous Values>
  bool try_input(const std::string &name, Values &&values, std::span<const int64_t> dims,
                 KilnError &error) {
    std::optional<uint32_t> index = find(name, api().input_info, "input", error);
    KilnTensor bound = tensor(values, dims);
    return index && bind_input(*index, bound, error);
  }
  template <Contiguous Values>
  bool try_output(const std::string &name, Values &&values, KilnError &error) {
    std::optional<uint32_t> index = find(name, api().output_info, "output", error);
    KilnTensor bound = tensor(values, {});
    bound.dims = nullptr;
    return index && bind_output(*index, bound, error);
  }
  bool try_set_dims(std::span<const int64_t> dims, KilnError &error) {
    given_dims_.assign(dims.begin(), dims.end());
    return api().set_dims(context_, dims.data(), static_cast<uint32_t>(dims.size()), &error) ==
           KILN_OK;
  }
  // The shape that the output will have with the inputs bound and dims set so far; the largest, where it
  // depends on the data.
  bool try_output_dims(const std::string &name, std::vector<int64_t> &dims, KilnError &error) {
    std::optional<uint32_t> index = find(name, api().output_info, "output", error);
    KilnValueInfo info{};
    if (!index || api().output_info(module_.get(), entry_, *index, &info) != KILN_OK)
      return false;
    dims.resize(KILN_MAX_RANK);
    bool is_fine = api().output_dims(context_, *index, dims.data(), &error) == KILN_OK;
    dims.resize(info.rank);
    return is_fine;
  }
  // The shape that the output has after a run.
  bool try_result_dims(const std::string &name, std::vector<int64_t> &dims, KilnError &error) {
    std::optional<uint32_t> index = find(name, api().output_info, "output", error);
    KilnValueInfo info{};
    if (!index || api().output_info(module_.get(), entry_, *index, &info) != KILN_OK)
      return false;
    dims.resize(KILN_MAX_RANK);
    bool is_fine = api().result_dims(context_, *index, dims.data(), &error) == KILN_OK;
    dims.resize(info.rank);
    return is_fine;
  }
  // Where a size found in the data exceeds a capacity, the run is repeated with more room, and with the
  // variables as they were. Outputs that are then too small are an error (KILN_ERROR_SHAPE); those that
  // are not bound, see `result`, grow with it.
  bool try_run(KilnError &error) {
    KilnEntryInfo info{};
    api().entry_info(module_.get(), entry_, &info);
    if (info.size_count == 0 && own_.empty())
      return api().run(context_, &error) == KILN_OK;
    std::vector<std::byte> before;
    KilnModuleInfo module{};
    api().module_info(module_.get(), &module);
    if (info.size_count != 0 && module.variables_size != 0) {
      auto *variables = static_cast<const std::byte *>(api().context_variables(context_));
      before.assign(variables, variables + module.variables_size);
    }
    for (;;) {
      if (!bind_own(error))
        return false;
      int32_t code = api().run(context_, &error);
      if (code != KILN_ERROR_CAPACITY)
        return code == KILN_OK;
      if (!grow(info, error))
        return false;
      if (!before.empty())
        std::memcpy(api().context_variables(context_), before.data(), before.size());
    }
  }
  // Gives the output memory of the context's own, which is as large as the output can be.
  bool try_own_output(const std::string &name, KilnError &error) {
    std::optional<uint32_t> index = find(name, api().output_info, "output", error);
    if (index)
      own_.push_back({*index, {}});
    return index.has_value();
  }
  // The elements of such an output after a run; they stay until the next one.
  template <typename T>
  bool try_result(const std::string &name, std::span<const T> &values, KilnError &error) {
    std::optional<uint32_t> index = find(name, api().output_info, "output", error);
    std::vector<int64_t> dims;
    if (!index || !try_result_dims(name, dims, error))
      return false;
    KilnValueInfo info{};
    api().output_info(module_.get(), entry_, *index, &info);
    size_t count = 1;
    for (int64_t d : dims)
      count *= static_cast<size_t>(d);
    for (const Own &own : own_)
      if (own.index == *index && info.dtype == DtypeOf<T>::value) {
        values = {reinterpret_cast<const T *>(own.memory.get()), count};
        return true;
      }
    error = detail::usage_error("the output '" + name + "' is not the context's own, or has another dtype");
    return false;
  }

#ifdef KILN_HAS_EXCEPTIONS
  // Without dims the shape is the model's own, or what set_dims makes it.
  template <Contiguous Values>
  void input(const std::string &name, Values &&values, std::span<const int64_t> dims) {
    KilnError error{};
    detail::require(try_input(name, values, dims, error), error);
  }
  template <Contiguous Values>
  void input(const std::string &name, Values &&values, std::initializer_list<int64_t> dims) {
    input(name, values, std::span<const int64_t>(dims.begin(), dims.size()));
  }
  template <Contiguous Values>
  void input(const std::string &name, Values &&values) {
    KilnError error{};
    std::optional<uint32_t> index = find(name, api().input_info, "input", error);
    KilnTensor bound = tensor(values, {});
    bound.dims = nullptr;
    detail::require(index && bind_input(*index, bound, error), error);
  }
  template <Contiguous Values>
  void output(const std::string &name, Values &&values) {
    KilnError error{};
    detail::require(try_output(name, values, error), error);
  }
  void set_dims(std::initializer_list<int64_t> dims) {
    KilnError error{};
    detail::require(try_set_dims(std::span<const int64_t>(dims.begin(), dims.size()), error),
                    error);
  }
  std::vector<int64_t> output_dims(const std::string &name) {
    KilnError error{};
    std::vector<int64_t> dims;
    detail::require(try_output_dims(name, dims, error), error);
    return dims;
  }
  void run() {
    KilnError error{};
    detail::require(try_run(error), error);
  }
  std::vector<int64_t> result_dims(const std::string &name) {
    KilnError error{};
    std::vector<int64_t> dims;
    detail::require(try_result_dims(name, dims, error), error);
    return dims;
  }
  void own_output(const std::string &name) {
    KilnError error{};
    detail::require(try_own_output(name, error), error);
  }
  template <typename T>
  std::span<const T> result(const std::string &name) {
    KilnError error{};
    std::span<const T> values;
    detail::require(try_result(name, values, error), error);
    return values;
  }
#endif
  // For everything else that kiln.h has.
  KilnContext *handle() const { return context_; }

private:
  friend class Module;
  Context(detail::ModuleHandle module, detail::Block block, KilnContext *context, uint32_t entry,
          void *variables, const KilnExecutor *executor)
      : module_(module), context_(std::move(module), std::move(block), context), entry_(entry),
        variables_(variables), executor_(executor) {}

  // What is bound and set, to be said again to a larger context.
  struct Bound {
    KilnTensor tensor;
    std::vector<int64_t> dims;
    bool is_shaped;
  };
  struct Own {
    uint32_t index;
    detail::Block memory;
    uint64_t size = 0;
  };

  static void note(std::vector<std::pair<uint32_t, Bound>> &list, uint32_t index, const KilnTensor &tensor) {
    Bound bound{tensor, {}, tensor.dims != nullptr};
    if (bound.is_shaped)
      bound.dims.assign(tensor.dims, tensor.dims + tensor.rank);
    for (auto &[at, old] : list)
      if (at == index) {
        old = std::move(bound);
        return;
      }
    list.emplace_back(index, std::move(bound));
  }
  bool bind_input(uint32_t index, const KilnTensor &tensor, KilnError &error) {
    note(inputs_, index, tensor);
    return api().bind_input(context_, index, &tensor, &error) == KILN_OK;
  }
  bool bind_output(uint32_t index, const KilnTensor &tensor, KilnError &error) {
    note(outputs_, index, tensor);
    return api().bind_output(context_, index, &tensor, &error) == KILN_OK;
  }

  // Memory of our own for outputs, where they have become larger.
  bool bind_own(KilnError &error) {
    for (Own &own : own_) {
      KilnValueInfo info{};
      std::vector<int64_t> dims(KILN_MAX_RANK);
      api().output_info(module_.get(), entry_, own.index, &info);
      if (api().output_dims(context_, own.index, dims.data(), &error) != KILN_OK)
        return false;
      uint64_t size = 8; // of an element, at most
      for (uint32_t i = 0; i < info.rank; ++i)
        if (__builtin_mul_overflow(size, static_cast<uint64_t>(dims[i]), &size))
          size = UINT64_MAX / 2;
      if (!own.memory || own.size < size) {
        own.memory = detail::make_block(size == 0 ? 1 : size, error);
        own.size = size;
        if (!own.memory)
          return false;
      }
      KilnTensor bound{own.memory.get(), own.size, info.dtype, info.rank, nullptr};
      if (!bind_output(own.index, bound, error))
        return false;
    }
    return true;
  }

  // A context with as much room as the last run found that it needs.
  bool grow(const KilnEntryInfo &info, KilnError &error) {
    std::vector<int64_t> dims(info.symbol_count);
    if (api().grown_dims(context_, dims.data(), &error) != KILN_OK)
      return false;
    KilnContextOptions options{dims.data(), variables_, executor_};
    size_t size = 0;
    if (api().context_size(module_.get(), entry_, &options, &size, &error) != KILN_OK)
      return false;
    detail::Block block = detail::make_block(size, error);
    KilnContext *context = nullptr;
    // Shared variables stay; the context's own are put back by the caller.
    if (!block || api().context_init(module_.get(), entry_, &options, block.get(), size, &context, &error) != KILN_OK)
      return false;
    context_ = detail::OwnedContext(module_, std::move(block), context);
    if (!given_dims_.empty())
      api().set_dims(context_, given_dims_.data(), static_cast<uint32_t>(given_dims_.size()), nullptr);
    for (auto &[index, bound] : inputs_) {
      static constexpr int64_t kNoDims[1] = {0};
      bound.tensor.dims = !bound.is_shaped ? nullptr : bound.dims.empty() ? kNoDims : bound.dims.data();
      if (api().bind_input(context_, index, &bound.tensor, &error) != KILN_OK)
        return false;
    }
    for (auto &[index, bound] : outputs_) {
      bound.tensor.dims = nullptr; // it may be larger now than it was; its size is checked
      if (api().bind_output(context_, index, &bound.tensor, &error) != KILN_OK)
        return false;
    }
    return true;
  }

  template <typename Values>
  static KilnTensor tensor(Values &&values, std::span<const int64_t> dims) {
    using T = std::remove_cvref_t<decltype(*std::data(values))>;
    KilnTensor bound{};
    bound.data = const_cast<T *>(std::data(values));
    bound.size = std::size(values) * sizeof(T);
    bound.dtype = DtypeOf<T>::value;
    bound.rank = static_cast<uint32_t>(dims.size());
    // An empty shape is a shape too (a scalar), and not the absence of one.
    static constexpr int64_t kNoDims[1] = {0};
    bound.dims = dims.empty() ? kNoDims : dims.data();
    return bound;
  }
  template <typename Info>
  std::optional<uint32_t> find(const std::string &name, Info info_of, const char *kind,
                               KilnError &error) const {
    KilnValueInfo info{};
    for (uint32_t i = 0; info_of(module_.get(), entry_, i, &info) == KILN_OK; ++i)
      if (name == info.name)
        return i;
    error = detail::usage_error(std::string("no ") + kind + " '" + name + "'");
    return std::nullopt;
  }

  detail::ModuleHandle module_;
  detail::OwnedContext context_;
  uint32_t entry_;
  void *variables_;
  const KilnExecutor *executor_;
  std::vector<std::pair<uint32_t, Bound>> inputs_, outputs_;
  std::vector<Own> own_;
  std::vector<int64_t> given_dims_;
};

// A loaded model; copies share it. Safe to use from any number of threads.
class Module {
public:
  static std::optional<Module> try_open(const std::string &path, KilnError &error,
                                        const KilnOpenOptions *options = nullptr) {
    KilnModule *module = nullptr;
    if (api().open(path.c_str(), options, &module, &error) != KILN_OK)
      return std::nullopt;
    return Module(module);
  }
  static std::optional<Module> try_open(const KilnStaticModel &model, KilnError &error) {
    KilnModule *module = nullptr;
    if (api().open_static(&model, &module, &error) != KILN_OK)
      return std::nullopt;
    return Module(module);
  }
  // `bytes` are 64-byte aligned and outlive the module.
  static std::optional<Module> try_open(std::span<const std::byte> bytes, KilnError &error,
                                        const KilnOpenOptions *options = nullptr) {
    KilnModule *module = nullptr;
    if (api().open_memory(bytes.data(), bytes.size(), options, &module, &error) != KILN_OK)
      return std::nullopt;
    return Module(module);
  }
  std::optional<Context> try_context(const std::string &entry, const ContextOptions &options,
                                     KilnError &error) const {
    int32_t index = api().find_entry(handle(), entry.c_str());
    KilnEntryInfo info{};
    api().entry_info(handle(), static_cast<uint32_t>(index), &info);
    if (index < 0 || (!options.dims.empty() && options.dims.size() != info.symbol_count)) {
      error = detail::usage_error(
          index < 0 ? "no entry '" + entry + "'"
                    : "'" + entry + "' has " + std::to_string(info.symbol_count) +
                          " symbolic dims, not " + std::to_string(options.dims.size()));
      return std::nullopt;
    }
    KilnContextOptions plain{};
    plain.dims = options.dims.empty() ? nullptr : options.dims.data();
    plain.variables = options.variables != nullptr ? options.variables->data() : nullptr;
    plain.executor = options.executor;
    auto entry_index = static_cast<uint32_t>(index);
    size_t size = 0;
    if (api().context_size(handle(), entry_index, &plain, &size, &error) != KILN_OK)
      return std::nullopt;
    detail::Block block = detail::make_block(size, error);
    KilnContext *context = nullptr;
    if (!block || api().context_init(handle(), entry_index, &plain, block.get(), size, &context,
                                     &error) != KILN_OK)
      return std::nullopt;
    return Context(module_, std::move(block), context, entry_index, plain.variables, plain.executor);
  }
  std::optional<Variables> try_variables(KilnError &error) const {
    detail::Block block = detail::make_block(info().variables_size, error);
    if (!block || api().variables_init(handle(), block.get(), &error) != KILN_OK)
      return std::nullopt;
    return Variables(module_, std::move(block));
  }
#ifdef KILN_HAS_EXCEPTIONS
  template <typename Source>
  static Module open(const Source &source) {
    KilnError error{};
    return detail::require(try_open(source, error), error);
  }
  Context context(const std::string &entry, const ContextOptions &options = {}) const {
    KilnError error{};
    return detail::require(try_context(entry, options, error), error);
  }
  Variables variables() const {
    KilnError error{};
    return detail::require(try_variables(error), error);
  }
#endif
  KilnModuleInfo info() const {
    KilnModuleInfo info{};
    api().module_info(handle(), &info);
    return info;
  }
  KilnModule *handle() const { return module_.get(); }

private:
  explicit Module(KilnModule *module) : module_(module, api().close) {}
  detail::ModuleHandle module_;
};

} // namespace kiln::runtime
