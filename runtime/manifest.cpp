// The checks that make a manifest safe to index. A flaw is a fragment of a sentence; a package with
// one was not written by Kiln, since damage is caught by the digest before.
#include "runtime/manifest.h"

#include <cstring>
#include <initializer_list>

#include "runtime/entry_abi.h"
#include "runtime/errors.h"

namespace kiln::rt {
namespace {

using namespace package;

bool has_table(Table table, uint64_t record_size, uint64_t size) {
  return table.offset % 8 == 0 && table.offset <= size &&
         table.count <= (size - table.offset) / record_size;
}

bool has_string(String string, const uint8_t *pool, uint32_t pool_size) {
  return string.offset < pool_size && string.size < pool_size - string.offset &&
         pool[string.offset + string.size] == 0 &&
         std::memchr(pool + string.offset, 0, string.size) == nullptr;
}

bool has_range(Range range, Table table) {
  return range.first <= table.count && range.count <= table.count - range.first;
}

} // namespace

int32_t Manifest::open(const void *data, uint64_t size, uint64_t weights_size, const char *what,
                       KilnError *error) {
  data_ = static_cast<const uint8_t *>(data);
  size_ = size;
  header_ = reinterpret_cast<const ManifestHeader *>(data_);
  if (data == nullptr || reinterpret_cast<uintptr_t>(data) % 8 != 0 || size < sizeof *header_ ||
      header_->magic != kManifestMagic)
    return fail(error, KILN_ERROR_FORMAT, what, ": the manifest is malformed");
  if (header_->entry_abi != KILN_ENTRY_ABI)
    return fail(error, KILN_ERROR_VERSION, what, ": its code has the interface version ",
                header_->entry_abi, ", this runtime runs version ", KILN_ENTRY_ABI,
                "; compile the model again");
  checks_left_ = size * 64;
  const char *found = has_tables() ? flaw() : "a table outside the section";
  if (found != nullptr)
    return fail(error, KILN_ERROR_FORMAT, what, ": the manifest has ", found);
  if (weights_size != kAnyWeights && header_->weights_size != weights_size)
    return fail(error, KILN_ERROR_FORMAT, what, ": ", weights_size,
                " bytes of weights where the manifest wants ", header_->weights_size);
  return KILN_OK;
}

bool Manifest::has_time(uint64_t checks) const {
  bool fits = checks <= checks_left_;
  checks_left_ -= fits ? checks : 0;
  return fits;
}

bool Manifest::has_text(String string) const {
  return has_string(string, at(header_->strings.offset), header_->strings.count);
}

bool Manifest::has_tables() const {
  return has_table(header_->strings, 1, size_) &&
         has_table(header_->entries, sizeof(EntryRecord), size_) &&
         has_table(header_->values, sizeof(ValueRecord), size_) &&
         has_table(header_->dims, sizeof(DimRecord), size_) &&
         has_table(header_->symbols, sizeof(SymbolRecord), size_) &&
         has_table(header_->constraints, sizeof(String), size_) &&
         has_table(header_->kernels, sizeof(KernelRecord), size_) &&
         has_table(header_->variables, sizeof(VariableRecord), size_) &&
         has_table(header_->metadata, sizeof(MetadataRecord), size_) &&
         has_table(header_->parts, sizeof(PartRecord), size_) &&
         has_table(header_->part_arguments, sizeof(PartArgumentRecord), size_);
}

const char *Manifest::flaw() const {
  if (!has_text(header_->model_name) || !has_text(header_->producer))
    return "a name outside its text";
  for (uint32_t i = 0; i < header_->symbols.count; ++i)
    if (!has_text(symbols()[i].name) || symbols()[i].min < 0 || symbols()[i].max < symbols()[i].min)
      return "a malformed symbolic dim";
  for (uint32_t i = 0; i < header_->constraints.count; ++i)
    if (!has_text(constraints()[i]))
      return "a malformed constraint";
  for (uint32_t i = 0; i < header_->kernels.count; ++i)
    if (!has_text(kernels()[i].name) || !has_text(kernels()[i].flops_text) ||
        !has_text(kernels()[i].bytes_text))
      return "a malformed kernel";
  for (uint32_t i = 0; i < header_->metadata.count; ++i)
    if (!has_text(metadata()[i].key) || !has_text(metadata()[i].value))
      return "malformed metadata";
  if (header_->hidden_entries > header_->entries.count)
    return "another number of entries without callers than it says";
  for (uint32_t i = 0; i < header_->entries.count; ++i) {
    if (const char *found = flaw_of_entry(entries()[i]))
      return found;
    uint32_t twin = entries()[i].on_device;
    if (twin != 0 && (i >= entry_count() || twin < entry_count() || twin >= header_->entries.count))
      return "an entry that is another one on a device";
  }
  for (uint32_t i = 0; i < header_->entries.count; ++i)
    if (const char *found = flaw_of_parts(entries()[i]))
      return found;
  if (header_->variables_size > INT64_MAX / 2 || header_->weights_size > INT64_MAX / 2)
    return "an impossible size";
  for (uint32_t i = 0; i < header_->variables.count; ++i)
    if (const char *found = flaw_of_variable(variables()[i]))
      return found;
  for (uint32_t i = 0; i < header_->symbols.count; ++i)
    if (symbols()[i].variable != kNoIndex && !is_counter(symbols()[i].variable))
      return "a dim that no variable of type i64[] holds";
  return nullptr;
}

const char *Manifest::flaw_of_entry(const EntryRecord &entry) const {
  if (!has_text(entry.name) || entry.arena_size < -1 ||
      entry.scratch_size < 0 || entry.scratch_size % KILN_ALIGNMENT != 0 || !has_range(entry.inputs, header_->values) ||
      !has_range(entry.outputs, header_->values) || !has_range(entry.symbols, header_->symbols) ||
      !has_range(entry.constraints, header_->constraints) ||
      !has_range(entry.kernels, header_->kernels) || !has_range(entry.sizes, header_->symbols) ||
      !has_time(uint64_t{entry.sizes.count} + entry.symbols.count))
    return "a malformed entry";
  for (uint32_t i = 0; i < entry.sizes.count; ++i)
    if (int64_t at = symbols()[entry.sizes.first + i].otherwise; at >= 0 && at >= entry.symbols.count)
      return "a size with a capacity that does not exist";
  for (uint32_t i = 0; i < entry.symbols.count; ++i)
    if (const SymbolRecord &s = symbols()[entry.symbols.first + i]; s.otherwise > s.max)
      return "a capacity above its bound";
  if (const char *found = flaw_of_values(entry.inputs, entry))
    return found;
  return flaw_of_values(entry.outputs, entry);
}

// The names of the part's dims and sizes are those of the entry's.
bool Manifest::has_symbols(const EntryRecord &entry, const EntryRecord &part) const {
  for (Range EntryRecord::*list : {&EntryRecord::symbols, &EntryRecord::sizes})
    for (uint32_t i = 0; i < (part.*list).count; ++i) {
      const char *name = text(symbols()[(part.*list).first + i].name);
      bool is_there = false;
      for (uint32_t j = 0; !is_there && j < (entry.*list).count; ++j) {
        String known = symbols()[(entry.*list).first + j].name;
        if (!has_time(known.size + uint64_t{1}))
          return false;
        is_there = std::strcmp(text(known), name) == 0;
      }
      if (!is_there)
        return false;
    }
  return true;
}

// Inputs are the entry's or what earlier parts have made, outputs the entry's or the next border. That borders are as
// large as who reads them thinks, is checked when they are bound.
bool Manifest::has_arguments(const EntryRecord &entry, const PartRecord &part, uint32_t *borders) const {
  const EntryRecord &code = entries()[part.entry];
  if (!has_range(part.arguments, header_->part_arguments) || part.arguments.count > kMaxPartArguments ||
      part.arguments.count != uint64_t{code.inputs.count} + code.outputs.count)
    return false;
  uint32_t made = *borders;
  for (uint32_t a = 0; a < part.arguments.count; ++a) {
    PartArgumentRecord argument = part_arguments()[part.arguments.first + a];
    bool is_input = a < code.inputs.count;
    uint32_t dtype = values()[is_input ? code.inputs.first + a : code.outputs.first + a - code.inputs.count].dtype;
    if (argument.kind == PartArgumentKind::Border) {
      if (is_input ? argument.index >= made : argument.index != (*borders)++)
        return false;
      continue;
    }
    Range known = is_input ? entry.inputs : entry.outputs;
    if (argument.kind != (is_input ? PartArgumentKind::Input : PartArgumentKind::Output) || argument.index >= known.count ||
        values()[known.first + argument.index].dtype != dtype)
      return false;
  }
  return true;
}

const char *Manifest::flaw_of_parts(const EntryRecord &entry) const {
  constexpr const char *kWrong = "an entry with parts that are wrong";
  if (!has_range(entry.parts, header_->parts) || entry.parts.count > kMaxParts)
    return kWrong;
  uint32_t on_device = 0, borders = 0;
  for (uint32_t p = 0; p < entry.parts.count; ++p) {
    const PartRecord &part = parts()[entry.parts.first + p];
    if (part.entry < entry_count() || part.entry >= header_->entries.count || entries()[part.entry].parts.count != 0 ||
        entry.symbols.count > kMaxPartArguments || !has_symbols(entry, entries()[part.entry]) || !has_arguments(entry, part, &borders))
      return kWrong;
    on_device += (part.flags & kPartOnDevice) != 0;
  }
  return entry.parts.count != 0 && on_device == 0 ? kWrong : nullptr;
}

const char *Manifest::flaw_of_values(Range range, const EntryRecord &entry) const {
  for (uint32_t i = 0; i < range.count; ++i) {
    const ValueRecord &value = values()[range.first + i];
    if (!has_text(value.name) || dtype_size(value.dtype) == 0 || value.dims.count > kMaxRank ||
        !has_range(value.dims, header_->dims) || !has_time(value.dims.count + uint64_t{1}))
      return "a malformed input or output";
    for (uint32_t j = 0; j < value.dims.count; ++j) {
      const DimRecord &dim = dims()[value.dims.first + j];
      bool is_fine = has_text(dim.text);
      if (dim.kind == DimKind::Const)
        is_fine = is_fine && dim.value >= 0;
      else if (dim.kind == DimKind::Symbol)
        is_fine = is_fine && dim.symbol < entry.symbols.count;
      else
        is_fine = is_fine && dim.kind == DimKind::Planned;
      if (!is_fine)
        return "a malformed dim";
    }
  }
  return nullptr;
}

const char *Manifest::flaw_of_variable(const VariableRecord &variable) const {
  if (!has_text(variable.name) || dtype_size(variable.dtype) == 0 ||
      variable.dims.count > kMaxRank || !has_range(variable.dims, header_->dims) ||
      variable.offset % KILN_ALIGNMENT != 0)
    return "a malformed variable";
  int64_t shape[kMaxRank];
  for (uint32_t i = 0; i < variable.dims.count; ++i) {
    const DimRecord &dim = dims()[variable.dims.first + i];
    if (dim.kind != DimKind::Const)
      return "a variable without a fixed shape";
    shape[i] = dim.value;
  }
  uint64_t bytes = 0;
  if (!tensor_size(variable.dtype, shape, variable.dims.count, &bytes) ||
      bytes > header_->variables_size || variable.offset > header_->variables_size - bytes)
    return "a variable outside the variables block";
  if (variable.initial != kNoOffset &&
      (bytes > header_->weights_size || variable.initial > header_->weights_size - bytes))
    return "an initial value outside the weights";
  return nullptr;
}

bool Manifest::is_counter(uint32_t variable) const {
  return variable < header_->variables.count && variables()[variable].dtype == KILN_I64 &&
         variables()[variable].dims.count == 0;
}

uint64_t Manifest::variable_size(const VariableRecord &variable, int64_t *shape) const {
  for (uint32_t i = 0; i < variable.dims.count; ++i)
    shape[i] = dims()[variable.dims.first + i].value;
  uint64_t bytes = 0;
  tensor_size(variable.dtype, shape, variable.dims.count, &bytes);
  return bytes;
}

int32_t Locations::open(const void *data, uint64_t size, const char *what, KilnError *error) {
  if (size == 0)
    return KILN_OK;
  data_ = static_cast<const uint8_t *>(data);
  header_ = reinterpret_cast<const LocationsHeader *>(data_);
  bool is_fine = data != nullptr && reinterpret_cast<uintptr_t>(data) % 8 == 0 &&
                 size >= sizeof *header_ && header_->magic == kLocationsMagic &&
                 has_table(header_->strings, 1, size) &&
                 has_table(header_->records, sizeof(LocationRecord), size);
  for (uint32_t i = 0; is_fine && i < header_->records.count; ++i) {
    const LocationRecord &record = *find(i);
    const uint8_t *pool = data_ + header_->strings.offset;
    is_fine = has_string(record.file, pool, header_->strings.count) &&
              has_string(record.node, pool, header_->strings.count);
  }
  if (!is_fine)
    return fail(error, KILN_ERROR_FORMAT, what, ": the source locations are malformed");
  return KILN_OK;
}

const LocationRecord *Locations::find(uint32_t index) const {
  if (header_ == nullptr || index >= header_->records.count)
    return nullptr;
  return reinterpret_cast<const LocationRecord *>(data_ + header_->records.offset) + index;
}

} // namespace kiln::rt
