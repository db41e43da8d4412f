#include "tools/scratch.h"

#include "frontend/kir/kir.h"
#include "frontend/kir/parser.h"
#include "ir/interpret.h"
#include "passes/pass_manager.h"
#include "tools/cli.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln {
namespace {

using kir::StmtKind;

bool stands_at_top(const kir::Stmt &s) {
  switch (s.kind) {
  case StmtKind::func:
  case StmtKind::model:
  case StmtKind::import:
  case StmtKind::variable:
  case StmtKind::dim:
  case StmtKind::capacity:
  case StmtKind::constraint:
  case StmtKind::metadata:
    return true;
  default:
    return false;
  }
}

// Where a line and column, counted from 1, lie in a text.
size_t offset_of(std::string_view text, const Location &at) {
  size_t start = 0;
  for (int line = 1; line < int(at.line); ++line)
    start = text.find('\n', start) + 1;
  return std::min(text.size(), start + size_t(at.column > 0 ? at.column - 1 : 0));
}

// Each statement's own text.
std::vector<std::string> split(std::string_view text, const kir::Body &body) {
  std::vector<std::string> out;
  for (size_t i = 0; i < body.size(); ++i) {
    size_t from = i == 0 ? 0 : offset_of(text, body[i]->location);
    size_t to = i + 1 < body.size() ? offset_of(text, body[i + 1]->location) : text.size();
    std::string part(text.substr(from, to - from));
    while (!part.empty() && (part.back() == '\n' || part.back() == ' ' || part.back() == ';'))
      part.pop_back();
    out.push_back(std::move(part));
  }
  return out;
}

} // namespace

bool Scratch::complete(std::string_view text) {
  int open = 0;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (quote) {
      if (c == '\\')
        ++i;
      else if (c == quote || c == '\n')
        quote = 0;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '/' && i + 1 < text.size() && text[i + 1] == '/') {
      i = text.find('\n', i);
      if (i == std::string_view::npos)
        break;
    } else if (c == '(' || c == '[' || c == '{') {
      ++open;
    } else if (c == ')' || c == ']' || c == '}') {
      --open;
    }
  }
  return open <= 0;
}

bool Scratch::elaborate(const Program &program, const Statement &last, bool show, Module &module, std::string &plain,
                        Diagnostics &diagnostics) const {
  std::string text;
  std::vector<Location> places; // where each of its lines was typed
  auto append = [&](const Statement &s) {
    text += s.text + "\n";
    auto lines = 1 + int(std::count(s.text.begin(), s.text.end(), '\n'));
    for (int i = 0; i < lines; ++i)
      places.push_back(s.at.line == 0 ? Location() : Location{s.at.file, s.at.line + i, i == 0 ? s.at.column : 1, {}});
  };
  append({"import init, linalg, loss, metrics, nn, optim", {}});
  for (const Statement &s : program.top)
    append(s);
  append({fmt::format("export func main() {{\nmanual_seed({})", seed_), {}});
  for (const Statement &s : program.body)
    append(s);
  if (show)
    append({"return display(", {}});
  append(last);
  append({show ? ")\n}" : "}", {}});
  KirOptions options;
  options.display = [&](const std::string &value) { plain += value + "\n"; };
  Diagnostics found;
  bool fine = load_kir("input", text, options, module, found);
  diagnostics.add_source(Symbol("input"), added_);
  auto typed = [&](Location where) {
    if (where.file != Symbol("input"))
      return where;
    Location line = where.line > 0 && size_t(where.line) <= places.size() ? places[size_t(where.line) - 1] : Location();
    where.column = line.line == 0 || where.column == 0 ? 0 : where.column + line.column - 1;
    where.line = line.line;
    return where;
  };
  for (const Diagnostic &d : found.all())
    (d.severity == Severity::error ? diagnostics.error(typed(d.location), d.message) : diagnostics.warning(typed(d.location), d.message)).notes = d.notes;
  for (Function &function : module.functions)
    for (Node &node : function.nodes)
      node.location = typed(node.location);
  return fine;
}

bool Scratch::run(const Program &program, const Statement &last, bool show, std::string &shown,
                  Diagnostics &diagnostics) const {
  Module module;
  std::string plain;
  if (!elaborate(program, last, show, module, plain, diagnostics))
    return false;
  if (verify(module, diagnostics); diagnostics.has_errors())
    return false;
  PassContext context(diagnostics);
  PassManager(context).run(module, "dce");
  if (diagnostics.has_errors())
    return false;
  auto fail = [&](const Error &error) { // which says where
    diagnostics.error({}, error.message);
    return false;
  };
  auto variables = initial_variables(module);
  if (!variables)
    return fail(variables.error());
  if (const Function *init = module.find_function("init")) {
    std::vector<Tensor> seed{Tensor::scalar_i64(DType::u64, seed_)};
    if (auto done = interpret(module, *init, seed, *variables); !done)
      return fail(done.error());
  }
  auto results = interpret(module, *module.find_function("main"), {}, *variables);
  if (!results)
    return fail(results.error());
  shown += plain;
  for (const Tensor &value : *results)
    shown += tensor_text(value) + "\n";
  return true;
}

bool Scratch::makes_module(const Program &program, const Statement &statement, const std::string &name) const {
  Program tried = program;
  tried.top.push_back(statement);
  Diagnostics diagnostics;
  Module module;
  std::string kind;
  return elaborate(tried, {"kind(" + name + ")", {}}, true, module, kind, diagnostics) && kind == "\"module\"\n";
}

bool Scratch::add(std::string_view text, std::string &shown, Diagnostics &diagnostics) {
  kir::SourceFile file = kir::parse_file(Symbol("input"), text, diagnostics);
  if (diagnostics.has_errors()) {
    diagnostics.add_source(Symbol("input"), std::string(text));
    return false;
  }
  added_ = text;
  std::vector<Statement> parts;
  for (std::string &part : split(text, file.body)) {
    Location at = parts.empty() ? Location{{}, 1, 1, {}} : file.body[parts.size()]->location;
    parts.push_back({std::move(part), {Symbol("input"), at.line, at.column, {}}});
  }
  Program program = program_;
  Statement last;
  bool show = false;
  for (size_t i = 0; i < parts.size(); ++i) {
    const kir::Stmt &s = *file.body[i];
    bool named = s.kind == StmtKind::assign && s.text.empty() && s.targets.size() == 1 &&
                 s.targets[0].expr->kind == kir::ExprKind::name && s.value->kind == kir::ExprKind::call;
    if (i + 1 == parts.size() && s.kind == StmtKind::expr && s.regions.empty())
      show = true, last = parts[i];
    else if (stands_at_top(s) || (named && makes_module(program, parts[i], s.targets[0].expr->text)))
      program.top.push_back(parts[i]);
    else
      program.body.push_back(parts[i]);
  }
  std::string values;
  if (!run(program, last, show, values, diagnostics))
    return false;
  shown += values;
  // x.add_(1) changes x; an expression that changes nothing need not run again, but does no harm either.
  if (show)
    program.body.push_back(last);
  for (auto *list : {&program.top, &program.body})
    for (Statement &s : *list)
      s.at = {};
  program_ = std::move(program);
  return true;
}

} // namespace kiln
