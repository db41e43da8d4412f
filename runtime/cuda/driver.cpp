#include "runtime/cuda/driver.h"

#include <cstdlib>
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

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
  int process = 0; // that opened it
  Driver driver{};
};
Opened g_opened;

void try_open(Opened &opened) {
  const char *path = secure_getenv("KILN_CUDA_DRIVER");
  void *library = dlopen(path != nullptr ? path : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return;
  opened.is_found = true;
  opened.process = getpid();
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

// What there is to do about an error, for people.
void advise(const Driver &driver, int answer, Text &text) {
  switch (answer) {
  case kErrorNotInitialised:
    if (getpid() != g_opened.process)
      text << ": a process cannot use the GPU that it had before fork(): open the model after it";
    return;
  case kErrorInvalidImage:
  case kErrorNoBinary:
  case kErrorInvalidPtx:
  case kErrorPtxVersion: {
    int version = 0;
    driver.cuDriverGetVersion(&version);
    text << ": the driver is for CUDA " << int32_t{version / 1000} << "." << int32_t{version % 1000 / 10}
         << ": install a newer one, or compile the model with the NVRTC of that CUDA";
    return;
  }
  case kErrorNoPtxCompiler:
  case kErrorPtxDisabled:
    text << ": compile the model for this GPU instead of as PTX, with --cuda";
    return;
  case kErrorMismatch:
    text << ": the driver was updated while the system ran; start it again";
    return;
  default: { // what kernels do wrong, and what breaks: nothing works in this process any more
    bool is_fatal = answer == kErrorEcc || answer == kErrorNvlink || answer == kErrorAddress || answer == kErrorTimeout ||
                    answer == kErrorDestroyed || answer == kErrorAssert || (answer >= kErrorStack && answer <= kErrorLaunchFailed);
    if (is_fatal)
      text << ": the process cannot use this GPU any more, start it again";
  }
  }
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
  if (g_opened.is_fine && getpid() != g_opened.process) {
    fail_driver(g_opened.driver, "cuInit", kErrorNotInitialised, error);
    return nullptr;
  }
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
  char advice[160];
  Text to(advice, sizeof advice);
  advise(driver, answer, to);
  driver.cuGetErrorName(answer, &name);
  driver.cuGetErrorString(answer, &text);
  return fail(error, KILN_ERROR_DEVICE, call, " failed: ", name != nullptr ? name : "an unknown error", " (", text != nullptr ? text : "",
              ")", advice);
}

} // namespace kiln::rt
