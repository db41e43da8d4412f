// The tracer: functions, variables, and the one way in which a call becomes a node.
#include "frontend/trace/state.h"

#include "ir/ops/op.h"

#include <algorithm>

#include <fmt/format.h>

namespace kiln::trace {

Tracer::Tracer(Diagnostics &diagnostics) : state_(std::make_unique<State>(diagnostics)) {}
Tracer::~Tracer() = default;

Tensor Tracer::fail(Where where, std::string message) {
  state_->diagnostics.error(location_of(where), std::move(message));
  return {};
}

TensorType Tensor::type() const {
  if (!tracer_)
    return {};
  if (variable_.valid())
    return tracer_->state_->module.variables[size_t(variable_)].type;
  return tracer_->state_->function ? tracer_->state_->function->type(id_) : TensorType{};
}

Tensor Tensor::named(std::string name) const {
  if (tracer_ && !variable_.valid() && tracer_->state_->function)
    tracer_->state_->function->value(id_).name = std::move(name);
  return *this;
}

Tensor Tracer::parameter(std::string name, TensorType type, Where where) {
  for (const Variable &v : state_->module.variables)
    if (v.name == name)
      return fail(where, fmt::format("there are two parameters or states named '{}'", name));
  if (!is_static(type.shape))
    return fail(where, fmt::format("the parameter '{}' needs sizes that are numbers, not {}", name, type.text()));
  VariableId id(state_->module.variables.size());
  state_->module.variables.push_back({std::move(name), VariableKind::param, std::move(type), ConstantId(),
                                      location_of(where)});
  return Tensor(this, ValueId(), id);
}

Tensor Tracer::weight(std::string name, kiln::Tensor value, Where where) {
  Tensor out = parameter(name, value.type(), where);
  if (out.ok())
    state_->module.variables.back().initial = state_->module.add_constant(std::move(value), std::move(name));
  return out;
}

Tensor Tracer::state(std::string name, TensorType type, Where where) {
  Tensor out = parameter(std::move(name), std::move(type), where);
  if (out.ok())
    state_->module.variables.back().kind = VariableKind::state;
  return out;
}

Tensor Tracer::call(Op op, std::vector<Operand> operands, Attrs attrs, Where where) {
  auto results = call_many(op, std::move(operands), std::move(attrs), where);
  return results.empty() ? Tensor() : results[0];
}

std::vector<Tensor> Tracer::call_many(Op op, std::vector<Operand> operands, Attrs attrs, Where where) {
  State &s = *state_;
  std::string_view name = op_def(op).name;
  if (!s.function)
    return fail(where, fmt::format("{} is called outside of Tracer::function()", name)), std::vector<Tensor>{};
  s.builder->set_location(location_of(where));
  std::optional<DType> dtype;
  for (size_t i = op == Op::where ? 1 : 0; i < operands.size() && !dtype; ++i)
    if (!operands[i].is_number && operands[i].tensor.ok())
      dtype = operands[i].tensor.dtype();
  std::vector<ValueId> ids;
  std::string types;
  for (const Operand &o : operands) {
    if (o.is_number) {
      if (!dtype)
        return fail(where, fmt::format("{} needs a tensor beside the number {}", name, o.number)),
               std::vector<Tensor>{};
      bool whole = o.number == double(int64_t(o.number));
      if (!is_float(*dtype) && !whole)
        return fail(where, fmt::format("the number {} cannot become {}; convert the tensor with .to(DType::f32)",
                                       o.number, dtype_name(*dtype))),
               std::vector<Tensor>{};
      ids.push_back(s.builder->scalar(*dtype, o.number));
    } else if (!o.tensor.ok()) {
      return {}; // reported where it failed
    } else if (o.tensor.tracer_ != this) {
      return fail(where, fmt::format("{}: an operand belongs to another tracer", name)), std::vector<Tensor>{};
    } else if (o.tensor.variable_.valid()) {
      ids.push_back(s.read(o.tensor.variable_));
    } else if (size_t(o.tensor.id_) >= s.function->values.size()) {
      return fail(where, fmt::format("{}: an operand belongs to another function", name)), std::vector<Tensor>{};
    } else {
      ids.push_back(o.tensor.id_);
    }
    types += (types.empty() ? "" : ", ") + s.function->type(ids.back()).text();
  }
  auto node = s.builder->emit(op, std::move(ids), std::move(attrs));
  if (!node) {
    Diagnostic &d = s.diagnostics.error(location_of(where), node.error().message);
    if (!types.empty())
      d.notes.push_back("operands: " + types);
    return {};
  }
  std::vector<Tensor> out;
  for (ValueId id : s.function->node(*node).results)
    out.push_back(Tensor(this, id));
  return out;
}

Tensor Tracer::constant(kiln::Tensor value, Where where) {
  ConstantId id = state_->module.add_constant(std::move(value));
  return call(Op::constant, {}, {{"value", id}}, where);
}

void Tracer::assign(const Tensor &variable, const Tensor &value, Where where) {
  if (!variable.ok() || !value.ok())
    return;
  if (!variable.variable_.valid()) {
    fail(where, "assign() changes a parameter or a state, and this is neither");
    return;
  }
  if (value.type() != variable.type()) {
    fail(where, fmt::format("a variable of type {} cannot become {}", variable.type().text(), value.type().text()));
    return;
  }
  call_many(Op::assign, {{value, where}}, {{"variable", variable.variable_}}, where);
  state_->current[variable.variable_] = value.variable_.valid() ? state_->current[value.variable_] : value.id_;
}

void Tracer::function(std::string name, std::vector<Input> inputs, const Body &body, Where where) {
  State &s = *state_;
  if (s.function) {
    fail(where, "Tracer::function() is called within another function");
    return;
  }
  if (s.module.find_function(name)) {
    fail(where, fmt::format("there are two functions named '{}'", name));
    return;
  }
  s.function = std::make_unique<Function>();
  Function &f = *s.function;
  f.name = std::move(name);
  f.exported = true;
  f.location = location_of(where);
  s.builder = std::make_unique<GraphBuilder>(s.module, f, f.body);
  s.current.clear();
  std::vector<Tensor> arguments;
  for (Input &input : inputs)
    arguments.push_back(Tensor(this, f.add_argument(f.body, std::move(input.type), std::move(input.name))));
  std::vector<Tensor> results = body(arguments);
  bool ok = true;
  for (const Tensor &t : results) {
    ok &= t.ok();
    if (!t.ok())
      continue;
    ValueId id = t.id_;
    if (t.variable_.valid()) {
      auto it = s.current.find(t.variable_);
      s.builder->set_location(location_of(where));
      id = it != s.current.end() ? it->second
                                 : (*s.builder)(Op::read_variable, {}, {{"variable", t.variable_}});
    }
    f.body.results.push_back(id);
    std::string result = f.value(id).name;
    if (result.empty() || std::count(f.result_names.begin(), f.result_names.end(), result))
      result = f.result_names.empty() ? "output" : "output" + std::to_string(f.result_names.size());
    f.result_names.push_back(std::move(result));
  }
  if (ok)
    s.module.functions.push_back(std::move(f));
  s.builder.reset();
  s.function.reset();
}

Module Tracer::take() {
  Module out = std::move(state_->module);
  state_->module = {};
  return out;
}

// -- methods

namespace {

std::vector<Dim> to_dims(const std::vector<int> &list) { return {list.begin(), list.end()}; }

} // namespace

Tensor Tensor::reshape(std::vector<Dim> shape, Where where) const {
  if (!tracer_)
    return {};
  Dim rest = element_count(this->shape());
  int hole = -1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (!shape[i].is_const(-1))
      rest = shape[i].is_const(0) ? Dim(0) : floordiv(rest, shape[i]);
    else if (hole >= 0)
      return tracer_->fail(where, "reshape: one size can be -1, not more");
    else
      hole = int(i);
  }
  if (hole >= 0)
    shape[size_t(hole)] = rest;
  return tracer_->call(Op::reshape, {{*this, where}}, {{"shape", std::move(shape)}}, where);
}

Tensor Tensor::permute(std::vector<int> dims, Where where) const {
  if (!tracer_)
    return {};
  for (int &d : dims)
    d += d < 0 ? rank() : 0;
  return tracer_->call(Op::permute, {{*this, where}}, {{"dims", to_dims(dims)}}, where);
}

namespace {

// -rank..rank-1 to 0..rank-1; -1 where it is outside.
int axis_of(int axis, int rank) {
  int at = axis < 0 ? axis + rank : axis;
  return at >= 0 && at < rank ? at : -1;
}

std::string outside(const char *what, int axis, const TensorType &type) {
  return fmt::format("{}: the axis {} is outside {}", what, axis, type.text());
}

} // namespace

Tensor Tensor::transpose(int a, int b, Where where) const {
  if (!tracer_)
    return {};
  int x = axis_of(a, rank()), y = axis_of(b, rank());
  if (x < 0 || y < 0)
    return tracer_->fail(where, outside("transpose", x < 0 ? a : b, type()));
  std::vector<int> dims(size_t(rank()), 0);
  for (size_t i = 0; i < dims.size(); ++i)
    dims[i] = int(i);
  std::swap(dims[size_t(x)], dims[size_t(y)]);
  return permute(dims, where);
}

Tensor Tensor::flatten(int start, int end, Where where) const {
  if (!tracer_)
    return {};
  Shape old = shape();
  int a = axis_of(start, rank()), b = axis_of(end, rank());
  if (a < 0 || b < a)
    return tracer_->fail(where, outside("flatten", a < 0 ? start : end, type()));
  std::vector<Dim> out(old.begin(), old.begin() + a);
  out.push_back(element_count(std::span(old).subspan(size_t(a), size_t(b - a + 1))));
  out.insert(out.end(), old.begin() + b + 1, old.end());
  return tracer_->call(Op::reshape, {{*this, where}}, {{"shape", std::move(out)}}, where);
}

Tensor Tensor::unsqueeze(int axis, Where where) const {
  if (!tracer_)
    return {};
  int at = axis_of(axis, rank() + 1);
  if (at < 0)
    return tracer_->fail(where, outside("unsqueeze", axis, type()));
  std::vector<Dim> out = shape();
  out.insert(out.begin() + at, Dim(1));
  return tracer_->call(Op::reshape, {{*this, where}}, {{"shape", std::move(out)}}, where);
}

Tensor Tensor::squeeze(int axis, Where where) const {
  if (!tracer_)
    return {};
  int at = axis_of(axis, rank());
  if (at < 0)
    return tracer_->fail(where, outside("squeeze", axis, type()));
  std::vector<Dim> out = shape();
  if (!out[size_t(at)].is_const(1))
    return tracer_->fail(where, fmt::format("squeeze: dim {} of {} is not 1", at, type().text()));
  out.erase(out.begin() + at);
  return tracer_->call(Op::reshape, {{*this, where}}, {{"shape", std::move(out)}}, where);
}

Tensor Tensor::broadcast_to(std::vector<Dim> shape, Where where) const {
  return tracer_ ? tracer_->call(Op::broadcast_to, {{*this, where}}, {{"shape", std::move(shape)}}, where) : Tensor();
}

Tensor Tensor::slice(int axis, Dim start, Dim end, int64_t step, Where where) const {
  if (!tracer_)
    return {};
  int at = axis_of(axis, rank());
  if (at < 0)
    return tracer_->fail(where, outside("slice", axis, type()));
  using Dims = std::vector<Dim>;
  return tracer_->call(Op::slice, {{*this, where}},
                       {{"axes", Dims{Dim(at)}}, {"starts", Dims{start}}, {"ends", Dims{end}}, {"steps", Dims{Dim(step)}}},
                       where);
}

Tensor Tensor::select(int axis, Dim index, Where where) const {
  return slice(axis, index, index + Dim(1), 1, where).squeeze(axis, where);
}

Tensor Tensor::to(DType dtype, Where where) const {
  if (!tracer_ || this->dtype() == dtype)
    return *this;
  return tracer_->call(Op::convert, {{*this, where}}, {{"dtype", dtype}}, where);
}

#define KILN_TRACE_REDUCTION(name, op)                                                                      \
  Tensor Tensor::name(std::vector<int> axes, bool keepdims, Where where) const {                             \
    if (!tracer_)                                                                                           \
      return {};                                                                                            \
    if (axes.empty())                                                                                       \
      for (int i = 0; i < rank(); ++i)                                                                      \
        axes.push_back(i);                                                                                  \
    return tracer_->call(Op::op, {{*this, where}}, {{"axes", to_dims(axes)}, {"keepdims", keepdims}}, where); \
  }
KILN_TRACE_REDUCTION(sum, reduce_sum)
KILN_TRACE_REDUCTION(mean, reduce_mean)
KILN_TRACE_REDUCTION(max, reduce_max)
KILN_TRACE_REDUCTION(min, reduce_min)

} // namespace kiln::trace
