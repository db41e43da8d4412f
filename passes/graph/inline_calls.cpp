// Replaces every call by the body of the function it calls, callees first. A callee's symbolic dims
// become those of the arguments: calling f(x: f32[N, 3]) with f32[2*B, 3] puts 2*B for N.
//
// A cycle of calls and a program that grows past the limit are the user's mistakes.
#include "ir/clone.h"
#include "passes/graph/rewrite.h"

#include <fmt/format.h>

#include <set>
#include <utility>

namespace kiln {
namespace {

class Inliner {
public:
  Inliner(Module &module, PassContext &context) : module_(module), context_(context) {}

  Changed run() {
    state_.resize(module_.functions.size());
    for (size_t f = 0; f < module_.functions.size(); ++f)
      flatten(f);
    return changed_;
  }

private:
  enum class State : uint8_t { fresh, active, done };

  // Post-order over the call graph, with a stack of our own: its depth is the input's choice.
  void flatten(size_t root) {
    std::vector<std::pair<size_t, std::vector<size_t>>> stack;
    auto enter = [&](size_t f) {
      state_[f] = State::active;
      stack.emplace_back(f, callees(f));
    };
    if (state_[root] == State::fresh)
      enter(root);
    while (!stack.empty()) {
      auto &[f, pending] = stack.back();
      if (pending.empty()) {
        inline_into(f);
        state_[f] = State::done;
        stack.pop_back();
        continue;
      }
      size_t next = pending.back();
      pending.pop_back();
      if (state_[next] == State::active) {
        context_.diagnostics.error(
            module_.functions[f].location,
            fmt::format("'{}' calls itself, through '{}'; a graph cannot recurse, "
                        "use `while` or `for`",
                        module_.functions[next].name, module_.functions[f].name));
        recursive_ = true;
      } else if (state_[next] == State::fresh) {
        enter(next);
      }
    }
  }

  std::vector<size_t> callees(size_t f) const {
    std::vector<size_t> out;
    const Function &function = module_.functions[f];
    for_each_node(function, [&](NodeId id) {
      if (function.node(id).op == Op::call)
        out.push_back(size_t(function.node(id).attrs.get_function("function")));
    });
    return out;
  }

  void inline_into(size_t f) {
    if (recursive_)
      return;
    Sweep sweep(module_, module_.functions[f]);
    Changed changed = sweep.run([&](Sweep &s, NodeId id) {
      if (s.node(id).op == Op::call && !recursive_)
        inline_call(s, id);
    });
    if (changed == Changed::yes)
      module_.functions[f].compact();
    changed_ |= changed;
  }

  void inline_call(Sweep &s, NodeId id) {
    Node call = s.node(id);
    const Function &callee = module_.functions[size_t(call.attrs.get_function("function"))];
    auto fail = [&](std::string message) {
      context_.diagnostics.error(call.location, std::move(message));
      recursive_ = true;
    };
    if (int64_t(s.function().nodes.size() + callee.nodes.size()) > context_.limits.inline_nodes)
      return fail(
          fmt::format("inlining '{}' makes '{}' larger than {} nodes; use `while` or `for` where "
                      "the same function is called many times",
                      callee.name, s.function().name, context_.limits.inline_nodes));
    ValueMap values;
    DimMap dims;
    for (size_t i = 0; i < call.operands.size(); ++i) {
      ValueId param = callee.body.args[i];
      values[param] = call.operands[i];
      const Shape &formal = callee.type(param).shape;
      const Shape &actual = s.function().type(call.operands[i]).shape;
      for (size_t d = 0; d < formal.size() && d < actual.size(); ++d)
        if (auto symbol = formal[d].try_symbol())
          dims.emplace(*symbol, actual[d]);
    }
    rename_sizes(callee, dims);
    // A size that the function has as a number is that number in it, however the caller writes it.
    for (size_t i = 0; i < call.operands.size(); ++i) {
      Shape formal = substituted(callee.type(callee.body.args[i]), dims).shape;
      if (formal != s.function().type(call.operands[i]).shape)
        values[callee.body.args[i]] = s.builder()(Op::reshape, {call.operands[i]}, {{"shape", std::move(formal)}});
    }
    Status status = clone_nodes(s.builder(), callee, callee.body, values, dims);
    if (!status)
      return fail(fmt::format("in the call of '{}': {}", callee.name, status.error().message));
    std::vector<ValueId> results;
    for (size_t i = 0; i < callee.body.results.size(); ++i) {
      ValueId result = values.at(callee.body.results[i]);
      if (!may_be_equal(s.function().type(result), s.function().type(call.results[i])))
        return fail(fmt::format("in the call of '{}': result {} is {}, where {} was inferred",
                                callee.name, i, s.function().type(result).text(),
                                s.function().type(call.results[i]).text()));
      results.push_back(result);
    }
    s.replace_results(id, results);
    s.remove(id);
  }

  // Sizes that the callee finds at run time get names of their own in each place that calls it.
  void rename_sizes(const Function &callee, DimMap &dims) {
    std::set<Symbol> &used = used_;
    auto note_all = [&](const Function &f) {
      for_each_node(f, [&](NodeId id) {
        for_each_size(f, f.node(id), [&](Symbol s) { used.insert(s); });
        if (f.node(id).op == Op::bind_size)
          used.insert(Symbol(f.node(id).attrs.get_string("symbol")));
      });
    };
    bool noted = false;
    for_each_node(callee, [&](NodeId id) {
      if (callee.node(id).op != Op::bind_size)
        return;
      if (!std::exchange(noted, true)) {
        for (const Function &f : module_.functions) {
          for (ValueId arg : f.body.args)
            for (const Dim &d : f.type(arg).shape)
              for (Symbol symbol : d.symbols())
                used.insert(symbol);
          note_all(f);
        }
      }
      std::string name = callee.node(id).attrs.get_string("symbol"), fresh = name;
      for (int i = 1; !used.insert(Symbol(fresh)).second; ++i)
        fresh = fmt::format("{}_{}", name, i);
      dims.emplace(Symbol(name), Dim::symbol(fresh));
    });
  }

  Module &module_;
  PassContext &context_;
  std::set<Symbol> used_; // names of sizes
  std::vector<State> state_;
  Changed changed_ = Changed::no;
  bool recursive_ = false;
};

} // namespace

Changed inline_calls(Module &module, PassContext &context) {
  return Inliner(module, context).run();
}

} // namespace kiln
