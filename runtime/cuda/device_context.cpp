// Makes and frees what a context has on a device: streams, memory, and its place in the device's list.
#include "runtime/cuda/device_context.h"

#include <cstdlib>
#include <initializer_list>

namespace kiln::rt {

using namespace package;

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

void free_arguments(const Driver &driver, ArgumentSet &set) {
  for (void *&graph : set.graphs) {
    if (graph != nullptr)
      driver.cuGraphExecDestroy(graph);
    graph = nullptr;
  }
  if (set.arguments != 0)
    driver.cuMemFree_v2(set.arguments);
  if (set.staging != nullptr)
    driver.cuMemFreeHost(set.staging);
  set.arguments = 0;
  set.staging = nullptr;
  set.size = 0;
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

void end_device_context(KilnContext *context) {
  if (context->device == nullptr)
    return;
  Device *device = context->module->device;
  ContextScope scope(*device->driver, device->context);
  free_device_context(device, context->device);
  context->device = nullptr;
}

} // namespace kiln::rt
