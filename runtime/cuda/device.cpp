// Opens a device for a package.
#include "runtime/cuda/device.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "runtime/context.h"

namespace kiln::rt {
namespace {

using namespace package;

// "sm_90" -> 90; 0 for what is no such name.
uint32_t arch_number(const char *name) {
  const char *digits = std::strchr(name, '_');
  uint32_t out = 0;
  for (digits = digits != nullptr ? digits + 1 : ""; *digits >= '0' && *digits <= '9' && out < 100000; ++digits)
    out = out * 10 + static_cast<uint32_t>(*digits - '0');
  return out;
}

// The best section for a device of that architecture, of those that rank below `limit`: the cubin nearest to it (code for 8.0
// runs on 8.6; for 9.0a on 9.0 alone, where it comes first; 7.2 and 8.7, in systems on a chip, take no other's), else PTX,
// which the driver compiles.
const SectionHeader *choose_section(const PackageView &view, uint32_t arch, uint32_t *limit, Text *list, bool *has_any) {
  const SectionHeader *best = nullptr;
  uint32_t best_rank = 0;
  for (uint32_t i = 0; i < view.header->section_count; ++i) {
    const SectionHeader &section = view.sections[i];
    if (section.kind != SectionKind::Device)
      continue;
    if (list != nullptr)
      *list << (*has_any ? ", " : "") << section.name;
    *has_any = true;
    uint32_t built_for = arch_number(section.name);
    bool is_ptx = std::strncmp(section.name, "compute", 7) == 0;
    bool is_exact = std::strchr(section.name, 'a') != nullptr || (!is_ptx && (arch == 72 || arch == 87));
    if (built_for == 0 || built_for > arch || (is_exact && built_for != arch) || (!is_ptx && built_for / 10 != arch / 10))
      continue;
    uint32_t rank = 2 * built_for + (is_exact ? 1 : 0) + (is_ptx ? 0 : 1000000);
    if (rank > best_rank && rank < *limit)
      best_rank = rank, best = &section;
  }
  *limit = best_rank;
  return best;
}

// The shared memory that a block of its kernels wants, at most.
uint32_t most_shared(const DeviceSection &section) {
  uint32_t most = 0;
  for (uint32_t i = 0; i < section.header().functions.count; ++i)
    if (uint32_t bytes = section.functions()[i].shared_bytes; bytes > most)
      most = bytes;
  return most;
}

int32_t arch_of(const Driver &driver, int device, uint32_t *arch, KilnError *error) {
  int major = 0, minor = 0;
  KILN_DRIVER_TRY(driver, cuDeviceGetAttribute, &major, kAttributeMajor, device);
  if (int answer = driver.cuDeviceGetAttribute(&minor, kAttributeMinor, device))
    return fail_driver(driver, "cuDeviceGetAttribute", answer, error);
  *arch = static_cast<uint32_t>(major * 10 + minor);
  return KILN_OK;
}

} // namespace

// A copy from memory that is not pinned may still be on its way when it returns, and streams of contexts do not wait
// for the stream that it is in.
int32_t wait_for_copies(const Driver &driver, KilnError *error) {
  KILN_DRIVER_TRY(driver, cuStreamSynchronize, nullptr);
  return KILN_OK;
}

namespace {

int32_t load_images(KilnModule *module, Device *device, KilnError *error) {
  const Driver &driver = *device->driver;
  const DeviceHeader &header = device->section.header();
  device->modules = static_cast<void **>(std::calloc(header.images.count + 1, sizeof(void *)));
  device->functions = static_cast<void **>(std::calloc(header.functions.count + 1, sizeof(void *)));
  if (device->modules == nullptr || device->functions == nullptr)
    return fail(error, KILN_ERROR_MEMORY, "out of memory");
  for (uint32_t i = 0; i < header.images.count; ++i)
    KILN_DRIVER_TRY(driver, cuModuleLoadData, &device->modules[i], device->section.image(i));
  for (uint32_t i = 0; i < header.functions.count; ++i) {
    const DeviceFunctionRecord &f = device->section.functions()[i];
    KILN_DRIVER_TRY(driver, cuModuleGetFunction, &device->functions[i], device->modules[f.image], device->section.text(f.name));
    // Asking loads the function now: a driver that does so at the first launch may not while a graph is recorded.
    int most_threads = 0;
    KILN_DRIVER_TRY(driver, cuFuncGetAttribute, &most_threads, kFunctionThreads, device->functions[i]);
    if (most_threads < static_cast<int>(f.threads))
      return fail(error, KILN_ERROR_DEVICE, "the device runs a kernel of the model with ", int32_t{most_threads}, " threads in a block, and ",
                  f.threads, " are needed");
    // Without being asked a block gets 48 KiB, what the kernel declares itself among them.
    if (f.shared_bytes > (32u << 10))
      KILN_DRIVER_TRY(driver, cuFuncSetAttribute, device->functions[i], kFunctionSharedBytes, static_cast<int>(f.shared_bytes));
  }
  uint64_t size = module->manifest.header().weights_size;
  KILN_DRIVER_TRY(driver, cuMemAlloc_v2, &device->weights, size + kWeightSlack);
  KILN_DRIVER_TRY(driver, cuMemcpyHtoD_v2, device->weights, module->weights, size + kWeightSlack);
  return wait_for_copies(driver, error);
}

int32_t open_on(KilnModule *module, Device *device, const char *what, KilnError *error) {
  const Driver &driver = *device->driver;
  int count = 0, handle = 0;
  KILN_DRIVER_TRY(driver, cuDeviceGetCount, &count);
  if (device->ordinal >= count)
    return fail(error, KILN_ERROR_DEVICE, "there is no device cuda:", int32_t{device->ordinal}, ": the driver has ", int32_t{count});
  KILN_DRIVER_TRY(driver, cuDeviceGet, &handle, device->ordinal);
  device->handle = handle;
  KILN_DRIVER_TRY(driver, cuDeviceGetAttribute, &device->multiprocessors, kAttributeMultiprocessors, handle);
  uint32_t arch = 0;
  if (int32_t code = arch_of(driver, handle, &arch, error))
    return code;
  int shared_bytes = 0;
  if (int answer = driver.cuDeviceGetAttribute(&shared_bytes, kAttributeSharedBytes, handle))
    return fail_driver(driver, "cuDeviceGetAttribute", answer, error);
  const SectionHeader *section = nullptr;
  // Code for 8.0 may want more shared memory than 8.6 has.
  for (uint32_t limit = UINT32_MAX;;) {
    char has[96];
    Text list(has, sizeof has);
    bool has_any = false;
    section = choose_section(module->package, arch, &limit, &list, &has_any);
    if (section == nullptr)
      return fail(error, KILN_ERROR_MACHINE, what, ": built for ", has, ", and the device is sm_", arch, ": compile the model with --cuda sm_",
                  arch, " or ptx");
    if (int32_t code = device->section.open(module->package.data + section->offset, section->size, module->manifest, what, error))
      return code;
    if (most_shared(device->section) <= static_cast<uint32_t>(shared_bytes))
      break;
  }
  Text(device->name, sizeof device->name) << "cuda:" << int32_t{device->ordinal} << " " << section->name;
  KILN_DRIVER_TRY(driver, cuDevicePrimaryCtxRetain, &device->context, handle);
  device->has_context = true;
  ContextScope scope(driver, device->context);
  if (scope.answer() != 0)
    return fail_driver(driver, "cuCtxPushCurrent", scope.answer(), error);
  return load_images(module, device, error);
}

} // namespace

bool is_device_usable(const KilnModule &module) {
  bool has_any = false;
  uint32_t limit = UINT32_MAX;
  choose_section(module.package, 0, &limit, nullptr, &has_any);
  int count = 0;
  const Driver *driver = has_any ? open_driver(nullptr) : nullptr;
  if (driver == nullptr || driver->cuDeviceGetCount(&count) != 0 || count == 0)
    return false;
  int handle = 0;
  uint32_t arch = 0;
  limit = UINT32_MAX;
  return driver->cuDeviceGet(&handle, 0) == 0 && arch_of(*driver, handle, &arch, nullptr) == KILN_OK &&
         choose_section(module.package, arch, &limit, nullptr, &has_any) != nullptr;
}

int32_t open_device(KilnModule *module, int ordinal, const char *what, KilnError *error) {
  bool has_any = false;
  uint32_t limit = UINT32_MAX;
  if (module->package.header != nullptr)
    choose_section(module->package, 0, &limit, nullptr, &has_any);
  if (!has_any)
    return fail(error, KILN_ERROR_MACHINE, what, ": holds no code for a GPU: compile the model with --cuda");
  const Driver *driver = open_driver(error);
  if (driver == nullptr)
    return KILN_ERROR_DEVICE;
  void *memory = std::calloc(1, sizeof(Device));
  if (memory == nullptr)
    return fail(error, KILN_ERROR_MEMORY, "out of memory");
  auto *device = ::new (memory) Device();
  device->driver = driver;
  device->ordinal = ordinal;
  pthread_mutex_init(&device->lock, nullptr);
  module->device = device;
  int32_t code = open_on(module, device, what, error);
  if (code != KILN_OK) {
    close_device(module);
    return code;
  }
  Text(device->name_of_both, sizeof device->name_of_both) << module->host_target << " and " << device->name;
  uint32_t count = 0;
  for (uint32_t i = 0; i < module->manifest.entry_count(); ++i)
    count += is_on_device(*module, module->manifest.entries()[i]);
  module->target = count == module->manifest.entry_count() ? device->name : device->name_of_both;
  return KILN_OK;
}

void close_device(KilnModule *module) {
  Device *device = module->device;
  if (device == nullptr)
    return;
  const Driver &driver = *device->driver;
  if (device->has_context) {
    // Where the process ends, or was forked, the driver refuses, and nothing is left to be given back.
    ContextScope scope(driver, device->context);
    while (device->contexts != nullptr)
      free_device_context(device, device->contexts);
    free_mirrors(device);
    if (device->weights != 0)
      driver.cuMemFree_v2(device->weights);
    for (uint32_t i = 0; device->modules != nullptr && i < device->section.header().images.count; ++i)
      if (device->modules[i] != nullptr)
        driver.cuModuleUnload(device->modules[i]);
  }
  if (device->has_context)
    driver.cuDevicePrimaryCtxRelease_v2(device->handle);
  std::free(device->modules);
  std::free(device->functions);
  std::free(device);
  module->device = nullptr;
}

} // namespace kiln::rt
