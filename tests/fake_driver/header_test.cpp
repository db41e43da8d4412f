// The functions and numbers of the CUDA driver, as the runtime knows them, against NVIDIA's header. Everything is found
// while this is compiled; the test that runs is that it was.
#include "runtime/cuda/driver.h"

#include "tests/fake_driver/same_abi.h"

#include <cuda.h>

#include <string_view>

using namespace kiln;

namespace {

// A program that calls cuMemAlloc gets cuMemAlloc_v2 by a macro of the header: a name that the header would replace by another
// one is that of an old form.
#define KILN_WORD(name) KILN_WORD_OF(name)
#define KILN_WORD_OF(name) #name
#define KILN_DRIVER(name, parameters)                                                                            \
  static_assert(std::string_view(#name) == KILN_WORD(name), #name " is an old form, which the header replaces"); \
  static_assert(SameAbi<decltype(&::name), decltype(rt::Driver::name)>::value, #name " has other parameters in cuda.h");
using rt::DeviceAddress;
#include "runtime/cuda/driver_functions.def"
#undef KILN_DRIVER

#define KILN_NUMBER(ours, name, value) static_assert(int(rt::ours) == int(::name), #name " is another number in cuda.h");
KILN_DRIVER_NUMBERS(KILN_NUMBER)
#undef KILN_NUMBER

// That the comparison tells differences.
static_assert(SameAbi<int (*)(void **, unsigned), CUresult (*)(CUstream *, CUstreamCaptureMode)>::value);
static_assert(!SameAbi<int (*)(void *, unsigned), CUresult (*)(CUstream, size_t)>::value);
static_assert(!SameAbi<int (*)(int *), CUresult (*)(size_t *)>::value);
static_assert(!SameAbi<int (*)(int), CUresult (*)(CUstream)>::value);
static_assert(!SameAbi<int (*)(void *), CUresult (*)(void *, int)>::value);

} // namespace

int main() { return 0; }
