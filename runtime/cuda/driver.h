// The CUDA driver by dlopen: no CUDA library is linked, and none is looked for until someone asks for a device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/errors.h"

namespace kiln::rt {

using DeviceAddress = uint64_t;

struct Driver {
#define KILN_DRIVER(name, parameters) int (*name) parameters;
#include "runtime/cuda/driver_functions.def"
#undef KILN_DRIVER
};

// Attributes of cuDeviceGetAttribute, cuFuncGetAttribute and cuFuncSetAttribute.
inline constexpr int kAttributeMajor = 75, kAttributeMinor = 76, kFunctionThreads = 0, kFunctionSharedBytes = 8;

// Opened and initialised once for the process: libcuda.so.1, or what KILN_CUDA_DRIVER names. Null, with the
// reason, where there is none.
const Driver *open_driver(KilnError *error);

// Fills `error` for what the driver answered to `call`.
int32_t fail_driver(const Driver &driver, const char *call, int answer, KilnError *error);

// Makes a device's context the calling thread's for as long as it lives.
class ContextScope {
public:
  ContextScope(const Driver &driver, void *context) : driver_(driver) { answer_ = driver.cuCtxPushCurrent_v2(context); }
  ~ContextScope() {
    void *popped = nullptr;
    if (answer_ == 0)
      driver_.cuCtxPopCurrent_v2(&popped);
  }
  ContextScope(const ContextScope &) = delete;
  ContextScope &operator=(const ContextScope &) = delete;
  int answer() const { return answer_; }

private:
  const Driver &driver_;
  int answer_;
};

} // namespace kiln::rt

// Calls a driver function; returns from the enclosing one, with the error filled, where it fails.
#define KILN_DRIVER_TRY(driver, function, ...)                         \
  if (int answer_of_##function = (driver).function(__VA_ARGS__))       \
  return fail_driver(driver, #function, answer_of_##function, error)
