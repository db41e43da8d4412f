// run_cases FOLDER [DEVICE [COUNT]]: the op table, or its first COUNT ops, from the packages of make_cases, against the references. Links the
// runtime and the interpreter, no code generator.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

#include "tests/gpu/cases.h"
#include "tests/targets/check_target.h"
#include "tests/targets/loaded_package.h"

#include <algorithm>

using namespace kiln;
using namespace kiln::test;

namespace {

std::string g_folder, g_device = "cuda:0";
size_t g_most = SIZE_MAX;

class FolderTarget : public Target {
public:
  std::string name() const override { return g_device; }
  Result<std::unique_ptr<Loaded>> load(Module) override {
    std::ifstream file(case_file(g_folder, next_++), std::ios::binary);
    std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    return load_package({reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size()}, g_device.c_str());
  }

private:
  size_t next_ = 0;
};

} // namespace

TEST_CASE("the op table on a device") {
  FolderTarget target;
  size_t there = 0;
  while (std::ifstream(case_file(g_folder, there)))
    ++there;
  REQUIRE(there > 0);
  check_target(target, std::min(there, g_most));
}

int main(int argc, char **argv) {
  g_folder = argc > 1 ? argv[1] : ".";
  if (argc > 2)
    g_device = argv[2];
  if (argc > 3)
    g_most = std::stoul(argv[3]);
  return Catch::Session().run(1, argv);
}
