/* Trains the digits network from C: the whole of a step, gradients and optimizer included, is the package's entry train_step.
 *
 *   train_c MODEL.kiln IMAGES LABELS EPOCHS TRAINED.kiln       IDX files, unpacked, as MNIST's are
 *
 * The package is examples/digits/digits.kir, made by `kiln compile --keep-params`. */
#include <kiln/kiln.h>
#include <stdio.h>
#include <stdlib.h>

enum { kBatch = 64, kPixels = 28 * 28 };

static const KilnApi *kiln;
static KilnError error;

static int fail(const char *what) {
  fprintf(stderr, "%s%s%s\n", what, error.message[0] != 0 ? ": " : "", error.message);
  return 1;
}

/* The elements of an IDX file of bytes, whose first dim is `count`. */
static unsigned char *read_idx(const char *path, int dims, size_t example, size_t *count) {
  unsigned char header[16], *data = NULL;
  size_t size = 4 + 4 * (size_t)dims;
  FILE *file = fopen(path, "rb");
  if (file != NULL && fread(header, 1, size, file) == size && header[2] == 8 && header[3] == dims) {
    *count = (size_t)header[4] << 24 | (size_t)header[5] << 16 | (size_t)header[6] << 8 | header[7];
    data = malloc(*count * example);
    if (data != NULL && fread(data, example, *count, file) != *count) {
      free(data);
      data = NULL;
    }
  }
  if (file != NULL)
    fclose(file);
  return data;
}

/* A context of an entry over the shared variables, in memory of our own. */
static KilnContext *open_entry(const KilnModule *module, const char *name, void *variables) {
  int64_t dims[1] = {kBatch};
  KilnContextOptions options = {dims, variables, NULL};
  KilnContext *context = NULL;
  size_t size = 0;
  int32_t entry = kiln->find_entry(module, name);
  if (entry < 0 || kiln->context_size(module, (uint32_t)entry, &options, &size, &error) != KILN_OK)
    return NULL;
  kiln->context_init(module, (uint32_t)entry, &options, aligned_alloc(KILN_MEMORY_ALIGNMENT, size), size, &context, &error);
  return context;
}

static uint32_t next_random(uint32_t *state) { /* xorshift (Marsaglia 2003) */
  *state ^= *state << 13;
  *state ^= *state >> 17;
  return *state ^= *state << 5;
}

int main(int argc, char **argv) {
  static float x[kBatch * kPixels];
  static int64_t y[kBatch];
  float loss = 0, steps;
  uint64_t seed = 1;
  uint32_t state = 1;
  size_t count = 0, labelled = 0;
  const int64_t x_dims[] = {kBatch, 1, 28, 28}, y_dims[] = {kBatch}, none[] = {0};
  KilnTensor tensors[] = {{x, sizeof x, KILN_F32, 4, x_dims}, {y, sizeof y, KILN_I64, 1, y_dims}, {&steps, sizeof steps, KILN_F32, 0, none}};
  KilnTensor loss_tensor = {&loss, sizeof loss, KILN_F32, 0, none}, seed_tensor = {&seed, sizeof seed, KILN_U64, 0, none};
  KilnModule *module = NULL;
  KilnModuleInfo info;
  if (argc != 6)
    return fail("usage: train_c MODEL.kiln IMAGES LABELS EPOCHS TRAINED.kiln");
  kiln = kiln_get_api(KILN_API_VERSION);
  if (kiln->open(argv[1], NULL, &module, &error) != KILN_OK)
    return fail(argv[1]);
  unsigned char *images = read_idx(argv[2], 3, kPixels, &count), *labels = read_idx(argv[3], 1, 1, &labelled);
  if (images == NULL || labels == NULL || labelled != count || count < kBatch)
    return fail("the images or labels are no IDX files of the same length");

  kiln->module_info(module, &info);
  void *variables = aligned_alloc(KILN_MEMORY_ALIGNMENT, (info.variables_size + 63) / 64 * 64);
  if (variables == NULL || kiln->variables_init(module, variables, &error) != KILN_OK)
    return fail("variables");
  KilnContext *init = open_entry(module, "init", variables), *step = open_entry(module, "train_step", variables);
  if (init == NULL || step == NULL || kiln->bind_input(init, 0, &seed_tensor, &error) != KILN_OK || kiln->run(init, &error) != KILN_OK)
    return fail("the package lacks init or train_step");
  for (uint32_t i = 0; i < 3; ++i)
    if (kiln->bind_input(step, i, &tensors[i], &error) != KILN_OK)
      return fail("train_step");
  if (kiln->bind_output(step, 0, &loss_tensor, &error) != KILN_OK)
    return fail("train_step");

  uint32_t *order = malloc(count * sizeof *order);
  if (order == NULL)
    return fail("no memory");
  for (size_t i = 0; i < count; ++i)
    order[i] = (uint32_t)i;
  int epochs = atoi(argv[4]);
  steps = (float)(count / kBatch) * (float)epochs;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    double sum = 0;
    for (size_t i = count; i > 1; --i) {
      size_t j = next_random(&state) % i;
      uint32_t kept = order[i - 1];
      order[i - 1] = order[j];
      order[j] = kept;
    }
    for (size_t begin = 0; begin + kBatch <= count; begin += kBatch) {
      for (size_t i = 0; i < kBatch; ++i) {
        const unsigned char *image = images + (size_t)order[begin + i] * kPixels;
        for (size_t k = 0; k < kPixels; ++k)
          x[i * kPixels + k] = ((float)image[k] / 255 - 0.1307f) / 0.3081f;
        y[i] = labels[order[begin + i]];
      }
      if (kiln->run(step, &error) != KILN_OK)
        return fail("train_step");
      sum += (double)loss;
    }
    printf("epoch %d: loss %.4f\n", epoch + 1, sum / (double)(count / kBatch));
  }
  if (kiln->save(module, variables, argv[5], 0, &error) != KILN_OK)
    return fail(argv[5]);
  kiln->close(module);
  return 0;
}
