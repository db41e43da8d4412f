// Graphs as text: the flat subset of the language, with a type on every line. frontend/kir reads it back.
//
//     export func predict(x: f32[N, 784]) -> (probs: f32[N, 10]) {
//       h: f32[N, 10] = dot(x, net.fc.weight, transpose_b=true)   // digits.kir:4:11
//       probs: f32[N, 10] = softmax(h, axis=1)                    // digits.kir:5:10
//       return probs
//     }
//
// Attributes that have their default value are left out. A read of a variable is left out, and its user
// names the variable, where the reader would put the read at the same place; otherwise it is a line.
#include "ir/print.h"

#include "ir/graph.h"
#include "ir/ops/op.h"
#include "ir/placement.h"

#include <algorithm>
#include <set>
#include <unordered_set>

namespace kiln {

std::vector<std::string> name_constants(const Module &module) {
  std::vector<std::string> out;
  std::unordered_set<std::string> used;
  for (size_t i = 0; i < module.constants.size(); ++i) {
    std::string stem = module.constants[i].name.empty() ? "constant" + std::to_string(i)
                                                        : module.constants[i].name;
    std::string name = stem;
    for (int n = 1; !used.insert(name).second; ++n)
      name = stem + "_" + std::to_string(n);
    out.push_back(name);
  }
  return out;
}

namespace {

std::string constant_text(const Module &module, ConstantId id, int64_t inline_limit,
                          const std::vector<std::string> &constant_names) {
  if (!id.valid() || size_t(id) >= module.constants.size())
    return "constant(<bad id>)";
  const Tensor &tensor = module.constants[size_t(id)].tensor;
  int64_t count = tensor.count();
  bool splat = count > std::max<int64_t>(inline_limit, 1);
  if (splat) {
    auto bytes = tensor.bytes();
    size_t width = size_t(dtype_bytes(tensor.dtype()));
    splat = std::equal(bytes.begin() + std::ptrdiff_t(width), bytes.end(), bytes.begin());
    if (!splat)
      return "constant(" + quote_string(constant_names[size_t(id)]) + ")";
  }
  std::string out = "constant(" + tensor.type().text() + ":" + (splat ? " splat" : "");
  for (int64_t i = 0; i < (splat ? 1 : count); ++i)
    out += (i ? ", " : " ") + element_text(tensor, i);
  return out + ")";
}

class FunctionPrinter {
public:
  FunctionPrinter(const Module &module, const Function &function, int64_t inline_limit)
      : module_(module), function_(function), inline_limit_(inline_limit),
        constant_names_(name_constants(module)), names_(function.values.size()),
        hidden_(function.nodes.size(), false) {
    count_variable_uses(function.body);
    hide_reads(function.body);
    reserve_dims();
    for (const Variable &v : module.variables)
      used_.insert(v.name);
    name_block(function.body);
  }

  std::string header() const {
    std::string out = function_.exported ? "export func " : "func ";
    out += quote_name(function_.name) + "(" + arguments(function_.body) + ")";
    out += " -> (";
    for (size_t i = 0; i < function_.body.results.size(); ++i) {
      std::string name = i < function_.result_names.size() ? function_.result_names[i] : "";
      if (name.empty())
        name = "output" + std::to_string(i);
      out += (i ? ", " : "") + quote_name(name) + ": " +
             function_.type(function_.body.results[i]).text();
    }
    std::string device = function_device(module_, function_.name);
    return out + ")" + (device.empty() ? "" : " device " + device) + " {";
  }

  std::string print() const {
    std::string out = header() + location(function_.location) + "\n";
    print_block(out, function_.body, "  ", "return");
    return out + "}\n";
  }

  void print_node(std::string &out, const Node &node, const std::string &indent) const {
    out += indent;
    if (node.op == Op::bind_size && node.operands.size() == 1 && node.attrs.has("symbol") && node.attrs.has("bound")) {
      out += "size " + node.attrs.get_string("symbol") + " <= " + node.attrs.get_dim("bound").text() + " = " +
             name(node.operands[0]) + location(node.location) + "\n";
      return;
    }
    for (size_t i = 0; i < node.results.size(); ++i)
      out += (i ? ", " : "") + typed(node.results[i]);
    out += (node.results.empty() ? "" : " = ") + call(node);
    if (node.regions.empty()) {
      out += location(node.location) + "\n";
      return;
    }
    const char *joint = node.op == Op::if_ ? " else" : node.op == Op::while_ ? " do" : "";
    for (size_t i = 0; i < node.regions.size(); ++i) {
      const Block &region = node.regions[i];
      out += (i ? indent + "}" + joint : std::string()) + " {";
      if (!region.args.empty())
        out += " (" + arguments(region) + ") ->";
      out += (i ? "" : location(node.location)) + "\n";
      print_block(out, region, indent + "  ", "yield");
    }
    out += indent + "}\n";
  }

private:
  void count_variable_uses(const Block &block) {
    reads_.resize(module_.variables.size());
    writes_.resize(module_.variables.size());
    for (NodeId id : block.nodes) {
      const Node &node = function_.node(id);
      if (auto v = variable_of(node))
        ++(node.op == Op::assign ? writes_ : reads_)[size_t(*v)];
      for (const Block &region : node.regions)
        count_variable_uses(region);
    }
  }

  std::optional<VariableId> variable_of(const Node &node) const {
    const Attr *attr = node.attrs.find("variable");
    const auto *id = attr ? std::get_if<VariableId>(attr) : nullptr;
    if (!id || !id->valid() || size_t(*id) >= module_.variables.size())
      return std::nullopt;
    return *id;
  }

  // The only read of a variable that the function never writes, right before the node that uses it
  // first (only other such reads for the same node, in the order of its operands, may lie between).
  void hide_reads(const Block &block) {
    for (size_t i = 0; i < block.nodes.size(); ++i) {
      const Node &user = function_.node(block.nodes[i]);
      size_t read = i;
      for (size_t k = user.operands.size(); k-- > 0 && read > 0;) {
        NodeId candidate = block.nodes[read - 1];
        const Node &node = function_.node(candidate);
        if (node.op != Op::read_variable || node.results.size() != 1 ||
            node.results[0] != user.operands[k])
          continue;
        auto v = variable_of(node);
        const Value &value = function_.value(node.results[0]);
        bool only = v && reads_[size_t(*v)] == 1 && writes_[size_t(*v)] == 0;
        if (!only || !value.layout.is_row_major() ||
            (!value.name.empty() && value.name != module_.variables[size_t(*v)].name))
          break;
        hidden_[size_t(candidate)] = true;
        names_[size_t(node.results[0])] = module_.variables[size_t(*v)].name;
        --read;
      }
      for (const Block &region : user.regions)
        hide_reads(region);
    }
  }

  void reserve_dims() {
    for (const Value &value : function_.values)
      for (const Dim &d : value.type.shape)
        for (Symbol s : d.symbols())
          used_.emplace(s.text());
    for (const auto &[name, value] : module_.capacities)
      used_.insert(name);
    for (const Node &node : function_.nodes)
      for (const auto &[name, attr] : node.attrs.all()) {
        if (const auto *symbol = std::get_if<std::string>(&attr); symbol && node.op == Op::bind_size)
          used_.insert(*symbol);
        if (const auto *d = std::get_if<Dim>(&attr))
          for (Symbol s : d->symbols())
            used_.emplace(s.text());
        if (const auto *dims = std::get_if<std::vector<Dim>>(&attr))
          for (const Dim &d : *dims)
            for (Symbol s : d.symbols())
              used_.emplace(s.text());
      }
  }

  void name_value(ValueId id) {
    std::string stem = function_.value(id).name;
    const Node *def = function_.def(id);
    auto variable = def && def->op == Op::read_variable ? variable_of(*def) : std::nullopt;
    if (variable && reads_[size_t(*variable)] == 1 && writes_[size_t(*variable)] == 0 &&
        stem == module_.variables[size_t(*variable)].name) {
      names_[size_t(id)] = stem;
      return;
    }
    std::string name = stem;
    if (stem.empty()) {
      do
        name = "v" + std::to_string(next_unnamed_++);
      while (!used_.insert(name).second);
    } else if (!used_.insert(name).second) {
      int &n = next_suffix_[stem];
      do
        name = stem + "_" + std::to_string(++n);
      while (!used_.insert(name).second);
    }
    names_[size_t(id)] = name;
  }

  void name_block(const Block &block) {
    for (ValueId arg : block.args)
      name_value(arg);
    for (NodeId id : block.nodes) {
      if (hidden_[size_t(id)])
        continue;
      const Node &node = function_.node(id);
      for (ValueId result : node.results)
        name_value(result);
      for (const Block &region : node.regions)
        name_block(region);
    }
  }

  std::string name(ValueId id) const {
    if (!id.valid() || size_t(id) >= names_.size() || names_[size_t(id)].empty())
      return "<bad value>";
    return quote_name(names_[size_t(id)]);
  }

  std::string typed(ValueId id) const {
    const Value &value = function_.value(id);
    std::string layout = value.layout.text();
    return name(id) + ": " + value.type.text() + (layout.empty() ? "" : " " + layout);
  }

  std::string arguments(const Block &block) const {
    std::string out;
    for (ValueId arg : block.args)
      out += (out.empty() ? "" : ", ") + typed(arg);
    return out;
  }

  static std::string location(const Location &where) {
    if (!where.known())
      return "";
    std::string text = where.text();
    std::replace_if(text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
    return "   // " + text;
  }

  struct AttrPrinter {
    const FunctionPrinter &self;
    std::string operator()(bool b) const { return b ? "true" : "false"; }
    std::string operator()(const Dim &d) const { return d.text(); }
    std::string operator()(double d) const { return float_text(d); }
    std::string operator()(const std::string &s) const { return quote_string(s); }
    std::string operator()(DType d) const { return std::string(dtype_name(d)); }
    std::string operator()(ConstantId id) const {
      return constant_text(self.module_, id, self.inline_limit_, self.constant_names_);
    }
    std::string operator()(VariableId id) const {
      return id.valid() && size_t(id) < self.module_.variables.size()
                 ? "@" + quote_name(self.module_.variables[size_t(id)].name)
                 : "<bad variable>";
    }
    std::string operator()(FunctionId id) const {
      return id.valid() && size_t(id) < self.module_.functions.size()
                 ? "@" + quote_name(self.module_.functions[size_t(id)].name)
                 : "<bad function>";
    }
    template <typename T>
    std::string operator()(const std::vector<T> &list) const {
      std::string out = "[";
      for (size_t i = 0; i < list.size(); ++i)
        out += (i ? ", " : "") + (*this)(list[i]);
      return out + "]";
    }
  };

  std::string attr_text(const Attr &attr) const {
    return std::visit(AttrPrinter{*this}, attr);
  }

  std::string call(const Node &node) const {
    const OpDef &def = op_def(node.op);
    if (node.op == Op::constant)
      if (const Attr *value = node.attrs.find("value"))
        return attr_text(*value);
    std::string out = std::string(def.name) + "(";
    bool first = true;
    auto add = [&](const std::string &text) {
      out += (first ? "" : ", ") + text;
      first = false;
    };
    bool variable_op = node.op == Op::read_variable || node.op == Op::assign;
    const Attr *variable = variable_op ? node.attrs.find("variable") : nullptr;
    if (variable)
      add(attr_text(*variable));
    for (ValueId operand : node.operands)
      add(name(operand));
    // In the order of the schema; then whatever it does not know.
    for (const AttrSpec &spec : def.attrs) {
      const Attr *attr = node.attrs.find(spec.name);
      if (attr && attr != variable && spec.default_value != *attr)
        add(std::string(spec.name) + "=" + attr_text(*attr));
    }
    for (const auto &[key, attr] : node.attrs.all()) {
      bool known = std::any_of(def.attrs.begin(), def.attrs.end(),
                               [&, k = std::string_view(key)](const AttrSpec &s) { return s.name == k; });
      if (!known)
        add(key + "=" + attr_text(attr));
    }
    return out + ")";
  }

  void print_block(std::string &out, const Block &block, const std::string &indent,
                   const char *end) const {
    for (NodeId id : block.nodes)
      if (!hidden_[size_t(id)] && !function_.node(id).removed)
        print_node(out, function_.node(id), indent);
    if (block.results.empty())
      return;
    out += indent + end;
    for (size_t i = 0; i < block.results.size(); ++i)
      out += (i ? ", " : " ") + name(block.results[i]);
    out += "\n";
  }

  const Module &module_;
  const Function &function_;
  int64_t inline_limit_;
  std::vector<std::string> constant_names_;
  std::vector<std::string> names_;
  std::vector<bool> hidden_; // reads that are printed as the variable's name
  std::vector<int> reads_, writes_;
  std::unordered_set<std::string> used_;
  std::map<std::string, int> next_suffix_;
  int next_unnamed_ = 0;
};

std::string print_variable(const Module &module, const Variable &v, int64_t inline_limit,
                           const std::vector<std::string> &constant_names) {
  std::string out = v.kind == VariableKind::param ? "param " : "state ";
  out += quote_name(v.name) + ": " + v.type.text();
  if (v.initial.valid())
    out += " = " + constant_text(module, v.initial, inline_limit, constant_names);
  return out + "\n";
}

} // namespace

std::string dim_source(const Module &module, const std::string &name) {
  auto it = module.dim_variables.find(name);
  bool known = it != module.dim_variables.end() && it->second.valid() &&
               size_t(it->second) < module.variables.size();
  return known ? " from " + quote_name(module.variables[size_t(it->second)].name) : "";
}

std::string print_module(const Module &module, int64_t inline_limit) {
  std::string out;
  std::set<std::string> in_headers;
  for (const Function &f : module.functions)
    if (!function_device(module, f.name).empty())
      in_headers.insert(device_note(f.name));
  for (const auto &[key, value] : module.metadata)
    if (!in_headers.contains(key))
      out += "metadata " + quote_string(key) + " = " + quote_string(value) + "\n";
  for (const auto &[name, bounds] : module.dim_bounds)
    out += "dim " + quote_name(name) + " = " + std::to_string(bounds.first) + ".." +
           (bounds.second == INT64_MAX ? "" : std::to_string(bounds.second)) +
           dim_source(module, name) + "\n";
  for (const auto &[name, value] : module.capacities)
    out += "capacity " + quote_name(name) + " = " + std::to_string(value) + "\n";
  std::set<std::pair<std::string, std::string>> seen;
  for (const auto &c : module.constraints)
    if (seen.emplace(c.a.text(), c.b.text()).second)
      out += "constraint " + c.a.text() + " == " + c.b.text() + ", " + quote_string(c.reason) + "\n";
  std::vector<std::string> constant_names = name_constants(module);
  for (const Variable &v : module.variables)
    out += print_variable(module, v, inline_limit, constant_names);
  for (const Function &f : module.functions)
    out += (out.empty() ? "" : "\n") + FunctionPrinter(module, f, inline_limit).print();
  return out;
}

std::string print_function(const Module &module, const Function &function) {
  return FunctionPrinter(module, function, 16).print();
}

std::string print_node(const Module &module, const Function &function, NodeId node) {
  if (!node.valid() || size_t(node) >= function.nodes.size())
    return "<bad node>";
  std::string out;
  FunctionPrinter(module, function, 16).print_node(out, function.node(node), "");
  if (!out.empty() && out.back() == '\n')
    out.pop_back();
  return out;
}

} // namespace kiln
