/* Calls a model that --emit=object made, directly and through the runtime. */
#include "relu.h"

#include <kiln/kiln.h>

#include <stdio.h>

int main(void) {
  static union {
    unsigned char bytes[4096];
    long double aligned;
  } memory;
  unsigned char *arena = (unsigned char *)(((uintptr_t)memory.bytes + 63) & ~(uintptr_t)63);
  float x[6] = {-3, 2, -3, 4, -0.5f, 6}, y[6];
  const float want[6] = {0, 3, 0, 5, 0.5f, 7};
  const KilnApi *kiln = kiln_get_api(KILN_API_VERSION);
  KilnModule *module;
  KilnError error;
  KilnModuleInfo info;
  int i;
  if (relu_main(arena, 2, x, y) != 0)
    return 1;
  for (i = 0; i < 6; ++i)
    if (y[i] != want[i])
      return 2;
  if (kiln->open_static(&kiln_relu_model, &module, &error) != KILN_OK) {
    puts(error.message);
    return 3;
  }
  kiln->module_info(module, &info);
  kiln->close(module);
  return info.entry_count == 1 ? 0 : 4;
}
