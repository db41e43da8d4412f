// Entries that compute on the processor and on a GPU: other entries, one after the other, each with a context of its
// own within the caller's.
//
// What goes from part to part (a border) has pinned memory and memory on the device, where a GPU's part makes or
// uses it. The parts on the GPU share a stream, so that they follow each other without the host, and each is one
// graph launch. The host waits for them where a part on the processor needs what they make, and at the end.
#pragma once

#include "runtime/context.h"
#include "runtime/cuda/driver.h"

namespace kiln::rt {

// Where an argument of a part on the GPU is: with the caller, or a border.
struct BorderPlace {
  bool is_border;
  bool is_copied; // to the device before the part (an input), from there after it (an output)
  DeviceAddress device;
  uint8_t *pinned;
};

struct PartLink {
  void *stream;        // null for the first part on the GPU, which makes it
  BorderPlace *places; // of its arguments
};

// Whether contexts of an entry run its parts.
bool is_parted(const KilnModule &module, const package::EntryRecord &entry);
int32_t parts_size(const KilnModule &module, uint32_t entry, const KilnContextOptions *options, uint64_t *size,
                   KilnError *error);
// `memory`: as many bytes as parts_size() says.
int32_t make_parts(KilnContext *context, const KilnContextOptions *options, void *memory, KilnError *error);
void end_parts(KilnContext *context);
// `is_sent`: what the parts on the GPU take of the inputs is what send_parts() had.
int32_t start_parts(KilnContext *context, bool is_sent, KilnError *error);
int32_t send_parts(KilnContext *context, KilnError *error);
// Reports what stopped a part, too.
int32_t finish_parts(KilnContext *context, KilnError *error);

// The kernels that a run of an entry launches, those of its parts one after the other, and where.
uint32_t kernel_count(const KilnModule &module, uint32_t entry);
const package::KernelRecord *kernel_at(const KilnModule &module, uint32_t entry, uint32_t kernel, bool *is_on_device);
// Bytes of all arenas; -1 where they depend on the dims.
int64_t arena_of(const KilnModule &module, uint32_t entry);

} // namespace kiln::rt
