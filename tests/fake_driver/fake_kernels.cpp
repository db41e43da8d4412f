#include "tests/fake_driver/fake_kernels.h"

#include "tests/fake_driver/accesses.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace kiln::fake {
namespace {

size_t threads() {
  static const int count = number_of("KILN_FAKE_CUDA_THREADS", int(std::clamp(std::thread::hardware_concurrency(), 1u, 4u)));
  return size_t(std::max(count, 1));
}

// Its code in that image, loaded when it is asked for.
Call call_in(Function &f, size_t image) {
  while (f.calls.size() <= image) {
    if (f.module->images.size() <= f.calls.size() && !add_image(*f.module))
      return nullptr;
    f.calls.push_back(reinterpret_cast<Call>(dlsym(f.module->images[f.calls.size()].library, f.symbol.c_str())));
  }
  return f.calls[image];
}

} // namespace

int number_of(const char *name, int otherwise) {
  const char *text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

bool add_image(Module &module) {
  // A name of its own: dlopen() gives back what is open under a name already.
  char path[] = "/tmp/kiln-fake-cubin-XXXXXX";
  int file = mkstemp(path);
  bool written = file >= 0 && write(file, module.bytes.data(), module.bytes.size()) == ssize_t(module.bytes.size());
  void *library = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (!library)
    std::fprintf(stderr, "fake cuda: %s\n", dlerror());
  close(file);
  unlink(path);
  if (!library)
    return false;
  if (auto report_to = reinterpret_cast<void (*)(kiln_shim::Analyse)>(dlsym(library, "kiln_shim_analyse")))
    report_to(&kiln_shim::analyse);
  module.images.push_back({library, reinterpret_cast<Share>(dlsym(library, "kiln_shim_share"))});
  return true;
}

void run_blocks(Function &f, const unsigned *grid, const unsigned *block, unsigned shared_bytes, void **args) {
  constexpr uint64_t kWorthThreads = 8192; // of the GPU's, in more than one block
  uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2], work = blocks * block[0] * block[1] * block[2];
  size_t count = f.module->images[0].share && work >= kWorthThreads ? std::min<uint64_t>(threads(), blocks) : 1;
  if (count == 1)
    return call_in(f, 0)(grid, block, shared_bytes, args);
  unsigned long long next = 0;
  std::vector<std::thread> others;
  for (size_t i = 0; i < count; ++i) {
    Call call = call_in(f, i);
    if (!call)
      std::abort();
    f.module->images[i].share(&next);
    if (i > 0)
      others.emplace_back([=] { call(grid, block, shared_bytes, args); });
  }
  call_in(f, 0)(grid, block, shared_bytes, args);
  for (std::thread &other : others)
    other.join();
  for (size_t i = 0; i < count; ++i)
    f.module->images[i].share(nullptr);
}

} // namespace kiln::fake
