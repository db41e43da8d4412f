#include "frontend/onnx/lists.h"

#include "frontend/onnx/importer.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

constexpr int64_t kMaxParts = 4096; // of one sequence at the model's border

std::string known_names(const std::vector<const ValueInfoView *> &inputs) {
  std::string out;
  for (const ValueInfoView *input : inputs)
    out += (out.empty() ? "" : ", ") + std::string(input->name);
  return out.empty() ? "none" : out;
}

// What is wrong with what the user said of an input; empty where nothing is.
std::string wrong_form(const ValueInfoView &input, const OnnxList *list, bool has_shape) {
  if (input.map_key)
    return list || has_shape ? fmt::format("the input '{0}' is a map: give the number of its entries, --shape {0}.keys=3", input.name) : "";
  if (!input.is_sequence && !input.is_optional)
    return list ? fmt::format("the input '{}' is neither a sequence nor an optional: give its shape, --shape {}=2x3",
                              input.name, input.name)
                : "";
  if (!list && (input.is_sequence || !has_shape))
    return input.is_sequence
               ? fmt::format("the input '{}' is {}sequence, which is compiled for one length: give the shapes of its "
                             "tensors with --shape '{}=[2x3,4x3]', '{}=[3*2x3]' for three of one shape, or '{}=[3*?]' "
                             "for shapes as the model declares them{}",
                             input.name, input.is_optional ? "an optional " : "a ", input.name, input.name, input.name,
                             input.is_optional ? fmt::format("; or leave it out with --shape {}=none", input.name) : "")
               : fmt::format("the input '{}' is optional: leave it out with --shape {}=none, or give its shape, "
                             "--shape '{}=?' for the one that the model declares",
                             input.name, input.name, input.name);
  if (list && list->absent && !input.is_optional)
    return fmt::format("--shape {}=none: the input is not optional", input.name);
  if (list && !list->absent && list->is_list != input.is_sequence)
    return fmt::format("--shape {}: the input {}", input.name,
                       input.is_sequence ? "is a sequence; write its shapes in brackets" : "is no sequence");
  if (has_shape && input.is_sequence)
    return fmt::format("--shape {}: the input is a sequence; write its shapes in brackets", input.name);
  if (list && int64_t(list->items.size()) > kMaxParts)
    return fmt::format("--shape {}: {} tensors; at most {} are supported", input.name, list->items.size(), kMaxParts);
  return "";
}

// The sizes that the model leaves open become the given ones; DimTable compares the others.
void fix(ValueInfoView &part, const std::vector<int64_t> &sizes) {
  for (size_t i = 0; i < part.shape.size() && i < sizes.size(); ++i)
    if (!part.shape[i].value)
      part.shape[i].value = sizes[i];
}

} // namespace

const ValueInfoView *InputGroups::part(const ValueInfoView &input, std::string name) {
  names_.push_back(std::move(name));
  parts_.push_back(input);
  ValueInfoView &out = parts_.back();
  out.name = names_.back();
  out.is_tensor = true;
  out.is_sequence = out.is_optional = false;
  return &out;
}

// The rows of a map's keys and of its values have one length.
const ValueInfoView *InputGroups::map_part(const ValueInfoView &input, bool keys) {
  const ValueInfoView *out = part(input, fmt::format("{}.{}", input.name, keys ? "keys" : "values"));
  names_.push_back(fmt::format("{}.entries", input.name));
  ValueInfoView &row = parts_.back();
  row.elem_type = keys ? input.map_key : input.elem_type;
  row.map_key = 0;
  row.has_shape = true;
  row.shape = {DimView{}};
  row.shape[0].param = names_.back();
  return out;
}

bool InputGroups::expand(const std::vector<const ValueInfoView *> &inputs, const OnnxOptions &options,
                         Diagnostics &diagnostics, Symbol file) {
  bool ok = true;
  auto fail = [&](std::string message) {
    diagnostics.error({file, 0, 0, {}}, std::move(message));
    ok = false;
  };
  options_ = options;
  for (const auto &[name, value] : options.constants)
    options_.shapes.erase(name);
  std::set<std::string_view> names;
  for (const ValueInfoView *input : inputs)
    names.insert(input->name);
  for (const auto &[name, list] : options.lists)
    if (!names.contains(name))
      fail(fmt::format("--shape {}: the model has no input of this name; it has: {}", name, known_names(inputs)));
  for (const ValueInfoView *input : inputs) {
    std::string name(input->name);
    auto it = options.lists.find(name);
    const OnnxList *list = it == options.lists.end() ? nullptr : &it->second;
    Group group{input, list && list->absent, {}};
    // A constant needs no more said of it.
    bool fixed = options.constants.contains(name);
    std::string wrong = wrong_form(*input, list, fixed || options.shapes.contains(name));
    if (!wrong.empty()) {
      fail(std::move(wrong));
      continue;
    }
    for (bool keys : {true, false})
      if (input->map_key) {
        group.parts.push_back(map_part(*input, keys));
        if (names.contains(group.parts.back()->name))
          fail(fmt::format("the input '{}' has the name of a part of the map '{}'; rename one of them", group.parts.back()->name, name));
      }
    if (!input->is_sequence && !input->map_key && !group.absent)
      group.parts.push_back(input->is_optional ? part(*input, name) : input);
    for (size_t i = 0; input->is_sequence && !group.absent && i < list->items.size(); ++i) {
      const ValueInfoView *item = part(*input, fmt::format("{}.{}", name, i));
      if (names.contains(item->name))
        fail(fmt::format("the input '{}' has the name of a part of the sequence '{}'; rename one of them", item->name,
                         name));
      // The tensors need not be of one shape, also where the model has names for their sizes.
      if (list->items[i] && !options.constants.contains(std::string(item->name))) {
        fix(parts_.back(), *list->items[i]);
        options_.shapes[std::string(item->name)] = *list->items[i];
      }
      group.parts.push_back(item);
    }
    groups_.push_back(std::move(group));
  }
  return ok;
}

std::vector<Val> flatten(std::span<const Val> values, std::vector<Form> &forms) {
  std::vector<Val> out;
  for (const Val &v : values) {
    forms.push_back({v.list ? int64_t(v.list->size()) : -1, v.absent, v.list ? v.dtype() : DType::f32,
                     v.list ? !v.list->empty() && v.list->front().text : v.text});
    if (v.list)
      out.insert(out.end(), v.list->begin(), v.list->end());
    else if (!v.absent)
      out.push_back(v);
  }
  return out;
}

std::vector<Val> regroup(Emitter &e, const std::vector<Form> &forms, std::span<const Val> tensors) {
  std::vector<Val> out;
  size_t at = 0;
  for (const Form &form : forms) {
    size_t count = form.absent ? 0 : form.length < 0 ? 1 : size_t(form.length);
    KILN_CHECK(at + count <= tensors.size(), "forms and tensors come from the same values");
    std::vector<Val> part(tensors.begin() + std::ptrdiff_t(at), tensors.begin() + std::ptrdiff_t(at + count));
    at += count;
    for (Val &v : part)
      v.text = form.text;
    if (form.absent)
      out.push_back(e.absent());
    else if (form.length < 0)
      out.push_back(part[0]);
    else
      out.push_back(e.list(std::move(part), form.dtype));
  }
  return out;
}

std::vector<bool> text_flags(const std::vector<Form> &forms) {
  std::vector<bool> out;
  for (const Form &form : forms)
    out.insert(out.end(), form.absent ? 0 : form.length < 0 ? 1 : size_t(form.length), form.text);
  return out;
}

std::string describe(const Form &form) {
  return form.absent       ? "an optional that holds nothing"
         : form.length < 0 ? (form.text ? "text" : "a tensor")
                           : fmt::format("a sequence of {} {} tensor{}", form.length, dtype_name(form.dtype),
                                         form.length == 1 ? "" : "s");
}

Result<Val> stack(Emitter &e, std::span<const Val> items, int axis) {
  std::vector<Val> parts;
  for (const Val &item : items) {
    if (item.type != items[0].type)
      return Error{fmt::format("its tensors are of different types, {} and {}", items[0].type.text(), item.type.text())};
    Shape shape = item.type.shape;
    shape.insert(shape.begin() + axis, 1);
    KILN_TRY(part, reshape(e, item, std::move(shape)));
    parts.push_back(part);
  }
  Val out = parts[0];
  if (parts.size() > 1) {
    KILN_TRY(joined, e.emit(Op::concat, std::move(parts), {{"axis", attr_int(axis)}}));
    out = joined;
  }
  out.text = items[0].text;
  return out;
}

} // namespace kiln::onnx
