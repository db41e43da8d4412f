// Merges nodes that compute the same value: the same op and attributes on the same operands,
// commutative operands in any order. A node in a region may use one outside, not the other way
// round; fusion regions are closed. Small constants are compared by their bytes.
#include "passes/graph/rewrite.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <unordered_map>

namespace kiln {
namespace {

constexpr size_t kComparedBytes = 4096;

struct Key {
  Op op{};
  std::vector<ValueId> operands;
  Attrs attrs;
  friend bool operator==(const Key &, const Key &) = default;
};

struct KeyHash {
  size_t operator()(const Key &key) const {
    size_t hash = size_t(key.op);
    for (ValueId operand : key.operands)
      hash = hash * 1000003 + size_t(operand);
    // Attributes only by name and kind: equality decides.
    for (const auto &[name, value] : key.attrs.all()) {
      hash = hash * 1000003 + value.index();
      if (const auto *id = std::get_if<ConstantId>(&value))
        hash = hash * 1000003 + size_t(*id);
      else if (const auto *number = std::get_if<Dim>(&value))
        hash = hash * 1000003 + size_t(number->constant_part());
      else if (const auto *list = std::get_if<std::vector<Dim>>(&value))
        for (const Dim &d : *list)
          hash = hash * 1000003 + size_t(d.constant_part());
    }
    return hash;
  }
};

// Equal small constants get one id.
class ConstantTable {
public:
  explicit ConstantTable(const Module &module) : module_(module) {}

  ConstantId canonical(ConstantId id) {
    const Tensor &tensor = module_.constants[size_t(id)].tensor;
    auto bytes = tensor.bytes();
    if (bytes.size() > kComparedBytes)
      return id;
    std::string key = tensor.type().text();
    key.push_back('\0');
    key.append(reinterpret_cast<const char *>(bytes.data()), bytes.size());
    return table_.emplace(std::move(key), id).first->second;
  }

private:
  const Module &module_;
  std::unordered_map<std::string, ConstantId> table_;
};

class Numbering {
public:
  Numbering(Module &module, Function &function)
      : function_(function), constants_(module), replacement_(function.values.size()) {}

  Changed run() {
    block(function_.body);
    return changed_;
  }

private:
  ValueId resolve(ValueId value) const {
    ValueId to = replacement_[size_t(value)];
    return to.valid() ? to : value;
  }

  void block(Block &block) {
    std::vector<Key> added;
    for (NodeId id : block.nodes) {
      Node &node = function_.node(id);
      for (ValueId &operand : node.operands)
        operand = resolve(operand);
      if (node.op == Op::fusion) {
        auto outer = std::exchange(table_, {});
        for (Block &region : node.regions)
          this->block(region);
        table_ = std::move(outer);
      } else {
        for (Block &region : node.regions)
          this->block(region);
      }
      merge(id, added);
    }
    for (ValueId &result : block.results)
      result = resolve(result);
    for (const Key &key : added)
      table_.erase(key);
    std::erase_if(block.nodes, [&](NodeId id) { return function_.node(id).removed; });
  }

  void merge(NodeId id, std::vector<Key> &added) {
    Node &node = function_.node(id);
    const OpDef &def = op_def(node.op);
    if (!node.regions.empty() || def.has(kSideEffect) || node.op == Op::read_variable ||
        node.op == Op::call)
      return;
    Key key{node.op, node.operands, node.attrs};
    if (def.has(kCommutative))
      std::sort(key.operands.begin(), key.operands.end());
    if (node.op == Op::constant)
      key.attrs.set("value", constants_.canonical(node.attrs.get_constant("value")));
    auto [it, fresh] = table_.emplace(key, id);
    if (fresh) {
      added.push_back(std::move(key));
      return;
    }
    const Node &first = function_.node(it->second);
    for (size_t i = 0; i < node.results.size(); ++i) {
      ValueId to = first.results[i];
      // Operands may have been swapped: the shapes are the same, their spelling may not be.
      if (function_.type(to) != function_.type(node.results[i]) ||
          function_.value(to).layout != function_.value(node.results[i]).layout)
        return;
    }
    for (size_t i = 0; i < node.results.size(); ++i)
      replacement_[size_t(node.results[i])] = first.results[i];
    node.removed = true;
    changed_ = Changed::yes;
  }

  Function &function_;
  ConstantTable constants_;
  std::vector<ValueId> replacement_;
  std::unordered_map<Key, NodeId, KeyHash> table_;
  Changed changed_ = Changed::no;
};

} // namespace

Changed cse(Module &module, PassContext &) {
  Changed changed = Changed::no;
  for (Function &function : module.functions) {
    if (Numbering(module, function).run() == Changed::no)
      continue;
    changed = Changed::yes;
    function.compact();
  }
  return changed;
}

} // namespace kiln
