// Every index, range and expression of a device section is checked here, so that who walks it checks nothing.
#include "runtime/cuda/device_section.h"

#include <cstring>

namespace kiln::rt {
namespace {

using namespace package;

bool is_within(Range range, Table table) { return range.first <= table.count && range.count <= table.count - range.first; }

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

} // namespace

int32_t DeviceSection::open(const uint8_t *data, uint64_t size, const Manifest &manifest, const char *what, KilnError *error) {
  data_ = data;
  size_ = size;
  header_ = reinterpret_cast<const DeviceHeader *>(data);
  if (size < sizeof(DeviceHeader) || header_->magic != kDeviceMagic)
    return fail(error, KILN_ERROR_FORMAT, what, ": its device section is malformed");
  if (header_->abi != kDeviceAbi)
    return fail(error, KILN_ERROR_VERSION, what, ": its device section has version ", header_->abi, ", this runtime reads version ",
                kDeviceAbi, "; compile the model again");
  checks_left_ = size * 64;
  if (const char *why = flaw(manifest))
    return fail(error, KILN_ERROR_FORMAT, what, ": its device section is malformed: ", why);
  return KILN_OK;
}

bool DeviceSection::has_time(uint64_t checks) const {
  bool fits = checks <= checks_left_;
  checks_left_ -= fits ? checks : 0;
  return fits;
}

const char *DeviceSection::flaw(const Manifest &manifest) const {
  const DeviceHeader &h = *header_;
  struct {
    Table table;
    uint64_t size;
  } tables[] = {{h.strings, 1},
                {h.images, sizeof(DeviceImageRecord)},
                {h.functions, sizeof(DeviceFunctionRecord)},
                {h.entries, sizeof(DeviceEntryRecord)},
                {h.steps, sizeof(DeviceStepRecord)},
                {h.buffers, sizeof(DeviceBufferRecord)},
                {h.expressions, sizeof(Range)},
                {h.lists, sizeof(uint32_t)},
                {h.words, sizeof(int64_t)},
                {h.maps, sizeof(DeviceMapRecord)}};
  for (const auto &t : tables)
    if (t.table.offset % 8 != 0 || t.table.offset > size_ || t.table.count > (size_ - t.table.offset) / t.size)
      return "a table is outside of it";
  if (h.entries.count != manifest.header().entries.count)
    return "it has another number of entries than the manifest";
  for (uint32_t i = 0; i < h.images.count; ++i) {
    const DeviceImageRecord &image = images()[i];
    if (image.offset % 64 != 0 || image.offset > size_ || image.size > size_ - image.offset || image.size == 0)
      return "an image is outside of it";
    // The driver is told no sizes: it reads text up to its end, and files as their headers say.
    const uint8_t *bytes = data_ + image.offset;
    if (h.is_ptx != 0 ? bytes[image.size - 1] != 0 : image.size < 64 || std::memcmp(bytes, "\177ELF", 4) != 0)
      return "an image is neither PTX nor a cubin";
  }
  for (uint32_t i = 0; i < h.functions.count; ++i) {
    const DeviceFunctionRecord &f = functions()[i];
    bool text_fits = f.name.offset < h.strings.count && f.name.size < h.strings.count - f.name.offset &&
                     data_[h.strings.offset + f.name.offset + f.name.size] == 0;
    if (!text_fits || f.image >= h.images.count || f.threads == 0 || f.threads > 1024 || f.buffers > kMaxDeviceArguments ||
        f.dims > kMaxDeviceArguments || f.shared_bytes > (1u << 20) || f.maps > kMaxDeviceMaps || f.resident > 64 || f.scratch_bytes > (uint64_t{1} << 40) ||
        (f.scratch_bytes != 0 && (f.scratch_blocks == 0 || f.scratch_blocks > 65536)) ||
        f.is_joined > 1 || (f.is_joined != 0 && (f.buffers == 0 || f.dims != 0 || f.maps != 0 || f.scratch_bytes != 0)))
      return "a function is wrong";
  }
  for (uint32_t i = 0; i < h.entries.count; ++i)
    if (const char *why = flaw_of_entry(entries()[i], i, manifest))
      return why;
  return nullptr;
}

const char *DeviceSection::flaw_of_entry(const DeviceEntryRecord &entry, uint32_t index, const Manifest &manifest) const {
  const EntryRecord &known = manifest.entries()[index];
  if (!is_within(entry.steps, header_->steps) || entry.slots > kMaxDeviceSlots || entry.slots < known.symbols.count)
    return "an entry is wrong";
  if (!is_within(entry.variables, header_->lists) || !has_time(entry.variables.count))
    return "an entry is wrong";
  const uint32_t *used = lists() + entry.variables.first;
  for (uint32_t i = 0; i < entry.variables.count; ++i)
    if (used[i] / 2 >= manifest.header().variables.count || (i > 0 && used[i] / 2 <= used[i - 1] / 2))
      return "an entry uses variables that there are not";
  uint32_t end = entry.steps.first + entry.steps.count;
  for (uint32_t s = entry.steps.first; s < end; ++s)
    if (const char *why = flaw_of_step(s, end, entry.slots, index, manifest))
      return why;
  return flaw_of_nesting(entry.steps.first, end);
}

// Children end where their parents do at the latest, and are not nested too deep to be walked.
const char *DeviceSection::flaw_of_nesting(uint32_t begin, uint32_t end) const {
  uint32_t ends[kMaxDeviceDepth], depth = 0;
  for (uint32_t s = begin; s < end; ++s) {
    while (depth > 0 && ends[depth - 1] <= s)
      --depth;
    const DeviceStepRecord &step = steps()[s];
    uint32_t limit = depth > 0 ? ends[depth - 1] : end;
    if (step.middle <= s || step.middle > step.end || step.end > limit)
      return "a step is wrong";
    bool has_body = step.kind != DeviceStepKind::Launch && step.kind != DeviceStepKind::Bind && step.kind != DeviceStepKind::Require;
    if (!has_body) {
      if (step.end != s + 1)
        return "a step is wrong";
      continue;
    }
    // The two halves as two levels: a child of the first half may not reach into the second one.
    if (depth + 2 > kMaxDeviceDepth)
      return "steps are nested too deeply";
    ends[depth++] = step.end;
    if (step.middle < step.end)
      ends[depth++] = step.middle;
  }
  return nullptr;
}

const char *DeviceSection::flaw_of_step(uint32_t index, uint32_t, uint32_t slots, uint32_t entry_index, const Manifest &manifest) const {
  const DeviceStepRecord &step = steps()[index];
  const EntryRecord &entry = manifest.entries()[entry_index];
  if (uint32_t(step.kind) > uint32_t(DeviceStepKind::Form) || !is_within(step.buffers, header_->buffers) ||
      !is_within(step.dims, header_->lists) || step.position < -1 || step.position >= int64_t(entry.kernels.count) ||
      !is_within(step.completed, header_->lists) || !has_time(uint64_t{1} + step.buffers.count + step.dims.count + step.completed.count))
    return "a step is wrong";
  for (uint32_t i = 0; i < step.buffers.count; ++i) {
    const DeviceBufferRecord &b = buffers()[step.buffers.first + i];
    bool is_argument = b.kind == DeviceBufferKind::Argument;
    if (uint32_t(b.kind) > uint32_t(DeviceBufferKind::Arena) || (is_argument && b.argument >= entry.inputs.count + entry.outputs.count))
      return "a buffer is wrong";
    if (const char *why = flaw_of_expression(b.offset, slots))
      return why;
  }
  for (uint32_t i = 0; i < step.dims.count; ++i)
    if (const char *why = flaw_of_expression(lists()[step.dims.first + i], slots))
      return why;
  const uint32_t *completed = lists() + step.completed.first;
  for (uint32_t i = 0; i < step.completed.count; ++i)
    if (step.kind != DeviceStepKind::Launch || completed[i] >= entry.kernels.count || (i > 0 && completed[i] <= completed[i - 1]))
      return "a launch is wrong";
  bool has_a = step.kind != DeviceStepKind::If && step.kind != DeviceStepKind::While;
  if (has_a)
    if (const char *why = flaw_of_expression(step.a, slots))
      return why;
  bool reads = step.kind == DeviceStepKind::If || step.kind == DeviceStepKind::While || step.kind == DeviceStepKind::Bind;
  if (reads && step.buffers.count != 1)
    return "a step reads no value";
  switch (step.kind) {
  case DeviceStepKind::Launch: {
    if (step.function >= header_->functions.count || step.position < 0)
      return "a launch is wrong";
    const DeviceFunctionRecord &f = functions()[step.function];
    if (f.buffers != step.buffers.count || f.dims != step.dims.count || !is_within({step.maps, f.maps}, header_->maps))
      return "a launch has other arguments than its function";
    for (uint32_t i = 0; i < f.maps; ++i)
      if (const char *why = flaw_of_map(maps()[step.maps + i], f.buffers, slots))
        return why;
    return nullptr;
  }
  case DeviceStepKind::Bind:
    return step.slot >= slots || step.slot < entry.symbols.count || step.index >= entry.sizes.count ? "a size is wrong" : nullptr;
  case DeviceStepKind::Loop:
    return step.slot >= slots || step.slot < entry.symbols.count ? "a loop is wrong" : nullptr;
  case DeviceStepKind::Require:
    return flaw_of_expression(step.b, slots);
  default:
    return nullptr;
  }
}

const char *DeviceSection::flaw_of_map(const DeviceMapRecord &map, uint32_t buffers, uint32_t slots) const {
  constexpr const char *kWrong = "a tensor map is wrong";
  if (map.buffer >= buffers || (map.element != 1 && map.element != 2 && map.element != 4) || map.rank < 2 || map.rank > 5)
    return kWrong;
  if (const char *why = flaw_of_expression(map.offset, slots))
    return why;
  for (uint32_t i = 0; i < map.rank; ++i) {
    if (map.box[i] == 0 || map.box[i] > 256)
      return kWrong;
    if (const char *why = flaw_of_expression(map.sizes[i], slots))
      return why;
    if (i > 0)
      if (const char *why = flaw_of_expression(map.strides[i - 1], slots))
        return why;
  }
  return map.box[0] * map.element > 128 ? kWrong : nullptr;
}

const char *DeviceSection::flaw_of_expression(uint32_t index, uint32_t slots) const {
  constexpr const char *kWrong = "an expression is wrong";
  if (index >= header_->expressions.count || !is_within(expressions()[index], header_->words))
    return kWrong;
  Range range = expressions()[index];
  if (!has_time(range.count))
    return "its expressions are too long";
  uint32_t depth = 0;
  for (uint32_t i = range.first, end = range.first + range.count; i < end; ++i) {
    int64_t op = words()[i];
    if (op < 0 || op >= int64_t(DeviceOp::Count))
      return kWrong;
    if (op > int64_t(DeviceOp::Slot)) {
      if (depth < 2)
        return kWrong;
      --depth;
      continue;
    }
    if (++i >= end || ++depth > kMaxDeviceDepth)
      return kWrong;
    if (op == int64_t(DeviceOp::Slot) && (words()[i] < 0 || words()[i] >= int64_t(slots)))
      return kWrong;
  }
  return depth == 1 ? nullptr : kWrong;
}

int64_t DeviceSection::evaluate(uint32_t expression, const int64_t *slots) const {
  int64_t stack[kMaxDeviceDepth + 1];
  uint32_t depth = 0;
  Range range = expressions()[expression];
  for (uint32_t i = range.first, end = range.first + range.count; i < end; ++i) {
    auto op = DeviceOp(words()[i]);
    if (op == DeviceOp::Push || op == DeviceOp::Slot) {
      int64_t word = words()[++i];
      stack[depth++] = op == DeviceOp::Push ? word : slots[word];
      continue;
    }
    int64_t b = stack[--depth], a = stack[depth - 1], out = 0;
    bool bad = false;
    switch (op) {
    case DeviceOp::Add:
      bad = __builtin_add_overflow(a, b, &out);
      break;
    case DeviceOp::Multiply:
      bad = __builtin_mul_overflow(a, b, &out);
      break;
    case DeviceOp::FloorDivide:
    case DeviceOp::Modulo:
      bad = b <= 0;
      if (!bad)
        out = op == DeviceOp::FloorDivide ? floor_divide(a, b) : a % b + (a % b < 0 ? b : 0);
      break;
    case DeviceOp::Minimum:
      out = a < b ? a : b;
      break;
    case DeviceOp::Maximum:
      out = a < b ? b : a;
      break;
    default:
      out = a == b;
      break;
    }
    if (bad)
      return -1;
    stack[depth - 1] = out;
  }
  return stack[0];
}

} // namespace kiln::rt
