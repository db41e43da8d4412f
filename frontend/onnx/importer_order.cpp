// What is looked at before a graph's nodes are imported: which operators nobody knows, and an order in which every
// operand comes before its users.
#include "frontend/onnx/importer.h"

#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <queue>

namespace kiln::onnx {
namespace {

constexpr size_t kMaxFunctions = 2000; // that are looked through, each within the one that calls it
constexpr size_t kMaxNamesListed = 8;

} // namespace

std::string operator_name(std::string_view domain, std::string_view type) {
  return domain.empty() ? std::string(type) : fmt::format("{}.{}", domain, type);
}

// -- unsupported operators

// Those of functions count where something calls them.
void Importer::find_unsupported(const std::vector<NodeView> &nodes, const std::string &prefix, int depth,
                                Unsupported &out, std::unordered_set<const FunctionView *> &called) {
  for (size_t i = 0; i < nodes.size(); ++i) {
    const NodeView &node = nodes[i];
    std::string name = node.name.empty() ? fmt::format("{}{}#{}", prefix, node.op_type, i)
                                         : std::string(node.name);
    const FunctionView *function = find_function(node);
    if (!function && !find_onnx_op(node.domain, node.op_type))
      out[operator_name(node.domain, node.op_type)].push_back(name);
    if (function && called.insert(function).second && called.size() < kMaxFunctions)
      find_unsupported(function->nodes, std::string(function->name) + "/", 0, out, called);
    for (const AttributeView &a : node.attributes) {
      if (a.type != AttrType::graph || depth >= kMaxGraphDepth)
        continue;
      // A damaged graph is reported when its node is imported.
      if (auto graph = read_graph(a.message, budget_))
        find_unsupported(graph->nodes, name + "/", depth + 1, out, called);
    }
  }
}

void Importer::report_unsupported(const ModelView &model) {
  Unsupported found;
  std::unordered_set<const FunctionView *> called;
  find_unsupported(model.graph.nodes, "", 0, found, called);
  for (const auto &[kind, nodes] : found) {
    unsupported_.insert(kind);
    Diagnostic &d = diagnostics_.error(
        at(nodes[0]), fmt::format("the operator {} (opset {}) is not supported", kind,
                                  opset(kind.find('.') == std::string::npos
                                            ? std::string_view()
                                            : std::string_view(kind).substr(0, kind.rfind('.')))));
    std::string list;
    for (size_t i = 0; i < nodes.size() && i < kMaxNamesListed; ++i)
      list += (i ? ", " : "") + nodes[i];
    if (nodes.size() > kMaxNamesListed)
      list += fmt::format(" and {} more", nodes.size() - kMaxNamesListed);
    d.notes.push_back("used by: " + list);
  }
}

// -- order

// The names that a node needs: its operands, and what its graphs take from around them.
void Importer::uses_of(const NodeView &node, int depth, std::vector<std::string_view> &out) {
  for (std::string_view name : node.inputs)
    if (!name.empty())
      out.push_back(name);
  if (depth >= kMaxGraphDepth)
    return;
  for (const AttributeView &a : node.attributes) {
    if (node.op_type == "Gradient" && a.name == "y") // a tensor by its name
      out.push_back(a.s);
    if (a.type != AttrType::graph)
      continue;
    auto graph = read_graph(a.message, budget_);
    if (!graph)
      continue;
    for (const NodeView &inner : graph->nodes)
      uses_of(inner, depth + 1, out);
    for (const ValueInfoView &output : graph->outputs)
      out.push_back(output.name);
  }
}

// The order of the file where it is a valid one, and the closest valid order otherwise.
std::optional<std::vector<size_t>> Importer::order(const std::vector<NodeView> &nodes) {
  std::unordered_map<std::string_view, size_t> producer;
  for (size_t i = 0; i < nodes.size(); ++i)
    for (std::string_view name : nodes[i].outputs)
      if (!name.empty())
        producer.emplace(name, i);
  std::vector<std::vector<size_t>> users(nodes.size());
  std::vector<size_t> waits(nodes.size());
  std::vector<std::string_view> uses;
  bool ok = true;
  for (size_t i = 0; i < nodes.size(); ++i) {
    uses.clear();
    uses_of(nodes[i], 0, uses);
    for (std::string_view name : uses)
      if (auto it = producer.find(name); it != producer.end() && it->second != i) {
        users[it->second].push_back(i);
        ++waits[i];
      }
    for (std::string_view name : nodes[i].inputs) {
      if (name.empty() || find(name))
        continue;
      auto it = producer.find(name);
      if (it != producer.end() && it->second != i)
        continue;
      diagnostics_.error(at(node_name(nodes[i], i)),
                         it == producer.end()
                             ? fmt::format("its input '{}' is not defined anywhere", name)
                             : fmt::format("its input '{}' is its own output", name));
      ok = false;
    }
  }
  if (!ok)
    return std::nullopt;
  std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
  for (size_t i = 0; i < nodes.size(); ++i)
    if (waits[i] == 0)
      ready.push(i);
  std::vector<size_t> out;
  while (!ready.empty()) {
    size_t i = ready.top();
    ready.pop();
    out.push_back(i);
    for (size_t user : users[i])
      if (--waits[user] == 0)
        ready.push(user);
  }
  if (out.size() == nodes.size())
    return out;
  std::string list;
  size_t first = nodes.size(), listed = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (waits[i] == 0)
      continue;
    first = std::min(first, i);
    if (listed++ < kMaxNamesListed)
      list += (list.empty() ? "" : ", ") + node_name(nodes[i], i);
  }
  diagnostics_.error(at(node_name(nodes[first], first)),
                     fmt::format("the graph has a cycle; these nodes wait for each other: {}{}", list,
                                 listed > kMaxNamesListed ? ", ..." : ""));
  return std::nullopt;
}

} // namespace kiln::onnx
