#include "frontend/onnx/emitter.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::onnx {
namespace {

std::vector<int64_t> static_dims(const TensorType &type) {
  std::vector<int64_t> out;
  for (const Dim &d : type.shape)
    out.push_back(d.as_const());
  return out;
}

bool small(const TensorType &type) {
  auto count = element_count(type.shape).try_const(); // of a size that a run finds and one of 0, too
  if (!is_static(type.shape) || !count || *count > kMaxFoldElements)
    return false;
  // No dim of an empty tensor is larger: what an op does for each position of an axis is as cheap.
  return std::all_of(type.shape.begin(), type.shape.end(), [](const Dim &d) { return d.as_const() <= kMaxFoldElements; });
}

// Multiplications of a contraction on constants are left to run time past a small number.
bool cheap(const OpDef &def, std::span<const Val> operands) {
  if (!def.has(kContraction) && !def.has(kWindow))
    return true;
  Dim work = 1;
  for (const Val &v : operands)
    work *= element_count(v.type.shape);
  return work.is_const() && work.as_const() <= (1 << 22);
}

// Weights stay quantised: passes know whether the target computes with them.
bool is_weight(Op op, std::span<const Val> operands) {
  return op == Op::dequantize && operands[0].rank() >= 2 && dtype_bits(operands[0].dtype()) == 8;
}

} // namespace

Result<Val> Emitter::emit(Op op, std::vector<Val> operands, Attrs attrs) {
  KILN_TRY(results, emit_all(op, operands, std::move(attrs)));
  return results.at(0);
}

Result<std::vector<Val>> Emitter::emit_all(Op op, std::span<const Val> operands, Attrs attrs,
                                           std::vector<Block> regions) {
  if (regions.empty()) {
    KILN_TRY(computed, try_compute(op, operands, attrs));
    if (computed)
      return *computed;
  }
  std::vector<ValueId> ids;
  for (const Val &v : operands) {
    KILN_TRY(id, materialize(v));
    ids.push_back(id);
  }
  KILN_TRY(node, builder_.emit(op, std::move(ids), std::move(attrs), std::move(regions)));
  std::vector<Val> out;
  for (ValueId id : function_.node(node).results) {
    Val v;
    v.type = function_.type(id);
    v.id = id;
    KILN_RETURN_IF_ERROR(check_shape(v.type));
    out.push_back(std::move(v));
  }
  if (op == Op::eq && element_count(out[0].type.shape).is_const(1)) {
    auto a = dims(operands[0]), b = dims(operands[1]);
    if (a && b && is_integer(operands[0].dtype()))
      equalities_.emplace(out[0].id, std::pair((*a)[0], (*b)[0]));
  }
  return out;
}

const std::pair<Dim, Dim> *Emitter::equality_of(const Val &condition) const {
  auto it = equalities_.find(condition.id);
  return it == equalities_.end() ? nullptr : &it->second;
}

Result<std::optional<std::vector<Val>>>
Emitter::try_compute(Op op, std::span<const Val> operands, const Attrs &attrs) {
  using Out = std::optional<std::vector<Val>>;
  const OpDef &def = op_def(op);
  if (!def.ref || def.structural || def.has(kNoFold))
    return Out();
  bool constant = true;
  std::vector<TensorType> types;
  for (const Val &v : operands) {
    if (!v.is_known() || !small(v.type))
      return Out();
    constant &= v.constant != nullptr;
    types.push_back(v.type);
  }
  if (!cheap(def, operands) || is_weight(op, operands))
    return Out();
  KILN_TRY(inferred, infer_alone(op, types, attrs));
  for (const TensorType &type : inferred.results)
    if (!small(type))
      return Out();
  if (constant) {
    std::vector<const Tensor *> tensors;
    for (const Val &v : operands)
      tensors.push_back(v.constant);
    KILN_TRY(results, evaluate_concrete(op, tensors, attrs));
    std::vector<Val> out;
    for (Tensor &t : results)
      out.push_back(this->constant(std::move(t)));
    return Out(std::move(out));
  }
  std::vector<std::vector<Element>> lists(operands.size());
  std::vector<SymbolicOperand> symbolic;
  for (size_t i = 0; i < operands.size(); ++i) {
    auto list = elements(operands[i]);
    if (!list)
      return Out();
    lists[i] = *std::move(list);
    symbolic.push_back({&lists[i], static_dims(operands[i].type)});
  }
  if (inferred.results.size() != 1)
    return Out();
  auto result = evaluate_symbolic(op, symbolic, inferred.attrs, inferred.results[0]);
  if (!result)
    return Out();
  return Out(std::vector<Val>{
      sizes(*std::move(result), static_dims(inferred.results[0]), inferred.results[0].dtype)});
}

Val Emitter::constant(Tensor tensor, std::string_view name) {
  tensors_.push_back(std::move(tensor));
  Val out;
  out.constant = &tensors_.back();
  out.type = out.constant->type();
  out.name = name;
  return out;
}

Val Emitter::scalar(DType dtype, double value) {
  return constant(Tensor::scalar_f64(dtype, value));
}

Val Emitter::ints(std::vector<int64_t> values) { return constant(Tensor::from_i64(values)); }

Val Emitter::list(std::vector<Val> items, DType dtype) {
  lists_.push_back(std::move(items));
  Val out;
  out.list = &lists_.back();
  out.type.dtype = out.list->empty() ? dtype : out.list->front().dtype();
  return out;
}

Val Emitter::absent() {
  Val out;
  out.absent = true;
  return out;
}

void Val::lacks_dim(int i) const {
  std::string what = name.empty() ? "a value made of its operands" : fmt::format("'{}'", name);
  if (i < 0 || i == kMaxRank)
    throw Unmet{fmt::format("{} is {}, which has too few dims", what, describe(*this))};
  throw Unmet{fmt::format("{} is {}, but must have {} dims or more", what, describe(*this), i + 1)};
}

std::string describe(const Val &val) {
  if (val.absent)
    return "an optional that holds nothing";
  if (val.text)
    return "text" + shape_text(val.dims(0, val.rank() - 1));
  if (!val.list)
    return val.type.text();
  if (val.map)
    return fmt::format("a map of {} to {}", (*val.list)[0].text ? "strings" : dtype_name((*val.list)[0].dtype()),
                       (*val.list)[1].text ? "strings" : dtype_name((*val.list)[1].dtype()));
  return fmt::format("a sequence of {} tensor{}", val.list->size(), val.list->size() == 1 ? "" : "s");
}

Val Emitter::sizes(std::vector<Element> list, std::vector<int64_t> shape, DType dtype) {
  bool constant_ints = !is_float(dtype);
  for (const Element &e : list)
    constant_ints &= e.try_int().has_value();
  if (constant_ints) {
    Tensor tensor(dtype, std::move(shape));
    for (size_t i = 0; i < list.size(); ++i)
      tensor.set_i64(int64_t(i), *list[i].try_int());
    return constant(std::move(tensor));
  }
  elements_.push_back(std::move(list));
  Val out;
  out.elements = &elements_.back();
  out.type = {dtype, Shape(shape.begin(), shape.end())};
  return out;
}

Val Emitter::sizes(std::span<const Dim> dims) {
  std::vector<Element> list;
  for (const Dim &d : dims)
    list.push_back({d});
  return sizes(std::move(list), {int64_t(dims.size())});
}

std::optional<std::vector<Element>> Emitter::elements(const Val &val) {
  if (val.elements)
    return *val.elements;
  if (is_narrow(val.dtype()))
    return std::nullopt;
  if (!val.constant || val.constant->count() > kMaxSymbolicElements)
    return std::nullopt;
  std::vector<Element> out;
  for (int64_t i = 0; i < val.constant->count(); ++i) {
    if (is_float(val.dtype())) {
      auto e = element_from_f64(val.constant->at_f64(i));
      if (!e)
        return std::nullopt;
      out.push_back(*e);
    } else {
      out.push_back({val.constant->at_i64(i)});
    }
  }
  return out;
}

std::optional<std::vector<Dim>> Emitter::dims(const Val &val) {
  auto list = elements(val);
  if (!list)
    return std::nullopt;
  std::vector<Dim> out;
  for (Element &e : *list) {
    if (e.denominator != 1)
      return std::nullopt;
    out.push_back(std::move(e.numerator));
  }
  return out;
}

Val Emitter::argument(Block &block, TensorType type, std::string name) {
  Val out;
  out.id = function_.add_argument(block, type, std::move(name));
  out.type = std::move(type);
  return out;
}

Result<ValueId> Emitter::materialize(const Val &val) {
  if (val.id.valid())
    return val.id;
  if (!val.is_tensor())
    return Error{fmt::format("there is {} where a tensor is needed", describe(val))};
  if (!val.is_known())
    return Error{"an operand that is left out is needed"};
  const void *key = val.constant ? static_cast<const void *>(val.constant) : val.elements;
  if (auto it = placed_.find(key); it != placed_.end())
    return it->second;
  if (val.elements && std::any_of(val.elements->begin(), val.elements->end(),
                                  [&](const Element &e) { return is_local(e.numerator); })) {
    KILN_TRY(id, materialize_elements(val));
    placed_elements_.emplace(id, *val.elements);
    return id;
  }
  IntoBlock scope(builder_, function_.body); // where all blocks see it
  if (val.elements) {
    KILN_TRY(id, materialize_elements(val));
    placed_.emplace(key, id);
    placed_elements_.emplace(id, *val.elements);
    return id;
  }
  // The pool keeps its own copy: later nodes may still compute with it. Views share the bytes.
  ValueId id = builder_.constant(*val.constant, std::string(val.name));
  placed_.emplace(key, id);
  return id;
}

Result<ValueId> Emitter::raw(Op op, std::vector<ValueId> operands, Attrs attrs) {
  KILN_TRY(node, builder_.emit(op, std::move(operands), std::move(attrs)));
  return function_.node(node).results.at(0);
}

// One element of a symbolic tensor, in the graph: its polynomial in i64 scalars.
Result<ValueId> Emitter::value_of(const Dim &d) {
  std::string key = d.text();
  if (auto it = placed_dims_.find(key); it != placed_dims_.end())
    return it->second;
  std::optional<ValueId> sum;
  if (d.constant_part() != 0 || d.terms().empty())
    sum = builder_.constant(Tensor::scalar_i64(DType::i64, d.constant_part()));
  for (const DimTerm &term : d.terms()) {
    std::optional<ValueId> product;
    if (term.coefficient != 1)
      product = builder_.constant(Tensor::scalar_i64(DType::i64, term.coefficient));
    for (const DimAtom &factor : term.factors) {
      KILN_TRY(value, value_of(factor));
      if (product) {
        KILN_TRY(both, raw(Op::mul, {*product, value}));
        product = both;
      } else {
        product = value;
      }
    }
    if (sum) {
      KILN_TRY(both, raw(Op::add, {*sum, *product}));
      sum = both;
    } else {
      sum = product;
    }
  }
  if (!is_local(d))
    placed_dims_.emplace(key, *sum);
  return *sum;
}

Result<ValueId> Emitter::value_of(const DimAtom &atom) {
  if (atom.kind == DimAtom::Kind::symbol) {
    // As many ones as the size says, added up.
    Dim d = Dim::symbol(atom.symbol);
    if (auto it = found_.find(atom.symbol); it != found_.end())
      return it->second.value;
    if (auto it = placed_dims_.find(d.text()); it != placed_dims_.end())
      return it->second;
    ValueId one = builder_.constant(Tensor::scalar_i64(DType::i64, 1));
    KILN_TRY(ones, raw(Op::broadcast_to, {one}, {{"shape", std::vector<Dim>{d}}}));
    KILN_TRY(size, raw(Op::reduce_sum, {ones}, {{"axes", std::vector<Dim>{0}}, {"keepdims", false}}));
    placed_dims_.emplace(d.text(), size);
    return size;
  }
  KILN_TRY(a, value_of(atom.args[0]));
  KILN_TRY(b, value_of(atom.args[1]));
  switch (atom.kind) {
  case DimAtom::Kind::floordiv: {
    // a // b is (a - a mod b) / b; the language's remainder has the sign of the divisor.
    KILN_TRY(rest, raw(Op::remainder, {a, b}));
    KILN_TRY(even, raw(Op::sub, {a, rest}));
    return raw(Op::div, {even, b});
  }
  case DimAtom::Kind::mod:
    return raw(Op::remainder, {a, b});
  case DimAtom::Kind::min:
    return raw(Op::minimum, {a, b});
  default:
    return raw(Op::maximum, {a, b});
  }
}

Result<ValueId> Emitter::materialize_elements(const Val &val) {
  std::vector<ValueId> parts;
  for (const Element &e : *val.elements) {
    KILN_TRY(number, value_of(e.numerator));
    ValueId id = number;
    if (val.dtype() != DType::i64) {
      KILN_TRY(converted, raw(Op::convert, {id}, {{"dtype", val.dtype()}}));
      id = converted;
    }
    if (e.denominator != 1) {
      KILN_TRY(quotient, raw(Op::div, {id, builder_.scalar(val.dtype(), double(e.denominator))}));
      id = quotient;
    }
    KILN_TRY(part, raw(Op::reshape, {id}, {{"shape", std::vector<Dim>{1}}}));
    parts.push_back(part);
  }
  if (parts.empty())
    return builder_.constant(Tensor(val.dtype(), static_dims(val.type)));
  ValueId list = parts[0];
  if (parts.size() > 1) {
    KILN_TRY(joined, raw(Op::concat, parts, {{"axis", Dim(0)}}));
    list = joined;
  }
  return raw(Op::reshape, {list}, {{"shape", val.type.shape}});
}

Status Emitter::check_shape(const TensorType &type) const {
  if (type.rank() > kMaxRank)
    return Error{fmt::format("the result has {} dims; at most {} are supported", type.rank(), kMaxRank)};
  size_t terms = 1;
  for (const Dim &d : type.shape) {
    terms *= std::max<size_t>(d.terms().size() + (d.constant_part() != 0), 1);
    if (terms > kMaxProductTerms || complexity(d) > kMaxDimComplexity)
      return Error{"a size of the result is too complicated an expression of the input sizes; fix "
                   "some of them with --dim"};
  }
  Dim count = element_count(type.shape);
  if (!count.is_valid() || (count.is_const() && count.as_const() > kMaxElements))
    return Error{fmt::format("the result {} is too large", type.text())};
  return Unit{};
}

bool Emitter::require_equal(const Dim &a, const Dim &b, std::string reason) {
  if (a == b)
    return true;
  if (!a.is_valid() || !b.is_valid() || (a - b).is_const())
    return false;
  module_.constraints.push_back({a, b, builder_.location(), std::move(reason)});
  return true;
}

} // namespace kiln::onnx
