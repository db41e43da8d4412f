// Modules of the fake driver: the shared objects that tests/fake_driver/fake_nvrtc.cpp makes, and how their kernels run.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace kiln::fake {

using Call = void (*)(const unsigned *, const unsigned *, unsigned, void **);
using Share = void (*)(unsigned long long *);
// A copy of a module's library, with globals of its own: blocks run in several at once.
struct Image {
  void *library = nullptr;
  Share share = nullptr;
};
struct Module;
struct Function {
  Module *module = nullptr;
  std::string symbol;
  std::vector<Call> calls; // by image
  std::vector<size_t> sizes;
  unsigned most_shared = 48u << 10; // what a block gets without being asked for more
};
struct Module {
  int device = -1;
  std::vector<char> bytes;
  std::vector<Image> images;
  std::map<std::string, Function> functions;
};

// A number that the environment names.
int number_of(const char *name, int otherwise);
// Loads a module's library once more.
bool add_image(Module &module);
void run_blocks(Function &f, const unsigned *grid, const unsigned *block, unsigned shared_bytes, void **args);

} // namespace kiln::fake
