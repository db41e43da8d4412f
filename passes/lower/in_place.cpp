// What needs no copy: assignments whose value is computed right where the variable lies, and slices
// that are one piece of what they are taken from.
//
//   rows = fusion(..); assign(@cache, rows, at=held); all = read_variable(@cache)
//   seen = slice(all, axes=[0], starts=[0], ends=[held + n])
//     ->  the fusion writes the cache; `seen` is a view of it
//
// On GPUs, where a copy is a launch, an elementwise kernel also replaces what it reads (an optimizer's update):
//
//   p = read_variable(@w); q = sub(p, g); assign(@w, q)   ->   w[i] = w[i] - g[i]
#include "passes/lower/plan_builder.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"
#include "ir/ops/op.h"

#include <algorithm>
#include <functional>

namespace kiln {
namespace {

int64_t known_axis(const Dim &axis, int rank) {
  int64_t a = axis.as_const();
  return a < 0 ? a + rank : a;
}

// What a kernel of parallel loops alone does in an iteration; null where it does anything else.
std::vector<Stmt> *iteration_of(Kernel &kernel) {
  std::vector<Stmt> *body = &kernel.body;
  while (body->size() == 1 && (*body)[0].is(Stmt::Kind::loop) && (*body)[0].loop == LoopKind::parallel)
    body = &(*body)[0].body;
  bool is_plain = std::all_of(body->begin(), body->end(), [](const Stmt &s) { return s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store); });
  return is_plain ? body : nullptr;
}

// Whether each iteration reads of `in` only the element that it stores to `out`; it then reads that first.
bool read_before_store(std::vector<Stmt> &body, const KernelBuffer &in, Symbol out) {
  auto is_store = [&](const Stmt &s) { return s.is(Stmt::Kind::store) && s.name == out; };
  if (std::count_if(body.begin(), body.end(), is_store) != 1)
    return false;
  const Dim at = std::find_if(body.begin(), body.end(), is_store)->index;
  bool fits = compute_dtype(in.dtype) == in.dtype;
  for (const Stmt &s : body)
    fits &= !s.is(Stmt::Kind::let) || !at.depends_on(s.name);
  visit_exprs(body, [&](Expr &e) { fits &= (!e.is(Expr::Kind::load) && !e.is(Expr::Kind::gather)) || e.name != in.name || (e.is(Expr::Kind::load) && e.index == at); });
  if (!fits)
    return false;
  Symbol old(std::string(in.name.text()) + ".old");
  visit_exprs(body, [&](Expr &e) {
    if (e.is(Expr::Kind::load) && e.name == in.name)
      e = kb::var(old, in.dtype);
  });
  body.insert(body.begin(), kb::let(old, kb::load(in, at)));
  return true;
}

} // namespace

// Only the outermost dim with more than one element may be cut, and no element left out between.
std::optional<Dim> piece_begin(const Function &function, const Node &slice) {
  const Value &from = function.value(slice.operands[0]), &to = function.value(slice.results[0]);
  if (slice.op != Op::slice || !from.layout.is_row_major() || !to.layout.is_row_major())
    return std::nullopt;
  const Shape &shape = from.type.shape;
  const auto &axes = slice.attrs.get_dims("axes"), &starts = slice.attrs.get_dims("starts"),
             &steps = slice.attrs.get_dims("steps");
  size_t outermost = 0;
  while (outermost < shape.size() && shape[outermost].is_const(1))
    ++outermost;
  Dim begin = 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    size_t axis = size_t(known_axis(axes[i], int(shape.size())));
    bool whole = to.type.shape[axis] == shape[axis];
    if (!steps[i].is_const(1) || (!whole && axis != outermost))
      return std::nullopt;
    if (whole)
      continue;
    begin = starts[i] * element_count(std::span(shape).subspan(axis + 1));
  }
  return begin;
}

// The position of the last node that reads `value` or a view of it; what leaves a block is read later than any.
int PlanBuilder::last_use(ValueId value) const {
  int last = 0;
  auto is = [&](ValueId v) { return v == value; };
  auto leaves = [&](const Block &block) { return std::any_of(block.results.begin(), block.results.end(), is); };
  if (leaves(function_.body))
    return INT32_MAX;
  std::function<int(const Block &)> end_of = [&](const Block &block) {
    int end = 0;
    for (NodeId id : block.nodes) {
      end = std::max(end, node_order_[size_t(id)]);
      for (const Block &region : function_.node(id).regions)
        end = std::max(end, end_of(region));
    }
    return end;
  };
  for (size_t n = 0; n < function_.nodes.size(); ++n) {
    const Node &node = function_.nodes[n];
    if (node.removed)
      continue;
    bool fusion = node.op == Op::fusion;
    if (!fusion && std::any_of(node.regions.begin(), node.regions.end(), leaves))
      return INT32_MAX;
    if (std::none_of(node.operands.begin(), node.operands.end(), is))
      continue;
    last = std::max(last, node_order_[n]);
    for (const Block &region : node.regions)
      last = std::max(last, end_of(region));
    if (is_alias(function_, node) || (node.op == Op::slice && piece_begin(function_, node)))
      last = std::max(last, last_use(node.results[0]));
  }
  return last;
}

// The part of a variable that an assignment writes.
int PlanBuilder::variable_rows(const Node &assign) {
  const TensorType &type = function_.type(assign.operands[0]);
  const Dim &at = assign.attrs.get_dim("at");
  int variable = assign.attrs.get_variable("variable").index;
  PlanBuffer buffer;
  buffer.kind = PlanBuffer::Kind::variable;
  buffer.variable = variable;
  buffer.name = program_.module().variables[size_t(variable)].name;
  buffer.type = type;
  Dim width = dtype_bytes(type.dtype);
  buffer.size = element_count(type.shape) * width;
  if (!at.is_const(-1))
    buffer.offset = at * element_count(std::span(type.shape).subspan(1)) * width;
  return new_buffer(std::move(buffer));
}

// A variable may be written before its assignment where nobody reads it until then.
void PlanBuilder::write_in_place(const Block &block) {
  for (NodeId id : block.nodes) {
    const Node &node = function_.node(id);
    if (node.op != Op::assign)
      continue;
    bool alone = true, is_read_here = program_.options().gpu && node.attrs.get_dim("at").is_const(-1);
    for (size_t n = 0; n < function_.nodes.size(); ++n) {
      const Node &other = function_.nodes[n];
      const Attr *variable = other.removed ? nullptr : other.attrs.find("variable");
      if (!variable || NodeId(n) == id || *variable != *node.attrs.find("variable"))
        continue;
      alone = alone && other.op == Op::read_variable && node_order_[n] > node_order_[size_t(id)];
      is_read_here = is_read_here && other.op == Op::read_variable && std::find(block.nodes.begin(), block.nodes.end(), NodeId(n)) != block.nodes.end();
    }
    if (!alone && is_read_here)
      updates_.emplace(node.operands[0], id);
    if (!alone)
      continue;
    int buffer = variable_rows(node);
    if (try_redirect(node.operands[0], buffer, block))
      rows_of_[id] = buffer;
  }
}

void PlanBuilder::update_in_place(NodeId id, LoweredNode &lowered) {
  std::vector<Stmt> *body = iteration_of(lowered.kernel);
  int end = node_order_[size_t(id)];
  for (const Block &region : function_.node(id).regions)
    for (NodeId inner : region.nodes)
      end = std::max(end, node_order_[size_t(inner)]);
  for (ValueId value : function_.node(id).results) {
    auto update = updates_.find(value);
    if (!body || update == updates_.end() || buffers_.contains(value) || destination_.contains(value) || part_of_.contains(value) ||
        !function_.value(value).layout.is_row_major())
      continue;
    const Node &assign = function_.node(update->second);
    const Attr &variable = *assign.attrs.find("variable");
    bool is_last = true; // that reads the old value
    for (size_t n = 0; n < function_.nodes.size(); ++n) {
      const Node &read = function_.nodes[n];
      if (!read.removed && read.op == Op::read_variable && *read.attrs.find("variable") == variable && node_order_[n] < node_order_[size_t(update->second)])
        is_last = is_last && node_order_[n] < node_order_[size_t(id)] && last_use(read.results[0]) <= end;
    }
    auto at = [&](ValueId v) { return size_t(std::find(lowered.values.begin(), lowered.values.end(), v) - lowered.values.begin()); };
    size_t result = at(value);
    for (size_t i = 0; is_last && i < lowered.values.size(); ++i) {
      auto buffer = buffers_.find(lowered.values[i]);
      const PlanBuffer *b = buffer != buffers_.end() ? &plan_->buffers[size_t(buffer->second)] : nullptr;
      if (b && b->kind == PlanBuffer::Kind::variable && b->variable == assign.attrs.get_variable("variable").index)
        is_last = b->layout.is_row_major() && b->offset.is_const(0) && read_before_store(*body, lowered.kernel.buffers[i], lowered.kernel.buffers[result].name);
    }
    if (is_last)
      destination_[value] = rows_of_[update->second] = variable_rows(assign);
  }
}

bool PlanBuilder::try_view(const Node &node) {
  if (node.op != Op::slice || destination_.contains(node.results[0]) || part_of_.contains(node.results[0]))
    return false;
  auto begin = piece_begin(function_, node);
  if (!begin)
    return false;
  int from = buffer_of(node.operands[0]);
  if (!plan_->buffers[size_t(from)].layout.is_row_major())
    return false;
  const Value &result = function_.value(node.results[0]);
  buffers_[node.results[0]] =
      view(from, *begin * Dim(dtype_bytes(result.type.dtype)), result.type, result.name);
  return true;
}

} // namespace kiln
