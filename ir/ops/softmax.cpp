// softmax and log_softmax, shifted by the maximum so that exp cannot overflow.
#include "ir/ops/composite.h"

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_softmax(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_float(context, 0));
  KILN_RETURN_IF_ERROR(axis_attr(context.attrs, "axis", context.operands[0].rank()));
  return Types{context.operands[0]};
}

struct Shifted {
  ValueId x, exp, sum;
};

Shifted shifted_exp(GraphBuilder &b, const Node &node) {
  ValueId x = widen(b, node.operands[0]);
  Dim axis = axis_of(node.attrs, "axis", b.type(x).rank());
  ValueId shifted = b(Op::sub, {x, reduce_keep(b, Op::reduce_max, x, {axis})});
  ValueId e = b(Op::exp, {shifted});
  return {shifted, e, reduce_keep(b, Op::reduce_sum, e, {axis})};
}

// softmax(x) = exp(x - max) / sum(exp(x - max))
std::vector<ValueId> decompose_softmax(GraphBuilder &b, const Node &node) {
  Shifted s = shifted_exp(b, node);
  return {narrow(b, b(Op::div, {s.exp, s.sum}), b.type(node.operands[0]).dtype)};
}

// log_softmax(x) = x - max - log(sum(exp(x - max)))
std::vector<ValueId> decompose_log_softmax(GraphBuilder &b, const Node &node) {
  Shifted s = shifted_exp(b, node);
  ValueId out = b(Op::sub, {s.x, b(Op::log, {s.sum})});
  return {narrow(b, out, b.type(node.operands[0]).dtype)};
}

OpSample sample(Shape shape, int64_t axis, DType dtype = DType::f32) {
  return {{{dtype, std::move(shape)}}, {{"axis", Dim(axis)}}, -6, 6};
}

} // namespace

const OpDef op_softmax{
    .name = "softmax",
    .doc = "exp(x) / sum(exp(x)) along axis.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"axis", AttrKind::integer}},
    .infer = infer_softmax,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::softmax, c); },
    .decompose = decompose_softmax,
    .samples = {sample({4, 10}, 1), sample({3, 5, 7}, 1), sample({6, 3}, -2), sample({5}, 0),
                sample({2, 33}, 1, DType::f16)},
};

const OpDef op_log_softmax{
    .name = "log_softmax",
    .doc = "The logarithm of softmax along axis.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"axis", AttrKind::integer}},
    .infer = infer_softmax,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::log_softmax, c); },
    .decompose = decompose_log_softmax,
    .samples = {sample({4, 10}, 1), sample({3, 5, 7}, 1), sample({6, 3}, -2)},
};

} // namespace kiln
