// depth_to_space and space_to_depth: blocks of pixels from channels and back, as a permutation of the
// dims of a finer shape.
#include "ir/ops/composite.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<int64_t> block_attr(const InferContext &context) {
  KILN_TRY(block, int_attr(context.attrs, "block"));
  if (block < 1 || block > INT32_MAX)
    return Error{fmt::format("'block' is {}; it must be 1 or more", block)};
  return block;
}

Result<Types> infer_depth_to_space(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_rank(context, 0, 4));
  KILN_TRY(block, block_attr(context));
  KILN_RETURN_IF_ERROR(choice_attr(context.attrs, "mode", {"DCR", "CRD"}));
  const TensorType &x = context.operands[0];
  if (!context.require_equal(mod(x.shape[1], block * block), 0))
    return Error{fmt::format("{} channels do not divide into blocks of {} x {}", x.shape[1].text(), block,
                             block)};
  return one_result(x.dtype, {x.shape[0], floordiv(x.shape[1], block * block), x.shape[2] * Dim(block),
                              x.shape[3] * Dim(block)});
}

Result<Types> infer_space_to_depth(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_rank(context, 0, 4));
  KILN_TRY(block, block_attr(context));
  const TensorType &x = context.operands[0];
  for (size_t d : {2, 3})
    if (!context.require_equal(mod(x.shape[d], block), 0))
      return Error{fmt::format("dim {} of {} does not divide into blocks of {}", d, x.text(), block)};
  return one_result(x.dtype, {x.shape[0], x.shape[1] * Dim(block * block), floordiv(x.shape[2], block),
                              floordiv(x.shape[3], block)});
}

std::vector<ValueId> decompose_depth_to_space(GraphBuilder &b, const Node &node) {
  ValueId x = node.operands[0];
  Shape s = b.type(x).shape;
  Dim block = node.attrs.get_int("block"), channels = floordiv(s[1], block * block);
  bool depth_first = node.attrs.get_string("mode") == "DCR";
  ValueId split = depth_first ? reshape_to(b, x, {s[0], block, block, channels, s[2], s[3]})
                              : reshape_to(b, x, {s[0], channels, block, block, s[2], s[3]});
  ValueId moved = permute_dims(b, split, depth_first ? std::vector<int>{0, 3, 4, 1, 5, 2}
                                                     : std::vector<int>{0, 1, 4, 2, 5, 3});
  return {reshape_to(b, moved, {s[0], channels, s[2] * block, s[3] * block})};
}

std::vector<ValueId> decompose_space_to_depth(GraphBuilder &b, const Node &node) {
  ValueId x = node.operands[0];
  Shape s = b.type(x).shape;
  Dim block = node.attrs.get_int("block"), h = floordiv(s[2], block), w = floordiv(s[3], block);
  ValueId split = reshape_to(b, x, {s[0], s[1], h, block, w, block});
  ValueId moved = permute_dims(b, split, {0, 3, 5, 1, 2, 4});
  return {reshape_to(b, moved, {s[0], s[1] * block * block, h, w})};
}

OpSample sample(Shape shape, Attrs attrs) { return {{{DType::f32, std::move(shape)}}, std::move(attrs)}; }

} // namespace

const OpDef op_depth_to_space{
    .name = "depth_to_space",
    .doc = "x[N, C, H, W] to [N, C / block^2, H * block, W * block]. The channels hold (row, column, depth) of "
           "a block in mode DCR, (depth, row, column) in mode CRD.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"block", AttrKind::integer}, {"mode", AttrKind::string, Attr(std::string("DCR"))}},
    .infer = infer_depth_to_space,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::depth_to_space, c, false); },
    .decompose = decompose_depth_to_space,
    .samples = {sample({2, 8, 2, 3}, {{"block", Dim(2)}}),
                sample({1, 9, 2, 2}, {{"block", Dim(3)}, {"mode", std::string("CRD")}})},
};

const OpDef op_space_to_depth{
    .name = "space_to_depth",
    .doc = "x[N, C, H, W] to [N, C * block^2, H / block, W / block], channels in the order (row, column, depth).",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"block", AttrKind::integer}},
    .infer = infer_space_to_depth,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::space_to_depth, c, false); },
    .decompose = decompose_space_to_depth,
    .samples = {sample({2, 3, 4, 6}, {{"block", Dim(2)}})},
};

} // namespace kiln
