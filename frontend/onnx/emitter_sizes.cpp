// Sizes that a model computes while it runs: numbers of the graph that become symbols, each with a bound that
// memory is planned for.
#include "frontend/onnx/emitter.h"
#include "frontend/onnx/importer.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::onnx {

std::string Emitter::unique_size(std::string_view stem) {
  auto taken = [&](const std::string &name) {
    Symbol symbol(name);
    if (found_.contains(symbol) || module_.capacities.contains(name))
      return true;
    for (ValueId arg : function_.body.args)
      for (const Dim &d : function_.type(arg).shape)
        if (d.depends_on(symbol))
          return true;
    return false;
  };
  std::string base = identifier(stem), name = base;
  for (int i = 1; taken(name); ++i)
    name = fmt::format("{}_{}", base, i);
  return name;
}

Dim Emitter::capacity(std::string_view stem, int64_t otherwise) {
  std::string name = unique_size(stem);
  module_.capacities.emplace(name, otherwise);
  return Dim::symbol(name);
}

Result<std::optional<Dim>> Emitter::known_size(const Val &count) {
  if (count.dtype() != DType::i64 || !element_count(count.type.shape).is_const(1))
    return Error{fmt::format("a size must be one i64, not {}", count.type.text())};
  auto known = dims(count);
  if (!known)
    return std::optional<Dim>();
  const Dim &d = (*known)[0];
  if (!d.is_valid() || (d.is_const() && d.as_const() < 0))
    return Error{fmt::format("a size is {}", d.text())};
  return std::optional(d);
}

Result<std::optional<Symbol>> Emitter::bound_before(ValueId count) {
  bool at_least_0 = false;
  auto [begin, end] = found_by_number_.equal_range(numbers_.of_size(count, at_least_0));
  for (auto it = begin; it != end; ++it) {
    const FoundSize &size = found_.at(it->second);
    const auto &here = builder_.block().nodes;
    if (size.local && std::find(here.begin(), here.end(), size.bound) == here.end())
      continue;
    // What is bound now is equal or negative, which is an error.
    if (size.at_least_0 && !at_least_0)
      KILN_RETURN_IF_ERROR(bind_new(count, Dim::symbol(it->second), it->second.text()));
    return std::optional(it->second);
  }
  return std::optional<Symbol>();
}

Result<Dim> Emitter::bind_new(ValueId id, const Dim &bound, std::string_view stem) {
  if (function_.type(id).rank() > 0) {
    KILN_TRY(scalar, raw(Op::reshape, {id}, {{"shape", Shape()}}));
    id = scalar;
  }
  Symbol symbol(unique_size(stem));
  KILN_TRY(node, builder_.emit(Op::bind_size, {id}, {{"symbol", std::string(symbol.text())}, {"bound", bound}}));
  FoundSize size{id, largest(bound), &builder_.block() != &function_.body, false, node};
  found_by_number_.emplace(numbers_.of_size(id, size.at_least_0), symbol);
  found_.emplace(symbol, std::move(size));
  return Dim::symbol(symbol);
}

Result<Dim> Emitter::bind_size(const Val &count, const Dim &bound, std::string_view stem) {
  KILN_TRY(known, known_size(count));
  if (known)
    return *known;
  KILN_TRY(id, materialize(count));
  KILN_TRY(symbol, bound_before(id));
  if (symbol) {
    // It may have been bound by more.
    Dim size = Dim::symbol(*symbol);
    const FoundSize &found = found_.at(*symbol);
    if (known_nonnegative(bound - found.largest, DimRanges()))
      return size;
    bool always = &builder_.block() == &function_.body; // what is required holds in every run
    if (always && !found.local && require_equal(min(size, bound), size, std::string(stem)))
      return size;
  }
  return bind_new(id, bound, stem);
}

Result<Dim> Emitter::bind_free_size(const Val &count, int64_t room, std::string_view stem, std::string_view room_stem) {
  KILN_TRY(known, known_size(count));
  if (known)
    return *known;
  KILN_TRY(id, materialize(count));
  KILN_TRY(symbol, bound_before(id));
  if (symbol)
    return Dim::symbol(*symbol);
  return bind_new(id, capacity(room_stem.empty() ? fmt::format("{}_room", stem) : std::string(room_stem), room), stem);
}

bool Emitter::is_found(const Dim &d) const {
  if (found_.empty() || d.is_const())
    return false;
  auto symbols = d.symbols();
  return std::any_of(symbols.begin(), symbols.end(), [&](Symbol s) { return found_.contains(s); });
}

bool Emitter::is_found(const Shape &shape) const {
  return std::any_of(shape.begin(), shape.end(), [&](const Dim &d) { return is_found(d); });
}

bool Emitter::is_local(const Dim &d) const {
  if (found_.empty() || d.is_const())
    return false;
  auto symbols = d.symbols();
  return std::any_of(symbols.begin(), symbols.end(), [&](Symbol s) {
    auto it = found_.find(s);
    return it != found_.end() && it->second.local;
  });
}

Dim Emitter::largest(const Dim &d) const {
  if (!is_found(d))
    return d;
  return bounds_of(d, [&](Symbol s) -> std::optional<Dim> {
           auto it = found_.find(s);
           return it == found_.end() ? std::nullopt : std::optional(it->second.largest);
         }).greatest;
}

std::vector<std::optional<Dim>> Emitter::known_pieces(ValueId value) const {
  constexpr int64_t kMost = kMaxRank;
  std::vector<std::optional<Dim>> out;
  auto count = element_count(function_.type(value).shape).try_const();
  if (!count || *count > kMost)
    return out;
  out.resize(size_t(*count));
  if (auto it = placed_elements_.find(value); it != placed_elements_.end()) {
    for (size_t i = 0; i < out.size() && i < it->second.size(); ++i)
      if (it->second[i].denominator == 1)
        out[i] = it->second[i].numerator;
    return out;
  }
  const Node *def = function_.def(value);
  if (!def || !is_integer(function_.type(value).dtype))
    return out;
  switch (def->op) {
  case Op::constant: {
    const Tensor &tensor = module_.constants[size_t(def->attrs.get_constant("value"))].tensor;
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = tensor.at_i64(int64_t(i));
    return out;
  }
  case Op::reshape:
    return known_pieces(def->operands[0]);
  case Op::convert:
    return is_integer(function_.type(def->operands[0]).dtype) ? known_pieces(def->operands[0]) : out;
  case Op::concat: {
    std::vector<std::optional<Dim>> joined;
    for (ValueId operand : def->operands) {
      auto part = known_pieces(operand);
      auto size = element_count(function_.type(operand).shape).try_const();
      if (function_.type(operand).rank() != 1 || !size || part.size() != size_t(*size))
        return out;
      joined.insert(joined.end(), part.begin(), part.end());
    }
    return joined;
  }
  default:
    return out;
  }
}

} // namespace kiln::onnx
