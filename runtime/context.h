// One entry of a model, ready to run: bindings, dims, arena and (unless shared) variables, all in
// one block of the caller's memory. context.cpp lays it out and runs it, binding.cpp checks what
// the caller binds.
#pragma once

#include "runtime/entry_abi.h"
#include "runtime/fp_mode.h"
#include "runtime/module.h"

namespace kiln::rt {

struct DeviceContext;
struct PartedRun;
struct PartLink;

// What the caller has bound to one input or output.
struct Binding {
  void *data;
  uint64_t size;
  bool is_bound;
  bool has_shape;
  uint64_t needed; // bytes, of the shape it has; once checked
  int64_t dims[package::kMaxRank];
};

int32_t context_size(const KilnModule *module, uint32_t entry, const KilnContextOptions *options,
                     size_t *size, KilnError *error);
int32_t context_init(const KilnModule *module, uint32_t entry, const KilnContextOptions *options,
                     void *memory, size_t size, KilnContext **context, KilnError *error);
int32_t set_dims(KilnContext *context, const int64_t *dims, uint32_t count, KilnError *error);
int32_t bind_input(KilnContext *context, uint32_t index, const KilnTensor *tensor,
                   KilnError *error);
int32_t bind_output(KilnContext *context, uint32_t index, const KilnTensor *tensor,
                    KilnError *error);
int32_t output_dims(KilnContext *context, uint32_t index, int64_t *dims, KilnError *error);
int32_t result_dims(KilnContext *context, uint32_t index, int64_t *dims, KilnError *error);
int32_t grown_dims(KilnContext *context, int64_t *dims, KilnError *error);
int32_t run(KilnContext *context, KilnError *error);
int32_t start(KilnContext *context, KilnError *error);
int32_t send(KilnContext *context, KilnError *error);
int32_t finish(KilnContext *context, KilnError *error);
void *context_variables(KilnContext *context);
void context_end(KilnContext *context);

// What context_size() and context_init() do for an entry of the manifest, whoever calls it. A part has a link.
int32_t size_of_entry(const KilnModule *module, uint32_t entry, const KilnContextOptions *options, size_t *size,
                      KilnError *error);
int32_t init_entry(const KilnModule *module, uint32_t entry, uint32_t called, bool is_on_device, const PartLink *link,
                   const KilnContextOptions *options, void *memory, KilnContext **context, KilnError *error);
// The largest dims that the options, or the declared bounds, allow; and plan() with them.
int32_t largest_dims(const KilnModule &module, uint32_t entry, const KilnContextOptions *options, int64_t *dims,
                     KilnError *error);
int32_t plan_fullest(const KilnModule &module, uint32_t entry, int64_t *dims, int64_t *out, KilnError *error);
uint64_t plan_out_size(const KilnModule &module, const package::EntryRecord &entry);
int32_t run_on_host(KilnContext *context, int32_t *trap, KilnError *error);
int32_t fail_with_trap(KilnContext *context, int32_t trap, KilnError *error);
void begin_run(KilnContext *context);

// Finds the dims from what is bound and set, and sizes from plan(). Does nothing when neither has
// changed since the last time.
int32_t resolve_dims(KilnContext *context, KilnError *error);
// Whether everything is bound, large enough and apart; after resolve_dims().
int32_t check_bindings(KilnContext *context, KilnError *error);
// Calls the entry's plan() and says what is wrong with the dims if it refuses them.
int32_t call_plan(const KilnModule &module, uint32_t entry, const int64_t *dims, int64_t *out,
                  KilnError *error);

} // namespace kiln::rt

struct KilnContext {
  const KilnModule *module;
  const kiln::package::EntryRecord *entry;
  uint32_t entry_index;  // of `entry`
  uint32_t called_index; // as the caller counts
  kiln::rt::FpMode fp_mode;

  KilnFrame frame;
  KilnServices services;
  KilnExecutor executor; // parallel_for is null where there is none
  KilnKernelHook hook;
  void *hook_self;

  void **args;                 // inputs, then outputs
  kiln::rt::Binding *bindings; // likewise
  int64_t *dims;               // of the symbols; those of the last plan
  int64_t *new_dims;           // those being looked at
  int64_t *given_dims;         // what set_dims said, and capacities; -1 where nothing
  int64_t *capacities;         // by symbol: those the context was made with; -1 for other dims
  int64_t *sizes;              // that the last run found
  int64_t *plan_out;           // arena size, then the dims of the outputs
  uint64_t arena_size;         // what there is
  bool is_planned;             // dims and plan_out hold for what is bound
  bool is_checked;             // and so do the sizes of what is bound
  bool has_run;                // with these dims, to its end: sizes hold
  int64_t needed;              // of the capacity that was too small in the last run; -1: none was
  int64_t needed_dim;          // which one
  kiln::rt::DeviceContext *device; // null on the CPU
  bool is_on_device;
  bool has_own_variables;
  bool is_under_way; // start() was called, finish() not yet
  bool is_sent;      // what is bound was sent, and nothing was bound since
  int32_t trap;      // of the run that is under way
  uint64_t plans, plans_of_run; // how often dims have changed; when that run began
  kiln::rt::PartedRun *parts;      // of an entry that computes on both sides; null
  const kiln::rt::PartLink *link;  // of a part: what it shares with the others; null
  uint32_t first_kernel;           // of a part: how many kernels the parts before it have
  bool has_held_dims;          // some dims are values of variables: looked up before each run
};
