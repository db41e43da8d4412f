// Where every entry computes: the function's device becomes "cpu" or "cuda" where all of it is on one side, and then
// it holds no copies between the two. What computes on both becomes parts that do not. What is on no side stays where
// a run wants it.
#include "ir/placement.h"
#include "passes/graph/rewrite.h"
#include "passes/graph/split_devices.h"

namespace kiln {
namespace {

bool is_copied(const Function &function) {
  for (const Node &node : function.nodes)
    if (!node.removed && is_device_copy(node))
      return true;
  return false;
}

} // namespace

Changed place(Module &module, PassContext &context) {
  Changed changed = Changed::no;
  for (size_t f = 0, count = module.functions.size(); f < count; ++f) {
    Function &function = module.functions[f];
    if (!is_copied(function))
      continue;
    size_t errors = context.diagnostics.error_count();
    check_placement(module, function, context.diagnostics);
    if (context.diagnostics.error_count() != errors)
      continue;
    Placement placement(module, function);
    bool on_host = placement.computes_on(Device::cpu), on_device = placement.computes_on(Device::cuda);
    if (on_host && on_device) {
      changed |= Changed(split_devices(module, f, context.diagnostics));
      continue;
    }
    if (on_host || on_device)
      set_function_device(module, function.name, device_name(on_host ? Device::cpu : Device::cuda));
    changed |= Sweep(module, function).run([&](Sweep &s, NodeId id) {
      if (is_device_copy(s.node(id)))
        s.replace(s.node(id).results[0], s.node(id).operands[0]);
    });
    changed = Changed::yes;
  }
  return changed;
}

} // namespace kiln
