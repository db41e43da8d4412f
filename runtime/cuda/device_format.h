// A device section of a package: the kernels for one kind of GPU, and what the entries do with them.
//
// There is one for each GPU that the package was compiled for, named "sm_90" (cubins) or "compute_80" (PTX,
// for what is newer). Weights, manifest and the sizes that plan() tells are those of the package. The steps of
// an entry are a tree in preorder, which the runtime walks once while it records a CUDA graph; so a device
// section does not depend on the processor that drives the device. Sizes are expressions over the entry's
// slots: first its symbolic dims, then the sizes that a run finds and the counters of loops.
//
// Images are at the end, each at a multiple of 64 bytes; everything before them is tables of plain records, as
// in the manifest.
#pragma once

#include "runtime/package_format.h"

namespace kiln::package {

inline constexpr uint32_t kDeviceMagic = 0x5645444bu; // "KDEV"
inline constexpr uint32_t kDeviceAbi = 5;
inline constexpr uint32_t kMaxDeviceArguments = 480; // of a kernel: buffers, dims; parameters have 4 KiB
inline constexpr uint32_t kMaxDeviceMaps = 4; // of a kernel
inline constexpr uint32_t kMaxDeviceSlots = 1024;
inline constexpr uint32_t kMaxDeviceDepth = 64; // of nested steps, and of an expression's stack

// Expressions in reverse Polish notation. Push and Slot are followed by a word; the others take two values.
enum class DeviceOp : int64_t { Push, Slot, Add, Multiply, FloorDivide, Modulo, Minimum, Maximum, Equal, Count };

struct DeviceImageRecord {
  uint64_t offset; // from the section's start
  uint64_t size;
};

struct DeviceFunctionRecord {
  String name;
  uint32_t image;
  uint32_t threads;      // of a block
  uint32_t shared_bytes; // dynamic
  uint32_t buffers;      // arguments: pointers, then dims (i64), then the scratch memory's pointer where it
  uint32_t dims;         // has some, then that of the trap (i32), then tensor maps
  uint32_t scratch_blocks; // the most blocks that it may be launched with, where it has scratch memory
  uint64_t scratch_bytes;  // for each block; 0 where it has none
  uint32_t maps;
  uint32_t resident; // not 0: blocks that a multiprocessor runs at once, and it is given no more of them, which take turns
  uint32_t is_joined; // 1: its only argument is all pointers to buffers, one after the other; 0: each is one
  uint32_t reserved;
};

enum class DeviceBufferKind : uint32_t { Argument, Weight, Variable, Arena };

// Its address: the start of the argument, the weights, the variables or the arena, and `offset`.
struct DeviceBufferRecord {
  DeviceBufferKind kind;
  uint32_t argument; // inputs, then outputs
  uint32_t offset;   // expression
  uint32_t reserved;
};

// A tensor map (CUtensorMap) of a launch: how copies find boxes of a buffer, which land in lines of 128 bytes swizzled by as
// many; what is outside of the sizes is 0 there. The driver makes it of the buffer's address.
struct DeviceMapRecord {
  uint32_t buffer;     // of the launch
  uint32_t element;    // bytes: 1, 2 or 4
  uint32_t rank;       // 2 to 5
  uint32_t offset;     // expression: bytes from the buffer's start
  uint32_t sizes[5];   // expressions: elements; the first ones follow each other
  uint32_t strides[4]; // expressions: bytes, of the second axis and so on
  uint32_t box[5];     // elements
};

enum class DeviceStepKind : uint32_t { Launch, If, While, Loop, Bind, Require, Form };

// If: the condition is buffers.first; steps up to `middle` are the body, those up to `end` the other branch.
// While: steps up to `middle` compute the condition, those up to `end` are the body. Form: as If, the
// condition is the expression `a`. Loop: `a` times, counted in `slot`. Bind: the i64 in buffers.first becomes
// `slot` and the entry's size `index`; `a` is its bound. Require: `a` and `b` are equal, or constraint `index`
// is broken. Launch: `a` blocks; `position` is that of its first kernel.
struct DeviceStepRecord {
  DeviceStepKind kind;
  uint32_t middle, end; // steps, counted from the first one of the section
  uint32_t function;
  int32_t position; // in the plan, as in the manifest
  uint32_t slot, index;
  uint32_t a, b; // expressions
  Range buffers;
  Range dims; // in `lists`: of a launch
  Range completed; // in `lists`: of a launch, the positions that nothing is left of behind it, in order
  uint32_t maps; // the first of the function's
};

// There is one for every entry of the manifest; those of the processor have no steps.
struct DeviceEntryRecord {
  Range steps;
  Range variables; // that it uses, in `lists`: twice the index in the manifest, and 1 more where it writes it; in order
  uint32_t slots;
  uint32_t reads_back; // not 0: the host needs values from the device on the way, so there is no graph
  uint64_t scratch_bytes;
};

struct DeviceHeader {
  uint32_t magic;
  uint32_t abi;
  uint32_t arch; // 90; of PTX the least that it runs on
  uint32_t is_ptx;
  Table strings;
  Table images;      // DeviceImageRecord
  Table functions;   // DeviceFunctionRecord
  Table entries;     // DeviceEntryRecord, as in the manifest
  Table steps;       // DeviceStepRecord
  Table buffers;     // DeviceBufferRecord
  Table expressions; // Range of words
  Table lists;       // uint32_t: expressions, or variables
  Table words;       // int64_t
  Table maps;        // DeviceMapRecord
};

static_assert(sizeof(DeviceImageRecord) == 16 && sizeof(DeviceFunctionRecord) == 56);
static_assert(sizeof(DeviceBufferRecord) == 16 && sizeof(DeviceStepRecord) == 64);
static_assert(sizeof(DeviceEntryRecord) == 32 && sizeof(DeviceHeader) == 96 && sizeof(DeviceMapRecord) == 72);

} // namespace kiln::package
