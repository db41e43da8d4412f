#include "ir/ops/composite.h"

#include <cstring>
#include <fmt/format.h>

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

// Runs a function that decompositions made: constants, scans and ops with a ref.
class Evaluator {
public:
  Evaluator(const Module &module, const Function &function)
      : module_(module), function_(function), values_(function.values.size()) {}

  void set(ValueId id, Tensor value) { values_[size_t(id)] = std::move(value); }
  Tensor take(ValueId id) const { return values_[size_t(id)]; }

  Status run(const Block &block) {
    for (NodeId id : block.nodes)
      KILN_RETURN_IF_ERROR(run_node(function_.node(id)));
    return Unit{};
  }

private:
  Status run_node(const Node &node) {
    if (node.op == Op::constant) {
      set(node.results[0], module_.constants[size_t(node.attrs.get_constant("value"))].tensor);
      return Unit{};
    }
    if (node.op == Op::scan)
      return run_scan(node);
    const OpDef &def = op_def(node.op);
    KILN_CHECK(def.ref, fmt::format("a decomposition uses {}, which has no ref", def.name));
    std::vector<const Tensor *> operands;
    for (ValueId operand : node.operands)
      operands.push_back(&values_[size_t(operand)]);
    std::vector<TensorType> types;
    for (ValueId result : node.results)
      types.push_back(function_.type(result));
    KILN_TRY(results, def.ref({operands, node.attrs, types}));
    for (size_t i = 0; i < results.size(); ++i)
      set(node.results[i], std::move(results[i]));
    return Unit{};
  }

  Status run_scan(const Node &node) {
    size_t carried = size_t(node.attrs.get_int("carried"));
    const Block &body = node.regions[0];
    for (size_t i = 0; i < carried; ++i)
      set(body.args[i], take(node.operands[i]));
    std::vector<Tensor> stacked;
    for (size_t i = carried; i < node.results.size(); ++i) {
      const TensorType &type = function_.type(node.results[i]);
      std::vector<int64_t> dims;
      for (const Dim &d : type.shape)
        dims.push_back(d.as_const());
      stacked.emplace_back(type.dtype, std::move(dims));
    }
    int64_t steps = values_[size_t(node.operands[carried])].dims()[0];
    for (int64_t step = 0; step < steps; ++step) {
      int64_t at = node.attrs.get_bool("reverse") ? steps - 1 - step : step;
      for (size_t i = carried; i < body.args.size(); ++i) {
        const Tensor &whole = values_[size_t(node.operands[i])];
        Tensor slice(whole.dtype(), {whole.dims().begin() + 1, whole.dims().end()});
        if (size_t bytes = slice.bytes().size())
          std::memcpy(slice.mutable_bytes(), whole.bytes().data() + size_t(at) * bytes, bytes);
        set(body.args[i], std::move(slice));
      }
      KILN_RETURN_IF_ERROR(run(body));
      for (size_t i = 0; i < stacked.size(); ++i) {
        const Tensor &slice = values_[size_t(body.results[carried + i])];
        if (size_t bytes = slice.bytes().size())
          std::memcpy(stacked[i].mutable_bytes() + size_t(at) * bytes, slice.bytes().data(), bytes);
      }
      std::vector<Tensor> next;
      for (size_t i = 0; i < carried; ++i)
        next.push_back(take(body.results[i]));
      for (size_t i = 0; i < carried; ++i)
        set(body.args[i], std::move(next[i]));
    }
    for (size_t i = 0; i < carried; ++i)
      set(node.results[i], take(body.args[i]));
    for (size_t i = 0; i < stacked.size(); ++i)
      set(node.results[carried + i], std::move(stacked[i]));
    return Unit{};
  }

  const Module &module_;
  const Function &function_;
  std::vector<Tensor> values_;
};

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
  std::vector<ValueId> results = op_def(op).decompose(builder, node);
  Evaluator evaluator(module, function);
  for (size_t i = 0; i < inputs.size(); ++i)
    evaluator.set(node.operands[i], std::move(inputs[i]));
  KILN_RETURN_IF_ERROR(evaluator.run(function.body));
  std::vector<Tensor> out;
  for (size_t i = 0; i < results.size(); ++i) {
    Tensor value = evaluator.take(results[i]);
    DType dtype = context.results[i].dtype;
    out.push_back(value.dtype() == dtype ? std::move(value) : converted(value, dtype));
  }
  return out;
}

} // namespace kiln
