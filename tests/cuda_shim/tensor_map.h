// What tests/fake_driver writes into the 128 bytes of a tensor map and the shim reads there: what cuTensorMapEncodeTiled was
// told. The bytes of a real one are the driver's own.
#pragma once

#include <stdint.h>

namespace kiln_shim {

constexpr uint32_t kMapMark = 0x70616d74;

struct EncodedMap {
  uint32_t mark, rank, element, swizzle; // swizzle: bytes of a line; 0
  uint64_t base;
  uint32_t sizes[5]; // elements, less one
  uint64_t strides[4]; // bytes
  uint16_t box[5];
};
static_assert(sizeof(EncodedMap) <= 128);

} // namespace kiln_shim
