// The contract between generated code and whoever runs it.
//
// A compiled model is native code without imports: whatever it needs from outside it calls through
// the table of function pointers below, and whatever memory it touches is handed to it in a frame.
// The same header is read by the code generators (which emit loads at these offsets) and by the
// runtime (which fills the structs), so it is plain C and its layout is part of the package format:
// any change raises KILN_ENTRY_ABI.
//
//   run(frame)        one inference or training step; returns 0 or a KilnTrap
//   plan(dims, out)   sizes for given symbolic dims; returns 0, or 1 + the index of the first
//                     constraint of the manifest that the dims violate
#ifndef KILN_RUNTIME_ENTRY_ABI_H
#define KILN_RUNTIME_ENTRY_ABI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KILN_ENTRY_ABI 3u

// Arena, weights, variables and every buffer inside them are aligned to this many bytes; buffers
// may be read (never written) up to this many bytes past their end inside the same region.
#define KILN_ALIGNMENT 64

enum KilnTrap {
  KILN_TRAP_NONE = 0,
  KILN_TRAP_DIVIDE_BY_ZERO = 1, // integer division or remainder by zero
  KILN_TRAP_INDEX = 2,          // gather, scatter or one_hot index out of range
  KILN_TRAP_SIZE = 3,           // a size computed from data exceeds its bound
  KILN_TRAP_UNEQUAL = 4         // two sizes differ that must not
};

typedef struct KilnServices {
  uint32_t abi; // KILN_ENTRY_ABI
  uint32_t threads; // 1 at least: how many calls of a loop's body may run at the same time
  void *self;
  // Calls body(closure, begin, end) over disjoint ranges that cover [0, n), in any order, on any
  // threads, and returns when all are done. The split may depend on n and the thread count only.
  void (*parallel_for)(void *self, int64_t n,
                       void (*body)(void *closure, int64_t begin, int64_t end), void *closure);
  // Null unless someone profiles or checks. Called on the calling thread after each kernel of the
  // entry's plan, in order; `kernel` is its position in the plan.
  void (*after_kernel)(void *self, int32_t kernel);
} KilnServices;

typedef struct KilnFrame {
  const KilnServices *services;
  void *const *args;   // the entry's inputs, then its outputs, in manifest order
  const int64_t *dims; // values of the entry's symbolic dims, in manifest order
  uint8_t *arena;      // as many bytes as plan() said, KILN_ALIGNMENT aligned, contents undefined
  const uint8_t *weights; // the package's weights section (read only)
  uint8_t *variables;     // params and state that can be written, at the manifest's offsets
  // On a trap: the plan position of the kernel that failed.
  int32_t trap_kernel;
  int32_t trap; // set by parallel bodies; run() returns it
  // `threads` blocks of `scratch_stride` bytes each, one for each worker, KILN_ALIGNMENT aligned,
  // contents undefined. The stride is the manifest's scratch size of the entry at least. A loop that
  // needs scratch memory is cut into no more parts than there are threads, and part i uses block i.
  uint8_t *scratch;
  int64_t scratch_stride;
  // Null, or where run() leaves the sizes that it finds in the data, in manifest order. Those it has
  // not come to stay as they are.
  int64_t *sizes;
  // KILN_TRAP_SIZE: the number found, and of which size. KILN_TRAP_UNEQUAL: which constraint of the
  // manifest.
  int64_t trap_value;
  int32_t trap_index;
  // Nanoseconds from handing a loop to the threads until the last of them has answered, as measured; 0: not known.
  // Loops that are not worth it stay on the calling thread.
  int32_t hand_over;
} KilnFrame;

typedef int32_t (*KilnRunFn)(KilnFrame *frame);

// out[0] is the arena's size in bytes, followed by every dim of every output in manifest order: those that
// depend on sizes that run() finds are the largest they can be.
typedef int32_t (*KilnPlanFn)(const int64_t *dims, int64_t *out);

// What e_entry of a code image points to, followed by `entries` times KilnImageEntry. Offsets are
// in bytes from the start of this header, so that the image needs no relocation when it is mapped.
#define KILN_IMAGE_MAGIC 0x314d494eu // "NIM1"
typedef struct KilnImageHeader {
  uint32_t magic;
  uint32_t abi;
  uint32_t entries;
  uint32_t reserved;
} KilnImageHeader;
typedef struct KilnImageEntry {
  int64_t run;
  int64_t plan;
} KilnImageEntry;

#ifdef __cplusplus
}
#endif
#endif
