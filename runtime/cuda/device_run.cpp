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

#include "runtime/cuda/device_context.h"

namespace kiln::rt {
namespace {

// A call that works on a context's device, which is the thread's for as long as it lasts.
class Call {
public:
  Call(KilnContext *context, const char *verb, KilnError *error)
      : on_(context->device), device_(context->module->device), scope_(*device_->driver, device_->context), verb_(verb), error_(error) {}

  int32_t check() const {
    if (on_ == nullptr)
      return fail(error_, KILN_ERROR_USAGE, verb_, ": the context has ended");
    return scope_.answer() == 0 ? int32_t{KILN_OK} : fail_driver(*device_->driver, "cuCtxPushCurrent", scope_.answer(), error_);
  }

private:
  const DeviceContext *on_;
  const Device *device_;
  ContextScope scope_;
  const char *verb_;
  KilnError *error_;
};

uint64_t align_up(uint64_t size) { return (size + kArgumentAlignment - 1) / kArgumentAlignment * kArgumentAlignment; }

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

int32_t record(KilnContext *context, bool is_sent, int32_t *trap, KilnError *error) {
  DeviceContext *on = context->device;
  const Driver &driver = *context->module->device->driver;
  void *&recorded = on->set->graphs[is_sent];
  if (recorded != nullptr)
    driver.cuGraphExecDestroy(recorded);
  recorded = nullptr;
  on->set->launches[is_sent] = 0;
  KILN_DRIVER_TRY(driver, cuStreamBeginCapture_v2, on->stream, kCaptureOfThread);
  int32_t code = queue_steps(context, is_sent, false, trap, error);
  void *graph = nullptr;
  int answer = driver.cuStreamEndCapture(on->stream, &graph);
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
  if (!has_graph)
    return queue_steps(context, is_sent, waits, trap, error);
  if (*trap != 0)
    return KILN_OK;
  KILN_DRIVER_TRY(driver, cuGraphLaunch, on->set->graphs[is_sent], on->stream);
  ++on->set->launches[is_sent];
  return KILN_OK;
}

} // namespace

int32_t send_to_device(KilnContext *context, KilnError *error) {
  DeviceContext *on = context->device;
  Device *device = context->module->device;
  const Driver &driver = *device->driver;
  Call call(context, "send", error);
  if (int32_t code = call.check())
    return code;
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

int32_t start_on_device(KilnContext *context, bool is_sent, int32_t *trap, KilnError *error) {
  DeviceContext *on = context->device;
  Device *device = context->module->device;
  const Driver &driver = *device->driver;
  Call call(context, "run", error);
  if (int32_t code = call.check())
    return code;
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
  const Driver &driver = *context->module->device->driver;
  Call call(context, "finish", error);
  if (int32_t code = call.check())
    return code;
  int answer = driver.cuStreamSynchronize(on->stream);
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

int32_t wait_for_runs(Device *device, const VariablesMirror *mirror, const void *own, bool only_writers, KilnError *error) {
  int answer = 0;
  pthread_mutex_lock(&device->lock);
  for (DeviceContext *c = device->contexts; c != nullptr && answer == 0; c = c->next)
    if (c->mirror == mirror && c->stream != own && (c->writes_variables || !only_writers) && c->is_under_way)
      answer = device->driver->cuStreamSynchronize(c->stream);
  pthread_mutex_unlock(&device->lock);
  return answer == 0 ? int32_t{KILN_OK} : fail_driver(*device->driver, "cuStreamSynchronize", answer, error);
}

} // namespace kiln::rt
