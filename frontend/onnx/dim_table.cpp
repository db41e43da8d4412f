// Types of a graph's inputs: declared sizes, symbols, and what --dim and --shape fix.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace kiln::onnx {

std::string identifier(std::string_view name) {
  std::string out;
  for (char c : name) {
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    bool digit = c >= '0' && c <= '9';
    if (digit && out.empty())
      out += '_';
    out += letter || digit ? c : '_';
  }
  // Words that mean something in an expression over dims.
  if (out.empty() || out == "min" || out == "max")
    out += "_";
  return out;
}

void DimTable::error(std::string message) { diagnostics_.error({file_, 0, 0, {}}, std::move(message)); }

Symbol DimTable::symbol_for(std::string_view param) {
  if (auto it = symbols_.find(param); it != symbols_.end())
    return it->second;
  std::string name = identifier(param);
  while (!used_.insert(Symbol(name)).second)
    name += "_";
  symbols_.emplace(std::string(param), Symbol(name));
  return Symbol(name);
}

Dim DimTable::dim_of(std::string_view input, size_t i, const DimView &view) {
  // Old exporters write -1, or a question mark, for a size that they do not know.
  if (view.value && *view.value != -1)
    return *view.value;
  bool named = std::any_of(view.param.begin(), view.param.end(), [](unsigned char c) { return std::isalnum(c) || c >= 0x80; });
  std::string param = named ? std::string(view.param) : fmt::format("{}_d{}", input, i);
  return Dim::symbol(symbol_for(param));
}

bool DimTable::bind(Symbol name, int64_t value, const ValueInfoView &input) {
  auto [it, fresh] = values_.emplace(name, Dim(value));
  if (fresh || it->second == Dim(value))
    return true;
  error(fmt::format("--shape {}: the size {} would be both {} and {}", input.name, name.text(),
                    it->second.text(), value));
  return false;
}

// The sizes of an argument take the place of declared ones: a model of one image serves for many.
std::optional<Shape> DimTable::placed_shape(const ValueInfoView &input, Shape declared, const Shape &sizes) {
  if (input.has_shape && sizes.size() != declared.size()) {
    error(fmt::format("the input '{}' has {} dims ({}), not {}", input.name, declared.size(), shape_text(declared), sizes.size()));
    return std::nullopt;
  }
  for (size_t i = 0; i < declared.size(); ++i) {
    auto symbol = declared[i].try_symbol();
    if (!symbol)
      continue;
    auto [it, fresh] = values_.emplace(*symbol, sizes[i]);
    if (!fresh && it->second != sizes[i]) {
      error(fmt::format("the size {} of the model would be both {} and {}", symbol->text(), it->second.text(), sizes[i].text()));
      return std::nullopt;
    }
  }
  return sizes;
}

std::optional<Shape> DimTable::shape_of(const ValueInfoView &input) {
  auto given = options_.shapes.find(std::string(input.name));
  Shape declared;
  if (input.has_shape)
    for (size_t i = 0; i < input.shape.size(); ++i)
      declared.push_back(dim_of(input.name, i, input.shape[i]));
  for (const Dim &d : declared)
    if (d.is_const() && d.as_const() < 0) {
      error(fmt::format("the input '{}' has a negative size: {}", input.name, shape_text(declared)));
      return std::nullopt;
    }
  if (auto placed = options_.placed.find(std::string(input.name)); placed != options_.placed.end())
    return placed_shape(input, std::move(declared), placed->second);
  if (given == options_.shapes.end()) {
    if (input.has_shape)
      return declared;
    error(fmt::format("the model does not say how many dims the input '{}' has; give its shape with "
                      "--shape {}=...",
                      input.name, input.name));
    return std::nullopt;
  }
  const std::vector<int64_t> &sizes = given->second;
  if (input.has_shape && sizes.size() != declared.size()) {
    error(fmt::format("--shape {}: the input has {} dims ({}), not {}", input.name, declared.size(),
                      shape_text(declared), sizes.size()));
    return std::nullopt;
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] < 0) {
      error(fmt::format("--shape {}: {} is no size", input.name, sizes[i]));
      return std::nullopt;
    }
    if (!input.has_shape) {
      declared.push_back(sizes[i]);
    } else if (auto symbol = declared[i].try_symbol()) {
      if (!bind(*symbol, sizes[i], input))
        return std::nullopt;
    } else if (declared[i] != Dim(sizes[i])) {
      error(fmt::format("--shape {}: the model fixes dim {} at {}, not {}", input.name, i,
                        declared[i].text(), sizes[i]));
      return std::nullopt;
    }
  }
  return declared;
}

bool DimTable::apply(std::vector<TensorType> &types, const std::vector<const ValueInfoView *> &inputs) {
  bool ok = true;
  for (const auto &[name, value] : options_.dims) {
    auto it = symbols_.find(name);
    Symbol symbol = it != symbols_.end() ? it->second : Symbol(name);
    if (!used_.contains(symbol)) {
      std::string known;
      for (const auto &[param, s] : symbols_)
        known += (known.empty() ? "" : ", ") + std::string(s.text());
      error(fmt::format("--dim {}: the model has no size of this name; it has: {}", name,
                        known.empty() ? "none" : known));
      ok = false;
    } else if (value.is_const() && value.as_const() < 0) {
      error(fmt::format("--dim {}: {} is no size", name, value.text()));
      ok = false;
    } else {
      auto [at, fresh] = values_.emplace(symbol, value);
      if (!fresh && at->second != value) {
        error(fmt::format("--dim {}={} contradicts a --shape, which makes it {}", name, value.text(),
                          at->second.text()));
        ok = false;
      }
    }
  }
  for (const auto &[name, sizes] : options_.shapes) {
    bool found = false;
    std::string known;
    for (const ValueInfoView *input : inputs) {
      found |= input->name == name;
      known += (known.empty() ? "" : ", ") + std::string(input->name);
    }
    if (!found) {
      error(fmt::format("--shape {}: the model has no input of this name; it has: {}", name, known));
      ok = false;
    }
  }
  for (TensorType &type : types)
    for (Dim &d : type.shape)
      d = d.substitute([&](Symbol s) {
        auto it = values_.find(s);
        return it == values_.end() ? std::nullopt : std::optional(it->second);
      });
  return ok;
}

std::optional<std::vector<TensorType>>
DimTable::input_types(const std::vector<const ValueInfoView *> &inputs) {
  std::vector<TensorType> out;
  bool ok = true;
  for (const ValueInfoView *input : inputs) {
    TensorType type;
    bool text = input->elem_type == kStringType;
    auto dtype = text ? DType::u8 : dtype_from_onnx(input->elem_type);
    if (!input->is_tensor) {
      error(fmt::format("the input '{}' is not a tensor, which is not supported", input->name));
      ok = false;
    } else if (!dtype) {
      error(fmt::format("the input '{}' has elements of {}, which is not supported", input->name,
                        onnx_type_name(input->elem_type)));
      ok = false;
    } else {
      type.dtype = *dtype;
    }
    auto shape = shape_of(*input);
    ok &= shape.has_value();
    if (shape && shape->size() > size_t(kMaxRank)) {
      error(fmt::format("the input '{}' has {} dims; at most {} are supported", input->name,
                        shape->size(), kMaxRank));
      ok = false;
    }
    if (shape)
      type.shape = *std::move(shape);
    if (text) {
      text_width_ = symbol_for(kTextWidth);
      type.shape.push_back(Dim::symbol(*text_width_));
    }
    out.push_back(std::move(type));
  }
  ok &= apply(out, inputs);
  for (size_t i = 0; i < out.size() && ok; ++i)
    if (!element_count(out[i].shape).is_valid()) {
      error(fmt::format("the input '{}' is too large: {}", inputs[i]->name, out[i].text()));
      ok = false;
    }
  return ok ? std::optional(std::move(out)) : std::nullopt;
}

} // namespace kiln::onnx
