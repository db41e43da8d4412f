#include "tests/fuzz/graph_reduce.h"

#include "ir/clone.h"
#include "passes/pass.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace kiln::fuzz {
namespace {

Function &entry(Module &module) {
  for (Function &f : module.functions)
    if (f.exported)
      return f;
  return module.functions[0];
}

// Without what nothing uses; nothing where it is no sound module that the interpreter runs.
std::optional<StoredGraph> tidy(StoredGraph graph) {
  Diagnostics diagnostics;
  PassContext context(diagnostics);
  dce(graph.module, context);
  Function &f = entry(graph.module);
  std::vector<int> uses = f.use_counts();
  for (size_t i = f.body.args.size(); i-- > 0;)
    if (uses[size_t(f.body.args[i])] == 0) {
      f.body.args.erase(f.body.args.begin() + std::ptrdiff_t(i));
      graph.inputs.erase(graph.inputs.begin() + std::ptrdiff_t(i));
    }
  f.compact();
  verify(graph.module, diagnostics);
  if (diagnostics.has_errors())
    return std::nullopt;
  auto variables = initial_variables(graph.module);
  if (!variables || !interpret(graph.module, f, graph.inputs, *variables))
    return std::nullopt;
  return graph;
}

Tensor cut(const Tensor &t, const std::map<int64_t, int64_t> &sizes) {
  std::vector<int64_t> dims = t.dims();
  for (int64_t &d : dims)
    if (auto it = sizes.find(d); it != sizes.end())
      d = it->second;
  Tensor out(t.dtype(), dims);
  for (int64_t i = 0; i < out.count(); ++i) {
    int64_t from = 0, rest = i, stride = 1;
    for (size_t d = dims.size(); d-- > 0; rest /= dims[d], stride *= t.dims()[d])
      from += std::min(rest % dims[d], t.dims()[d] - 1) * stride;
    if (t.count() > 0)
      is_float(t.dtype()) ? out.set_f64(i, t.at_f64(from)) : out.set_i64(i, t.at_i64(from));
  }
  return out;
}

void shrink_type(TensorType &type, const std::map<int64_t, int64_t> &sizes) {
  for (Dim &d : type.shape)
    if (auto known = d.try_const(); known && sizes.contains(*known))
      d = sizes.at(*known);
}

// The function emitted anew with sizes changed everywhere, inferred again.
std::optional<StoredGraph> with_sizes(const StoredGraph &from, const std::map<int64_t, int64_t> &sizes, bool attributes) {
  StoredGraph out = from;
  if (!from.module.variables.empty())
    return std::nullopt;
  for (Constant &c : out.module.constants)
    c.tensor = cut(c.tensor, sizes);
  for (Tensor &t : out.inputs)
    t = cut(t, sizes);
  Function old = entry(out.module);
  for (Node &node : old.nodes) {
    Attrs attrs = node.attrs;
    for (const auto &[name, attr] : attrs.all()) {
      if (const auto *list = std::get_if<std::vector<Dim>>(&attr); list && attributes) {
        TensorType changed{DType::f32, *list};
        shrink_type(changed, sizes);
        node.attrs.set(name, changed.shape);
      }
    }
  }
  Function made;
  made.name = old.name, made.exported = true, made.result_names = old.result_names;
  ValueMap values;
  for (ValueId arg : old.body.args) {
    TensorType type = old.type(arg);
    shrink_type(type, sizes);
    values[arg] = made.add_argument(made.body, type, old.value(arg).name);
  }
  GraphBuilder builder(out.module, made, made.body);
  if (!clone_nodes(builder, old, old.body, values))
    return std::nullopt;
  for (ValueId r : old.body.results)
    made.body.results.push_back(values.at(r));
  entry(out.module) = std::move(made);
  return tidy(std::move(out));
}

class Reducer {
public:
  Reducer(StoredGraph graph, const std::function<bool(const StoredGraph &)> &fails) : best_(std::move(graph)), fails_(fails) {}

  StoredGraph run() {
    accept(tidy(best_));
    for (int round = 0; round < 4 && trials_ > 0; ++round) {
      size_t before = weight();
      results();
      nodes();
      sizes();
      if (weight() >= before)
        break;
    }
    return std::move(best_);
  }

private:
  size_t weight() const {
    size_t n = 0;
    for (const Tensor &t : best_.inputs)
      n += size_t(t.count());
    return n + best_.function().nodes.size() * 1000 + best_.function().body.results.size() * 100;
  }

  bool accept(std::optional<StoredGraph> candidate) {
    if (!candidate || --trials_ < 0 || !fails_(*candidate))
      return false;
    best_ = std::move(*candidate);
    return true;
  }

  void results() {
    for (size_t keep = 0; keep < best_.function().body.results.size() && best_.function().body.results.size() > 1; ++keep) {
      StoredGraph candidate = best_;
      Function &f = entry(candidate.module);
      f.body.results = {f.body.results[keep]};
      f.result_names = {f.result_names[keep]};
      if (accept(tidy(std::move(candidate))))
        return;
    }
    for (size_t drop = best_.function().body.results.size(); drop-- > 0 && best_.function().body.results.size() > 1;) {
      StoredGraph candidate = best_;
      Function &f = entry(candidate.module);
      f.body.results.erase(f.body.results.begin() + std::ptrdiff_t(drop));
      f.result_names.erase(f.result_names.begin() + std::ptrdiff_t(drop));
      accept(tidy(std::move(candidate)));
    }
  }

  // What the nodes of the entry's body give, by value.
  std::map<size_t, Tensor> values() {
    std::map<size_t, Tensor> out;
    EvaluateOptions options;
    const Function &f = best_.function();
    options.after_node = [&](NodeId id, std::span<const Tensor> results) {
      for (size_t i = 0; i < results.size(); ++i)
        out.insert_or_assign(size_t(f.node(id).results[i]), results[i]);
    };
    if (auto variables = initial_variables(best_.module))
      (void)interpret(best_.module, f, best_.inputs, *variables, options);
    return out;
  }

  bool bypass(NodeId id) {
    const Node node = best_.function().node(id);
    for (ValueId operand : node.operands)
      for (ValueId result : node.results)
        if (best_.function().type(operand) == best_.function().type(result)) {
          StoredGraph candidate = best_;
          entry(candidate.module).replace_uses(result, operand);
          if (accept(tidy(std::move(candidate))))
            return true;
        }
    return false;
  }

  bool make_argument(NodeId id) {
    auto known = values();
    StoredGraph candidate = best_;
    Function &f = entry(candidate.module);
    const Node node = f.node(id);
    if (node.results.empty() || node.op == Op::constant)
      return false;
    for (ValueId result : node.results) {
      auto it = known.find(size_t(result));
      if (it == known.end())
        return false;
      TensorType type = f.type(result);
      for (size_t d = 0; d < type.shape.size(); ++d)
        if (!type.shape[d].try_symbol() || !f.type(f.body.args.empty() ? result : f.body.args[0]).shape.size())
          type.shape[d] = type.shape[d].is_const() || type.shape[d].try_symbol() ? type.shape[d] : Dim(it->second.dims()[d]);
      ValueId arg = f.add_argument(f.body, type, fmt::format("r{}_{}", f.values.size(), size_t(result)));
      f.replace_uses(result, arg);
      candidate.inputs.push_back(it->second);
    }
    return accept(tidy(std::move(candidate)));
  }

  void nodes() {
    for (size_t i = best_.function().body.nodes.size(); i-- > 0;) {
      if (i >= best_.function().body.nodes.size())
        continue;
      NodeId id = best_.function().body.nodes[i];
      if (!bypass(id))
        make_argument(id);
    }
    // Inside of regions.
    for (size_t n = best_.function().nodes.size(); n-- > 0;)
      if (n < best_.function().nodes.size())
        bypass(NodeId(n));
  }

  void sizes() {
    std::set<int64_t> seen;
    for (const Tensor &t : best_.inputs)
      seen.insert(t.dims().begin(), t.dims().end());
    for (const Constant &c : best_.module.constants)
      seen.insert(c.tensor.dims().begin(), c.tensor.dims().end());
    for (auto it = seen.rbegin(); it != seen.rend(); ++it)
      for (int64_t to : {int64_t(1), int64_t(2), *it / 2, *it - 1})
        if (to > 0 && to < *it && (accept(with_sizes(best_, {{*it, to}}, true)) || accept(with_sizes(best_, {{*it, to}}, false))))
          break;
  }

  StoredGraph best_;
  const std::function<bool(const StoredGraph &)> &fails_;
  int trials_ = 600;
};

} // namespace

StoredGraph reduce_graph(StoredGraph graph, const std::function<bool(const StoredGraph &)> &fails) {
  return Reducer(std::move(graph), fails).run();
}

} // namespace kiln::fuzz
