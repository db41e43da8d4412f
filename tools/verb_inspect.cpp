// kiln inspect: what is in a model file or a package.
#include "tools/inspect.h"
#include "tools/usage.h"

#include "ir/ops/op.h"
#include "passes/lower/lower.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>

namespace kiln {
namespace {

struct InspectVerb {
  ModelOptions model;
  std::string graph, output, level = "2", launches;
  bool io = false, ops = false, memory = false, size = false, code = false, optimised = false, tf32 = false;
};

// A node and, in regions, those inside it.
template <typename Visit>
void each_node(const Function &function, const Block &block, const Visit &visit) {
  for (NodeId id : block.nodes) {
    visit(id, function.node(id));
    for (const Block &inner : function.node(id).regions)
      each_node(function, inner, visit);
  }
}

int bad_usage(const std::string &message, bool json) {
  report(Error{message}, json);
  return kBadUsage;
}

} // namespace

int inspect_io(const Module &module, bool json) {
  std::string text, list;
  for (const Function &f : module.functions) {
    if (!f.exported)
      continue;
    text += f.name + "\n";
    std::string inputs, outputs;
    for (ValueId arg : f.body.args) {
      text += fmt::format("  input  {}: {}\n", f.value(arg).name, f.type(arg).text());
      inputs += fmt::format("{}{{\"name\": {}, \"type\": {}}}", inputs.empty() ? "" : ", ", json_quote(f.value(arg).name),
                            json_quote(f.type(arg).text()));
    }
    for (size_t i = 0; i < f.body.results.size(); ++i) {
      std::string name = i < f.result_names.size() ? f.result_names[i] : "";
      text += fmt::format("  output {}: {}\n", name, f.type(f.body.results[i]).text());
      outputs += fmt::format("{}{{\"name\": {}, \"type\": {}}}", outputs.empty() ? "" : ", ", json_quote(name),
                             json_quote(f.type(f.body.results[i]).text()));
    }
    list += fmt::format("{}{{\"name\": {}, \"inputs\": [{}], \"outputs\": [{}]}}", list.empty() ? "" : ", ", json_quote(f.name),
                        inputs, outputs);
  }
  for (const Variable &v : module.variables)
    text += fmt::format("{} {}: {}\n", v.kind == VariableKind::param ? "param" : "state", v.name, v.type.text());
  std::cout << (json ? fmt::format("{{\"entries\": [{}], \"variables\": {}}}\n", list, module.variables.size()) : text);
  return kFine;
}

// Ops as the model has them; FLOPs as the primitives have them that they become.
int inspect_ops(Module &module, const ModelOptions &model) {
  struct Row {
    int64_t count = 0, parameters = 0;
    double flops = 0;
  };
  std::map<std::string, Row> rows;
  for (const Function &f : module.functions)
    each_node(f, f.body, [&](NodeId, const Node &node) {
      if (node.op == Op::constant)
        return;
      Row &row = rows[std::string(op_def(node.op).name)];
      ++row.count;
      for (ValueId operand : node.operands)
        if (const Node *def = f.def(operand); def && def->op == Op::constant)
          row.parameters += module.constants[size_t(def->attrs.get_constant("value"))].tensor.count();
    });
  Diagnostics diagnostics;
  CompileOptions options;
  double total = 0;
  bool symbolic = false;
  options.level = OptLevel::o0;
  if (!optimise_module(module, options, diagnostics))
    return report(diagnostics, model);
  for (const Function &f : module.functions)
    for (NodeId id : f.body.nodes) {
      const Node &node = f.node(id);
      if (node.removed || op_def(node.op).structural || op_def(node.op).decompose)
        continue;
      Dim flops = lower_node(module, f, id).kernel.flops;
      symbolic |= !flops.is_const();
      double number = flops.is_const() ? double(flops.as_const()) : 0;
      rows[std::string(op_def(node.op).name)].flops += number;
      total += number;
    }
  std::string list, text = fmt::format("{:>8} {:>14} {:>12}  op\n", "count", "parameters", "MFLOP");
  for (const auto &[name, row] : rows) {
    text += fmt::format("{:>8} {:>14} {:>12.3f}  {}\n", row.count, row.parameters, row.flops * 1e-6, name);
    list += fmt::format("{}{{\"op\": {}, \"count\": {}, \"parameters\": {}, \"flops\": {}}}", list.empty() ? "" : ",\n  ",
                        json_quote(name), row.count, row.parameters, row.flops);
  }
  text += fmt::format("{:.3f} MFLOP a run{}\nOps with a count of 0 are what others are made of.\n", total * 1e-6,
                      symbolic ? ", without those that depend on symbolic sizes (--dim N=4 fixes one)" : "");
  std::cout << (model.json ? fmt::format("{{\"ops\": [\n  {}],\n \"flops\": {}}}\n", list, total) : text);
  return kFine;
}

// The arena as the plan lays it out: the same plan that is compiled and run.
int inspect_memory(Module &module, const ModelOptions &options, OptLevel level) {
  Diagnostics diagnostics;
  CompileOptions compile;
  compile.level = level;
  compile.winograd = parse_winograd(options.winograd);
  Program program;
  if (!optimise_module(module, compile, diagnostics) || !lower_module(module, program, diagnostics))
    return report(diagnostics, options);
  std::string list, text;
  for (const Plan &plan : program.entries) {
    std::string buffers;
    text += fmt::format("{}: arena {} bytes, {} launches\n{:>14} {:>14}  {:<13} buffer\n", plan.name, plan.arena_size.text(),
                        plan.launches, "offset", "bytes", "lifetime");
    std::vector<const PlanBuffer *> arena;
    for (const PlanBuffer &b : plan.buffers)
      if (b.kind == PlanBuffer::Kind::arena)
        arena.push_back(&b);
    std::stable_sort(arena.begin(), arena.end(), [](auto *a, auto *b) { return a->first_step < b->first_step; });
    for (const PlanBuffer *b : arena) {
      text += fmt::format("{:>14} {:>14}  {:>5} - {:<5} {}: {}{}\n", b->offset.text(), b->size.text(), b->first_step,
                          b->last_step, b->name, b->type.text(), b->layout.is_row_major() ? "" : " " + b->layout.text());
      buffers += fmt::format("{}{{\"name\": {}, \"type\": {}, \"layout\": {}, \"offset\": {}, \"bytes\": {}, \"first\": {}, \"last\": {}}}",
                             buffers.empty() ? "" : ",\n  ", json_quote(b->name), json_quote(b->type.text()),
                             json_quote(b->layout.text()), json_quote(b->offset.text()), json_quote(b->size.text()),
                             b->first_step, b->last_step);
    }
    list += fmt::format("{}{{\"name\": {}, \"arena_bytes\": {}, \"buffers\": [\n  {}]}}", list.empty() ? "" : ",\n ",
                        json_quote(plan.name), json_quote(plan.arena_size.text()), buffers);
  }
  text += fmt::format("weights {} bytes, variables {} bytes\n", program.weights_size, program.variables_size);
  std::cout << (options.json ? fmt::format("{{\"entries\": [{}], \"weights_bytes\": {}, \"variables_bytes\": {}}}\n", list,
                                           program.weights_size, program.variables_size)
                             : text);
  return kFine;
}

int inspect_size(const Module &module, bool json) {
  std::vector<const Constant *> order;
  int64_t total = 0;
  for (const Constant &c : module.constants) {
    order.push_back(&c);
    total += int64_t(c.tensor.bytes().size());
  }
  std::stable_sort(order.begin(), order.end(), [](auto *a, auto *b) { return a->tensor.bytes().size() > b->tensor.bytes().size(); });
  std::string list, text = fmt::format("{:>12} {:>6}  constant\n", "bytes", "share");
  for (const Constant *c : order) {
    text += fmt::format("{:>12} {:>5.1f}%  {}: {}\n", c->tensor.bytes().size(),
                        100.0 * double(c->tensor.bytes().size()) / double(std::max<int64_t>(total, 1)), c->name,
                        c->tensor.type().text());
    list += fmt::format("{}{{\"name\": {}, \"type\": {}, \"bytes\": {}}}", list.empty() ? "" : ",\n  ", json_quote(c->name),
                        json_quote(c->tensor.type().text()), c->tensor.bytes().size());
  }
  std::cout << (json ? fmt::format("{{\"bytes\": {}, \"constants\": [\n  {}]}}\n", total, list)
                     : text + fmt::format("{:>12}  in {} constants\n", total, order.size()));
  return kFine;
}

namespace {

int inspect(const InspectVerb &verb) {
  bool json = verb.model.json;
  if (verb.io + verb.ops + verb.memory + verb.size + verb.code + !verb.graph.empty() + !verb.launches.empty() > 1)
    return bad_usage("inspect shows one thing at a time: --io, --ops, --graph, --memory, --launches, --size or --code", json);
  auto level = parse_level(verb.level);
  if (is_package(verb.model.path)) {
    if (!verb.graph.empty() || verb.memory || !verb.launches.empty())
      return bad_usage("a package holds code, no graph; inspect the model file that it was compiled from", json);
    if (auto fits = for_package(verb.model); !fits)
      return bad_usage(fits.error().message, json);
    return inspect_package(verb.model, verb.ops ? "ops" : verb.size ? "size" : verb.code ? "code" : "io");
  }
  if (verb.code)
    return bad_usage("--code reads packages; `kiln compile --emit asm` shows the code of a model file", json);
  if (auto spared = spares_model(verb.model, verb.output); !spared)
    return bad_usage(spared.error().message, json);
  Diagnostics diagnostics;
  Module module;
  if (!load_model(verb.model, module, diagnostics))
    return report(diagnostics, verb.model);
  if (verb.optimised) {
    CompileOptions options;
    options.level = *level;
    options.winograd = parse_winograd(verb.model.winograd);
    if (!optimise_module(module, options, diagnostics))
      return report(diagnostics, verb.model);
  }
  if (verb.ops)
    return inspect_ops(module, verb.model);
  if (verb.memory)
    return inspect_memory(module, verb.model, *level);
  if (!verb.launches.empty())
    return inspect_launches(module, verb.model, *level, *parse_gpu(verb.launches), verb.tf32);
  if (verb.size)
    return inspect_size(module, json);
  if (!verb.graph.empty())
    return inspect_graph(module, verb.graph, verb.output, json);
  return inspect_io(module, json);
}

} // namespace

void add_inspect(CLI::App &app, int &exit_code) {
  auto verb = std::make_shared<InspectVerb>();
  CLI::App *sub = app.add_subcommand("inspect", "Show what is in a model file or a package");
  verb->model.add_to(*sub);
  sub->add_flag("--io", verb->io, "entries with inputs and outputs (the default)");
  sub->add_flag("--ops", verb->ops, "ops with counts, parameters and FLOPs; kernels of a package");
  sub->add_option("--graph", verb->graph, "text, dot, svg or html")->check(CLI::IsMember({"text", "dot", "svg", "html"}));
  sub->add_flag("--optimised", verb->optimised, "the graph after the passes, not as it was read");
  sub->add_flag("--memory", verb->memory, "the arena: each buffer with offset, size and lifetime");
  sub->add_option("--launches", verb->launches, "what a GPU (sm_80, sm_90, ...) would run: launches with form, grid, bytes, products and estimated times")
      ->check(well_formed(parse_gpu));
  sub->add_flag("--tf32", verb->tf32, "with --launches: as `kiln compile --tf32`");
  sub->add_flag("--size", verb->size, "bytes by constant; by section for a package");
  sub->add_flag("--code", verb->code, "functions of a package's code with their sizes");
  sub->add_option("-o,--output", verb->output, "where --graph goes (default: standard output)");
  sub->add_option("-O", verb->level, "0, 1 or 2, for --memory, --launches and --optimised")->check(well_formed(parse_level));
  sub->callback([verb, &exit_code] { exit_code = inspect(*verb); });
}

} // namespace kiln
