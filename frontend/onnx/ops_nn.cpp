// Matrix products, normalisation and softmax.
#include "frontend/onnx/ops.h"

#include "frontend/onnx/tensors.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

// Before opset 13 the dims from `axis` on were one: softmax over all of them.
Status softmax_like(OnnxNode &n, Op op) {
  bool flat = n.opset() < 13;
  KILN_TRY(axis, n.axis(n.get_int("axis", flat ? 1 : -1), n.rank()));
  bool rest_is_one = true;
  for (int i = axis + 1; i < n.rank(); ++i)
    rest_is_one &= n.in(0).dim(i).is_const(1);
  if (!flat || rest_is_one)
    return n.finish(op, {n.in(0)}, {{"axis", attr_int(axis)}});
  std::span<const Dim> dims = n.shape();
  KILN_TRY(matrix, reshape(n.emitter(), n.in(0), {element_count(dims.first(size_t(axis))),
                                                   element_count(dims.subspan(size_t(axis)))}));
  KILN_TRY(result, n.emit(op, {matrix}, {{"axis", Dim(1)}}));
  return n.finish(reshape(n.emitter(), result, n.shape()));
}

Result<Val> scaled(OnnxNode &n, const Val &x, double by) {
  if (by == 1.0)
    return x;
  return n.emit(Op::mul, {x, n.emitter().scalar(x.dtype(), by)});
}

Attr axes_from(int first, int rank) {
  std::vector<int> axes;
  for (int i = first; i < rank; ++i)
    axes.push_back(i);
  return attr_ints(axes);
}

// Normalised by its own mean and variance; those it was given move towards them.
Status import_batch_statistics(OnnxNode &n, double momentum) {
  Emitter &e = n.emitter();
  const Val &x = n.in(0);
  if (x.rank() < 2)
    return Error{fmt::format("its input is {}, which has no channels", x.type.text())};
  DType t = n.dtype(3); // of the statistics
  std::vector<Dim> axes, channels = {1, x.dim(1)};
  for (int i = 0; i < x.rank(); ++i)
    if (i != 1)
      axes.push_back(i);
  channels.resize(size_t(x.rank()), 1);
  KILN_TRY(wide, convert(e, x, t));
  KILN_TRY(mean, n.emit(Op::reduce_mean, {wide}, {{"axes", axes}, {"keepdims", false}}));
  KILN_TRY(column, reshape(e, mean, channels));
  KILN_TRY(centered, n.emit(Op::sub, {wide, column}));
  KILN_TRY(squares, n.emit(Op::square, {centered}));
  KILN_TRY(variance, n.emit(Op::reduce_mean, {squares}, {{"axes", axes}, {"keepdims", false}}));
  KILN_TRY(y, n.emit(Op::batch_norm, {x, n.in(1), n.in(2), mean, variance}, {{"epsilon", n.get_float("epsilon", 1e-5)}}));
  n.set(0, y);
  const Val *found[] = {&mean, &variance};
  for (size_t i = 0; i < 2; ++i) {
    KILN_TRY(old, n.emit(Op::mul, {n.in(3 + i), e.scalar(t, momentum)}));
    KILN_TRY(fresh, n.emit(Op::mul, {*found[i], e.scalar(t, 1 - momentum)}));
    KILN_TRY(moved, n.emit(Op::add, {old, fresh}));
    n.set(1 + i, moved);
  }
  return Unit{};
}

} // namespace

Status import_softmax(OnnxNode &n) { return softmax_like(n, Op::softmax); }
Status import_log_softmax(OnnxNode &n) { return softmax_like(n, Op::log_softmax); }

// One where the first of the largest elements is, zero elsewhere.
Status import_hardmax(OnnxNode &n) {
  bool flat = n.opset() < 13;
  KILN_TRY(axis, n.axis(n.get_int("axis", flat ? 1 : -1), n.rank()));
  Emitter &e = n.emitter();
  Val x = n.in(0);
  if (flat) {
    std::span<const Dim> dims = n.shape();
    KILN_TRY(matrix, reshape(e, x, {element_count(dims.first(size_t(axis))), element_count(dims.subspan(size_t(axis)))}));
    x = matrix;
    axis = 1;
  }
  KILN_TRY(best, n.emit(Op::argmax, {x}, {{"axis", attr_int(axis)}, {"keepdims", true}}));
  KILN_TRY(index, n.emit(Op::iota, {}, {{"shape", x.type.shape}, {"axis", attr_int(axis)}, {"dtype", DType::i64}}));
  KILN_TRY(on, n.emit(Op::eq, {index, best}));
  KILN_TRY(out, convert(e, on, x.dtype()));
  return n.finish(reshape(e, out, n.shape()));
}

Status import_matmul(OnnxNode &n) {
  Emitter &e = n.emitter();
  Val a = n.in(0), b = n.in(1);
  if (a.rank() == 0 || b.rank() == 0)
    return Error{"its operands must have dims"};
  bool row = a.rank() == 1, column = b.rank() == 1;
  if (row) {
    KILN_TRY(matrix, reshape(e, a, {1, a.dim(0)}));
    a = matrix;
  }
  if (column) {
    KILN_TRY(matrix, reshape(e, b, {b.dim(0), 1}));
    b = matrix;
  }
  KILN_TRY(product, n.emit(Op::dot, {a, b}));
  Shape shape = product.type.shape;
  if (column)
    shape.pop_back();
  if (row)
    shape.erase(shape.end() - (column ? 1 : 2));
  return n.finish(reshape(e, product, shape));
}

Status import_gemm(OnnxNode &n) {
  n.ignore({"broadcast"}); // before opset 7: C is broadcast where its shape asks for it
  if (n.rank(0) != 2 || n.rank(1) != 2)
    return Error{fmt::format("its operands must be matrices, not {} and {}", n.in(0).type.text(),
                             n.in(1).type.text())};
  KILN_TRY(a, n.get_flag("transA", false) ? permute(n.emitter(), n.in(0), {1, 0}) : Result<Val>(n.in(0)));
  double alpha = n.get_float("alpha", 1.0), beta = n.get_float("beta", 1.0);
  Attrs attrs{{"transpose_b", n.get_flag("transB", false)}};
  bool bias = n.has(2) && beta != 0.0;
  if (!bias || alpha != 1.0 || n.rank(2) > 2) {
    KILN_TRY(product, n.emit(Op::dot, {a, n.in(1)}, attrs));
    KILN_TRY(out, scaled(n, product, alpha));
    if (!bias)
      return n.finish(Result<Val>(out));
    KILN_TRY(c, scaled(n, n.in(2), beta));
    return n.finish(Op::add, {out, c});
  }
  KILN_TRY(c, scaled(n, n.in(2), beta));
  return n.finish(Op::dot, {a, n.in(1), c}, attrs);
}

// The first operands in a dtype that holds them all: scales and statistics may be wider than the data, or narrower.
static Result<std::vector<Val>> of_one_dtype(OnnxNode &n, size_t count) {
  DType common = n.dtype();
  for (size_t i = 1; i < count; ++i)
    if (n.dtype(i) != common)
      common = n.dtype(i) == DType::f64 || common == DType::f64 ? DType::f64 : DType::f32;
  std::vector<Val> out;
  for (size_t i = 0; i < count; ++i) {
    KILN_TRY(v, convert(n.emitter(), n.in(i), common));
    out.push_back(v);
  }
  return out;
}

Status import_batch_normalization(OnnxNode &n) {
  n.ignore({"is_test", "consumed_inputs"});
  double momentum = n.get_float("momentum", 0.9);
  if (n.get_flag("training_mode", false))
    return import_batch_statistics(n, momentum);
  if (n.opset() < 9 && !n.get_flag("spatial", true))
    return import_position_batch_normalization(n);
  KILN_TRY(alike, of_one_dtype(n, 5));
  KILN_TRY(out, n.emit(Op::batch_norm, alike, {{"epsilon", n.get_float("epsilon", 1e-5)}}));
  return n.finish(convert(n.emitter(), out, n.dtype()));
}

Status import_instance_normalization(OnnxNode &n) {
  n.ignore({"consumed_inputs"});
  return n.finish(Op::instance_norm, {n.in(0), n.in(1), n.in(2)}, {{"epsilon", n.get_float("epsilon", 1e-5)}});
}

Status import_layer_normalization(OnnxNode &n) {
  auto stash = dtype_from_onnx(n.get_int("stash_type", 1));
  if (!stash || !is_float(*stash))
    return Error{fmt::format("'stash_type' is {}, not a type of floats", n.get_int("stash_type", 1))};
  KILN_TRY(axis, n.axis(n.get_int("axis", -1), n.rank()));
  double epsilon = n.get_float("epsilon", 1e-5);
  std::vector<Val> operands = {n.in(0), n.in(1)};
  if (n.has(2))
    operands.push_back(n.in(2));
  KILN_TRY(out, n.emit(Op::layer_norm, operands, {{"axis", attr_int(axis)}, {"epsilon", epsilon}}));
  n.set(0, out);
  if (!n.wants(1) && !n.wants(2))
    return Unit{};
  Attrs over{{"axes", axes_from(axis, n.rank())}, {"keepdims", true}};
  KILN_TRY(x, convert(n.emitter(), n.in(0), *stash));
  KILN_TRY(mean, n.emit(Op::reduce_mean, {x}, over));
  KILN_TRY(centered, n.emit(Op::sub, {x, mean}));
  KILN_TRY(squares, n.emit(Op::square, {centered}));
  KILN_TRY(variance, n.emit(Op::reduce_mean, {squares}, over));
  KILN_TRY(moved, n.emit(Op::add, {variance, n.emitter().scalar(*stash, epsilon)}));
  KILN_TRY(inverse, n.emit(Op::rsqrt, {moved}));
  n.set(1, mean);
  n.set(2, inverse);
  return Unit{};
}

Status import_rms_normalization(OnnxNode &n) {
  n.ignore({"stash_type"});
  KILN_TRY(axis, n.axis(n.get_int("axis", -1), n.rank()));
  KILN_TRY(alike, of_one_dtype(n, 2));
  KILN_TRY(out, n.emit(Op::rms_norm, alike, {{"axis", attr_int(axis)}, {"epsilon", n.get_float("epsilon", 1e-5)}}));
  return n.finish(convert(n.emitter(), out, n.dtype(1)));
}

Status import_group_normalization(OnnxNode &n) {
  n.ignore({"stash_type"});
  int64_t groups = n.get_int("num_groups", 0);
  if (groups <= 0 || n.rank() < 2 || n.rank(1) != 1 || n.rank(2) != 1)
    return Error{"it needs num_groups, and a scale and a bias with one dim"};
  Val scale = n.in(1), bias = n.in(2);
  // In opset 18 scale and bias had one element for each group.
  const Dim &channels = n.in(0).dim(1);
  if (n.opset() < 21 && scale.dim(0) != channels) {
    Dim each = floordiv(channels, groups);
    for (Val *v : {&scale, &bias}) {
      KILN_TRY(column, reshape(n.emitter(), *v, {v->dim(0), 1}));
      KILN_TRY(wide, broadcast_to(n.emitter(), column, {v->dim(0), each}));
      KILN_TRY(all, reshape(n.emitter(), wide, {v->dim(0) * each}));
      *v = all;
    }
  }
  return n.finish(Op::group_norm, {n.in(0), scale, bias},
                  {{"groups", attr_int(groups)}, {"epsilon", n.get_float("epsilon", 1e-5)}});
}

Status import_lrn(OnnxNode &n) {
  return n.finish(Op::lrn, {n.in(0)},
                  {{"size", attr_int(n.get_int("size", 0))},
                   {"alpha", n.get_float("alpha", 1e-4)},
                   {"beta", n.get_float("beta", 0.75)},
                   {"bias", n.get_float("bias", 1.0)}});
}

Status import_lp_normalization(OnnxNode &n) {
  KILN_TRY(axis, n.axis(n.get_int("axis", -1), n.rank()));
  int64_t p = n.get_int("p", 2);
  if (p != 1 && p != 2)
    return Error{fmt::format("p is {}; it must be 1 or 2", p)};
  KILN_TRY(norm, n.emit(p == 1 ? Op::reduce_l1 : Op::reduce_l2, {n.in(0)},
                        {{"axes", attr_ints(std::vector<int>{axis})}, {"keepdims", true}}));
  KILN_TRY(quotient, n.emit(Op::div, {n.in(0), norm}));
  // A vector of zeros stays one.
  KILN_TRY(zero, n.emit(Op::eq, {norm, n.emitter().scalar(n.dtype(), 0)}));
  return n.finish(Op::where, {zero, n.in(0), quotient});
}

Status import_mean_variance_normalization(OnnxNode &n) {
  KILN_TRY(axes, n.axes(n.get_ints("axes", {0, 2, 3}), n.rank()));
  Attrs over{{"axes", attr_ints(axes)}, {"keepdims", true}};
  KILN_TRY(mean, n.emit(Op::reduce_mean, {n.in(0)}, over));
  KILN_TRY(centered, n.emit(Op::sub, {n.in(0), mean}));
  KILN_TRY(squares, n.emit(Op::square, {centered}));
  KILN_TRY(variance, n.emit(Op::reduce_mean, {squares}, over));
  KILN_TRY(deviation, n.emit(Op::sqrt, {variance}));
  KILN_TRY(safe, n.emit(Op::add, {deviation, n.emitter().scalar(n.dtype(), 1e-9)}));
  return n.finish(Op::div, {centered, safe});
}

} // namespace kiln::onnx
