#include "passes/graph/state.h"

#include "passes/graph/rewrite.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace kiln {
namespace {

// What a growing pair and its length have in common.
struct Growth {
  size_t axis = 0;
  Symbol past; // how much there is
  Dim added;   // how much a run adds
};

std::string list(const std::vector<std::string> &names) {
  std::string out;
  for (const std::string &name : names)
    out += (out.empty() ? "" : ", ") + name;
  return out;
}

// The names that begin and end most like one, for a message.
std::string nearest(const std::string &name, std::vector<std::string> names) {
  auto likeness = [&](const std::string &other) {
    size_t most = std::min(name.size(), other.size()), head = 0, tail = 0;
    while (head < most && name[head] == other[head])
      ++head;
    while (tail < most - head && name[name.size() - 1 - tail] == other[other.size() - 1 - tail])
      ++tail;
    return head + tail;
  };
  std::stable_sort(names.begin(), names.end(), [&](const auto &a, const auto &b) { return likeness(a) > likeness(b); });
  names.resize(std::min<size_t>(names.size(), 4));
  return list(names);
}

class StateMaker {
public:
  StateMaker(Module &module, Function &function, Diagnostics &diagnostics)
      : module_(module), function_(function), diagnostics_(diagnostics) {}

  bool run(const StateOptions &options) {
    std::vector<StatePair> pairs = options.pairs;
    if (options.find && !find_pairs(options.capacity, pairs))
      return false;
    for (const StatePair &pair : pairs)
      if (!make(pair))
        return false;
    for (const auto &[past, length] : lengths_)
      update(length.variable, past + length.added);
    function_.compact();
    return true;
  }

private:
  struct Length {
    VariableId variable;
    Dim added;
    int64_t capacity;
  };

  bool fail(const std::string &message, std::vector<std::string> notes = {}) {
    Diagnostic &d = diagnostics_.error(function_.location, "--state: " + message);
    d.notes = std::move(notes);
    return false;
  }

  std::vector<std::string> inputs() const {
    std::vector<std::string> out;
    for (ValueId arg : function_.body.args)
      out.push_back(function_.value(arg).name);
    return out;
  }

  // past.X and present.X, past_key_values.X and present.X (or present_key_values.X), X and X_out.
  bool find_pairs(int64_t capacity, std::vector<StatePair> &pairs) {
    auto is_output = [&](const std::string &name) {
      return std::find(function_.result_names.begin(), function_.result_names.end(), name) != function_.result_names.end();
    };
    size_t before = pairs.size();
    for (const std::string &name : inputs()) {
      std::vector<std::string> partners{name + "_out"};
      for (std::string_view start : {"past_key_values", "past"})
        if (name.starts_with(start))
          for (std::string_view other : {"present_key_values", "present"})
            partners.push_back(std::string(other) + name.substr(start.size()));
      for (const std::string &partner : partners)
        if (is_output(partner) && std::none_of(pairs.begin(), pairs.end(), [&](const StatePair &p) { return p.past == name; })) {
          pairs.push_back({name, partner, capacity});
          break;
        }
    }
    if (pairs.size() > before)
      return true;
    return fail("no input and output are named like past.X and present.X",
                {"inputs: " + list(inputs()), "outputs: " + list(function_.result_names),
                 "name them: --state PAST=PRESENT"});
  }

  bool make(const StatePair &pair) {
    auto names = inputs();
    auto arg = std::find(names.begin(), names.end(), pair.past);
    if (arg == names.end())
      return fail(fmt::format("there is no input '{}'", pair.past), {"the nearest: " + nearest(pair.past, names)});
    auto &results = function_.result_names;
    auto out = std::find(results.begin(), results.end(), pair.present);
    if (out == results.end())
      return fail(fmt::format("there is no output '{}'", pair.present), {"the nearest: " + nearest(pair.present, results)});
    size_t a = size_t(arg - names.begin()), r = size_t(out - results.begin());
    ValueId past = function_.body.args[a], present = function_.body.results[r];
    if (std::count(function_.body.results.begin(), function_.body.results.end(), past) > 0)
      return fail(fmt::format("'{}' is an output as it is", pair.past));
    const TensorType from = function_.type(past), to = function_.type(present);
    bool fine = from == to && is_static(from.shape) ? make_static(pair, past, present) : make_growing(pair, past, present);
    if (!fine)
      return false;
    function_.body.args.erase(function_.body.args.begin() + std::ptrdiff_t(a));
    function_.body.results.erase(function_.body.results.begin() + std::ptrdiff_t(r));
    results.erase(results.begin() + std::ptrdiff_t(r));
    return true;
  }

  VariableId add_variable(const std::string &name, TensorType type) {
    module_.variables.push_back({name, VariableKind::state, std::move(type), ConstantId(), function_.location});
    return VariableId(module_.variables.size() - 1);
  }

  bool make_static(const StatePair &pair, ValueId past, ValueId present) {
    VariableId variable = add_variable(pair.past, function_.type(past));
    read_instead(past, variable);
    GraphBuilder(module_, function_, function_.body).multi(Op::assign, {present}, {{"variable", variable}});
    return true;
  }

  // The value that a run begins with, for all uses of an argument.
  ValueId read_instead(ValueId past, VariableId variable) {
    GraphBuilder b(module_, function_, function_.body);
    b.set_position(function_.body, 0);
    b.set_location(function_.location);
    ValueId read = b(Op::read_variable, {}, {{"variable", variable}});
    function_.value(read).name = module_.variables[size_t(variable)].name;
    function_.replace_uses(past, read);
    return read;
  }

  bool mismatch(const StatePair &pair, ValueId past, ValueId present, const std::string &why) {
    return fail(fmt::format("'{}' is {} and '{}' is {}: {}", pair.past, function_.type(past).text(), pair.present,
                            function_.type(present).text(), why));
  }

  std::optional<Growth> growth_of(const StatePair &pair, ValueId past, ValueId present) {
    const TensorType &from = function_.type(past), &to = function_.type(present);
    if (from.dtype != to.dtype || from.rank() != to.rank()) {
      mismatch(pair, past, present, "state keeps its type");
      return std::nullopt;
    }
    Growth out;
    int differ = 0;
    for (size_t d = 0; d < from.shape.size(); ++d)
      if (from.shape[d] != to.shape[d])
        out.axis = d, ++differ;
    if (differ == 0) {
      mismatch(pair, past, present, "give its sizes numbers with --dim");
      return std::nullopt;
    }
    auto symbol = from.shape[out.axis].try_symbol();
    if (differ > 1 || !symbol || (to.shape[out.axis] - from.shape[out.axis]).depends_on(*symbol)) {
      mismatch(pair, past, present, "state grows along one axis, by what a run adds");
      return std::nullopt;
    }
    out.past = *symbol;
    out.added = to.shape[out.axis] - from.shape[out.axis];
    for (size_t d = 0; d < from.shape.size(); ++d)
      if (d != out.axis && !from.shape[d].is_const()) {
        mismatch(pair, past, present, fmt::format("the size {} of state must be a number: --dim {}=1", from.shape[d].text(),
                                                  from.shape[d].text()));
        return std::nullopt;
      }
    return out;
  }

  // The length of all pairs that grow along this symbol.
  const Length *length_of(const StatePair &pair, const Growth &growth) {
    std::string name(growth.past.text());
    Dim past = Dim::symbol(growth.past);
    for (const auto &[of, length] : lengths_)
      if (of == past) {
        if (length.added == growth.added)
          return &length;
        fail(fmt::format("'{}' grows by {}, others along {} by {}", pair.past, growth.added.text(), name, length.added.text()));
        return nullptr;
      }
    auto bounds = module_.dim_bounds.find(name);
    int64_t capacity = pair.capacity > 0 ? pair.capacity : bounds != module_.dim_bounds.end() ? bounds->second.second : INT64_MAX;
    if (capacity == INT64_MAX) {
      fail(fmt::format("how much can '{}' hold?", pair.past),
           {fmt::format("say --state {}={}:256, --state auto:256, or --dim {}=0..256", pair.past, pair.present, name)});
      return nullptr;
    }
    VariableId variable = add_variable(name + ".length", {DType::i64, {}});
    module_.dim_bounds[name] = {0, capacity};
    module_.dim_variables[name] = variable;
    lengths_.push_back({past, {variable, growth.added, capacity}});
    return &lengths_.back().second;
  }

  bool make_growing(const StatePair &pair, ValueId past, ValueId present) {
    auto growth = growth_of(pair, past, present);
    if (!growth)
      return false;
    const Shape shape = function_.type(past).shape;
    size_t rank = shape.size(), axis = growth->axis;
    NodeId def = function_.value(present).def;
    const Node *made = function_.def(present);
    auto along = made && made->op == Op::concat ? made->attrs.get_int("axis") : -1;
    along = along < 0 ? along + int64_t(rank) : along;
    auto at = std::find(function_.body.nodes.begin(), function_.body.nodes.end(), def);
    if (!made || made->op != Op::concat || along != int64_t(axis) || made->operands.size() != 2 || made->operands[0] != past ||
        made->operands[1] == past || at == function_.body.nodes.end())
      return mismatch(pair, past, present, "the output must be what Concat makes of the input and of what is new");
    const Length *length = length_of(pair, *growth);
    if (!length)
      return false;
    // Rows of the variable are what is at one place along the axis.
    std::vector<Dim> to_rows{Dim(int64_t(axis))}, back(rank);
    for (size_t d = 0; d < rank; ++d)
      if (d != axis)
        to_rows.emplace_back(int64_t(d));
    for (size_t d = 0; d < rank; ++d)
      back[size_t(to_rows[d].as_const())] = Dim(int64_t(d));
    TensorType type{function_.type(past).dtype, {}};
    for (const Dim &d : to_rows)
      type.shape.push_back(d.is_const(int64_t(axis)) ? Dim(length->capacity) : shape[size_t(d.as_const())]);
    auto bytes = checked_bytes(type.dtype, [&] {
      std::vector<int64_t> dims;
      for (const Dim &d : type.shape)
        dims.push_back(d.as_const());
      return dims;
    }());
    if (!bytes || *bytes > (int64_t(1) << 40))
      return fail(fmt::format("'{}' would hold {}, which is too large", pair.past, type.text()));
    VariableId variable = add_variable(pair.past, type);

    ValueId added = made->operands[1];
    Dim held = Dim::symbol(growth->past), end = held + growth->added;
    GraphBuilder b(module_, function_, function_.body);
    b.set_position(function_.body, size_t(at - function_.body.nodes.begin()) + 1);
    b.set_location(made->location);
    auto permute = [&](ValueId v, const std::vector<Dim> &dims) {
      bool same = true;
      for (size_t d = 0; d < dims.size(); ++d)
        same = same && dims[d].is_const(int64_t(d));
      return same ? v : b(Op::permute, {v}, {{"dims", dims}});
    };
    auto rows_until = [&](const Dim &stop) {
      ValueId all = b(Op::read_variable, {}, {{"variable", variable}});
      function_.value(all).name = pair.past;
      return permute(b(Op::slice, {all},
                       {{"axes", std::vector<Dim>{0}},
                        {"starts", std::vector<Dim>{0}},
                        {"ends", std::vector<Dim>{stop}},
                        {"steps", std::vector<Dim>{1}}}),
                     back);
    };
    b.multi(Op::assign, {permute(added, to_rows)}, {{"variable", variable}, {"at", held}});
    ValueId now = rows_until(end);
    function_.value(now).name = function_.value(present).name;
    function_.replace_uses(present, now);
    function_.node(def).removed = true;
    std::erase(function_.body.nodes, def);
    // Whoever looks at what was there before.
    if (auto uses = function_.use_counts(); uses[size_t(past)] > 0) {
      b.set_position(function_.body, 0);
      function_.replace_uses(past, rows_until(held));
    }
    return true;
  }

  // variable = d, at the end.
  void update(VariableId variable, const Dim &d) {
    GraphBuilder b(module_, function_, function_.body);
    b.set_location(function_.location);
    ValueId count = b(Op::iota, {}, {{"shape", std::vector<Dim>{d + Dim(1)}}, {"axis", Dim(0)}, {"dtype", DType::i64}});
    ValueId last = b(Op::slice, {count},
                     {{"axes", std::vector<Dim>{0}},
                      {"starts", std::vector<Dim>{d}},
                      {"ends", std::vector<Dim>{d + Dim(1)}},
                      {"steps", std::vector<Dim>{1}}});
    b.multi(Op::assign, {b(Op::reshape, {last}, {{"shape", std::vector<Dim>{}}})}, {{"variable", variable}});
  }

  Module &module_;
  Function &function_;
  Diagnostics &diagnostics_;
  std::vector<std::pair<Dim, Length>> lengths_;
};

} // namespace

bool make_state(Module &module, const StateOptions &options, Diagnostics &diagnostics) {
  if (!options.find && options.pairs.empty())
    return true;
  Function *only = nullptr;
  for (Function &function : module.functions) {
    if (!function.exported)
      continue;
    if (only) {
      diagnostics.error({}, "--state: the model has several entries; declare `state` in it instead");
      return false;
    }
    only = &function;
  }
  if (!only) {
    diagnostics.error({}, "--state: the model has no entry; write `export func name(...)`");
    return false;
  }
  return StateMaker(module, *only, diagnostics).run(options);
}

} // namespace kiln
