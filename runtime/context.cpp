// Lays a context out in the caller's memory, and runs it.
#include "runtime/context.h"

#include <cstring>
#include <new>

#include "runtime/cuda/device.h"
#include "runtime/parts.h"
#include "runtime/thread_pool.h"
#include "runtime/variables.h"

namespace kiln::rt {
namespace {

using namespace package;

// Hands out aligned parts of a block; with a null block, only measures.
class Carver {
public:
  explicit Carver(void *block) : block_(static_cast<uint8_t *>(block)) {}

  template <typename T>
  T *take(uint64_t count) {
    return reinterpret_cast<T *>(take_bytes(count, sizeof(T)));
  }
  uint8_t *take_bytes(uint64_t count, uint64_t unit = 1) {
    uint64_t at = used_, bytes = 0;
    is_fine_ = is_fine_ && !__builtin_mul_overflow(count, unit, &bytes) &&
               !__builtin_add_overflow(used_, bytes, &used_) &&
               !__builtin_add_overflow(used_, uint64_t{KILN_ALIGNMENT - 1}, &used_);
    used_ = used_ / KILN_ALIGNMENT * KILN_ALIGNMENT;
    return block_ != nullptr ? block_ + at : nullptr;
  }
  uint64_t used() const { return used_; }
  bool is_fine() const { return is_fine_ && used_ <= INT64_MAX; }

private:
  uint8_t *block_;
  uint64_t used_ = 0;
  bool is_fine_ = true;
};

// The parts of a context, by what the entry needs.
struct Parts {
  KilnContext *context;
  void **args;
  Binding *bindings;
  int64_t *dims;
  int64_t *new_dims;
  int64_t *given_dims;
  int64_t *capacities;
  int64_t *sizes;
  int64_t *plan_out;
  uint8_t *arena;
  uint8_t *variables;
  uint8_t *scratch;
  uint8_t *parts;
};

// `arena_size`, or the contexts of the parts where the entry runs those.
struct Room {
  uint64_t arena_size, parts_size;
};

Parts carve(Carver &carver, const KilnModule &module, const EntryRecord &entry, Room room,
            uint64_t threads, bool has_variables) {
  uint64_t arena_size = room.arena_size;
  uint64_t args = uint64_t{entry.inputs.count} + entry.outputs.count;
  Parts parts;
  parts.context = carver.take<KilnContext>(1);
  parts.args = carver.take<void *>(args);
  parts.bindings = carver.take<Binding>(args);
  parts.dims = carver.take<int64_t>(entry.symbols.count);
  parts.new_dims = carver.take<int64_t>(entry.symbols.count);
  parts.given_dims = carver.take<int64_t>(entry.symbols.count);
  parts.capacities = carver.take<int64_t>(entry.symbols.count);
  parts.sizes = carver.take<int64_t>(entry.sizes.count);
  parts.plan_out = carver.take<int64_t>(plan_out_size(module, entry));
  parts.variables = carver.take_bytes(has_variables ? module.variables_size() : 0);
  // Kernels may read past the end of a buffer, hence also of the arena.
  parts.arena = carver.take_bytes(arena_size);
  parts.scratch = carver.take_bytes(room.parts_size != 0 ? 0 : threads, static_cast<uint64_t>(entry.scratch_size));
  parts.parts = carver.take_bytes(room.parts_size);
  carver.take_bytes(KILN_ALIGNMENT);
  return parts;
}

uint32_t thread_count(const KilnContextOptions *options) {
  return options != nullptr && options->executor != nullptr ? options->executor->threads : 1;
}

const int64_t *wanted_dims(const KilnContextOptions *options) {
  return options != nullptr ? options->dims : nullptr;
}

// The largest dims that a context is for: those of the options, or the declared upper bounds.
int32_t largest_dim(const KilnModule &module, const EntryRecord &entry, uint32_t index,
                    const KilnContextOptions *options, int64_t *dim, KilnError *error) {
  const SymbolRecord &symbol = module.manifest.symbols()[entry.symbols.first + index];
  const char *name = module.manifest.text(symbol.name);
  const int64_t *wanted = wanted_dims(options);
  // What a variable holds may grow up to its bound, whatever the caller says.
  if (symbol.variable != kNoIndex)
    wanted = nullptr;
  *dim = wanted != nullptr ? wanted[index] : symbol.max;
  bool is_capacity = symbol.otherwise >= 0;
  if (is_capacity && (wanted == nullptr || *dim < 0))
    *dim = symbol.otherwise;
  else if (wanted == nullptr && symbol.max == INT64_MAX)
    return fail(error, KILN_ERROR_UNBOUND, "the dim '", name, "' of '",
                module.manifest.text(entry.name),
                "' has no upper bound: give the largest dims in KilnContextOptions");
  if (*dim < symbol.min || *dim > symbol.max)
    return fail(error, KILN_ERROR_SHAPE, "the dim '", name, "' is ", *dim, ", outside of ",
                symbol.min, "..", symbol.max);
  return KILN_OK;
}

} // namespace

uint64_t plan_out_size(const KilnModule &module, const EntryRecord &entry) {
  uint64_t count = 1;
  for (uint32_t i = 0; i < entry.outputs.count; ++i)
    count += module.manifest.values()[entry.outputs.first + i].dims.count;
  return count;
}

int32_t largest_dims(const KilnModule &module, uint32_t index, const KilnContextOptions *options, int64_t *dims,
                     KilnError *error) {
  const EntryRecord &entry = module.manifest.entries()[index];
  for (uint32_t i = 0; i < entry.symbols.count; ++i)
    if (int32_t code = largest_dim(module, entry, i, options, &dims[i], error))
      return code;
  return KILN_OK;
}

// Runs plan() with the dims that variables hold as large as the entry's constraints allow: what a run adds
// must still fit.
int32_t plan_fullest(const KilnModule &module, uint32_t index, int64_t *dims, int64_t *out,
                     KilnError *error) {
  const EntryRecord &entry = module.manifest.entries()[index];
  const SymbolRecord *symbols = module.manifest.symbols() + entry.symbols.first;
  int64_t room = 0; // less than the bounds
  auto hold_less = [&](int64_t less) {
    for (uint32_t i = 0; i < entry.symbols.count; ++i)
      if (symbols[i].variable != kNoIndex)
        dims[i] = symbols[i].max - symbols[i].min > less ? symbols[i].max - less : symbols[i].min;
    return call_plan(module, index, dims, out, nullptr) == KILN_OK;
  };
  for (uint32_t i = 0; i < entry.symbols.count; ++i)
    if (symbols[i].variable != kNoIndex && symbols[i].max - symbols[i].min > room)
      room = symbols[i].max - symbols[i].min;
  if (room > 0 && !hold_less(0) && hold_less(room)) {
    int64_t refused = 0;
    while (room - refused > 1) {
      int64_t middle = refused + (room - refused) / 2;
      (hold_less(middle) ? room : refused) = middle;
    }
    hold_less(room);
  }
  return call_plan(module, index, dims, out, error);
}

namespace {

// Runs plan() for the largest dims without a context to keep them in: on a small stack buffer,
// which fits nearly all entries, or within the caller's memory.
int32_t largest_arena(const KilnModule &module, uint32_t index, const KilnContextOptions *options,
                      int64_t *scratch, int64_t *size, KilnError *error) {
  const EntryRecord &entry = module.manifest.entries()[index];
  if (entry.symbols.count == 0 && entry.arena_size >= 0) {
    *size = entry.arena_size;
    return KILN_OK;
  }
  if (int32_t code = largest_dims(module, index, options, scratch, error))
    return code;
  int64_t *out = scratch + entry.symbols.count;
  if (int32_t code = plan_fullest(module, index, scratch, out, error))
    return code;
  *size = out[0];
  return KILN_OK;
}

int32_t check_entry(const KilnModule *module, uint32_t entry, const char *function,
                    KilnError *error) {
  if (module == nullptr)
    return fail(error, KILN_ERROR_USAGE, function, ": null pointer");
  if (entry >= module->manifest.entry_count())
    return fail(error, KILN_ERROR_USAGE, function, ": entry ", entry, " of ",
                module->manifest.entry_count());
  return KILN_OK;
}

struct GuardedBody {
  void (*body)(void *closure, int64_t begin, int64_t end);
  void *closure;
  FpMode mode;
};

void run_guarded(void *closure, int64_t begin, int64_t end) {
  auto *guarded = static_cast<GuardedBody *>(closure);
  FpScope scope(guarded->mode);
  guarded->body(guarded->closure, begin, end);
}

void serve_parallel_for(void *self, int64_t n, void (*body)(void *, int64_t, int64_t),
                        void *closure) {
  auto *context = static_cast<KilnContext *>(self);
  if (n <= 0)
    return;
  if (n == 1 || context->executor.parallel_for == nullptr) {
    body(closure, 0, n);
    return;
  }
  GuardedBody guarded{body, closure, context->fp_mode};
  context->executor.parallel_for(context->executor.self, n, run_guarded, &guarded);
}

void serve_after_kernel(void *self, int32_t kernel) {
  auto *context = static_cast<KilnContext *>(self);
  if (context->hook != nullptr)
    context->hook(context->hook_self, context->called_index, context->first_kernel + static_cast<uint32_t>(kernel));
}

// A size that does not fit: in a capacity that can be larger, or in a bound that cannot.
int32_t fail_with_size(KilnContext *context, KilnError *error) {
  const Manifest &manifest = context->module->manifest;
  const EntryRecord &entry = *context->entry;
  const char *name = manifest.text(entry.name);
  auto index = static_cast<uint32_t>(context->frame.trap_index);
  int64_t value = context->frame.trap_value;
  if (index >= entry.sizes.count)
    return fail(error, KILN_ERROR_TRAP, "'", name, "' stopped: a size found in the data exceeds its bound");
  const SymbolRecord &size = manifest.symbols()[entry.sizes.first + index];
  if (value < 0 || size.otherwise < 0)
    return fail(error, KILN_ERROR_TRAP, "'", name, "' stopped: the size '", manifest.text(size.name), "' is ",
                value, value < 0 ? ", less than nothing" : ", more than its bound");
  const SymbolRecord &capacity = manifest.symbols()[entry.symbols.first + static_cast<uint32_t>(size.otherwise)];
  if (value > capacity.max)
    return fail(error, KILN_ERROR_TRAP, "'", name, "' stopped: the size '", manifest.text(size.name), "' is ",
                value, ", and '", manifest.text(capacity.name), "' can be ", capacity.max, " at most");
  context->needed = value;
  context->needed_dim = size.otherwise;
  return fail(error, KILN_ERROR_CAPACITY, "'", name, "' stopped: the size '", manifest.text(size.name), "' is ",
              value, ", and there is room for ", context->dims[size.otherwise], ": make the context with '",
              manifest.text(capacity.name), "' = ", value, " at least");
}

} // namespace

int32_t fail_with_trap(KilnContext *context, int32_t trap, KilnError *error) {
  if (trap == KILN_TRAP_SIZE) {
    int32_t code = fail_with_size(context, error);
    locate(*context->module, *context->entry, context->frame.trap_kernel, error);
    return code;
  }
  auto constraint = static_cast<uint32_t>(context->frame.trap_index);
  if (trap == KILN_TRAP_UNEQUAL && constraint < context->entry->constraints.count) {
    const Manifest &manifest = context->module->manifest;
    fail(error, KILN_ERROR_TRAP, "'", manifest.text(context->entry->name), "' stopped: sizes found in the data differ: ",
         manifest.text(manifest.constraints()[context->entry->constraints.first + constraint]));
    locate(*context->module, *context->entry, context->frame.trap_kernel, error);
    return KILN_ERROR_TRAP;
  }
  const char *reason = trap == KILN_TRAP_DIVIDE_BY_ZERO ? "an integer was divided by zero"
                       : trap == KILN_TRAP_INDEX        ? "an index was out of range"
                                                : "it stopped for an unknown reason";
  fail(error, KILN_ERROR_TRAP, "'", context->module->manifest.text(context->entry->name),
       "' stopped: ", reason);
  locate(*context->module, *context->entry, context->frame.trap_kernel, error);
  return KILN_ERROR_TRAP;
}

namespace {

// Room for the dims and the results of plan() while there is no context yet.
constexpr uint64_t kScratch = 1024;

int32_t measure(const KilnModule &module, uint32_t index, const KilnContextOptions *options,
                uint64_t *arena_size, KilnError *error) {
  const EntryRecord &entry = module.manifest.entries()[index];
  int64_t scratch[kScratch];
  if (entry.symbols.count + plan_out_size(module, entry) > kScratch)
    return fail(error, KILN_ERROR_FORMAT, "'", module.manifest.text(entry.name), "' has more than ",
                kScratch, " symbolic and output dims");
  int64_t size = 0;
  if (int32_t code = largest_arena(module, index, options, scratch, &size, error))
    return code;
  *arena_size = static_cast<uint64_t>(size);
  return KILN_OK;
}

int32_t find_room(const KilnModule &module, uint32_t index, const KilnContextOptions *options, Room *room, KilnError *error) {
  *room = {};
  return is_parted(module, module.manifest.entries()[index]) ? parts_size(module, index, options, &room->parts_size, error)
                                                             : measure(module, index, options, &room->arena_size, error);
}

} // namespace

int32_t call_plan(const KilnModule &module, uint32_t index, const int64_t *dims, int64_t *out,
                  KilnError *error) {
  const EntryRecord &entry = module.manifest.entries()[index];
  const char *name = module.manifest.text(entry.name);
  int32_t broken = module.plan(index)(dims, out);
  if (broken != 0) {
    auto constraint = static_cast<uint32_t>(broken) - 1;
    const char *text =
        constraint < entry.constraints.count
            ? module.manifest.text(
                  module.manifest.constraints()[entry.constraints.first + constraint])
            : "a constraint without a name";
    return fail(error, KILN_ERROR_SHAPE, "'", name, "' cannot run with the dims ",
                Dims{dims, entry.symbols.count}, ": ", text);
  }
  uint64_t count = plan_out_size(module, entry);
  for (uint64_t i = 0; i < count; ++i)
    if (out[i] < 0)
      return fail(error, KILN_ERROR_SHAPE, "'", name, "' cannot run with the dims ",
                  Dims{dims, entry.symbols.count}, ": a size overflows");
  return KILN_OK;
}

int32_t context_size(const KilnModule *module, uint32_t called, const KilnContextOptions *options,
                     size_t *size, KilnError *error) {
  if (int32_t code = check_entry(module, called, "context_size", error))
    return code;
  if (size == nullptr)
    return fail(error, KILN_ERROR_USAGE, "context_size: null pointer");
  if (thread_count(options) == 0)
    return fail(error, KILN_ERROR_USAGE,
                "context_size: the executor says that it has no thread; 1 is the least");
  return size_of_entry(module, code_entry(*module, called), options, size, error);
}

int32_t size_of_entry(const KilnModule *module, uint32_t index, const KilnContextOptions *options, size_t *size,
                      KilnError *error) {
  Room room;
  if (int32_t code = find_room(*module, index, options, &room, error))
    return code;
  Carver carver(nullptr);
  bool has_variables = options == nullptr || options->variables == nullptr;
  carve(carver, *module, module->manifest.entries()[index], room, thread_count(options),
        has_variables);
  if (!carver.is_fine())
    return fail(error, KILN_ERROR_SHAPE, "'",
                module->manifest.text(module->manifest.entries()[index].name),
                "' needs more memory than there can be");
  *size = carver.used();
  return KILN_OK;
}

int32_t context_init(const KilnModule *module, uint32_t called, const KilnContextOptions *options,
                     void *memory, size_t size, KilnContext **context, KilnError *error) {
  if (context == nullptr || memory == nullptr)
    return fail(error, KILN_ERROR_USAGE, "context_init: null pointer");
  *context = nullptr;
  size_t needed = 0;
  if (int32_t code = context_size(module, called, options, &needed, error))
    return code;
  uint32_t index = code_entry(*module, called);
  if (size < needed || reinterpret_cast<uintptr_t>(memory) % KILN_ALIGNMENT != 0)
    return fail(error, KILN_ERROR_USAGE, "context_init: ", needed,
                " bytes aligned to 64 are needed, ", uint64_t{size}, " are given",
                size < needed ? "" : ", not aligned");
  const EntryRecord &entry = module->manifest.entries()[index];
  bool is_placed = (entry.flags & kEntryOnDevice) != 0 || entry.parts.count != 0;
  if (is_placed && module->device == nullptr && !module->wants_cpu) {
    const char *reason = module->device_error != nullptr ? module->device_error->message : "a linked model has no code for a GPU";
    fail(error, KILN_ERROR_DEVICE, "'", module->manifest.text(entry.name), "' computes on cuda, as its program says: ", reason,
         "; the device cpu computes ", entry.parts.count != 0 ? "all of " : "", "it on the processor");
    return module->device_error != nullptr ? module->device_error->code : int32_t{KILN_ERROR_DEVICE};
  }
  void *shared = options != nullptr ? options->variables : nullptr;
  if (reinterpret_cast<uintptr_t>(shared) % KILN_ALIGNMENT != 0)
    return fail(error, KILN_ERROR_USAGE, "context_init: the variables are not aligned to 64 bytes");
  return init_entry(module, index, called, is_on_device(*module, entry), nullptr, options, memory, context, error);
}

int32_t init_entry(const KilnModule *module, uint32_t index, uint32_t called, bool is_on_device, const PartLink *link,
                   const KilnContextOptions *options, void *memory, KilnContext **context, KilnError *error) {
  const EntryRecord &entry = module->manifest.entries()[index];
  void *shared = options != nullptr ? options->variables : nullptr;
  Room room;
  if (int32_t code = find_room(*module, index, options, &room, error))
    return code;
  Carver carver(memory);
  Parts parts =
      carve(carver, *module, entry, room, thread_count(options), shared == nullptr);
  uint64_t args = uint64_t{entry.inputs.count} + entry.outputs.count;
  auto *made = ::new (parts.context) KilnContext();
  made->module = module;
  made->entry = &entry;
  made->entry_index = index;
  made->called_index = called;
  made->fp_mode = fp_mode((module->manifest.header().flags & kManifestKeepDenormals) != 0);
  made->args = parts.args;
  made->bindings = parts.bindings;
  made->dims = parts.dims;
  made->new_dims = parts.new_dims;
  made->given_dims = parts.given_dims;
  made->capacities = parts.capacities;
  made->sizes = parts.sizes;
  made->needed = -1;
  made->plan_out = parts.plan_out;
  made->arena_size = room.arena_size;
  made->link = link;
  std::memset(parts.args, 0, args * sizeof *parts.args);
  std::memset(parts.bindings, 0, args * sizeof *parts.bindings);
  for (uint32_t i = 0; i < entry.symbols.count; ++i) {
    made->dims[i] = made->given_dims[i] = made->capacities[i] = -1;
    made->has_held_dims |= module->manifest.symbols()[entry.symbols.first + i].variable != kNoIndex;
    if (module->manifest.symbols()[entry.symbols.first + i].otherwise < 0)
      continue;
    if (int32_t code = largest_dim(*module, entry, i, options, &made->capacities[i], error))
      return code;
    made->given_dims[i] = made->capacities[i];
  }
  if (options != nullptr && options->executor != nullptr)
    made->executor = *options->executor;
  made->services = {KILN_ENTRY_ABI, thread_count(options), made, serve_parallel_for, nullptr};
  uint8_t *variables = shared != nullptr ? static_cast<uint8_t *>(shared) : parts.variables;
  if (module->variables_size() == 0)
    variables = nullptr;
  made->has_own_variables = shared == nullptr && variables != nullptr;
  made->frame = {&made->services, made->args, made->dims, parts.arena,
                 module->weights, variables,  0,          0,
                 parts.scratch,   entry.scratch_size, parts.sizes, 0, 0, 0};
  *context = made;
  if (shared == nullptr && variables != nullptr)
    if (int32_t code = variables_init(module, variables, error))
      return code;
  if (room.parts_size != 0) {
    int32_t code = make_parts(made, options, parts.parts, error);
    if (code != KILN_OK)
      context_end(made);
    return code;
  }
  made->is_on_device = is_on_device;
  if (!made->is_on_device)
    return KILN_OK;
  int32_t code = make_device_context(made, error);
  if (code != KILN_OK)
    context_end(made);
  return code;
}

void *context_variables(KilnContext *context) {
  if (context == nullptr)
    return nullptr;
  if (context->frame.variables != nullptr) {
    if (pull_variables(context->module, kAllVariables, context->frame.variables, nullptr) != KILN_OK)
      return nullptr;
    touch_variables(context->module, kAllVariables, context->frame.variables);
  }
  return context->frame.variables;
}

void context_end(KilnContext *context) {
  if (context == nullptr)
    return;
  end_parts(context);
  end_device_context(context);
  if (context->has_own_variables)
    forget_variables(context->module, context->frame.variables);
}

namespace {

// Everything that a run needs is bound and fits.
int32_t prepare(KilnContext *context, KilnError *error) {
  if (context->has_held_dims)
    if (int32_t code = pull_held_dims(context, error))
      return code;
  if (context->is_checked && !context->has_held_dims)
    return KILN_OK;
  if (int32_t code = resolve_dims(context, error))
    return code;
  return context->is_checked ? int32_t{KILN_OK} : check_bindings(context, error);
}

} // namespace

int32_t run_on_host(KilnContext *context, int32_t *trap, KilnError *error) {
  // Other entries may have changed the variables on a device.
  if (context->frame.variables != nullptr)
    if (int32_t code = pull_variables(context->module, context->entry_index, context->frame.variables, error))
      return code;
  FpScope scope(context->fp_mode);
  *trap = context->module->run(context->entry_index)(&context->frame);
  if ((context->entry->flags & kEntryWritesVariables) != 0)
    touch_variables(context->module, context->entry_index, context->frame.variables);
  return KILN_OK;
}

void begin_run(KilnContext *context) {
  context->frame.trap = 0;
  context->frame.trap_kernel = -1;
  context->has_run = false;
  context->needed = -1;
  context->trap = 0;
  context->frame.hand_over = hand_over(context->executor);
  context->services.after_kernel = context->hook != nullptr ? serve_after_kernel : nullptr;
}

int32_t start(KilnContext *context, KilnError *error) {
  if (context == nullptr)
    return fail(error, KILN_ERROR_USAGE, "start: null pointer");
  if (context->is_under_way)
    return fail(error, KILN_ERROR_USAGE, "start: a run is under way, and has to be finished first");
  if (int32_t code = prepare(context, error))
    return code;
  begin_run(context);
  bool is_sent = context->is_sent;
  context->is_sent = false;
  if (int32_t code = context->parts != nullptr ? start_parts(context, is_sent, error)
                     : context->is_on_device   ? start_on_device(context, is_sent, &context->trap, error)
                                               : run_on_host(context, &context->trap, error))
    return code;
  context->is_under_way = true;
  context->plans_of_run = context->plans;
  return KILN_OK;
}

int32_t send(KilnContext *context, KilnError *error) {
  if (context == nullptr)
    return fail(error, KILN_ERROR_USAGE, "send: null pointer");
  // Where dims are values of variables, the run that computes may still change them.
  if ((!context->is_on_device && context->parts == nullptr) || context->has_held_dims)
    return KILN_OK;
  if (int32_t code = prepare(context, error))
    return code;
  if (int32_t code = context->parts != nullptr ? send_parts(context, error) : send_to_device(context, error))
    return code;
  context->is_sent = true;
  return KILN_OK;
}

int32_t finish(KilnContext *context, KilnError *error) {
  if (context == nullptr)
    return fail(error, KILN_ERROR_USAGE, "finish: null pointer");
  if (!context->is_under_way)
    return fail(error, KILN_ERROR_USAGE, "finish: no run was started");
  context->is_under_way = false;
  if (context->is_on_device)
    if (int32_t code = finish_on_device(context, &context->trap, error))
      return code;
  if (context->parts != nullptr)
    if (int32_t code = finish_parts(context, error))
      return code;
  context->has_run = context->trap == 0 && context->plans == context->plans_of_run;
  return context->trap == 0 ? KILN_OK : fail_with_trap(context, context->trap, error);
}

int32_t run(KilnContext *context, KilnError *error) {
  if (context == nullptr)
    return fail(error, KILN_ERROR_USAGE, "run: null pointer");
  if (context->is_under_way)
    return fail(error, KILN_ERROR_USAGE, "run: a run is under way, and has to be finished first");
  if (int32_t code = start(context, error))
    return code;
  return finish(context, error);
}

int32_t grown_dims(KilnContext *context, int64_t *dims, KilnError *error) {
  if (context == nullptr || dims == nullptr)
    return fail(error, KILN_ERROR_USAGE, "grown_dims: null pointer");
  if (context->needed < 0)
    return fail(error, KILN_ERROR_USAGE, "grown_dims: the last run lacked no capacity");
  for (uint32_t i = 0; i < context->entry->symbols.count; ++i)
    dims[i] = context->dims[i];
  dims[context->needed_dim] = context->needed;
  return KILN_OK;
}

} // namespace kiln::rt
