#include "frontend/data/picture.h"

#include <fmt/format.h>
#include <png.h>

#include <cstdio> // before jpeglib.h, which uses FILE and does not say so
#include <jpeglib.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstring>

namespace kiln::data {
namespace {

constexpr int64_t kMostPixels = int64_t(1) << 26;

Status check_size(int64_t height, int64_t width) {
  if (height < 1 || width < 1 || height > kMostPixels / width)
    return Error{fmt::format("it says that it has {}x{} pixels; the most is {}", height, width, kMostPixels)};
  return Unit{};
}

Result<Picture> decode_png(std::span<const std::byte> bytes, bool grey) {
  struct Image : png_image {
    Image() { std::memset(static_cast<png_image *>(this), 0, sizeof(png_image)), version = PNG_IMAGE_VERSION; }
    ~Image() { png_image_free(this); }
  } image;
  auto refused = [&] { return Error{fmt::format("its PNG is damaged: {}", image.message)}; };
  if (!png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()))
    return refused();
  KILN_RETURN_IF_ERROR(check_size(image.height, image.width));
  image.format = grey ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  Picture out{image.height, image.width, grey ? 1 : 3, {}};
  out.pixels.resize(PNG_IMAGE_SIZE(image));
  png_color black{0, 0, 0};
  if (!png_image_finish_read(&image, &black, out.pixels.data(), 0, nullptr) || image.warning_or_error != 0)
    return refused();
  return out;
}

// libjpeg reports errors by a function that must not return.
struct JpegErrors {
  jpeg_error_mgr base;
  jpeg_progress_mgr progress;
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};
[[noreturn]] void jpeg_failed(j_common_ptr info) {
  auto *errors = reinterpret_cast<JpegErrors *>(info->err);
  info->err->format_message(info, errors->message);
  std::longjmp(errors->back, 1);
}
// Warnings are about files that are cut off or damaged.
void jpeg_message(j_common_ptr info, int level) {
  if (level < 0)
    jpeg_failed(info);
}
// A small file can ask for millions of scans over a large picture.
void jpeg_progress(j_common_ptr info) {
  auto *decoder = reinterpret_cast<j_decompress_ptr>(info);
  if (decoder->input_scan_number <= 200)
    return;
  auto *errors = reinterpret_cast<JpegErrors *>(info->err);
  std::snprintf(errors->message, sizeof errors->message, "it has more than 200 scans");
  std::longjmp(errors->back, 1);
}

// 0 reads the size, 1 the pixels. No object with a destructor lives here: longjmp would skip it.
bool run_jpeg(std::span<const std::byte> bytes, bool grey, int phase, Picture &out, JpegErrors &errors) {
  jpeg_decompress_struct decoder;
  std::memset(&decoder, 0, sizeof decoder);
  decoder.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = jpeg_failed;
  errors.base.emit_message = jpeg_message;
  if (setjmp(errors.back) != 0) {
    jpeg_destroy_decompress(&decoder);
    return false;
  }
  jpeg_create_decompress(&decoder);
  errors.progress.progress_monitor = jpeg_progress;
  decoder.progress = &errors.progress;
  jpeg_mem_src(&decoder, reinterpret_cast<const unsigned char *>(bytes.data()), bytes.size());
  jpeg_read_header(&decoder, TRUE);
  out.height = decoder.image_height;
  out.width = decoder.image_width;
  if (phase == 1) {
    decoder.out_color_space = grey ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(&decoder);
    while (decoder.output_scanline < decoder.output_height) {
      JSAMPROW row = out.pixels.data() + size_t(decoder.output_scanline) * size_t(out.width * out.channels);
      jpeg_read_scanlines(&decoder, &row, 1);
    }
    jpeg_finish_decompress(&decoder);
  }
  jpeg_destroy_decompress(&decoder);
  return true;
}

Result<Picture> decode_jpeg(std::span<const std::byte> bytes, bool grey) {
  JpegErrors errors{};
  Picture out;
  out.channels = grey ? 1 : 3;
  bool fine = run_jpeg(bytes, grey, 0, out, errors);
  if (fine) {
    KILN_RETURN_IF_ERROR(check_size(out.height, out.width));
    out.pixels.resize(size_t(out.height * out.width * out.channels));
    fine = run_jpeg(bytes, grey, 1, out, errors);
  }
  if (!fine)
    return Error{fmt::format("its JPEG is damaged or of a kind that is not read (CMYK): {}", errors.message)};
  return out;
}

struct Taps {
  int64_t first = 0;
  std::vector<float> weights;
};
std::vector<Taps> taps(int64_t from, int64_t to) {
  double scale = double(from) / double(to), reach = std::max(scale, 1.0);
  std::vector<Taps> out(static_cast<size_t>(to));
  for (int64_t i = 0; i < to; ++i) {
    double centre = (double(i) + 0.5) * scale;
    auto first = std::max<int64_t>(int64_t(std::ceil(centre - reach - 0.5)), 0);
    auto last = std::min<int64_t>(int64_t(std::floor(centre + reach - 0.5)), from - 1);
    double sum = 0;
    std::vector<double> weights;
    for (int64_t k = first; k <= last; ++k) {
      weights.push_back(std::max(0.0, 1 - std::abs((double(k) + 0.5 - centre) / reach)));
      sum += weights.back();
    }
    out[size_t(i)].first = first;
    for (double w : weights)
      out[size_t(i)].weights.push_back(float(w / sum));
  }
  return out;
}

} // namespace

Result<Picture> decode_picture(std::span<const std::byte> bytes, bool grey) {
  auto is = [&](std::initializer_list<int> magic) {
    return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin(), [](int a, std::byte b) { return a == int(b); });
  };
  if (is({0x89, 'P', 'N', 'G'}))
    return decode_png(bytes, grey);
  if (is({0xFF, 0xD8, 0xFF}))
    return decode_jpeg(bytes, grey);
  return Error{"it is neither PNG nor JPEG"};
}

Picture resized(const Picture &picture, int64_t height, int64_t width) {
  if (picture.height == height && picture.width == width)
    return picture;
  const int64_t c = picture.channels;
  std::vector<float> rows(size_t(picture.height * width * c));
  auto across = taps(picture.width, width), down = taps(picture.height, height);
  for (int64_t y = 0; y < picture.height; ++y)
    for (int64_t x = 0; x < width; ++x)
      for (int64_t k = 0; k < c; ++k) {
        const Taps &t = across[size_t(x)];
        float sum = 0;
        for (size_t i = 0; i < t.weights.size(); ++i)
          sum += t.weights[i] * float(picture.pixels[size_t((y * picture.width + t.first + int64_t(i)) * c + k)]);
        rows[size_t((y * width + x) * c + k)] = sum;
      }
  Picture out{height, width, c, std::vector<uint8_t>(size_t(height * width * c))};
  for (int64_t y = 0; y < height; ++y)
    for (int64_t i = 0; i < width * c; ++i) {
      const Taps &t = down[size_t(y)];
      float sum = 0;
      for (size_t k = 0; k < t.weights.size(); ++k)
        sum += t.weights[k] * rows[size_t((t.first + int64_t(k)) * width * c + i)];
      out.pixels[size_t(y * width * c + i)] = uint8_t(std::clamp(sum + 0.5f, 0.0f, 255.0f));
    }
  return out;
}

} // namespace kiln::data
