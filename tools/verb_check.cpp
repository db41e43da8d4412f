// kiln check: a compiled model against the graph interpreter: its outputs against those of the graph as
// it was read, and with --layers each kernel's results against the same node of the optimised graph,
// read from the arena right after the kernel ran.
#include "tools/check_cases.h"
#include "tools/cli.h"
#include "tools/usage.h"
#include "tools/compare.h"

#include "ir/interpret.h"
#include "ir/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <unordered_map>

namespace kiln {
namespace {

struct CheckVerb {
  ModelOptions model;
  std::vector<std::string> inputs;
  SessionOptions session;
  std::string level = "2";
  bool layers = false;
  double tolerance = 1e-3;
  CaseOptions cases;
};

struct Row {
  std::string name, kind, location, value, type;
  Difference difference;
  bool fine = true;
};

// What one launch writes, and the value it should be.
struct Written {
  const PlanStep *step;
  const PlanBuffer *buffer;
};

using Values = std::unordered_map<int64_t, Tensor>;

struct LayerCheck {
  Session *session = nullptr;
  const Plan *plan = nullptr;
  std::unordered_map<uint32_t, std::vector<Written>> written; // by launch
  Values expected;                                            // by value id
  Tolerance tolerance;
  std::vector<Row> rows;
  std::vector<std::pair<std::string, int64_t>> dims;

  std::optional<int64_t> size(const Dim &dim) const {
    return dim.evaluate([&](Symbol s) -> std::optional<int64_t> {
      for (const auto &[name, value] : dims)
        if (name == s.text())
          return value;
      return std::nullopt;
    });
  }

  static void hook(void *self, uint32_t, uint32_t kernel) { static_cast<LayerCheck *>(self)->after(kernel); }

  void after(uint32_t kernel) {
    dims = session->dims(); // sizes are found as the run goes on
    for (const Written &w : written[kernel]) {
      auto want = expected.find(int64_t(size_t(w.buffer->value)));
      Dim elements = physical_size(w.buffer->type, w.buffer->layout);
      auto offset = size(w.buffer->offset), bytes = size(elements * Dim(dtype_bytes(w.buffer->type.dtype)));
      std::vector<int64_t> shape;
      for (const Dim &d : w.buffer->type.shape)
        shape.push_back(size(d).value_or(-1));
      if (want == expected.end() || !offset || !bytes || shape != want->second.dims())
        continue;
      const std::byte *base = w.buffer->kind == PlanBuffer::Kind::argument ? session->argument(w.buffer->argument)
                                                                          : session->arena();
      Tensor got = unpack(w.buffer->type.dtype, shape, w.buffer->layout, {base + *offset, size_t(*bytes)});
      Row row{w.step->name, "kernel", w.step->location.text(), w.buffer->name, got.type().text(),
              compare(got, want->second), true};
      std::string why;
      row.fine = within(got, want->second, tolerance, why);
      rows.push_back(std::move(row));
    }
  }
};

// Launches outside of loops and branches, whose buffers no other launch writes.
void find_written(const Program &program, const Plan &plan, LayerCheck &check) {
  std::vector<int> writers(plan.buffers.size());
  auto outputs = [&](const PlanStep &step, auto &&use) {
    const Kernel &kernel = program.kernels[size_t(step.kernel)];
    for (size_t b = 0; b < step.buffers.size(); ++b)
      if (kernel.buffers[b].access != Access::in)
        use(step.buffers[b]);
  };
  for (const PlanStep &step : plan.steps)
    if (step.kind == PlanStep::Kind::launch)
      outputs(step, [&](int b) { ++writers[size_t(b)]; });
  for (const PlanStep &step : plan.steps)
    if (step.kind == PlanStep::Kind::launch)
      outputs(step, [&](int b) {
        const PlanBuffer &buffer = plan.buffers[size_t(b)];
        bool readable = buffer.kind == PlanBuffer::Kind::arena || buffer.kind == PlanBuffer::Kind::argument;
        if (readable && writers[size_t(b)] == 1 && buffer.value.valid())
          check.written[uint32_t(step.position)].push_back({&step, &buffer});
      });
}

const Function *entry_of(const Module &module, const std::string &name) {
  for (const Function &f : module.functions)
    if (f.exported && (name.empty() || f.name == name))
      return &f;
  return nullptr;
}

// Arguments in the function's order.
Result<std::vector<Tensor>> arguments(const Function &function, const std::vector<std::pair<std::string, Tensor>> &given) {
  std::vector<Tensor> out;
  for (ValueId arg : function.body.args) {
    auto it = std::find_if(given.begin(), given.end(), [&](const auto &g) { return g.first == function.value(arg).name; });
    if (it == given.end())
      return Error{fmt::format("no value for the input '{}'", function.value(arg).name)};
    out.push_back(it->second);
  }
  return out;
}

Result<std::vector<Tensor>> interpret_entry(const Module &module, const std::string &entry,
                                            const std::vector<std::pair<std::string, Tensor>> &given,
                                            uint64_t seed, LayerCheck *layers) {
  const Function *function = entry_of(module, entry);
  if (!function)
    return Error{fmt::format("no exported function '{}'", entry)};
  KILN_TRY(inputs, arguments(*function, given));
  KILN_TRY(variables, initial_variables(module));
  if (const Function *init = module.find_function("init"); init && init != function && init->body.args.size() == 1 &&
                                                           init->body.results.empty() &&
                                                           init->type(init->body.args[0]) == TensorType{DType::u64, {}}) {
    std::vector<Tensor> seeds{Tensor::scalar_i64(DType::u64, int64_t(seed))};
    KILN_RETURN_IF_ERROR(interpret(module, *init, seeds, variables));
  }
  EvaluateOptions options;
  if (layers) {
    std::unordered_map<int64_t, bool> wanted;
    for (const auto &[kernel, list] : layers->written)
      for (const Written &w : list)
        wanted[int64_t(size_t(w.buffer->value))] = true;
    options.after_node = [=](NodeId id, std::span<const Tensor> results) {
      const Node &node = function->node(id);
      for (size_t i = 0; i < results.size() && i < node.results.size(); ++i)
        if (int64_t value = int64_t(size_t(node.results[i])); wanted.contains(value))
          layers->expected.insert_or_assign(value, results[i]);
    };
  }
  return interpret(module, *function, inputs, variables, options);
}

void print_rows(const std::vector<Row> &rows, bool json, bool fine) {
  if (json) {
    std::string list;
    for (const Row &r : rows)
      list += fmt::format("{}{{\"name\": {}, \"kind\": \"{}\", \"location\": {}, \"value\": {}, \"type\": {}, \"worst\": {}, "
                          "\"relative\": {}, \"fine\": {}, \"where\": {}}}",
                          list.empty() ? "" : ",\n  ", json_quote(r.name), r.kind, json_quote(r.location), json_quote(r.value),
                          json_quote(r.type), std::isfinite(r.difference.worst) ? fmt::format("{:.9g}", r.difference.worst) : "null",
                          std::isfinite(r.difference.relative) ? fmt::format("{:.9g}", r.difference.relative) : "null", r.fine,
                          json_quote(r.difference.text));
    std::cout << fmt::format("{{\"fine\": {}, \"values\": [\n  {}]}}\n", fine, list);
    return;
  }
  std::cout << fmt::format("{:>10} {:>10}       {:<7} {:<32} {}\n", "relative", "worst", "", "value", "of");
  for (const Row &r : rows)
    std::cout << fmt::format("{:10.2e} {:10.2e}  {}  {:<7} {:<32} {}{}{}\n", r.difference.relative, r.difference.worst,
                             r.fine ? "ok  " : "FAR ", r.kind, r.value + ": " + r.type, r.name,
                             r.location.empty() ? "" : "  " + r.location, r.fine ? "" : "\n      " + r.difference.text);
}

int check_model(const CheckVerb &verb) {
  auto fail = [&](const Error &error) { return report(error, verb.model.json); };
  if (is_package(verb.model.path))
    return fail(Error{"check compares a model file with its compiled form; give it the .onnx or .kir"});
  auto inputs = parse_inputs(verb.inputs);
  auto dims = fixed_dims(verb.model);
  auto level = parse_level(verb.level);
  if (!inputs)
    return fail(inputs.error());
  Opened opened;
  if (int code = open_session(verb.model, verb.session, *level, opened); code != kFine)
    return code;
  std::string made;
  if (auto status = opened.session->fill_inputs(*inputs, *dims, made); !status)
    return fail(status.error());
  if (!made.empty() && !verb.model.json)
    std::cerr << "kiln: note: random values for " << made << "\n";

  if (auto status = opened.session->widen_texts(*inputs); !status)
    return fail(status.error());
  LayerCheck layers;
  layers.session = &*opened.session;
  layers.plan = &opened.compiled.program.entries[opened.session->code_entry()];
  layers.tolerance.relative = verb.tolerance;
  if (verb.layers && std::string_view(opened.session->target()).find(" and ") != std::string_view::npos)
    return fail(Error{fmt::format("'{}' computes on the processor and on a GPU, and --layers compares the kernels of one: say --device cpu", layers.plan->name)});
  if (verb.layers) {
    find_written(opened.compiled.program, *layers.plan, layers);
    if (auto values = interpret_entry(opened.module, layers.plan->name, *inputs, verb.session.seed, &layers); !values)
      return fail(values.error());
    setenv("KILN_CUDA_VALUES", "1", 1); // a device shows its values on the host after each kernel
    opened.session->set_kernel_hook(LayerCheck::hook, &layers);
  }
  Diagnostics diagnostics;
  Module original;
  if (!load_model(verb.model, original, diagnostics))
    return report(diagnostics, verb.model);
  auto expected = interpret_entry(original, verb.session.entry, *inputs, verb.session.seed, nullptr);
  if (!expected)
    return fail(expected.error());
  if (auto status = opened.session->bind(std::move(*inputs)); !status)
    return fail(status.error());
  if (auto status = opened.session->run(); !status)
    return fail(status.error());

  std::vector<Row> rows = std::move(layers.rows);
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row &a, const Row &b) { return a.difference.relative > b.difference.relative; });
  bool outputs_fine = true;
  for (size_t i = 0; i < expected->size(); ++i) {
    const Tensor &got = opened.session->outputs()[i];
    Row row{"the model", "output", "", opened.session->output_names()[i], got.type().text(), compare(got, (*expected)[i]), true};
    std::string why;
    row.fine = within(got, (*expected)[i], layers.tolerance, why);
    outputs_fine &= row.fine;
    rows.push_back(std::move(row));
  }
  bool fine = std::all_of(rows.begin(), rows.end(), [](const Row &r) { return r.fine; });
  print_rows(rows, verb.model.json, fine);
  if (!outputs_fine && !verb.layers && !verb.model.json)
    std::cerr << "kiln: run again with --layers to see which node is off first\n";
  return fine ? kFine : kMismatch;
}

} // namespace

void add_check(CLI::App &app, int &exit_code) {
  auto verb = std::make_shared<CheckVerb>();
  CLI::App *sub = app.add_subcommand("check", "Compare a compiled model with the interpreter, or run test cases");
  sub->add_option("model", verb->model.path, "a .kir or .onnx file");
  verb->model.add_to(*sub, false);
  sub->add_option("-i,--input", verb->inputs, "NAME=@FILE.npy or NAME=2x2xf32=1,2,3,4; random where none is given")
      ->allow_extra_args(false)
      ->check(named("NAME=@FILE.npy, NAME=2x2xf32=1,2,3,4 or NAME=2xstr=abc,def"));
  sub->add_option("--entry", verb->session.entry, "which exported function (default: the first)");
  sub->add_option("--device", verb->session.device, "cpu (default), cuda:0 or auto: where it computes")->check(check_device);
  sub->add_option("--threads", verb->session.threads, "threads to run on")->check(CLI::Range(1, 1024));
  sub->add_option("--seed", verb->session.seed, "of the first values of params that have no others (default: 0)");
  sub->add_option("-O", verb->level, "0, 1 or 2")->check(well_formed(parse_level));
  sub->add_flag("--layers", verb->layers, "every kernel's results, the worst first");
  sub->add_option("--tolerance", verb->tolerance, "of a value's largest magnitude (default 1e-3)")->check(CLI::NonNegativeNumber);
  sub->add_option("--cases", verb->cases.folder, "a folder of ONNX test cases");
  sub->add_option("-j,--jobs", verb->cases.jobs, "cases at a time")->check(CLI::Range(1, 256));
  sub->add_option("--case-seconds", verb->cases.seconds, "limit of a case (default 60)")->check(CLI::PositiveNumber);
  sub->add_option("--report", verb->cases.report, "write the outcomes of --cases as a Markdown page");
  sub->add_option("--suite", verb->cases.suite, "what the page calls the cases, e.g. 'ONNX 1.23.2'");
  sub->add_flag("--skip-unsupported", verb->cases.skip_unsupported, "cases that use operators Kiln lacks are no failures");
  sub->callback([verb, &exit_code] {
    if (verb->model.path.empty() == verb->cases.folder.empty())
      throw CLI::RequiredError("a model file, or --cases DIR,");
    verb->cases.json = verb->model.json;
    exit_code = verb->cases.folder.empty() ? check_model(*verb) : check_cases(verb->cases);
  });
}

} // namespace kiln
