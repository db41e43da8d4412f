// The structs of runtime/entry_abi.h as text, for the C that is made: it has to compile without the runtime.
#pragma once

#include <string_view>

namespace kiln {

inline constexpr std::string_view kEntryAbiStructs = R"(typedef struct KilnServices {
  uint32_t abi, threads;
  void *self;
  void (*parallel_for)(void *self, int64_t n, void (*body)(void *closure, int64_t begin, int64_t end), void *closure);
  void (*after_kernel)(void *self, int32_t kernel);
} KilnServices;
typedef struct KilnFrame {
  const KilnServices *services;
  void *const *args;
  const int64_t *dims;
  uint8_t *arena;
  const uint8_t *weights;
  uint8_t *variables;
  int32_t trap_kernel, trap;
  uint8_t *scratch;
  int64_t scratch_stride;
  int64_t *sizes;
  int64_t trap_value;
  int32_t trap_index, hand_over;
} KilnFrame;
)";

} // namespace kiln
