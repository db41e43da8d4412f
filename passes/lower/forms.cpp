// The plans of an entry's forms (passes/graph/specialise.h) become one with that of the entry: steps that
// a run with those dims takes instead. Forms lie in the same arena, one at a time; kernels and weights
// are the program's.
#include "passes/lower/plan_builder.h"

#include "passes/graph/specialise.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln {

std::string PlanForm::text() const {
  std::string out;
  for (const auto &[symbol, value] : dims)
    out += fmt::format("{}{}={}", out.empty() ? "" : ",", symbol.text(), value);
  return out;
}

namespace {

void renumber(std::vector<PlanStep> &steps, int buffers, int launches, const std::string &form) {
  for (PlanStep &step : steps) {
    for (int &buffer : step.buffers)
      buffer += buffers;
    if (step.condition >= 0)
      step.condition += buffers;
    if (step.position >= 0) {
      step.position += launches;
      step.name += fmt::format(" [{}]", form);
    }
    renumber(step.condition_body, buffers, launches, form);
    renumber(step.body, buffers, launches, form);
    renumber(step.other, buffers, launches, form);
  }
}

} // namespace

bool merge_forms(std::vector<Plan> &plans, Diagnostics &diagnostics) {
  for (size_t i = 0; i < plans.size();) {
    auto name = parse_form_name(plans[i].name);
    auto entry = name ? std::find_if(plans.begin(), plans.end(), [&](const Plan &p) { return p.name == name->first; })
                      : plans.end();
    if (entry == plans.end()) {
      ++i;
      continue;
    }
    Plan &to = *entry, &from = plans[i];
    if (!from.sizes.empty() || !from.run_constraints.empty() || !to.sizes.empty()) {
      diagnostics.error({}, fmt::format("'{}' finds sizes in its data; it has one form only", to.name))
          .notes.push_back("leave out --specialise, or fix the sizes of the model with --dim and --shape");
      return false;
    }
    PlanForm form{{}, from.arena_size};
    for (const auto &[symbol, value] : name->second)
      form.dims.emplace_back(Symbol(symbol), value);
    auto has = [&](Symbol s) { return std::find(to.dims.begin(), to.dims.end(), s) != to.dims.end(); };
    bool fits = to.inputs.size() == from.inputs.size() && to.outputs.size() == from.outputs.size() &&
                std::all_of(from.dims.begin(), from.dims.end(), has) &&
                std::all_of(form.dims.begin(), form.dims.end(), [&](const auto &d) { return has(d.first); });
    if (!fits) {
      diagnostics.error({}, fmt::format("'{}' does not have the arguments and dims of '{}'", from.name, to.name));
      return false;
    }
    renumber(from.steps, int(to.buffers.size()), to.launches, form.text());
    to.buffers.insert(to.buffers.end(), std::make_move_iterator(from.buffers.begin()),
                      std::make_move_iterator(from.buffers.end()));
    to.launches += from.launches;
    PlanStep choice;
    choice.kind = PlanStep::Kind::form;
    choice.form = int(to.forms.size());
    choice.name = form.text();
    choice.body = std::move(from.steps);
    choice.other = std::move(to.steps);
    to.steps.clear();
    to.steps.push_back(std::move(choice));
    to.forms.push_back(std::move(form));
    plans.erase(plans.begin() + std::ptrdiff_t(i));
  }
  return true;
}

} // namespace kiln
