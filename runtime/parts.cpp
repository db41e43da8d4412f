// Runs an entry as its parts: contexts for them, what lies between, and who waits for whom.
#include "runtime/parts.h"

#include <cstring>

#include "runtime/cuda/device.h"

namespace kiln::rt {

using namespace package;

struct Part {
  const PartRecord *record;
  KilnContext *context;
  PartLink link;
  uint32_t *symbols; // of the whole, one for each of its own
  uint32_t *sizes;   // likewise
  bool is_under_way; // on the GPU, and nobody has waited for it
  bool is_sent;      // its inputs of the next run are on their way there
};

// A value that goes from part to part.
struct Border {
  uint32_t part, output; // which makes it
  uint64_t offset, room; // in the memory for borders
  uint64_t size;         // with the dims of this run
};

struct PartedRun {
  uint32_t count, border_count;
  Part *parts;
  Border *borders;
  uint8_t *pinned;      // of all borders
  KilnContext *stopped; // by a trap in this run; null
};

namespace {

constexpr uint64_t kBorderAlignment = 256;
constexpr uint64_t kScratch = 1024; // dims and results of plan() on the stack

const EntryRecord &entry_at(const KilnModule &module, uint32_t index) { return module.manifest.entries()[index]; }
const PartRecord &part_at(const KilnModule &module, const EntryRecord &entry, uint32_t part) {
  return module.manifest.parts()[entry.parts.first + part];
}
const PartArgumentRecord &argument_at(const KilnModule &module, const PartRecord &part, uint32_t argument) {
  return module.manifest.part_arguments()[part.arguments.first + argument];
}

// The symbol of a whole that is called as one of its part is; the manifest was checked, so there is one.
uint32_t find_symbol(const KilnModule &module, Range list, String name) {
  const Manifest &manifest = module.manifest;
  for (uint32_t i = 0; i < list.count; ++i)
    if (std::strcmp(manifest.text(manifest.symbols()[list.first + i].name), manifest.text(name)) == 0)
      return i;
  return 0;
}

// What the parts of an entry need in the caller's memory, handed out or, without memory, measured.
class Carver {
public:
  explicit Carver(void *memory) : memory_(static_cast<uint8_t *>(memory)) {}
  template <typename T>
  T *take(uint64_t count) {
    return static_cast<T *>(take_bytes(count * sizeof(T)));
  }
  void *take_bytes(uint64_t size) {
    void *out = memory_ != nullptr ? memory_ + used_ : nullptr;
    used_ += (size + KILN_ALIGNMENT - 1) / KILN_ALIGNMENT * KILN_ALIGNMENT;
    return out;
  }
  uint64_t used() const { return used_; }

private:
  uint8_t *memory_;
  uint64_t used_ = 0;
};

uint32_t count_borders(const KilnModule &module, const EntryRecord &entry) {
  uint32_t count = 0;
  for (uint32_t p = 0; p < entry.parts.count; ++p) {
    const PartRecord &part = part_at(module, entry, p);
    for (uint32_t a = entry_at(module, part.entry).inputs.count; a < part.arguments.count; ++a)
      count += argument_at(module, part, a).kind == PartArgumentKind::Border;
  }
  return count;
}

PartedRun *carve(Carver &carver, const KilnModule &module, const EntryRecord &entry) {
  auto *run = carver.take<PartedRun>(1);
  auto *parts = carver.take<Part>(entry.parts.count);
  uint32_t borders = count_borders(module, entry);
  auto *list = carver.take<Border>(borders);
  if (run != nullptr)
    *run = {entry.parts.count, borders, parts, list, nullptr, nullptr};
  for (uint32_t p = 0; p < entry.parts.count; ++p) {
    const PartRecord &record = part_at(module, entry, p);
    const EntryRecord &code = entry_at(module, record.entry);
    auto *symbols = carver.take<uint32_t>(code.symbols.count);
    auto *sizes = carver.take<uint32_t>(code.sizes.count);
    auto *places = carver.take<BorderPlace>(record.arguments.count);
    if (run == nullptr)
      continue;
    std::memset(places, 0, record.arguments.count * sizeof *places);
    parts[p] = {&record, nullptr, {nullptr, places}, symbols, sizes, false, false};
    for (uint32_t i = 0; i < code.symbols.count; ++i)
      symbols[i] = find_symbol(module, entry.symbols, module.manifest.symbols()[code.symbols.first + i].name);
    for (uint32_t i = 0; i < code.sizes.count; ++i)
      sizes[i] = find_symbol(module, entry.sizes, module.manifest.symbols()[code.sizes.first + i].name);
  }
  return run;
}

// The largest dims of a part, those of the whole.
int32_t dims_of_part(const KilnModule &module, uint32_t whole, const PartRecord &part, const KilnContextOptions *options,
                     int64_t *dims, KilnError *error) {
  const EntryRecord &entry = entry_at(module, whole), &code = entry_at(module, part.entry);
  int64_t all[kScratch];
  if (entry.symbols.count > kScratch || code.symbols.count > kScratch)
    return fail(error, KILN_ERROR_FORMAT, "'", module.manifest.text(entry.name), "' has more than ", kScratch, " symbolic dims");
  if (int32_t status = largest_dims(module, whole, options, all, error))
    return status;
  for (uint32_t i = 0; i < code.symbols.count; ++i)
    dims[i] = all[find_symbol(module, entry.symbols, module.manifest.symbols()[code.symbols.first + i].name)];
  return KILN_OK;
}

KilnContextOptions options_of_part(const KilnContextOptions *options, const int64_t *dims, void *variables) {
  KilnContextOptions out{};
  out.dims = dims;
  out.executor = options != nullptr ? options->executor : nullptr;
  out.variables = variables;
  return out;
}

// Bytes of an output with what plan() said of it.
int32_t output_size(const KilnModule &module, const EntryRecord &code, uint32_t output, const int64_t *planned, uint64_t *size,
                    KilnError *error) {
  for (uint32_t i = 0; i < output; ++i)
    planned += module.manifest.values()[code.outputs.first + i].dims.count;
  const ValueRecord &value = module.manifest.values()[code.outputs.first + output];
  if (!tensor_size(value.dtype, planned, value.dims.count, size))
    return fail(error, KILN_ERROR_SHAPE, "'", module.manifest.text(code.name), "' needs more memory than there can be");
  return KILN_OK;
}

// Which part makes each border, and where it lies: room for the largest dims.
int32_t place_borders(const KilnModule &module, uint32_t whole, const KilnContextOptions *options, PartedRun &run, uint64_t *size,
                      KilnError *error) {
  for (uint32_t p = 0; p < run.count; ++p) {
    const PartRecord &record = *run.parts[p].record;
    const EntryRecord &code = entry_at(module, record.entry);
    int64_t dims[kScratch], out[kScratch];
    if (plan_out_size(module, code) > kScratch)
      return fail(error, KILN_ERROR_FORMAT, "'", module.manifest.text(code.name), "' has more than ", kScratch, " output dims");
    if (int32_t status = dims_of_part(module, whole, record, options, dims, error))
      return status;
    if (int32_t status = plan_fullest(module, record.entry, dims, out, error))
      return status;
    for (uint32_t o = 0; o < code.outputs.count; ++o) {
      const PartArgumentRecord &argument = argument_at(module, record, code.inputs.count + o);
      if (argument.kind != PartArgumentKind::Border)
        continue;
      Border &border = run.borders[argument.index];
      border = {p, o, *size, 0, 0};
      if (int32_t status = output_size(module, code, o, out + 1, &border.room, error))
        return status;
      // Kernels read past the end of a buffer.
      *size += (border.room + KILN_ALIGNMENT + kBorderAlignment - 1) / kBorderAlignment * kBorderAlignment;
    }
  }
  return KILN_OK;
}

// Where the arguments of the parts on the GPU are, and which of them are copied: what the processor has made, once;
// what it needs.
void fill_places(const KilnModule &module, PartedRun &run, DeviceAddress memory) {
  for (uint32_t b = 0; b < run.border_count; ++b) {
    const Border &border = run.borders[b];
    bool is_made_on_host = (run.parts[border.part].record->flags & kPartOnDevice) == 0;
    bool is_there = !is_made_on_host, is_used_on_host = false;
    BorderPlace *made = nullptr;
    for (uint32_t p = border.part; p < run.count; ++p) {
      Part &part = run.parts[p];
      uint32_t inputs = entry_at(module, part.record->entry).inputs.count;
      for (uint32_t a = 0; a < part.record->arguments.count; ++a) {
        const PartArgumentRecord &argument = argument_at(module, *part.record, a);
        if (argument.kind != PartArgumentKind::Border || argument.index != b)
          continue;
        bool is_on_device = (part.record->flags & kPartOnDevice) != 0;
        part.link.places[a] = {true, a < inputs && is_on_device && !is_there, memory + border.offset, run.pinned + border.offset};
        if (a >= inputs)
          made = &part.link.places[a];
        else if (is_on_device)
          is_there = true;
        else
          is_used_on_host = true;
      }
    }
    if (made != nullptr)
      made->is_copied = !is_made_on_host && is_used_on_host;
  }
}

// The dims of this run for all parts, and what is bound to their arguments.
int32_t bind_parts(KilnContext *context, KilnError *error) {
  PartedRun &run = *context->parts;
  const KilnModule &module = *context->module;
  for (uint32_t p = 0; p < run.count; ++p) {
    Part &part = run.parts[p];
    KilnContext *own = part.context;
    for (uint32_t i = 0; i < own->entry->symbols.count; ++i)
      own->given_dims[i] = context->dims[part.symbols[i]];
    if (int32_t code = resolve_dims(own, error))
      return code;
    for (uint32_t a = 0; a < part.record->arguments.count; ++a) {
      const PartArgumentRecord &argument = argument_at(module, *part.record, a);
      bool is_output = a >= own->entry->inputs.count;
      Binding &binding = own->bindings[a];
      if (argument.kind == PartArgumentKind::Border) {
        Border &border = run.borders[argument.index];
        if (is_output) {
          if (int32_t code = output_size(module, *own->entry, a - own->entry->inputs.count, own->plan_out + 1, &border.size, error))
            return code;
          if (border.size > border.room)
            return fail(error, KILN_ERROR_SHAPE, "'", module.manifest.text(context->entry->name),
                        "' needs more memory between its parts than the context was made with: make it for larger dims");
        }
        binding = {run.pinned + border.offset, border.size, true, false, border.size, {}};
      } else {
        binding = context->bindings[argument.kind == PartArgumentKind::Input ? argument.index : context->entry->inputs.count + argument.index];
        binding.has_shape = false;
      }
      own->args[a] = binding.data;
    }
    if (int32_t code = check_bindings(own, error))
      return code;
  }
  return KILN_OK;
}

void note_sizes(KilnContext *context, const Part &part) {
  for (uint32_t i = 0; i < part.context->entry->sizes.count; ++i)
    context->sizes[part.sizes[i]] = part.context->sizes[i];
}

void note_trap(PartedRun &run, const Part &part) {
  if (part.context->trap != 0 && run.stopped == nullptr)
    run.stopped = part.context;
}

// Waits for every part that is under way on the GPU.
int32_t wait_for_parts(KilnContext *context, KilnError *error) {
  PartedRun &run = *context->parts;
  int32_t code = KILN_OK;
  for (uint32_t p = 0; p < run.count; ++p) {
    Part &part = run.parts[p];
    if (!part.is_under_way)
      continue;
    part.is_under_way = false;
    if (int32_t own = finish_on_device(part.context, &part.context->trap, code == KILN_OK ? error : nullptr); code == KILN_OK)
      code = own;
    note_trap(run, part);
    note_sizes(context, part);
  }
  return code;
}

// Whether a part on the processor needs what a part that is under way makes: a border, or a variable.
bool has_to_wait(const KilnContext *context, const Part &part) {
  const PartedRun &run = *context->parts;
  bool is_any = false;
  for (uint32_t p = 0; p < run.count; ++p) {
    if (!run.parts[p].is_under_way)
      continue;
    is_any = true;
    if ((part.record->flags & kPartUsesVariables) != 0 && writes_for(*context->module, run.parts[p].record->entry, part.record->entry))
      return true;
  }
  if (!is_any)
    return false;
  for (uint32_t a = 0; a < part.context->entry->inputs.count; ++a) {
    const PartArgumentRecord &argument = argument_at(*context->module, *part.record, a);
    if (argument.kind == PartArgumentKind::Border && run.parts[run.borders[argument.index].part].is_under_way)
      return true;
  }
  return false;
}

int32_t start_part(KilnContext *context, Part &part, bool is_sent, KilnError *error) {
  KilnContext *own = part.context;
  own->hook = context->hook;
  own->hook_self = context->hook_self;
  begin_run(own);
  if ((part.record->flags & kPartOnDevice) != 0) {
    int32_t code = start_on_device(own, is_sent && part.is_sent, &own->trap, error);
    part.is_sent = false;
    part.is_under_way = code == KILN_OK;
    return code;
  }
  if (has_to_wait(context, part))
    if (int32_t code = wait_for_parts(context, error))
      return code;
  if (context->parts->stopped != nullptr)
    return KILN_OK;
  int32_t code = run_on_host(own, &own->trap, error);
  note_sizes(context, part);
  return code;
}

} // namespace

bool is_parted(const KilnModule &module, const EntryRecord &entry) { return entry.parts.count != 0 && module.device != nullptr; }

int32_t parts_size(const KilnModule &module, uint32_t index, const KilnContextOptions *options, uint64_t *size, KilnError *error) {
  const EntryRecord &entry = entry_at(module, index);
  Carver carver(nullptr);
  carve(carver, module, entry);
  for (uint32_t p = 0; p < entry.parts.count; ++p) {
    const PartRecord &record = part_at(module, entry, p);
    int64_t dims[kScratch];
    if (int32_t code = dims_of_part(module, index, record, options, dims, error))
      return code;
    // Variables are those of the whole.
    alignas(KILN_ALIGNMENT) uint8_t shared[KILN_ALIGNMENT];
    KilnContextOptions own = options_of_part(options, dims, shared);
    size_t bytes = 0;
    if (int32_t code = size_of_entry(&module, record.entry, &own, &bytes, error))
      return code;
    carver.take_bytes(bytes);
  }
  *size = carver.used();
  return KILN_OK;
}

int32_t make_parts(KilnContext *context, const KilnContextOptions *options, void *memory, KilnError *error) {
  const KilnModule &module = *context->module;
  Carver carver(memory);
  PartedRun *run = carve(carver, module, *context->entry);
  context->parts = run;
  uint64_t border_bytes = 0;
  if (int32_t code = place_borders(module, context->entry_index, options, *run, &border_bytes, error))
    return code;
  // Without variables of its own a model has none to share; parts never make their own.
  alignas(KILN_ALIGNMENT) static constexpr uint8_t kNoVariables[KILN_ALIGNMENT] = {};
  void *variables = context->frame.variables != nullptr ? context->frame.variables : const_cast<uint8_t *>(kNoVariables);
  void *stream = nullptr;
  DeviceAddress borders = 0;
  uint32_t first_kernel = 0;
  for (uint32_t p = 0; p < run->count; ++p) {
    Part &part = run->parts[p];
    int64_t dims[kScratch];
    if (int32_t code = dims_of_part(module, context->entry_index, *part.record, options, dims, error))
      return code;
    KilnContextOptions own = options_of_part(options, dims, variables);
    size_t bytes = 0;
    if (int32_t code = size_of_entry(&module, part.record->entry, &own, &bytes, error))
      return code;
    bool is_on_device = (part.record->flags & kPartOnDevice) != 0;
    part.link.stream = stream;
    if (int32_t code = init_entry(&module, part.record->entry, context->called_index, is_on_device, &part.link, &own,
                                  carver.take_bytes(bytes), &part.context, error))
      return code;
    part.context->first_kernel = first_kernel;
    first_kernel += part.context->entry->kernels.count;
    if (is_on_device && stream == nullptr)
      if (int32_t code = share_device(part.context, border_bytes, &stream, &borders, &run->pinned, error))
        return code;
  }
  fill_places(module, *run, borders);
  return KILN_OK;
}

void end_parts(KilnContext *context) {
  if (context->parts == nullptr)
    return;
  // The first one on the GPU has what the others use.
  for (uint32_t p = context->parts->count; p-- > 0;)
    if (context->parts->parts[p].context != nullptr)
      end_device_context(context->parts->parts[p].context);
}

int32_t send_parts(KilnContext *context, KilnError *error) {
  PartedRun &run = *context->parts;
  if (int32_t code = bind_parts(context, error))
    return code;
  for (uint32_t p = 0; p < run.count; ++p) {
    Part &part = run.parts[p];
    bool takes_inputs = false;
    for (uint32_t a = 0; a < part.context->entry->inputs.count; ++a)
      takes_inputs |= argument_at(*context->module, *part.record, a).kind == PartArgumentKind::Input;
    if (!takes_inputs || (part.record->flags & kPartOnDevice) == 0)
      continue;
    if (int32_t code = send_to_device(part.context, error))
      return code;
    part.is_sent = true;
  }
  return KILN_OK;
}

int32_t start_parts(KilnContext *context, bool is_sent, KilnError *error) {
  PartedRun &run = *context->parts;
  run.stopped = nullptr;
  if (int32_t code = bind_parts(context, error))
    return code;
  for (uint32_t p = 0; p < run.count && run.stopped == nullptr; ++p) {
    if (int32_t code = start_part(context, run.parts[p], is_sent, error)) {
      wait_for_parts(context, nullptr); // nothing may be under way into what the caller takes back
      return code;
    }
    note_trap(run, run.parts[p]);
  }
  return KILN_OK;
}

int32_t finish_parts(KilnContext *context, KilnError *error) {
  if (int32_t code = wait_for_parts(context, error))
    return code;
  KilnContext *stopped = context->parts->stopped;
  if (stopped == nullptr)
    return KILN_OK;
  int32_t code = fail_with_trap(stopped, stopped->trap, error);
  for (uint32_t p = 0; p < context->parts->count; ++p)
    if (const Part &part = context->parts->parts[p]; part.context == stopped && stopped->needed >= 0) {
      context->needed = stopped->needed;
      context->needed_dim = part.symbols[stopped->needed_dim];
    }
  return code;
}

uint32_t kernel_count(const KilnModule &module, uint32_t index) {
  const EntryRecord &entry = entry_at(module, index);
  if (!is_parted(module, entry))
    return entry.kernels.count;
  uint32_t count = 0;
  for (uint32_t p = 0; p < entry.parts.count; ++p)
    count += entry_at(module, part_at(module, entry, p).entry).kernels.count;
  return count;
}

const KernelRecord *kernel_at(const KilnModule &module, uint32_t index, uint32_t kernel, bool *is_device) {
  const EntryRecord &entry = entry_at(module, index);
  if (!is_parted(module, entry)) {
    *is_device = is_on_device(module, entry) || index >= module.manifest.entry_count();
    return kernel < entry.kernels.count ? &module.manifest.kernels()[entry.kernels.first + kernel] : nullptr;
  }
  for (uint32_t p = 0; p < entry.parts.count; ++p) {
    const PartRecord &part = part_at(module, entry, p);
    const EntryRecord &code = entry_at(module, part.entry);
    *is_device = (part.flags & kPartOnDevice) != 0;
    if (kernel < code.kernels.count)
      return &module.manifest.kernels()[code.kernels.first + kernel];
    kernel -= code.kernels.count;
  }
  return nullptr;
}

int64_t arena_of(const KilnModule &module, uint32_t index) {
  const EntryRecord &entry = entry_at(module, index);
  if (!is_parted(module, entry))
    return entry.arena_size;
  int64_t sum = 0;
  for (uint32_t p = 0; p < entry.parts.count; ++p) {
    int64_t own = entry_at(module, part_at(module, entry, p).entry).arena_size;
    if (own < 0 || __builtin_add_overflow(sum, own, &sum))
      return -1;
  }
  return sum;
}

} // namespace kiln::rt
