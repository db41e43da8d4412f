// Reductions over axes.
#include "frontend/onnx/ops.h"

#include <optional>

namespace kiln::onnx {
namespace {

// Over no axes what is done to each element and to each result still is: a sum of squares is the square.
Result<Val> reduce(OnnxNode &n, Op op, const Val &x) {
  KILN_TRY(given, n.ints_attr_or_input("axes", 1));
  bool keep = n.get_flag("keepdims", true), over_none = n.get_flag("noop_with_empty_axes", false);
  if (!given || given->empty()) {
    given.emplace();
    for (int i = 0; i < n.rank() && !over_none; ++i)
      given->push_back(i);
  }
  KILN_TRY(axes, n.axes(*given, n.rank()));
  if (axes.empty() && op != Op::reduce_l1 && op != Op::reduce_l2 && op != Op::reduce_log_sum_exp && op != Op::reduce_sum_square)
    return x;
  return n.emit(op, {x}, {{"axes", attr_ints(axes)}, {"keepdims", keep}});
}

Result<Val> reduce(OnnxNode &n, Op op) { return reduce(n, op, n.in(0)); }

// What needs floats on the way; of integers the result loses what is behind the point.
Result<Val> reduce_reals(OnnxNode &n, Op op, std::optional<Op> then = std::nullopt) {
  DType dtype = n.dtype();
  KILN_TRY(x, is_integer(dtype) ? convert(n.emitter(), n.in(0), DType::f64) : Result<Val>(n.in(0)));
  KILN_TRY(reduced, reduce(n, op, x));
  KILN_TRY(out, then ? n.emit(*then, {reduced}) : Result<Val>(reduced));
  return convert(n.emitter(), out, dtype);
}

Status arg_reduce(OnnxNode &n, Op op) {
  KILN_TRY(axis, n.axis(n.get_int("axis", 0), n.rank()));
  return n.finish(op, {n.in(0)},
                  {{"axis", attr_int(axis)},
                   {"keepdims", n.get_flag("keepdims", true)},
                   {"last", n.get_flag("select_last_index", false)}});
}

// max and min of bools are any and all.
Op or_bool(OnnxNode &n, Op op, Op for_bool) { return is_bool(n.dtype()) ? for_bool : op; }

} // namespace

Status import_reduce_l1(OnnxNode &n) { return n.finish(reduce(n, Op::reduce_l1)); }
Status import_reduce_l2(OnnxNode &n) { return n.finish(reduce_reals(n, Op::reduce_l2)); }
Status import_reduce_log_sum_exp(OnnxNode &n) { return n.finish(reduce_reals(n, Op::reduce_log_sum_exp)); }
Status import_reduce_max(OnnxNode &n) {
  return n.finish(reduce(n, or_bool(n, Op::reduce_max, Op::reduce_any)));
}
Status import_reduce_mean(OnnxNode &n) { return n.finish(reduce_reals(n, Op::reduce_mean)); }
Status import_reduce_min(OnnxNode &n) {
  return n.finish(reduce(n, or_bool(n, Op::reduce_min, Op::reduce_all)));
}
Status import_reduce_prod(OnnxNode &n) { return n.finish(reduce(n, Op::reduce_prod)); }
Status import_reduce_sum(OnnxNode &n) { return n.finish(reduce(n, Op::reduce_sum)); }
Status import_reduce_sum_square(OnnxNode &n) { return n.finish(reduce(n, Op::reduce_sum_square)); }
Status import_reduce_log_sum(OnnxNode &n) { return n.finish(reduce_reals(n, Op::reduce_sum, Op::log)); }

Status import_argmax(OnnxNode &n) { return arg_reduce(n, Op::argmax); }
Status import_argmin(OnnxNode &n) { return arg_reduce(n, Op::argmin); }

} // namespace kiln::onnx
