#include "ir/ops/composite.h"

#include "ir/interpret.h"

namespace kiln {

ValueId widen(GraphBuilder &b, ValueId x) { return narrow(b, x, compute_dtype(b.type(x).dtype)); }

ValueId narrow(GraphBuilder &b, ValueId x, DType dtype) {
  return b.type(x).dtype == dtype ? x : b(Op::convert, {x}, {{"dtype", dtype}});
}

ValueId reduce_keep(GraphBuilder &b, Op op, ValueId x, std::vector<Dim> axes) {
  return b(op, {x}, {{"axes", std::move(axes)}, {"keepdims", true}});
}

ValueId along_axis(GraphBuilder &b, ValueId x, int axis, int rank) {
  Shape shape(size_t(rank - axis), 1);
  shape[0] = b.type(x).shape.at(0);
  return reshape_to(b, x, std::move(shape));
}

ValueId reshape_to(GraphBuilder &b, ValueId x, Shape shape) {
  return b.type(x).shape == shape ? x : b(Op::reshape, {x}, {{"shape", std::move(shape)}});
}

ValueId broadcast(GraphBuilder &b, ValueId x, const Shape &shape) {
  return b.type(x).shape == shape ? x : b(Op::broadcast_to, {x}, {{"shape", shape}});
}

ValueId slice_axis(GraphBuilder &b, ValueId x, int axis, const Dim &begin, const Dim &end) {
  return b(Op::slice, {x},
           {{"axes", std::vector<Dim>{axis}},
            {"starts", std::vector<Dim>{begin}},
            {"ends", std::vector<Dim>{end}},
            {"steps", std::vector<Dim>{1}}});
}

ValueId permute_dims(GraphBuilder &b, ValueId x, std::vector<int> dims) {
  return b(Op::permute, {x}, {{"dims", std::vector<Dim>(dims.begin(), dims.end())}});
}

std::vector<Dim> axes_from(int first, int rank) {
  std::vector<Dim> out;
  for (int axis = first; axis < rank; ++axis)
    out.push_back(axis);
  return out;
}

namespace {

Tensor converted(const Tensor &from, DType dtype) {
  Tensor out(dtype, from.dims());
  for (int64_t i = 0; i < from.count(); ++i)
    out.set_f64(i, from.at_f64(i));
  return out;
}

} // namespace

Result<std::vector<Tensor>> ref_by_decomposition(Op op, const RefContext &context, bool exact) {
  Module module;
  module.functions.emplace_back();
  Function &function = module.functions[0];
  std::vector<Tensor> inputs;
  Node node;
  node.op = op;
  node.attrs = context.attrs;
  for (const Tensor *operand : context.operands) {
    inputs.push_back(exact && is_float(operand->dtype()) ? converted(*operand, DType::f64) : *operand);
    node.operands.push_back(function.add_argument(function.body, inputs.back().type(), ""));
  }
  GraphBuilder builder(module, function, function.body);
  function.body.results = op_def(op).decompose(builder, node);
  function.result_names.resize(function.body.results.size());
  VariableValues variables;
  KILN_TRY(values, interpret(module, function, inputs, variables));
  std::vector<Tensor> out;
  for (size_t i = 0; i < values.size(); ++i) {
    DType dtype = context.results[i].dtype;
    out.push_back(values[i].dtype() == dtype ? std::move(values[i]) : converted(values[i], dtype));
  }
  return out;
}

} // namespace kiln
