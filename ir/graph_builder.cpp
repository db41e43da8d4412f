// GraphBuilder: schema check, defaults, inference, and a new node.
#include "ir/graph.h"
#include "ir/ops/op.h"

#include <fmt/format.h>

namespace kiln {

bool attr_matches(const Attr &value, AttrKind kind) {
  switch (kind) {
  case AttrKind::boolean:
    return std::holds_alternative<bool>(value);
  case AttrKind::integer:
    return std::holds_alternative<Dim>(value);
  case AttrKind::real:
    return std::holds_alternative<double>(value);
  case AttrKind::string:
    return std::holds_alternative<std::string>(value);
  case AttrKind::dtype:
    return std::holds_alternative<DType>(value);
  case AttrKind::dims:
    return std::holds_alternative<std::vector<Dim>>(value);
  case AttrKind::reals:
    return std::holds_alternative<std::vector<double>>(value);
  case AttrKind::strings:
    return std::holds_alternative<std::vector<std::string>>(value);
  case AttrKind::constant:
    return std::holds_alternative<ConstantId>(value);
  case AttrKind::variable:
    return std::holds_alternative<VariableId>(value);
  case AttrKind::function:
    return std::holds_alternative<FunctionId>(value);
  }
  return false;
}

namespace {

// Defaults filled in, unknown, missing and mistyped attributes refused.
Status apply_schema(const OpDef &def, Attrs &attrs) {
  for (const auto &[name, value] : attrs.all()) {
    bool known = false;
    for (const AttrSpec &spec : def.attrs) {
      if (spec.name != name)
        continue;
      known = true;
      if (!attr_matches(value, spec.kind))
        return Error{fmt::format("{}: the attribute '{}' is of the wrong kind", def.name, name)};
    }
    if (!known) {
      std::string list;
      for (const AttrSpec &spec : def.attrs)
        list += (list.empty() ? "" : ", ") + std::string(spec.name);
      return Error{fmt::format("{} has no attribute '{}'; it has: {}", def.name, name,
                               list.empty() ? "none" : list)};
    }
  }
  for (const AttrSpec &spec : def.attrs) {
    if (attrs.has(spec.name))
      continue;
    if (!spec.default_value)
      return Error{fmt::format("{}: the attribute '{}' is missing", def.name, spec.name)};
    attrs.set(spec.name, *spec.default_value);
  }
  return Unit{};
}

} // namespace

bool InferContext::require_equal(const Dim &a, const Dim &b) {
  if (a == b)
    return true;
  if ((a - b).is_const())
    return false;
  required.emplace_back(a, b);
  return true;
}

Result<NodeId> GraphBuilder::emit(Op op, std::vector<ValueId> operands, Attrs attrs,
                                  std::vector<Block> regions) {
  const OpDef &def = op_def(op);
  int count = int(operands.size());
  if (count < def.min_operands || (def.max_operands >= 0 && count > def.max_operands))
    return Error{fmt::format("{} takes {} operands, not {}", def.name,
                             def.max_operands < 0 ? fmt::format("{} or more", def.min_operands)
                             : def.min_operands == def.max_operands
                                 ? fmt::format("{}", def.min_operands)
                                 : fmt::format("{} to {}", def.min_operands, def.max_operands),
                             count)};
  KILN_RETURN_IF_ERROR(apply_schema(def, attrs));
  std::vector<TensorType> types;
  for (ValueId operand : operands) {
    KILN_CHECK(operand.valid() && size_t(operand) < function_.values.size(),
               "an operand of " + std::string(def.name) + " is no value of the function");
    types.push_back(function_.type(operand));
  }
  InferContext context{types, attrs, regions, &function_, &module_, {}};
  KILN_CHECK(def.infer, "the op " + std::string(def.name) + " has no infer");
  auto results = def.infer(context);
  if (!results)
    return Error{fmt::format("{}: {}", def.name, results.error().message)};
  for (const TensorType &type : *results)
    for (const Dim &d : type.shape)
      if (!d.is_valid() || (d.is_const() && d.as_const() < 0))
        return Error{fmt::format("{}: the result would have the shape {}: a size is negative or too large",
                                 def.name, shape_text(type.shape))};
  for (auto &[a, b] : context.required)
    module_.constraints.push_back({a, b, location_, std::string(def.name)});

  Node node;
  node.op = op;
  node.operands = std::move(operands);
  node.attrs = std::move(attrs);
  node.regions = std::move(regions);
  node.location = location_;
  NodeId id(function_.nodes.size());
  for (size_t i = 0; i < results->size(); ++i) {
    ValueId value = function_.add_value((*results)[i]);
    function_.value(value).def = id;
    function_.value(value).result = int(i);
    node.results.push_back(value);
  }
  function_.nodes.push_back(std::move(node));
  if (at_ == SIZE_MAX)
    block_->nodes.push_back(id);
  else
    block_->nodes.insert(block_->nodes.begin() + std::ptrdiff_t(at_++), id);
  return id;
}

std::vector<ValueId> GraphBuilder::multi(Op op, std::vector<ValueId> operands, Attrs attrs) {
  auto node = emit(op, std::move(operands), std::move(attrs));
  KILN_CHECK(node.ok(), location_.text() + ": " + (node.ok() ? "" : node.error().message));
  return function_.node(*node).results;
}

ValueId GraphBuilder::operator()(Op op, std::vector<ValueId> operands, Attrs attrs) {
  return multi(op, std::move(operands), std::move(attrs)).at(0);
}

ValueId GraphBuilder::constant(Tensor tensor, std::string name) {
  ConstantId id = module_.add_constant(std::move(tensor), name);
  ValueId value = (*this)(Op::constant, {}, {{"value", id}});
  function_.value(value).name = std::move(name);
  return value;
}

ValueId GraphBuilder::scalar(DType dtype, double value) {
  return constant(Tensor::scalar_f64(dtype, value));
}

} // namespace kiln
