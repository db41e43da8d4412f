#define _GNU_SOURCE
#include "tests/cpu/image_loader.h"

#include <elf.h>
#include <string.h>
#include <sys/mman.h>

const KilnImageHeader *image_map(const void *elf, size_t size) {
  const Elf64_Ehdr *header = elf;
  if (size < sizeof *header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
      header->e_type != ET_DYN)
    return NULL;
  const Elf64_Phdr *segments = (const void *)((const char *)elf + header->e_phoff);
  uint64_t end = 0;
  for (int i = 0; i < header->e_phnum; ++i)
    if (segments[i].p_type == PT_LOAD && segments[i].p_vaddr + segments[i].p_memsz > end)
      end = segments[i].p_vaddr + segments[i].p_memsz;
  end = (end + 4095) / 4096 * 4096;
  char *base = mmap(NULL, end, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED)
    return NULL;
  for (int i = 0; i < header->e_phnum; ++i) {
    if (segments[i].p_type != PT_LOAD)
      continue;
    if (segments[i].p_offset + segments[i].p_filesz > size || (segments[i].p_flags & PF_W) != 0 ||
        segments[i].p_vaddr % 4096 != 0)
      return NULL;
    char *start = base + segments[i].p_vaddr;
    int executable = (segments[i].p_flags & PF_X) != 0;
    memcpy(start, (const char *)elf + segments[i].p_offset, segments[i].p_filesz);
    if (executable)
      __builtin___clear_cache(start, start + segments[i].p_filesz);
    if (mprotect(start, segments[i].p_memsz, PROT_READ | (executable ? PROT_EXEC : 0)) != 0)
      return NULL;
  }
  const KilnImageHeader *image = (const void *)(base + header->e_entry);
  return image->magic == KILN_IMAGE_MAGIC && image->abi == KILN_ENTRY_ABI ? image : NULL;
}

static const KilnImageEntry *entry_at(const KilnImageHeader *header, uint32_t entry) {
  return (const KilnImageEntry *)(header + 1) + entry;
}

KilnRunFn image_run_fn(const KilnImageHeader *header, uint32_t entry) {
  return (KilnRunFn)(uintptr_t)((const char *)header + entry_at(header, entry)->run);
}

KilnPlanFn image_plan_fn(const KilnImageHeader *header, uint32_t entry) {
  return (KilnPlanFn)(uintptr_t)((const char *)header + entry_at(header, entry)->plan);
}

static void parallel_for(void *self, int64_t n, void (*body)(void *, int64_t, int64_t),
                         void *closure) {
  (void)self;
  int64_t a = n / 3, b = n / 2;
  body(closure, b, n);
  body(closure, a, b);
  body(closure, 0, a);
}

static void after_kernel(void *self, int32_t kernel) {
  ImageLog *log = self;
  if (log->count < (int32_t)(sizeof log->kernels / sizeof *log->kernels))
    log->kernels[log->count++] = kernel;
}

KilnServices image_services(ImageLog *log) {
  KilnServices services = {KILN_ENTRY_ABI, 2, log, parallel_for, log ? after_kernel : NULL};
  return services;
}
