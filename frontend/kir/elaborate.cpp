// Files, libraries, entries: what is elaborated, and in which order.
#include "frontend/kir/elaborator.h"

#include "frontend/kir/library.h"
#include "frontend/kir/parser.h"
#include "ir/ops/op.h"
#include "ir/placement.h"
#include "ir/print.h"

#include <algorithm>

#include <fmt/format.h>

namespace kiln::kir {

Location Elaborator::node_location(const Location &where) const {
  return own() || !call_site_.known() ? where : call_site_;
}

Datum Elaborator::error(const Location &where, std::string message, std::vector<std::string> notes) {
  Location place = node_location(where);
  if (!(place == where) && frame_)
    notes.push_back(fmt::format("in {}, at {}", frame_->name, where.text()));
  size_t shown = 0;
  for (auto it = trace_.rbegin(); it != trace_.rend() && shown < 4; ++it, ++shown)
    notes.push_back(*it);
  if (reported_.insert(place.text() + "|" + message).second)
    diagnostics_.error(place, std::move(message)).notes = std::move(notes);
  return {Poison{}};
}

bool Elaborator::in_function(const Location &where) {
  if (fn_)
    return true;
  error(where, "tensors are only computed inside functions; move this into an `export func`");
  return false;
}

const Library *Elaborator::load_library(std::string_view name, const Location &where) {
  for (const Library &library : libraries_)
    if (library.name == name && &library != main_)
      return &library;
  std::optional<std::string> text;
  bool own_file = false;
  if (auto builtin = embedded_library(name)) {
    text = std::string(*builtin);
  } else if (options_.read_import) {
    text = options_.read_import(name);
    own_file = true;
  }
  if (!text) {
    std::vector<std::string> names = embedded_library_names();
    std::string hint = suggestion(name, names), list;
    for (const std::string &n : names)
      if (n != "prelude")
        list += (list.empty() ? "" : ", ") + n;
    error(where, fmt::format("there is no library '{}'{}", name,
                             hint.empty() ? "" : fmt::format("; did you mean '{}'?", hint)),
          {"built in: " + list + "; a file " + std::string(name) + ".kir beside this one works too"});
    return nullptr;
  }
  Symbol file(std::string(name) + ".kir");
  diagnostics_.add_source(file, *text);
  Library &library = libraries_.emplace_back();
  library.name = name;
  library.own = own_file;
  library.file = parse_file(file, *text, diagnostics_);
  declare(library);
  return &library;
}

// Functions and models first, so that order does not matter, then the statements.
void Elaborator::declare(Library &library) {
  Frame frame;
  frame.library = &library;
  frame.name = library.name.empty() ? "the file" : library.name;
  Frame *saved = std::exchange(frame_, &frame);
  for (const auto &s : library.file.body) {
    const std::string &name = s->func ? s->func->name : s->model ? s->model->name : s->text;
    if (!s->func && !s->model)
      continue;
    Datum d = s->func ? Datum{FuncRef{s->func.get(), &library, nullptr}}
                      : Datum{ModelRef{s->model.get(), &library}};
    if (!library.globals.emplace(name, d).second)
      error(s->func ? s->func->location : s->model->location,
            fmt::format("'{}' is defined twice; rename one of them", name));
  }
  for (const auto &s : library.file.body)
    run_top(library, *s);
  frame_ = saved;
}

void Elaborator::run_top(Library &library, const Stmt &s) {
  switch (s.kind) {
  case StmtKind::func:
  case StmtKind::model:
    return;
  case StmtKind::import:
    if (!s.text.empty()) {
      library.globals[s.names[0]] = import_model(s, library);
      return;
    }
    for (const std::string &name : s.names)
      if (const Library *imported = load_library(name, s.location))
        library.globals[name] = {imported};
    return;
  case StmtKind::metadata:
    module_.metadata[s.names[0]] = s.text;
    return;
  case StmtKind::dim: {
    auto lo = eval_dim(*s.value);
    auto hi = s.message ? eval_dim(*s.message) : std::optional<Dim>(INT64_MAX);
    if (!lo || !hi)
      return;
    if (!lo->is_const() || !hi->is_const() || lo->as_const() < 0 || lo->as_const() > hi->as_const()) {
      error(s.location, "bounds of a dim are two numbers, `dim N = 1..64`");
      return;
    }
    module_.dim_bounds[s.names[0]] = {lo->as_const(), hi->as_const()};
    if (!s.text.empty())
      dim_sources_.push_back(&s);
    return;
  }
  case StmtKind::capacity: {
    auto room = eval_dim(*s.value);
    if (!room)
      return;
    if (!room->is_const() || room->as_const() < 0) {
      error(s.location, "a capacity is a number, `capacity C = 256`");
      return;
    }
    auto fixed = options_.dims.find(s.names[0]);
    frame_->locals[s.names[0]] = {fixed != options_.dims.end() ? Dim(fixed->second) : Dim::symbol(s.names[0])};
    library.globals[s.names[0]] = frame_->locals[s.names[0]];
    if (fixed == options_.dims.end())
      module_.capacities[s.names[0]] = room->as_const();
    return;
  }
  case StmtKind::constraint: {
    bind_symbols(*s.value);
    bind_symbols(*s.message);
    auto a = eval_dim(*s.value), b = eval_dim(*s.message);
    if (a && b)
      require_equal(*a, *b, s.location, s.text);
    return;
  }
  case StmtKind::return_:
  case StmtKind::yield:
    error(s.location, "this stands outside of any function");
    return;
  default:
    run_statement(s);
    for (auto &[name, value] : frame_->locals) {
      if (library.own)
        name_objects(name, value);
      library.globals[name] = value;
    }
  }
}

// Entries are exported functions and those that the file refers to as @name. A file that exports nothing
// (a dump of a piece of a model, a test) has all its functions with typed parameters as entries.
void Elaborator::find_entries() {
  bool exports = false;
  for (const auto &s : main_->file.body)
    exports |= s->func && s->func->exported;
  for (const auto &s : main_->file.body) {
    if (!s->func)
      continue;
    const FuncDecl &decl = *s->func;
    bool typed = std::all_of(decl.params.begin(), decl.params.end(), [](const Param &p) {
      return p.type && p.type->kind == ExprKind::index;
    });
    bool entry = decl.exported || main_->file.refs.count(decl.name) || (!exports && typed);
    if (!entry || !entry_ids_.emplace(decl.name, FunctionId(entry_decls_.size())).second)
      continue;
    entry_decls_.push_back(&decl);
  }
  entry_states_.resize(entry_decls_.size(), EntryState::waiting);
  module_.functions.resize(entry_decls_.size());
  for (size_t i = 0; i < entry_decls_.size(); ++i) {
    module_.functions[i].name = entry_decls_[i]->name;
    module_.functions[i].exported = entry_decls_[i]->exported;
    module_.functions[i].location = entry_decls_[i]->location;
  }
}

// The type of an entry's parameter: its own symbols stand for themselves.
bool Elaborator::entry_type(const Expr &expr, TensorType &out) {
  if (expr.kind == ExprKind::index)
    for (size_t i = 1; i < expr.kids.size(); ++i)
      bind_symbols(*expr.kids[i]);
  auto type = concrete_type(expr);
  if (type)
    out = *type;
  return type.has_value();
}

bool Elaborator::declare_arguments(const FuncDecl &decl, Function &f) {
  bool ok = true;
  for (const Param &p : decl.params) {
    if (p.type && p.type->kind == ExprKind::index) {
      TensorType type;
      if (!entry_type(*p.type, type)) {
        frame_->locals[p.name] = {Poison{}};
        ok = false;
        continue;
      }
      ValueId id = f.add_argument(f.body, std::move(type), p.name);
      f.value(id).layout = p.layout;
      fn_->arguments.push_back(node_location(p.location));
      if (!p.device.empty() && p.device != decl.device)
        id = copied_to(id, p.device, p.location);
      frame_->locals[p.name] = tensor(id);
    } else if (p.default_value) {
      frame_->locals[p.name] = eval(*p.default_value);
    } else {
      error(p.location, fmt::format("the parameter '{}' of {} needs a tensor type such as f32[N, 3]",
                                    p.name, decl.exported ? "an exported function" : "this function"));
      frame_->locals[p.name] = {Poison{}};
      ok = false;
    }
  }
  return ok;
}

void Elaborator::set_results(const FuncDecl &decl, Function &f, Datum result) {
  // Where statements were left out for their syntax, the return may have been among them.
  if (result.poison() || (result.none() && !main_->file.skipped.empty()))
    return;
  std::vector<Datum> items;
  if (auto *list = result.get<ListData *>())
    items = (*list)->items;
  else if (!result.none())
    items.push_back(result);
  if (decl.typed_results && decl.results.size() != items.size()) {
    bool none = decl.results.size() == 1 && decl.results[0].type->kind == ExprKind::none;
    if (!none || !items.empty()) {
      error(decl.location, fmt::format("'{}' declares {} result{} but returns {}", decl.name,
                                       decl.results.size(), decl.results.size() == 1 ? "" : "s",
                                       items.size()));
      return;
    }
  }
  for (size_t i = 0; i < items.size(); ++i) {
    Datum &item = items[i];
    const ResultDecl *declared = decl.typed_results ? &decl.results[i] : nullptr;
    std::string what = fmt::format("the result{} of '{}'",
                                   items.size() > 1 ? " " + std::to_string(i + 1) : "", decl.name);
    if (declared && !unify(*declared->type, item, what, declared->type->location))
      continue;
    auto id = as_tensor(item, decl.location);
    if (!id)
      continue;
    f.body.results.push_back(*id);
    std::string name = declared ? declared->name : "";
    if (name.empty() && f.value(*id).def.valid())
      name = f.value(*id).name;
    if (name.empty() || std::count(f.result_names.begin(), f.result_names.end(), name))
      name = items.size() > 1 ? "output" + std::to_string(i) : "output";
    if (declared && !declared->name.empty() && f.value(*id).name.empty())
      f.value(*id).name = declared->name;
    f.result_names.push_back(std::move(name));
  }
}

void Elaborator::elaborate_function(FunctionId id) {
  size_t index = size_t(id);
  if (entry_states_[index] != EntryState::waiting)
    return;
  entry_states_[index] = EntryState::running;
  const FuncDecl &decl = *entry_decls_[index];
  Function &f = module_.functions[index];
  FunctionState state{f, GraphBuilder(module_, f, f.body), {}, {}, 0, {}, {}};
  Frame frame;
  frame.library = main_;
  frame.name = decl.name;
  auto *saved_fn = std::exchange(fn_, &state);
  auto *saved_frame = std::exchange(frame_, &frame);
  auto saved_trace = std::exchange(trace_, {});
  for (const Stmt *dim : dim_sources_)
    frame.dims[dim->names[0]] = Dim::symbol(dim->names[0]);
  if (!decl.device.empty())
    set_function_device(module_, f.name, decl.device);
  declare_arguments(decl, f);
  Flow flow = run_body(decl.body);
  if (flow != Flow::error)
    set_results(decl, f, frame.result);
  check_devices();
  fn_ = saved_fn;
  frame_ = saved_frame;
  trace_ = std::move(saved_trace);
  entry_states_[index] = EntryState::done;
}

// `dim N = 0..64 from held`: the variables have their names now.
void Elaborator::bind_dim_sources() {
  for (const Stmt *dim : dim_sources_) {
    size_t i = 0;
    while (i < module_.variables.size() && module_.variables[i].name != dim->text)
      ++i;
    bool fits = i < module_.variables.size() && module_.variables[i].type == TensorType{DType::i64, {}};
    if (!fits)
      error(dim->location, fmt::format("the dim {} is taken from '{}', which is no state of type i64[]", dim->names[0], dim->text));
    else if (options_.dims.contains(dim->names[0]))
      error(dim->location, fmt::format("the dim {} is taken from '{}' and cannot be fixed", dim->names[0], dim->text));
    else
      module_.dim_variables[dim->names[0]] = VariableId(i);
  }
}

bool Elaborator::run(std::string_view file_name, std::string_view text) {
  Symbol file{file_name};
  diagnostics_.add_source(file, std::string(text));
  size_t errors = diagnostics_.error_count();
  prelude_ = const_cast<Library *>(load_library("prelude", {file, 1, 1, {}}));
  for (const auto &[name, value] : options_.dims)
    if (value < 0)
      error({file, 0, 0, {}}, fmt::format("the dim {} cannot be {}", name, value));
  main_ = &libraries_.emplace_back();
  main_->own = true;
  main_->file = parse_file(file, text, diagnostics_);
  // Entries have ids before anything runs, so that @name can be resolved everywhere.
  find_entries();
  declare(*main_);
  name_imported();
  for (size_t i = 0; i < entry_decls_.size(); ++i)
    elaborate_function(FunctionId(i));
  elaborate_init();
  load_weights();
  bind_dim_sources();
  std::set<std::pair<std::string, std::string>> seen;
  std::erase_if(module_.constraints, [&](const Module::Constraint &c) {
    return !seen.emplace(c.a.text(), c.b.text()).second;
  });
  return diagnostics_.error_count() == errors;
}

} // namespace kiln::kir

namespace kiln {

bool load_kir(std::string_view file_name, std::string_view text, const KirOptions &options,
              Module &module, Diagnostics &diagnostics) {
  constexpr size_t kLargest = size_t(256) << 20;
  if (text.size() > kLargest) {
    diagnostics.error({Symbol(file_name), 0, 0, {}},
                      fmt::format("the file has {} bytes; at most {} are read", text.size(), kLargest));
    return false;
  }
  if (module.name.empty()) {
    size_t slash = file_name.rfind('/');
    std::string_view stem = file_name.substr(slash == std::string_view::npos ? 0 : slash + 1);
    module.name = std::string(stem.substr(0, stem.rfind('.')));
  }
  return kir::Elaborator(module, options, diagnostics).run(file_name, text);
}

} // namespace kiln
