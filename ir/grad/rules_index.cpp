// Gradients of gathers, scatters and sorts. What was gathered is scattered back, repeated indices add up;
// scatters apply updates in row-major order, so sums have the same bits in every run.
#include "ir/grad/rules.h"

#include "ir/ops/infer_util.h"

#include <numeric>

namespace kiln::grad {
namespace {

using R = Rule &;

Val scatter_nd_add(Val into, Val indices, Val updates) {
  return into.op(Op::scatter_nd, {indices, updates}, {{"reduction", std::string("add")}});
}
Val scatter_elements(Val into, Val indices, Val updates, const Attrs &attrs, const char *reduction) {
  return into.op(Op::scatter_elements, {indices, updates},
                 {{"axis", attrs.get_dim("axis")}, {"reduction", std::string(reduction)}});
}

// With the axis in front, x[indices] is a scatter of rows.
void gather_rule(R r) {
  if (!r.wants(0))
    return;
  Val x = r.x(0), indices = r.x(1);
  int axis = axis_of(r.attrs(), "axis", x.rank()), taken = indices.rank();
  std::vector<int> front(size_t(r.y().rank())), to_front(size_t(x.rank())), back(size_t(x.rank()));
  // dy: x.shape[:axis] + indices.shape + rest -> indices.shape + x.shape[:axis] + rest
  for (int d = 0; d < r.y().rank(); ++d)
    front[size_t(d)] = d < taken ? axis + d : d < taken + axis ? d - taken : d;
  for (int d = 0; d < x.rank(); ++d)
    to_front[size_t(d)] = d == 0 ? axis : d <= axis ? d - 1 : d;
  for (int d = 0; d < x.rank(); ++d)
    back[size_t(to_front[size_t(d)])] = d;
  TensorType type = x.type();
  Shape rows;
  for (int d : to_front)
    rows.push_back(type.shape[size_t(d)]);
  Shape column = indices.shape();
  column.push_back(1);
  Val dy = axis == 0 ? r.dy() : permute(r.dy(), front);
  Val dx = scatter_nd_add(zeros(r.b(), {type.dtype, rows}), reshape(indices, column), dy);
  r.add(0, axis == 0 ? dx : permute(dx, back));
}

void gather_elements_rule(R r) {
  if (r.wants(0))
    r.add(0, scatter_elements(zeros_like(r.x(0)), r.x(1), r.dy(), r.attrs(), "add"));
}

// Batch dims become leading indices of their own.
Val with_batch_indices(Val indices, int64_t batch_dims) {
  for (int64_t d = batch_dims; d-- > 0;) {
    Shape shape = indices.shape();
    shape.back() = 1;
    Val index{indices.b, (*indices.b)(Op::iota, {}, {{"shape", shape}, {"axis", Dim(d)}, {"dtype", indices.dtype()}})};
    indices = index.op(Op::concat, {indices}, {{"axis", Dim(int64_t(indices.rank()) - 1)}});
  }
  return indices;
}

void gather_nd_rule(R r) {
  if (r.wants(0))
    r.add(0, scatter_nd_add(zeros_like(r.x(0)), with_batch_indices(r.x(1), r.attrs().get_int("batch_dims")), r.dy()));
}

// What an update replaced gets nothing; of updates to one place only the last one counts, which
// writing each one's number and reading the winner back tells.
template <bool elements>
void scatter_rule(R r) {
  Val indices = r.x(1);
  auto put = [&](Val into, Val updates, const char *reduction) {
    return elements ? scatter_elements(into, indices, updates, r.attrs(), reduction)
                    : into.op(Op::scatter_nd, {indices, updates}, {{"reduction", std::string(reduction)}});
  };
  auto take = [&](Val from) {
    return elements ? from.op(Op::gather_elements, {indices}, {{"axis", r.attrs().get_dim("axis")}})
                    : from.op(Op::gather_nd, {indices});
  };
  const std::string &reduction = r.attrs().get_string("reduction");
  if (reduction == "add") {
    r.add(0, r.dy());
    if (r.wants(2))
      r.add(2, take(r.dy()));
    return;
  }
  if (reduction != "none")
    return r.fail("updates that are multiplied, or of which the least or greatest wins, have none; use \"add\" or \"none\"");
  if (r.wants(0))
    r.add(0, put(r.dy(), zeros_like(r.x(2)), "none"));
  if (r.wants(2)) {
    Shape shape = r.x(2).shape();
    Dim count = 1;
    for (const Dim &d : shape)
      count *= d;
    Val numbers{&r.b(), r.b()(Op::iota, {}, {{"shape", Shape{count}}, {"axis", Dim(0)}, {"dtype", DType::i64}})};
    numbers = reshape(numbers, shape);
    Val winners = put(zeros(r.b(), {DType::i64, r.x(0).shape()}), numbers, "none");
    Val won = take(winners).op(Op::eq, {numbers});
    r.add(2, where(won, take(r.dy()), r.dy().number(0)));
  }
}

void one_hot_rule(R r) {
  if (!r.wants(1))
    return;
  Tensor off_on(r.dy().dtype(), {2});
  off_on.set_f64(0, 0), off_on.set_f64(1, 1);
  Val hot{&r.b(), r.b().constant(std::move(off_on))};
  Val on = r.x(0).op(Op::one_hot, {hot}, {{"depth", r.attrs().get_dim("depth")}, {"axis", r.attrs().get_dim("axis")}});
  std::vector<Dim> axes;
  for (int d = 0; d < on.rank(); ++d)
    axes.push_back(d);
  Val lit = reshape(sum(r.dy() * on, axes, false), {1}), all = reshape(sum(r.dy(), axes, false), {1});
  r.add(1, (all - lit).op(Op::concat, {lit}, {{"axis", Dim(0)}}));
}

// Sorted values go back to where they came from: no place is hit twice.
void order_rule(R r) {
  if (r.has_dy(0))
    r.add(0, scatter_elements(zeros_like(r.x()), r.y(1), r.dy(0), r.attrs(), "none"));
}

const OpGrad kRules[] = {
    {Op::gather, gather_rule},
    {Op::gather_elements, gather_elements_rule},
    {Op::gather_nd, gather_nd_rule},
    {Op::scatter_elements, scatter_rule<true>},
    {Op::scatter_nd, scatter_rule<false>},
    {Op::one_hot, one_hot_rule},
    {Op::sort, order_rule},
    {Op::topk, order_rule},
};

} // namespace

std::span<const OpGrad> index_rules() { return kRules; }

} // namespace kiln::grad
