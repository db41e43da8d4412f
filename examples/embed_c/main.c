/* Runs a classifier from C: opens a package, feeds one tensor, prints the five best classes.
 *
 *   embed_c MODEL.kiln ENTRY < input.f32      raw floats, as many as the input has
 *
 * The entry has one f32 input and its first output is f32; symbolic dims (the batch) become 1. The
 * runtime allocates nothing here but the module: all other memory is this program's. */
#include <kiln/kiln.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const KilnError *error) {
  fprintf(stderr, "%s\n", error->message);
  if (error->node[0] != 0)
    fprintf(stderr, "  in %s %s\n", error->node, error->location);
  return 1;
}

static size_t count_of(const int64_t *dims, uint32_t rank) {
  size_t count = 1;
  for (uint32_t i = 0; i < rank; ++i)
    count *= (size_t)dims[i];
  return count;
}

static void print_best(const float *scores, size_t count) {
  size_t last = count; /* the class printed last; the next one scores less, or the same later on */
  for (int place = 0; place < 5 && (size_t)place < count; ++place) {
    size_t best = count;
    for (size_t i = 0; i < count; ++i) {
      int is_left =
          last == count || scores[i] < scores[last] || (scores[i] == scores[last] && i > last);
      if (is_left && (best == count || scores[i] > scores[best]))
        best = i;
    }
    if (best == count)
      return;
    printf("%zu\t%g\n", best, (double)scores[best]);
    last = best;
  }
}

int main(int argc, char **argv) {
  const KilnApi *kiln = kiln_get_api(KILN_API_VERSION);
  KilnModule *module = NULL;
  KilnContext *context = NULL;
  KilnError error;
  if (kiln == NULL || argc != 3) {
    fprintf(stderr, "usage: embed_c MODEL.kiln ENTRY < input.f32\n");
    return 2;
  }
  if (kiln->open(argv[1], NULL, &module, &error) != KILN_OK)
    return fail(&error);
  int32_t entry = kiln->find_entry(module, argv[2]);
  KilnEntryInfo info;
  if (entry < 0 || kiln->entry_info(module, (uint32_t)entry, &info) != KILN_OK) {
    fprintf(stderr, "no entry '%s'\n", argv[2]);
    return 1;
  }

  /* One value for each symbolic dim; and the context in memory of our own. */
  int64_t dims[KILN_MAX_RANK];
  for (uint32_t i = 0; i < KILN_MAX_RANK; ++i)
    dims[i] = 1;
  if (info.symbol_count > KILN_MAX_RANK) {
    fprintf(stderr, "more symbolic dims than this example expects\n");
    return 1;
  }
  KilnContextOptions options = {dims, NULL, NULL};
  size_t size = 0;
  if (kiln->context_size(module, (uint32_t)entry, &options, &size, &error) != KILN_OK)
    return fail(&error);
  void *memory = aligned_alloc(KILN_MEMORY_ALIGNMENT, size);
  if (memory == NULL)
    return 1;
  if (kiln->context_init(module, (uint32_t)entry, &options, memory, size, &context, &error) !=
          KILN_OK ||
      kiln->set_dims(context, dims, info.symbol_count, &error) != KILN_OK)
    return fail(&error);

  /* Without dims, a tensor has the shape that set_dims gives it. */
  KilnValueInfo input;
  kiln->input_info(module, (uint32_t)entry, 0, &input);
  int64_t shape[KILN_MAX_RANK];
  for (uint32_t i = 0; i < input.rank; ++i)
    shape[i] = input.dims[i].value >= 0 ? input.dims[i].value : 1;
  size_t input_count = count_of(shape, input.rank);
  float *x = calloc(input_count, sizeof *x);
  if (x == NULL || fread(x, sizeof *x, input_count, stdin) != input_count) {
    fprintf(stderr, "the input '%s' wants %zu floats\n", input.name, input_count);
    return 1;
  }
  KilnTensor bound = {x, input_count * sizeof *x, KILN_F32, 0, NULL};
  if (kiln->bind_input(context, 0, &bound, &error) != KILN_OK)
    return fail(&error);

  float *first = NULL;
  size_t first_count = 0;
  for (uint32_t i = 0; i < info.output_count; ++i) {
    KilnValueInfo output;
    kiln->output_info(module, (uint32_t)entry, i, &output);
    if (kiln->output_dims(context, i, shape, &error) != KILN_OK)
      return fail(&error);
    size_t count = count_of(shape, output.rank);
    void *y = calloc(count != 0 ? count : 1, 8); /* room for any dtype */
    KilnTensor result = {y, count * 8, output.dtype, 0, NULL};
    if (y == NULL || kiln->bind_output(context, i, &result, &error) != KILN_OK)
      return fail(&error);
    if (i == 0 && output.dtype == KILN_F32)
      first = y, first_count = count;
  }
  if (kiln->run(context, &error) != KILN_OK)
    return fail(&error);
  if (first != NULL)
    print_best(first, first_count);
  kiln->close(module);
  return 0;
}
