// Loads the code of a package: an ELF image that needs nothing from outside.
//
// The system's loader is of no use: it wants a file of its own, and static programs have none. What
// is left to do without imports and relocations is little: check, map the segments with their own
// protection, and find the KilnImageHeader that e_entry points to.
#pragma once

#include <cstdint>

#include "runtime/entry_abi.h"
#include "runtime/errors.h"

namespace kiln::rt {

struct CodeImage {
  uint8_t *base = nullptr; // where address 0 of the image lies
  uint64_t span = 0;
  const KilnImageHeader *header = nullptr;
  const KilnImageEntry *entries = nullptr;

  KilnRunFn run(uint32_t entry) const {
    return reinterpret_cast<KilnRunFn>(reinterpret_cast<uintptr_t>(header) +
                                       static_cast<uintptr_t>(entries[entry].run));
  }
  KilnPlanFn plan(uint32_t entry) const {
    return reinterpret_cast<KilnPlanFn>(reinterpret_cast<uintptr_t>(header) +
                                        static_cast<uintptr_t>(entries[entry].plan));
  }
};

// `elf` holds the section's bytes. Where `descriptor` is an open file and not -1, the same bytes
// lie there at `file_offset`, and its pages are mapped rather than copied. `what` names the
// package.
int32_t map_image(const uint8_t *elf, uint64_t size, int descriptor, uint64_t file_offset,
                  const char *target, uint32_t entry_count, const char *what, CodeImage *image,
                  KilnError *error);
void unmap_image(CodeImage *image);

} // namespace kiln::rt
