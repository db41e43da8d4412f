// A loaded model: checked, mapped, and never changed until it is closed.
#pragma once

#include "runtime/elf_image.h"
#include "runtime/file.h"
#include "runtime/manifest.h"
#include "runtime/package_view.h"

namespace kiln::rt {
struct Device;
}

struct KilnModule {
  kiln::rt::MappedFile file;     // empty unless opened from a path
  kiln::rt::PackageView package; // empty for a static model
  kiln::rt::Manifest manifest;
  kiln::rt::Locations locations;
  kiln::rt::CodeImage image;               // empty for a static model
  const KilnStaticEntry *linked = nullptr; // of a static model
  const char *target = "", *host_target = ""; // of all entries, of those on the processor
  const uint8_t *weights = nullptr; // never null: points at zeros where there are none
  const uint8_t *saved_state = nullptr;
  kiln::rt::Device *device = nullptr; // null on the CPU
  // Who opened the module said cpu; or a device, for all entries that the program does not place.
  bool wants_cpu = false, wants_device = false;
  KilnError *device_error = nullptr; // why there is no device, where some entry is placed on one

  // Bytes of a variables block, with room to read past its end; 0 where there are no variables.
  uint64_t variables_size() const;
  KilnRunFn run(uint32_t entry) const { return linked ? linked[entry].run : image.run(entry); }
  KilnPlanFn plan(uint32_t entry) const { return linked ? linked[entry].plan : image.plan(entry); }
};

namespace kiln::rt {

int32_t open_file_module(const char *path, const KilnOpenOptions *options, KilnModule **module,
                         KilnError *error);
int32_t open_memory_module(const void *data, size_t size, const KilnOpenOptions *options,
                           KilnModule **module, KilnError *error);
int32_t open_static_module(const KilnStaticModel *model, KilnModule **module, KilnError *error);
void close_module(KilnModule *module);

// Whether contexts of an entry are on the module's device.
bool is_on_device(const KilnModule &module, const package::EntryRecord &entry);
// The entry of the manifest whose kernels and sizes they have: on a device it may be another one.
uint32_t code_entry(const KilnModule &module, uint32_t entry);

// Puts the name and place of a kernel into an error that is already filled.
void locate(const KilnModule &module, const package::EntryRecord &entry, int32_t kernel,
            KilnError *error);

} // namespace kiln::rt
