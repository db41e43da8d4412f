// sort and topk: both order a row with a comparison in which equal elements keep their order and NaN is
// larger than every number.
//
// The code form needs no memory but the results: they hold the best k of the elements seen so far as a
// heap with the worst at its root, which is then taken apart from the end. sort is topk of all. Since
// positions break ties, the comparison is total, and a heap gives the order that a stable sort would.
#include "ir/ops/index_util.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

// Bool has an order too.
Status check_order(const InferContext &context) {
  return is_bool(context.operands[0].dtype) ? Status(Unit{}) : check_number(context, 0);
}

Result<Types> infer_sort(InferContext &context) {
  const TensorType &x = context.operands[0];
  KILN_RETURN_IF_ERROR(check_order(context));
  KILN_RETURN_IF_ERROR(axis_attr(context.attrs, "axis", x.rank()));
  return Types{x, {DType::i64, x.shape}};
}

Result<Types> infer_topk(InferContext &context) {
  const TensorType &x = context.operands[0];
  KILN_RETURN_IF_ERROR(check_order(context));
  KILN_TRY(axis, axis_attr(context.attrs, "axis", x.rank()));
  const Dim &k = context.attrs.get_dim("k");
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, {&k, 1}, "'k'"));
  const Dim &size = x.shape[size_t(axis)];
  if (!require_at_most(context, k, size))
    return Error{fmt::format("k is {}, but axis {} of {} has only {} elements", k.text(), axis, x.text(),
                             size.text())};
  Shape out = x.shape;
  out[size_t(axis)] = k;
  return Types{{x.dtype, out}, {DType::i64, out}};
}

template <typename W>
bool less_nan_last(W a, W b) {
  if constexpr (std::is_same_v<W, double>)
    if (std::isnan(a) || std::isnan(b))
      return !std::isnan(a);
  return a < b;
}

bool largest_first(Op op, const Attrs &attrs) { return attrs.get_bool(op == Op::sort ? "descending" : "largest"); }

Result<std::vector<Tensor>> ref_order(const RefContext &context, bool largest) {
  const Tensor &x = *context.operands[0];
  size_t axis = size_t(axis_of(context.attrs, "axis", x.rank()));
  std::vector<Tensor> out = {make_tensor(context.results[0]), make_tensor(context.results[1])};
  int64_t size = x.dims()[axis], taken = out[0].dims()[axis];
  int64_t inner = product(std::span(x.dims()).subspan(axis + 1));
  int64_t outer = product(std::span(x.dims()).first(axis));
  with_wide_type(x.dtype(), [&]<typename W>() {
    auto values = widen_all<W>(x);
    std::vector<int64_t> order(static_cast<size_t>(size));
    for (int64_t row = 0; row < outer * inner; ++row) {
      int64_t first = row / inner * size * inner + row % inner, to = row / inner * taken * inner + row % inner;
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        W u = values[size_t(first + a * inner)], v = values[size_t(first + b * inner)];
        if constexpr (std::is_same_v<W, double>)
          if (std::isnan(u) && std::isnan(v))
            return false;
        return largest ? less_nan_last(v, u) : less_nan_last(u, v);
      });
      for (int64_t k = 0; k < taken; ++k) {
        copy_elements(x, first + order[size_t(k)] * inner, out[0], to + k * inner);
        out[1].set_i64(to + k * inner, order[size_t(k)]);
      }
    }
  });
  return out;
}

Result<std::vector<Tensor>> ref_sort(const RefContext &context) {
  return ref_order(context, context.attrs.get_bool("descending"));
}
Result<std::vector<Tensor>> ref_topk(const RefContext &context) {
  return ref_order(context, context.attrs.get_bool("largest"));
}

// A value and where it was, as scalars.
struct Entry {
  Expr value, position;
};

// The heap of one row, held in the results from index 0 of the axis on.
class RowHeap {
public:
  RowHeap(LowerContext &context, std::vector<Dim> row, size_t axis, bool largest)
      : context_(context), row_(std::move(row)), axis_(axis), largest_(largest),
        hole_(fresh_symbol("hole")), open_(fresh_symbol("open")) {
    context_.emit(kb::alloc(hole_, DType::i64, 1, 1, MemorySpace::reg));
    context_.emit(kb::alloc(open_, DType::i64, 1, 1, MemorySpace::reg));
  }

  Entry at(const Dim &k) {
    return {load_result(context_, 0, index(k)), load_result(context_, 1, index(k))};
  }
  std::vector<Stmt> put(const Dim &k, const Entry &entry) {
    return {context_.store_result(0, index(k), entry.value), context_.store_result(1, index(k), entry.position)};
  }

  // Whether a comes after b in the result.
  Expr worse(const Entry &a, const Entry &b) const {
    const Entry &low = largest_ ? a : b, &high = largest_ ? b : a;
    Expr less = kb::lt(ordered(low.value), ordered(high.value));
    Expr equal = kb::eq(ordered(a.value), ordered(b.value));
    if (is_float(a.value.dtype)) {
      Expr low_nan = kb::unary(UnaryOp::is_nan, low.value), high_nan = kb::unary(UnaryOp::is_nan, high.value);
      less = kb::logical_or(less, kb::logical_and(kb::logical_not(low_nan), high_nan));
      equal = kb::logical_or(equal, kb::logical_and(low_nan, high_nan));
    }
    return kb::logical_or(less, kb::logical_and(equal, kb::lt(b.position, a.position)));
  }

  // Puts `entry` into the heap of `size` elements in place of the one at `from`: children that are worse
  // move up until it fits.
  void sift(const Dim &from, const Entry &entry, const Dim &size) {
    context_.emit(kb::store(hole_, 0, kb::index(from)));
    context_.emit(kb::store(open_, 0, kb::integer(DType::i64, 1)));
    std::vector<Stmt> body;
    auto let = [&](std::string_view stem, Expr value) {
      Symbol name = fresh_symbol(stem);
      DType dtype = value.dtype;
      body.push_back(kb::let(name, std::move(value)));
      return kb::var(name, dtype);
    };
    auto let_index = [&](std::string_view stem, Expr value) {
      return Dim::symbol(let(stem, std::move(value)).name);
    };
    auto let_entry = [&](const Dim &k) {
      Entry e = at(k);
      return Entry{let("v", e.value), let("p", e.position)};
    };
    Dim hole = let_index("h", state(hole_));
    Dim left = let_index("l", kb::index(Dim(2) * hole + Dim(1)));
    Dim right = let_index("r", kb::index(min(left + Dim(1), size - Dim(1))));
    Entry a = let_entry(left), b = let_entry(right);
    Expr pick = let("w", worse(b, a));
    Dim child = let_index("c", kb::select(pick, kb::index(right), kb::index(left)));
    Entry worst{let("v", kb::select(pick, b.value, a.value)), let("p", kb::select(pick, b.position, a.position))};
    std::vector<Stmt> up = put(hole, worst);
    up.push_back(kb::store(hole_, 0, kb::index(child)));
    body.push_back(kb::if_(worse(worst, entry), std::move(up),
                           {kb::store(open_, 0, kb::integer(DType::i64, 0))}));
    Expr has_child = kb::lt(kb::add(kb::add(state(hole_), state(hole_)), kb::integer(DType::i64, 1)),
                            kb::index(size));
    Expr is_open = kb::lt(kb::integer(DType::i64, 0), state(open_));
    context_.emit(kb::while_(kb::logical_and(std::move(is_open), std::move(has_child)), std::move(body)));
    Dim rest = context_.bind_index(state(hole_), 0, size);
    for (Stmt &s : put(rest, entry))
      context_.emit(std::move(s));
  }

  Entry bound(Entry entry) {
    return {context_.bind(std::move(entry.value)), context_.bind(std::move(entry.position))};
  }

private:
  std::vector<Dim> index(const Dim &k) const {
    std::vector<Dim> out = row_;
    out[axis_] = k;
    return out;
  }
  static Expr state(Symbol name) { return kb::load(name, DType::i64, 0); }
  // bool has no order; its bytes do.
  static Expr ordered(const Expr &value) {
    return is_bool(value.dtype) ? kb::convert(DType::u8, value) : value;
  }

  LowerContext &context_;
  std::vector<Dim> row_;
  size_t axis_;
  bool largest_;
  Symbol hole_, open_;
};

void order_row(LowerContext &context, const std::vector<Dim> &row, size_t axis, const Dim &size, const Dim &taken) {
  RowHeap heap(context, row, axis, largest_first(context.node().op, context.attrs()));
  auto element = [&](const Dim &k) {
    std::vector<Dim> at = row;
    at[axis] = k;
    return Entry{context.operand(0, at), kb::index(k)};
  };
  context.loop("k", 0, taken, LoopKind::serial, [&](const Dim &k) {
    for (Stmt &s : heap.put(k, element(k)))
      context.emit(std::move(s));
  });
  // From the last node with a child up to the root, each one's subtree becomes a heap.
  Dim parents = floordiv(taken, 2);
  context.loop("k", 0, parents, LoopKind::serial, [&](const Dim &k) {
    Dim at = parents - Dim(1) - k;
    heap.sift(at, heap.bound(heap.at(at)), taken);
  });
  if (taken != size)
    context.loop("k", taken, size, LoopKind::serial, [&](const Dim &k) {
      Entry entry = heap.bound(element(k));
      context.if_then(heap.worse(heap.bound(heap.at(0)), entry), [&] { heap.sift(0, entry, taken); });
    });
  // The worst goes to the end of what is left, whose heap is then one shorter.
  context.loop("k", 1, taken, LoopKind::serial, [&](const Dim &k) {
    Dim last = taken - k;
    Entry entry = heap.bound(heap.at(last));
    for (Stmt &s : heap.put(last, heap.bound(heap.at(0))))
      context.emit(std::move(s));
    heap.sift(0, entry, last);
  });
}

void lower_order(LowerContext &context) {
  const Shape &shape = context.result_type(0).shape;
  size_t axis = size_t(axis_of(context.attrs(), "axis", int(shape.size())));
  const Dim &size = context.operand_type(0).shape[axis], &taken = shape[axis];
  if (taken.is_const(0))
    return;
  std::vector<int> others;
  for (size_t d = 0; d < shape.size(); ++d)
    if (d != axis)
      others.push_back(int(d));
  std::vector<Dim> row(shape.size(), 0);
  parallel_nest_over(context, shape, others, row, [&] {
    if (taken.is_const())
      return order_row(context, row, axis, size, taken);
    // There is no root to compare with in a heap of none.
    context.if_then(kb::lt(kb::integer(DType::i64, 0), kb::index(taken)),
                    [&] { order_row(context, row, axis, size, taken); });
  });
}

OpSample sort_sample(Shape shape, int64_t axis, bool descending, DType dtype = DType::f32) {
  return {{{dtype, std::move(shape)}}, {{"axis", Dim(axis)}, {"descending", descending}}, -9, 9};
}
OpSample topk_sample(Shape shape, int64_t k, int64_t axis, bool largest, DType dtype = DType::f32) {
  return {{{dtype, std::move(shape)}}, {{"k", Dim(k)}, {"axis", Dim(axis)}, {"largest", largest}}, -9, 9};
}

} // namespace

const OpDef op_sort{
    .name = "sort",
    .doc = "Sorts along axis; results are the values and where they were. Stable; NaN comes last, with "
           "descending first.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"axis", AttrKind::integer}, {"descending", AttrKind::boolean, Attr(false)}},
    .infer = infer_sort,
    .ref = ref_sort,
    .lower = lower_order,
    .traits = kExpensive,
    .samples = {sort_sample({17}, 0, false), sort_sample({3, 10}, 1, true), sort_sample({9, 4}, 0, false, DType::i32),
                sort_sample({2, 1}, -1, false), sort_sample({2, 8}, -1, true, DType::i8)},
    .tolerance = 0,
};

const OpDef op_topk{
    .name = "topk",
    .doc = "The k largest (or smallest) elements along axis in order, and where they were; of equal ones "
           "the first is taken.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"k", AttrKind::integer},
              {"axis", AttrKind::integer, Attr(Dim(-1))},
              {"largest", AttrKind::boolean, Attr(true)}},
    .infer = infer_topk,
    .ref = ref_topk,
    .lower = lower_order,
    .traits = kExpensive,
    .samples = {topk_sample({20}, 5, 0, true), topk_sample({3, 9}, 4, -1, false), topk_sample({7, 3}, 7, 0, true),
                topk_sample({4, 6}, 1, 1, true, DType::i32), topk_sample({30}, 3, 0, false, DType::u8)},
    .tolerance = 0,
};

} // namespace kiln
