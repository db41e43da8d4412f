// resize: samples x at other sizes, as ONNX's Resize does.
#include "ir/ops/infer_util.h"

#include <cmath>
#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_resize(InferContext &context) {
  const TensorType &x = context.operands[0];
  const Shape &sizes = context.attrs.get_dims("sizes");
  const auto &scales = context.attrs.get_floats("scales");
  if (sizes.size() != x.shape.size() || scales.size() != x.shape.size())
    return Error{fmt::format("'sizes' and 'scales' have {} and {} entries; {} takes {} of each",
                             sizes.size(), scales.size(), x.text(), x.rank())};
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, sizes, "'sizes'"));
  KILN_RETURN_IF_ERROR(check_dtype(context, 0, !is_bool(x.dtype), "a number; convert it first"));
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (!std::isfinite(scales[d]) || scales[d] <= 0)
      return Error{fmt::format("the scale of dim {} is {}; it must be positive", d, scales[d])};
    // An element of the result needs one of x.
    if (!sizes[d].is_const(0) && !require_at_most(context, min(sizes[d], Dim(1)), x.shape[d]))
      return Error{fmt::format("dim {} is empty and cannot be resized to {}", d, sizes[d].text())};
  }
  KILN_RETURN_IF_ERROR(choice_attr(context.attrs, "mode", {"nearest", "linear", "cubic"}));
  KILN_RETURN_IF_ERROR(choice_attr(context.attrs, "coordinates",
                                   {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"}));
  KILN_RETURN_IF_ERROR(choice_attr(context.attrs, "rounding",
                                   {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}));
  return one_result(x.dtype, sizes);
}

} // namespace

const OpDef op_resize{
    .name = "resize",
    .doc = "Samples x at other sizes. `coordinates` says where in x a result element lies (with scale = "
           "result size / size), `mode` how it is made of those around, `rounding` which is the nearest.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"sizes", AttrKind::dims, std::nullopt, "all dims of the result"},
              {"scales", AttrKind::reals, std::nullopt, "one a dim; 1 for a dim that stays"},
              {"mode", AttrKind::string, Attr(std::string("nearest"))},
              {"coordinates", AttrKind::string, Attr(std::string("half_pixel"))},
              {"rounding", AttrKind::string, Attr(std::string("round_prefer_floor"))},
              {"cubic_a", AttrKind::real, Attr(-0.75)},
              {"exclude_outside", AttrKind::boolean, Attr(false)}},
    .infer = infer_resize,
    .traits = kExpensive,
};

} // namespace kiln
