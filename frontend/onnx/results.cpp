// Results that a caller asks for by name, in place of the model's outputs: features from within a network.
#include "frontend/onnx/importer.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::onnx {

// The nodes that the chosen results need, in the order of the file: what comes after them may not fit the sizes that
// the model is used with.
std::vector<NodeView> Importer::needed_nodes(const GraphView &graph) {
  std::unordered_map<std::string_view, size_t> producer;
  for (size_t i = 0; i < graph.nodes.size(); ++i)
    for (std::string_view name : graph.nodes[i].outputs)
      if (!name.empty())
        producer.emplace(name, i);
  std::vector<bool> needed(graph.nodes.size());
  std::vector<std::string_view> wanted(options_.results.begin(), options_.results.end());
  while (!wanted.empty()) {
    auto it = producer.find(wanted.back());
    wanted.pop_back();
    if (it == producer.end() || needed[it->second])
      continue;
    needed[it->second] = true;
    uses_of(graph.nodes[it->second], 0, wanted);
  }
  std::vector<NodeView> out;
  for (size_t i = 0; i < graph.nodes.size(); ++i)
    if (needed[i])
      out.push_back(graph.nodes[i]);
  return out;
}

bool Importer::define_chosen_results(const GraphView &graph) {
  Function &function = emitter_->function();
  bool ok = true;
  for (const std::string &name : options_.results) {
    const Produced *p = find(name);
    if (!p) {
      constexpr size_t kListed = 12;
      std::string known;
      size_t from = graph.nodes.size() > kListed ? graph.nodes.size() - kListed : 0;
      for (size_t i = from; i < graph.nodes.size(); ++i)
        if (!graph.nodes[i].outputs.empty())
          known += fmt::format("{}{}", known.empty() ? "" : ", ", graph.nodes[i].outputs[0]);
      diagnostics_.error(at(""), fmt::format("the model has no value '{}'", name))
          .notes.push_back(fmt::format("its last ones are: {}", known));
      ok = false;
      continue;
    }
    if (p->value.failed)
      continue;
    auto id = emitter_->materialize(p->value);
    if (!id) {
      diagnostics_.error(at(p->where), id.error().message);
      ok = false;
      continue;
    }
    function.body.results.push_back(*id);
    function.result_names.push_back(name);
  }
  return ok;
}

} // namespace kiln::onnx
