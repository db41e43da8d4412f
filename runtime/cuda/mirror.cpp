// Variables on a device: a copy of the caller's block, and for each variable which side wrote it last, so that only what
// changed sides is copied, and only when the other side uses it.
#include <cstdlib>
#include <cstring>

#include "runtime/context.h"
#include "runtime/cuda/device.h"

namespace kiln::rt {

using namespace package;

namespace {

constexpr uint8_t kHost = 1, kOnDevice = 2;

// Under the device's lock.
VariablesMirror *look_for(Device *device, const void *block) {
  VariablesMirror *m = device->mirrors;
  while (m != nullptr && m->block != block)
    m = m->next;
  return m;
}

VariablesMirror *find_mirror(const KilnModule &module, const void *block) {
  if (module.device == nullptr)
    return nullptr;
  pthread_mutex_lock(&module.device->lock);
  VariablesMirror *m = look_for(module.device, block);
  pthread_mutex_unlock(&module.device->lock);
  return m;
}

void free_mirror(Device *device, VariablesMirror **at) {
  VariablesMirror *mirror = *at;
  *at = mirror->next;
  device->driver->cuMemFree_v2(mirror->memory);
  std::free(mirror);
}

// The variables that an entry uses, or all: take(index, whether it is written) for each.
template <typename Take>
void for_each_variable(const KilnModule &module, uint32_t entry, Take take) {
  if (entry == kAllVariables) {
    for (uint32_t v = 0; v < module.manifest.header().variables.count; ++v)
      take(v, true);
    return;
  }
  const DeviceSection &section = module.device->section;
  Range list = section.entries()[entry].variables;
  for (uint32_t i = 0; i < list.count; ++i)
    take(section.lists()[list.first + i] / 2, section.lists()[list.first + i] % 2 != 0);
}

bool has_newer(const KilnModule &module, uint32_t entry, const VariablesMirror &mirror, uint8_t side) {
  bool has = false;
  for_each_variable(module, entry, [&](uint32_t v, bool) { has |= mirror.newer[v] == side; });
  return has;
}

// Copies what `side` wrote last to the other one: neighbours at once.
int copy_newer(const KilnModule &module, uint32_t entry, VariablesMirror &mirror, uint8_t side) {
  const Driver &driver = *module.device->driver;
  uint64_t begin = 0, end = 0;
  int answer = 0;
  auto copy = [&] {
    uint8_t *host = static_cast<uint8_t *>(mirror.block) + begin;
    if (answer == 0 && end > begin)
      answer = side == kHost ? driver.cuMemcpyHtoD_v2(mirror.memory + begin, host, end - begin)
                             : driver.cuMemcpyDtoH_v2(host, mirror.memory + begin, end - begin);
  };
  for_each_variable(module, entry, [&](uint32_t v, bool) {
    if (mirror.newer[v] != side)
      return;
    const VariableRecord &variable = module.manifest.variables()[v];
    int64_t shape[kMaxRank];
    uint64_t size = module.manifest.variable_size(variable, shape);
    if (variable.offset < end || variable.offset - end >= KILN_ALIGNMENT) {
      copy();
      begin = variable.offset;
    }
    end = variable.offset + size;
  });
  copy();
  if (answer == 0)
    for_each_variable(module, entry, [&](uint32_t v, bool) { mirror.newer[v] &= static_cast<uint8_t>(~side); });
  return answer;
}

} // namespace

int32_t mirror_of(const KilnModule *module, void *block, VariablesMirror **out, KilnError *error) {
  Device *device = module->device;
  uint32_t count = module->manifest.header().variables.count;
  int answer = 0;
  pthread_mutex_lock(&device->lock);
  VariablesMirror *mirror = look_for(device, block);
  if (mirror == nullptr && (mirror = static_cast<VariablesMirror *>(std::calloc(1, sizeof *mirror + count))) != nullptr) {
    mirror->block = block;
    std::memset(mirror->newer, kHost, count);
    answer = device->driver->cuMemAlloc_v2(&mirror->memory, module->variables_size());
    if (answer == 0) {
      mirror->next = device->mirrors;
      device->mirrors = mirror;
    } else {
      std::free(mirror);
      mirror = nullptr;
    }
  }
  if (mirror != nullptr)
    ++mirror->users;
  *out = mirror; // under the lock: others look for who uses a mirror
  pthread_mutex_unlock(&device->lock);
  if (answer != 0)
    return fail_driver(*device->driver, "cuMemAlloc_v2", answer, error);
  return mirror != nullptr ? KILN_OK : fail(error, KILN_ERROR_MEMORY, "out of memory");
}

void free_mirrors(Device *device) {
  while (device->mirrors != nullptr)
    free_mirror(device, &device->mirrors);
}

void forget_variables(const KilnModule *module, const void *block) {
  Device *device = module->device;
  if (device == nullptr)
    return;
  ContextScope scope(*device->driver, device->context);
  pthread_mutex_lock(&device->lock);
  for (VariablesMirror **at = &device->mirrors; *at != nullptr; at = &(*at)->next)
    if ((*at)->block == block && (*at)->users == 0) {
      free_mirror(device, at);
      break;
    }
  pthread_mutex_unlock(&device->lock);
}

int32_t push_variables(const KilnModule *module, uint32_t entry, VariablesMirror *mirror, KilnError *error) {
  if (has_newer(*module, entry, *mirror, kHost)) {
    if (int32_t code = wait_for_runs(module->device, mirror, nullptr, false, error))
      return code;
    if (int answer = copy_newer(*module, entry, *mirror, kHost))
      return fail_driver(*module->device->driver, "cuMemcpyHtoD_v2", answer, error);
    if (int32_t code = wait_for_copies(*module->device->driver, error))
      return code;
  }
  for_each_variable(*module, entry, [&](uint32_t v, bool is_written) {
    if (is_written)
      mirror->newer[v] = kOnDevice;
  });
  return KILN_OK;
}

int32_t pull_variables(const KilnModule *module, uint32_t entry, const void *block, KilnError *error) {
  Device *device = module->device;
  VariablesMirror *mirror = find_mirror(*module, block);
  if (mirror == nullptr || !has_newer(*module, entry, *mirror, kOnDevice))
    return KILN_OK;
  ContextScope scope(*device->driver, device->context);
  if (int32_t code = wait_for_runs(device, mirror, nullptr, true, error))
    return code;
  if (int answer = copy_newer(*module, entry, *mirror, kOnDevice))
    return fail_driver(*device->driver, "cuMemcpyDtoH_v2", answer, error);
  return KILN_OK;
}

int32_t pull_held_dims(KilnContext *context, KilnError *error) {
  const KilnModule *module = context->module;
  Device *device = module->device;
  VariablesMirror *mirror = find_mirror(*module, context->frame.variables);
  if (mirror == nullptr || !has_newer(*module, kAllVariables, *mirror, kOnDevice))
    return KILN_OK;
  ContextScope scope(*device->driver, device->context);
  if (int32_t code = wait_for_runs(device, mirror, nullptr, true, error))
    return code;
  for (uint32_t i = 0; i < context->entry->symbols.count; ++i) {
    const SymbolRecord &symbol = module->manifest.symbols()[context->entry->symbols.first + i];
    if (symbol.variable == kNoIndex || mirror->newer[symbol.variable] != kOnDevice)
      continue;
    uint64_t offset = module->manifest.variables()[symbol.variable].offset;
    KILN_DRIVER_TRY(*device->driver, cuMemcpyDtoH_v2, context->frame.variables + offset, mirror->memory + offset, sizeof(int64_t));
  }
  return KILN_OK;
}

void touch_variables(const KilnModule *module, uint32_t entry, const void *block) {
  VariablesMirror *mirror = find_mirror(*module, block);
  if (mirror != nullptr)
    for_each_variable(*module, entry, [&](uint32_t v, bool is_written) {
      if (is_written)
        mirror->newer[v] = kHost;
    });
}

bool writes_for(const KilnModule &module, uint32_t first, uint32_t second) {
  const DeviceSection &section = module.device->section;
  Range a = section.entries()[first].variables, b = section.entries()[second].variables;
  for (uint32_t i = 0, j = 0; i < a.count && j < b.count;) {
    uint32_t one = section.lists()[a.first + i], other = section.lists()[b.first + j];
    if (one / 2 == other / 2 && one % 2 != 0)
      return true;
    one / 2 <= other / 2 ? ++i : ++j;
  }
  return false;
}

} // namespace kiln::rt
