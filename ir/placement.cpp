#include "ir/placement.h"

#include "ir/ops/op.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace kiln {

std::string_view device_name(Device device) {
  constexpr std::string_view kNames[] = {"", "cpu", "cuda"};
  return kNames[size_t(device)];
}

Device device_from_name(std::string_view name) {
  return name == "cpu" ? Device::cpu : name == "cuda" ? Device::cuda : Device::free;
}

bool is_gpu_twin(std::string_view function) {
  size_t at = function.rfind(kGpuTwin);
  return at != std::string_view::npos && at > 0 && (at + kGpuTwin.size() == function.size() || function[at + kGpuTwin.size()] == '@');
}

namespace {

// Where "@part" and its number begin; npos where there is none. A twin's or a form's name goes on behind it.
size_t part_at(std::string_view function) {
  constexpr std::string_view kPart = "@part";
  size_t at = function.find(kPart);
  bool has_number = at != std::string_view::npos && at > 0 && at + kPart.size() < function.size() &&
                    function[at + kPart.size()] >= '0' && function[at + kPart.size()] <= '9';
  return has_number ? at : std::string_view::npos;
}

} // namespace

std::string part_name(const std::string &function, size_t part) { return fmt::format("{}@part{}", function, part); }
bool is_part(std::string_view function) { return part_at(function) != std::string_view::npos; }
std::string_view whole_of_part(std::string_view function) { return function.substr(0, part_at(function)); }

std::string device_note(const std::string &function) { return "device of " + function; }

std::string function_device(const Module &module, const std::string &function) {
  auto it = module.metadata.find(device_note(function));
  for (size_t end = function.rfind('@'); it == module.metadata.end() && end != std::string::npos && end > 0; end = function.rfind('@', end - 1))
    it = module.metadata.find(device_note(function.substr(0, end)));
  return it != module.metadata.end() && device_from_name(it->second) != Device::free ? it->second : "";
}

void set_function_device(Module &module, const std::string &function, std::string_view device) {
  if (device.empty())
    module.metadata.erase(device_note(function));
  else
    module.metadata[device_note(function)] = std::string(device);
}

namespace {

Device device_of_copy(const Node &node) {
  const Attr *attr = node.op == Op::relayout ? node.attrs.find("device") : nullptr;
  const auto *name = attr ? std::get_if<std::string>(attr) : nullptr;
  return name ? device_from_name(*name) : Device::free;
}

} // namespace

bool is_device_copy(const Node &node) { return device_of_copy(node) != Device::free; }

namespace {

bool has_copies(const Function &function) {
  return std::any_of(function.nodes.begin(), function.nodes.end(), [](const Node &node) { return !node.removed && is_device_copy(node); });
}

Device device_of_arguments(const Module &module, const Function &function) {
  Device declared = device_from_name(function_device(module, function.name));
  return declared != Device::free ? declared : has_copies(function) ? Device::cpu : Device::free;
}

std::string value_text(const Function &function, ValueId id) {
  const Value &value = function.value(id);
  if (!value.name.empty())
    return fmt::format("'{}'", value.name);
  const Node *def = function.def(id);
  if (!def)
    return "an argument";
  std::string place = def->location.known() ? " at " + def->location.text() : "";
  if (is_device_copy(*def))
    return "the copy" + place;
  return fmt::format("the result of {}{}", op_def(def->op).name, place);
}

} // namespace

std::string placement_text(const Function &function, ValueId value, Placed placed, std::span<const Location> arguments) {
  std::string out = fmt::format("{} is on {}", value_text(function, value), device_name(placed.device));
  ValueId origin = placed.origin;
  if (!origin.valid())
    return out;
  const Node *def = function.def(origin);
  Location where = def ? def->location : function.location;
  if (!def)
    for (size_t i = 0; i < function.body.args.size() && i < arguments.size(); ++i)
      if (function.body.args[i] == origin)
        where = arguments[i];
  std::string place = where.known() ? fmt::format(" ({})", where.text()) : "";
  if (def)
    return out + fmt::format(", copied there by to({}){}", device_name(placed.device), place);
  if (origin != value)
    return out + fmt::format(", as the parameter '{}' of '{}' is{}", function.value(origin).name, function.name, place);
  return out + fmt::format(", a parameter of '{}'{}", function.name, place);
}

class Placer {
public:
  static Placement nothing() { return Placement(); }

  Placer(const Module &module, const Function &function, Placement &out) : module_(module), f_(function), out_(out) {
    out_.placed_.assign(f_.values.size(), {});
    out_.nodes_.assign(f_.nodes.size(), Device::free);
    Device device = device_of_arguments(module_, f_);
    for (ValueId arg : f_.body.args)
      out_.placed_[size_t(arg)] = {device, device == Device::free ? ValueId() : arg};
  }

  void report(Diagnostics &diagnostics, std::span<const Location> arguments) {
    diagnostics_ = &diagnostics;
    arguments_ = arguments;
  }

  void run() {
    walk(f_.body, 0);
    if (diagnostics_)
      check_variables();
  }

  void place(NodeId id, int depth) {
    const Node &node = f_.node(id);
    if (node.removed)
      return;
    if (is_device_copy(node)) {
      Placed before = of(node.operands[0]);
      Device device = device_of_copy(node);
      if (depth > 0 && before.device != device && before.device != Device::free) {
        device = before.device;
        fail(node, fmt::format("{} is copied to {} within a condition or a loop", value_text(f_, node.operands[0]), device_name(device_of_copy(node))),
             {text(node.operands[0], before), "what is within computes on one side: copy the value before it"});
      }
      set(node.results[0], {device, node.results[0]});
      return;
    }
    Placed joined;
    ValueId first;
    for (ValueId operand : node.operands)
      join(node, joined, first, operand);
    for (size_t r = 0; r < node.regions.size(); ++r)
      place_region(node, node.regions[r], joined, first, depth + 1);
    for (ValueId result : node.results)
      set(result, joined);
    out_.nodes_[size_t(id)] = joined.device;
    bool computes = node.op != Op::constant && node.op != Op::read_variable;
    if (computes)
      out_.computes_[size_t(joined.device)] = true;
    note_variables(node, joined);
  }

private:
  struct Use {
    Device device;
    ValueId value;
    const Node *node;
  };

  Placed of(ValueId id) const { return out_.placed_[size_t(id)]; }
  void set(ValueId id, Placed placed) { out_.placed_[size_t(id)] = placed; }
  std::string text(ValueId id, Placed placed) const { return placement_text(f_, id, placed, arguments_); }

  void fail(const Node &node, std::string message, std::vector<std::string> notes) {
    if (diagnostics_ && failures_++ < 8)
      diagnostics_->error(node.location.known() ? node.location : f_.location, std::move(message)).notes = std::move(notes);
  }

  void join(const Node &node, Placed &joined, ValueId &first, ValueId operand) {
    Placed other = of(operand);
    if (other.device == Device::free)
      return;
    if (joined.device == Device::free) {
      joined = other;
      first = operand;
    } else if (joined.device != other.device) {
      std::string name = value_text(f_, operand);
      fail(node, fmt::format("{} mixes devices: {} is on {}, and {} is on {}", op_def(node.op).name, value_text(f_, first),
                             device_name(joined.device), name, device_name(other.device)),
           {text(first, joined), text(operand, other),
            f_.value(operand).name.empty() ? fmt::format("copy one of them with .to({})", device_name(joined.device))
                                           : fmt::format("copy one of them: {}.to({})", f_.value(operand).name, device_name(joined.device))});
    }
  }

  // Nested regions are walked twice: what a turn carries on is where the turn before it left it.
  void place_region(const Node &node, const Block &region, Placed &joined, ValueId &first, int depth) {
    auto *quiet = std::exchange(diagnostics_, nullptr);
    auto enter = [&] {
      for (ValueId arg : region.args)
        set(arg, joined);
      walk(region, depth);
    };
    if (depth <= 6) {
      enter();
      for (ValueId result : region.results)
        join(node, joined, first, result);
    }
    diagnostics_ = quiet;
    enter();
    for (ValueId result : region.results)
      join(node, joined, first, result);
    for (NodeId inner : region.nodes) {
      Device device = out_.nodes_[size_t(inner)];
      if (device != Device::free && joined.device == Device::free)
        joined = {device, ValueId()};
      else if (device != Device::free && device != joined.device && joined.device != Device::free)
        fail(f_.node(inner), fmt::format("{} computes on {} within what computes on {}", op_def(f_.node(inner).op).name, device_name(device),
                                         device_name(joined.device)),
             {first.valid() ? text(first, joined) : "", "what a condition or a loop computes is on one side: copy values before it"});
    }
  }

  void walk(const Block &block, int depth) {
    for (NodeId id : block.nodes)
      place(id, depth);
  }

  void note_variables(const Node &node, Placed joined) {
    if (diagnostics_ && node.op == Op::assign && !node.operands.empty() && joined.device != Device::free)
      writes_[node.attrs.get_variable("variable")].push_back({joined.device, node.operands[0], &node});
    if (!diagnostics_)
      return;
    std::set<VariableId> made_of;
    if (node.op == Op::read_variable)
      made_of.insert(node.attrs.get_variable("variable"));
    for (ValueId operand : node.operands)
      if (auto it = made_of_.find(operand); it != made_of_.end()) {
        made_of.insert(it->second.begin(), it->second.end());
        for (VariableId variable : it->second)
          if (joined.device != Device::free)
            reads_[variable].push_back({joined.device, operand, &node});
      }
    for (ValueId result : node.results)
      if (joined.device == Device::free && !made_of.empty())
        made_of_[result] = made_of;
  }

  // A run that writes a variable on one side cannot use it on the other: there is one copy that is new.
  void check_variables() {
    for (const auto &[variable, writes] : writes_) {
      const std::string &name = module_.variables[size_t(variable)].name;
      for (const Use &write : writes) {
        auto reads = reads_.find(variable);
        for (size_t i = 0; reads != reads_.end() && i < reads->second.size(); ++i)
          if (const Use &read = reads->second[i]; read.device != write.device) {
            fail(*write.node, fmt::format("'{}' is written on {} and used on {}", name, device_name(write.device), device_name(read.device)),
                 {text(write.value, of(write.value)), fmt::format("it is used at {}", read.node->location.text()),
                  "a run that changes a variable has it on one side: copy the new value, or what is made of the old one"});
            break;
          }
      }
    }
  }

  const Module &module_;
  const Function &f_;
  Placement &out_;
  Diagnostics *diagnostics_ = nullptr;
  std::span<const Location> arguments_;
  int failures_ = 0;
  std::map<VariableId, std::vector<Use>> writes_, reads_;
  std::map<ValueId, std::set<VariableId>> made_of_; // of free values
};

Placement::Placement(const Module &module, const Function &function) { Placer(module, function, *this).run(); }

bool is_placed_on_gpu(const Module &module) {
  return std::any_of(module.functions.begin(), module.functions.end(), [&](const Function &function) {
    bool is_declared = function_device(module, function.name) == "cuda";
    return function.exported && (is_declared || (has_copies(function) && Placement(module, function).computes_on(Device::cuda)));
  });
}

void place_on_cpu(Module &module) {
  for (Function &function : module.functions) {
    if (!function_device(module, function.name).empty())
      set_function_device(module, function.name, "cpu");
    for (Node &node : function.nodes)
      if (is_device_copy(node))
        node.attrs.set("device", std::string("cpu"));
  }
}

void check_placement(const Module &module, const Function &function, Diagnostics &diagnostics, std::span<const Location> arguments) {
  if (!has_copies(function))
    return; // everything is where the arguments are
  Placement placement = Placer::nothing();
  Placer placer(module, function, placement);
  placer.report(diagnostics, arguments);
  placer.run();
}

Placed placed_so_far(const Module &module, const Function &function, ValueId value) {
  Placement placement = Placer::nothing();
  Placer placer(module, function, placement);
  for (size_t i = 0; i < function.nodes.size(); ++i)
    placer.place(NodeId(i), 0);
  return placement.of(value);
}

} // namespace kiln
