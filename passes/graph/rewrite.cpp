#include "passes/graph/rewrite.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace kiln {

// Blocks are reached by reference while nodes are added, which moves nodes but not their regions.
static_assert(std::is_nothrow_move_constructible_v<Node>);

namespace {

void visit_blocks(Function &function, Block &block, const std::function<void(Block &)> &visit) {
  visit(block);
  for (size_t i = 0; i < block.nodes.size(); ++i)
    for (Block &region : function.node(block.nodes[i]).regions)
      visit_blocks(function, region, visit);
}

void collect_blocks(Function &function, Block &block, std::vector<Block *> &out) {
  out.push_back(&block);
  for (NodeId id : block.nodes)
    if (function.node(id).op != Op::fusion)
      for (Block &region : function.node(id).regions)
        collect_blocks(function, region, out);
}

} // namespace

void for_each_block(Function &function, const std::function<void(Block &)> &visit) {
  visit_blocks(function, function.body, visit);
}

void for_each_node(const Function &function, const Block &block,
                   const std::function<void(NodeId)> &visit) {
  for (NodeId id : block.nodes) {
    visit(id);
    for (const Block &region : function.node(id).regions)
      for_each_node(function, region, visit);
  }
}

std::vector<Block *> kernel_blocks(Function &function) {
  std::vector<Block *> out;
  collect_blocks(function, function.body, out);
  return out;
}

void for_each_node(const Function &function, const std::function<void(NodeId)> &visit) {
  for_each_node(function, function.body, visit);
}

void for_each_size(const Function &function, const Node &node, const std::function<void(Symbol)> &visit) {
  auto dim = [&](const Dim &d) {
    if (!d.is_const())
      for (Symbol s : d.symbols())
        visit(s);
  };
  auto type = [&](ValueId value) {
    for (const Dim &d : function.type(value).shape)
      dim(d);
  };
  for (ValueId result : node.results)
    type(result);
  for (const Block &region : node.regions)
    for (ValueId arg : region.args)
      type(arg);
  for (const auto &[name, attr] : node.attrs.all()) {
    if (const auto *one = std::get_if<Dim>(&attr))
      dim(*one);
    if (const auto *list = std::get_if<std::vector<Dim>>(&attr))
      for (const Dim &d : *list)
        dim(d);
  }
}

bool may_be_equal(const TensorType &a, const TensorType &b) {
  if (a.dtype != b.dtype || a.rank() != b.rank())
    return false;
  for (size_t d = 0; d < a.shape.size(); ++d)
    if (a.shape[d] != b.shape[d] && (a.shape[d] - b.shape[d]).is_const())
      return false;
  return true;
}

Sweep::Sweep(Module &module, Function &function)
    : module_(module), function_(function), builder_(module, function, function.body),
      uses_(function.use_counts()) {}

Changed Sweep::run(const std::function<void(Sweep &, NodeId)> &visit) {
  run_block(function_.body, visit);
  return changed_;
}

void Sweep::run_block(Block &block, const std::function<void(Sweep &, NodeId)> &visit) {
  for (size_t i = 0; i < block.nodes.size(); ++i) {
    NodeId id = block.nodes[i];
    for (ValueId &operand : function_.node(id).operands)
      operand = resolve(operand);
    bool fusion = function_.node(id).op == Op::fusion;
    fusion_depth_ += fusion;
    for (size_t r = 0; r < function_.node(id).regions.size(); ++r)
      run_block(function_.node(id).regions[r], visit);
    fusion_depth_ -= fusion;

    builder_.set_position(block, i);
    builder_.set_location(function_.node(id).location);
    visit(*this, id);
    i = builder_.position();
  }
  std::erase_if(block.nodes, [&](NodeId id) { return function_.node(id).removed; });
  for (ValueId &result : block.results)
    result = resolve(result);
}

void Sweep::replace(ValueId from, ValueId to) {
  to = resolve(to);
  if (from == to)
    return;
  if (function_.type(from) != function_.type(to)) {
    KILN_CHECK(may_be_equal(function_.type(from), function_.type(to)),
               "a replacement has the type of what it replaces: " + function_.type(from).text() +
                   " by " + function_.type(to).text());
    // Sizes that are only required to be equal: the users keep the one they were typed with.
    const Node *def = function_.def(from);
    if (def && def->op == Op::reshape && def->operands[0] == to)
      return;
    to = builder_(Op::reshape, {to}, {{"shape", function_.type(from).shape}});
  }
  replacement_.resize(std::max(replacement_.size(), function_.values.size()));
  replacement_[size_t(from)] = to;
  // Arguments and results keep the names that people gave them.
  if (function_.value(to).name.empty() && function_.value(to).def.valid())
    function_.value(to).name = function_.value(from).name;
  changed_ = Changed::yes;
  NodeId def = function_.value(from).def;
  if (!def.valid())
    return;
  const auto &results = function_.node(def).results;
  if (std::all_of(results.begin(), results.end(),
                  [&](ValueId r) { return replacement_[size_t(r)].valid(); }))
    function_.node(def).removed = true;
}

void Sweep::replace_results(NodeId node, std::span<const ValueId> to) {
  std::vector<ValueId> from = function_.node(node).results;
  KILN_CHECK(from.size() == to.size(), "as many replacements as results");
  for (size_t i = 0; i < from.size(); ++i)
    replace(from[i], to[i]);
}

void Sweep::remove(NodeId node) {
  function_.node(node).removed = true;
  changed_ = Changed::yes;
}

ValueId Sweep::resolve(ValueId value) {
  while (size_t(value) < replacement_.size() && replacement_[size_t(value)].valid()) {
    ValueId next = replacement_[size_t(value)];
    if (size_t(next) < replacement_.size() && replacement_[size_t(next)].valid())
      replacement_[size_t(value)] = replacement_[size_t(next)];
    value = next;
  }
  return value;
}

const Tensor *constant_tensor(const Module &module, const Function &function, ValueId value) {
  const Node *node = function.def(value);
  if (!node || node->op != Op::constant)
    return nullptr;
  return &module.constants[size_t(node->attrs.get_constant("value"))].tensor;
}

std::optional<double> splat_value(const Module &module, const Function &function, ValueId value) {
  const Tensor *tensor = constant_tensor(module, function, value);
  if (!tensor || tensor->count() == 0)
    return std::nullopt;
  auto bytes = tensor->bytes();
  size_t size = size_t(dtype_bytes(tensor->dtype()));
  for (size_t at = size; at < bytes.size(); at += size)
    if (std::memcmp(bytes.data(), bytes.data() + at, size) != 0)
      return std::nullopt;
  return tensor->at_f64(0);
}

} // namespace kiln
