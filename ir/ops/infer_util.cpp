#include "ir/ops/infer_util.h"

#include <algorithm>
#include <fmt/format.h>

namespace kiln {

Result<int64_t> int_attr(const Attrs &attrs, std::string_view name) {
  const Dim &value = attrs.get_dim(name);
  if (auto number = value.try_const())
    return *number;
  return Error{fmt::format("'{}' must be a number known at compile time, not {}", name,
                           value.is_valid() ? value.text() : "a size that overflows")};
}

Result<std::vector<int64_t>> ints_attr(const Attrs &attrs, std::string_view name) {
  std::vector<int64_t> out;
  for (const Dim &value : attrs.get_dims(name)) {
    auto number = value.try_const();
    if (!number)
      return Error{fmt::format("'{}' must hold numbers known at compile time, not {}", name,
                               value.is_valid() ? value.text() : "a size that overflows")};
    out.push_back(*number);
  }
  return out;
}

Result<std::vector<int64_t>> ints_attr(const Attrs &attrs, std::string_view name, size_t count,
                                       int64_t least) {
  KILN_TRY(out, ints_attr(attrs, name));
  if (out.size() != count)
    return Error{fmt::format("'{}' has {} numbers; it takes {}", name, out.size(), count)};
  for (int64_t value : out)
    if (value < least)
      return Error{fmt::format("'{}' holds {}; each must be at least {}", name, value, least)};
  return out;
}

Result<std::string> choice_attr(const Attrs &attrs, std::string_view name,
                                std::initializer_list<std::string_view> allowed) {
  const std::string &value = attrs.get_string(name);
  std::string list;
  for (std::string_view choice : allowed) {
    if (choice == value)
      return value;
    list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", choice);
  }
  return Error{fmt::format("'{}' is \"{}\"; it can be {}", name, value, list)};
}

Result<int> normalise_axis(int64_t axis, int rank) {
  if (rank == 0)
    return Error{fmt::format("axis {} of a scalar: it has no axes", axis)};
  if (axis < -int64_t(rank) || axis >= rank)
    return Error{
        fmt::format("axis {} is out of range for rank {}: it must be from {} to {}", axis, rank, -rank, rank - 1)};
  return int(axis < 0 ? axis + rank : axis);
}

Result<int> axis_attr(const Attrs &attrs, std::string_view name, int rank) {
  KILN_TRY(axis, int_attr(attrs, name));
  return normalise_axis(axis, rank);
}

Result<std::vector<int>> axes_attr(const Attrs &attrs, std::string_view name, int rank) {
  KILN_TRY(numbers, ints_attr(attrs, name));
  std::vector<int> out;
  std::vector<bool> seen(size_t(rank), false);
  for (int64_t number : numbers) {
    KILN_TRY(axis, normalise_axis(number, rank));
    if (seen[size_t(axis)])
      return Error{fmt::format("axis {} is listed twice in '{}'", axis, name)};
    seen[size_t(axis)] = true;
    out.push_back(axis);
  }
  return out;
}

int axis_of(const Attrs &attrs, std::string_view name, int rank) {
  return axis_attr(attrs, name, rank).value();
}

std::vector<int> axes_of(const Attrs &attrs, std::string_view name, int rank) {
  return axes_attr(attrs, name, rank).value();
}

Status same_dtype(const InferContext &context, int a, int b) {
  DType x = context.operands[size_t(a)].dtype, y = context.operands[size_t(b)].dtype;
  if (x == y)
    return Unit{};
  return Error{fmt::format("operand {} is {} and operand {} is {}: convert one of them, both must be "
                           "of one dtype",
                           a, dtype_name(x), b, dtype_name(y))};
}

Status same_dtype(const InferContext &context) {
  for (size_t i = 1; i < context.operands.size(); ++i)
    KILN_RETURN_IF_ERROR(same_dtype(context, 0, int(i)));
  return Unit{};
}

Status check_dtype(const InferContext &context, int operand, bool allowed, std::string_view what) {
  if (allowed)
    return Unit{};
  return Error{fmt::format("operand {} is {}; it must be {}", operand,
                           context.operands[size_t(operand)].text(), what)};
}

Status check_float(const InferContext &context, int operand) {
  return check_dtype(context, operand, is_float(context.operands[size_t(operand)].dtype),
                     "of a float dtype (f64, f32, f16, bf16)");
}

Status check_number(const InferContext &context, int operand) {
  DType dtype = context.operands[size_t(operand)].dtype;
  return check_dtype(context, operand, is_float(dtype) || is_integer(dtype), "a number; convert it first");
}

Status check_integer(const InferContext &context, int operand) {
  return check_dtype(context, operand, is_integer(context.operands[size_t(operand)].dtype),
                     "of an integer dtype");
}

Status check_rank(const InferContext &context, int operand, int rank) {
  const TensorType &type = context.operands[size_t(operand)];
  if (type.rank() == rank)
    return Unit{};
  return Error{fmt::format("operand {} is {}, of rank {}; it must have rank {}", operand, type.text(),
                           type.rank(), rank)};
}

Status check_rank_at_least(const InferContext &context, int operand, int rank) {
  const TensorType &type = context.operands[size_t(operand)];
  if (type.rank() >= rank)
    return Unit{};
  return Error{fmt::format("operand {} is {}, of rank {}; it must have rank {} or more", operand,
                           type.text(), type.rank(), rank)};
}

Status equal_dims(InferContext &context, const Dim &a, const Dim &b, std::string_view what) {
  if (context.require_equal(a, b))
    return Unit{};
  return Error{fmt::format("{}: {} and {} differ", what, a.text(), b.text())};
}

Status equal_shapes(InferContext &context, const Shape &a, const Shape &b, std::string_view what) {
  if (a.size() != b.size())
    return Error{fmt::format("{}: {} has rank {} and {} has rank {}", what, shape_text(a), a.size(),
                             shape_text(b), b.size())};
  for (size_t i = 0; i < a.size(); ++i)
    if (!context.require_equal(a[i], b[i]))
      return Error{fmt::format("{}: {} and {} differ in dim {}, {} against {}", what, shape_text(a),
                               shape_text(b), i, a[i].text(), b[i].text())};
  return Unit{};
}

Status equal_types(InferContext &context, const TensorType &a, const TensorType &b,
                   std::string_view what) {
  if (a.dtype != b.dtype)
    return Error{fmt::format("{}: {} and {} differ in dtype", what, a.text(), b.text())};
  return equal_shapes(context, a.shape, b.shape, what);
}

bool require_at_most(InferContext &context, const Dim &a, const Dim &b) {
  if (known_nonnegative(b - a, DimRanges{}))
    return true;
  if ((b - a).is_const() || !a.is_valid() || !b.is_valid())
    return false;
  return context.require_equal(max(a, b), b);
}

Status nonnegative_dims(InferContext &context, std::span<const Dim> dims, std::string_view what) {
  for (const Dim &d : dims)
    if (!require_at_most(context, 0, d))
      return Error{fmt::format("{} {} holds a size that is negative or overflows", what, shape_text(dims))};
  return Unit{};
}

Result<Shape> broadcast_shapes(InferContext &context, const Shape &a, const Shape &b) {
  const Shape &longer = a.size() >= b.size() ? a : b, &shorter = a.size() >= b.size() ? b : a;
  Shape out = longer;
  size_t offset = longer.size() - shorter.size();
  for (size_t i = 0; i < shorter.size(); ++i) {
    const Dim &x = longer[offset + i], &y = shorter[i];
    if (x == y || y.is_const(1))
      continue;
    if (x.is_const(1)) {
      out[offset + i] = y;
      continue;
    }
    if (!context.require_equal(x, y))
      return Error{fmt::format("The size of tensor a ({}) must match the size of tensor b ({}) at dimension "
                               "{}, or one of them must be 1; the shapes are {} and {}",
                               (a.size() >= b.size() ? x : y).text(), (a.size() >= b.size() ? y : x).text(),
                               offset + i, shape_text(a), shape_text(b))};
    if (y.is_const())
      out[offset + i] = y;
  }
  return out;
}

Result<Shape> broadcast_operands(InferContext &context) {
  Shape out;
  for (size_t i = 0; i < context.operands.size(); ++i) {
    auto shape = broadcast_shapes(context, out, context.operands[i].shape);
    if (!shape)
      return shape.error();
    out = std::move(*shape);
  }
  return out;
}

Status broadcasts_to(InferContext &context, const Shape &from, const Shape &to) {
  auto failed = [&](const std::string &why) {
    return Error{fmt::format("{} does not broadcast to {}: {}", shape_text(from), shape_text(to), why)};
  };
  if (from.size() > to.size())
    return failed(fmt::format("it has {} dims, the target only {}", from.size(), to.size()));
  size_t offset = to.size() - from.size();
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i].is_const(1) || context.require_equal(from[i], to[offset + i]))
      continue;
    return failed(fmt::format("dim {} of the target is {}, the operand has {} there (it must be equal or 1)",
                              offset + i, to[offset + i].text(), from[i].text()));
  }
  return Unit{};
}

} // namespace kiln
