// Writes the test model's package, for the programs that are not Catch tests.
//   make_test_package PACKAGE [IMAGE TARGET]
#include <cstdio>

#include "tests/runtime/test_model.h"

int main(int argc, char **argv) {
  if (argc != 2 && argc != 4)
    return 2;
  std::vector<uint8_t> image =
      kiln::test::read_file(argc == 4 ? argv[2] : kiln::test::image_path().c_str());
  kiln::PackageSpec spec = kiln::test::make_spec(image);
  if (argc == 4)
    spec.code[0].target = argv[3];
  std::string error = kiln::write_package(spec, argv[1]);
  if (!error.empty())
    std::fprintf(stderr, "%s\n", error.c_str());
  return error.empty() ? 0 : 1;
}
