/* image_runner IMAGE REQUEST REPLY: plans and runs an image's entry for a test that cannot run it
 * in its own process, because the code is another machine's. Request and reply are as in
 * harness.cpp. */
#include "tests/cpu/image_loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file)
    exit(10);
  fseek(file, 0, SEEK_END);
  *size = (size_t)ftell(file);
  rewind(file);
  void *bytes = aligned_alloc(64, (*size + 64) / 64 * 64);
  if (fread(bytes, 1, *size, file) != *size)
    exit(11);
  fclose(file);
  return bytes;
}

static int64_t take(const char **at) {
  int64_t value;
  memcpy(&value, *at, sizeof value);
  *at += sizeof value;
  return value;
}

static void *take_block(const char **at, int64_t *size) {
  *size = take(at);
  char *block = aligned_alloc(64, ((size_t)*size + 128) / 64 * 64);
  memcpy(block, *at, (size_t)*size);
  *at += *size;
  return block;
}

static void put(FILE *out, const void *bytes, int64_t size) {
  if (fwrite(bytes, 1, (size_t)size, out) != (size_t)size)
    exit(12);
}

int main(int argc, char **argv) {
  if (argc != 4)
    return 2;
  size_t image_size, request_size;
  void *elf = read_file(argv[1], &image_size);
  const char *at = read_file(argv[2], &request_size);
  const KilnImageHeader *image = image_map(elf, image_size);
  if (!image)
    return 13;
  int64_t dims[16], plan_out[64] = {0}, arg_sizes[64], weights_size, variables_size;
  void *args[64];
  uint32_t entry = (uint32_t)take(&at);
  int32_t hand_over = (int32_t)take(&at);
  int64_t dim_count = take(&at);
  for (int64_t i = 0; i < dim_count; ++i)
    dims[i] = take(&at);
  int64_t arg_count = take(&at);
  for (int64_t i = 0; i < arg_count; ++i)
    args[i] = take_block(&at, &arg_sizes[i]);
  void *weights = take_block(&at, &weights_size);
  void *variables = take_block(&at, &variables_size);

  ImageLog log = {{0}, 0};
  KilnServices services = image_services(&log);
  int64_t status = image_plan_fn(image, entry)(dims, plan_out);
  KilnFrame frame = {&services, args, dims, NULL, weights, variables, -1, 0, NULL, IMAGE_SCRATCH};
  frame.hand_over = hand_over;
  frame.scratch = aligned_alloc(64, services.threads * IMAGE_SCRATCH);
  int64_t code = 0;
  if (status == 0 && plan_out[0] < (1 << 28)) {
    frame.arena = aligned_alloc(64, ((size_t)plan_out[0] + 128) / 64 * 64);
    code = image_run_fn(image, entry)(&frame);
  }
  FILE *out = fopen(argv[3], "wb");
  if (!out)
    return 14;
  int64_t head[3] = {status, code, frame.trap_kernel};
  put(out, head, sizeof head);
  put(out, plan_out, sizeof plan_out);
  put(out, &log, sizeof log);
  for (int64_t i = 0; i < arg_count; ++i)
    put(out, args[i], arg_sizes[i]);
  put(out, variables, variables_size);
  return fclose(out) == 0 ? 0 : 15;
}
