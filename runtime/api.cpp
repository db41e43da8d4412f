// The table behind kiln_get_api(), and the functions of it that only look something up.
#include <cstring>

#include "runtime/context.h"
#include "runtime/cuda/device.h"
#include "runtime/parts.h"
#include "runtime/thread_pool.h"
#include "runtime/variables.h"

// What the C header and dtypes.def both say.
#define KILN_DTYPE(name, bits, kind, code) constexpr int kCodeOf_##name = code;
#include "runtime/dtypes.def"
#undef KILN_DTYPE
static_assert(KILN_F64 == kCodeOf_f64 && KILN_F32 == kCodeOf_f32 && KILN_F16 == kCodeOf_f16);
static_assert(KILN_BF16 == kCodeOf_bf16 && KILN_I64 == kCodeOf_i64 && KILN_I32 == kCodeOf_i32);
static_assert(KILN_I16 == kCodeOf_i16 && KILN_I8 == kCodeOf_i8 && KILN_U64 == kCodeOf_u64);
static_assert(KILN_U32 == kCodeOf_u32 && KILN_U16 == kCodeOf_u16 && KILN_U8 == kCodeOf_u8);
static_assert(KILN_BOOL == kCodeOf_bool && KILN_F8E4M3FN == kCodeOf_f8e4m3fn);
static_assert(KILN_F8E4M3FNUZ == kCodeOf_f8e4m3fnuz && KILN_F8E5M2 == kCodeOf_f8e5m2);
static_assert(KILN_F8E5M2FNUZ == kCodeOf_f8e5m2fnuz && KILN_F8E8M0 == kCodeOf_f8e8m0);
static_assert(KILN_F4E2M1 == kCodeOf_f4e2m1 && KILN_I4 == kCodeOf_i4 && KILN_U4 == kCodeOf_u4);
static_assert(KILN_I2 == kCodeOf_i2 && KILN_U2 == kCodeOf_u2);
static_assert(KILN_MEMORY_ALIGNMENT == KILN_ALIGNMENT);
static_assert(KILN_MAX_RANK == kiln::package::kMaxRank);

namespace kiln::rt {
namespace {

using namespace package;

const char *code_text(int32_t code) {
  switch (code) {
  case KILN_OK:
    return "fine";
  case KILN_ERROR_USAGE:
    return "a function was called wrongly";
  case KILN_ERROR_IO:
    return "a file cannot be opened, read or written";
  case KILN_ERROR_FORMAT:
    return "the file is not a package, is truncated, or is damaged";
  case KILN_ERROR_VERSION:
    return "the package is of another version";
  case KILN_ERROR_MACHINE:
    return "the package has no code for this machine";
  case KILN_ERROR_NOT_FOUND:
    return "there is nothing of that name";
  case KILN_ERROR_MEMORY:
    return "the system gives no more memory or threads";
  case KILN_ERROR_DTYPE:
    return "a tensor has another dtype than wanted";
  case KILN_ERROR_SHAPE:
    return "a tensor has another shape than wanted";
  case KILN_ERROR_UNBOUND:
    return "an input, an output or a dim has no value";
  case KILN_ERROR_TRAP:
    return "the model stopped";
  case KILN_ERROR_CAPACITY:
    return "a size found in the data exceeds a capacity";
  case KILN_ERROR_DEVICE:
    return "the GPU or its driver failed, or there is none";
  default:
    return "unknown code";
  }
}

bool has_entry(const KilnModule *module, uint32_t index) {
  return module != nullptr && index < module->manifest.entry_count();
}

const EntryRecord *entry_at(const KilnModule *module, uint32_t index) {
  if (!has_entry(module, index))
    return nullptr;
  return &module->manifest.entries()[code_entry(*module, index)];
}

int32_t module_info(const KilnModule *module, KilnModuleInfo *info) {
  if (module == nullptr || info == nullptr)
    return KILN_ERROR_USAGE;
  const ManifestHeader &header = module->manifest.header();
  *info = {module->manifest.text(header.model_name),
           module->manifest.text(header.producer),
           module->target,
           module->manifest.entry_count(),
           header.variables.count,
           header.metadata.count,
           0,
           module->variables_size(),
           header.weights_size};
  return KILN_OK;
}

int32_t entry_info(const KilnModule *module, uint32_t index, KilnEntryInfo *info) {
  const EntryRecord *entry = entry_at(module, index);
  if (entry == nullptr || info == nullptr)
    return KILN_ERROR_USAGE;
  *info = {module->manifest.text(entry->name),
           entry->inputs.count,
           entry->outputs.count,
           entry->symbols.count,
           kernel_count(*module, code_entry(*module, index)),
           arena_of(*module, code_entry(*module, index)),
           (entry->flags & kEntryWritesVariables) != 0 ? 1u : 0u,
           entry->sizes.count};
  return KILN_OK;
}

int32_t find_entry(const KilnModule *module, const char *name) {
  if (module == nullptr || name == nullptr)
    return -1;
  for (uint32_t i = 0; i < module->manifest.entry_count(); ++i)
    if (std::strcmp(module->manifest.text(module->manifest.entries()[i].name), name) == 0)
      return static_cast<int32_t>(i);
  return -1;
}

int32_t value_info(const KilnModule &module, Range values, uint32_t index, KilnValueInfo *info) {
  if (index >= values.count || info == nullptr)
    return KILN_ERROR_USAGE;
  const ValueRecord &value = module.manifest.values()[values.first + index];
  std::memset(info, 0, sizeof *info);
  info->name = module.manifest.text(value.name);
  info->dtype = value.dtype;
  info->rank = value.dims.count;
  for (uint32_t i = 0; i < info->rank; ++i) {
    const DimRecord &dim = module.manifest.dims()[value.dims.first + i];
    bool is_symbol = dim.kind == DimKind::Symbol;
    info->dims[i] = {dim.kind == DimKind::Const ? dim.value : -1,
                     is_symbol ? static_cast<int32_t>(dim.symbol) : -1, 0,
                     module.manifest.text(dim.text)};
  }
  return KILN_OK;
}

int32_t input_info(const KilnModule *module, uint32_t entry, uint32_t index, KilnValueInfo *info) {
  const EntryRecord *record = entry_at(module, entry);
  return record != nullptr ? value_info(*module, record->inputs, index, info) : KILN_ERROR_USAGE;
}

int32_t output_info(const KilnModule *module, uint32_t entry, uint32_t index, KilnValueInfo *info) {
  const EntryRecord *record = entry_at(module, entry);
  return record != nullptr ? value_info(*module, record->outputs, index, info) : KILN_ERROR_USAGE;
}

int32_t symbol_info(const KilnModule *module, uint32_t entry, uint32_t index,
                    KilnSymbolInfo *info) {
  const EntryRecord *record = entry_at(module, entry);
  if (record == nullptr || index >= record->symbols.count || info == nullptr)
    return KILN_ERROR_USAGE;
  const SymbolRecord &symbol = module->manifest.symbols()[record->symbols.first + index];
  *info = {module->manifest.text(symbol.name), symbol.min, symbol.max};
  return KILN_OK;
}

int64_t capacity(const KilnModule *module, uint32_t entry, uint32_t index) {
  const EntryRecord *record = entry_at(module, entry);
  if (record == nullptr || index >= record->symbols.count)
    return -1;
  return module->manifest.symbols()[record->symbols.first + index].otherwise;
}

int32_t kernel_info(const KilnModule *module, uint32_t entry, uint32_t index,
                    KilnKernelInfo *info) {
  bool is_device = false;
  const KernelRecord *record = has_entry(module, entry) ? kernel_at(*module, code_entry(*module, entry), index, &is_device) : nullptr;
  if (record == nullptr || info == nullptr)
    return KILN_ERROR_USAGE;
  const KernelRecord &kernel = *record;
  *info = {module->manifest.text(kernel.name), "", 0, 0, "", kernel.flops, kernel.bytes};
  if (const LocationRecord *location = module->locations.find(kernel.location)) {
    info->file = module->locations.text(location->file);
    info->line = location->line;
    info->column = location->column;
    info->node = module->locations.text(location->node);
  }
  return KILN_OK;
}

const char *entry_target(const KilnModule *module, uint32_t entry) {
  if (!has_entry(module, entry))
    return nullptr;
  const EntryRecord &record = module->manifest.entries()[entry];
  return is_parted(*module, record)      ? module->device->name_of_both
         : is_on_device(*module, record) ? module->device->name
                                         : module->host_target;
}

const char *kernel_target(const KilnModule *module, uint32_t entry, uint32_t index) {
  bool is_device = false;
  if (!has_entry(module, entry) || kernel_at(*module, code_entry(*module, entry), index, &is_device) == nullptr)
    return nullptr;
  return is_device ? module->device->name : module->host_target;
}

int32_t variable_info(const KilnModule *module, uint32_t index, KilnVariableInfo *info) {
  if (module == nullptr || index >= module->manifest.header().variables.count || info == nullptr)
    return KILN_ERROR_USAGE;
  const VariableRecord &variable = module->manifest.variables()[index];
  std::memset(info, 0, sizeof *info);
  info->name = module->manifest.text(variable.name);
  info->dtype = variable.dtype;
  info->rank = variable.dims.count;
  info->size = module->manifest.variable_size(variable, info->dims);
  info->is_param = (variable.flags & kVariableParam) != 0 ? 1 : 0;
  return KILN_OK;
}

int32_t metadata(const KilnModule *module, uint32_t index, const char **key, const char **value) {
  if (module == nullptr || index >= module->manifest.header().metadata.count || key == nullptr ||
      value == nullptr)
    return KILN_ERROR_USAGE;
  const MetadataRecord &record = module->manifest.metadata()[index];
  *key = module->manifest.text(record.key);
  *value = module->manifest.text(record.value);
  return KILN_OK;
}

int32_t set_kernel_hook(KilnContext *context, KilnKernelHook hook, void *self) {
  if (context == nullptr)
    return KILN_ERROR_USAGE;
  context->hook = hook;
  context->hook_self = self;
  return KILN_OK;
}

constexpr KilnApi kApi = {
    .version = KILN_API_VERSION,
    .size = sizeof(KilnApi),
    .code_text = code_text,
    .open = open_file_module,
    .open_memory = open_memory_module,
    .open_static = open_static_module,
    .close = close_module,
    .module_info = module_info,
    .entry_info = entry_info,
    .find_entry = find_entry,
    .input_info = input_info,
    .output_info = output_info,
    .symbol_info = symbol_info,
    .kernel_info = kernel_info,
    .variable_info = variable_info,
    .metadata = metadata,
    .variables_init = variables_init,
    .variable_read = variable_read,
    .variable_write = variable_write,
    .save = save,
    .load = load,
    .context_size = context_size,
    .context_init = context_init,
    .context_variables = context_variables,
    .set_dims = set_dims,
    .bind_input = bind_input,
    .bind_output = bind_output,
    .output_dims = output_dims,
    .run = run,
    .set_kernel_hook = set_kernel_hook,
    .pool_create = pool_create,
    .pool_executor = pool_executor,
    .pool_destroy = pool_destroy,
    .result_dims = result_dims,
    .grown_dims = grown_dims,
    .capacity = capacity,
    .context_end = context_end,
    .start = start,
    .send = send,
    .finish = finish,
    .entry_target = entry_target,
    .kernel_target = kernel_target,
};

} // namespace
} // namespace kiln::rt

extern "C" const KilnApi *kiln_get_api(uint32_t version) {
  return version == KILN_API_VERSION ? &kiln::rt::kApi : nullptr;
}
