#include "tools/cli.h"

#include "frontend/data/npy.h"
#include "frontend/data/npz.h"
#include "frontend/data/safetensors.h"
#include "frontend/files/mapped_file.h"
#include "frontend/kir/kir.h"
#include "frontend/onnx/import.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <iostream>

namespace kiln {
namespace {

std::optional<int64_t> parse_int(std::string_view text) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return std::nullopt;
  return value;
}

std::optional<std::vector<int64_t>> parse_shape(std::string_view text) {
  std::vector<int64_t> out;
  while (!text.empty()) {
    size_t x = text.find('x');
    auto value = parse_int(text.substr(0, x));
    if (!value || *value < 0)
      return std::nullopt;
    out.push_back(*value);
    text = x == std::string_view::npos ? std::string_view() : text.substr(x + 1);
  }
  return out;
}

struct DimChoices {
  std::map<std::string, int64_t> fixed;
  std::map<std::string, std::pair<int64_t, int64_t>> bounds;
  std::map<std::string, std::vector<int64_t>> shapes;
};

Result<DimChoices> parse_dims(const ModelOptions &options) {
  DimChoices out;
  for (const std::string &text : options.dims) {
    size_t equals = text.find('='), dots = text.find("..");
    Error error{fmt::format("--dim {}: write NAME=SIZE or NAME=LEAST..MOST", text)};
    if (equals == std::string::npos || equals == 0)
      return error;
    std::string name = text.substr(0, equals);
    if (dots == std::string::npos) {
      auto value = parse_int(std::string_view(text).substr(equals + 1));
      if (!value || *value < 0)
        return error;
      out.fixed[name] = *value;
    } else {
      auto lo = parse_int(std::string_view(text).substr(equals + 1, dots - equals - 1)),
           hi = parse_int(std::string_view(text).substr(dots + 2));
      if (!lo || !hi || *lo < 0 || *hi < *lo)
        return error;
      out.bounds[name] = {*lo, *hi};
    }
  }
  for (const std::string &text : options.shapes) {
    size_t equals = text.rfind('=');
    auto shape = equals == std::string::npos ? std::nullopt : parse_shape(std::string_view(text).substr(equals + 1));
    if (!shape || equals == 0)
      return Error{fmt::format("--shape {}: write INPUT=1x3x224x224", text)};
    out.shapes[text.substr(0, equals)] = *shape;
  }
  return out;
}

using TensorMap = std::map<std::string, Tensor>;

Result<TensorMap> load_tensors(const std::string &path) {
  return std::filesystem::path(path).extension() == ".npz" ? read_npz(path) : read_safetensors(path);
}

bool load_kir_file(const ModelOptions &options, const DimChoices &dims, Module &module, Diagnostics &diagnostics) {
  std::string text;
  std::string name = options.path == "-" ? "<stdin>" : options.path;
  if (options.path == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    auto file = MappedFile::open(options.path);
    if (!file) {
      diagnostics.error({Symbol(options.path), 0, 0, {}}, file.error().message);
      return false;
    }
    auto bytes = (*file)->bytes();
    text.assign(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  }
  KirOptions kir;
  kir.dims = dims.fixed;
  if (!options.weights.empty()) {
    auto weights = load_tensors(options.weights);
    if (!weights) {
      diagnostics.error({Symbol(options.weights), 0, 0, {}}, weights.error().message);
      return false;
    }
    kir.weights = std::move(*weights);
  }
  return load_kir(name, text, kir, module, diagnostics);
}

} // namespace

void ModelOptions::add_to(CLI::App &app, bool with_path) {
  if (with_path)
    app.add_option("model", path, "a .kir or .onnx file, or a package where the verb takes one")->required();
  app.add_option("--dim", dims, "N=4 fixes a symbolic size, N=1..64 bounds it")->expected(1)->allow_extra_args(false);
  app.add_option("--shape", shapes, "INPUT=1x3x224x224 fixes an input's shape")->expected(1)->allow_extra_args(false);
  app.add_option("--weights", weights, ".npz or .safetensors with the values of a .kir model's parameters");
  app.add_flag("--json", json, "reports as JSON");
}

bool is_package(const std::string &path) {
  char magic[8] = {};
  std::ifstream file(path, std::ios::binary);
  file.read(magic, 4);
  return std::filesystem::path(path).extension() == ".kiln" || std::string_view(magic, 4) == "KILN";
}

bool load_model(const ModelOptions &options, Module &module, Diagnostics &diagnostics) {
  auto dims = parse_dims(options);
  if (!dims) {
    diagnostics.error({}, dims.error().message);
    return false;
  }
  std::string extension = std::filesystem::path(options.path).extension().string();
  bool fine;
  if (extension == ".onnx") {
    OnnxOptions onnx;
    for (const auto &[name, value] : dims->fixed)
      onnx.dims[name] = Dim(value);
    onnx.shapes = dims->shapes;
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
  if (module.name.empty())
    module.name = options.path == "-" ? "model" : std::filesystem::path(options.path).stem().string();
  return fine && !diagnostics.has_errors();
}

Result<std::vector<MachineDesc>> parse_targets(const std::vector<std::string> &names) {
  std::vector<MachineDesc> out;
  for (const std::string &name : names.empty() ? std::vector<std::string>{"host"} : names) {
    auto machine = find_machine(name);
    if (!machine) {
      std::string known = "host";
      for (const MachineDesc &m : cpu_machines())
        known += ", " + m.name;
      return Error{fmt::format("unknown target '{}'; known: {}", name, known)};
    }
    bool twice = std::any_of(out.begin(), out.end(), [&](const MachineDesc &m) { return m.name == machine->name; });
    if (!twice)
      out.push_back(*machine);
  }
  return out;
}

Result<OptLevel> parse_level(const std::string &level) {
  if (level == "0")
    return OptLevel::o0;
  if (level == "1")
    return OptLevel::o1;
  if (level == "2")
    return OptLevel::o2;
  return Error{fmt::format("-O{}: the levels are 0, 1 and 2", level)};
}

int report(const Diagnostics &diagnostics, bool json) {
  if (json)
    std::cerr << diagnostics.render_json() << "\n";
  else
    std::cerr << diagnostics.render();
  return diagnostics.has_errors() ? kBadInput : kFine;
}

int report(const Error &error, bool json) {
  if (json)
    std::cerr << "{\"severity\": \"error\", \"message\": " << json_quote(error.message) << "}\n";
  else
    std::cerr << "kiln: error: " << error.message << "\n";
  return kBadInput;
}

Result<std::pair<std::string, Tensor>> parse_input(const std::string &text) {
  size_t equals = text.find('=');
  Error error{fmt::format("--input {}: write NAME=@FILE.npy or NAME=2x2xf32=1,2,3,4", text)};
  if (equals == std::string::npos || equals == 0)
    return error;
  std::string name = text.substr(0, equals), value = text.substr(equals + 1);
  if (value.starts_with('@')) {
    std::string path = value.substr(1);
    if (std::filesystem::path(path).extension() == ".npz") {
      auto arrays = read_npz(path);
      if (!arrays)
        return arrays.error();
      auto it = arrays->find(name);
      if (it == arrays->end())
        return Error{fmt::format("{} has no array '{}'", path, name)};
      return std::pair(name, std::move(it->second));
    }
    auto tensor = read_npy(path);
    if (!tensor)
      return tensor.error();
    return std::pair(name, std::move(*tensor));
  }
  size_t second = value.find('=');
  if (second == std::string::npos)
    return error;
  std::string_view type = std::string_view(value).substr(0, second);
  size_t x = type.rfind('x');
  auto dtype = dtype_from_name(x == std::string_view::npos ? type : type.substr(x + 1));
  auto dims = x == std::string_view::npos ? std::optional(std::vector<int64_t>()) : parse_shape(type.substr(0, x));
  auto bytes = dtype && dims ? checked_bytes(*dtype, *dims) : std::nullopt;
  if (!bytes)
    return error;
  int64_t count = *bytes / dtype_bytes(*dtype), given = 1;
  std::string_view list = std::string_view(value).substr(second + 1);
  for (char c : list)
    given += c == ',';
  if (list.empty())
    given = 0;
  if (given != count && given != 1)
    return Error{fmt::format("--input {}: {} values for {} elements", name, given, count)};
  Tensor tensor(*dtype, *dims);
  size_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    std::string item(list.substr(at, list.find(',', at) - at));
    char *end = nullptr;
    if (auto integer = parse_int(item); integer && !is_float(*dtype)) {
      tensor.set_i64(i, *integer);
    } else {
      double number = std::strtod(item.c_str(), &end);
      if (end == item.c_str() || *end)
        return Error{fmt::format("--input {}: '{}' is no number", name, item)};
      tensor.set_f64(i, number);
    }
    if (given > 1)
      at = list.find(',', at) == std::string_view::npos ? list.size() : list.find(',', at) + 1;
  }
  return std::pair(name, std::move(tensor));
}

Result<std::vector<std::pair<std::string, Tensor>>> parse_inputs(const std::vector<std::string> &texts) {
  std::vector<std::pair<std::string, Tensor>> out;
  for (const std::string &text : texts) {
    auto input = parse_input(text);
    if (!input)
      return input.error();
    out.push_back(std::move(*input));
  }
  return out;
}

std::string tensor_text(const Tensor &tensor, int64_t limit) {
  std::string out = tensor.type().text() + " ";
  int64_t shown = std::min(limit, tensor.count());
  const auto &dims = tensor.dims();
  for (int64_t i = 0; i < shown; ++i) {
    int64_t inner = 1;
    std::string open;
    for (size_t d = dims.size(); d-- > 0;) {
      inner *= dims[d];
      if (i % inner == 0)
        open += '[';
    }
    if (i > 0)
      out += open.empty() ? ", " : std::string(open.size(), ']') + ",\n ";
    out += open;
    if (is_float(tensor.dtype()))
      out += fmt::format("{:.6g}", tensor.at_f64(i));
    else if (is_bool(tensor.dtype()))
      out += tensor.at_i64(i) ? "true" : "false";
    else if (tensor.dtype() == DType::u64)
      out += fmt::format("{}", uint64_t(tensor.at_i64(i)));
    else
      out += fmt::format("{}", tensor.at_i64(i));
  }
  if (shown < tensor.count())
    out += fmt::format(", ... {} more", tensor.count() - shown);
  else if (tensor.count() == 0)
    out += "[]";
  return out + (tensor.count() == 0 ? "" : std::string(dims.size(), ']'));
}

bool compile_in_memory(Module &module, const CompileOptions &options, Compiled &compiled, PackageBytes &package,
                       Diagnostics &diagnostics) {
  if (!compile_module(module, options, compiled, diagnostics))
    return false;
  std::vector<uint8_t> bytes;
  if (std::string error = build_package(package_spec(module, compiled), bytes); !error.empty()) {
    diagnostics.error({}, error);
    return false;
  }
  constexpr size_t kPage = 4096;
  size_t rounded = (bytes.size() + kPage - 1) / kPage * kPage;
  std::shared_ptr<void> memory(std::aligned_alloc(kPage, rounded), std::free);
  std::memcpy(memory.get(), bytes.data(), bytes.size());
  package.bytes = {static_cast<const std::byte *>(memory.get()), bytes.size()};
  package.owner = std::move(memory);
  return true;
}

} // namespace kiln
