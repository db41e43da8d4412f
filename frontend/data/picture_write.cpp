// PNG files written.
#include "frontend/data/picture.h"

#include <fmt/format.h>
#include <png.h>

namespace kiln::data {

Result<std::vector<std::byte>> encode_png(const Picture &picture) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = png_uint_32(picture.width);
  image.height = png_uint_32(picture.height);
  image.format = picture.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  if (!png_image_write_to_memory(&image, nullptr, &size, 0, picture.pixels.data(), 0, nullptr))
    return Error{fmt::format("the picture cannot be written: {}", image.message)};
  std::vector<std::byte> out(size);
  if (!png_image_write_to_memory(&image, out.data(), &size, 0, picture.pixels.data(), 0, nullptr))
    return Error{fmt::format("the picture cannot be written: {}", image.message)};
  out.resize(size);
  return out;
}

} // namespace kiln::data
