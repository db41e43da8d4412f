/* The code of the model that the runtime's tests run, written by hand as the compiler would emit
 * it: no imports, no relocations, an entry table that e_entry points to.
 *
 *   scale(x: f32[N, 4]) -> (y: f32[N, 4], total: f32[])     y = x * w; total = sum(y); N % 7 != 0
 *   step(x: f32[4]) -> loss: f32[]                          moment += x; count += 1; loss =
 * sum(moment) pick(table: f32[8], at: i64[]) -> value: f32[]          traps where `at` is out of
 * range denormal(x: f32[N]) -> y: f32[N]                        y = x * 0.5, on all threads
 *   positive(x: f32[N]) -> y: f32[K]                      what is above 0; K <= C, a capacity; counts
 *                                                         its runs before it knows K
 */
#include "runtime/entry_abi.h"

#define LOCAL __attribute__((visibility("hidden"), used))

#ifndef TEST_ABI
#define TEST_ABI 3
#endif
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

__asm__(".section .rodata\n"
        ".balign 16\n"
        ".globl kiln_image\n"
        ".hidden kiln_image\n"
        "kiln_image:\n"
        ".long 0x314d494e, " TEXT(
            TEST_ABI) ", 5, 0\n"
                      ".quad scale_run - kiln_image, scale_plan - kiln_image\n"
                      ".quad step_run - kiln_image, step_plan - kiln_image\n"
                      ".quad pick_run - kiln_image, pick_plan - kiln_image\n"
                      ".quad denormal_run - kiln_image, denormal_plan - kiln_image\n"
                      ".quad positive_run - kiln_image, positive_plan - kiln_image\n"
                      ".text\n");

typedef struct ScaleRows {
  const float *x;
  const float *w;
  float *y;
  float *sums;
} ScaleRows;

static void scale_rows(void *closure, int64_t begin, int64_t end) {
  ScaleRows *rows = closure;
  for (int64_t i = begin; i < end; ++i) {
    float sum = 0;
    for (int64_t j = 0; j < 4; ++j) {
      float y = rows->x[i * 4 + j] * rows->w[j];
      rows->y[i * 4 + j] = y;
      sum += y;
    }
    rows->sums[i] = sum;
  }
}

LOCAL int32_t scale_run(KilnFrame *frame) {
  const KilnServices *services = frame->services;
  int64_t n = frame->dims[0];
  ScaleRows rows = {frame->args[0], (const float *)frame->weights, frame->args[1],
                    (float *)frame->arena};
  if (frame->hand_over > 10000)
    scale_rows(&rows, 0, n);
  else
    services->parallel_for(services->self, n, scale_rows, &rows);
  if (services->after_kernel)
    services->after_kernel(services->self, 0);
  float total = 0;
  for (int64_t i = 0; i < n; ++i)
    total += rows.sums[i];
  *(float *)frame->args[2] = total;
  if (services->after_kernel)
    services->after_kernel(services->self, 1);
  return 0;
}

LOCAL int32_t scale_plan(const int64_t *dims, int64_t *out) {
  if (dims[0] % 7 == 0 && dims[0] != 0)
    return 1;
  out[0] = dims[0] * 4;
  out[1] = dims[0];
  out[2] = 4;
  return 0;
}

LOCAL int32_t step_run(KilnFrame *frame) {
  float *moment = (float *)frame->variables;
  int64_t *count = (int64_t *)(frame->variables + 64);
  const float *x = frame->args[0];
  float loss = 0;
  for (int64_t j = 0; j < 4; ++j) {
    moment[j] += x[j];
    loss += moment[j];
  }
  *count += 1;
  *(float *)frame->args[1] = loss;
  return 0;
}

LOCAL int32_t step_plan(const int64_t *dims, int64_t *out) {
  (void)dims;
  out[0] = 0;
  return 0;
}

LOCAL int32_t pick_run(KilnFrame *frame) {
  int64_t at = *(const int64_t *)frame->args[1];
  if (at < 0 || at >= 8) {
    frame->trap_kernel = 0;
    return KILN_TRAP_INDEX;
  }
  *(float *)frame->args[2] = ((const float *)frame->args[0])[at];
  return 0;
}

LOCAL int32_t pick_plan(const int64_t *dims, int64_t *out) {
  return step_plan(dims, out);
}

typedef struct Halves {
  const float *x;
  float *y;
} Halves;

static void halve(void *closure, int64_t begin, int64_t end) {
  Halves *halves = closure;
  for (int64_t i = begin; i < end; ++i)
    halves->y[i] = halves->x[i] * 0.5f;
}

LOCAL int32_t denormal_run(KilnFrame *frame) {
  Halves halves = {frame->args[0], frame->args[1]};
  frame->services->parallel_for(frame->services->self, frame->dims[0], halve, &halves);
  return 0;
}

LOCAL int32_t denormal_plan(const int64_t *dims, int64_t *out) {
  out[0] = 0;
  out[1] = dims[0];
  return 0;
}

#ifdef TEST_IMPORTS
extern int outside;
LOCAL int *imported(void) {
  return &outside;
}
#endif

#ifdef TEST_DATA
LOCAL int counter = 1;
#endif

LOCAL int32_t positive_run(KilnFrame *frame) {
  const float *x = frame->args[0];
  int64_t found = 0;
  *(int64_t *)(frame->variables + 64) += 1;
  for (int64_t i = 0; i < frame->dims[0]; ++i)
    found += x[i] > 0;
  if (found > frame->dims[1]) {
    frame->trap_kernel = 0;
    frame->trap_index = 0;
    frame->trap_value = found;
    return KILN_TRAP_SIZE;
  }
  frame->sizes[0] = found;
  float *y = frame->args[1];
  for (int64_t i = 0; i < frame->dims[0]; ++i)
    if (x[i] > 0)
      *y++ = x[i];
  return 0;
}

LOCAL int32_t positive_plan(const int64_t *dims, int64_t *out) {
  out[0] = 0;
  out[1] = dims[1];
  return 0;
}
