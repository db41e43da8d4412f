// Runs an entry on a device: arguments through pinned memory, steps by the section's tree, and the whole of it
// as one CUDA graph, recorded once for each set of dims. Dims that change from run to run (a cache that grows) are not worth
// a graph each: after one that was launched once, steps are sent one by one until the same dims come twice in a row.
//
// A run of a graph that is recorded asks the driver for one launch and one wait. What it copies is one piece each way:
// inputs and the words for traps, which are zeros; those words and the outputs.
//
// There are two sets of memory for arguments, so that inputs can be sent for the next run, on a stream of their
// own, while one computes: the first run that is sent ahead makes the second set.
//
// Where the host has to know a value before it can go on (a condition, a size found in the data) there is no
// graph: the steps are sent one by one, and the host waits for what it reads.
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "runtime/context.h"
#include "runtime/cuda/device.h"
#include "runtime/parts.h"

namespace kiln::rt {

using namespace package;

// Arguments on the device: inputs, then a word for each position of the plan in which a kernel leaves its trap, then outputs.
struct ArgumentSet {
  DeviceAddress arguments;
  uint64_t size;      // of `arguments` and of `staging`
  uint8_t *staging;   // pinned, laid out as the arguments; behind them 8 bytes for values read back
  uint64_t *offsets;  // of each argument
  uint64_t traps, end; // where the words for traps begin, and the outputs end
  void *graphs[2];    // ready to launch, for graph_dims; null. The second one does not send the inputs
  int64_t *graph_dims[2];
  uint32_t launches[2]; // of the graph that was recorded last
};

struct RunningOutput {
  void *to;
  uint64_t size, offset;
};

struct DeviceContext {
  DeviceContext *next;
  void *stream;
  bool has_other_stream;             // another context's, which outlives this one
  const BorderPlace *places;         // of a part: where its arguments are; null
  DeviceAddress borders;             // of all parts, where this is the first of them
  uint8_t *pinned_borders;
  DeviceAddress arena, scratch;
  ArgumentSet sets[2];
  ArgumentSet *set;   // of the run that is under way, or was last
  ArgumentSet *sent;  // what send_to_device() has filled; null
  void *sending;      // the stream for that
  void *is_there;     // the event after it
  RunningOutput *outputs; // of the run that is under way
  uint32_t trap_count;
  VariablesMirror *mirror; // null where the model has no variables
  bool writes_variables, is_under_way;
  int64_t *slots;
  int64_t *last_dims; // of the run before
};

namespace {

constexpr uint64_t kArgumentAlignment = 256;

struct alignas(64) TensorMap { // CUtensorMap
  uint8_t bytes[128];
};

uint64_t align_up(uint64_t size) { return (size + kArgumentAlignment - 1) / kArgumentAlignment * kArgumentAlignment; }

const DeviceEntryRecord &entry_of(const KilnContext &context) {
  return context.module->device->section.entries()[context.entry_index];
}

// Whether an argument is not the caller's.
bool is_border(const KilnContext &context, uint32_t argument) {
  const BorderPlace *places = context.device->places;
  return places != nullptr && places[argument].is_border;
}

// An argument's memory on the device and pinned, for what lies in `set`; no pinned memory where nothing is copied.
BorderPlace place_of(const KilnContext &context, const ArgumentSet &set, uint32_t argument) {
  if (is_border(context, argument))
    return context.device->places[argument];
  return {false, true, set.arguments + set.offsets[argument], set.staging + set.offsets[argument]};
}

uint64_t trap_bytes(const KilnContext &context) { return context.device->trap_count * sizeof(int32_t); }
int32_t *trap_words(const ArgumentSet &set) { return reinterpret_cast<int32_t *>(set.staging + set.traps); }

int32_t send_arguments(const KilnContext &context, const ArgumentSet &set, void *stream, KilnError *error) {
  const Driver &driver = *context.module->device->driver;
  if (int answer = driver.cuMemcpyHtoDAsync_v2(set.arguments, set.staging, set.traps + trap_bytes(context), stream))
    return fail_driver(driver, "cuMemcpyHtoDAsync", answer, error);
  return KILN_OK;
}

// What one run does, captured or at once.
class Walker {
public:
  Walker(KilnContext *context, bool waits_after_each, KilnError *error)
      : context_(*context), device_(*context->module->device), on_(*context->device), driver_(*device_.driver),
        section_(device_.section), waits_(waits_after_each), error_(error) {}

  int32_t trap() const { return trap_; }

  // The caller's inputs, unless that is done, and what other parts have made on the processor.
  int32_t send_inputs(bool are_sent) {
    if (int32_t code = are_sent ? int32_t{KILN_OK} : send_arguments(context_, *on_.set, on_.stream, error_))
      return code;
    for (uint32_t i = 0; i < context_.entry->inputs.count; ++i) {
      if (!is_border(context_, i))
        continue;
      const BorderPlace &place = on_.places[i];
      if (uint64_t size = place.is_copied ? context_.bindings[i].needed : 0)
        if (int answer = driver_.cuMemcpyHtoDAsync_v2(place.device, place.pinned, size, on_.stream))
          return fail_driver(driver_, "cuMemcpyHtoDAsync", answer, error_);
    }
    return KILN_OK;
  }

  int32_t fetch_outputs() {
    for (uint32_t i = 0; i < context_.entry->outputs.count; ++i) {
      uint32_t at = context_.entry->inputs.count + i;
      if (!is_border(context_, at))
        continue;
      const BorderPlace &place = on_.places[at];
      if (uint64_t size = place.is_copied ? context_.bindings[at].needed : 0)
        if (int answer = driver_.cuMemcpyDtoHAsync_v2(place.pinned, place.device, size, on_.stream))
          return fail_driver(driver_, "cuMemcpyDtoHAsync", answer, error_);
    }
    return fetch(on_.set->end - on_.set->traps);
  }

  int32_t walk(uint32_t begin, uint32_t end) {
    for (uint32_t s = begin; s < end && trap_ == 0; s = section_.steps()[s].end)
      if (int32_t code = step(s, section_.steps()[s]))
        return code;
    return KILN_OK;
  }

private:
  // The words for traps, and what comes behind them.
  int32_t fetch(uint64_t size) {
    const ArgumentSet &set = *on_.set;
    if (int answer = driver_.cuMemcpyDtoHAsync_v2(set.staging + set.traps, set.arguments + set.traps, size, on_.stream))
      return fail_driver(driver_, "cuMemcpyDtoHAsync", answer, error_);
    return KILN_OK;
  }

  DeviceAddress address(const DeviceBufferRecord &buffer) const {
    int64_t offset = section_.evaluate(buffer.offset, on_.slots);
    DeviceAddress base = buffer.kind == DeviceBufferKind::Argument ? place_of(context_, *on_.set, buffer.argument).device
                         : buffer.kind == DeviceBufferKind::Weight ? device_.weights
                         : buffer.kind == DeviceBufferKind::Arena  ? on_.arena
                                                                   : (on_.mirror != nullptr ? on_.mirror->memory : 0);
    return base + static_cast<uint64_t>(offset);
  }

  // Waits for a value that a step depends on, and for the traps before it.
  int32_t read_back(const DeviceBufferRecord &buffer, uint32_t size, int64_t *value) {
    uint8_t *place = on_.set->staging + on_.set->end;
    if (int answer = driver_.cuMemcpyDtoHAsync_v2(place, address(buffer), size, on_.stream))
      return fail_driver(driver_, "cuMemcpyDtoHAsync", answer, error_);
    if (int32_t code = fetch(trap_bytes(context_)))
      return code;
    if (int answer = driver_.cuStreamSynchronize(on_.stream))
      return fail_driver(driver_, "cuStreamSynchronize", answer, error_);
    *value = 0;
    std::memcpy(value, place, size);
    for (uint32_t i = 0; i < on_.trap_count; ++i)
      if (int32_t trap = trap_words(*on_.set)[i]; trap != 0)
        stop(trap, static_cast<int32_t>(i));
    return KILN_OK;
  }

  void stop(int32_t trap, int32_t position) {
    if (trap_ != 0)
      return;
    trap_ = trap;
    context_.frame.trap = trap;
    context_.frame.trap_kernel = position;
  }

  int32_t branch(uint32_t s, const DeviceStepRecord &step, bool is_taken) {
    return is_taken ? walk(s + 1, step.middle) : walk(step.middle, step.end);
  }

  int32_t step(uint32_t s, const DeviceStepRecord &step) {
    int64_t value = 0;
    switch (step.kind) {
    case DeviceStepKind::Launch:
      return launch(step);
    case DeviceStepKind::If:
      if (int32_t code = read_back(section_.buffers()[step.buffers.first], 1, &value))
        return code;
      return trap_ != 0 ? KILN_OK : branch(s, step, value != 0);
    case DeviceStepKind::Form:
      return branch(s, step, section_.evaluate(step.a, on_.slots) == 1);
    case DeviceStepKind::While:
      for (;;) {
        if (int32_t code = walk(s + 1, step.middle))
          return code;
        if (int32_t code = read_back(section_.buffers()[step.buffers.first], 1, &value))
          return code;
        if (trap_ != 0 || value == 0)
          return KILN_OK;
        if (int32_t code = walk(step.middle, step.end))
          return code;
      }
    case DeviceStepKind::Loop:
      for (int64_t i = 0, count = section_.evaluate(step.a, on_.slots); i < count && trap_ == 0; ++i) {
        on_.slots[step.slot] = i;
        if (int32_t code = walk(s + 1, step.end))
          return code;
      }
      return KILN_OK;
    case DeviceStepKind::Bind: {
      if (int32_t code = read_back(section_.buffers()[step.buffers.first], sizeof value, &value))
        return code;
      int64_t bound = section_.evaluate(step.a, on_.slots);
      if (trap_ == 0 && (value < 0 || value > bound)) {
        stop(KILN_TRAP_SIZE, step.position);
        context_.frame.trap_index = static_cast<int32_t>(step.index);
        context_.frame.trap_value = value;
      }
      on_.slots[step.slot] = value;
      if (trap_ == 0)
        context_.sizes[step.index] = value;
      return KILN_OK;
    }
    case DeviceStepKind::Require:
      if (section_.evaluate(step.a, on_.slots) != section_.evaluate(step.b, on_.slots)) {
        stop(KILN_TRAP_UNEQUAL, step.position);
        context_.frame.trap_index = static_cast<int32_t>(step.index);
      }
      return KILN_OK;
    }
    return KILN_OK;
  }

  int32_t launch(const DeviceStepRecord &step) {
    const DeviceFunctionRecord &f = section_.functions()[step.function];
    int64_t blocks = section_.evaluate(step.a, on_.slots);
    int64_t values[2 * kMaxDeviceArguments + 2];
    void *arguments[2 * kMaxDeviceArguments + 2 + kMaxDeviceMaps];
    TensorMap maps[kMaxDeviceMaps];
    uint32_t count = 0;
    auto add = [&](int64_t value) {
      values[count] = value;
      arguments[count] = &values[count];
      ++count;
    };
    for (uint32_t i = 0; i < step.buffers.count; ++i)
      add(static_cast<int64_t>(address(section_.buffers()[step.buffers.first + i])));
    for (uint32_t i = 0; i < step.dims.count; ++i)
      add(section_.evaluate(section_.lists()[step.dims.first + i], on_.slots));
    if (f.scratch_bytes != 0)
      add(static_cast<int64_t>(on_.scratch));
    // The first argument of a joined one is all that follows in `values`. Code that is not joined, whatever the section says, finds as many.
    add(f.is_joined != 0 ? 0 : static_cast<int64_t>(on_.set->arguments + on_.set->traps + static_cast<uint64_t>(step.position) * sizeof(int32_t)));
    int64_t most = f.scratch_bytes != 0 ? int64_t{f.scratch_blocks} : int64_t{0x7fffffff};
    if (int64_t turns = int64_t{device_.multiprocessors} * f.resident; turns > 0 && turns < most)
      most = turns;
    if (blocks > 0) {
      for (uint32_t i = 0; i < f.maps; ++i) {
        if (int answer = make_map(step, section_.maps()[step.maps + i], &maps[i]))
          return fail_at(step, "cuTensorMapEncodeTiled", answer);
        arguments[count + i] = &maps[i];
      }
      int answer = driver_.cuLaunchKernel(device_.functions[step.function], static_cast<unsigned>(blocks < most ? blocks : most), 1, 1,
                                          f.threads, 1, 1, f.shared_bytes, on_.stream, arguments, nullptr);
      if (answer != 0)
        return fail_at(step, "cuLaunchKernel", answer);
    }
    if (!waits_)
      return KILN_OK;
    if (int answer = driver_.cuStreamSynchronize(on_.stream))
      return fail_at(step, "cuStreamSynchronize", answer);
    if (context_.hook == nullptr || step.completed.count == 0)
      return KILN_OK;
    if (secure_getenv("KILN_CUDA_VALUES") != nullptr)
      if (int32_t code = show_values())
        return code;
    for (uint32_t i = 0; i < step.completed.count; ++i)
      context_.hook(context_.hook_self, context_.called_index, context_.first_kernel + section_.lists()[step.completed.first + i]);
    return KILN_OK;
  }

  int make_map(const DeviceStepRecord &step, const DeviceMapRecord &map, TensorMap *out) const {
    uint64_t sizes[5], strides[4] = {};
    uint32_t steps[5];
    for (uint32_t i = 0; i < map.rank; ++i) {
      // Of nothing nothing is copied, but the driver wants something.
      int64_t size = section_.evaluate(map.sizes[i], on_.slots);
      if (size > INT32_MAX) // coordinates have 32 bits, with a sign
        return kErrorInvalidValue;
      sizes[i] = size > 0 ? static_cast<uint64_t>(size) : 1;
      steps[i] = 1;
      if (i > 0)
        strides[i - 1] = static_cast<uint64_t>(section_.evaluate(map.strides[i - 1], on_.slots));
    }
    DeviceAddress base = address(section_.buffers()[step.buffers.first + map.buffer]) + static_cast<uint64_t>(section_.evaluate(map.offset, on_.slots));
    int type = map.element == 1 ? kMapBytes1 : map.element == 2 ? kMapBytes2 : kMapBytes4;
    return driver_.cuTensorMapEncodeTiled(out, type, map.rank, reinterpret_cast<void *>(base), sizes, strides, map.box, steps, kMapNotInterleaved, kMapSwizzle128,
                                          kMapFetches256, kMapZeroOutside);
  }

  // For who compares what kernels leave: the host's arena and outputs become what the device has.
  int32_t show_values() {
    int answer = driver_.cuMemcpyDtoH_v2(context_.frame.arena, on_.arena, context_.arena_size);
    for (uint32_t i = 0; answer == 0 && i < context_.entry->outputs.count; ++i) {
      const Binding &binding = context_.bindings[context_.entry->inputs.count + i];
      if (binding.needed != 0)
        answer = driver_.cuMemcpyDtoH_v2(binding.data, place_of(context_, *on_.set, context_.entry->inputs.count + i).device, binding.needed);
    }
    return answer == 0 ? KILN_OK : fail_driver(driver_, "cuMemcpyDtoH", answer, error_);
  }

  int32_t fail_at(const DeviceStepRecord &step, const char *call, int answer) {
    fail_driver(driver_, call, answer, error_);
    locate(*context_.module, *context_.entry, step.position, error_);
    return KILN_ERROR_DEVICE;
  }

  KilnContext &context_;
  Device &device_;
  DeviceContext &on_;
  const Driver &driver_;
  const DeviceSection &section_;
  bool waits_;
  KilnError *error_;
  int32_t trap_ = 0;
};

void drop_graphs(const Driver &driver, ArgumentSet &set) {
  for (void *&graph : set.graphs) {
    if (graph != nullptr)
      driver.cuGraphExecDestroy(graph);
    graph = nullptr;
  }
}

void free_arguments(const Driver &driver, ArgumentSet &set) {
  drop_graphs(driver, set);
  if (set.arguments != 0)
    driver.cuMemFree_v2(set.arguments);
  if (set.staging != nullptr)
    driver.cuMemFreeHost(set.staging);
  set.arguments = 0;
  set.staging = nullptr;
  set.size = 0;
}

// Where each argument lies; grows the memory for them.
int32_t place_arguments(KilnContext *context, ArgumentSet &set, KilnError *error) {
  const Driver &driver = *context->module->device->driver;
  uint64_t size = 0;
  for (uint32_t i = 0; i < context->entry->inputs.count + context->entry->outputs.count; ++i) {
    if (i == context->entry->inputs.count) {
      set.traps = size;
      size += align_up(trap_bytes(*context));
    }
    set.offsets[i] = size;
    size += is_border(*context, i) ? 0 : align_up(context->bindings[i].needed + KILN_ALIGNMENT);
  }
  if (context->entry->outputs.count == 0) {
    set.traps = size;
    size += align_up(trap_bytes(*context));
  }
  set.end = size;
  size += kArgumentAlignment;
  if (size <= set.size)
    return KILN_OK;
  if (set.size != 0) // what has grown once will grow again
    size += size / 2;
  free_arguments(driver, set);
  KILN_DRIVER_TRY(driver, cuMemAlloc_v2, &set.arguments, size);
  void *staging = nullptr;
  KILN_DRIVER_TRY(driver, cuMemAllocHost_v2, &staging, size);
  set.staging = static_cast<uint8_t *>(staging);
  set.size = size;
  return KILN_OK;
}

void stage_inputs(const KilnContext &context, const ArgumentSet &set) {
  for (uint32_t i = 0; i < context.entry->inputs.count; ++i)
    if (context.bindings[i].needed != 0 && !is_border(context, i))
      std::memcpy(set.staging + set.offsets[i], context.bindings[i].data, context.bindings[i].needed);
  std::memset(trap_words(set), 0, trap_bytes(context));
}

// The copies of an earlier send() are no longer under way.
int32_t wait_for_sent(KilnContext *context, KilnError *error) {
  DeviceContext *on = context->device;
  if (on->sent == nullptr)
    return KILN_OK;
  on->sent = nullptr;
  KILN_DRIVER_TRY(*context->module->device->driver, cuStreamSynchronize, on->sending);
  return KILN_OK;
}

bool has_dims(const KilnContext &context, const int64_t *dims) {
  return std::memcmp(dims, context.dims, context.entry->symbols.count * sizeof(int64_t)) == 0;
}

bool is_recorded(const KilnContext &context, bool is_sent) {
  const ArgumentSet &set = *context.device->set;
  return set.graphs[is_sent] != nullptr && has_dims(context, set.graph_dims[is_sent]);
}

bool is_worth_a_graph(const KilnContext &context, bool is_sent) {
  return context.device->set->launches[is_sent] != 1 || has_dims(context, context.device->last_dims);
}

int32_t walk_all(KilnContext *context, bool is_sent, Walker &walker) {
  const DeviceEntryRecord &entry = entry_of(*context);
  if (int32_t code = walker.send_inputs(is_sent))
    return code;
  if (int32_t code = walker.walk(entry.steps.first, entry.steps.first + entry.steps.count))
    return code;
  return walker.fetch_outputs();
}

int32_t record(KilnContext *context, bool is_sent, int32_t *trap, KilnError *error) {
  DeviceContext *on = context->device;
  const Driver &driver = *context->module->device->driver;
  void *&recorded = on->set->graphs[is_sent];
  if (recorded != nullptr)
    driver.cuGraphExecDestroy(recorded);
  recorded = nullptr;
  on->set->launches[is_sent] = 0;
  KILN_DRIVER_TRY(driver, cuStreamBeginCapture_v2, on->stream, kCaptureOfThread);
  Walker walker(context, false, error);
  int32_t code = walk_all(context, is_sent, walker);
  void *graph = nullptr;
  int answer = driver.cuStreamEndCapture(on->stream, &graph);
  *trap = walker.trap();
  if (code == KILN_OK && answer != 0)
    code = fail_driver(driver, "cuStreamEndCapture", answer, error);
  if (code == KILN_OK && *trap == 0 && (answer = driver.cuGraphInstantiateWithFlags(&recorded, graph, 0)) != 0) {
    recorded = nullptr;
    code = fail_driver(driver, "cuGraphInstantiateWithFlags", answer, error);
  }
  if (graph != nullptr)
    driver.cuGraphDestroy(graph);
  std::memcpy(on->set->graph_dims[is_sent], context->dims, context->entry->symbols.count * sizeof(int64_t));
  return code;
}

} // namespace

int32_t make_device_context(KilnContext *context, KilnError *error) {
  Device *device = context->module->device;
  const Driver &driver = *device->driver;
  const DeviceEntryRecord &entry = entry_of(*context);
  uint64_t args = uint64_t{context->entry->inputs.count} + context->entry->outputs.count, dims = context->entry->symbols.count;
  uint64_t outputs = context->entry->outputs.count;
  auto *on = static_cast<DeviceContext *>(
      std::calloc(1, sizeof(DeviceContext) + (2 * args + 5 * dims + entry.slots + 1) * 8 + outputs * sizeof(RunningOutput)));
  if (on == nullptr)
    return fail(error, KILN_ERROR_MEMORY, "out of memory");
  on->slots = reinterpret_cast<int64_t *>(on + 1);
  int64_t *next = on->slots + entry.slots + 1;
  for (ArgumentSet &set : on->sets) {
    set.offsets = reinterpret_cast<uint64_t *>(next);
    set.graph_dims[0] = next + args;
    set.graph_dims[1] = set.graph_dims[0] + dims;
    next = set.graph_dims[1] + dims;
  }
  on->last_dims = next;
  on->outputs = reinterpret_cast<RunningOutput *>(next + dims);
  on->set = &on->sets[0];
  pthread_mutex_lock(&device->lock);
  on->next = device->contexts;
  device->contexts = on;
  pthread_mutex_unlock(&device->lock);
  context->device = on;
  ContextScope scope(driver, device->context);
  if (context->link != nullptr)
    on->places = context->link->places;
  on->has_other_stream = context->link != nullptr && context->link->stream != nullptr;
  if (on->has_other_stream)
    on->stream = context->link->stream;
  else
    KILN_DRIVER_TRY(driver, cuStreamCreate, &on->stream, kStreamNonBlocking);
  if (int answer = driver.cuMemAlloc_v2(&on->arena, context->arena_size + 2 * KILN_ALIGNMENT))
    return fail_driver(driver, "cuMemAlloc_v2", answer, error);
  if (entry.scratch_bytes != 0)
    if (int answer = driver.cuMemAlloc_v2(&on->scratch, entry.scratch_bytes))
      return fail_driver(driver, "cuMemAlloc_v2", answer, error);
  on->trap_count = context->entry->kernels.count + 1;
  on->writes_variables = (context->entry->flags & kEntryWritesVariables) != 0;
  if (context->module->variables_size() != 0)
    return mirror_of(context->module, context->frame.variables, &on->mirror, error);
  return KILN_OK;
}

int32_t share_device(KilnContext *context, uint64_t size, void **stream, DeviceAddress *memory, uint8_t **pinned, KilnError *error) {
  DeviceContext *on = context->device;
  Device *device = context->module->device;
  const Driver &driver = *device->driver;
  ContextScope scope(driver, device->context);
  KILN_DRIVER_TRY(driver, cuMemAlloc_v2, &on->borders, size + kArgumentAlignment);
  void *host = nullptr;
  KILN_DRIVER_TRY(driver, cuMemAllocHost_v2, &host, size + kArgumentAlignment);
  on->pinned_borders = static_cast<uint8_t *>(host);
  *stream = on->stream;
  *memory = on->borders;
  *pinned = on->pinned_borders;
  return KILN_OK;
}

void free_device_context(Device *device, DeviceContext *context) {
  const Driver &driver = *device->driver;
  pthread_mutex_lock(&device->lock);
  for (DeviceContext **at = &device->contexts; *at != nullptr; at = &(*at)->next)
    if (*at == context) {
      *at = context->next;
      break;
    }
  if (context->mirror != nullptr)
    --context->mirror->users;
  pthread_mutex_unlock(&device->lock);
  for (void *stream : {context->stream, context->sending}) // nothing may be under way into what is freed
    if (stream != nullptr)
      driver.cuStreamSynchronize(stream);
  for (ArgumentSet &set : context->sets)
    free_arguments(driver, set);
  for (DeviceAddress memory : {context->arena, context->scratch, context->borders})
    if (memory != 0)
      driver.cuMemFree_v2(memory);
  if (context->pinned_borders != nullptr)
    driver.cuMemFreeHost(context->pinned_borders);
  if (context->is_there != nullptr)
    driver.cuEventDestroy_v2(context->is_there);
  for (void *stream : {context->has_other_stream ? nullptr : context->stream, context->sending})
    if (stream != nullptr)
      driver.cuStreamDestroy_v2(stream);
  std::free(context);
}

int32_t wait_for_runs(Device *device, const VariablesMirror *mirror, const void *own, bool only_writers, KilnError *error) {
  int answer = 0;
  pthread_mutex_lock(&device->lock);
  for (DeviceContext *c = device->contexts; c != nullptr && answer == 0; c = c->next)
    if (c->mirror == mirror && c->stream != own && (c->writes_variables || !only_writers) && c->is_under_way)
      answer = device->driver->cuStreamSynchronize(c->stream);
  pthread_mutex_unlock(&device->lock);
  return answer == 0 ? int32_t{KILN_OK} : fail_driver(*device->driver, "cuStreamSynchronize", answer, error);
}

void end_device_context(KilnContext *context) {
  if (context->device == nullptr)
    return;
  Device *device = context->module->device;
  ContextScope scope(*device->driver, device->context);
  free_device_context(device, context->device);
  context->device = nullptr;
}

int32_t send_to_device(KilnContext *context, KilnError *error) {
  DeviceContext *on = context->device;
  Device *device = context->module->device;
  const Driver &driver = *device->driver;
  if (on == nullptr)
    return fail(error, KILN_ERROR_USAGE, "send: the context has ended");
  ContextScope scope(driver, device->context);
  if (scope.answer() != 0)
    return fail_driver(driver, "cuCtxPushCurrent", scope.answer(), error);
  if (on->sending == nullptr)
    KILN_DRIVER_TRY(driver, cuStreamCreate, &on->sending, kStreamNonBlocking);
  if (on->is_there == nullptr)
    KILN_DRIVER_TRY(driver, cuEventCreate, &on->is_there, kEventWithoutTimes);
  if (int32_t code = wait_for_sent(context, error))
    return code;
  ArgumentSet &set = on->sets[on->set == &on->sets[0]]; // not that of the run that is under way
  if (int32_t code = place_arguments(context, set, error))
    return code;
  stage_inputs(*context, set);
  on->sent = &set;
  if (int32_t code = send_arguments(*context, set, on->sending, error))
    return code;
  KILN_DRIVER_TRY(driver, cuEventRecord, on->is_there, on->sending);
  return KILN_OK;
}

namespace {

// Everything up to the wait, in the context's stream.
int32_t queue_run(KilnContext *context, bool is_sent, int32_t *trap, KilnError *error) {
  DeviceContext *on = context->device;
  const Driver &driver = *context->module->device->driver;
  if (is_sent) {
    on->set = on->sent;
    on->sent = nullptr;
    KILN_DRIVER_TRY(driver, cuStreamWaitEvent, on->stream, on->is_there, 0);
  } else {
    if (int32_t code = wait_for_sent(context, error))
      return code;
    if (int32_t code = place_arguments(context, *on->set, error))
      return code;
    stage_inputs(*context, *on->set);
  }
  for (uint32_t i = 0; i < context->entry->outputs.count; ++i) {
    uint32_t at = context->entry->inputs.count + i;
    on->outputs[i] = {context->bindings[at].data, is_border(*context, at) ? 0 : context->bindings[at].needed, on->set->offsets[at]};
  }
  for (uint32_t i = 0; i < context->entry->symbols.count; ++i)
    on->slots[i] = context->dims[i];
  bool waits = context->hook != nullptr || secure_getenv("KILN_CUDA_WAIT") != nullptr;
  bool has_graph = !waits && entry_of(*context).reads_back == 0;
  if (has_graph && !is_recorded(*context, is_sent)) {
    has_graph = is_worth_a_graph(*context, is_sent);
    if (int32_t code = has_graph ? record(context, is_sent, trap, error) : int32_t{KILN_OK})
      return code;
  }
  std::memcpy(on->last_dims, context->dims, context->entry->symbols.count * sizeof(int64_t));
  if (!has_graph) {
    Walker walker(context, waits, error);
    int32_t code = walk_all(context, is_sent, walker);
    *trap = walker.trap();
    return code;
  }
  if (*trap != 0)
    return KILN_OK;
  KILN_DRIVER_TRY(driver, cuGraphLaunch, on->set->graphs[is_sent], on->stream);
  ++on->set->launches[is_sent];
  return KILN_OK;
}

} // namespace

int32_t start_on_device(KilnContext *context, bool is_sent, int32_t *trap, KilnError *error) {
  DeviceContext *on = context->device;
  Device *device = context->module->device;
  const Driver &driver = *device->driver;
  if (on == nullptr)
    return fail(error, KILN_ERROR_USAGE, "run: the context has ended");
  ContextScope scope(driver, device->context);
  if (scope.answer() != 0)
    return fail_driver(driver, "cuCtxPushCurrent", scope.answer(), error);
  if (on->mirror != nullptr) {
    if (int32_t code = push_variables(context->module, context->entry_index, on->mirror, error))
      return code;
    if (int32_t code = wait_for_runs(device, on->mirror, on->stream, !on->writes_variables, error))
      return code;
  }
  on->is_under_way = true;
  if (int32_t code = queue_run(context, is_sent, trap, error)) {
    driver.cuStreamSynchronize(on->stream); // what was queued uses memory that the next run fills anew
    on->is_under_way = false;
    return code;
  }
  return KILN_OK;
}

int32_t finish_on_device(KilnContext *context, int32_t *trap, KilnError *error) {
  DeviceContext *on = context->device;
  Device *device = context->module->device;
  const Driver &driver = *device->driver;
  if (on == nullptr)
    return fail(error, KILN_ERROR_USAGE, "finish: the context has ended");
  ContextScope scope(driver, device->context);
  int answer = scope.answer() != 0 ? scope.answer() : driver.cuStreamSynchronize(on->stream);
  on->is_under_way = false;
  if (answer != 0) {
    fail_driver(driver, "cuStreamSynchronize", answer, error);
    if (error != nullptr) {
      // Kernels fail when someone waits for them; which one it was is known where each is waited for.
      Text(error->location, sizeof error->location) << "set KILN_CUDA_WAIT=1 to learn in which kernel";
    }
    return KILN_ERROR_DEVICE;
  }
  for (uint32_t i = 0; i < on->trap_count && *trap == 0; ++i)
    if (int32_t word = trap_words(*on->set)[i]; word != 0) {
      *trap = context->frame.trap = word;
      context->frame.trap_kernel = static_cast<int32_t>(i);
    }
  for (uint32_t i = 0; *trap == 0 && i < context->entry->outputs.count; ++i)
    if (const RunningOutput &output = on->outputs[i]; output.size != 0)
      std::memcpy(output.to, on->set->staging + output.offset, output.size);
  return KILN_OK;
}

} // namespace kiln::rt
