// Opening and closing models, from a file, from memory, and linked into the program.
#include "runtime/module.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "runtime/cpu_target.h"
#include "runtime/cuda/device.h"
#include "runtime/device_name.h"
#include "runtime/prefault.h"

uint64_t KilnModule::variables_size() const {
  uint64_t size = manifest.header().variables_size;
  if (size == 0)
    return 0;
  return (size + 2 * KILN_ALIGNMENT - 1) / KILN_ALIGNMENT * KILN_ALIGNMENT;
}

namespace kiln::rt {
namespace {

alignas(KILN_ALIGNMENT) constexpr uint8_t kNoWeights[2 * KILN_ALIGNMENT] = {};

KilnModule *make_module() {
  void *memory = std::malloc(sizeof(KilnModule));
  return memory != nullptr ? ::new (memory) KilnModule() : nullptr;
}

bool has_placed_entry(const KilnModule &module) {
  const Manifest &manifest = module.manifest;
  for (uint32_t i = 0; i < manifest.entry_count(); ++i)
    if ((manifest.entries()[i].flags & package::kEntryOnDevice) != 0 || manifest.entries()[i].parts.count != 0)
      return true;
  return false;
}

// For entries that the program has placed on a device. What it lacks is said when such an entry is asked for: the
// others run without one.
int32_t open_device_of_program(KilnModule *module, const char *what, KilnError *error) {
  auto *reason = static_cast<KilnError *>(std::calloc(1, sizeof(KilnError)));
  if (reason == nullptr)
    return fail(error, KILN_ERROR_MEMORY, "out of memory");
  module->device_error = reason;
  if (int32_t code = open_device(module, 0, what, reason))
    reason->code = code;
  return KILN_OK;
}

// Where runs compute. A package without code for the device that is asked for is refused.
int32_t choose_device(const KilnOpenOptions *options, const char *what, KilnModule *module, KilnError *error) {
  bool has_device = options != nullptr && (options->flags & KILN_OPEN_DEVICE) != 0 && options->device != nullptr;
  if (!has_device)
    return has_placed_entry(*module) ? open_device_of_program(module, what, error) : KILN_OK;
  int ordinal = 0;
  DeviceName device = parse_device(options->device, &ordinal);
  if (device == DeviceName::Unknown)
    return fail(error, KILN_ERROR_USAGE, "no such device as '", options->device, "': write ", kDeviceNames);
  module->wants_cpu = device == DeviceName::Cpu || (device == DeviceName::Auto && !is_device_usable(*module));
  if (module->wants_cpu)
    return KILN_OK;
  module->wants_device = true;
  return open_device(module, ordinal, what, error);
}

// Everything after the bytes are in memory. `module->package.data` is not read before.
int32_t load_package(const uint8_t *data, uint64_t size, const KilnOpenOptions *options,
                     const char *what, KilnModule *module, KilnError *error) {
  bool checks_weights = options == nullptr || (options->flags & KILN_OPEN_TRUST_WEIGHTS) == 0;
  PackageView &view = module->package;
  {
    Prefault prefault(checks_weights ? module->file : MappedFile());
    if (int32_t code = open_package(data, size, checks_weights, &prefault, what, &view, error))
      return code;
  }
  if ((view.header->flags & package::kFileStateOnly) != 0)
    return fail(error, KILN_ERROR_FORMAT, what,
                ": holds only saved variables; open their model and load them into it");
  if (int32_t code = module->manifest.open(view.manifest.data, view.manifest.size,
                                           view.weights.size, what, error))
    return code;
  if (int32_t code = module->locations.open(view.locations.data, view.locations.size, what, error))
    return code;
  const package::ManifestHeader &manifest = module->manifest.header();
  if (view.state.data != nullptr && view.state.size != manifest.variables_size)
    return fail(error, KILN_ERROR_FORMAT, what, ": its saved state is of another model");
  module->weights = view.weights.data != nullptr ? view.weights.data : kNoWeights;
  module->saved_state = view.state.data;
  const package::SectionHeader *section = nullptr;
  if (int32_t code =
          choose_code(view, options != nullptr ? options->target : nullptr, what, &section, error))
    return code;
  module->target = module->host_target = section->name;
  if (int32_t code = map_image(data + section->offset, section->size, module->file.descriptor, section->offset, section->name,
                               manifest.entries.count, what, &module->image, error))
    return code;
  return choose_device(options, what, module, error);
}

// Hands the module out, or closes it.
int32_t finish(int32_t code, KilnModule *opened, KilnModule **module) {
  if (code == KILN_OK)
    *module = opened;
  else
    close_module(opened);
  return code;
}

bool is_aligned(const void *data, uint64_t alignment) {
  return reinterpret_cast<uintptr_t>(data) % alignment == 0;
}

int32_t load_static(const KilnStaticModel &model, KilnModule *module, KilnError *error) {
  constexpr const char *kWhat = "the linked model";
  if (int32_t code = module->manifest.open(model.manifest, model.manifest_size, model.weights_size,
                                           kWhat, error))
    return code;
  if (int32_t code = module->locations.open(model.locations, model.locations_size, kWhat, error))
    return code;
  if (model.entry_count != module->manifest.header().entries.count || model.entries == nullptr)
    return fail(error, KILN_ERROR_FORMAT, kWhat,
                " has another number of entries than its manifest");
  if (model.weights_size != 0 &&
      (model.weights == nullptr || !is_aligned(model.weights, KILN_ALIGNMENT)))
    return fail(error, KILN_ERROR_FORMAT, kWhat, " has weights that are not aligned to 64 bytes");
  if (model.target != nullptr && target_rank(model.target) < 0) {
    char here[96];
    Text machine(here, sizeof here);
    describe_machine(machine);
    return fail(error, KILN_ERROR_MACHINE, kWhat, " is built for ", model.target,
                ", and this machine is ", here);
  }
  module->linked = model.entries;
  module->target = module->host_target = model.target != nullptr ? model.target : "";
  module->weights =
      model.weights_size != 0 ? static_cast<const uint8_t *>(model.weights) : kNoWeights;
  return KILN_OK;
}

} // namespace

int32_t open_file_module(const char *path, const KilnOpenOptions *options, KilnModule **module,
                         KilnError *error) {
  if (module == nullptr || path == nullptr)
    return fail(error, KILN_ERROR_USAGE, "open: null pointer");
  *module = nullptr;
  KilnModule *opened = make_module();
  if (opened == nullptr)
    return fail(error, KILN_ERROR_MEMORY, "out of memory");
  int32_t code = map_file(path, &opened->file, error);
  if (code == KILN_OK)
    code = load_package(opened->file.data, opened->file.size, options, path, opened, error);
  close_descriptor(&opened->file);
  return finish(code, opened, module);
}

int32_t open_memory_module(const void *data, size_t size, const KilnOpenOptions *options,
                           KilnModule **module, KilnError *error) {
  constexpr const char *kWhat = "the package in memory";
  if (module == nullptr || data == nullptr)
    return fail(error, KILN_ERROR_USAGE, "open_memory: null pointer");
  *module = nullptr;
  if (!is_aligned(data, KILN_ALIGNMENT))
    return fail(error, KILN_ERROR_USAGE, kWhat, " is not aligned to 64 bytes");
  KilnModule *opened = make_module();
  if (opened == nullptr)
    return fail(error, KILN_ERROR_MEMORY, "out of memory");
  int32_t code =
      load_package(static_cast<const uint8_t *>(data), size, options, kWhat, opened, error);
  return finish(code, opened, module);
}

int32_t open_static_module(const KilnStaticModel *model, KilnModule **module, KilnError *error) {
  if (module == nullptr || model == nullptr)
    return fail(error, KILN_ERROR_USAGE, "open_static: null pointer");
  *module = nullptr;
  if (model->version != KILN_STATIC_MODEL_VERSION)
    return fail(error, KILN_ERROR_VERSION, "the linked model has the version ", model->version,
                ", this runtime reads version ", KILN_STATIC_MODEL_VERSION);
  KilnModule *opened = make_module();
  if (opened == nullptr)
    return fail(error, KILN_ERROR_MEMORY, "out of memory");
  return finish(load_static(*model, opened, error), opened, module);
}

void close_module(KilnModule *module) {
  if (module == nullptr)
    return;
  close_device(module);
  unmap_image(&module->image);
  unmap_file(&module->file);
  std::free(module->device_error);
  std::free(module);
}

bool is_on_device(const KilnModule &module, const package::EntryRecord &entry) {
  if (module.device == nullptr || entry.parts.count != 0 || (entry.flags & package::kEntryOnHost) != 0)
    return false;
  return module.wants_device || (entry.flags & package::kEntryOnDevice) != 0;
}

uint32_t code_entry(const KilnModule &module, uint32_t entry) {
  const package::EntryRecord &record = module.manifest.entries()[entry];
  return record.on_device != 0 && is_on_device(module, record) ? record.on_device : entry;
}

void locate(const KilnModule &module, const package::EntryRecord &entry, int32_t kernel,
            KilnError *error) {
  if (error == nullptr || kernel < 0 || static_cast<uint32_t>(kernel) >= entry.kernels.count)
    return;
  const package::KernelRecord &record =
      module.manifest.kernels()[entry.kernels.first + static_cast<uint32_t>(kernel)];
  const package::LocationRecord *location = module.locations.find(record.location);
  bool has_node = location != nullptr && location->node.size != 0;
  Text(error->node, sizeof error->node)
      << (has_node ? module.locations.text(location->node) : module.manifest.text(record.name));
  if (location == nullptr)
    return;
  Text text(error->location, sizeof error->location);
  text << module.locations.text(location->file);
  if (location->line != 0)
    text << ":" << location->line << ":" << location->column;
}

} // namespace kiln::rt
