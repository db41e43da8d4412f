// The relocations that code without imports can have: distances inside the image.
#pragma once

#include "ir/support/result.h"

#include <cstdint>

namespace kiln::cpu {

// Patches `bytes` (at least `available` of them), which will lie at address `place`, so that they
// refer to `target` (symbol plus addend). `machine` is ELF's.
Status apply_relocation(uint16_t machine, uint32_t type, uint8_t *bytes, uint64_t available,
                        uint64_t place, uint64_t target);

} // namespace kiln::cpu
