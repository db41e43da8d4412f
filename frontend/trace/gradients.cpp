// Gradients in the C++ API: what has been traced so far is a graph, and its gradient is more of it (ir/grad).
#include "frontend/trace/state.h"

#include "ir/grad/grad.h"

#include <fmt/format.h>

namespace kiln::trace {

std::optional<std::vector<ValueId>> Tracer::ids_of(const std::vector<Tensor> &tensors, std::string_view name, Where where) {
  State &s = *state_;
  if (!s.function) {
    fail(where, fmt::format("{} is called outside of Tracer::function()", name));
    return std::nullopt;
  }
  std::vector<ValueId> out;
  for (const Tensor &t : tensors) {
    if (!t.ok())
      return std::nullopt; // reported where it failed
    bool foreign = t.tracer_ != this || (!t.variable_.valid() && size_t(t.id_) >= s.function->values.size());
    if (foreign) {
      fail(where, fmt::format("{}: a tensor belongs to another {}", name, t.tracer_ == this ? "function" : "tracer"));
      return std::nullopt;
    }
    out.push_back(t.variable_.valid() ? s.read(t.variable_) : t.id_);
  }
  return out;
}

std::vector<Tensor> Tracer::grad(Tensor loss, std::vector<Tensor> wrt, Where where) {
  auto of = ids_of({loss}, "grad", where), values = ids_of(wrt, "grad", where);
  if (!of || !values)
    return {};
  state_->builder->set_location(location_of(where));
  auto gradients = gradient(*state_->builder, of->front(), *values);
  if (!gradients)
    return fail(where, gradients.error().message), std::vector<Tensor>{};
  std::vector<Tensor> out;
  for (ValueId id : *gradients)
    out.push_back(Tensor(this, id));
  return out;
}

std::vector<Tensor> Tracer::product(bool reverse, std::vector<Tensor> outputs, std::vector<Tensor> wrt, std::vector<Tensor> seeds, Where where) {
  const char *name = reverse ? "vjp" : "jvp";
  auto of = ids_of(outputs, name, where), values = ids_of(wrt, name, where), given = ids_of(seeds, name, where);
  if (!of || !values || !given)
    return {};
  const auto &like = reverse ? *of : *values;
  bool fits = like.size() == given->size();
  for (size_t i = 0; fits && i < like.size(); ++i)
    fits = state_->function->type(like[i]) == state_->function->type((*given)[i]);
  if (!fits)
    return fail(where, reverse ? "vjp takes a cotangent for each output, of its type" : "jvp takes a tangent for each of wrt, of its type"),
           std::vector<Tensor>{};
  state_->builder->set_location(location_of(where));
  auto products = reverse ? reverse_gradient(*state_->builder, *of, *given, *values) : forward_gradient(*state_->builder, *of, *values, *given);
  if (!products)
    return fail(where, products.error().message), std::vector<Tensor>{};
  std::vector<Tensor> out;
  for (ValueId id : *products)
    out.push_back(Tensor(this, id));
  return out;
}

std::vector<Tensor> Tracer::vjp(std::vector<Tensor> outputs, std::vector<Tensor> wrt, std::vector<Tensor> cotangents, Where where) {
  return product(true, std::move(outputs), std::move(wrt), std::move(cotangents), where);
}
std::vector<Tensor> Tracer::jvp(std::vector<Tensor> outputs, std::vector<Tensor> wrt, std::vector<Tensor> tangents, Where where) {
  return product(false, std::move(outputs), std::move(wrt), std::move(tangents), where);
}

} // namespace kiln::trace
