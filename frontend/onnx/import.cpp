// The two entry points: a file, or bytes.
#include "frontend/onnx/import.h"

#include "frontend/files/mapped_file.h"
#include "frontend/onnx/importer.h"

#include <fmt/format.h>

namespace kiln {
namespace {

bool import_bytes(std::span<const std::byte> bytes, const std::string &name,
                  std::optional<std::string> folder, const OnnxOptions &options, Module &module,
                  Diagnostics &diagnostics) {
  onnx::WireBudget budget;
  auto model = onnx::read_model({reinterpret_cast<const char *>(bytes.data()), bytes.size()}, budget);
  if (!model) {
    diagnostics.error({Symbol(name), 0, 0, {}},
                      fmt::format("cannot read the model: {}", model.error().message));
    return false;
  }
  onnx::Importer importer(options, module, diagnostics, name, onnx::ExternalFiles(std::move(folder)));
  return importer.run(*model);
}

} // namespace

bool import_onnx(const std::string &path, const OnnxOptions &options, Module &module,
                 Diagnostics &diagnostics) {
  auto file = MappedFile::open(path);
  if (!file) {
    diagnostics.error({Symbol(path), 0, 0, {}}, file.error().message);
    return false;
  }
  size_t slash = path.rfind('/');
  module.keep_alive.push_back(*file);
  return import_bytes((*file)->bytes(), path, slash == std::string::npos ? "." : path.substr(0, slash + 1),
                      options, module, diagnostics);
}

bool import_onnx(std::span<const std::byte> bytes, const std::string &name, const OnnxOptions &options,
                 Module &module, Diagnostics &diagnostics) {
  return import_bytes(bytes, name, std::nullopt, options, module, diagnostics);
}

} // namespace kiln
