// A folder of pictures as a source: each folder in it is a class, each PNG or JPEG in there an example, read when it is needed. Decoding takes
// longer than many a training step, so pictures are kept as they are wanted, where all of them are not too many.
#include "frontend/data/dataset.h"
#include "frontend/data/picture.h"
#include "frontend/files/mapped_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <memory>

namespace kiln::data {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kMostKept = int64_t(1) << 30; // bytes
constexpr const char *kOptions = "size=HEIGHTxWIDTH, grey=yes, fields=x,y";

Result<Picture> read_picture(const std::string &path, bool grey) {
  KILN_TRY(file, MappedFile::open(path));
  auto out = decode_picture(file->bytes(), grey);
  if (!out)
    return Error{fmt::format("'{}': {}", path, out.error().message)};
  return out;
}

class Pictures : public Dataset {
public:
  Pictures(std::vector<std::pair<std::string, int64_t>> files, std::vector<Field> fields, bool resize)
      : files_(std::move(files)), fields_(std::move(fields)), bytes_(size_t(fields_[0].dims[0] * fields_[0].dims[1] * fields_[0].dims[2])), resize_(resize) {
    if (int64_t(bytes_) <= kMostKept / int64_t(files_.size()))
      kept_ = std::vector<std::atomic<const uint8_t *>>(files_.size());
  }
  ~Pictures() override {
    for (auto &kept : kept_)
      delete[] kept.load();
  }
  int64_t size() const override { return int64_t(files_.size()); }
  const std::vector<Field> &fields() const override { return fields_; }
  bool get(int64_t index, uint64_t, std::span<std::byte *const> out, std::string &error) const override {
    std::memcpy(out[1], &files_[size_t(index)].second, sizeof(int64_t));
    if (!kept_.empty())
      if (const uint8_t *kept = kept_[size_t(index)].load(std::memory_order_acquire)) {
        std::memcpy(out[0], kept, bytes_);
        return true;
      }
    if (!read(files_[size_t(index)].first, reinterpret_cast<uint8_t *>(out[0]), error))
      return false;
    if (!kept_.empty()) {
      std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes_]);
      std::memcpy(copy.get(), out[0], bytes_);
      const uint8_t *nothing = nullptr; // another thread may have been first
      if (kept_[size_t(index)].compare_exchange_strong(nothing, copy.get(), std::memory_order_acq_rel))
        copy.release();
    }
    return true;
  }

private:
  bool read(const std::string &path, uint8_t *to, std::string &error) const {
    const int64_t c = fields_[0].dims[0], h = fields_[0].dims[1], w = fields_[0].dims[2];
    auto picture = read_picture(path, c == 1);
    if (!picture) {
      error = picture.error().message;
      return false;
    }
    if (!resize_ && (picture->height != h || picture->width != w)) {
      error = fmt::format("'{}' has {}x{} pixels, the first picture {}x{}; size={}x{} resizes all", path, picture->height, picture->width, h, w, h, w);
      return false;
    }
    Picture sized = resized(*picture, h, w);
    for (int64_t k = 0; k < c; ++k)
      for (int64_t i = 0; i < h * w; ++i)
        to[k * h * w + i] = sized.pixels[size_t(i * c + k)];
    return true;
  }

  std::vector<std::pair<std::string, int64_t>> files_;
  std::vector<Field> fields_;
  size_t bytes_; // of a picture
  bool resize_;
  mutable std::vector<std::atomic<const uint8_t *>> kept_;
};

// By name, so that the order is that of no file system.
std::vector<fs::path> sorted_entries(const std::string &folder, bool folders) {
  std::vector<fs::path> out;
  std::error_code failed;
  for (fs::directory_iterator it(folder, failed), end; !failed && it != end; it.increment(failed)) {
    std::string name = it->path().filename().string(), extension = it->path().extension().string();
    std::transform(extension.begin(), extension.end(), extension.begin(), [](unsigned char c) { return char(std::tolower(c)); });
    bool picture = extension == ".png" || extension == ".jpg" || extension == ".jpeg";
    std::error_code ignored;
    if (name[0] != '.' && (folders ? it->is_directory(ignored) : picture))
      out.push_back(it->path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

Result<std::pair<int64_t, int64_t>> parse_size(const std::string &text) {
  size_t x = text.find('x');
  int64_t h = 0, w = 0;
  const char *begin = text.data(), *end = begin + text.size();
  if (x == std::string::npos || std::from_chars(begin, begin + x, h).ptr != begin + x || std::from_chars(begin + x + 1, end, w).ptr != end ||
      h < 1 || w < 1 || h > 16384 || w > 16384)
    return Error{fmt::format("size={} must be HEIGHTxWIDTH, as in size=64x64", text)};
  return std::pair(h, w);
}

} // namespace

Result<DatasetPtr> open_pictures(SourceText &source) {
  auto size = source.take("size");
  auto grey = source.take("grey");
  std::string names = source.take("fields").value_or("x,y");
  size_t comma = names.find(',');
  KILN_RETURN_IF_ERROR(source.finish(kOptions));
  if (comma == std::string::npos || comma == 0 || comma + 1 == names.size() || (grey && *grey != "yes" && *grey != "no"))
    return Error{fmt::format("{}: options are {}", source.path, kOptions)};
  bool is_grey = grey && *grey == "yes";
  std::vector<std::pair<std::string, int64_t>> files;
  std::vector<std::string> classes;
  for (const fs::path &folder : sorted_entries(source.path, true)) {
    for (const fs::path &file : sorted_entries(folder.string(), false))
      files.emplace_back(file.string(), int64_t(classes.size()));
    classes.push_back(folder.filename().string());
  }
  if (files.empty())
    return Error{fmt::format("'{}' has no pictures: it must hold a folder for each class, with .png and .jpg files", source.path)};
  int64_t height = 0, width = 0;
  if (size) {
    KILN_TRY(sizes, parse_size(*size));
    std::tie(height, width) = sizes;
  } else {
    KILN_TRY(first, read_picture(files[0].first, is_grey));
    height = first.height;
    width = first.width;
  }
  Field x{.name = names.substr(0, comma), .dtype = KILN_U8, .dims = {is_grey ? 1 : 3, height, width}};
  Field y{.name = names.substr(comma + 1), .dtype = KILN_I64, .names = classes};
  return DatasetPtr(std::make_shared<Pictures>(std::move(files), std::vector<Field>{x, y}, size.has_value()));
}

} // namespace kiln::data
