// The verifier: a module that passes it can be walked, printed, interpreted and lowered without further
// checks. It runs on whatever a parser or a pass hands over, so it takes nothing for granted: ids are
// checked before they are followed, and types are inferred only where all that infer looks at is sound.
//
//   module     names unique; variables static, their initial values of their type; calls do not recurse
//   structure  every node and value stands in one place; uses come after definitions, in the same block or
//              one inside; the region of a fusion uses nothing from outside; sizes that a run finds are bound
//              once, and mentioned after that and inside only
//   devices    what is on two of them meets only through copies (ir/placement.h)
//   nodes      arity, attributes as the schema says, types as infer gives them, and every equality that
//              infer needs recorded in the module's constraints
#include "ir/graph.h"
#include "ir/ops/op.h"
#include "ir/placement.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <set>

namespace kiln {
namespace {

constexpr int kMaxDepth = 200; // of regions in regions, and of calls
constexpr size_t kMaxRank = 64;
constexpr int64_t kMaxElements = int64_t(1) << 48; // bytes and offsets of a tensor never overflow

bool is_sound(const Dim &d) { return d.is_valid() && (!d.is_const() || d.as_const() >= 0); }

std::string type_problem(const TensorType &type) {
  if (dtype_name(type.dtype) == "?")
    return "has a dtype that does not exist";
  if (type.shape.size() > kMaxRank)
    return fmt::format("has {} dims; at most {} are supported", type.shape.size(), kMaxRank);
  for (const Dim &d : type.shape)
    if (!is_sound(d))
      return fmt::format("has the shape {}: a size is negative or overflows", shape_text(type.shape));
  if (Dim count = element_count(type.shape); count.is_const() && count.as_const() > kMaxElements)
    return fmt::format("has the shape {}: at most 2^48 elements are supported", shape_text(type.shape));
  return "";
}

std::string layout_problem(const Layout &layout, int rank) {
  auto inside = [&](int d) { return d >= 0 && d < rank; };
  std::set<int> seen(layout.order.begin(), layout.order.end());
  if (!layout.order.empty() && (int(layout.order.size()) != rank || int(seen.size()) != rank ||
                                !std::all_of(seen.begin(), seen.end(), inside)))
    return "the order of its layout does not list each dim once";
  for (const auto &block : layout.blocks)
    if (!inside(block.dim) || block.size < 1)
      return "its layout blocks a dim it does not have, or by less than 1";
  for (const auto &halo : layout.halos)
    if (!inside(halo.dim) || halo.lo < 0 || halo.hi < 0)
      return "its layout has a halo around a dim it does not have, or of less than 0";
  return "";
}

// What the module's constraints say is equal.
class Equalities {
public:
  explicit Equalities(const Module &module) {
    for (const auto &[a, b, location, reason] : module.constraints) {
      differences_.push_back(a - b);
      if (auto symbol = a.try_symbol(); symbol && !b.depends_on(*symbol))
        rules_.emplace_back(*symbol, b);
      else if (auto other = b.try_symbol(); other && !a.depends_on(*other))
        rules_.emplace_back(*other, a);
    }
  }

  bool equal(const Dim &a, const Dim &b) const {
    if (a == b)
      return true;
    Dim difference = a - b, negated = b - a;
    for (const Dim &known : differences_)
      if (known == difference || known == negated)
        return true;
    // Through other symbols: N == M and M == 8 make N == 8.
    Dim x = a, y = b;
    for (int round = 0; round < 4; ++round) {
      for (const auto &[symbol, value] : rules_) {
        x = x.substitute(symbol, value);
        y = y.substitute(symbol, value);
        if (x == y)
          return true;
      }
    }
    return false;
  }

  bool equal(const TensorType &a, const TensorType &b) const {
    if (a.dtype != b.dtype || a.shape.size() != b.shape.size())
      return false;
    for (size_t d = 0; d < a.shape.size(); ++d)
      if (!equal(a.shape[d], b.shape[d]))
        return false;
    return true;
  }

private:
  std::vector<Dim> differences_;
  std::vector<std::pair<Symbol, Dim>> rules_;
};

class FunctionVerifier {
public:
  FunctionVerifier(const Module &module, const Function &function, const Equalities &equalities,
                   Diagnostics &diagnostics)
      : module_(module), function_(function), equalities_(equalities), diagnostics_(diagnostics),
        node_seen_(function.nodes.size()), values_(function.values.size()) {}

  void run() {
    for (size_t i = 0; i < function_.values.size(); ++i) {
      const Value &value = function_.values[i];
      values_[i].sound = type_problem(value.type).empty() && layout_problem(value.layout, value.type.rank()).empty();
    }
    find_bound_symbols();
    check_block(function_.body, 0);
    if (function_.result_names.size() != function_.body.results.size())
      error(function_.location, fmt::format("it has {} results and {} names for them", function_.body.results.size(),
                                            function_.result_names.size()));
  }

private:
  struct ValueState {
    bool sound = false;   // type and layout can be used
    bool defined = false; // somewhere
    bool visible = false; // here
    int isolation = 0;    // the fusion it is defined in
  };

  void error(const Location &where, const std::string &message) {
    diagnostics_.error(where.known() ? where : function_.location,
                       fmt::format("function '{}': {}", function_.name, message));
  }

  bool in_range(ValueId id) const { return id.valid() && size_t(id) < function_.values.size(); }

  std::string name_of(ValueId id) const {
    const std::string &name = function_.value(id).name;
    return name.empty() ? fmt::format("value {}", id.index) : fmt::format("'{}'", name);
  }

  // Symbols that the shapes of the arguments give a value.
  void find_bound_symbols() {
    for (ValueId id : function_.body.args)
      if (in_range(id) && values_[size_t(id)].sound)
        for (const Dim &d : function_.type(id).shape)
          for (Symbol s : d.symbols())
            symbols_.insert(s);
    for (const auto &[name, variable] : module_.dim_variables)
      symbols_.insert(Symbol(name));
    for (const auto &[name, value] : module_.capacities)
      symbols_.insert(Symbol(name));
    for (const Node &node : function_.nodes)
      if (auto symbol = node.removed ? std::nullopt : bound_size(node))
        sizes_.insert(*symbol);
  }

  // The symbol that a node makes a size.
  static std::optional<Symbol> bound_size(const Node &node) {
    const Attr *attr = node.op == Op::bind_size ? node.attrs.find("symbol") : nullptr;
    const auto *name = attr ? std::get_if<std::string>(attr) : nullptr;
    return name ? std::optional(Symbol(*name)) : std::nullopt;
  }

  // From here on the symbol is one, until the block ends.
  void bind(const Node &node, std::vector<Symbol> &local) {
    auto symbol = bound_size(node);
    if (!symbol)
      return;
    if (!symbols_.insert(*symbol).second || !bound_.insert(*symbol).second)
      error(node.location, fmt::format("the size {} is defined a second time", symbol->text()));
    else
      local.push_back(*symbol);
  }

  void check_attr_sizes(const Node &node) {
    auto check = [&](const Dim &d) {
      for (Symbol s : d.symbols())
        if (sizes_.contains(s) && !symbols_.contains(s))
          error(node.location, fmt::format("{} uses the size {}, which is not known before it", op_def(node.op).name, s.text()));
    };
    for (const auto &[name, attr] : node.attrs.all()) {
      if (const auto *d = std::get_if<Dim>(&attr))
        check(*d);
      if (const auto *list = std::get_if<std::vector<Dim>>(&attr))
        for (const Dim &d : *list)
          check(d);
    }
  }

  bool define(ValueId id, const Location &where, const std::string &what) {
    if (!in_range(id)) {
      error(where, fmt::format("{} is value {}, which does not exist", what, id.index));
      return false;
    }
    ValueState &state = values_[size_t(id)];
    const Value &value = function_.value(id);
    if (state.defined) {
      error(where, fmt::format("{} is defined a second time as {}", name_of(id), what));
      return false;
    }
    state.defined = state.visible = true;
    state.isolation = isolation_;
    if (std::string problem = type_problem(value.type); !problem.empty())
      error(where, fmt::format("{} {}", name_of(id), problem));
    else if (problem = layout_problem(value.layout, value.type.rank()); !problem.empty())
      error(where, fmt::format("{}: {}", name_of(id), problem));
    else
      check_symbols(value.type, where, id);
    return true;
  }

  void check_symbols(const TensorType &type, const Location &where, ValueId id) {
    for (const Dim &d : type.shape)
      for (Symbol s : d.symbols())
        if (!symbols_.contains(s)) {
          error(where, fmt::format("{} is {}: no argument of the function says how large {} is", name_of(id),
                                   type.text(), s.text()));
          return;
        }
  }

  bool check_use(ValueId id, const Location &where, const std::string &what) {
    if (!in_range(id)) {
      error(where, fmt::format("{} is value {}, which does not exist", what, id.index));
      return false;
    }
    const ValueState &state = values_[size_t(id)];
    if (!state.visible) {
      error(where, fmt::format("{} is {}, which is not defined before it", what, name_of(id)));
      return false;
    }
    if (state.isolation != isolation_) {
      error(where, fmt::format("{} is {} from outside the fusion; it must be one of its operands", what, name_of(id)));
      return false;
    }
    return true;
  }

  void check_block(const Block &block, int depth) {
    if (depth > kMaxDepth) {
      error(function_.location, fmt::format("regions are nested deeper than {}", kMaxDepth));
      return;
    }
    std::vector<ValueId> local;
    std::vector<Symbol> sizes;
    for (size_t i = 0; i < block.args.size(); ++i) {
      if (!define(block.args[i], function_.location, fmt::format("argument {}", i)))
        continue;
      local.push_back(block.args[i]);
      if (function_.value(block.args[i]).def.valid())
        error(function_.location, fmt::format("the argument {} says that a node defines it", name_of(block.args[i])));
    }
    for (NodeId id : block.nodes) {
      if (!id.valid() || size_t(id) >= function_.nodes.size()) {
        error(function_.location, fmt::format("a block lists node {}, which does not exist", id.index));
        continue;
      }
      if (node_seen_[size_t(id)]) {
        error(function_.node(id).location, fmt::format("node {} stands in more than one place", id.index));
        continue;
      }
      node_seen_[size_t(id)] = true;
      check_node(id, depth);
      bind(function_.node(id), sizes);
      for (ValueId result : function_.node(id).results) {
        if (!define(result, function_.node(id).location, fmt::format("a result of {}", describe(id))))
          continue;
        local.push_back(result);
      }
    }
    for (size_t i = 0; i < block.results.size(); ++i)
      check_use(block.results[i], function_.location, fmt::format("result {} of a block", i));
    for (ValueId id : local)
      values_[size_t(id)].visible = false;
    for (Symbol s : sizes)
      symbols_.erase(s);
  }

  static bool op_exists(Op op) { return size_t(op) < all_ops().size(); }

  std::string describe(NodeId id) const {
    const Node &node = function_.node(id);
    return fmt::format("{} (node {})", op_exists(node.op) ? op_def(node.op).name : "an op that does not exist", id.index);
  }

  void check_node(NodeId id, int depth) {
    const Node &node = function_.node(id);
    auto problem = [&](const std::string &message) {
      error(node.location, fmt::format("{}: {}", describe(id), message));
    };
    if (!op_exists(node.op))
      return problem("the op does not exist");
    if (node.removed)
      return problem("it was removed but still stands in a block");
    const OpDef &def = op_def(node.op);
    size_t before = diagnostics_.error_count();
    for (size_t i = 0; i < node.operands.size(); ++i)
      check_use(node.operands[i], node.location, fmt::format("operand {} of {}", i, describe(id)));
    for (size_t i = 0; i < node.results.size(); ++i)
      if (in_range(node.results[i])) {
        const Value &value = function_.value(node.results[i]);
        if (value.def != id || value.result != int(i))
          problem(fmt::format("its result {} does not point back at it", i));
      }
    int count = int(node.operands.size());
    if (count < def.min_operands || (def.max_operands >= 0 && count > def.max_operands))
      problem(fmt::format("it has {} operands", count));
    check_schema(def, node, problem);
    if (!sizes_.empty())
      check_attr_sizes(node);
    int outer = isolation_;
    for (const Block &region : node.regions) {
      if (node.op == Op::fusion)
        isolation_ = ++isolations_;
      check_block(region, depth + 1);
      isolation_ = outer;
    }
    if (!node.regions.empty() && !def.has(kRegions))
      problem("it holds regions, which the op does not take");
    if (diagnostics_.error_count() == before)
      check_types(def, node, problem);
  }

  template <typename F>
  void check_schema(const OpDef &def, const Node &node, const F &problem) {
    for (const auto &[name, value] : node.attrs.all()) {
      auto spec = std::find_if(def.attrs.begin(), def.attrs.end(), [&](const AttrSpec &s) { return s.name == name; });
      if (spec == def.attrs.end())
        problem(fmt::format("it has an attribute '{}', which the op does not know", name));
      else if (!attr_matches(value, spec->kind))
        problem(fmt::format("its attribute '{}' is of the wrong kind", name));
    }
    for (const AttrSpec &spec : def.attrs)
      if (!node.attrs.has(spec.name))
        problem(fmt::format("its attribute '{}' is missing", spec.name));
  }

  template <typename F>
  void check_types(const OpDef &def, const Node &node, const F &problem) {
    std::vector<TensorType> types;
    for (ValueId operand : node.operands) {
      if (!values_[size_t(operand)].sound)
        return; // reported where it is defined
      types.push_back(function_.type(operand));
    }
    for (const Block &region : node.regions)
      for (const auto *ids : {&region.args, &region.results})
        for (ValueId id : *ids)
          if (!values_[size_t(id)].sound)
            return;
    InferContext context{types, node.attrs, node.regions, &function_, &module_, {}};
    auto inferred = def.infer(context);
    if (!inferred)
      return problem(inferred.error().message);
    if (inferred->size() != node.results.size())
      return problem(fmt::format("it has {} results; it should have {}", node.results.size(), inferred->size()));
    for (size_t i = 0; i < inferred->size(); ++i)
      if (in_range(node.results[i]) && !equalities_.equal((*inferred)[i], function_.type(node.results[i])))
        problem(fmt::format("its result {} is {}; it should be {}", i, function_.type(node.results[i]).text(),
                            (*inferred)[i].text()));
    for (const auto &[a, b] : context.required)
      if (!equalities_.equal(a, b))
        problem(fmt::format("it needs {} == {}, which is not among the module's constraints", a.text(), b.text()));
  }

  const Module &module_;
  const Function &function_;
  const Equalities &equalities_;
  Diagnostics &diagnostics_;
  std::vector<bool> node_seen_;
  std::vector<ValueState> values_;
  std::set<Symbol> symbols_; // that are sizes here
  std::set<Symbol> sizes_;   // that the function binds anywhere
  std::set<Symbol> bound_;   // and has bound so far
  int isolation_ = 0, isolations_ = 0;
};

// Functions that a function calls, wherever it does.
std::vector<size_t> callees(const Module &module, const Function &function) {
  std::vector<size_t> out;
  for (const Node &node : function.nodes) {
    const Attr *attr = node.removed ? nullptr : node.attrs.find("function");
    const auto *id = attr ? std::get_if<FunctionId>(attr) : nullptr;
    if (node.op == Op::call && id && id->valid() && size_t(*id) < module.functions.size())
      out.push_back(size_t(*id));
  }
  return out;
}

// Calls must end: no function may reach itself.
void check_calls(const Module &module, Diagnostics &diagnostics) {
  enum class Mark : uint8_t { fresh, open, done };
  std::vector<Mark> marks(module.functions.size(), Mark::fresh);
  struct Step {
    size_t function;
    std::vector<size_t> callees;
    size_t next = 0;
  };
  for (size_t root = 0; root < module.functions.size(); ++root) {
    if (marks[root] != Mark::fresh)
      continue;
    std::vector<Step> stack;
    auto enter = [&](size_t f) {
      marks[f] = Mark::open;
      stack.push_back({f, callees(module, module.functions[f])});
    };
    enter(root);
    while (!stack.empty()) {
      Step &top = stack.back();
      if (top.next == top.callees.size()) {
        marks[top.function] = Mark::done;
        stack.pop_back();
        continue;
      }
      size_t callee = top.callees[top.next++];
      if (marks[callee] == Mark::open)
        diagnostics.error(module.functions[top.function].location,
                          fmt::format("function '{}' calls '{}', which leads back to it: calls cannot recurse; use "
                                      "while or scan",
                                      module.functions[top.function].name, module.functions[callee].name));
      else if (marks[callee] == Mark::fresh)
        enter(callee);
      if (stack.size() > size_t(kMaxDepth)) {
        diagnostics.error(module.functions[root].location,
                          fmt::format("function '{}' calls functions more than {} deep", module.functions[root].name,
                                      kMaxDepth));
        return;
      }
    }
  }
}

// Constraints name sizes, whichever function finds them. A part of a function finds the same as the whole.
void check_sizes(const Module &module, Diagnostics &diagnostics) {
  std::map<Symbol, const Function *> found;
  for (const Function &function : module.functions)
    for (const Node &node : function.nodes) {
      const Attr *attr = node.op == Op::bind_size && !node.removed ? node.attrs.find("symbol") : nullptr;
      const auto *name = attr ? std::get_if<std::string>(attr) : nullptr;
      const Function *first = name ? found.emplace(Symbol(*name), &function).first->second : &function;
      bool is_same = is_part(first->name) || is_part(function.name)
                         ? first->name.substr(0, first->name.find('@')) == function.name.substr(0, function.name.find('@'))
                         : first == &function;
      if (!is_same)
        diagnostics.error(node.location, fmt::format("the size {} is found in '{}' and in '{}'", *name,
                                                     found.at(Symbol(*name))->name, function.name));
    }
}

void check_variables(const Module &module, Diagnostics &diagnostics) {
  std::set<std::string_view> names;
  for (const Variable &variable : module.variables) {
    auto error = [&](const std::string &message) {
      diagnostics.error(variable.location, fmt::format("variable '{}': {}", variable.name, message));
    };
    if (variable.name.empty())
      error("it has no name");
    else if (!names.insert(variable.name).second)
      error("another variable has this name");
    if (std::string problem = type_problem(variable.type); !problem.empty())
      error("it " + problem);
    else if (!is_static(variable.type.shape))
      error(fmt::format("its type is {}; the sizes of variables must be numbers", variable.type.text()));
    if (!variable.initial.valid())
      continue;
    if (size_t(variable.initial) >= module.constants.size())
      error(fmt::format("its initial value is constant {}, which does not exist", variable.initial.index));
    else if (const Tensor &tensor = module.constants[size_t(variable.initial)].tensor; tensor.type() != variable.type)
      error(fmt::format("its initial value is {}, it is {}", tensor.type().text(), variable.type.text()));
  }
}

} // namespace

void verify(const Module &module, Diagnostics &diagnostics) {
  check_variables(module, diagnostics);
  std::set<std::string_view> names;
  for (const Function &function : module.functions)
    if (function.name.empty())
      diagnostics.error(function.location, "a function has no name");
    else if (!names.insert(function.name).second)
      diagnostics.error(function.location, fmt::format("two functions are called '{}'", function.name));
  for (const auto &constraint : module.constraints)
    if (!constraint.a.is_valid() || !constraint.b.is_valid())
      diagnostics.error(constraint.location, fmt::format("{}: a size that is required overflows", constraint.reason));
  for (const auto &[symbol, bounds] : module.dim_bounds)
    if (bounds.first < 0 || bounds.first > bounds.second)
      diagnostics.error({}, fmt::format("the dim {} is bounded by {} and {}", symbol, bounds.first, bounds.second));
  for (const auto &[symbol, id] : module.dim_variables) {
    bool fits = id.valid() && size_t(id) < module.variables.size() &&
                module.variables[size_t(id)].type == TensorType{DType::i64, {}};
    if (!fits || !module.dim_bounds.contains(symbol))
      diagnostics.error({}, fmt::format("the dim {} needs bounds and a variable of type i64[]", symbol));
  }
  for (const auto &[symbol, value] : module.capacities)
    if (value < 0)
      diagnostics.error({}, fmt::format("the capacity {} is {}", symbol, value));
  check_sizes(module, diagnostics);
  check_calls(module, diagnostics);
  Equalities equalities(module);
  for (const Function &function : module.functions) {
    size_t errors = diagnostics.error_count();
    FunctionVerifier(module, function, equalities, diagnostics).run();
    auto note = module.metadata.find(device_note(function.name));
    if (note != module.metadata.end() && device_from_name(note->second) == Device::free)
      diagnostics.error(function.location, fmt::format("function '{}': there is no device '{}'", function.name, note->second));
    else if (diagnostics.error_count() == errors)
      check_placement(module, function, diagnostics);
  }
}

} // namespace kiln
