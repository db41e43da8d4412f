// What the cubins of a device section say of their functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

namespace kiln::test {

// A T at that place; 0 past the end.
template <typename T>
T number_at(std::span<const uint8_t> bytes, size_t offset) {
  T out{};
  if (offset + sizeof out <= bytes.size())
    std::memcpy(&out, bytes.data() + offset, sizeof out);
  return out;
}

// The most bytes of local memory that a function in the cubins of a device section keeps registers in: what the sections
// .nv.info (type 0x70000000) say in records 0x11, a symbol and its frame.
inline uint32_t largest_frame(std::span<const uint8_t> section) {
  uint32_t most = 0;
  for (size_t image = 0; image + 64 <= section.size(); image += 64) {
    if (std::memcmp(section.data() + image, "\x7f" "ELF", 4) != 0)
      continue;
    std::span<const uint8_t> elf = section.subspan(image);
    for (int i = 0; i < number_at<uint16_t>(elf, 0x3c); ++i) {
      size_t header = number_at<uint64_t>(elf, 0x28) + size_t(i) * number_at<uint16_t>(elf, 0x3a);
      if (number_at<uint32_t>(elf, header + 4) != 0x70000000)
        continue;
      size_t end = std::min<size_t>(number_at<uint64_t>(elf, header + 24) + number_at<uint64_t>(elf, header + 32), elf.size());
      for (size_t p = number_at<uint64_t>(elf, header + 24); p + 4 <= end;) {
        bool has_payload = elf[p] == 4;
        if (has_payload && elf[p + 1] == 0x11)
          most = std::max(most, number_at<uint32_t>(elf, p + 8));
        p += 4 + (has_payload ? number_at<uint16_t>(elf, p + 2) : 0);
      }
    }
  }
  return most;
}

} // namespace kiln::test
