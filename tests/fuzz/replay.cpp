// Runs a fuzz target once for each file named: what a fuzzer found stays mended in every build, also
// without clang. A finding ends the process, after the name of its file.
#include "frontend/files/mapped_file.h"

#include <cstdio>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv) {
  for (int i = 1; i < argc; ++i) {
    std::fprintf(stderr, "%s\n", argv[i]);
    auto file = kiln::MappedFile::open(argv[i]);
    if (!file) {
      std::fprintf(stderr, "%s\n", file.error().message.c_str());
      return 1;
    }
    std::span<const std::byte> bytes = (*file)->bytes();
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size());
  }
  return argc > 1 ? 0 : 1;
}
