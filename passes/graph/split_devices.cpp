// Parts of a function by device, so that each is an entry that computes in one place and nothing else has to know
// of two.
//
//   func f(x) {                      func f@part0(`@in0`) device cpu  { a = relu(x); return `@0` = a }
//     a = relu(x)                    func f@part1(`@0`)   device cuda { b = exp(a);  return `@1` = b }
//     b = exp(a.to(cuda))      ->    func f@part2(`@1`)   device cpu  { return `@out0` = b + 1 }
//     return b.to(cpu) + 1           func f(x) { return exp(relu(x)) + 1 }
//   }
//
// The depth of a node is the number of borders on the longest way to it; nodes of one device and depth are a part, so
// that there are as few as can be. Of one depth the GPU's part comes first: it computes while the processor goes on
// with what needs nothing of it. What is on both sides (constants, variables and what is computed from them alone) is
// in every part that uses it.
//
// Variables are written in the last of the parts that read them, so a part that reads sees what there was before.
#include "passes/graph/split_devices.h"

#include "ir/clone.h"
#include "ir/ops/op.h"
#include "passes/graph/rewrite.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace kiln {
namespace {

class Splitter {
public:
  Splitter(Module &module, const Function &function, Diagnostics &diagnostics)
      : module_(module), f_(function), diagnostics_(diagnostics), placement_(module, function) {}

  bool run(std::vector<Function> &parts) {
    index_nodes();
    for (NodeId id : f_.body.nodes)
      if (!is_skipped(id) && f_.node(id).op != Op::assign)
        find_depth(id);
    find_readers();
    for (NodeId id : f_.body.nodes)
      if (!is_skipped(id) && f_.node(id).op == Op::assign)
        place_assign(id);
    if (!check_sizes())
      return false;
    std::set<int> keys;
    for (NodeId id : f_.body.nodes)
      if (key_[size_t(id)] >= 0)
        keys.insert(key_[size_t(id)]);
    keys_.assign(keys.begin(), keys.end());
    for (size_t p = 0; p < keys_.size(); ++p)
      choose_nodes(p);
    find_borders();
    for (size_t p = 0; p < keys_.size(); ++p)
      parts.push_back(build(p));
    return !diagnostics_.has_errors();
  }

  static Device device_of_key(int key) { return key % 2 == 0 ? Device::cuda : Device::cpu; }
  Device device_of_part(size_t part) const { return device_of_key(keys_[part]); }

private:
  bool is_skipped(NodeId id) const { return f_.node(id).removed || is_device_copy(f_.node(id)); }

  // The value that a chain of copies between devices starts from.
  ValueId resolve(ValueId v) const {
    for (const Node *def = f_.def(v); def && is_device_copy(*def); def = f_.def(v))
      v = def->operands[0];
    return v;
  }

  // What a node and whatever is in it use of the values around it, without copies.
  std::vector<ValueId> used(NodeId id) const {
    std::vector<ValueId> out;
    std::set<ValueId> inside;
    collect(id, out, inside);
    std::erase_if(out, [&](ValueId v) { return inside.contains(v); });
    for (ValueId &v : out)
      v = resolve(v);
    return out;
  }
  void collect(NodeId id, std::vector<ValueId> &out, std::set<ValueId> &inside) const {
    const Node &node = f_.node(id);
    out.insert(out.end(), node.operands.begin(), node.operands.end());
    for (const Block &region : node.regions) {
      inside.insert(region.args.begin(), region.args.end());
      for (NodeId inner : region.nodes) {
        inside.insert(f_.node(inner).results.begin(), f_.node(inner).results.end());
        collect(inner, out, inside);
      }
      out.insert(out.end(), region.results.begin(), region.results.end());
    }
  }

  void index_nodes() {
    key_.assign(f_.nodes.size(), -1);
    for (size_t i = 0; i < f_.body.nodes.size(); ++i) {
      NodeId id = f_.body.nodes[i];
      const Node &node = f_.node(id);
      order_[id] = i;
      if (is_skipped(id) || device_of(id) != Device::free || node.op == Op::assign)
        continue;
      std::set<VariableId> variables;
      if (node.op == Op::read_variable) {
        variables.insert(node.attrs.get_variable("variable"));
        last_read_[*variables.begin()] = id;
      }
      for (ValueId v : used(id))
        if (auto it = made_of_.find(v); it != made_of_.end())
          variables.insert(it->second.begin(), it->second.end());
      for (ValueId v : node.results)
        if (!variables.empty())
          made_of_[v] = variables;
    }
  }

  void find_readers() {
    for (NodeId id : f_.body.nodes)
      if (key_[size_t(id)] >= 0)
        for (ValueId v : used(id))
          if (auto it = made_of_.find(v); it != made_of_.end())
            for (VariableId variable : it->second)
              readers_[variable].insert(key_[size_t(id)]);
  }

  Device device_of(NodeId id) const {
    Device device = placement_.of_node(id);
    bool is_size = f_.node(id).op == Op::bind_size; // one that depends on no argument
    return device == Device::free && is_size ? Device::cpu : device;
  }

  int key_of(ValueId v) const {
    NodeId def = f_.value(v).def;
    return def.valid() ? key_[size_t(def)] : -1;
  }

  // The least key on a device from which every operand can be had.
  int least_key(NodeId id, Device device) const {
    int parity = device == Device::cpu, depth = 0;
    for (ValueId v : used(id))
      if (int key = key_of(v); key >= 0)
        depth = std::max(depth, key / 2 + (key % 2 != parity));
    return 2 * depth + parity;
  }

  void find_depth(NodeId id) {
    Device device = device_of(id);
    if (device == Device::free)
      return;
    int key = least_key(id, device);
    for (Symbol symbol : sizes_in(id))
      if (auto it = made_sizes_.find(symbol); it != made_sizes_.end() && it->second.key % 2 == key % 2)
        key = std::max(key, it->second.key);
    key_[size_t(id)] = key;
    if (f_.node(id).op == Op::bind_size)
      made_sizes_[Symbol(f_.node(id).attrs.get_string("symbol"))] = {key, id};
  }

  // Behind whoever reads the variable, on the side of its new value; a value that is on both sides is written where the
  // variable is read last.
  void place_assign(NodeId id) {
    const Node &node = f_.node(id);
    Device device = device_of(id);
    VariableId variable = node.attrs.get_variable("variable");
    int key = device == Device::free ? -1 : least_key(id, device);
    auto follow = [&](int other) {
      key = std::max(key, device == Device::free ? other : other / 2 * 2 + (device == Device::cpu));
    };
    if (auto read = last_read_.find(variable); read != last_read_.end() && order_.at(read->second) > order_.at(id))
      diagnostics_.error(f_.node(read->second).location, fmt::format("'{}' is read after it is written, in a function that computes on cpu and on cuda",
                                                                     module_.variables[size_t(variable)].name))
          .notes.push_back("use the value that is assigned");
    for (int reader : readers_[variable]) // and earlier assignments
      follow(reader);
    key_[size_t(id)] = key >= 0 ? key : *std::max_element(key_.begin(), key_.end());
    readers_[variable].insert(key_[size_t(id)]);
  }

  std::set<Symbol> sizes_in(NodeId id) const {
    std::set<Symbol> out;
    for_each_size(f_, f_.node(id), [&](Symbol s) { out.insert(s); });
    for (const Block &region : f_.node(id).regions)
      for_each_node(f_, region, [&](NodeId inner) { for_each_size(f_, f_.node(inner), [&](Symbol s) { out.insert(s); }); });
    return out;
  }

  // A size that a run finds is known in the part that finds it.
  bool check_sizes() {
    bool fine = true;
    for (NodeId id : f_.body.nodes)
      if (key_[size_t(id)] >= 0)
        for (Symbol symbol : sizes_in(id))
          if (auto it = made_sizes_.find(symbol); it != made_sizes_.end() && it->second.key != key_[size_t(id)]) {
            fine = false;
            Diagnostic &d = diagnostics_.error(
                f_.node(id).location, fmt::format("the size '{}' is found in the data on {} and used on {}, behind a copy", symbol.text(),
                                                  device_name(device_of_key(it->second.key)), device_name(device_of_key(key_[size_t(id)]))));
            d.notes.push_back(fmt::format("it is found at {}", f_.node(it->second.node).location.text()));
            d.notes.push_back("copy values between devices before their sizes depend on the data");
          }
    return fine;
  }

  void need(ValueId v, std::set<NodeId> &nodes) {
    NodeId def = f_.value(v).def;
    if (!def.valid() || key_[size_t(def)] >= 0 || !nodes.insert(def).second)
      return;
    for (ValueId operand : used(def))
      need(operand, nodes);
  }

  void choose_nodes(size_t part) {
    std::set<NodeId> &nodes = nodes_.emplace_back();
    for (NodeId id : f_.body.nodes)
      if (key_[size_t(id)] == keys_[part]) {
        nodes.insert(id);
        for (ValueId v : used(id))
          need(v, nodes);
      }
    if (part == 0) // what it returns of both sides
      for (ValueId v : f_.body.results)
        need(resolve(v), nodes);
  }

  size_t part_of(ValueId v) const {
    int key = key_of(v);
    return key < 0 ? 0 : size_t(std::find(keys_.begin(), keys_.end(), key) - keys_.begin());
  }

  // Numbered in the order in which they are made.
  void find_borders() {
    std::set<ValueId> used_elsewhere;
    for (size_t p = 0; p < keys_.size(); ++p)
      for (NodeId id : nodes_[p])
        for (ValueId v : used(id))
          if (key_of(v) >= 0 && key_of(v) != keys_[p])
            used_elsewhere.insert(v);
    for (int key : keys_)
      for (NodeId id : f_.body.nodes)
        if (key_[size_t(id)] == key)
          for (ValueId v : f_.node(id).results)
            if (used_elsewhere.contains(v))
              borders_.try_emplace(v, borders_.size());
  }

  Function build(size_t part) {
    Function out;
    out.name = part_name(f_.name, part);
    out.exported = true;
    out.location = f_.location;
    ValueMap values;
    std::set<ValueId> wanted;
    for (NodeId id : nodes_[part])
      for (ValueId v : used(id))
        wanted.insert(v);
    for (ValueId v : f_.body.results)
      if (part_of(resolve(v)) == part)
        wanted.insert(resolve(v));
    for (size_t i = 0; i < f_.body.args.size(); ++i)
      if (ValueId arg = f_.body.args[i]; wanted.contains(arg))
        values[arg] = out.add_argument(out.body, f_.type(arg), fmt::format("@in{}", i));
    std::vector<std::pair<size_t, ValueId>> from_others;
    for (auto [v, index] : borders_)
      if (wanted.contains(v) && key_of(v) != keys_[part])
        from_others.emplace_back(index, v);
    std::sort(from_others.begin(), from_others.end());
    for (auto [index, v] : from_others)
      values[v] = out.add_argument(out.body, f_.type(v), fmt::format("@{}", index));
    GraphBuilder b(module_, out, out.body);
    for (NodeId id : f_.body.nodes) {
      if (!f_.node(id).removed && is_device_copy(f_.node(id))) {
        if (auto it = values.find(resolve(f_.node(id).operands[0])); it != values.end())
          values[f_.node(id).results[0]] = it->second;
      } else if (nodes_[part].contains(id)) {
        Status cloned = clone_node(b, f_, id, values);
        KILN_CHECK(cloned.ok(), "a node can be copied to a part");
      }
    }
    for (size_t i = 0; i < f_.body.results.size(); ++i)
      if (ValueId v = resolve(f_.body.results[i]); part_of(v) == part) {
        out.body.results.push_back(values.at(v));
        out.result_names.push_back(fmt::format("@out{}", i));
      }
    std::vector<std::pair<size_t, ValueId>> to_others;
    for (auto [v, index] : borders_)
      if (key_of(v) == keys_[part])
        to_others.emplace_back(index, v);
    std::sort(to_others.begin(), to_others.end());
    for (auto [index, v] : to_others) {
      out.body.results.push_back(values.at(v));
      out.result_names.push_back(fmt::format("@{}", index));
    }
    return out;
  }

  struct MadeSize {
    int key;
    NodeId node;
  };

  Module &module_;
  const Function &f_;
  Diagnostics &diagnostics_;
  Placement placement_;
  std::vector<int> key_;            // of top-level nodes: twice the depth, and 1 on the processor; -1 of what is on both sides
  std::map<NodeId, size_t> order_;
  std::map<Symbol, MadeSize> made_sizes_;
  std::map<ValueId, std::set<VariableId>> made_of_;  // of values on both sides
  std::map<VariableId, NodeId> last_read_;
  std::map<VariableId, std::set<int>> readers_; // keys of the nodes that use a variable, or write it
  std::vector<int> keys_;           // of the parts
  std::vector<std::set<NodeId>> nodes_;
  std::map<ValueId, size_t> borders_; // values that other parts use
};

void remove_copies(Module &module, Function &function) {
  Sweep(module, function).run([&](Sweep &s, NodeId id) {
    if (is_device_copy(s.node(id)))
      s.replace(s.node(id).results[0], s.node(id).operands[0]);
  });
}

} // namespace

bool split_devices(Module &module, size_t index, Diagnostics &diagnostics) {
  std::vector<Function> parts;
  // A copy, since building parts adds to the module.
  Function whole = module.functions[index];
  Splitter splitter(module, whole, diagnostics);
  if (!splitter.run(parts))
    return false;
  for (size_t p = 0; p < parts.size(); ++p) {
    set_function_device(module, parts[p].name, device_name(splitter.device_of_part(p)));
    remove_copies(module, parts[p]);
    module.functions.push_back(std::move(parts[p]));
  }
  remove_copies(module, module.functions[index]);
  set_function_device(module, whole.name, "");
  return true;
}

} // namespace kiln
