// Runs an entry on a device: arguments through pinned memory, steps by the section's tree, and the whole of it
// as one CUDA graph, recorded once for each set of dims.
//
// Where the host has to know a value before it can go on (a condition, a size found in the data) there is no
// graph: the steps are sent one by one, and the host waits for what it reads.
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "runtime/context.h"
#include "runtime/cuda/device.h"

namespace kiln::rt {

using namespace package;

struct DeviceContext {
  DeviceContext *next;
  void *stream;
  DeviceAddress arena, scratch, traps, arguments;
  uint64_t arguments_size; // of `arguments` and of `staging`
  uint8_t *staging;        // pinned, laid out as the arguments
  int32_t *trap_values;    // pinned, one for each position of the plan; behind it 8 bytes for values read back
  uint32_t trap_count;
  VariablesMirror *mirror; // null where the model has no variables
  void *graph;             // ready to launch, for graph_dims; null
  int64_t *graph_dims;
  int64_t *slots;
  uint64_t *offsets; // of the arguments
};

namespace {

constexpr uint64_t kArgumentAlignment = 256;

uint64_t align_up(uint64_t size) { return (size + kArgumentAlignment - 1) / kArgumentAlignment * kArgumentAlignment; }

const DeviceEntryRecord &entry_of(const KilnContext &context) {
  return context.module->device->section.entries()[context.entry_index];
}

// What one run does, captured or at once.
class Walker {
public:
  Walker(KilnContext *context, bool waits_after_each, KilnError *error)
      : context_(*context), device_(*context->module->device), on_(*context->device), driver_(*device_.driver),
        section_(device_.section), waits_(waits_after_each), error_(error) {}

  int32_t trap() const { return trap_; }

  int32_t send_inputs() {
    for (uint32_t i = 0; i < context_.entry->inputs.count; ++i)
      if (uint64_t size = context_.bindings[i].needed)
        if (int answer = driver_.cuMemcpyHtoDAsync_v2(on_.arguments + on_.offsets[i], on_.staging + on_.offsets[i], size, on_.stream))
          return fail_driver(driver_, "cuMemcpyHtoDAsync", answer, error_);
    if (int answer = driver_.cuMemsetD32Async(on_.traps, 0, on_.trap_count, on_.stream))
      return fail_driver(driver_, "cuMemsetD32Async", answer, error_);
    return KILN_OK;
  }

  int32_t fetch_outputs() {
    for (uint32_t i = 0; i < context_.entry->outputs.count; ++i) {
      uint32_t at = context_.entry->inputs.count + i;
      if (uint64_t size = context_.bindings[at].needed)
        if (int answer = driver_.cuMemcpyDtoHAsync_v2(on_.staging + on_.offsets[at], on_.arguments + on_.offsets[at], size, on_.stream))
          return fail_driver(driver_, "cuMemcpyDtoHAsync", answer, error_);
    }
    return fetch_traps();
  }

  int32_t walk(uint32_t begin, uint32_t end) {
    for (uint32_t s = begin; s < end && trap_ == 0; s = section_.steps()[s].end)
      if (int32_t code = step(s, section_.steps()[s]))
        return code;
    return KILN_OK;
  }

private:
  int32_t fetch_traps() {
    if (int answer = driver_.cuMemcpyDtoHAsync_v2(on_.trap_values, on_.traps, on_.trap_count * sizeof(int32_t), on_.stream))
      return fail_driver(driver_, "cuMemcpyDtoHAsync", answer, error_);
    return KILN_OK;
  }

  DeviceAddress address(const DeviceBufferRecord &buffer) const {
    int64_t offset = section_.evaluate(buffer.offset, on_.slots);
    DeviceAddress base = buffer.kind == DeviceBufferKind::Argument ? on_.arguments + on_.offsets[buffer.argument]
                         : buffer.kind == DeviceBufferKind::Weight ? device_.weights
                         : buffer.kind == DeviceBufferKind::Arena  ? on_.arena
                                                                   : (on_.mirror != nullptr ? on_.mirror->memory : 0);
    return base + static_cast<uint64_t>(offset);
  }

  // Waits for a value that a step depends on, and for the traps before it.
  int32_t read_back(const DeviceBufferRecord &buffer, uint32_t size, int64_t *value) {
    auto *place = reinterpret_cast<uint8_t *>(on_.trap_values) + align_up(on_.trap_count * sizeof(int32_t));
    if (int answer = driver_.cuMemcpyDtoHAsync_v2(place, address(buffer), size, on_.stream))
      return fail_driver(driver_, "cuMemcpyDtoHAsync", answer, error_);
    if (int32_t code = fetch_traps())
      return code;
    if (int answer = driver_.cuStreamSynchronize(on_.stream))
      return fail_driver(driver_, "cuStreamSynchronize", answer, error_);
    *value = 0;
    std::memcpy(value, place, size);
    for (uint32_t i = 0; i < on_.trap_count; ++i)
      if (on_.trap_values[i] != 0)
        stop(on_.trap_values[i], static_cast<int32_t>(i));
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
    void *arguments[2 * kMaxDeviceArguments + 2];
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
    add(static_cast<int64_t>(on_.traps + static_cast<uint64_t>(step.position) * sizeof(int32_t)));
    int64_t most = f.scratch_bytes != 0 ? int64_t{f.scratch_blocks} : int64_t{0x7fffffff};
    if (blocks > 0) {
      int answer = driver_.cuLaunchKernel(device_.functions[step.function], static_cast<unsigned>(blocks < most ? blocks : most), 1, 1,
                                          f.threads, 1, 1, f.shared_bytes, on_.stream, arguments, nullptr);
      if (answer != 0)
        return fail_at(step, "cuLaunchKernel", answer);
    }
    if (!waits_)
      return KILN_OK;
    if (int answer = driver_.cuStreamSynchronize(on_.stream))
      return fail_at(step, "cuStreamSynchronize", answer);
    if (context_.hook == nullptr || !is_last_of(step))
      return KILN_OK;
    if (secure_getenv("KILN_CUDA_VALUES") != nullptr)
      if (int32_t code = show_values())
        return code;
    context_.hook(context_.hook_self, context_.entry_index, static_cast<uint32_t>(step.position));
    return KILN_OK;
  }

  // For who compares what kernels leave: the host's arena and outputs become what the device has.
  int32_t show_values() {
    int answer = driver_.cuMemcpyDtoH_v2(context_.frame.arena, on_.arena, context_.arena_size);
    for (uint32_t i = 0; answer == 0 && i < context_.entry->outputs.count; ++i) {
      const Binding &binding = context_.bindings[context_.entry->inputs.count + i];
      if (binding.needed != 0)
        answer = driver_.cuMemcpyDtoH_v2(binding.data, on_.arguments + on_.offsets[context_.entry->inputs.count + i], binding.needed);
    }
    return answer == 0 ? KILN_OK : fail_driver(driver_, "cuMemcpyDtoH", answer, error_);
  }

  // A kernel of the plan may be several launches here; those who listen hear of it once.
  bool is_last_of(const DeviceStepRecord &step) const {
    uint32_t next = step.end, end = entry_of(context_).steps.first + entry_of(context_).steps.count;
    const DeviceStepRecord &after = section_.steps()[next < end ? next : step.end - 1];
    return next >= end || after.kind != DeviceStepKind::Launch || after.position != step.position;
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

// Where each argument lies; grows the memory for them.
int32_t place_arguments(KilnContext *context, KilnError *error) {
  DeviceContext *on = context->device;
  const Driver &driver = *context->module->device->driver;
  uint64_t size = 0;
  for (uint32_t i = 0; i < context->entry->inputs.count + context->entry->outputs.count; ++i) {
    on->offsets[i] = size;
    size += align_up(context->bindings[i].needed + KILN_ALIGNMENT);
  }
  if (size <= on->arguments_size)
    return KILN_OK;
  if (on->graph != nullptr)
    driver.cuGraphExecDestroy(on->graph);
  if (on->arguments != 0)
    driver.cuMemFree_v2(on->arguments);
  if (on->staging != nullptr)
    driver.cuMemFreeHost(on->staging);
  on->graph = nullptr;
  on->arguments = 0;
  on->staging = nullptr;
  on->arguments_size = 0;
  KILN_DRIVER_TRY(driver, cuMemAlloc_v2, &on->arguments, size);
  void *staging = nullptr;
  KILN_DRIVER_TRY(driver, cuMemAllocHost_v2, &staging, size);
  on->staging = static_cast<uint8_t *>(staging);
  on->arguments_size = size;
  return KILN_OK;
}

bool is_recorded(const KilnContext &context) {
  const DeviceContext &on = *context.device;
  return on.graph != nullptr &&
         std::memcmp(on.graph_dims, context.dims, context.entry->symbols.count * sizeof(int64_t)) == 0;
}

int32_t walk_all(KilnContext *context, Walker &walker) {
  const DeviceEntryRecord &entry = entry_of(*context);
  if (int32_t code = walker.send_inputs())
    return code;
  if (int32_t code = walker.walk(entry.steps.first, entry.steps.first + entry.steps.count))
    return code;
  return walker.fetch_outputs();
}

int32_t record(KilnContext *context, int32_t *trap, KilnError *error) {
  DeviceContext *on = context->device;
  const Driver &driver = *context->module->device->driver;
  if (on->graph != nullptr)
    driver.cuGraphExecDestroy(on->graph);
  on->graph = nullptr;
  KILN_DRIVER_TRY(driver, cuStreamBeginCapture_v2, on->stream, 1);
  Walker walker(context, false, error);
  int32_t code = walk_all(context, walker);
  void *graph = nullptr;
  int answer = driver.cuStreamEndCapture(on->stream, &graph);
  *trap = walker.trap();
  if (code == KILN_OK && answer != 0)
    code = fail_driver(driver, "cuStreamEndCapture", answer, error);
  if (code == KILN_OK && *trap == 0 && (answer = driver.cuGraphInstantiateWithFlags(&on->graph, graph, 0)) != 0) {
    on->graph = nullptr;
    code = fail_driver(driver, "cuGraphInstantiateWithFlags", answer, error);
  }
  if (graph != nullptr)
    driver.cuGraphDestroy(graph);
  std::memcpy(on->graph_dims, context->dims, context->entry->symbols.count * sizeof(int64_t));
  return code;
}

int32_t finish(KilnContext *context, int32_t *trap, KilnError *error) {
  DeviceContext *on = context->device;
  const Driver &driver = *context->module->device->driver;
  if (int answer = driver.cuStreamSynchronize(on->stream)) {
    fail_driver(driver, "cuStreamSynchronize", answer, error);
    if (error != nullptr) {
      // Kernels fail when someone waits for them; which one it was is known where each is waited for.
      Text(error->location, sizeof error->location) << "set KILN_CUDA_WAIT=1 to learn in which kernel";
    }
    return KILN_ERROR_DEVICE;
  }
  for (uint32_t i = 0; i < on->trap_count && *trap == 0; ++i)
    if (on->trap_values[i] != 0) {
      *trap = context->frame.trap = on->trap_values[i];
      context->frame.trap_kernel = static_cast<int32_t>(i);
    }
  for (uint32_t i = 0; *trap == 0 && i < context->entry->outputs.count; ++i) {
    const Binding &binding = context->bindings[context->entry->inputs.count + i];
    if (binding.needed != 0)
      std::memcpy(binding.data, on->staging + on->offsets[context->entry->inputs.count + i], binding.needed);
  }
  return KILN_OK;
}

} // namespace

int32_t make_device_context(KilnContext *context, KilnError *error) {
  Device *device = context->module->device;
  const Driver &driver = *device->driver;
  const DeviceEntryRecord &entry = entry_of(*context);
  uint64_t args = uint64_t{context->entry->inputs.count} + context->entry->outputs.count, dims = context->entry->symbols.count;
  auto *on = static_cast<DeviceContext *>(std::calloc(1, sizeof(DeviceContext) + (args + dims + entry.slots + 1) * 8));
  if (on == nullptr)
    return fail(error, KILN_ERROR_MEMORY, "out of memory");
  on->offsets = reinterpret_cast<uint64_t *>(on + 1);
  on->graph_dims = reinterpret_cast<int64_t *>(on->offsets + args);
  on->slots = on->graph_dims + dims;
  pthread_mutex_lock(&device->lock);
  on->next = device->contexts;
  device->contexts = on;
  pthread_mutex_unlock(&device->lock);
  context->device = on;
  ContextScope scope(driver, device->context);
  KILN_DRIVER_TRY(driver, cuStreamCreate, &on->stream, 1);
  if (int answer = driver.cuMemAlloc_v2(&on->arena, context->arena_size + 2 * KILN_ALIGNMENT))
    return fail_driver(driver, "cuMemAlloc_v2", answer, error);
  if (entry.scratch_bytes != 0)
    if (int answer = driver.cuMemAlloc_v2(&on->scratch, entry.scratch_bytes))
      return fail_driver(driver, "cuMemAlloc_v2", answer, error);
  on->trap_count = context->entry->kernels.count + 1;
  uint64_t trap_bytes = align_up(on->trap_count * sizeof(int32_t));
  if (int answer = driver.cuMemAlloc_v2(&on->traps, trap_bytes))
    return fail_driver(driver, "cuMemAlloc_v2", answer, error);
  void *pinned = nullptr;
  KILN_DRIVER_TRY(driver, cuMemAllocHost_v2, &pinned, trap_bytes + 64);
  on->trap_values = static_cast<int32_t *>(pinned);
  if (context->module->variables_size() != 0)
    return mirror_of(context->module, context->frame.variables, &on->mirror, error);
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
  pthread_mutex_unlock(&device->lock);
  if (context->graph != nullptr)
    driver.cuGraphExecDestroy(context->graph);
  for (DeviceAddress memory : {context->arena, context->scratch, context->traps, context->arguments})
    if (memory != 0)
      driver.cuMemFree_v2(memory);
  for (void *memory : {static_cast<void *>(context->staging), static_cast<void *>(context->trap_values)})
    if (memory != nullptr)
      driver.cuMemFreeHost(memory);
  if (context->stream != nullptr)
    driver.cuStreamDestroy_v2(context->stream);
  std::free(context);
}

void end_device_context(KilnContext *context) {
  if (context->device == nullptr)
    return;
  Device *device = context->module->device;
  ContextScope scope(*device->driver, device->context);
  free_device_context(device, context->device);
  context->device = nullptr;
}

int32_t run_on_device(KilnContext *context, int32_t *trap, KilnError *error) {
  DeviceContext *on = context->device;
  Device *device = context->module->device;
  const Driver &driver = *device->driver;
  if (on == nullptr)
    return fail(error, KILN_ERROR_USAGE, "run: the context has ended");
  ContextScope scope(driver, device->context);
  if (scope.answer() != 0)
    return fail_driver(driver, "cuCtxPushCurrent", scope.answer(), error);
  if (int32_t code = place_arguments(context, error))
    return code;
  for (uint32_t i = 0; i < context->entry->inputs.count; ++i)
    if (context->bindings[i].needed != 0)
      std::memcpy(on->staging + on->offsets[i], context->bindings[i].data, context->bindings[i].needed);
  if (on->mirror != nullptr)
    if (int32_t code = push_variables(context->module, on->mirror, error))
      return code;
  for (uint32_t i = 0; i < context->entry->symbols.count; ++i)
    on->slots[i] = context->dims[i];
  bool waits = context->hook != nullptr || secure_getenv("KILN_CUDA_WAIT") != nullptr;
  if (waits || entry_of(*context).reads_back != 0) {
    Walker walker(context, waits, error);
    if (int32_t code = walk_all(context, walker))
      return code;
    *trap = walker.trap();
  } else {
    if (!is_recorded(*context))
      if (int32_t code = record(context, trap, error))
        return code;
    if (*trap == 0)
      KILN_DRIVER_TRY(driver, cuGraphLaunch, on->graph, on->stream);
  }
  if (on->mirror != nullptr && (context->entry->flags & kEntryWritesVariables) != 0)
    on->mirror->device_is_newer = true;
  return finish(context, trap, error);
}

} // namespace kiln::rt
