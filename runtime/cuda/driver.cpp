#include "runtime/cuda/driver.h"

#include <cstdlib>
#include <dlfcn.h>
#include <pthread.h>

// Weak, so that static programs, which cannot load libraries, need nothing for this.
#pragma weak dlopen
#pragma weak dlsym

namespace kiln::rt {
namespace {

struct Opened {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  bool is_tried = false;
  bool is_fine = false;
  int answer = 0;
  const char *missing = nullptr; // the function that the library lacks
  bool is_found = false;
  Driver driver{};
};
Opened g_opened;

void try_open(Opened &opened) {
  const char *path = secure_getenv("KILN_CUDA_DRIVER");
  void *library = dlopen(path != nullptr ? path : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return;
  opened.is_found = true;
#define KILN_DRIVER(name, parameters)                                                  \
  opened.driver.name = reinterpret_cast<int(*) parameters>(dlsym(library, #name));     \
  if (opened.driver.name == nullptr && opened.missing == nullptr)                      \
    opened.missing = #name;
#include "runtime/cuda/driver_functions.def"
#undef KILN_DRIVER
  if (opened.missing != nullptr)
    return;
  opened.answer = opened.driver.cuInit(0);
  opened.is_fine = opened.answer == 0;
}

} // namespace

const Driver *open_driver(KilnError *error) {
  // By way of variables: compilers take it that a function has an address.
  void *(*volatile open_library)(const char *, int) = dlopen;
  void *(*volatile find_symbol)(void *, const char *) = dlsym;
  if (open_library == nullptr || find_symbol == nullptr) {
    fail(error, KILN_ERROR_DEVICE, "a static program cannot load a GPU's driver");
    return nullptr;
  }
  pthread_mutex_lock(&g_opened.lock);
  if (!g_opened.is_tried)
    try_open(g_opened);
  g_opened.is_tried = true;
  pthread_mutex_unlock(&g_opened.lock);
  if (g_opened.is_fine)
    return &g_opened.driver;
  if (!g_opened.is_found)
    fail(error, KILN_ERROR_DEVICE, "no CUDA driver: libcuda.so.1 cannot be loaded; install NVIDIA's driver");
  else if (g_opened.missing != nullptr)
    fail(error, KILN_ERROR_DEVICE, "the CUDA driver is too old: it has no ", g_opened.missing, "; CUDA 12 is needed");
  else
    fail_driver(g_opened.driver, "cuInit", g_opened.answer, error);
  return nullptr;
}

int32_t fail_driver(const Driver &driver, const char *call, int answer, KilnError *error) {
  const char *name = nullptr, *text = nullptr;
  driver.cuGetErrorName(answer, &name);
  driver.cuGetErrorString(answer, &text);
  return fail(error, KILN_ERROR_DEVICE, call, " failed: ", name != nullptr ? name : "an unknown error", " (", text != nullptr ? text : "",
              ")");
}

} // namespace kiln::rt
