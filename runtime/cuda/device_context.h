// What a context has on a GPU, for who makes it (device_context.cpp), runs it (device_run.cpp) and goes through its steps
// (device_steps.cpp).
#pragma once

#include "runtime/context.h"
#include "runtime/cuda/device.h"
#include "runtime/parts.h"

namespace kiln::rt {

constexpr uint64_t kArgumentAlignment = 256;

// Arguments on the device: inputs, then a word for each position of the plan in which a kernel leaves its trap, then outputs.
struct ArgumentSet {
  DeviceAddress arguments;
  uint64_t size;      // of `arguments` and of `staging`
  uint8_t *staging;   // pinned, laid out as the arguments; behind them 8 bytes for values read back
  uint64_t *offsets;  // of each argument
  uint64_t traps, end; // where the words for traps begin, and the outputs end
  void *graphs[2];    // ready to launch, for graph_dims; null. The second one does not send the inputs
  int64_t *graph_dims[2];
  uint32_t launches[2]; // of the graph that was recorded last
};

struct RunningOutput {
  void *to;
  uint64_t size, offset;
};

struct DeviceContext {
  DeviceContext *next;
  void *stream;
  bool has_other_stream;             // another context's, which outlives this one
  const BorderPlace *places;         // of a part: where its arguments are; null
  DeviceAddress borders;             // of all parts, where this is the first of them
  uint8_t *pinned_borders;
  DeviceAddress arena, scratch;
  ArgumentSet sets[2];
  ArgumentSet *set;   // of the run that is under way, or was last
  ArgumentSet *sent;  // what send_to_device() has filled; null
  void *sending;      // the stream for that
  void *is_there;     // the event after it
  RunningOutput *outputs; // of the run that is under way
  uint32_t trap_count;
  VariablesMirror *mirror; // null where the model has no variables
  bool writes_variables, is_under_way;
  int64_t *slots;
  int64_t *last_dims; // of the run before
};

inline const package::DeviceEntryRecord &entry_of(const KilnContext &context) {
  return context.module->device->section.entries()[context.entry_index];
}

// Whether an argument is not the caller's.
inline bool is_border(const KilnContext &context, uint32_t argument) {
  const BorderPlace *places = context.device->places;
  return places != nullptr && places[argument].is_border;
}

// An argument's memory on the device and pinned, for what lies in `set`; no pinned memory where nothing is copied.
inline BorderPlace place_of(const KilnContext &context, const ArgumentSet &set, uint32_t argument) {
  if (is_border(context, argument))
    return context.device->places[argument];
  return {false, true, set.arguments + set.offsets[argument], set.staging + set.offsets[argument]};
}

inline uint64_t trap_bytes(const KilnContext &context) { return context.device->trap_count * sizeof(int32_t); }
inline int32_t *trap_words(const ArgumentSet &set) { return reinterpret_cast<int32_t *>(set.staging + set.traps); }

void free_arguments(const Driver &driver, ArgumentSet &set);
// Begins to copy the inputs that are staged, and zeros as words for traps.
int32_t send_arguments(const KilnContext &context, const ArgumentSet &set, void *stream, KilnError *error);
// Puts into the context's stream, or does where the host waits for values, what one run does: inputs unless they are sent, the
// steps of the entry, outputs. `*trap`: what is known of it then; 0.
int32_t queue_steps(KilnContext *context, bool is_sent, bool waits_after_each, int32_t *trap, KilnError *error);

} // namespace kiln::rt
