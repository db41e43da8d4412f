// Checks what callers bind: dtype, shape and size of every tensor, dims that agree, nothing
// missing.
//
// Shapes say the dims where they can; set_dims says the rest. All of it is looked at once after a
// change, and not again while runs repeat.
#include <cstring>

#include "runtime/context.h"
#include "runtime/dim_expression.h"

namespace kiln::rt {
namespace {

using namespace package;

struct Place {
  const char *kind; // "input" or "output"
  const ValueRecord *value;
  Binding *binding;
  void **arg;
};

Place input_at(KilnContext *context, uint32_t index) {
  return {"input", &context->module->manifest.values()[context->entry->inputs.first + index],
          &context->bindings[index], &context->args[index]};
}

Place output_at(KilnContext *context, uint32_t index) {
  uint32_t at = context->entry->inputs.count + index;
  return {"output", &context->module->manifest.values()[context->entry->outputs.first + index],
          &context->bindings[at], &context->args[at]};
}

const char *name_of(const KilnContext *context, const Place &place) {
  return context->module->manifest.text(place.value->name);
}

const char *symbol_name(const KilnContext *context, uint32_t index) {
  const Manifest &manifest = context->module->manifest;
  return manifest.text(manifest.symbols()[context->entry->symbols.first + index].name);
}

const DimRecord &dim_at(const KilnContext *context, const Place &place, uint32_t index) {
  return context->module->manifest.dims()[place.value->dims.first + index];
}

// "[N, 3, 224, 224]", as the model declares it.
const char *declared_shape(const KilnContext *context, const Place &place, char *buffer,
                           uint32_t size) {
  Text text(buffer, size);
  text << "[";
  for (uint32_t i = 0; i < place.value->dims.count; ++i)
    text << (i != 0 ? ", " : "") << context->module->manifest.text(dim_at(context, place, i).text);
  text << "]";
  return buffer;
}

int32_t fail_with_shape(const KilnContext *context, const Place &place, Dims got,
                        KilnError *error) {
  char wanted[128];
  return fail(error, KILN_ERROR_SHAPE, place.kind, " '", name_of(context, place), "' wants shape ",
              declared_shape(context, place, wanted, sizeof wanted), ", got ", got);
}

int32_t bind(KilnContext *context, const Place &place, const KilnTensor &tensor, KilnError *error) {
  const char *name = name_of(context, place);
  uint32_t dtype = place.value->dtype;
  if (tensor.dtype != dtype)
    return fail(error, KILN_ERROR_DTYPE, place.kind, " '", name, "' wants ", dtype_name(dtype),
                ", got ", dtype_name(tensor.dtype));
  if (reinterpret_cast<uintptr_t>(tensor.data) % dtype_size(dtype) != 0)
    return fail(error, KILN_ERROR_USAGE, place.kind, " '", name, "' is not aligned to its dtype, ",
                dtype_name(dtype));
  if (tensor.data == nullptr && tensor.size != 0)
    return fail(error, KILN_ERROR_USAGE, place.kind, " '", name, "' has a null pointer for ",
                tensor.size, " bytes");
  if (tensor.dims != nullptr) {
    Dims got{tensor.dims, tensor.rank < kMaxRank ? tensor.rank : kMaxRank};
    if (tensor.rank != place.value->dims.count)
      return fail_with_shape(context, place, got, error);
    for (uint32_t i = 0; i < tensor.rank; ++i) {
      const DimRecord &dim = dim_at(context, place, i);
      if (tensor.dims[i] < 0 || (dim.kind == DimKind::Const && tensor.dims[i] != dim.value))
        return fail_with_shape(context, place, got, error);
    }
    for (uint32_t i = 0; i < tensor.rank; ++i)
      place.binding->dims[i] = tensor.dims[i];
  }
  place.binding->data = tensor.data;
  place.binding->size = tensor.size;
  place.binding->is_bound = true;
  place.binding->has_shape = tensor.dims != nullptr;
  *place.arg = tensor.data;
  context->is_checked = context->is_sent = false;
  return KILN_OK;
}

// The value of a dim that a variable holds; `otherwise` where none does.
int64_t held_dim(const KilnContext *context, uint32_t index, int64_t otherwise) {
  const Manifest &manifest = context->module->manifest;
  const SymbolRecord &symbol = manifest.symbols()[context->entry->symbols.first + index];
  if (symbol.variable == kNoIndex || context->link != nullptr) // a part is told what there was when the run began
    return otherwise;
  int64_t value = 0;
  std::memcpy(&value, context->frame.variables + manifest.variables()[symbol.variable].offset, sizeof value);
  return value;
}

// Takes the dims that the shape of one input tells.
int32_t take_dims(KilnContext *context, uint32_t input, int64_t *dims, KilnError *error) {
  Place place = input_at(context, input);
  if (!place.binding->has_shape)
    return KILN_OK;
  for (uint32_t i = 0; i < place.value->dims.count; ++i) {
    const DimRecord &dim = dim_at(context, place, i);
    if (dim.kind != DimKind::Symbol)
      continue;
    int64_t got = place.binding->dims[i];
    if (dims[dim.symbol] >= 0 && dims[dim.symbol] != got)
      return fail(error, KILN_ERROR_SHAPE, "input '", name_of(context, place), "' has ",
                  symbol_name(context, dim.symbol), " = ", got, " (dim ", i,
                  "), where another input or set_dims says ", dims[dim.symbol]);
    dims[dim.symbol] = got;
  }
  return KILN_OK;
}

int32_t check_dims(const KilnContext *context, const int64_t *dims, KilnError *error) {
  for (uint32_t i = 0; i < context->entry->symbols.count; ++i) {
    const Manifest &manifest = context->module->manifest;
    const SymbolRecord &symbol = manifest.symbols()[context->entry->symbols.first + i];
    if (dims[i] < 0 && (symbol.variable == kNoIndex || context->link != nullptr))
      return fail(error, KILN_ERROR_UNBOUND, "the dim '", symbol_name(context, i), "' of '",
                  manifest.text(context->entry->name),
                  "' has no value: bind an input with its shape, or call set_dims");
    if (dims[i] < symbol.min || dims[i] > symbol.max)
      return fail(error, KILN_ERROR_SHAPE, "the dim '", symbol_name(context, i), "' is ", dims[i],
                  ", outside of ", symbol.min, "..", symbol.max);
  }
  return KILN_OK;
}

bool find_symbol(const void *self, const char *name, uint64_t size, int64_t *value) {
  auto *context = static_cast<const KilnContext *>(self);
  for (uint32_t i = 0; i < context->entry->symbols.count; ++i) {
    const char *symbol = symbol_name(context, i);
    if (std::strlen(symbol) != size || std::memcmp(symbol, name, size) != 0)
      continue;
    *value = context->dims[i];
    return true;
  }
  const Manifest &manifest = context->module->manifest;
  for (uint32_t i = 0; i < context->entry->sizes.count; ++i) {
    const char *symbol = manifest.text(manifest.symbols()[context->entry->sizes.first + i].name);
    if (std::strlen(symbol) != size || std::memcmp(symbol, name, size) != 0)
      continue;
    *value = context->sizes[i];
    return true;
  }
  return false;
}

int64_t computed_dim(const KilnContext *context, const char *text) {
  int64_t value = 0;
  return evaluate_dim(text, find_symbol, context, &value) ? value : -1;
}

// The shape a value has with the current dims; `planned` is where plan() put it (outputs). A dim
// that has no value (an overflow, a division by zero) is -1.
void shape_of(const KilnContext *context, const Place &place, const int64_t *planned,
              int64_t *shape) {
  for (uint32_t i = 0; i < place.value->dims.count; ++i) {
    const DimRecord &dim = dim_at(context, place, i);
    if (planned != nullptr)
      shape[i] = planned[i];
    else if (dim.kind == DimKind::Const)
      shape[i] = dim.value;
    else if (dim.kind == DimKind::Symbol)
      shape[i] = context->dims[dim.symbol];
    else
      shape[i] = computed_dim(context, context->module->manifest.text(dim.text));
  }
}

int32_t check_place(KilnContext *context, const Place &place, const int64_t *planned,
                    KilnError *error) {
  const char *name = name_of(context, place);
  Binding &binding = *place.binding;
  if (!binding.is_bound)
    return fail(error, KILN_ERROR_UNBOUND, place.kind, " '", name, "' of '",
                context->module->manifest.text(context->entry->name), "' is not bound");
  int64_t shape[kMaxRank] = {};
  uint32_t rank = place.value->dims.count;
  shape_of(context, place, planned, shape);
  uint64_t size = 0;
  if (!tensor_size(place.value->dtype, shape, rank, &size))
    return fail(error, KILN_ERROR_SHAPE, place.kind, " '", name, "' cannot have the shape ",
                Dims{shape, rank}, " that these dims give it");
  for (uint32_t i = 0; binding.has_shape && i < rank; ++i)
    if (binding.dims[i] != shape[i])
      return fail(error, KILN_ERROR_SHAPE, place.kind, " '", name, "' has shape ",
                  Dims{shape, rank}, " for these dims, and ", Dims{binding.dims, rank},
                  " is bound");
  binding.needed = size;
  if (binding.size < size)
    return fail(error, KILN_ERROR_SHAPE, place.kind, " '", name, "' of shape ", Dims{shape, rank},
                " needs ", size, " bytes, got ", binding.size);
  return KILN_OK;
}

bool do_overlap(const Binding &a, const Binding &b) {
  auto begin_a = reinterpret_cast<uintptr_t>(a.data), begin_b = reinterpret_cast<uintptr_t>(b.data);
  return a.size != 0 && b.size != 0 && begin_a < begin_b + b.size && begin_b < begin_a + a.size;
}

// Kernels read inputs after the first outputs are written, so they may not share memory.
int32_t check_overlaps(KilnContext *context, KilnError *error) {
  for (uint32_t i = 0; i < context->entry->outputs.count; ++i) {
    Place output = output_at(context, i);
    for (uint32_t j = 0; j < context->entry->inputs.count + i; ++j) {
      bool is_input = j < context->entry->inputs.count;
      Place other =
          is_input ? input_at(context, j) : output_at(context, j - context->entry->inputs.count);
      if (do_overlap(*output.binding, *other.binding))
        return fail(error, KILN_ERROR_USAGE, "output '", name_of(context, output),
                    "' overlaps the ", other.kind, " '", name_of(context, other), "' in memory");
    }
  }
  return KILN_OK;
}

bool same_dims(const int64_t *a, const int64_t *b, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i)
    if (a[i] != b[i])
      return false;
  return true;
}

} // namespace

int32_t set_dims(KilnContext *context, const int64_t *dims, uint32_t count, KilnError *error) {
  if (context == nullptr)
    return fail(error, KILN_ERROR_USAGE, "set_dims: null pointer");
  uint32_t wanted = context->entry->symbols.count;
  if (dims != nullptr && count != wanted)
    return fail(error, KILN_ERROR_USAGE, "set_dims: ", count, " dims, the entry has ", wanted);
  for (uint32_t i = 0; i < wanted; ++i)
    context->given_dims[i] = dims != nullptr && dims[i] >= 0 ? dims[i] : context->capacities[i];
  context->is_checked = context->is_sent = false;
  return KILN_OK;
}

int32_t bind_input(KilnContext *context, uint32_t index, const KilnTensor *tensor,
                   KilnError *error) {
  if (context == nullptr || tensor == nullptr)
    return fail(error, KILN_ERROR_USAGE, "bind_input: null pointer");
  if (index >= context->entry->inputs.count)
    return fail(error, KILN_ERROR_USAGE, "bind_input: input ", index, " of ",
                context->entry->inputs.count);
  return bind(context, input_at(context, index), *tensor, error);
}

int32_t bind_output(KilnContext *context, uint32_t index, const KilnTensor *tensor,
                    KilnError *error) {
  if (context == nullptr || tensor == nullptr)
    return fail(error, KILN_ERROR_USAGE, "bind_output: null pointer");
  if (index >= context->entry->outputs.count)
    return fail(error, KILN_ERROR_USAGE, "bind_output: output ", index, " of ",
                context->entry->outputs.count);
  return bind(context, output_at(context, index), *tensor, error);
}

int32_t resolve_dims(KilnContext *context, KilnError *error) {
  uint32_t count = context->entry->symbols.count;
  int64_t *dims = context->new_dims;
  for (uint32_t i = 0; i < count; ++i)
    dims[i] = held_dim(context, i, context->given_dims[i]);
  for (uint32_t i = 0; i < context->entry->inputs.count; ++i)
    if (int32_t code = take_dims(context, i, dims, error))
      return code;
  if (int32_t code = check_dims(context, dims, error))
    return code;
  if (context->is_planned && same_dims(dims, context->dims, count))
    return KILN_OK;
  context->is_planned = context->is_checked = context->is_sent = false;
  context->has_run = false;
  ++context->plans;
  for (uint32_t i = 0; i < count; ++i)
    context->dims[i] = dims[i];
  if (int32_t code =
          call_plan(*context->module, context->entry_index, dims, context->plan_out, error))
    return code;
  if (context->parts == nullptr && static_cast<uint64_t>(context->plan_out[0]) > context->arena_size)
    return fail(error, KILN_ERROR_SHAPE, "the dims ", Dims{dims, count}, " need ",
                context->plan_out[0], " bytes of arena, and the context was made with ",
                context->arena_size, ": make it for larger dims");
  context->is_planned = true;
  return KILN_OK;
}

int32_t check_bindings(KilnContext *context, KilnError *error) {
  for (uint32_t i = 0; i < context->entry->inputs.count; ++i)
    if (int32_t code = check_place(context, input_at(context, i), nullptr, error))
      return code;
  const int64_t *planned = context->plan_out + 1;
  for (uint32_t i = 0; i < context->entry->outputs.count; ++i) {
    Place place = output_at(context, i);
    if (int32_t code = check_place(context, place, planned, error))
      return code;
    planned += place.value->dims.count;
  }
  if (int32_t code = check_overlaps(context, error))
    return code;
  context->is_checked = true;
  return KILN_OK;
}

int32_t output_dims(KilnContext *context, uint32_t index, int64_t *dims, KilnError *error) {
  if (context == nullptr || dims == nullptr)
    return fail(error, KILN_ERROR_USAGE, "output_dims: null pointer");
  if (index >= context->entry->outputs.count)
    return fail(error, KILN_ERROR_USAGE, "output_dims: output ", index, " of ",
                context->entry->outputs.count);
  if (int32_t code = resolve_dims(context, error))
    return code;
  const int64_t *planned = context->plan_out + 1;
  for (uint32_t i = 0; i < index; ++i)
    planned += output_at(context, i).value->dims.count;
  for (uint32_t i = 0; i < output_at(context, index).value->dims.count; ++i)
    dims[i] = planned[i];
  return KILN_OK;
}

int32_t result_dims(KilnContext *context, uint32_t index, int64_t *dims, KilnError *error) {
  if (context == nullptr || dims == nullptr)
    return fail(error, KILN_ERROR_USAGE, "result_dims: null pointer");
  if (index >= context->entry->outputs.count)
    return fail(error, KILN_ERROR_USAGE, "result_dims: output ", index, " of ",
                context->entry->outputs.count);
  if (context->entry->sizes.count == 0)
    return output_dims(context, index, dims, error);
  if (!context->has_run)
    return fail(error, KILN_ERROR_USAGE, "result_dims: nothing has run with what is bound");
  shape_of(context, output_at(context, index), nullptr, dims);
  return KILN_OK;
}

} // namespace kiln::rt
