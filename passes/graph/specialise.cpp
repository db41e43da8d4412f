#include "passes/graph/specialise.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

namespace kiln {
namespace {

std::string form_text(const FormDims &dims) {
  std::string out;
  for (const auto &[name, value] : dims)
    out += fmt::format("{}{}={}", out.empty() ? "" : ",", name, value);
  return out;
}

std::set<std::string> dims_of(const Function &function) {
  std::set<std::string> out;
  for (ValueId arg : function.body.args)
    for (const Dim &d : function.type(arg).shape)
      if (auto symbol = d.try_symbol())
        out.emplace(symbol->text());
  return out;
}

class Fixer {
public:
  explicit Fixer(const FormDims &dims) : dims_(dims) {}

  void fix(Dim &d) const {
    if (d.is_const())
      return;
    d = d.substitute([&](Symbol symbol) -> std::optional<Dim> {
      for (const auto &[name, value] : dims_)
        if (symbol.text() == name)
          return Dim(value);
      return std::nullopt;
    });
  }

  void fix(Function &function) const {
    for (Value &value : function.values)
      for (Dim &d : value.type.shape)
        fix(d);
    for (Node &node : function.nodes) {
      Attrs attrs = node.attrs;
      for (auto [name, attr] : attrs.all()) {
        if (auto *one = std::get_if<Dim>(&attr))
          fix(*one);
        else if (auto *list = std::get_if<std::vector<Dim>>(&attr))
          for (Dim &each : *list)
            fix(each);
        else
          continue;
        node.attrs.set(name, std::move(attr));
      }
    }
  }

private:
  const FormDims &dims_;
};

// Whether the model can run with these dims at all.
bool is_possible(const Module &module, const FormDims &dims, Diagnostics &diagnostics) {
  for (const auto &[name, value] : dims)
    if (auto it = module.dim_bounds.find(name);
        it != module.dim_bounds.end() && (value < it->second.first || value > it->second.second)) {
      diagnostics.error({}, fmt::format("--specialise {}: {} is from {} to {}", form_text(dims), name, it->second.first, it->second.second));
      return false;
    }
  for (const Module::Constraint &c : module.constraints) {
    Dim a = c.a, b = c.b;
    Fixer fixer(dims);
    fixer.fix(a);
    fixer.fix(b);
    if (a.is_const() && b.is_const() && a != b) {
      diagnostics.error(c.location, fmt::format("--specialise {}: {} must be {} ({})", form_text(dims), c.a.text(), c.b.text(), c.reason));
      return false;
    }
  }
  return true;
}

} // namespace

std::optional<std::pair<std::string, FormDims>> parse_form_name(const std::string &name) {
  size_t at = name.rfind('@');
  if (at == std::string::npos || at == 0)
    return std::nullopt;
  std::pair<std::string, FormDims> out{name.substr(0, at), {}};
  for (size_t begin = at + 1; begin <= name.size();) {
    size_t end = std::min(name.find(',', begin), name.size()), equals = name.find('=', begin);
    if (equals >= end || equals == begin)
      return std::nullopt;
    int64_t value = -1;
    auto [last, error] = std::from_chars(name.data() + equals + 1, name.data() + end, value);
    if (error != std::errc() || last != name.data() + end || value < 0)
      return std::nullopt;
    out.second.emplace_back(name.substr(begin, equals - begin), value);
    begin = end + 1;
  }
  return out;
}

std::optional<Module> specialise(const Module &module, const FormDims &dims, Diagnostics &diagnostics) {
  if (!is_possible(module, dims, diagnostics))
    return std::nullopt;
  Fixer fixer(dims);
  Module out = module;
  out.functions.clear();
  std::set<std::string> known;
  for (const Function &function : module.functions) {
    if (!function.exported) { // may be called
      out.functions.push_back(function);
      continue;
    }
    std::set<std::string> own = dims_of(function);
    known.insert(own.begin(), own.end());
    bool has_all = std::all_of(dims.begin(), dims.end(), [&](const auto &d) { return own.contains(d.first); });
    out.functions.push_back(function); // ids of functions stay
    if (!has_all) {
      out.functions.back().exported = false;
      continue;
    }
    out.functions.back().name += "@" + form_text(dims);
    fixer.fix(out.functions.back());
  }
  for (Module::Constraint &c : out.constraints) {
    fixer.fix(c.a);
    fixer.fix(c.b);
  }
  std::erase_if(out.constraints, [](const Module::Constraint &c) { return c.a == c.b; });
  if (std::any_of(out.functions.begin(), out.functions.end(), [](const Function &f) { return f.exported; }))
    return out;
  std::string names;
  for (const std::string &name : known)
    names += (names.empty() ? "" : ", ") + name;
  diagnostics.error({}, fmt::format("--specialise {}: no entry has sizes of these names; there are: {}", form_text(dims),
                                    names.empty() ? "none" : names));
  return std::nullopt;
}

void join_form(Module &module, Module form) {
  // Equal ones become one weight when the module is lowered.
  std::vector<ConstantId> ids(form.constants.size());
  for (Function &function : form.functions) {
    if (!function.exported)
      continue;
    for (Node &node : function.nodes) {
      const Attr *value = node.removed ? nullptr : node.attrs.find("value");
      const auto *id = value ? std::get_if<ConstantId>(value) : nullptr;
      if (!id)
        continue;
      ConstantId &to = ids[size_t(*id)];
      if (!to.valid()) {
        to = ConstantId(module.constants.size());
        module.constants.push_back(std::move(form.constants[size_t(*id)]));
      }
      node.attrs.set("value", to);
    }
    module.functions.push_back(std::move(function));
  }
  for (auto &kept : form.keep_alive)
    module.keep_alive.push_back(std::move(kept));
}

} // namespace kiln
