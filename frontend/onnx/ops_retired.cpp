// Operators that ONNX has dropped, some of which never left the experimental stage, and forms of others
// from its first opsets. Files of that time still have them.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {

Status import_affine(OnnxNode &n) {
  Calc c(n.emitter());
  return n.finish(c.done(c(n.in(0)) * n.get_float("alpha", 1) + n.get_float("beta", 0)));
}

Status import_parametric_softplus(OnnxNode &n) {
  Calc c(n.emitter());
  Num x = c(n.in(0)) * n.get_float("beta", 1);
  return n.finish(c.done(c.op(Op::softplus, {x}) * n.get_float("alpha", 1)));
}

Status import_scaled_tanh(OnnxNode &n) {
  Calc c(n.emitter());
  Num x = c(n.in(0)) * n.get_float("beta", 1);
  return n.finish(c.done(c.op(Op::tanh, {x}) * n.get_float("alpha", 1)));
}

// x * scale + bias of the channel
Status import_image_scaler(OnnxNode &n) {
  auto bias = n.get_floats("bias");
  if (n.rank() != 4 || !n.emitter().require_equal(n.in(0).dim(1), int64_t(bias.size()), "ImageScaler"))
    return Error{fmt::format("it has a bias for {} channels, but its operand is {}", bias.size(), n.in(0).type.text())};
  Calc c(n.emitter());
  Tensor column(n.dtype(), {int64_t(bias.size()), 1, 1});
  for (size_t i = 0; i < bias.size(); ++i)
    column.set_f64(int64_t(i), bias[i]);
  return n.finish(c.done(c(n.in(0)) * n.get_float("scale", 1) + c(n.emitter().constant(std::move(column)))));
}

// Border: left, top, right, bottom. With a scale [height, width], of that size from the left and the top.
Status import_crop(OnnxNode &n) {
  auto border = n.get_ints("border"), scale = n.get_ints("scale");
  if (n.rank() != 4 || border.size() != 4 || (scale.size() != 2 && n.has_attr("scale")))
    return Error{fmt::format("its operand {} must be [N, C, H, W], with 4 borders and a scale of 2 numbers or none", n.in(0).type.text())};
  Calc c(n.emitter());
  Num out = c(n.in(0));
  for (size_t d = 0; d < 2; ++d) { // height, width
    int64_t first = border[1 - d];
    const Dim size = n.in(0).dim(int(d) + 2), rest = size - Dim(first) - Dim(border[3 - d]);
    Dim taken = scale.empty() ? rest : Dim(scale[d]), behind = size - Dim(first) - taken;
    for (const Dim &v : {Dim(first), taken, behind})
      if (v.is_const() && v.as_const() < 0)
        return Error{fmt::format("it takes {} from {} on of {}, along spatial dim {}", taken.text(), first, n.in(0).type.text(), d)};
    out = slice(out, int(d) + 2, first, taken);
  }
  return n.finish(c.done(out));
}

// Upsample-1: the last two dims.
Status import_first_upsample(OnnxNode &n, std::vector<double> &scales) {
  if (n.rank() < 2)
    return Error{fmt::format("its operand {} has no height and width", n.in(0).type.text())};
  scales.assign(size_t(n.rank()), 1.0);
  scales[size_t(n.rank()) - 2] = n.get_float("height_scale", 1);
  scales[size_t(n.rank()) - 1] = n.get_float("width_scale", 1);
  return Unit{};
}

// Tile-1: as often along one axis.
Status import_first_tile(OnnxNode &n) {
  Calc c(n.emitter());
  std::vector<int64_t> given; // tiles, axis; exporters of the time made them floats
  for (size_t i : {size_t(1), size_t(2)}) {
    KILN_TRY(number, c.done(convert(c(n.in(i)), DType::i64)));
    auto list = n.emitter().dims(number);
    if (!list || list->size() != 1 || !(*list)[0].is_const())
      return Error{"its tiles and its axis must be one known number each"};
    given.push_back((*list)[0].as_const());
  }
  KILN_TRY(axis, n.axis(given[1], n.rank()));
  if (given[0] < 0 || given[0] > (1 << 20))
    return Error{fmt::format("it repeats its operand {} times", given[0])};
  Shape apart = n.shape(), wide, joined = n.shape();
  apart.insert(apart.begin() + axis, 1);
  wide = apart;
  wide[size_t(axis)] = given[0];
  joined[size_t(axis)] *= Dim(given[0]);
  return n.finish(c.done(reshape(broadcast_to(reshape(c(n.in(0)), apart), wide), joined)));
}

// BatchNormalization before opset 9 with spatial=0: statistics for each position of [C, spatial...].
Status import_position_batch_normalization(OnnxNode &n) {
  Shape each(n.shape().begin() + (n.rank() > 0), n.shape().end());
  Calc c(n.emitter());
  auto statistic = [&](size_t i) { return reshape(c(n.in(i)), each); };
  Num deviation = c.op(Op::sqrt, {statistic(4) + n.get_float("epsilon", 1e-5)});
  Num out = (c(n.in(0)) - statistic(3)) / deviation * statistic(1) + statistic(2);
  return n.finish(c.done(out));
}

} // namespace kiln::onnx
