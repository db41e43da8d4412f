#include "frontend/onnx/importer.h"

#include "frontend/onnx/ops.h"
#include "frontend/onnx/text.h"
#include "ir/argument_notes.h"

#include <fmt/format.h>

#include <set>

namespace kiln::onnx {
namespace {

// Text that ends where C says: what packages hold.
std::string without_zeros(std::string_view text) {
  std::string out(text);
  std::erase(out, '\0');
  return out;
}

constexpr size_t kMaxCallDepth = 64;
constexpr int64_t kMaxNodes = 1'000'000;
constexpr int64_t kNewestOpset = 28; // of the default domain

// Not an operand that a function's call leaves out, nor what could not be imported.
bool is_given(const Val &v) { return !v.failed && (v.id.valid() || v.is_known() || !v.is_tensor()); }

} // namespace

Importer::Importer(const OnnxOptions &options, Module &module, Diagnostics &diagnostics,
                   std::string file, ExternalFiles files)
    : options_(options), module_(module), diagnostics_(diagnostics), file_(file),
      files_(std::move(files)) {}

Location Importer::at(std::string_view node) const { return {file_, 0, 0, Symbol(node)}; }

std::string Importer::node_name(const NodeView &node, size_t index) const {
  if (!node.name.empty())
    return std::string(node.name);
  return fmt::format("{}{}#{}", scopes_.empty() ? "" : scopes_.back().prefix, node.op_type, index);
}

int64_t Importer::opset(std::string_view domain) const {
  auto it = opsets_.find(domain);
  return it == opsets_.end() ? 1 : it->second;
}

void Importer::warn(std::string message) { diagnostics_.warning(location_, std::move(message)); }

bool Importer::run(const ModelView &model) {
  size_t errors = diagnostics_.error_count();
  for (const OpsetView &opset : model.opsets) {
    std::string domain(opset.domain == "ai.onnx" ? std::string_view() : opset.domain);
    auto [it, fresh] = opsets_.emplace(domain, opset.version);
    it->second = std::max(it->second, opset.version);
    if (domain.empty() && (opset.version < 1 || opset.version > kNewestOpset))
      diagnostics_.error(at(""), fmt::format("the model is of opset {}; opsets 1 to {} are known", opset.version, kNewestOpset))
          .notes.push_back("export it for one of those, or convert it with onnx.version_converter");
  }
  for (const FunctionView &f : model.functions)
    if (!functions_.emplace(std::tuple(f.domain == "ai.onnx" ? std::string_view() : f.domain, f.name, f.overload), &f).second)
      diagnostics_.error(at(""), fmt::format("the function '{}' is defined twice", operator_name(f.domain, f.name)));
  // What they compute counts as failed, so that everything else that is wrong is told with them.
  report_unsupported(model);
  module_.name = without_zeros(model.graph.name);
  for (const auto &[key, value] : model.metadata)
    module_.metadata.emplace(without_zeros(key), without_zeros(value));
  size_t index = module_.functions.size();
  module_.functions.emplace_back();
  Function &function = module_.functions[index];
  function.name = "main";
  function.exported = true;
  function.location = at("");
  emitter_.emplace(module_, function);
  scopes_.emplace_back();
  bool whole = options_.results.empty();
  if (!define_inputs(model.graph) || !import_nodes(whole ? model.graph.nodes : needed_nodes(model.graph)) ||
      !(whole ? define_results(model.graph) : define_chosen_results(model.graph)))
    KILN_CHECK(diagnostics_.error_count() > errors, "a failed import says why");
  merge_constraints();
  for (const auto &[name, file] : files_.all())
    module_.keep_alive.push_back(file);
  return diagnostics_.error_count() == errors;
}

// Many nodes ask for the same; the first keeps its place.
void Importer::merge_constraints() {
  std::set<std::pair<std::string, std::string>> seen;
  std::erase_if(module_.constraints, [&](const Module::Constraint &c) {
    std::string a = c.a.text(), b = c.b.text();
    if (b < a)
      std::swap(a, b);
    return !seen.emplace(std::move(a), std::move(b)).second;
  });
}

// Operators of the standard domains are Kiln's own; elsewhere a function of the model comes first.
const FunctionView *Importer::find_function(const NodeView &node) const {
  bool standard = node.domain.empty() || node.domain.starts_with("ai.onnx");
  if (standard && find_onnx_op(node.domain, node.op_type))
    return nullptr;
  auto it = functions_.find({node.domain, node.op_type, node.overload});
  return it == functions_.end() ? nullptr : it->second;
}

// -- names

const Importer::Produced *Importer::find(std::string_view name) const {
  for (size_t i = scopes_.size(); i-- > 0;)
    if (auto it = scopes_[i].values.find(name); it != scopes_[i].values.end())
      return &it->second;
  return nullptr;
}

const Val *Importer::value_named(std::string_view name) const {
  const Produced *p = find(name);
  return p && !p->value.failed ? &p->value : nullptr;
}

bool Importer::define(std::string_view name, Produced produced) {
  std::string where = produced.where;
  auto [it, fresh] = scopes_.back().values.emplace(name, std::move(produced));
  if (fresh)
    return true;
  diagnostics_.error(at(where), fmt::format("the name '{}' is defined twice", name));
  return false;
}

bool Importer::define_initializers(const GraphView &graph) {
  bool ok = true;
  for (std::string_view message : graph.sparse_initializers) {
    auto view = read_sparse(message, budget_);
    auto tensor = view ? make_tensor(*view, files_) : Result<Tensor>(view.error());
    std::string_view name = view ? view->values.name : std::string_view();
    if (!tensor) {
      diagnostics_.error(at(""), fmt::format("the sparse initializer '{}': {}", name, tensor.error().message));
      ok = false;
      continue;
    }
    ok &= define(name, {emitter_->constant(*std::move(tensor), name), nullptr, ""});
  }
  for (const TensorView &view : graph.initializers) {
    bool text = view.data_type == kStringType;
    auto tensor = text ? make_text(view) : make_tensor(view, files_);
    if (!tensor) {
      diagnostics_.error(at(""), fmt::format("the initializer '{}': {}", view.name, tensor.error().message));
      ok = false;
      continue;
    }
    Val value = emitter_->constant(*std::move(tensor), view.name);
    value.text = text;
    ok &= define(view.name, {value, nullptr, ""});
    if (options_.weights)
      options_.weights->insert(std::string(view.name));
  }
  return ok;
}

// An input that the user has given a value. Sizes it declares as symbols are not bound by it.
std::optional<Val> Importer::fixed_input(const ValueInfoView &input, const Tensor &tensor) {
  bool text = input.elem_type == kStringType;
  bool fits = input.is_tensor && (text ? DType::u8 : dtype_from_onnx(input.elem_type)) == tensor.dtype() &&
              (!input.has_shape || input.shape.size() + text == tensor.dims().size()) &&
              (!text || (tensor.rank() > 0 && tensor.dims().back() > 0));
  for (size_t i = 0; fits && input.has_shape && i < input.shape.size(); ++i)
    fits = !input.shape[i].value || *input.shape[i].value == tensor.dims()[i];
  if (fits) {
    Val value = emitter_->constant(tensor, input.name);
    value.text = text;
    return value;
  }
  diagnostics_.error(at(""), fmt::format("the constant for the input '{}' is {}, which does not fit it",
                                         input.name, tensor.type().text()));
  return std::nullopt;
}

// An input with an initializer is that constant; old models list all of theirs. What it declares must fit.
bool Importer::fits_weight(const ValueInfoView &input) {
  const Val *weight = value_named(input.name);
  if (!weight || !input.is_tensor || !input.has_shape)
    return true;
  Shape shape = weight->text ? text_shape(*weight) : weight->type.shape;
  bool fits = input.shape.size() == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i)
    fits = !input.shape[i].value || shape[i] == Dim(*input.shape[i].value);
  if (!fits)
    diagnostics_.error(at(""), fmt::format("the input '{}' declares another shape than its initializer, {}", input.name, onnx::describe(*weight)));
  return fits;
}

bool Importer::define_inputs(const GraphView &graph) {
  std::unordered_set<std::string_view> constants;
  for (const TensorView &view : graph.initializers)
    constants.insert(view.name);
  std::vector<const ValueInfoView *> inputs;
  for (const ValueInfoView &input : graph.inputs)
    if (!constants.contains(input.name))
      inputs.push_back(&input);
  bool ok = define_initializers(graph);
  for (const ValueInfoView &input : graph.inputs)
    ok &= !constants.contains(input.name) || fits_weight(input);
  ok &= groups_.expand(inputs, options_, diagnostics_, file_);
  std::unordered_map<std::string_view, Val> values;
  std::vector<const ValueInfoView *> arguments;
  for (const InputGroups::Group &group : groups_.groups())
    for (const ValueInfoView *part : group.parts) {
      auto it = options_.constants.find(std::string(part->name));
      if (it == options_.constants.end()) {
        arguments.push_back(part);
        continue;
      }
      auto value = fixed_input(*part, it->second);
      ok &= value.has_value();
      values.emplace(part->name, value.value_or(Val{}));
    }
  for (const auto &[name, tensor] : options_.constants)
    if (ok && !values.contains(name)) {
      diagnostics_.error(at(""), fmt::format("there is no input '{}' to give a constant value", name));
      ok = false;
    }
  DimTable dims(groups_.options(), diagnostics_, file_);
  auto types = dims.input_types(arguments);
  if (!types || !ok)
    return false;
  if (auto width = dims.text_width(); width && !options_.dims.contains(std::string(kTextWidth)))
    module_.dim_bounds[std::string(width->text())] = {1, kDefaultTextWidth};
  Function &function = emitter_->function();
  for (size_t i = 0; i < arguments.size(); ++i) {
    Val value;
    value.type = (*types)[i];
    value.name = arguments[i]->name;
    value.text = arguments[i]->elem_type == kStringType;
    if (value.text)
      module_.metadata[note_key(false, value.name)] = kTextNote;
    value.id = function.add_argument(function.body, value.type, std::string(value.name));
    if (Status s = emitter_->check_shape(value.type); !s) {
      diagnostics_.error(at(""), fmt::format("the input '{}': {}", value.name, s.error().message));
      return false;
    }
    values.emplace(value.name, value);
  }
  for (const InputGroups::Group &group : groups_.groups()) {
    const ValueInfoView &input = *group.input;
    std::vector<Val> parts;
    for (const ValueInfoView *part : group.parts)
      parts.push_back(values.at(part->name));
    Val value = group.absent       ? emitter_->absent()
                : input.map_key     ? emitter_->list(parts, parts.at(0).dtype())
                : input.is_sequence ? emitter_->list(parts, dtype_from_onnx(input.elem_type).value_or(DType::f32))
                                    : parts.at(0);
    value.name = input.name;
    value.map = input.map_key != 0;
    ok &= define(input.name, {value, nullptr, ""});
    if (value.map)
      module_.metadata[note_key(false, input.name)] = "map";
    if (input.is_sequence || input.is_optional)
      note_group(false, input.name, input.is_optional, value);
  }
  return ok;
}

// What callers need to know of a sequence or an optional at the model's border.
void Importer::note_group(bool is_output, std::string_view name, bool is_optional, const Val &value) {
  std::string text = is_optional ? "optional" : "";
  if (value.absent)
    text += " none";
  else if (value.list)
    text += fmt::format("{}sequence {}", is_optional ? " " : "", value.list->size());
  module_.metadata[note_key(is_output, name)] = text;
}

bool Importer::define_results(const GraphView &graph) {
  Function &function = emitter_->function();
  bool ok = true;
  if (graph.outputs.empty()) {
    diagnostics_.error(at(""), "the graph has no outputs");
    return false;
  }
  auto result = [&](const Val &value, std::string name, const std::string &where) {
    auto id = emitter_->materialize(value);
    if (!id) {
      diagnostics_.error(at(where), id.error().message);
      ok = false;
      return;
    }
    function.body.results.push_back(*id);
    if (value.text)
      module_.metadata[note_key(true, name)] = kTextNote;
    function.result_names.push_back(std::move(name));
  };
  std::unordered_set<std::string_view> listed;
  for (const ValueInfoView &output : graph.outputs) {
    const Produced *p = find(output.name);
    if (!listed.insert(output.name).second) {
      diagnostics_.error(at(""), fmt::format("the output '{}' is listed twice", output.name));
      ok = false;
      continue;
    }
    if (!p) {
      diagnostics_.error(at(""), fmt::format("nothing computes the output '{}'", output.name));
      ok = false;
      continue;
    }
    if (p->value.failed)
      continue;
    std::string name(output.name);
    if (!p->value.is_tensor() || output.is_optional)
      note_group(true, name, output.is_optional, p->value);
    if (p->value.list)
      for (size_t i = 0; i < p->value.list->size(); ++i)
        result((*p->value.list)[i], fmt::format("{}.{}", name, i), p->where);
    else if (!p->value.absent)
      result(p->value, name, p->where);
  }
  return ok;
}

// -- nodes

bool Importer::import_nodes(const std::vector<NodeView> &nodes) {
  auto sequence = order(nodes);
  if (!sequence)
    return false;
  bool ok = true;
  for (size_t i : *sequence)
    ok &= import_node(nodes[i], node_name(nodes[i], i));
  return ok;
}

// References to attributes of the function being expanded, also within its graphs, replaced by those of the
// call, or by their defaults; without either the attribute is left out.
const NodeView &Importer::with_attributes_of_call(const NodeView &node) {
  auto refers = [](const AttributeView &a) { return !a.ref_attr_name.empty(); };
  if (calls_.empty() || std::none_of(node.attributes.begin(), node.attributes.end(), refers))
    return node;
  const Call &call = calls_.back();
  NodeView &filled = filled_.emplace_back(node);
  std::erase_if(filled.attributes, [&](AttributeView &a) {
    if (!refers(a))
      return false;
    const AttributeView *given = call.node->find(a.ref_attr_name);
    for (const AttributeView &d : call.function->attribute_defaults)
      if (!given && d.name == a.ref_attr_name)
        given = &d;
    if (!given)
      return true;
    std::string_view name = a.name;
    a = *given;
    a.name = name;
    return false;
  });
  return filled;
}

bool Importer::import_node(const NodeView &written, const std::string &name) {
  const NodeView &node = with_attributes_of_call(written);
  Location outer = location_;
  location_ = at(name);
  emitter_->builder().set_location(location_);
  std::vector<Val> inputs;
  bool unknown = !find_function(node) && !find_onnx_op(node.domain, node.op_type), skip = unknown, ok = true;
  if (std::string kind = operator_name(node.domain, node.op_type); unknown && !unsupported_.contains(kind)) {
    diagnostics_.error(location_, fmt::format("the operator {} is not supported", kind));
    ok = false;
  }
  for (std::string_view input : node.inputs) {
    const Produced *p = input.empty() ? nullptr : find(input);
    inputs.push_back(p ? p->value : Val{});
    if (p)
      inputs.back().name = input;
    skip |= p && p->value.failed;
  }
  OnnxNode made(*this, node, opset(node.domain), inputs);
  if (!skip) {
    Status status = ++expanded_ > kMaxNodes ? Status(Error{"the model has too many nodes"})
                                            : call_handler(made);
    if (made.attribute_error())
      status = Error{*made.attribute_error()};
    if (!status) {
      ok = false;
      explain(diagnostics_.error(location_, fmt::format("{}: {}", node.op_type, status.error().message)),
              node, inputs);
    }
  }
  define_outputs(node, name, made, ok && !skip);
  location_ = outer;
  emitter_->builder().set_location(outer);
  return ok;
}

Status Importer::call_handler(OnnxNode &node) {
  const NodeView &view = node.view();
  for (const AttributeView &a : view.attributes)
    if (!a.ref_attr_name.empty())
      return Error{fmt::format("the attribute '{}' refers to '{}' outside of a function", a.name,
                               a.ref_attr_name)};
  if (const FunctionView *function = find_function(view))
    return call_function(*function, node);
  const OnnxOp *op = find_onnx_op(view.domain, view.op_type);
  KILN_CHECK(op, "unknown operators are skipped");
  int count = int(view.inputs.size());
  if (count < op->min_inputs || (op->max_inputs >= 0 && count > op->max_inputs))
    return Error{fmt::format("it has {} inputs; the operator takes {}{}", count, op->min_inputs,
                             op->max_inputs < 0                ? " or more"
                             : op->max_inputs > op->min_inputs ? fmt::format(" to {}", op->max_inputs)
                                                               : "")};
  int required = op->max_inputs == -2 ? 0 : op->max_inputs < 0 ? count : op->min_inputs;
  for (int i = 0; i < required; ++i)
    if (!node.has(size_t(i)))
      return Error{fmt::format("its input {} is missing", i)};
  bool moves_text = false;
  for (int i = 0; i < count; ++i) {
    const Val &v = node.inputs()[size_t(i)];
    if (!v.is_tensor() && op->takes != Takes::any)
      return Error{fmt::format("its input {} is {}; the operator takes tensors", i, describe(v))};
    if (v.text && op->takes == Takes::numbers)
      return Error{fmt::format("its input {} is {}, which is not supported", i, describe(v))};
    moves_text |= v.text && op->takes == Takes::moves;
  }
  try {
    KILN_RETURN_IF_ERROR(moves_text ? move_text(node, op->handler) : op->handler(node));
  } catch (const Unmet &unmet) {
    return Error{unmet.message};
  }
  for (const std::string &name : node.unread_attributes())
    warn(fmt::format("the attribute '{}' of {} is unknown here and has no effect", name, view.op_type));
  for (size_t i = 0; i < view.outputs.size(); ++i)
    if (node.wants(i) && !node.outputs()[i])
      return Error{fmt::format("its output {} ('{}') is not supported", i, view.outputs[i])};
  return Unit{};
}

void Importer::define_outputs(const NodeView &node, const std::string &name, OnnxNode &made, bool ok) {
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i].empty())
      continue;
    Val value;
    if (ok && made.outputs()[i])
      value = *made.outputs()[i];
    else
      value.failed = true;
    // A value that only goes by another name keeps its first one.
    if (value.id.valid() && emitter_->function().value(value.id).name.empty())
      emitter_->function().value(value.id).name = std::string(node.outputs[i]);
    if (value.name.empty())
      value.name = node.outputs[i];
    define(node.outputs[i], {value, &node, name});
  }
}

// The operands' types, and the nodes that led to the first one.
void Importer::explain(Diagnostic &diagnostic, const NodeView &node,
                       const std::vector<Val> &inputs) const {
  auto describe = [&](std::string_view name) {
    const Produced *p = find(name);
    std::string from = !p || !p->node ? (p && p->value.constant ? "a constant" : "an input")
                                      : fmt::format("from {} ({})", p->where, p->node->op_type);
    return fmt::format("'{}': {}, {}", name, p ? onnx::describe(p->value) : "?", from);
  };
  for (size_t i = 0; i < inputs.size() && i < 6; ++i)
    if (!node.inputs[i].empty())
      diagnostic.notes.push_back(fmt::format("input {} {}", i, describe(node.inputs[i])));
  const Produced *p = node.inputs.empty() ? nullptr : find(node.inputs[0]);
  for (int step = 0; step < 6 && p && p->node; ++step) {
    std::string_view next;
    for (std::string_view name : p->node->inputs)
      if (const Produced *q = name.empty() ? nullptr : find(name); q && !q->value.constant) {
        next = name;
        break;
      }
    if (next.empty())
      break;
    diagnostic.notes.push_back("which takes " + describe(next));
    p = find(next);
  }
}

// -- nested graphs and functions

Result<std::vector<Val>> Importer::import_subgraph(const GraphView &graph, std::span<const Val> inputs) {
  if (scopes_.size() > size_t(kMaxGraphDepth))
    return Error{"graphs are nested too deeply"};
  if (graph.inputs.size() != inputs.size())
    return Error{fmt::format("its graph takes {} inputs, not {}", graph.inputs.size(), inputs.size())};
  std::string prefix = std::string(location_.node.text()) + "/";
  scopes_.emplace_back();
  scopes_.back().prefix = prefix;
  bool ok = define_initializers(graph);
  for (size_t i = 0; i < inputs.size(); ++i)
    ok &= define(graph.inputs[i].name, {inputs[i], nullptr, ""});
  ok = ok && import_nodes(graph.nodes);
  std::vector<Val> out;
  std::optional<std::string> missing;
  for (const ValueInfoView &output : graph.outputs) {
    const Produced *p = find(output.name);
    ok &= !p || !p->value.failed;
    if (!p || !is_given(p->value))
      missing = std::string(output.name);
    else
      out.push_back(p->value);
  }
  scopes_.pop_back();
  if (!ok)
    return Error{"a graph inside it could not be imported"};
  if (missing)
    return Error{fmt::format("nothing computes the output '{}' of its graph", *missing)};
  return out;
}

Status Importer::call_function(const FunctionView &function, OnnxNode &node) {
  for (const Call &c : calls_)
    if (c.function == &function)
      return Error{"the function calls itself"};
  if (calls_.size() >= kMaxCallDepth)
    return Error{"functions call each other too deeply"};
  if (node.input_count() > function.inputs.size() || node.output_count() > function.outputs.size())
    return Error{"it has more inputs or outputs than the function"};
  auto outer_opsets = opsets_;
  for (const OpsetView &o : function.opsets)
    opsets_[std::string(o.domain == "ai.onnx" ? std::string_view() : o.domain)] = o.version;
  std::vector<Scope> outer_scopes = std::exchange(scopes_, {});
  scopes_.emplace_back();
  scopes_.back().prefix = std::string(location_.node.text()) + "/";
  calls_.push_back({&function, &node});
  bool ok = true;
  for (size_t i = 0; i < function.inputs.size(); ++i) // an operand left out is empty inside
    ok &= define(function.inputs[i], {node.has(i) ? node.in(i) : Val{}, nullptr, ""});
  ok = ok && import_nodes(function.nodes);
  for (size_t i = 0; ok && i < node.output_count(); ++i)
    if (const Produced *p = find(function.outputs[i]); p && is_given(p->value))
      node.set(i, p->value);
  calls_.pop_back();
  scopes_ = std::move(outer_scopes);
  opsets_ = std::move(outer_opsets);
  if (!ok)
    return Error{fmt::format("the function {} could not be expanded", function.name)};
  for (size_t i = 0; i < node.output_count(); ++i)
    if (node.wants(i) && !node.outputs()[i])
      return Error{fmt::format("nothing computes its output {}", i)};
  return Unit{};
}

} // namespace kiln::onnx
