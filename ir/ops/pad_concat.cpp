// pad and concat: results made of several pieces, each copied (or filled) by a loop nest of its own, so
// that no element is chosen by a branch.
#include "ir/ops/infer_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_pad(InferContext &context) {
  const TensorType &x = context.operands[0];
  const auto &lo = context.attrs.get_dims("lo"), &hi = context.attrs.get_dims("hi");
  if (lo.size() != x.shape.size() || hi.size() != x.shape.size())
    return Error{fmt::format("'lo' and 'hi' have {} and {} entries; {} takes {} of each", lo.size(),
                             hi.size(), x.text(), x.rank())};
  KILN_TRY(mode, choice_attr(context.attrs, "mode", {"constant", "reflect", "edge", "wrap"}));
  Shape out;
  for (size_t d = 0; d < lo.size(); ++d) {
    const Dim &size = x.shape[d];
    bool crops = false;
    for (const Dim &amount : {lo[d], hi[d]}) {
      bool negative = amount.is_const() && amount.as_const() < 0;
      crops |= negative;
      if (!negative && !require_at_most(context, 0, amount))
        return Error{fmt::format("the padding {} of dim {} is negative or overflows", amount.text(), d)};
      // Every padded element is some element of x.
      Dim least = mode == "reflect" ? amount + Dim(1) : min(amount, Dim(1));
      if (mode != "constant" && !negative && !amount.is_const(0) && !require_at_most(context, least, size))
        return Error{fmt::format("mode \"{}\" cannot pad dim {} of size {} by {}", mode, d, size.text(),
                                 amount.text())};
    }
    if (crops && !(lo[d].is_const() && hi[d].is_const()))
      return Error{fmt::format("dim {} is padded by {} and {}: a negative one needs both to be numbers", d,
                               lo[d].text(), hi[d].text())};
    Dim padded = lo[d] + size + hi[d];
    if (crops && (!require_at_most(context, -min(lo[d], Dim(0)) - min(hi[d], Dim(0)), size)))
      return Error{fmt::format("dim {} of size {} cannot be cropped by {} and {}", d, size.text(),
                               lo[d].text(), hi[d].text())};
    out.push_back(padded);
  }
  return one_result(x.dtype, std::move(out));
}

Result<Types> infer_concat(InferContext &context) {
  const TensorType &first = context.operands[0];
  KILN_TRY(axis, axis_attr(context.attrs, "axis", first.rank()));
  KILN_RETURN_IF_ERROR(same_dtype(context));
  Shape out = first.shape;
  for (size_t i = 1; i < context.operands.size(); ++i) {
    const Shape &shape = context.operands[i].shape;
    if (shape.size() != out.size())
      return Error{fmt::format("operand {} is {}, operand 0 is {}: all must have one rank", i,
                               context.operands[i].text(), first.text())};
    for (size_t d = 0; d < shape.size(); ++d) {
      if (int(d) == axis)
        continue;
      if (!context.require_equal(out[d], shape[d]))
        return Error{fmt::format("operand {} is {}, operand 0 is {}: along axis {} only dim {} may differ, "
                                 "and dim {} does ({} against {})",
                                 i, context.operands[i].text(), first.text(), axis, axis, d,
                                 shape[d].text(), out[d].text())};
      if (shape[d].is_const())
        out[d] = shape[d];
    }
    out[size_t(axis)] += shape[size_t(axis)];
  }
  return one_result(first.dtype, std::move(out));
}

} // namespace

const OpDef op_pad{
    .name = "pad",
    .doc = "Adds lo elements before and hi after each dim (takes away, where negative): `value`, or with mode "
           "the mirrored elements without the edge (reflect), the edge (edge), or those of the other end (wrap).",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"lo", AttrKind::dims},
              {"hi", AttrKind::dims},
              {"mode", AttrKind::string, Attr(std::string("constant"))},
              {"value", AttrKind::real, Attr(0.0)}},
    .infer = infer_pad,
};

const OpDef op_concat{
    .name = "concat",
    .doc = "Joins tensors along an axis.",
    .min_operands = 1,
    .max_operands = -1,
    .attrs = {{"axis", AttrKind::integer}},
    .infer = infer_concat,
};

} // namespace kiln
