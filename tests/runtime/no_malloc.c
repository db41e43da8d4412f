/* Nothing is allocated while an entry runs: the program is linked with -Wl,--wrap for the
 * allocator, and counts what the runtime calls. Written in C, so that it also checks the C header.
 */
#include <kiln/kiln.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int allocations;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size) {
  ++allocations;
  return __real_malloc(size);
}

void *__real_mmap(void *at, size_t size, int protection, int flags, int file, long offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, long offset);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, long offset) {
  ++allocations;
  return __real_mmap(at, size, protection, flags, file, offset);
}

static int check(int32_t code, const KilnError *error, const char *what) {
  if (code != KILN_OK)
    fprintf(stderr, "%s: %s\n", what, error->message);
  return code == KILN_OK;
}

int main(int argc, char **argv) {
  static float x[64 * 4], y[64 * 4], total;
  const KilnApi *kiln = kiln_get_api(KILN_API_VERSION);
  KilnError error;
  KilnModule *module;
  KilnContext *context;
  KilnPool *pool;
  if (argc != 2 || !check(kiln->open(argv[1], NULL, &module, &error), &error, "open") ||
      !check(kiln->pool_create(3, &pool, &error), &error, "pool_create"))
    return 1;
  if (allocations == 0) {
    fprintf(stderr, "opening a package was not counted: the count does not work\n");
    return 1;
  }
  KilnContextOptions options;
  memset(&options, 0, sizeof options);
  options.executor = kiln->pool_executor(pool);
  int64_t most = 64;
  options.dims = &most;
  size_t size = 0;
  if (!check(kiln->context_size(module, 0, &options, &size, &error), &error, "context_size"))
    return 1;
  void *memory = aligned_alloc(64, size);
  allocations = 0;
  if (!check(kiln->context_init(module, 0, &options, memory, size, &context, &error), &error,
             "context_init"))
    return 1;
  for (int64_t n = 1; n < 300; ++n) {
    int64_t dims[2] = {1 + n % 6, 4};
    KilnTensor input = {x, sizeof x, KILN_F32, 2, dims};
    KilnTensor output = {y, sizeof y, KILN_F32, 0, NULL};
    KilnTensor scalar = {&total, sizeof total, KILN_F32, 0, NULL};
    if (!check(kiln->bind_input(context, 0, &input, &error), &error, "bind_input") ||
        !check(kiln->bind_output(context, 0, &output, &error), &error, "bind_output") ||
        !check(kiln->bind_output(context, 1, &scalar, &error), &error, "bind_output") ||
        !check(kiln->run(context, &error), &error, "run"))
      return 1;
    input.dtype = KILN_I8; /* nor on the way of an error */
    if (kiln->bind_input(context, 0, &input, &error) != KILN_ERROR_DTYPE)
      return 1;
  }
  printf("%d allocations in 299 runs\n", allocations);
  kiln->pool_destroy(pool);
  kiln->close(module);
  free(memory);
  return allocations == 0 ? 0 : 1;
}
