// PNG and JPEG files as bytes, and their size changed.
#pragma once

#include "ir/support/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kiln::data {

struct Picture {
  int64_t height = 0, width = 0, channels = 3; // 1 is grey
  std::vector<uint8_t> pixels;                 // [height, width, channels]
};
// By its first bytes. 16 bits become 8, transparent is black. Damaged and cut off files are refused, and those of more than 64 million pixels.
Result<Picture> decode_picture(std::span<const std::byte> bytes, bool grey);
// A triangle filter as wide as a result's pixel, at least one of the source's: linear where it grows, an average where it shrinks.
Picture resized(const Picture &picture, int64_t height, int64_t width);
Result<std::vector<std::byte>> encode_png(const Picture &picture); // of 1 or 3 channels

} // namespace kiln::data
