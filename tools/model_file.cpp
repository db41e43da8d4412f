// From a path on the command line to a module: .onnx, .kir, or .kir on standard input.
#include "tools/cli.h"
#include "tools/usage.h"

#include "frontend/data/npz.h"
#include "frontend/data/safetensors.h"
#include "frontend/files/mapped_file.h"
#include "frontend/kir/kir.h"
#include "frontend/onnx/import.h"
#include "passes/graph/state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <fstream>
#include <iostream>

namespace kiln {
namespace {

constexpr int64_t kMaxListLength = 1 << 16;

struct DimChoices {
  std::map<std::string, int64_t> fixed;
  std::map<std::string, std::pair<int64_t, int64_t>> bounds;
  std::map<std::string, std::vector<int64_t>> shapes;
  std::map<std::string, OnnxList> lists;
};

// "none", "?", "[2x3,4x3]", "[3*2x3]", "[2*?]"; nothing where the text is none of these.
std::optional<OnnxList> parse_list(std::string_view text) {
  OnnxList out;
  out.absent = text == "none";
  out.is_list = text.starts_with('[');
  if (text == "?")
    out.items.emplace_back();
  if (!out.is_list)
    return out.absent || text == "?" ? std::optional(out) : std::nullopt;
  if (!text.ends_with(']'))
    return std::nullopt;
  text = text.substr(1, text.size() - 2);
  while (!text.empty()) {
    size_t comma = text.find(',');
    std::string_view item = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    size_t star = item.find('*');
    auto count = star == std::string_view::npos ? std::optional<int64_t>(1) : parse_int(item.substr(0, star));
    if (star != std::string_view::npos)
      item = item.substr(star + 1);
    else if (item.empty())
      return std::nullopt; // a scalar is written 1*
    auto shape = item == "?" ? std::nullopt : parse_shape(item);
    if (!count || *count < 0 || *count > kMaxListLength || (item != "?" && !shape))
      return std::nullopt;
    out.items.insert(out.items.end(), size_t(*count), shape);
    if (out.items.size() > size_t(kMaxListLength))
      return std::nullopt;
  }
  return out;
}

// "N=4", "N=1..64"
Status parse_dim(const std::string &text, DimChoices &out) {
  size_t equals = text.find('='), dots = text.find("..");
  Error error{fmt::format("'{}': write NAME=SIZE or NAME=LEAST..MOST", text)};
  if (equals == std::string::npos || equals == 0)
    return error;
  std::string name = text.substr(0, equals);
  if (dots == std::string::npos) {
    auto value = parse_int(std::string_view(text).substr(equals + 1));
    if (!value || *value < 0)
      return error;
    out.fixed[name] = *value;
    return Unit{};
  }
  auto lo = dots > equals ? parse_int(std::string_view(text).substr(equals + 1, dots - equals - 1)) : std::nullopt;
  auto hi = parse_int(std::string_view(text).substr(dots + 2));
  if (!lo || !hi || *lo < 0 || *hi < *lo)
    return error;
  out.bounds[name] = {*lo, *hi};
  return Unit{};
}

Status parse_input_shape(const std::string &text, DimChoices &out) {
  size_t equals = text.rfind('=');
  auto list = equals == std::string::npos ? std::nullopt : parse_list(std::string_view(text).substr(equals + 1));
  auto shape = equals == std::string::npos ? std::nullopt : parse_shape(std::string_view(text).substr(equals + 1));
  if (equals == 0 || (!list && !shape))
    return Error{fmt::format("'{}': write INPUT=1x3x224x224, or INPUT=[2x3,3*?] and INPUT=none for sequences and optionals", text)};
  if (list)
    out.lists[text.substr(0, equals)] = std::move(*list);
  else
    out.shapes[text.substr(0, equals)] = *shape;
  return Unit{};
}

// Each value of an option, added to `out` by `parse`.
template <typename Out> Status parse_each(const char *option, const std::vector<std::string> &texts, Status (*parse)(const std::string &, Out &), Out &out) {
  for (const std::string &text : texts)
    if (auto status = parse(text, out); !status)
      return Error{fmt::format("{} {}", option, status.error().message)};
  return Unit{};
}

Result<DimChoices> parse_dims(const ModelOptions &options) {
  DimChoices out;
  KILN_RETURN_IF_ERROR(parse_each("--dim", options.dims, parse_dim, out));
  KILN_RETURN_IF_ERROR(parse_each("--shape", options.shapes, parse_input_shape, out));
  return out;
}

Status parse_state(const std::string &text, StateOptions &out) {
  Error error{fmt::format("'{}': write auto, auto:256, PAST=PRESENT or PAST=PRESENT:256", text)};
  size_t colon = text.rfind(':'), equals = text.find('=');
  std::string names = text.substr(0, colon);
  auto capacity = colon == std::string::npos ? std::optional<int64_t>(0) : parse_int(std::string_view(text).substr(colon + 1));
  if (!capacity || *capacity < 0 || (colon != std::string::npos && *capacity == 0))
    return error;
  if (names == "auto") {
    out.find = true;
    out.capacity = *capacity;
  } else if (equals == std::string::npos || equals == 0 || equals + 1 >= names.size()) {
    return error;
  } else {
    out.pairs.push_back({names.substr(0, equals), names.substr(equals + 1), *capacity});
  }
  return Unit{};
}

Result<StateOptions> parse_states(const ModelOptions &options) {
  StateOptions out;
  KILN_RETURN_IF_ERROR(parse_each("--state", options.states, parse_state, out));
  return out;
}

bool fail(Diagnostics &diagnostics, const std::string &path, const Error &error) {
  diagnostics.error({Symbol(path), 0, 0, {}}, error.message);
  return false;
}

// A dump has its constants in a file of the same name beside it, or one for the whole folder.
std::string weights_beside(const std::string &path) {
  std::filesystem::path file(path);
  std::error_code ignored;
  for (const char *extension : {".safetensors", ".npz"})
    for (auto candidate : {std::filesystem::path(file).replace_extension(extension),
                           file.parent_path() / (std::string("weights") + extension)})
      if (std::filesystem::is_regular_file(candidate, ignored))
        return candidate.string();
  return "";
}

bool load_weights(const std::string &path, KirOptions &kir, Module &module, Diagnostics &diagnostics) {
  if (std::filesystem::path(path).extension() == ".npz") {
    auto arrays = read_npz(path);
    if (!arrays)
      return fail(diagnostics, path, arrays.error());
    for (auto &[name, tensor] : *arrays)
      kir.weights.insert_or_assign(name, std::move(tensor));
    return true;
  }
  auto file = read_safetensors(path);
  if (!file)
    return fail(diagnostics, path, file.error());
  for (auto &[name, tensor] : file->tensors)
    kir.weights.insert_or_assign(name, std::move(tensor));
  if (file->keep_alive)
    module.keep_alive.push_back(file->keep_alive);
  return true;
}

// `import name` reads name.kir from the folder of the importing file, nothing above it.
std::optional<std::string> read_beside(const std::string &path, std::string_view name) {
  if (path == "-" || name.find_first_of("/\\") != std::string_view::npos)
    return std::nullopt;
  std::string folder = std::filesystem::path(path).parent_path().string();
  auto file = MappedFile::open_beneath(folder.empty() ? "." : folder, std::string(name) + ".kir");
  if (!file)
    return std::nullopt;
  return std::string(reinterpret_cast<const char *>((*file)->bytes().data()), (*file)->size());
}

// The file of `import "base.onnx" as base`: one beside the program or below, or what --import base=FILE says.
bool import_model(const ModelOptions &options, const ModelRequest &request, Module &module, Diagnostics &diagnostics) {
  OnnxOptions onnx;
  onnx.placed = request.shapes;
  onnx.results = request.results;
  onnx.weights = request.weights;
  for (const std::string &text : options.imports)
    if (text.starts_with(request.name + "="))
      return import_onnx(text.substr(request.name.size() + 1), onnx, module, diagnostics);
  std::string folder = options.path == "-" ? "." : std::filesystem::path(options.path).parent_path().string();
  if (folder.empty())
    folder = ".";
  if (auto file = MappedFile::open_beneath(folder, request.file); !file)
    return fail(diagnostics, request.file, file.error());
  return import_onnx(folder + "/" + request.file, onnx, module, diagnostics);
}

bool load_kir_file(const ModelOptions &options, const DimChoices &dims, Module &module, Diagnostics &diagnostics) {
  std::string text;
  std::string name = options.path == "-" ? "<stdin>" : options.path;
  if (options.path == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    auto file = MappedFile::open(options.path);
    if (!file)
      return fail(diagnostics, "", file.error());
    text.assign(reinterpret_cast<const char *>((*file)->bytes().data()), (*file)->size());
  }
  KirOptions kir;
  kir.dims = dims.fixed;
  kir.remat = options.remat;
  kir.called = options.called.get();
  kir.read_import = [&](std::string_view import) { return read_beside(options.path, import); };
  std::set<std::string> imported;
  kir.import_model = [&](const ModelRequest &request, Module &part, Diagnostics &found) {
    imported.insert(request.name);
    return import_model(options, request, part, found);
  };
  std::string weights = options.weights.empty() && options.path != "-" ? weights_beside(options.path) : options.weights;
  if (!weights.empty() && !load_weights(weights, kir, module, diagnostics))
    return false;
  kir.strict_weights = !options.weights.empty();
  bool fine = load_kir(name, text, kir, module, diagnostics);
  for (const std::string &given : options.imports)
    if (std::string alias = given.substr(0, given.find('=')); !imported.contains(alias) || alias.size() == given.size()) {
      diagnostics.error({Symbol(name), 0, 0, {}}, fmt::format("--import {}: nothing is imported as '{}'; write --import NAME=FILE for a program's "
                                                              "`import \"...\" as NAME`", given, alias));
      fine = false;
    }
  return fine;
}

} // namespace

void ModelOptions::add_to(CLI::App &app, bool with_path) {
  if (with_path)
    app.add_option("model", path, "a .kir or .onnx file, or a package where the verb takes one")->required();
  app.add_option("--winograd", winograd,
                 "tiles of 3x3 convolutions: auto (default, by size), 2, 4, or off; larger ones round more")
      ->check(CLI::IsMember({"off", "2", "4", "auto"}));
  app.add_option("--dim", dims, "N=4 fixes a symbolic size, N=1..64 bounds it")
      ->allow_extra_args(false)
      ->check(well_formed([](const std::string &text) { DimChoices ignored; return parse_dim(text, ignored); }));
  app.add_option("--shape", shapes, "INPUT=1x3x224x224 fixes an input's shape; INPUT=[2x3,3*?] that of a sequence; INPUT=none leaves it out")
      ->allow_extra_args(false)
      ->check(well_formed([](const std::string &text) { DimChoices ignored; return parse_input_shape(text, ignored); }));
  app.add_option("--state", states, "PAST=PRESENT: an input and an output become state that stays in place; PAST=PRESENT:256 says how "
                                    "much it holds; auto or auto:256 finds the pairs by name")
      ->allow_extra_args(false)
      ->check(well_formed([](const std::string &text) { StateOptions ignored; return parse_state(text, ignored); }));
  app.add_option("--import", imports, "NAME=FILE: the file of a .kir model's `import \"...\" as NAME`")
      ->allow_extra_args(false)
      ->check(named("NAME=FILE"));
  app.add_option("--weights", weights, ".npz or .safetensors with the values of a .kir model's parameters");
  app.add_option("--compress-weights", compress_weights, "keep constant weights as bf16, f16 or i8 (default: f32, as they are)")
      ->check(CLI::IsMember({"f32", "bf16", "f16", "i8"}));
  app.add_flag("--json", json, "reports as JSON");
}

void set_compile_options(const ModelOptions &model, CompileOptions &options) {
  options.weights = dtype_from_name(model.compress_weights).value_or(DType::f32);
  options.winograd = parse_winograd(model.winograd);
}

bool is_package(const std::string &path) {
  char magic[8] = {};
  std::ifstream file(path, std::ios::binary);
  file.read(magic, 4);
  return std::filesystem::path(path).extension() == ".kiln" || std::string_view(magic, 4) == "KILN";
}

Status for_package(const ModelOptions &options) {
  const std::pair<const char *, bool> given[] = {{"--shape", !options.shapes.empty()},
                                                 {"--state", !options.states.empty()},
                                                 {"--import", !options.imports.empty()},
                                                 {"--weights", !options.weights.empty()},
                                                 {"--compress-weights", options.compress_weights != "f32"},
                                                 {"--winograd", options.winograd != "auto"},
                                                 {"--dim NAME=LEAST..MOST", std::any_of(options.dims.begin(), options.dims.end(), [](const std::string &text) {
                                                    return text.find("..") != std::string::npos;
                                                  })}};
  for (const auto &[flag, is_given] : given)
    if (is_given)
      return Error{fmt::format("'{}' is a package: {} is for the model file that it is compiled from", options.path, flag)};
  return Unit{};
}

Status spares_model(const ModelOptions &options, const std::string &output) {
  std::vector<std::string> read = {options.path, options.weights};
  for (const std::string &import : options.imports)
    read.push_back(import.substr(import.find('=') + 1));
  std::error_code ignored;
  for (const std::string &file : read)
    if (!file.empty() && file != "-" && std::filesystem::is_regular_file(file, ignored) && std::filesystem::equivalent(file, output, ignored))
      return Error{fmt::format("'{}' is what the model is read from; give the result another name", output)};
  return Unit{};
}

bool load_model(const ModelOptions &options, Module &module, Diagnostics &diagnostics) {
  auto dims = parse_dims(options);
  if (!dims) {
    diagnostics.error({}, dims.error().message);
    return false;
  }
  std::string extension = std::filesystem::path(options.path).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  bool fine;
  if (std::error_code ignored; options.path != "-" && !std::filesystem::exists(options.path, ignored))
    return fail(diagnostics, options.path, Error{fmt::format("cannot open {}: {}", options.path, std::strerror(ENOENT))});
  if (extension == ".onnx") {
    if (!options.weights.empty() || !options.imports.empty())
      return fail(diagnostics, options.path, Error{fmt::format("{} is for .kir programs; an ONNX model names its own weights",
                                                               options.weights.empty() ? "--import" : "--weights")});
    OnnxOptions onnx;
    for (const auto &[name, value] : dims->fixed)
      onnx.dims[name] = Dim(value);
    onnx.shapes = dims->shapes;
    onnx.lists = dims->lists;
    fine = import_onnx(options.path, onnx, module, diagnostics);
  } else if (extension == ".kir" || options.path == "-") {
    fine = load_kir_file(options, *dims, module, diagnostics);
  } else {
    diagnostics.error({Symbol(options.path), 0, 0, {}},
                      fmt::format("'{}' is neither .kir nor .onnx; pass a model file, or - for .kir on standard input",
                                  options.path));
    return false;
  }
  for (const auto &[name, bounds] : dims->bounds)
    module.dim_bounds[name] = bounds;
  auto states = parse_states(options);
  if (!states) {
    diagnostics.error({}, states.error().message);
    return false;
  }
  if (fine && !diagnostics.has_errors())
    fine = make_state(module, *states, diagnostics);
  if (module.name.empty())
    module.name = options.path == "-" ? "model" : std::filesystem::path(options.path).stem().string();
  return fine && !diagnostics.has_errors();
}

Result<std::map<std::string, int64_t>> fixed_dims(const ModelOptions &options) {
  auto dims = parse_dims(options);
  if (!dims)
    return dims.error();
  return dims->fixed;
}

} // namespace kiln
