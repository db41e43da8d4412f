// Sizes that a run finds in its data: a `bind` step reads each, and checks it against its bound, before
// anything that mentions it runs. Memory is planned for the bounds, so that nothing is allocated then.
#include "passes/lower/plan_builder.h"

#include "ir/ops/op.h"
#include "passes/graph/rewrite.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln {

DimBounds PlanBuilder::bounds(const Dim &d) const {
  return bounds_of(d, [&](Symbol s) -> std::optional<Dim> {
    auto it = largest_.find(s);
    return it == largest_.end() ? std::nullopt : std::optional(it->second);
  });
}

Dim PlanBuilder::largest(const Dim &d) const {
  return largest_.empty() || d.is_const() ? d : bounds(d).greatest;
}

Shape PlanBuilder::largest(const Shape &shape) const {
  Shape out;
  for (const Dim &d : shape)
    out.push_back(largest(d));
  return out;
}

// Where the elements are as many as those of something else (what a reshape to computed sizes was made
// of), that bounds them better than the product of the sizes does.
Dim PlanBuilder::buffer_size(const TensorType &type, const Layout &layout) const {
  Dim elements = physical_size(type, layout), out = largest(elements);
  if (!largest_.empty() && out != elements)
    for (const auto &c : program_.module().constraints)
      for (bool swapped : {false, true})
        if ((swapped ? c.b : c.a) == elements)
          if (Dim other = largest(swapped ? c.a : c.b); known_nonnegative(out - other, DimRanges()))
            out = other;
  return out * Dim(dtype_bytes(type.dtype));
}

// The bounds of all sizes, over the dims that are known before a run.
bool PlanBuilder::find_sizes() {
  bool fine = true;
  for_each_node(function_, [&](NodeId id) {
    const Node &node = function_.node(id);
    if (node.op != Op::bind_size || node.removed)
      return;
    Symbol name(node.attrs.get_string("symbol"));
    Dim bound = largest(node.attrs.get_dim("bound"));
    if (!bound.is_valid()) {
      diagnostics_.error(node.location, fmt::format("the bound of the size {} is too large", name.text()));
      fine = false;
    }
    largest_[name] = bound;
  });
  return fine;
}

// Whether a constraint `max(a, b) == b` follows from the bounds.
bool PlanBuilder::follows(const Module::Constraint &c) const {
  for (bool swapped : {false, true}) {
    const Dim &left = swapped ? c.b : c.a, &right = swapped ? c.a : c.b;
    if (left.constant_part() != 0 || left.terms().size() != 1 || left.terms()[0].coefficient != 1 ||
        left.terms()[0].factors.size() != 1 || left.terms()[0].factors[0].kind != DimAtom::Kind::max)
      continue;
    for (const Dim &other : left.terms()[0].factors[0].args)
      if (max(other, right) == left && known_nonnegative(bounds(right - other).least, DimRanges()))
        return true;
  }
  return false;
}

void PlanBuilder::bind_size(const Node &node, std::vector<PlanStep> &steps) {
  PlanSize size;
  size.name = Symbol(node.attrs.get_string("symbol"));
  size.bound = node.attrs.get_dim("bound");
  size.largest = largest(size.bound);
  if (auto symbol = size.bound.try_symbol(); symbol && program_.module().capacities.contains(std::string(symbol->text())))
    size.capacity = int(std::find(plan_->dims.begin(), plan_->dims.end(), *symbol) - plan_->dims.begin());
  PlanStep step;
  step.kind = PlanStep::Kind::bind;
  step.index = int(plan_->sizes.size());
  step.buffers = {buffer_of(node.operands[0])};
  step.position = plan_->launches - 1; // errors name the kernel that has made the number
  step.name = std::string(size.name.text());
  step.location = node.location;
  ++clock_;
  touch(step.buffers[0]);
  steps.push_back(step);
  bound_.push_back(size.name);
  // What has to be equal and can be told from now on.
  for (size_t i = 0; i < plan_->run_constraints.size(); ++i) {
    const Module::Constraint &c = plan_->run_constraints[i];
    bool ready = true;
    for (const Dim *d : {&c.a, &c.b})
      for (Symbol s : d->symbols())
        ready &= !largest_.contains(s) || std::find(bound_.begin(), bound_.end(), s) != bound_.end();
    if (!ready || (!c.a.depends_on(size.name) && !c.b.depends_on(size.name)) || follows(c))
      continue;
    PlanStep check;
    check.kind = PlanStep::Kind::require;
    check.index = int(plan_->constraints.size() + i);
    check.dims = {c.a, c.b};
    check.position = step.position;
    check.name = c.reason;
    check.location = c.location;
    steps.push_back(std::move(check));
  }
  plan_->sizes.push_back(std::move(size));
}

} // namespace kiln
