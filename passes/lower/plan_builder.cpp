#include "passes/lower/plan_builder.h"

#include "ir/placement.h"

#include "ir/kernel/build.h"
#include "ir/ops/op.h"
#include "passes/graph/rewrite.h"
#include "passes/lower/kernel_lowering.h"
#include "runtime/entry_abi.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace kiln {
namespace {

int64_t align_up(int64_t n) { return (n + KILN_ALIGNMENT - 1) / KILN_ALIGNMENT * KILN_ALIGNMENT; }

// What a profile calls a kernel: the ops of a fusion that matter, or the op.
std::string step_name(const Function &function, const Node &node) {
  std::string name(op_def(node.op).name);
  if (node.op == Op::fusion) {
    name.clear();
    int count = 0;
    std::vector<NodeId> inside;
    for (NodeId id : node.regions.at(0).nodes) // one level deeper in a chain
      if (const Node &n = function.node(id); n.op == Op::fusion)
        inside.insert(inside.end(), n.regions.at(0).nodes.begin(), n.regions.at(0).nodes.end());
      else
        inside.push_back(id);
    for (NodeId id : inside) {
      const OpDef &def = op_def(function.node(id).op);
      if (def.has(kMovement) || function.node(id).op == Op::constant)
        continue;
      if (++count <= 4)
        name += (name.empty() ? "" : "+") + std::string(def.name);
    }
    if (count > 4)
      name += fmt::format("+{}", count - 4);
    if (name.empty())
      name = "copy";
  }
  if (!node.location.node.empty())
    name += fmt::format(" {}", node.location.node.text());
  return name;
}

// Of some bytes: weights are large, and most differ early.
size_t sample_hash(const Tensor &tensor) {
  auto bytes = tensor.bytes();
  size_t hash = std::hash<std::string>()(tensor.type().text()), step = std::max<size_t>(1, bytes.size() / 64);
  for (size_t i = 0; i < bytes.size(); i += step)
    hash = hash * 1000003 + size_t(bytes[i]);
  return hash;
}

bool is_same(const Tensor &a, const Tensor &b) {
  return a.type() == b.type() && (a.bytes().data() == b.bytes().data() ||
                                  std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0);
}

bool uses_symbol(const Function &function, Symbol symbol) {
  auto in = [&](const std::vector<Dim> &dims) {
    return std::any_of(dims.begin(), dims.end(), [&](const Dim &d) { return d.depends_on(symbol); });
  };
  for (const Value &value : function.values)
    if (in(value.type.shape))
      return true;
  for (const Node &node : function.nodes)
    for (const auto &[name, attr] : node.attrs.all()) {
      const auto *dims = std::get_if<std::vector<Dim>>(&attr);
      const auto *dim = std::get_if<Dim>(&attr);
      if (!node.removed && ((dims && in(*dims)) || (dim && dim->depends_on(symbol))))
        return true;
    }
  return false;
}

} // namespace

bool is_alias(const Function &function, const Node &node) {
  if (node.op == Op::permute && function.value(node.results[0]).layout.is_row_major()) {
    // The operand lies in the order of the result.
    const Layout &layout = function.value(node.operands[0]).layout;
    const auto &dims = node.attrs.get_dims("dims");
    return layout.blocks.empty() && layout.halos.empty() && layout.order.size() == dims.size() &&
           std::equal(dims.begin(), dims.end(), layout.order.begin(), [&](const Dim &d, int axis) {
             return d.is_const(axis) || d.is_const(axis - int64_t(dims.size()));
           });
  }
  if (node.op != Op::reshape)
    return false;
  return function.value(node.operands[0]).layout.is_row_major() &&
         function.value(node.results[0]).layout.is_row_major();
}

int ProgramBuilder::add_kernel(Kernel kernel) {
  size_t hash = kernel.buffers.size() * 31 + kernel.body.size();
  hash = hash * 31 + std::hash<std::string>()(kernel.flops.text());
  kernel.name.clear();
  for (auto [it, end] = kernel_index_.equal_range(hash); it != end; ++it) {
    Kernel &other = program_.kernels[size_t(it->second)];
    std::string name = std::move(other.name);
    other.name.clear();
    bool equal = other == kernel;
    other.name = std::move(name);
    if (equal)
      return it->second;
  }
  int index = int(program_.kernels.size());
  kernel.name = fmt::format("k{}", index);
  program_.kernels.push_back(std::move(kernel));
  kernel_index_.emplace(hash, index);
  return index;
}

int ProgramBuilder::add_weight(ConstantId constant, const Layout &layout, int64_t bytes) {
  // Forms of an entry fold the same constants, each for itself.
  const Tensor &tensor = module_.constants[size_t(constant)].tensor;
  size_t hash = sample_hash(tensor);
  for (auto [it, end] = weight_index_.equal_range(hash); it != end; ++it) {
    const Weight &other = program_.weights[size_t(it->second)];
    const Tensor &same = module_.constants[size_t(other.constant)].tensor;
    if (other.layout == layout && (other.constant == constant || is_same(same, tensor)))
      return it->second;
  }
  weight_index_.emplace(hash, int(program_.weights.size()));
  program_.weights.push_back({constant, layout, program_.weights_size, bytes});
  // The slack lets kernels read whole vectors past the end.
  program_.weights_size += align_up(bytes) + KILN_ALIGNMENT;
  return int(program_.weights.size()) - 1;
}

void ProgramBuilder::place_variables() {
  for (const Variable &v : module_.variables) {
    int64_t bytes = (physical_size(v.type, {}) * Dim(dtype_bytes(v.type.dtype))).as_const();
    int initial = v.initial.valid() ? add_weight(v.initial, {}, bytes) : -1;
    program_.variables.push_back({program_.variables_size, bytes, initial});
    program_.variables_size += align_up(bytes) + KILN_ALIGNMENT;
  }
}

bool PlanBuilder::build(Plan &plan) {
  plan_ = &plan;
  plan.name = function_.name;
  node_order_.resize(function_.nodes.size());
  order_nodes(function_.body);
  if (!find_sizes() || !find_dims() || !bind_arguments())
    return false;
  for (size_t i = 0; i < function_.body.results.size(); ++i)
    try_redirect(function_.body.results[i], int(function_.body.args.size() + i), function_.body);
  if (!walk(function_.body, plan.steps))
    return false;
  for (size_t i = 0; i < function_.body.results.size(); ++i)
    deliver(function_.body.results[i], int(function_.body.args.size() + i), plan.steps, function_.location);
  plan_memory(plan, parent_, program_.module());
  for (size_t b = 0; b < plan.buffers.size(); ++b)
    if (int p = parent_[b]; p >= 0) {
      PlanBuffer &buffer = plan.buffers[b];
      const PlanBuffer &from = plan.buffers[size_t(p)];
      buffer.kind = from.kind;
      buffer.argument = from.argument;
      buffer.weight = from.weight;
      buffer.variable = from.variable;
      buffer.offset += from.offset;
    }
  return true;
}

bool PlanBuilder::find_dims() {
  auto add = [&](Symbol s) {
    if (std::find(plan_->dims.begin(), plan_->dims.end(), s) == plan_->dims.end())
      plan_->dims.push_back(s);
  };
  for (ValueId arg : function_.body.args)
    for (const Dim &d : function_.type(arg).shape)
      if (auto s = d.try_symbol())
        add(*s);
  auto is_dim = [&](Symbol s) { return std::find(plan_->dims.begin(), plan_->dims.end(), s) != plan_->dims.end(); };
  const auto &capacities = program_.module().capacities;
  if (!capacities.empty())
    for_each_node(function_, [&](NodeId id) {
      for_each_size(function_, function_.node(id), [&](Symbol s) {
        if (capacities.contains(std::string(s.text())))
          add(s);
      });
    });
  for (const auto &[name, variable] : program_.module().dim_variables)
    if (uses_symbol(function_, Symbol(name)))
      add(Symbol(name));
  if (is_part(function_.name)) { // whoever runs it knows all of them
    auto add_dim = [&](Symbol s) {
      if (!largest_.contains(s))
        add(s);
    };
    for (ValueId arg : function_.body.args)
      for (const Dim &d : function_.type(arg).shape)
        for (Symbol s : d.symbols())
          add_dim(s);
    for_each_node(function_, [&](NodeId id) { for_each_size(function_, function_.node(id), add_dim); });
  }
  auto known = [&](const Dim &d) {
    auto symbols = d.symbols();
    return std::all_of(symbols.begin(), symbols.end(), [&](Symbol s) { return is_dim(s) || largest_.contains(s); });
  };
  bool fine = true;
  for_each_node(function_, [&](NodeId id) {
    const Node &node = function_.node(id);
    for (ValueId v : node.results)
      for (const Dim &d : function_.type(v).shape)
        if (fine && !known(d)) {
          diagnostics_
              .error(node.location, fmt::format("the size {} of a result of {} cannot be computed from the "
                                                "shapes of the inputs of '{}'",
                                                d.text(), op_def(node.op).name, function_.name))
              .notes.push_back("make it a size of an input, or give its value with --dim");
          fine = false;
        }
  });
  if (!fine)
    return false;
  for (const auto &c : program_.module().constraints) {
    if (!known(c.a) || !known(c.b))
      continue;
    bool found = false;
    for (const Dim *d : {&c.a, &c.b})
      for (Symbol s : d->symbols())
        found |= largest_.contains(s);
    (found ? plan_->run_constraints : plan_->constraints).push_back(c);
  }
  return true;
}

bool PlanBuilder::bind_arguments() {
  int position = 0;
  auto bind = [&](ValueId value, const std::string &name) {
    const Value &v = function_.value(value);
    PlanBuffer buffer;
    buffer.kind = PlanBuffer::Kind::argument;
    buffer.name = name;
    buffer.type = v.type;
    buffer.argument = position++;
    buffer.size = buffer_size(v.type, {});
    buffer.value = value;
    return new_buffer(buffer);
  };
  for (ValueId arg : function_.body.args) {
    plan_->inputs.push_back({function_.value(arg).name, function_.type(arg)});
    buffers_[arg] = bind(arg, function_.value(arg).name);
  }
  for (size_t i = 0; i < function_.body.results.size(); ++i) {
    std::string name = i < function_.result_names.size() && !function_.result_names[i].empty()
                           ? function_.result_names[i]
                           : fmt::format("out{}", i);
    const TensorType &type = function_.type(function_.body.results[i]);
    plan_->outputs.push_back({name, type, largest(type.shape)});
    bind(function_.body.results[i], name);
  }
  return true;
}

void PlanBuilder::order_nodes(const Block &block) {
  for (NodeId id : block.nodes) {
    node_order_[size_t(id)] = next_order_++;
    for (const Block &region : function_.node(id).regions)
      order_nodes(region);
  }
}

int PlanBuilder::new_buffer(PlanBuffer buffer) {
  buffer.first_step = buffer.last_step = clock_;
  plan_->buffers.push_back(std::move(buffer));
  parent_.push_back(-1);
  return int(plan_->buffers.size()) - 1;
}

int PlanBuilder::arena_buffer(ValueId value) {
  const Value &v = function_.value(value);
  PlanBuffer buffer;
  buffer.name = v.name;
  buffer.type = v.type;
  buffer.layout = v.layout;
  buffer.size = buffer_size(v.type, v.layout);
  buffer.value = value;
  return new_buffer(std::move(buffer));
}

int PlanBuilder::view(int parent, Dim extra, const TensorType &type, std::string name) {
  PlanBuffer buffer = plan_->buffers[size_t(parent)];
  buffer.name = std::move(name);
  buffer.type = type;
  buffer.layout = {};
  buffer.offset = std::move(extra);
  buffer.size = buffer_size(type, {});
  int root = parent_[size_t(parent)];
  if (root >= 0) // a view of a view adds up
    buffer.offset += plan_->buffers[size_t(parent)].offset;
  int id = new_buffer(std::move(buffer));
  parent_[size_t(id)] = root >= 0 ? root : parent;
  return id;
}

void PlanBuilder::touch(int buffer) {
  plan_->buffers[size_t(buffer)].last_step = clock_;
  if (int p = parent_[size_t(buffer)]; p >= 0)
    plan_->buffers[size_t(p)].last_step = clock_;
}

int PlanBuilder::buffer_of(ValueId value) {
  if (auto it = buffers_.find(value); it != buffers_.end())
    return it->second;
  const Node *def = function_.def(value);
  KILN_CHECK(def && def->op == Op::constant,
             "the value '" + function_.value(value).name + "' has no buffer");
  const Value &v = function_.value(value);
  PlanBuffer buffer;
  buffer.kind = PlanBuffer::Kind::weight;
  buffer.name = v.name;
  buffer.type = v.type;
  buffer.layout = v.layout;
  buffer.size = buffer_size(v.type, v.layout);
  buffer.value = value;
  buffer.weight = program_.add_weight(def->attrs.get_constant("value"), v.layout, buffer.size.as_const());
  int id = new_buffer(std::move(buffer));
  buffers_[value] = id;
  return id;
}

bool PlanBuilder::try_redirect(ValueId value, int buffer, const Block &block) {
  if (!function_.value(value).layout.is_row_major())
    return false;
  bool permuted = false; // what a permute in place reads has the order of its result
  for (const Node *def = function_.def(value); def; def = function_.def(value)) {
    bool here = std::find(block.nodes.begin(), block.nodes.end(), function_.value(value).def) != block.nodes.end();
    if (!here || destination_.contains(value))
      return false;
    if (is_alias(function_, *def)) {
      permuted = def->op == Op::permute;
      value = def->operands[0];
      continue;
    }
    if (op_def(def->op).structural && def->op != Op::fusion && def->op != Op::if_)
      return false;
    if (!permuted && !function_.value(value).layout.is_row_major())
      return false;
    destination_[value] = buffer;
    return true;
  }
  return false;
}

void PlanBuilder::deliver(ValueId value, int buffer, std::vector<PlanStep> &steps, const Location &location) {
  int from = buffer_of(value);
  if (from != buffer)
    copy(from, buffer, steps, location);
  else
    touch(buffer);
}

void PlanBuilder::copy(int from, int to, std::vector<PlanStep> &steps, const Location &location) {
  const PlanBuffer &source = plan_->buffers[size_t(from)];
  KILN_CHECK(source.layout == plan_->buffers[size_t(to)].layout, "a copy keeps the layout");
  Dim count = physical_size(source.type, source.layout);
  Kernel kernel;
  Symbol in("in0"), out("out0"), i("i0");
  kernel.buffers = {{in, source.type.dtype, count, Access::in, false},
                    {out, source.type.dtype, count, Access::out, false}};
  Dim at = Dim::symbol(i);
  kernel.body = {kb::loop(i, 0, count, LoopKind::parallel,
                          {kb::store(out, at, kb::load(in, source.type.dtype, at))})};
  finish_kernel(kernel);
  PlanStep step;
  for (Symbol s : kernel.dims)
    step.dims.push_back(Dim::symbol(s));
  step.kernel = program_.add_kernel(std::move(kernel));
  step.buffers = {from, to};
  step.position = plan_->launches++;
  step.name = "copy " + plan_->buffers[size_t(to)].name;
  step.location = location;
  ++clock_;
  touch(from);
  touch(to);
  steps.push_back(std::move(step));
}

bool PlanBuilder::walk(const Block &block, std::vector<PlanStep> &steps) {
  write_in_place(block);
  join_parts(block);
  size_t outside = bound_.size();
  for (NodeId id : block.nodes) {
    block_ = &block;
    if (!function_.node(id).removed && !walk_node(id, steps))
      return false;
  }
  bound_.resize(outside);
  return true;
}

bool PlanBuilder::walk_node(NodeId id, std::vector<PlanStep> &steps) {
  const Node &node = function_.node(id);
  switch (node.op) {
  case Op::constant:
    return true;
  case Op::read_variable:
    read_variable(id, steps);
    return true;
  case Op::assign: {
    auto rows = rows_of_.find(id);
    deliver(node.operands[0], rows != rows_of_.end() ? rows->second : variable_rows(node), steps, node.location);
    return true;
  }
  case Op::bind_size:
    bind_size(node, steps);
    return true;
  case Op::if_:
    return walk_if(node, steps);
  case Op::while_:
    return walk_while(node, steps);
  case Op::scan:
    return walk_scan(node, steps);
  default:
    break;
  }
  const OpDef &def = op_def(node.op);
  if (node.op != Op::fusion && !def.scalar && !def.element && !def.reduce && !def.lower) {
    diagnostics_.error(node.location, fmt::format("{} has not been decomposed before lowering", def.name))
        .notes.push_back("run the passes inline and decompose first");
    return false;
  }
  if (is_alias(function_, node) && !destination_.contains(node.results[0])) {
    int buffer = buffer_of(node.operands[0]);
    const Value &result = function_.value(node.results[0]);
    bool as_made = plan_->buffers[size_t(buffer)].layout.is_row_major();
    buffers_[node.results[0]] = as_made ? buffer : view(buffer, 0, result.type, result.name);
    return true;
  }
  if (try_view(node))
    return true;
  if (!node.results.empty() && joined_.contains(node.results[0])) {
    touch(buffer_of(node.results[0]));
    return true;
  }
  launch(id, steps);
  return true;
}

void PlanBuilder::read_variable(NodeId id, std::vector<PlanStep> &steps) {
  const Node &node = function_.node(id);
  VariableId variable = node.attrs.get_variable("variable");
  PlanBuffer buffer;
  buffer.kind = PlanBuffer::Kind::variable;
  buffer.variable = variable.index;
  buffer.type = function_.type(node.results[0]);
  buffer.name = program_.module().variables[size_t(variable)].name;
  buffer.size = buffer_size(buffer.type, {});
  buffer.value = node.results[0];
  int source = new_buffer(std::move(buffer));
  buffers_[node.results[0]] = source;
  // A value read before an assignment and used after it, as it is or as a view, needs a copy of its own.
  int read = node_order_[size_t(id)], assigned = INT32_MAX;
  for (size_t n = 0; n < function_.nodes.size(); ++n) {
    const Node &other = function_.nodes[n];
    if (!other.removed && other.op == Op::assign && other.attrs.get_variable("variable") == variable &&
        node_order_[n] > read)
      assigned = std::min(assigned, node_order_[n]);
  }
  if (assigned < last_use(node.results[0])) {
    int own = arena_buffer(node.results[0]);
    copy(source, own, steps, node.location);
    buffers_[node.results[0]] = own;
  }
}

void PlanBuilder::launch(NodeId id, std::vector<PlanStep> &steps) {
  const Node &node = function_.node(id);
  LoweredNode lowered = lower_node(program_.module(), function_, id, program_.options());
  if (auto change = changes_.find(id); change != changes_.end())
    drop_copy(lowered, change->second, node.results[0]);
  update_in_place(id, lowered);
  ++clock_;
  PlanStep step;
  for (ValueId value : lowered.values) {
    bool result = std::find(node.results.begin(), node.results.end(), value) != node.results.end();
    if (result && !buffers_.contains(value))
      buffers_[value] = result_buffer(value);
    int buffer = buffer_of(value);
    touch(buffer);
    step.buffers.push_back(buffer);
  }
  for (Symbol s : lowered.kernel.dims)
    step.dims.push_back(Dim::symbol(s));
  take_turns(lowered.kernel, step);
  step.kernel = program_.add_kernel(std::move(lowered.kernel));
  step.position = plan_->launches++;
  step.name = step_name(function_, node);
  step.location = node.location;
  steps.push_back(std::move(step));
}

} // namespace kiln
