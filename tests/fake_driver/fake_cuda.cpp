// A library with the functions of libcuda.so.1 that the runtime calls, for tests on machines without a GPU.
// Modules are the shared objects that tests/fake_driver/fake_nvrtc.cpp makes; kernels run on this CPU.
//
// What is put into a stream happens as late as it may: when someone waits for the stream, or for an event in it, or
// frees memory. So a copy that nobody waits for has not happened. It is stricter than a driver: copies must lie inside of allocations, freed memory and memory that nobody
// wrote holds no numbers, everything must be given back in the end (kiln_fake_cuda_left tells what was not). Whatever a thread does while it captures, beside
// putting work into the stream, spoils the capture; what belongs to a device wants that device's context to be current.
//
//   KILN_FAKE_CUDA_FAIL=cuLaunchKernel:3:700   the third call of that function fails with that code; with "!" behind it, so does
//                                              everything on that device until its context is released
//   KILN_FAKE_CUDA_ARCH=90                     the compute capability that the device says it has (80)
//   KILN_FAKE_CUDA_DEVICES=2                   how many devices there are (1)
//   KILN_FAKE_CUDA_THREADS=1                   how many threads share a launch's blocks (as many as there are processors, 4 at most)
//   KILN_FAKE_CUDA_REPORT=FILE                 at the end of the process, how many kernels were launched is written there
#include "runtime/cuda/driver.h"

#include "tests/fake_driver/fake_kernels.h"
#include "tests/fake_driver/same_abi.h"
#include "tests/cuda_shim/tensor_map.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#define FAKE extern "C" __attribute__((visibility("default"))) int

namespace {

using namespace kiln::fake;

enum : int {
  kFine = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialised = 3,
  kNoDevice = 101,
  kInvalidImage = 200,
  kInvalidContext = 201,
  kNoBinary = 209,
  kInvalidHandle = 400,
  kNotFound = 500,
  kCaptureUnsupported = 900,
  kCaptureInvalidated = 901,
  kCaptureUnmatched = 903,
  kCaptureWrongThread = 908,
};

struct Stream {
  int number = 0, device = -1;
  bool capturing = false, is_spoilt = false;
  std::thread::id capturer;
  std::vector<std::function<void()>> captured;
  std::deque<std::function<void()>> queued;
};
// The last record of it is done when its stream has come to `wanted`.
struct Event {
  int device = -1;
  Stream *stream = nullptr;
  int64_t wanted = 0, done = 0;
};
struct Graph {
  int device = -1;
  std::vector<std::function<void()>> works;
};

std::recursive_mutex g_lock;
std::map<std::string, int> g_calls;
std::map<uintptr_t, size_t> g_device_memory, g_host_memory;
std::map<uintptr_t, int> g_device_of; // of memory: copies and sets of it want that device's context
std::set<void *> g_objects;
std::set<Stream *> g_streams;
std::string g_log; // what was asked and what happened, for tests
int g_last_stream = 0;
bool g_initialised = false;
pid_t g_process = 0; // that called cuInit
std::map<int, int> g_retained, g_dead; // by device: how often its context was asked for; the error that it died of
thread_local std::vector<int> g_stack; // devices whose contexts are current, the last one is
thread_local Stream *g_capture = nullptr; // that this thread records

int current() { return g_stack.empty() ? -1 : g_stack.back(); }

// Counts a call; the code to fail with, where the test asks for it.
int enter(const char *name) {
  int count = ++g_calls[name];
  if (const char *wanted = std::getenv("KILN_FAKE_CUDA_FAIL")) {
    std::string text = wanted;
    size_t a = text.find(':'), b = text.rfind(':');
    if (a != std::string::npos && b > a && text.substr(0, a) == name && std::stoi(text.substr(a + 1, b - a - 1)) == count) {
      int code = std::stoi(text.substr(b + 1));
      if (text.back() == '!')
        g_dead[current()] = code;
      return code;
    }
  }
  if (std::string_view(name) == "cuInit")
    return kFine;
  return g_initialised && g_process == getpid() ? kFine : kNotInitialised;
}

int spoil(int code) {
  if (g_capture)
    g_capture->is_spoilt = true;
  return code;
}

bool holds(const std::map<uintptr_t, size_t> &memory, uintptr_t at, size_t size) {
  auto it = memory.upper_bound(at);
  if (it == memory.begin())
    return false;
  --it;
  return at + size <= it->first + it->second;
}

// The shared memory that a block may have, by architecture; where none was asked for, tests try the code of all.
unsigned most_shared() {
  switch (number_of("KILN_FAKE_CUDA_ARCH", 0)) {
  case 80:
  case 87:
    return 163 << 10;
  case 0:
  case 90:
  case 100:
    return 227 << 10;
  default:
    return 99 << 10;
  }
}

// Memory of the device whose context is current.
bool is_here(uintptr_t at, size_t size) {
  if (!holds(g_device_memory, at, size))
    return false;
  auto it = g_device_of.upper_bound(at);
  return std::prev(it)->second == current();
}

int queue(Stream *stream, std::function<void()> work) {
  if (!stream)
    work();
  else
    (stream->capturing ? stream->captured.push_back(std::move(work)) : stream->queued.push_back(std::move(work)));
  return kFine;
}

// Until nothing is left, or `until` has come to what was wanted of it.
void drain(Stream *stream, const Event *until = nullptr, int64_t wanted = 0) {
  if (g_dead.count(stream->device))
    stream->queued.clear();
  while (!stream->queued.empty() && !(until && until->done >= wanted)) {
    auto work = std::move(stream->queued.front());
    stream->queued.pop_front();
    work();
  }
}
// Work of a dead context does not happen.
void drain_all() {
  for (Stream *stream : g_streams)
    drain(stream);
}

void note(const char *what, const Stream *stream) {
  g_log += what;
  g_log += stream ? " " + std::to_string(stream->number) : "";
  g_log += "\n";
}


struct Report {
  ~Report() {
    if (const char *path = std::getenv("KILN_FAKE_CUDA_REPORT"))
      if (FILE *file = std::fopen(path, "w")) {
        std::fprintf(file, "%d\n", g_calls["cuLaunchKernel"]);
        std::fclose(file);
      }
  }
} g_report;

#define ENTER(name)                                   \
  std::lock_guard<std::recursive_mutex> held(g_lock); \
  if (int code = enter(name))                         \
  return code
// A context is current, and alive.
#define NEED_CONTEXT                          \
  if (current() < 0)                          \
    return spoil(kInvalidContext);            \
  if (auto it = g_dead.find(current()); it != g_dead.end()) \
  return it->second
// And it is the context of that device.
#define NEED_DEVICE(of) \
  NEED_CONTEXT;         \
  if ((of) != current()) \
  return spoil(kInvalidContext)
// And the thread does not record a graph.
#define NEED_NO_CAPTURE \
  if (g_capture)        \
  return spoil(kCaptureUnsupported)
#define NEED_STREAM(stream)                                  \
  if (!(stream) || !g_streams.count(stream))                 \
    return spoil(kInvalidHandle);                            \
  NEED_DEVICE((stream)->device);                             \
  if (g_capture != ((stream)->capturing ? (stream) : nullptr)) \
  return spoil(kCaptureUnsupported)

// What a dead context had is gone with it.
void bury(int device) {
  if (!g_dead.erase(device))
    return;
  std::erase_if(g_device_memory, [&](auto &memory) { return g_device_of[memory.first] == device; });
  g_host_memory.clear();
  g_objects.clear();
  g_streams.clear();
}

int destroy(Graph *graph) {
  NEED_DEVICE(graph->device);
  if (!g_objects.erase(graph))
    return kInvalidValue;
  delete graph;
  return kFine;
}

} // namespace

FAKE cuInit(unsigned) {
  ENTER("cuInit");
  g_initialised = true;
  g_process = getpid();
  return kFine;
}
FAKE cuDriverGetVersion(int *version) {
  ENTER("cuDriverGetVersion");
  *version = number_of("KILN_FAKE_CUDA_VERSION", 12080);
  return kFine;
}
FAKE cuDeviceGetCount(int *count) {
  ENTER("cuDeviceGetCount");
  *count = number_of("KILN_FAKE_CUDA_DEVICES", 1);
  return kFine;
}
FAKE cuDeviceGet(int *device, int ordinal) {
  ENTER("cuDeviceGet");
  *device = ordinal;
  return ordinal < number_of("KILN_FAKE_CUDA_DEVICES", 1) ? kFine : kNoDevice;
}
FAKE cuDeviceGetName(char *name, int size, int) {
  ENTER("cuDeviceGetName");
  std::snprintf(name, size_t(size), "Fake GPU");
  return kFine;
}
FAKE cuDeviceGetAttribute(int *value, int attribute, int) {
  ENTER("cuDeviceGetAttribute");
  int arch = number_of("KILN_FAKE_CUDA_ARCH", 80);
  *value = attribute == 75 ? arch / 10 : attribute == 76 ? arch % 10 : attribute == 16 ? 4 : attribute == 97 ? int(most_shared()) : 0;
  return kFine;
}
FAKE cuDevicePrimaryCtxRetain(void **context, int device) {
  ENTER("cuDevicePrimaryCtxRetain");
  NEED_NO_CAPTURE;
  ++g_retained[device];
  *context = reinterpret_cast<void *>(uintptr_t(device) + 1);
  return kFine;
}
FAKE cuDevicePrimaryCtxRelease_v2(int device) {
  ENTER("cuDevicePrimaryCtxRelease_v2");
  if (g_retained[device] == 0)
    return kInvalidContext;
  if (--g_retained[device] == 0)
    bury(device);
  return kFine;
}
FAKE cuCtxPushCurrent_v2(void *context) {
  ENTER("cuCtxPushCurrent_v2");
  int device = int(reinterpret_cast<uintptr_t>(context)) - 1;
  if (g_retained[device] == 0)
    return kInvalidContext;
  g_stack.push_back(device);
  return kFine;
}
FAKE cuCtxPopCurrent_v2(void **context) {
  ENTER("cuCtxPopCurrent_v2");
  if (g_stack.empty())
    return kInvalidContext;
  *context = reinterpret_cast<void *>(uintptr_t(g_stack.back()) + 1);
  g_stack.pop_back();
  return kFine;
}
FAKE cuModuleLoadData(Module **module, const void *image) {
  ENTER("cuModuleLoadData");
  NEED_CONTEXT;
  NEED_NO_CAPTURE;
  if (int code = number_of("KILN_FAKE_CUDA_REFUSES", 0)) // the code of the model
    return code;
  // The image is an ELF file: its section headers are its last part.
  auto *bytes = static_cast<const char *>(image);
  if (std::memcmp(bytes, "\177ELF", 4) != 0)
    return kInvalidImage;
  uint64_t headers = 0;
  uint16_t size = 0, count = 0;
  std::memcpy(&headers, bytes + 40, 8);
  std::memcpy(&size, bytes + 58, 2);
  std::memcpy(&count, bytes + 60, 2);
  size_t total = headers + size_t(size) * count;
  auto loaded = std::make_unique<Module>();
  loaded->bytes.assign(bytes, bytes + total);
  if (!add_image(*loaded))
    return kNoBinary;
  loaded->device = current();
  *module = loaded.release();
  g_objects.insert(*module);
  return kFine;
}
FAKE cuModuleUnload(Module *module) {
  ENTER("cuModuleUnload");
  NEED_DEVICE(module->device);
  NEED_NO_CAPTURE;
  if (!g_objects.erase(module))
    return kInvalidValue;
  drain_all();
  for (const Image &image : module->images)
    dlclose(image.library);
  delete module;
  return kFine;
}
FAKE cuModuleGetFunction(Function **function, Module *module, const char *name) {
  ENTER("cuModuleGetFunction");
  NEED_DEVICE(module->device);
  NEED_NO_CAPTURE;
  std::string symbol = std::string("kiln_shim_") + name;
  void *library = module->images[0].library, *found = dlsym(library, symbol.c_str());
  auto sizes_of = reinterpret_cast<const unsigned *(*)()>(dlsym(library, (symbol + "_sizes").c_str()));
  if (!found || !sizes_of)
    return kNotFound;
  const unsigned *sizes = sizes_of();
  Function &f = module->functions[name];
  f = {module, symbol, {}, {sizes + 1, sizes + 1 + sizes[0]}};
  *function = &f;
  return kFine;
}
FAKE cuFuncGetAttribute(int *value, int attribute, Function *function) {
  ENTER("cuFuncGetAttribute");
  NEED_DEVICE(function->module->device);
  *value = 1024;
  return attribute == 0 ? kFine : kInvalidValue;
}
FAKE cuFuncSetAttribute(Function *function, int attribute, int value) {
  ENTER("cuFuncSetAttribute");
  NEED_DEVICE(function->module->device);
  if (attribute != 8 || value < 0 || unsigned(value) > most_shared())
    return kInvalidValue;
  function->most_shared = unsigned(value);
  return kFine;
}
FAKE cuMemAlloc_v2(uintptr_t *at, size_t size) {
  ENTER("cuMemAlloc_v2");
  NEED_CONTEXT;
  NEED_NO_CAPTURE;
  if (size == 0)
    return kInvalidValue;
  if (size > size_t(64) << 30)
    return kOutOfMemory;
  // Great ones in great pages, which are cleared faster.
  const size_t page = size >= size_t(4) << 20 ? size_t(2) << 20 : 256;
  void *memory = std::aligned_alloc(page, (size + page - 1) / page * page);
  if (!memory)
    return kOutOfMemory;
  if (page > 256)
    madvise(memory, size, MADV_HUGEPAGE);
  std::memset(memory, 0xff, size);
  *at = reinterpret_cast<uintptr_t>(memory);
  g_device_memory[*at] = size;
  g_device_of[*at] = current();
  return kFine;
}
FAKE cuMemFree_v2(uintptr_t at) {
  ENTER("cuMemFree_v2");
  NEED_CONTEXT;
  NEED_NO_CAPTURE;
  auto it = g_device_memory.find(at);
  if (it == g_device_memory.end() || g_device_of[at] != current())
    return kInvalidValue;
  drain_all();
  std::memset(reinterpret_cast<void *>(at), 0xfe, it->second);
  std::free(reinterpret_cast<void *>(at));
  g_device_of.erase(at);
  g_device_memory.erase(it);
  return kFine;
}
FAKE cuMemAllocHost_v2(void **at, size_t size) {
  ENTER("cuMemAllocHost_v2");
  NEED_CONTEXT;
  NEED_NO_CAPTURE;
  *at = std::aligned_alloc(4096, (size + 4095) / 4096 * 4096);
  if (!*at)
    return kOutOfMemory;
  std::memset(*at, 0xff, size);
  g_host_memory[reinterpret_cast<uintptr_t>(*at)] = size;
  return kFine;
}
FAKE cuMemFreeHost(void *at) {
  ENTER("cuMemFreeHost");
  NEED_CONTEXT;
  NEED_NO_CAPTURE;
  if (!g_host_memory.erase(reinterpret_cast<uintptr_t>(at)))
    return kInvalidValue;
  drain_all();
  std::free(at);
  return kFine;
}
FAKE cuMemcpyHtoD_v2(uintptr_t to, const void *from, size_t size) {
  ENTER("cuMemcpyHtoD_v2");
  NEED_CONTEXT;
  NEED_NO_CAPTURE;
  if (!is_here(to, size))
    return kInvalidValue;
  std::memcpy(reinterpret_cast<void *>(to), from, size);
  return kFine;
}
FAKE cuMemcpyDtoH_v2(void *to, uintptr_t from, size_t size) {
  ENTER("cuMemcpyDtoH_v2");
  NEED_CONTEXT;
  NEED_NO_CAPTURE;
  if (!is_here(from, size))
    return kInvalidValue;
  std::memcpy(to, reinterpret_cast<void *>(from), size);
  return kFine;
}
FAKE cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t size, Stream *stream) {
  ENTER("cuMemcpyHtoDAsync_v2");
  NEED_STREAM(stream);
  if (!is_here(to, size) || (stream->capturing && !holds(g_host_memory, uintptr_t(from), size)))
    return kInvalidValue;
  note("send", stream);
  return queue(stream, [=] {
    note("sent", stream);
    std::memcpy(reinterpret_cast<void *>(to), from, size);
  });
}
FAKE cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t size, Stream *stream) {
  ENTER("cuMemcpyDtoHAsync_v2");
  NEED_STREAM(stream);
  if (!is_here(from, size) || (stream->capturing && !holds(g_host_memory, uintptr_t(to), size)))
    return kInvalidValue;
  return queue(stream, [=] { std::memcpy(to, reinterpret_cast<void *>(from), size); });
}
FAKE cuMemsetD32Async(uintptr_t at, unsigned value, size_t count, Stream *stream) {
  ENTER("cuMemsetD32Async");
  NEED_STREAM(stream);
  if (!is_here(at, count * 4))
    return kInvalidValue;
  return queue(stream, [=] { std::fill_n(reinterpret_cast<unsigned *>(at), count, value); });
}
FAKE cuStreamCreate(Stream **stream, unsigned flags) {
  ENTER("cuStreamCreate");
  NEED_CONTEXT;
  if (flags != 1) // one that waits for the legacy stream, and it for that
    return spoil(kInvalidValue);
  *stream = new Stream;
  (*stream)->number = ++g_last_stream;
  (*stream)->device = current();
  g_objects.insert(*stream);
  g_streams.insert(*stream);
  return kFine;
}
FAKE cuStreamDestroy_v2(Stream *stream) {
  ENTER("cuStreamDestroy_v2");
  NEED_STREAM(stream);
  NEED_NO_CAPTURE;
  if (!g_objects.erase(stream))
    return kInvalidValue;
  drain(stream);
  g_streams.erase(stream);
  delete stream;
  return kFine;
}
FAKE cuStreamSynchronize(Stream *stream) {
  ENTER("cuStreamSynchronize");
  NEED_CONTEXT;
  NEED_NO_CAPTURE;
  if (stream) {
    NEED_STREAM(stream);
    note("wait", stream);
    drain(stream);
  }
  return kFine;
}
FAKE cuEventCreate(Event **event, unsigned flags) {
  ENTER("cuEventCreate");
  NEED_CONTEXT;
  if (flags != 2) // one that takes times
    return kInvalidValue;
  *event = new Event{current(), nullptr, 0, 0};
  g_objects.insert(*event);
  return kFine;
}
FAKE cuEventDestroy_v2(Event *event) {
  ENTER("cuEventDestroy_v2");
  NEED_DEVICE(event->device);
  if (!g_objects.erase(event))
    return kInvalidValue;
  drain_all();
  delete event;
  return kFine;
}
FAKE cuEventRecord(Event *event, Stream *stream) {
  ENTER("cuEventRecord");
  NEED_STREAM(stream);
  if (stream->capturing || event->device != stream->device)
    return spoil(kInvalidValue);
  event->stream = stream;
  int64_t reached = ++event->wanted;
  return queue(stream, [=] { event->done = reached; });
}
FAKE cuStreamWaitEvent(Stream *stream, Event *event, unsigned) {
  ENTER("cuStreamWaitEvent");
  NEED_STREAM(stream);
  if (stream->capturing)
    return spoil(kInvalidValue);
  note("wait for event, in", stream);
  int64_t wanted = event->wanted;
  return queue(stream, [=] {
    if (event->done < wanted)
      drain(event->stream, event, wanted);
  });
}
FAKE cuStreamBeginCapture_v2(Stream *stream, int mode) {
  ENTER("cuStreamBeginCapture_v2");
  NEED_STREAM(stream);
  NEED_NO_CAPTURE;
  if (mode != 1) // one that other threads notice, or that notices nothing
    return kInvalidValue;
  stream->capturing = true;
  stream->is_spoilt = false;
  stream->capturer = std::this_thread::get_id();
  stream->captured.clear();
  g_capture = stream;
  return kFine;
}
FAKE cuStreamEndCapture(Stream *stream, Graph **graph) {
  *graph = nullptr;
  std::lock_guard<std::recursive_mutex> held(g_lock);
  int code = enter("cuStreamEndCapture"); // a capture ends whether it went well or not
  if (!g_streams.count(stream) || !stream->capturing)
    return kCaptureUnmatched;
  if (stream->capturer != std::this_thread::get_id())
    return kCaptureWrongThread;
  stream->capturing = false;
  g_capture = nullptr;
  if (code != kFine)
    return code;
  NEED_DEVICE(stream->device);
  if (stream->is_spoilt)
    return kCaptureInvalidated;
  *graph = new Graph{stream->device, std::move(stream->captured)};
  g_objects.insert(*graph);
  return kFine;
}
FAKE cuGraphInstantiateWithFlags(Graph **run, Graph *graph, unsigned long long) {
  ENTER("cuGraphInstantiateWithFlags");
  NEED_DEVICE(graph->device);
  *run = new Graph(*graph);
  g_objects.insert(*run);
  return kFine;
}
FAKE cuGraphLaunch(Graph *run, Stream *stream) {
  ENTER("cuGraphLaunch");
  NEED_STREAM(stream);
  NEED_DEVICE(run->device);
  NEED_NO_CAPTURE;
  note("launch", stream);
  return queue(stream, [works = run->works, stream] {
    note("run", stream);
    for (const auto &work : works)
      work();
  });
}
FAKE cuGraphDestroy(Graph *graph) {
  ENTER("cuGraphDestroy");
  return destroy(graph);
}
FAKE cuGraphExecDestroy(Graph *run) {
  ENTER("cuGraphExecDestroy");
  return destroy(run);
}
FAKE cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                    unsigned shared_bytes, Stream *stream, void **params, void **) {
  ENTER("cuLaunchKernel");
  NEED_STREAM(stream);
  NEED_DEVICE(function->module->device);
  if (shared_bytes > function->most_shared)
    return spoil(kInvalidValue);
  if (gx == 0 || gy == 0 || gz == 0 || gy > 65535 || gz > 65535 || gx > 0x7fffffff || bx * by * bz > 1024 || bx * by * bz == 0)
    return kInvalidValue;
  // Arguments are read when the launch is queued, as a driver does.
  std::vector<std::vector<char>> values;
  for (size_t i = 0; i < function->sizes.size(); ++i) {
    auto *from = static_cast<const char *>(params[i]);
    values.emplace_back(from, from + function->sizes[i]);
  }
  return queue(stream, [=]() mutable {
    std::vector<void *> args;
    for (auto &value : values)
      args.push_back(value.data());
    unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    run_blocks(*function, grid, block, shared_bytes, args.data());
  });
}
// The rules that the driver's manual tells, and that all of the tensor lies in the device's memory.
FAKE cuTensorMapEncodeTiled(void *out, int type, unsigned rank, void *address, const uint64_t *sizes, const uint64_t *strides, const uint32_t *box,
                            const uint32_t *steps, int interleave, int swizzle, int promotion, int fill) {
  ENTER("cuTensorMapEncodeTiled");
  constexpr unsigned kElements[] = {1, 2, 4};
  uint64_t base = reinterpret_cast<uintptr_t>(address);
  if (type < 0 || type > 2 || rank < 1 || rank > 5 || reinterpret_cast<uintptr_t>(out) % 64 != 0 || base % 16 != 0 || interleave != 0 || swizzle < 0 ||
      swizzle > 3 || promotion < 0 || promotion > 3 || fill != 0)
    return kInvalidValue;
  kiln_shim::EncodedMap map{kiln_shim::kMapMark, rank, kElements[type], swizzle == 0 ? 0 : 16u << swizzle, base, {}, {}, {}};
  uint64_t last = 0;
  for (unsigned i = 0; i < rank; ++i) {
    if (sizes[i] == 0 || sizes[i] > uint64_t(1) << 32 || box[i] == 0 || box[i] > 256 || steps[i] != 1 ||
        (i > 0 && (strides[i - 1] % 16 != 0 || strides[i - 1] >= uint64_t(1) << 40)))
      return kInvalidValue;
    map.sizes[i] = uint32_t(sizes[i] - 1);
    map.box[i] = uint16_t(box[i]);
    if (i > 0)
      map.strides[i - 1] = strides[i - 1];
    last += (sizes[i] - 1) * (i == 0 ? map.element : strides[i - 1]);
  }
  bool fits_lines = box[0] * map.element % 16 == 0 && (swizzle == 0 || box[0] * map.element <= map.swizzle);
  if (!fits_lines || !holds(g_device_memory, base, last + map.element))
    return kInvalidValue;
  std::memset(out, 0, 128);
  std::memcpy(out, &map, sizeof map);
  return kFine;
}
FAKE cuGetErrorName(int code, const char **name) {
  *name = code == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_OF_THE_FAKE";
  return kFine;
}
FAKE cuGetErrorString(int code, const char **text) {
  *text = code == kOutOfMemory ? "out of memory" : code == 700 ? "an illegal memory access was encountered" : "the fake driver refuses";
  return kFine;
}

// For tests: how often a function was called, and what has not been given back.
extern "C" __attribute__((visibility("default"))) int kiln_fake_cuda_calls(const char *name) {
  std::lock_guard<std::recursive_mutex> held(g_lock);
  return g_calls[name];
}
// What has happened since it was asked last: "send 2" when a copy to the device is put into stream 2, "sent 2" when it
// happens, "launch 1" and "run 1" of a graph, "wait 1" when the host waits for a stream.
extern "C" __attribute__((visibility("default"))) const char *kiln_fake_cuda_log() {
  static std::string last;
  std::lock_guard<std::recursive_mutex> held(g_lock);
  last.swap(g_log);
  g_log.clear();
  return last.c_str();
}
extern "C" __attribute__((visibility("default"))) int kiln_fake_cuda_left() {
  std::lock_guard<std::recursive_mutex> held(g_lock);
  size_t retained = 0;
  for (auto [device, count] : g_retained)
    retained += size_t(count);
  return int(g_device_memory.size() + g_host_memory.size() + g_objects.size() + retained);
}

// They are called as the runtime calls them.
#define KILN_DRIVER(name, parameters) static_assert(kiln::SameAbi<decltype(&::name), decltype(kiln::rt::Driver::name)>::value, #name);
#include "runtime/cuda/driver_functions.def"
#undef KILN_DRIVER
