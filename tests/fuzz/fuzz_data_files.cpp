// .npy and safetensors files from arbitrary bytes.
#include "frontend/data/npy.h"
#include "frontend/data/safetensors.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::span<const std::byte> bytes(reinterpret_cast<const std::byte *>(data), size);
  if (auto tensor = kiln::parse_npy(bytes))
    if (auto again = kiln::parse_npy(kiln::npy_bytes(*tensor)); !again || again->dims() != tensor->dims())
      std::abort();
  (void)kiln::parse_safetensors(bytes);
  return 0;
}
