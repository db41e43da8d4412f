// Control flow in plans: if, while and scan become steps with bodies. What a loop carries lives in the
// buffers of the loop's results; each iteration computes beside them and copies at its end.
#include "ir/ops/op.h"
#include "passes/lower/plan_builder.h"

#include <algorithm>
#include <utility>

namespace kiln {

// Whatever existed before the loop and is used in it stays until the loop's end.
void PlanBuilder::extend_over_loop(int begin) {
  for (PlanBuffer &buffer : plan_->buffers)
    if (buffer.first_step <= begin && buffer.last_step > begin)
      buffer.last_step = clock_;
}

std::vector<int> PlanBuilder::start_carried(const Node &node, size_t count, std::vector<PlanStep> &steps) {
  std::vector<int> carried;
  for (size_t i = 0; i < count; ++i) {
    if (int own = adopted(node.operands[i], node.results[i]); own >= 0) {
      touch(own);
      buffers_[node.results[i]] = own;
      carried.push_back(own);
      continue;
    }
    auto destination = destination_.find(node.results[i]);
    int buffer = destination != destination_.end() ? destination->second : arena_buffer(node.results[i]);
    buffers_[node.results[i]] = buffer;
    copy(buffer_of(node.operands[i]), buffer, steps, node.location);
    carried.push_back(buffer);
  }
  return carried;
}

void PlanBuilder::update_carried(const Block &body, const std::vector<int> &carried,
                                 std::vector<PlanStep> &steps, const Location &location) {
  // A result that is itself a carried value must be read before that one is overwritten.
  std::vector<int> sources;
  for (size_t i = 0; i < carried.size(); ++i) {
    int source = buffer_of(body.results[i]);
    bool clobbered = source != carried[i] && std::find(carried.begin(), carried.end(), source) != carried.end();
    if (clobbered) {
      PlanBuffer temporary = plan_->buffers[size_t(source)];
      temporary.kind = PlanBuffer::Kind::arena;
      temporary.offset = 0;
      int own = new_buffer(std::move(temporary));
      copy(source, own, steps, location);
      source = own;
    }
    sources.push_back(source);
  }
  for (size_t i = 0; i < carried.size(); ++i)
    if (sources[i] != carried[i])
      copy(sources[i], carried[i], steps, location);
}

bool PlanBuilder::walk_if(const Node &node, std::vector<PlanStep> &steps) {
  PlanStep step;
  step.kind = PlanStep::Kind::if_;
  step.location = node.location;
  step.name = "if";
  step.condition = buffer_of(node.operands[0]);
  ++clock_;
  touch(step.condition);
  for (ValueId result : node.results) {
    auto destination = destination_.find(result);
    buffers_[result] = destination != destination_.end() ? destination->second : arena_buffer(result);
  }
  for (size_t r = 0; r < node.regions.size(); ++r) {
    const Block &region = node.regions[r];
    auto &body = r == 0 ? step.body : step.other;
    for (size_t i = 0; i < region.results.size(); ++i)
      try_redirect(region.results[i], buffers_[node.results[i]], region);
    if (!walk(region, body))
      return false;
    for (size_t i = 0; i < region.results.size(); ++i)
      deliver(region.results[i], buffers_[node.results[i]], body, node.location);
  }
  steps.push_back(std::move(step));
  return true;
}

bool PlanBuilder::walk_while(const Node &node, std::vector<PlanStep> &steps) {
  std::vector<int> carried = start_carried(node, node.operands.size(), steps);
  int begin = clock_;
  PlanStep step;
  step.kind = PlanStep::Kind::while_;
  step.location = node.location;
  step.name = "while";
  step.var = Symbol("step." + std::to_string(next_loop_++));
  Turns outside = std::exchange(turns_, {step.var, int(plan_->buffers.size()), carried});
  const Block &condition = node.regions.at(0), &body = node.regions.at(1);
  for (size_t i = 0; i < carried.size(); ++i) {
    buffers_[condition.args[i]] = carried[i];
    buffers_[body.args[i]] = carried[i];
  }
  ++clock_;
  if (!walk(condition, step.condition_body))
    return false;
  step.condition = buffer_of(condition.results.at(0));
  change_in_place(body, carried);
  if (!walk(body, step.body))
    return false;
  update_carried(body, carried, step.body, node.location);
  turns_ = std::move(outside);
  touch(step.condition);
  extend_over_loop(begin);
  steps.push_back(std::move(step));
  return true;
}

bool PlanBuilder::walk_scan(const Node &node, std::vector<PlanStep> &steps) {
  size_t count = size_t(node.attrs.get_int("carried"));
  bool reverse = node.attrs.get_bool("reverse");
  const Block &body = node.regions.at(0);
  std::vector<int> carried = start_carried(node, count, steps);
  std::vector<int> stacked;
  for (size_t i = count; i < node.results.size(); ++i) {
    auto destination = destination_.find(node.results[i]);
    int buffer = destination != destination_.end() ? destination->second : arena_buffer(node.results[i]);
    buffers_[node.results[i]] = buffer;
    stacked.push_back(buffer);
  }
  int begin = clock_;
  PlanStep step;
  step.kind = PlanStep::Kind::loop;
  step.location = node.location;
  step.name = "scan";
  step.var = Symbol("step." + std::to_string(next_loop_++));
  Dim length = node.operands.size() > count ? function_.type(node.operands[count]).shape.at(0)
                                            : function_.type(node.results.at(count)).shape.at(0);
  step.count = length;
  Dim t = Dim::symbol(step.var), at = reverse ? length - Dim(1) - t : t;
  auto slice_of = [&](int parent, ValueId value) {
    const TensorType &type = function_.type(value);
    Dim bytes = element_count(type.shape) * Dim(dtype_bytes(type.dtype));
    return view(parent, at * bytes, type, function_.value(value).name);
  };
  ++clock_;
  Turns outside = std::exchange(turns_, {step.var, int(plan_->buffers.size()), carried});
  for (size_t i = 0; i < body.args.size(); ++i)
    buffers_[body.args[i]] = i < count ? carried[i] : slice_of(buffer_of(node.operands[i]), body.args[i]);
  std::vector<int> slices;
  for (size_t i = 0; i < stacked.size(); ++i) {
    slices.push_back(slice_of(stacked[i], body.results[count + i]));
    try_redirect(body.results[count + i], slices[i], body);
  }
  change_in_place(body, carried);
  if (!walk(body, step.body))
    return false;
  for (size_t i = 0; i < stacked.size(); ++i)
    deliver(body.results[count + i], slices[i], step.body, node.location);
  update_carried(body, carried, step.body, node.location);
  turns_ = std::move(outside);
  for (int buffer : stacked)
    touch(buffer);
  extend_over_loop(begin);
  steps.push_back(std::move(step));
  return true;
}

} // namespace kiln
