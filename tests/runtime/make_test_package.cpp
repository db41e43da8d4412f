// Writes the test model's package to the path given, for the programs that are not Catch tests.
#include <cstdio>

#include "tests/runtime/test_model.h"

int main(int argc, char **argv) {
  if (argc != 2)
    return 2;
  std::vector<uint8_t> image = kiln::test::read_file(kiln::test::image_path());
  std::string error = kiln::write_package(kiln::test::make_spec(image), argv[1]);
  if (!error.empty())
    std::fprintf(stderr, "%s\n", error.c_str());
  return error.empty() ? 0 : 1;
}
