/* A complete program around the runtime, for check_size.sh: opens, describes, runs and saves. */
#ifdef WITH_KILN
#include <kiln/kiln.h>
#include <stddef.h>

int main(int argc, char **argv) {
  static _Alignas(64) char memory[1 << 16];
  static float x[8], y[8], total;
  const KilnApi *kiln = kiln_get_api(KILN_API_VERSION);
  KilnModule *module;
  KilnContext *context;
  KilnPool *pool;
  int64_t dims[2] = {2, 4};
  KilnTensor input = {x, sizeof x, KILN_F32, 2, dims};
  KilnTensor output = {y, sizeof y, KILN_F32, 2, dims};
  KilnTensor scalar = {&total, sizeof total, KILN_F32, 0, NULL};
  KilnContextOptions options = {dims, NULL, NULL};
  x[0] = x[7] = 1;
  if (argc < 2 || kiln->open(argv[1], NULL, &module, NULL) != KILN_OK)
    return 1;
  if (kiln->pool_create(2, &pool, NULL) != KILN_OK)
    return 2;
  options.executor = kiln->pool_executor(pool);
  if (kiln->context_init(module, 0, &options, memory, sizeof memory, &context, NULL) ||
      kiln->bind_input(context, 0, &input, NULL) || kiln->bind_output(context, 0, &output, NULL) ||
      kiln->bind_output(context, 1, &scalar, NULL))
    return 3;
  for (int i = 0; i < 2000; ++i)
    if (kiln->run(context, NULL) || total != 5)
      return 4;
  kiln->pool_destroy(pool);
  kiln->close(module);
  return 0;
}
#else
int main(void) {
  return 0;
}
#endif
