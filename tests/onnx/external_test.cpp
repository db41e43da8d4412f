// External data: found beneath the model's folder, nowhere else.
#include "tests/onnx/harness.h"

#include "frontend/files/file_writer.h"
#include "tests/temp_folder.h"

#include <filesystem>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

std::string external(const std::string &location, const std::string &offset, const std::string &length) {
  std::vector<std::pair<std::string, std::string>> entries = {{"location", location}, {"offset", offset}, {"length", length}};
  std::erase_if(entries, [](const auto &entry) { return entry.second.empty(); });
  return external_tensor(entries);
}

} // namespace

TEST_CASE("external data") {
  TempFolder folder;
  fs::path model_folder = folder.path / "model";
  fs::create_directories(model_folder / "sub");
  Tensor values_ = floats({4}, {1, 2, 3, 4});
  REQUIRE(write_file((model_folder / "w.bin").string(), values_.bytes()).ok());
  REQUIRE(write_file((model_folder / "sub" / "w.bin").string(), values_.bytes()).ok());
  REQUIRE(write_file((folder.path / "secret.bin").string(), values_.bytes()).ok());
  fs::create_symlink(folder.path / "secret.bin", model_folder / "link.bin");
  fs::create_directory_symlink(folder.path, model_folder / "out");

  auto import = [&](const std::string &tensor, Module &module) {
    GraphMaker g;
    g.raw_weight(tensor).node("Neg", {"w"}, {"y"}).output("y");
    std::string path = (model_folder / "m.onnx").string();
    REQUIRE(write_file(path, g.model()).ok());
    Diagnostics diagnostics;
    return import_onnx(path, {}, module, diagnostics) ? std::string() : diagnostics.render();
  };
  auto errors = [&](const std::string &location, const std::string &offset = "", const std::string &length = "") {
    Module module;
    return import(external(location, offset, length), module);
  };

  for (std::string location : {"w.bin", "./w.bin", "sub/w.bin", "sub/./w.bin"}) {
    Module module;
    INFO(location);
    CHECK(import(external(location, "8", "8"), module) == "");
    VariableValues variables;
    auto out = interpret(module, module.functions.at(0), {}, variables);
    REQUIRE(out.ok());
    CHECK(values((*out)[0]) == std::vector<double>{-3, -4});
  }
  CHECK_THAT(errors((folder.path / "secret.bin").string()), Contains("relative"));
  CHECK_THAT(errors("../secret.bin"), Contains(".."));
  CHECK_THAT(errors("sub/../../secret.bin"), Contains(".."));
  CHECK_THAT(errors("link.bin"), Contains("symbolic links"));
  CHECK_THAT(errors("out/secret.bin"), Contains("cannot open"));
  CHECK_THAT(errors("sub"), Contains("not a regular file"));
  CHECK_THAT(errors(""), Contains("empty"));
  CHECK_THAT(errors("nothing.bin"), Contains("nothing.bin"));
  CHECK_THAT(errors("w.bin", "12", "8"), Contains("has 16"));
  CHECK_THAT(errors("w.bin", "9223372036854775807", "8"), Contains("has 16"));
  CHECK_THAT(errors("w.bin", "-8", "8"), Contains("offset"));
  CHECK_THAT(errors("w.bin", "8", "99999999999999999999"), Contains("length"));
  CHECK_THAT(errors("w.bin", "0", "4"), Contains("4 bytes, but its shape needs 8"));
}

TEST_CASE("a model in memory cannot name files") {
  GraphMaker g;
  g.raw_weight(external("w.bin", "", "")).node("Neg", {"w"}, {"y"}).output("y");
  CHECK_THAT(Imported(g.model()).errors(), Contains("in memory"));
}
