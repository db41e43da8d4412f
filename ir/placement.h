// Where the values of a function are: on the processor (cpu), on the GPU (cuda), or free.
//
// Constants and variables are free: both sides have them. So is what is computed from nothing else. A relayout
// with a device copies a value to that side, and whatever is computed from a value that is somewhere is there
// too. Arguments are where the function's device is; without one they are free as long as nothing in the
// function is placed, and on the processor otherwise.
//
//   export func f(x: f32[N], y: f32[N]) {      x, y on cpu
//     a = relayout(x, device="cuda")           a on cuda
//     return add(a, y)                         mixes: 'a' is on cuda, 'y' is on cpu
//
// The device of a function stands in the module's metadata, "device of f", and behind the results in text.
#pragma once

#include "ir/graph.h"

#include <span>

namespace kiln {

enum class Device : uint8_t { free, cpu, cuda };

struct Placed {
  Device device = Device::free;
  ValueId origin; // the argument, or the result of a copy, that put it there
};

// "cpu", "cuda", or empty. Of a form (f@N=1) that of the function.
std::string function_device(const Module &module, const std::string &function);
void set_function_device(Module &module, const std::string &function, std::string_view device);
// "device of f": the key in the metadata of modules and packages.
std::string device_note(const std::string &function);
// Whether it is a copy to a device.
bool is_device_copy(const Node &node);

// What a package with code for GPUs holds of an exported function besides: the same for a GPU. `f` is compiled for
// processors, with what is shaped for their caches, `f@gpu` for devices; forms are f@gpu@N=1.
inline constexpr std::string_view kGpuTwin = "@gpu";
bool is_gpu_twin(std::string_view function);

// What computes on the processor and on a GPU is an entry in parts: `f` is all of it on the processor, `f@part0`,
// `f@part1` ... are its parts in the order in which they run. Their arguments and results are named `@in0` and `@out0`
// for those of f, and `@0`, `@1` ... for what goes from part to part.
std::string part_name(const std::string &function, size_t part);
bool is_part(std::string_view function);
std::string_view whole_of_part(std::string_view function); // "f"; the name itself where it is no part

class Placement {
public:
  Placement(const Module &module, const Function &function);

  Placed of(ValueId id) const { return size_t(id) < placed_.size() ? placed_[size_t(id)] : Placed(); }
  // Of a node and whatever is in it: what its operands and results are. Copies are nowhere.
  Device of_node(NodeId id) const { return nodes_[size_t(id)]; }
  // Whether some node computes there.
  bool computes_on(Device device) const { return computes_[size_t(device)]; }

private:
  friend class Placer;
  Placement() = default;
  std::vector<Placed> placed_;
  std::vector<Device> nodes_;
  bool computes_[3] = {};
};

// Nodes whose operands are on two sides, copies within regions of if, while and scan, and variables that are
// written on one side and used on the other. `arguments`: where they were declared, if that is known.
void check_placement(const Module &module, const Function &function, Diagnostics &diagnostics,
                     std::span<const Location> arguments = {});

// Where a value is, of a function that is still being built: nodes in the order of their ids.
Placed placed_so_far(const Module &module, const Function &function, ValueId value);

// "'h' is on cpu, as 'x' is (net.kir:3:17)": for errors.
std::string placement_text(const Function &function, ValueId value, Placed placed, std::span<const Location> arguments = {});
// Whether an exported function computes something on a GPU; and the same module with all of it on the processor.
bool is_placed_on_gpu(const Module &module);
void place_on_cpu(Module &module);

std::string_view device_name(Device device); // "cpu", "cuda", ""
Device device_from_name(std::string_view name);

} // namespace kiln
