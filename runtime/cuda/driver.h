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

// The driver's numbers, under its names (KILN_NUMBER(ours, name, value)): tests/fake_driver/header_test.cpp holds them, and
// the functions, against cuda.h where that is found.
#define KILN_DRIVER_NUMBERS(KILN_NUMBER)                                                  \
  KILN_NUMBER(kAttributeMultiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16)    \
  KILN_NUMBER(kMapBytes1, CU_TENSOR_MAP_DATA_TYPE_UINT8, 0)                               \
  KILN_NUMBER(kMapBytes2, CU_TENSOR_MAP_DATA_TYPE_UINT16, 1)                              \
  KILN_NUMBER(kMapBytes4, CU_TENSOR_MAP_DATA_TYPE_UINT32, 2)                              \
  KILN_NUMBER(kMapNotInterleaved, CU_TENSOR_MAP_INTERLEAVE_NONE, 0)                       \
  KILN_NUMBER(kMapSwizzle128, CU_TENSOR_MAP_SWIZZLE_128B, 3)                              \
  KILN_NUMBER(kMapFetches256, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, 3)                      \
  KILN_NUMBER(kMapZeroOutside, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE, 0)                      \
  KILN_NUMBER(kErrorInvalidValue, CUDA_ERROR_INVALID_VALUE, 1)                            \
  KILN_NUMBER(kAttributeSharedBytes, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 97) \
  KILN_NUMBER(kAttributeMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75)          \
  KILN_NUMBER(kAttributeMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76)          \
  KILN_NUMBER(kFunctionThreads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 0)               \
  KILN_NUMBER(kFunctionSharedBytes, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 8)   \
  KILN_NUMBER(kStreamNonBlocking, CU_STREAM_NON_BLOCKING, 1)                              \
  KILN_NUMBER(kEventWithoutTimes, CU_EVENT_DISABLE_TIMING, 2)                             \
  KILN_NUMBER(kCaptureOfThread, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, 1)                   \
  KILN_NUMBER(kErrorNotInitialised, CUDA_ERROR_NOT_INITIALIZED, 3)                        \
  KILN_NUMBER(kErrorInvalidImage, CUDA_ERROR_INVALID_IMAGE, 200)                          \
  KILN_NUMBER(kErrorNoBinary, CUDA_ERROR_NO_BINARY_FOR_GPU, 209)                          \
  KILN_NUMBER(kErrorEcc, CUDA_ERROR_ECC_UNCORRECTABLE, 214)                               \
  KILN_NUMBER(kErrorInvalidPtx, CUDA_ERROR_INVALID_PTX, 218)                              \
  KILN_NUMBER(kErrorNvlink, CUDA_ERROR_NVLINK_UNCORRECTABLE, 220)                         \
  KILN_NUMBER(kErrorNoPtxCompiler, CUDA_ERROR_JIT_COMPILER_NOT_FOUND, 221)                \
  KILN_NUMBER(kErrorPtxVersion, CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222)                  \
  KILN_NUMBER(kErrorPtxDisabled, CUDA_ERROR_JIT_COMPILATION_DISABLED, 223)                \
  KILN_NUMBER(kErrorAddress, CUDA_ERROR_ILLEGAL_ADDRESS, 700)                             \
  KILN_NUMBER(kErrorTimeout, CUDA_ERROR_LAUNCH_TIMEOUT, 702)                              \
  KILN_NUMBER(kErrorDestroyed, CUDA_ERROR_CONTEXT_IS_DESTROYED, 709)                      \
  KILN_NUMBER(kErrorAssert, CUDA_ERROR_ASSERT, 710)                                       \
  KILN_NUMBER(kErrorStack, CUDA_ERROR_HARDWARE_STACK_ERROR, 714)                          \
  KILN_NUMBER(kErrorLaunchFailed, CUDA_ERROR_LAUNCH_FAILED, 719)                          \
  KILN_NUMBER(kErrorMismatch, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 803)

enum DriverNumber : int {
#define KILN_NUMBER(ours, name, value) ours = value,
  KILN_DRIVER_NUMBERS(KILN_NUMBER)
#undef KILN_NUMBER
};

// Opened and initialised once for the process: libcuda.so.1, or what KILN_CUDA_DRIVER names. Null, with the
// reason, where there is none.
const Driver *open_driver(KilnError *error);

// Fills `error` for what the driver answered to `call`, with what can be done about it where that is known.
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
