#include "frontend/onnx/value_numbers.h"

#include "ir/ops/op.h"

#include <fmt/format.h>

#include <optional>

namespace kiln::onnx {
namespace {

constexpr int kMaxDepth = 200; // what lies deeper is itself and nothing else

// Nothing for what names other things than numbers.
struct AttrText {
  std::optional<std::string> operator()(bool b) const { return b ? "true" : "false"; }
  std::optional<std::string> operator()(const Dim &d) const { return d.text(); }
  std::optional<std::string> operator()(double x) const { return fmt::format("{:a}", x); }
  std::optional<std::string> operator()(DType t) const { return std::string(dtype_name(t)); }
  std::optional<std::string> operator()(const std::vector<Dim> &list) const { return shape_text(list); }
  template <class T> std::optional<std::string> operator()(const T &) const { return std::nullopt; }
};

// Whether a convert keeps every integer.
bool keeps(DType from, DType to) {
  if (from == to)
    return true;
  return is_integer(from) && is_integer(to) && dtype_bits(to) > dtype_bits(from) && (is_signed_int(to) || !is_signed_int(from));
}

} // namespace

int ValueNumbers::intern(const std::string &key) { return interned_.emplace(key, int(interned_.size())).first->second; }

bool ValueNumbers::is_one(ValueId value) const { return element_count(function_.type(value).shape).is_const(1); }

int ValueNumbers::of_size(ValueId value, bool &at_least_0) {
  at_least_0 = false;
  const Node *def = function_.def(value);
  for (; def && def->op == Op::reshape; def = function_.def(value))
    value = def->operands[0];
  for (size_t i : {size_t(0), size_t(1)}) {
    const Node *floor = def && def->op == Op::maximum && is_one(value) ? function_.def(def->operands[i]) : nullptr;
    if (!floor || floor->op != Op::constant)
      continue;
    const Tensor &tensor = module_.constants[size_t(floor->attrs.get_constant("value"))].tensor;
    if (is_integer(tensor.dtype()) && tensor.count() == 1 && tensor.at_i64(0) == 0) {
      at_least_0 = true;
      return of(def->operands[1 - i]);
    }
  }
  return of(value);
}

int ValueNumbers::number(ValueId value, int depth) {
  if (auto it = known_.find(value); it != known_.end())
    return it->second;
  int out = 0;
  if (const Node *def = function_.def(value); is_one(value))
    out = element(value, 0, depth);
  else if (def && depth < kMaxDepth)
    out = number_of_node(value, *def, depth);
  else
    out = intern(fmt::format("v{}", value.index));
  known_.emplace(value, out);
  return out;
}

int ValueNumbers::number_of_node(ValueId value, const Node &node, int depth) {
  const OpDef &def = op_def(node.op);
  int itself = intern(fmt::format("v{}", value.index));
  if (def.structural || !node.regions.empty() || def.has(kNoFold) || def.has(kSideEffect))
    return itself;
  std::string key = fmt::format("{} {}", def.name, function_.value(value).result);
  for (const auto &[name, attr] : node.attrs.all()) {
    auto text = std::visit(AttrText(), attr);
    if (!text)
      return itself;
    key += fmt::format(" {}={}", name, *text);
  }
  for (ValueId operand : node.operands) {
    const TensorType &type = function_.type(operand);
    bool shapeless = def.has(kElementwise) && is_one(operand) && is_one(value);
    key += fmt::format(" {}:{}", number(operand, depth + 1), shapeless ? std::string(dtype_name(type.dtype)) : type.text());
  }
  return intern(key);
}

int ValueNumbers::element(ValueId value, int64_t at, int depth) {
  for (;; ++depth) {
    const Node *def = function_.def(value);
    auto itself = [&] {
      if (is_one(value))
        return def && depth < kMaxDepth ? number_of_node(value, *def, depth) : intern(fmt::format("v{}", value.index));
      return intern(fmt::format("e{} {}", number(value, depth + 1), at));
    };
    if (!def || depth >= kMaxDepth)
      return itself();
    ValueId from = def->operands.empty() ? ValueId() : def->operands[0];
    switch (def->op) {
    case Op::constant: {
      const Tensor &tensor = module_.constants[size_t(def->attrs.get_constant("value"))].tensor;
      if (is_integer(tensor.dtype()))
        return intern(fmt::format("i{}", tensor.at_i64(at)));
      if (is_float(tensor.dtype()))
        return intern(fmt::format("f{:a}", tensor.at_f64(at)));
      return itself();
    }
    case Op::reshape:
      value = from;
      continue;
    case Op::convert:
      if (!keeps(function_.type(from).dtype, function_.type(value).dtype))
        return itself();
      value = from;
      continue;
    case Op::slice: {
      const auto &starts = def->attrs.get_dims("starts"), &steps = def->attrs.get_dims("steps");
      if (function_.type(from).rank() != 1 || starts.size() != 1 || !starts[0].is_const() || !steps[0].is_const() || starts[0].as_const() < 0)
        return itself();
      at = starts[0].as_const() + at * steps[0].as_const();
      value = from;
      continue;
    }
    case Op::gather: {
      const Node *list = function_.def(def->operands[1]);
      if (function_.type(from).rank() != 1 || !list || list->op != Op::constant)
        return itself();
      auto size = function_.type(from).shape[0].try_const();
      int64_t index = module_.constants[size_t(list->attrs.get_constant("value"))].tensor.at_i64(at);
      index += index < 0 && size ? *size : 0;
      if (index < 0 || !size || index >= *size)
        return itself();
      at = index;
      value = from;
      continue;
    }
    case Op::concat: {
      if (function_.type(value).rank() != 1)
        return itself();
      ValueId part;
      for (ValueId operand : def->operands) {
        auto size = function_.type(operand).shape[0].try_const();
        if (!size)
          return itself();
        if (at < *size) {
          part = operand;
          break;
        }
        at -= *size;
      }
      if (!part.valid())
        return itself();
      value = part;
      continue;
    }
    default:
      return itself();
    }
  }
}

} // namespace kiln::onnx
