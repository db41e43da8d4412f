// Devices: what is declared to be on one is checked where it is called, and a function's values when it is whole.
#include "frontend/kir/elaborator.h"

#include "ir/ops/op.h"
#include "ir/placement.h"

#include <fmt/format.h>

namespace kiln::kir {

ValueId Elaborator::copied_to(ValueId value, const std::string &device, const Location &where) {
  auto node = emit_node(Op::relayout, {value}, {{"device", device}}, {}, where);
  KILN_CHECK(node.ok(), "a value can be copied to a device");
  ValueId copy = fn_->function.node(*node).results[0];
  fn_->function.value(copy).name = fn_->function.value(value).name;
  return copy;
}

// func g(x: f32[N] device cuda, y: f32[N]) or func g(x, y) device cuda: what is somewhere else is an error, and what
// is free is there from here on.
void Elaborator::place_arguments(const FuncDecl &decl, const std::string &name, Frame &frame, const Location &where) {
  for (const Param &p : decl.params) {
    const std::string &device = p.device.empty() ? decl.device : p.device;
    Datum &value = frame.locals[p.name];
    if (device.empty() || !(value.is<TensorRef>() || value.is<VariableDatum *>()))
      continue;
    auto id = as_tensor(value, where);
    if (!id)
      continue;
    Placed placed = placed_so_far(module_, fn_->function, *id);
    if (placed.device == Device::free) {
      value = tensor(copied_to(*id, device, p.location));
    } else if (device_name(placed.device) != device) {
      Location declared = p.device.empty() ? decl.device_location : p.location;
      error(where, fmt::format("the argument '{}' of {} is on {} and must be on {}", p.name, name, device_name(placed.device), device),
            {placement_text(fn_->function, *id, placed, fn_->arguments), fmt::format("'{}' takes it on {} ({})", name, device, declared.text()),
             fmt::format("pass it with .to({})", device)});
      value = {Poison{}};
    }
  }
}

void Elaborator::check_devices() { check_placement(module_, fn_->function, diagnostics_, fn_->arguments); }

} // namespace kiln::kir
