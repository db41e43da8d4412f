// A module on a GPU: its kernels loaded and its weights there, once for all contexts.
//
// Variables are a block of the caller's on the host, with a mirror on the device (mirror.cpp) for as long as a context uses
// it: a run changes the mirror, and whoever looks at the block (variable_read, save, context_variables) gets
// what the device has first. What the host writes is sent before the next run that uses it.
#pragma once

#include "runtime/cuda/device_section.h"
#include "runtime/cuda/driver.h"

#include <pthread.h>

struct KilnModule;
struct KilnContext;

namespace kiln::rt {

struct DeviceContext;

struct VariablesMirror {
  void *block;
  DeviceAddress memory;
  uint32_t users; // contexts
  VariablesMirror *next;
  uint8_t newer[]; // of each variable: the side that wrote it last, until the other one has it
};

struct Device {
  const Driver *driver;
  DeviceSection section;
  int ordinal, handle; // the number of the device; the driver's
  int multiprocessors;
  void *context; // the driver's, of the device
  bool has_context;
  void **modules;   // one for each image
  void **functions; // one for each function
  DeviceAddress weights;
  char name[32]; // "cuda:0 sm_90"
  char name_of_both[80]; // "x86-64-v4 and cuda:0 sm_90"
  pthread_mutex_t lock; // of the lists
  VariablesMirror *mirrors;
  DeviceContext *contexts;
};

// Opens the driver's device of that number for the sections of module->package.
int32_t open_device(KilnModule *module, int ordinal, const char *what, KilnError *error);
void close_device(KilnModule *module);
// Whether the package has code for a device, and there is one; for "auto". Says nothing.
bool is_device_usable(const KilnModule &module);

int32_t make_device_context(KilnContext *context, KilnError *error);
void end_device_context(KilnContext *context);
// Begins a run of the entry with what is bound; `is_sent`: its inputs are what send_to_device() had. `*trap` as a
// native entry would return it, as far as it is known.
int32_t start_on_device(KilnContext *context, bool is_sent, int32_t *trap, KilnError *error);
// Begins to copy what is bound for the next run, beside the one that computes.
int32_t send_to_device(KilnContext *context, KilnError *error);
int32_t finish_on_device(KilnContext *context, int32_t *trap, KilnError *error);

// The stream of a context and memory for borders, pinned and on the device, that is given back with it.
int32_t share_device(KilnContext *context, uint64_t size, void **stream, DeviceAddress *memory, uint8_t **pinned, KilnError *error);

// Until what was copied from memory that is not pinned has arrived.
int32_t wait_for_copies(const Driver &driver, KilnError *error);

void free_device_context(Device *device, DeviceContext *context);

// The mirror of a block for one more context, made where there is none yet.
int32_t mirror_of(const KilnModule *module, void *block, VariablesMirror **mirror, KilnError *error);
// The block is no more.
void forget_variables(const KilnModule *module, const void *block);
// Waits for the runs that are under way with a mirror, but for those of `own` stream: those that write it, or all.
int32_t wait_for_runs(Device *device, const VariablesMirror *mirror, const void *own, bool only_writers, KilnError *error);
void free_mirrors(Device *device);
// Before a run of an entry on the device: it has what the host wrote last of what the entry uses, and will have written what the
// entry writes.
int32_t push_variables(const KilnModule *module, uint32_t entry, VariablesMirror *mirror, KilnError *error);
// The block has what the device has, where there is a mirror of it: all, or what an entry uses.
inline constexpr uint32_t kAllVariables = UINT32_MAX;
int32_t pull_variables(const KilnModule *module, uint32_t entry, const void *block, KilnError *error);
// The same for the variables that dims are read from.
int32_t pull_held_dims(KilnContext *context, KilnError *error);
// The host has written to the block: anywhere, or what an entry writes.
void touch_variables(const KilnModule *module, uint32_t entry, const void *block);
// Whether the second entry uses what the first one writes.
bool writes_for(const KilnModule &module, uint32_t first, uint32_t second);

} // namespace kiln::rt
