// Folders of pictures. The files are written here, by libpng and libjpeg.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "frontend/data/picture.h"
#include "tests/temp_folder.h"

#include <kiln/data.hpp>

#include <cstdio>
#include <jpeglib.h>
#include <png.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include <unistd.h>

namespace fs = std::filesystem;
using namespace kiln;

namespace {

using Folder = test::TempFolder;

std::string png(uint32_t height, uint32_t width, const std::vector<uint8_t> &rgb) {
  png_image image;
  std::memset(&image, 0, sizeof image);
  image.version = PNG_IMAGE_VERSION;
  image.format = PNG_FORMAT_RGB;
  image.height = height;
  image.width = width;
  png_alloc_size_t size = 0;
  REQUIRE(png_image_write_to_memory(&image, nullptr, &size, 0, rgb.data(), 0, nullptr));
  std::string out(size, '\0');
  REQUIRE(png_image_write_to_memory(&image, out.data(), &size, 0, rgb.data(), 0, nullptr));
  out.resize(size);
  return out;
}

std::string jpeg(uint32_t height, uint32_t width, uint8_t value) {
  jpeg_compress_struct encoder;
  jpeg_error_mgr errors;
  encoder.err = jpeg_std_error(&errors);
  jpeg_create_compress(&encoder);
  unsigned char *memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&encoder, &memory, &size);
  encoder.image_height = height;
  encoder.image_width = width;
  encoder.input_components = 3;
  encoder.in_color_space = JCS_RGB;
  jpeg_set_defaults(&encoder);
  jpeg_start_compress(&encoder, TRUE);
  std::vector<uint8_t> row(size_t(width) * 3, value);
  JSAMPROW pointer = row.data();
  while (encoder.next_scanline < height)
    jpeg_write_scanlines(&encoder, &pointer, 1);
  jpeg_finish_compress(&encoder);
  std::string out(reinterpret_cast<char *>(memory), size);
  jpeg_destroy_compress(&encoder);
  std::free(memory);
  return out;
}

std::string error_of(const std::string &bytes) {
  auto out = data::decode_picture(std::as_bytes(std::span(bytes)), false);
  return out ? "no error" : out.error().message;
}

const std::vector<uint8_t> kFour = {255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9}; // 2x2

} // namespace

TEST_CASE("a folder for each class, PNG and JPEG") {
  Folder folder;
  folder.write("dog/b.png", png(2, 2, kFour));
  folder.write("dog/a.JPG", jpeg(2, 2, 200));
  folder.write("cat/c.jpeg", jpeg(2, 2, 100));
  folder.write("cat/notes.txt", "no picture");
  folder.write(".hidden/x.png", "no picture");
  auto set = data::open(folder.path.string());
  REQUIRE(set->size() == 3);
  CHECK(set->fields()[0].dims == std::vector<int64_t>{3, 2, 2});
  CHECK(set->fields()[1].names == std::vector<std::string>{"cat", "dog"});
  data::Loader loader(set, {.batch = 3, .shuffle = false, .workers = 2});
  loader.start(0);
  loader.next();
  loader.start(1); // this time from memory
  const data::Batch *batch = loader.next();
  REQUIRE(batch);
  auto y = batch->fields[1].values<int64_t>();
  CHECK(std::vector<int64_t>(y.begin(), y.end()) == std::vector<int64_t>{0, 1, 1});
  auto x = batch->fields[0].values<uint8_t>();
  CHECK(std::abs(int(x[0]) - 100) < 3);
  CHECK(std::vector<uint8_t>(x.begin() + 24, x.end()) == std::vector<uint8_t>{255, 0, 0, 9, 0, 255, 0, 9, 0, 0, 255, 9});
  CHECK(data::open(folder.path.string() + " size=5x4 grey=yes")->fields()[0].dims == std::vector<int64_t>{1, 5, 4});
}

TEST_CASE("resizing: a plain picture stays plain, halves are averages") {
  data::Picture grey{4, 4, 1, {0, 0, 100, 100, 0, 0, 100, 100, 200, 200, 50, 50, 200, 200, 50, 50}};
  auto half = data::resized(grey, 2, 2);
  CHECK(half.pixels.size() == 4);
  CHECK(half.pixels[0] < half.pixels[1]);
  CHECK(half.pixels[2] > half.pixels[3]);
  data::Picture plain{3, 5, 3, std::vector<uint8_t>(45, 77)};
  for (auto [h, w] : {std::pair(1, 1), {9, 2}, {64, 64}})
    for (uint8_t v : data::resized(plain, h, w).pixels)
      CHECK(v == 77);
}

TEST_CASE("bad pictures are refused, with the file's name") {
  std::string good = png(2, 2, kFour), photo = jpeg(40, 40, 10);
  CHECK_THAT(error_of("GIF89a"), Catch::Contains("neither PNG nor JPEG"));
  for (size_t n : {size_t(8), good.size() / 2, good.size() - 14})
    CHECK_THAT(error_of(good.substr(0, n)), Catch::Contains("PNG is damaged"));
  for (size_t n : {size_t(4), photo.size() / 2, photo.size() - 20})
    CHECK_THAT(error_of(photo.substr(0, n)), Catch::Contains("JPEG is damaged"));
  std::string huge = good;
  huge[16] = huge[20] = '\x40'; // width and height: the checksum of the header is wrong as well
  CHECK(error_of(huge) != "no error");
  std::string tall = photo;
  size_t frame = tall.find("\xff\xc0");
  REQUIRE(frame != std::string::npos);
  for (size_t i = 5; i < 9; ++i)
    tall[frame + i] = '\xff'; // 65535 x 65535
  CHECK_THAT(error_of(tall), Catch::Contains("65535x65535 pixels") || Catch::Contains("damaged"));
  Folder folder;
  folder.write("a/1.png", good);
  folder.write("b/2.png", png(1, 4, kFour));
  auto set = data::open(folder.path.string());
  data::Loader loader(set, {.batch = 2, .shuffle = false});
  loader.start(0);
  std::string error;
  CHECK(!loader.try_next(error));
  CHECK_THAT(error, Catch::Contains("2.png' has 1x4 pixels, the first picture 2x2; size=2x2 resizes all"));
  Folder empty;
  CHECK(!data::try_open(empty.path.string(), error));
  CHECK_THAT(error, Catch::Contains("has no pictures: it must hold a folder for each class"));
}

TEST_CASE("pictures with bytes changed and cut are read or refused") {
  uint64_t draws = 0;
  auto draw = [&](size_t n) { return size_t(data::mix_bits(5, draws++) % n); };
  int refused = 0;
  for (const std::string &good : {png(2, 2, kFour), jpeg(24, 24, 90)})
    for (int round = 0; round < 1500; ++round) {
      std::string bytes = good;
      for (size_t k = 0; k < 1 + draw(3); ++k)
        bytes[draw(bytes.size())] = char(draw(256));
      if (draw(8) == 0)
        bytes.resize(draw(bytes.size()));
      auto out = data::decode_picture(std::as_bytes(std::span(bytes)), draw(2) == 0);
      refused += !out;
      if (out)
        CHECK(out->pixels.size() == size_t(out->height * out->width * out->channels));
    }
  CHECK(refused > 500);
}
