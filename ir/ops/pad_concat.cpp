// pad and concat: results made of several pieces, each copied (or filled) by a loop nest of its own, so
// that no element is chosen by a branch.
#include "ir/ops/index_util.h"

#include <algorithm>
#include <cmath>
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

// The position in x of what mode `mode` puts at position `at` of the padded dim, where that is not
// inside x.
int64_t padded_position(const std::string &mode, int64_t at, int64_t size) {
  if (mode == "wrap")
    return ((at % size) + size) % size;
  if (mode == "edge")
    return std::clamp<int64_t>(at, 0, size - 1);
  int64_t last = size - 1;
  return last - std::abs(last - std::abs(at));
}

Result<std::vector<Tensor>> ref_pad(const RefContext &context) {
  const Tensor &x = *context.operands[0];
  KILN_TRY(lo, ints_attr(context.attrs, "lo"));
  const std::string &mode = context.attrs.get_string("mode");
  Tensor out = make_tensor(context.results[0]);
  Tensor value = Tensor::scalar_f64(x.dtype(), context.attrs.get_float("value"));
  auto strides = row_major_strides(x.dims());
  for_each_index(out.dims(), [&](const std::vector<int64_t> &at, int64_t linear) {
    int64_t from = 0;
    bool inside = true;
    for (size_t d = 0; d < at.size(); ++d) {
      int64_t p = at[d] - lo[d], size = x.dims()[d];
      inside = inside && p >= 0 && p < size;
      from += (mode == "constant" ? p : padded_position(mode, p, size)) * strides[d];
    }
    if (mode == "constant" && !inside)
      copy_elements(value, 0, out, linear);
    else
      copy_elements(x, from, out, linear);
  });
  return one_tensor(std::move(out));
}

Result<std::vector<Tensor>> ref_concat(const RefContext &context) {
  Tensor out = make_tensor(context.results[0]);
  size_t axis = size_t(axis_of(context.attrs, "axis", out.rank()));
  int64_t outer = product(std::span(out.dims()).first(axis));
  int64_t inner = product(std::span(out.dims()).subspan(axis + 1));
  int64_t row = out.dims()[axis] * inner, offset = 0;
  for (const Tensor *x : context.operands) {
    int64_t piece = x->dims()[axis] * inner;
    for (int64_t i = 0; i < outer; ++i)
      copy_elements(*x, i * piece, out, i * row + offset, piece);
    offset += piece;
  }
  return one_tensor(std::move(out));
}

// Where the elements of x lie in the padded dim: [begin, end).
struct Interior {
  Dim begin, end;
};

Interior interior(LowerContext &context, size_t d) {
  const Dim &lo = context.attrs().get_dims("lo")[d], &hi = context.attrs().get_dims("hi")[d];
  auto cropped = [](const Dim &amount) { return amount.is_const() && amount.as_const() < 0; };
  return {cropped(lo) ? Dim(0) : lo,
          context.result_type(0).shape[d] - (cropped(hi) ? Dim(0) : hi)};
}

// The border is filled dim by dim: below and above the inside of that dim, over the inside of the dims
// before and everything of those after. Then x is copied inside.
void lower_constant_pad(LowerContext &context) {
  const Shape &shape = context.result_type(0).shape;
  const auto &lo = context.attrs().get_dims("lo");
  Expr value = literal(context.result_type(0).dtype, context.attrs().get_float("value"));
  size_t rank = shape.size();
  std::vector<Dim> index(rank);
  // Loops over [begin(d), end(d)) of each dim.
  auto nest = [&](const std::vector<Interior> &ranges, const std::function<void()> &body) {
    std::function<void(size_t)> go = [&](size_t d) {
      if (d == rank)
        return body();
      Dim extent = ranges[d].end - ranges[d].begin;
      if (extent.is_const(1)) {
        index[d] = ranges[d].begin;
        return go(d + 1);
      }
      context.loop("i", 0, extent, LoopKind::parallel, [&](const Dim &var) {
        index[d] = ranges[d].begin + var;
        go(d + 1);
      });
    };
    go(0);
  };
  std::vector<Interior> inside, ranges;
  for (size_t d = 0; d < rank; ++d) {
    inside.push_back(interior(context, d));
    ranges.push_back({0, shape[d]});
  }
  auto fill = [&] { context.emit(context.store_result(0, index, value)); };
  for (size_t d = 0; d < rank; ++d) {
    for (const Interior &side : {Interior{0, inside[d].begin}, Interior{inside[d].end, shape[d]}})
      if (side.begin != side.end) {
        ranges[d] = side;
        nest(ranges, fill);
      }
    ranges[d] = inside[d];
  }
  nest(inside, [&] {
    std::vector<Dim> at;
    for (size_t d = 0; d < rank; ++d)
      at.push_back(index[d] - lo[d]);
    context.emit(context.store_result(0, index, context.operand(0, at)));
  });
}

// As padded_position(), without branches: |a| is max(a, -a).
Dim padded_index(const std::string &mode, const Dim &at, const Dim &size) {
  if (mode == "wrap")
    return mod(at, size);
  Dim last = size - Dim(1);
  if (mode == "edge")
    return max(min(at, last), 0);
  Dim from_end = last - max(at, -at);
  return last - max(from_end, -from_end);
}

// Where a part of the padded dim reads: p for position `at` of the result, linear in it.
struct PadPart {
  Dim begin, end;
  std::function<Dim(const Dim &at)> from;
};

// Below, inside and above are parts of their own, so that indices are linear in each; one part with
// the general form where a pattern may repeat.
std::vector<PadPart> pad_parts(LowerContext &context, const std::string &mode, size_t d) {
  const Dim lo = context.attrs().get_dims("lo")[d], hi = context.attrs().get_dims("hi")[d];
  const Dim size = context.operand_type(0).shape[d], result = context.result_type(0).shape[d];
  if (lo.is_const(0) && hi.is_const(0))
    return {{0, result, [](const Dim &at) { return at; }}};
  bool crops = (lo.is_const() && lo.as_const() < 0) || (hi.is_const() && hi.as_const() < 0);
  if (crops || mode == "wrap")
    return {{0, result, [&context, mode, lo, size](const Dim &at) {
               return context.simplified(padded_index(mode, at - lo, size));
             }}};
  bool edge = mode == "edge";
  std::vector<PadPart> out{{lo, lo + size, [lo](const Dim &at) { return at - lo; }}};
  if (!lo.is_const(0))
    out.push_back({0, lo, [edge, lo](const Dim &at) { return edge ? Dim(0) : lo - at; }});
  if (!hi.is_const(0))
    out.push_back({lo + size, result, [edge, lo, size](const Dim &at) {
                     Dim last = size - Dim(1);
                     return edge ? last : last + last - (at - lo);
                   }});
  return out;
}

void lower_pad(LowerContext &context) {
  const std::string &mode = context.attrs().get_string("mode");
  if (mode == "constant")
    return lower_constant_pad(context);
  size_t rank = context.result_type(0).shape.size();
  std::vector<std::vector<PadPart>> parts;
  for (size_t d = 0; d < rank; ++d)
    parts.push_back(pad_parts(context, mode, d));
  // One nest for each choice of parts.
  std::vector<size_t> choice(rank, 0);
  while (true) {
    Shape shape;
    for (size_t d = 0; d < rank; ++d)
      shape.push_back(parts[d][choice[d]].end - parts[d][choice[d]].begin);
    parallel_nest(context, shape, [&](std::vector<Dim> &index) {
      std::vector<Dim> to, at;
      for (size_t d = 0; d < rank; ++d) {
        const PadPart &part = parts[d][choice[d]];
        to.push_back(part.begin + index[d]);
        at.push_back(part.from(to.back()));
      }
      context.emit(context.store_result(0, to, context.operand(0, at)));
    });
    size_t d = rank;
    while (d > 0 && ++choice[d - 1] == parts[d - 1].size())
      choice[--d] = 0;
    if (d == 0)
      return;
  }
}

void lower_concat(LowerContext &context) {
  const Shape &result = context.result_type(0).shape;
  size_t axis = size_t(axis_of(context.attrs(), "axis", int(result.size())));
  Dim offset = 0;
  for (size_t i = 0; i < context.node().operands.size(); ++i) {
    Shape shape = result;
    shape[axis] = context.operand_type(int(i)).shape[axis];
    parallel_nest(context, shape, [&](std::vector<Dim> &index) {
      Expr value = context.operand(int(i), index);
      std::vector<Dim> to = index;
      to[axis] += offset;
      context.emit(context.store_result(0, to, std::move(value)));
    });
    offset += shape[axis];
  }
}

using Dims = std::vector<Dim>;

OpSample pad_sample(Shape shape, Dims lo, Dims hi, std::string mode, double value = 0, DType dtype = DType::f32) {
  return {{{dtype, std::move(shape)}},
          {{"lo", std::move(lo)}, {"hi", std::move(hi)}, {"mode", std::move(mode)}, {"value", value}}};
}

OpSample concat_sample(std::vector<Shape> shapes, int64_t axis, DType dtype = DType::f32) {
  OpSample out{{}, {{"axis", Dim(axis)}}};
  for (Shape &shape : shapes)
    out.operands.push_back({dtype, std::move(shape)});
  return out;
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
    .ref = ref_pad,
    .lower = lower_pad,
    .samples = {pad_sample({3, 4}, {1, 0}, {2, 3}, "constant", 1.5), pad_sample({2, 3, 4}, {0, -1, 1}, {0, 2, -2}, "constant"),
                pad_sample({4, 5}, {2, 3}, {1, 4}, "reflect"), pad_sample({3, 2}, {2, 1}, {1, 3}, "edge"),
                pad_sample({3, 4}, {1, 5}, {2, 0}, "wrap"), pad_sample({5}, {1}, {1}, "constant", 7, DType::i8)},
    .tolerance = 0,
};

const OpDef op_concat{
    .name = "concat",
    .doc = "Joins tensors along an axis.",
    .min_operands = 1,
    .max_operands = -1,
    .attrs = {{"axis", AttrKind::integer}},
    .infer = infer_concat,
    .ref = ref_concat,
    .lower = lower_concat,
    .samples = {concat_sample({{2, 3}, {2, 5}, {2, 1}}, 1), concat_sample({{2, 3, 4}, {1, 3, 4}}, 0),
                concat_sample({{2, 3, 4}, {2, 3, 4}}, -1, DType::u8)},
    .tolerance = 0,
};

} // namespace kiln
