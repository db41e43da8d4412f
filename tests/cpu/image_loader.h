/* Maps a code image and runs one of its entries: the smallest caller that entry_abi.h allows. In C,
 * so that it is built for the host's tests and, statically, for those that run under an emulator.
 */
#ifndef KILN_TESTS_CPU_IMAGE_LOADER_H
#define KILN_TESTS_CPU_IMAGE_LOADER_H

#include "runtime/entry_abi.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The image header in memory, or NULL where the image is malformed. Mapped until the process ends.
 */
// Bytes of scratch memory for each of the two threads that services claim.
#define IMAGE_SCRATCH ((size_t)1 << 20)

const KilnImageHeader *image_map(const void *elf, size_t size);
KilnRunFn image_run_fn(const KilnImageHeader *header, uint32_t entry);
KilnPlanFn image_plan_fn(const KilnImageHeader *header, uint32_t entry);

/* Services whose parallel_for calls the body for three ranges, the last one first, and whose
 * after_kernel appends to `log`. */
typedef struct ImageLog {
  int32_t kernels[256];
  int32_t count;
} ImageLog;
KilnServices image_services(ImageLog *log);

#ifdef __cplusplus
}
#endif
#endif
