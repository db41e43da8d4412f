// Structural equality of modules, with the first difference in words: parse(print(m)) against m.
#include "frontend/kir/kir.h"
#include "ir/ops/op.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

namespace kiln {
namespace {

class Comparer {
public:
  Comparer(const Module &a, const Module &b) : a_(a), b_(b) {}

  std::string run() {
    if (a_.metadata != b_.metadata)
      return "metadata differs";
    if (a_.dim_bounds != b_.dim_bounds)
      return "bounds of dims differ";
    if (a_.capacities != b_.capacities)
      return "capacities differ";
    if (a_.dim_variables != b_.dim_variables)
      return "variables of dims differ";
    if (constraints(a_) != constraints(b_))
      return "constraints differ";
    if (a_.variables.size() != b_.variables.size())
      return fmt::format("{} variables against {}", a_.variables.size(), b_.variables.size());
    for (size_t i = 0; i < a_.variables.size(); ++i) {
      const Variable &x = a_.variables[i], &y = b_.variables[i];
      if (x.name != y.name || x.kind != y.kind || x.type != y.type || !same_constant(x.initial, y.initial))
        return fmt::format("variable {} '{}' against '{}'", i, x.name, y.name);
    }
    if (a_.functions.size() != b_.functions.size())
      return fmt::format("{} functions against {}", a_.functions.size(), b_.functions.size());
    for (size_t i = 0; i < a_.functions.size() && where_.empty(); ++i)
      function(a_.functions[i], b_.functions[i]);
    return where_;
  }

private:
  static std::set<std::pair<std::string, std::string>> constraints(const Module &m) {
    std::set<std::pair<std::string, std::string>> out;
    for (const auto &c : m.constraints)
      out.emplace(c.a.text(), c.b.text());
    return out;
  }

  bool same_constant(ConstantId x, ConstantId y) const {
    if (x.valid() != y.valid())
      return false;
    if (!x.valid())
      return true;
    const Tensor &s = a_.constants[size_t(x)].tensor, &t = b_.constants[size_t(y)].tensor;
    return s.type() == t.type() && std::equal(s.bytes().begin(), s.bytes().end(), t.bytes().begin());
  }

  void differ(const Function &f, std::string what) {
    if (where_.empty())
      where_ = fmt::format("in '{}': {}", f.name, what);
  }

  void value(const Function &f, ValueId x, const Function &g, ValueId y, bool variable) {
    const Value &s = f.value(x), &t = g.value(y);
    if (s.type != t.type)
      differ(f, fmt::format("'{}' is {} against {}", s.name, s.type.text(), t.type.text()));
    if (s.layout != t.layout)
      differ(f, fmt::format("'{}' lies {} against {}", s.name, s.layout.text(), t.layout.text()));
    bool counter = t.name.size() > 1 && t.name[0] == 'v' && t.name.find_first_not_of("0123456789", 1) == std::string::npos;
    bool unnamed = s.name.empty() && (counter || variable);
    bool suffixed = t.name.starts_with(s.name + "_");
    if (s.name != t.name && !unnamed && !suffixed)
      differ(f, fmt::format("a value named '{}' against '{}'", s.name, t.name));
    map_[size_t(x)] = y;
  }

  void use(const Function &f, ValueId x, ValueId y) {
    if (map_[size_t(x)] != y)
      differ(f, fmt::format("a use of '{}' has another value", f.value(x).name));
  }

  void function(const Function &f, const Function &g) {
    if (f.name != g.name || f.exported != g.exported)
      return differ(f, fmt::format("named '{}' there, or not exported alike", g.name));
    if (f.result_names != g.result_names)
      return differ(f, "names of results");
    map_.assign(f.values.size(), ValueId());
    block(f, f.body, g, g.body);
  }

  void block(const Function &f, const Block &x, const Function &g, const Block &y) {
    if (x.args.size() != y.args.size() || x.nodes.size() != y.nodes.size() ||
        x.results.size() != y.results.size())
      return differ(f, fmt::format("{} arguments, {} nodes, {} results against {}, {}, {}", x.args.size(),
                                   x.nodes.size(), x.results.size(), y.args.size(), y.nodes.size(),
                                   y.results.size()));
    for (size_t i = 0; i < x.args.size(); ++i)
      value(f, x.args[i], g, y.args[i], false);
    for (size_t i = 0; i < x.nodes.size() && where_.empty(); ++i)
      node(f, f.node(x.nodes[i]), g, g.node(y.nodes[i]));
    if (!where_.empty())
      return;
    for (size_t i = 0; i < x.results.size(); ++i)
      use(f, x.results[i], y.results[i]);
  }

  void node(const Function &f, const Node &x, const Function &g, const Node &y) {
    std::string_view name = op_def(x.op).name;
    if (x.op != y.op)
      return differ(f, fmt::format("{} against {}", name, op_def(y.op).name));
    if (x.operands.size() != y.operands.size() || x.results.size() != y.results.size() ||
        x.regions.size() != y.regions.size())
      return differ(f, fmt::format("{} with other numbers of operands, results or regions", name));
    for (size_t i = 0; i < x.operands.size(); ++i)
      use(f, x.operands[i], y.operands[i]);
    const auto &s = x.attrs.all(), &t = y.attrs.all();
    if (s.size() != t.size())
      return differ(f, fmt::format("attributes of {}", name));
    for (size_t i = 0; i < s.size(); ++i) {
      auto *c = std::get_if<ConstantId>(&s[i].second);
      auto *d = std::get_if<ConstantId>(&t[i].second);
      bool same = s[i].first == t[i].first && (c && d ? same_constant(*c, *d) : s[i].second == t[i].second);
      if (!same)
        return differ(f, fmt::format("attribute '{}' of {}", s[i].first, name));
    }
    for (size_t i = 0; i < x.regions.size(); ++i)
      block(f, x.regions[i], g, y.regions[i]);
    for (size_t i = 0; i < x.results.size(); ++i)
      value(f, x.results[i], g, y.results[i], x.op == Op::read_variable);
  }

  const Module &a_, &b_;
  std::vector<ValueId> map_;
  std::string where_;
};

} // namespace

std::string first_difference(const Module &a, const Module &b) { return Comparer(a, b).run(); }

} // namespace kiln
