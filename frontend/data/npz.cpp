#include "frontend/data/npz.h"

#include "frontend/data/npy.h"
#include "frontend/files/file_writer.h"
#include "frontend/files/mapped_file.h"

#include <fmt/format.h>
#include <zip.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>

namespace kiln {
namespace {

struct ArchiveCloser {
  void operator()(zip_t *archive) const { zip_discard(archive); }
};
struct EntryCloser {
  void operator()(zip_file_t *entry) const { zip_fclose(entry); }
};
using Archive = std::unique_ptr<zip_t, ArchiveCloser>;
using Entry = std::unique_ptr<zip_file_t, EntryCloser>;

constexpr zip_int64_t kMaxEntries = 1 << 20;
constexpr zip_uint64_t kHeaderBytes = 4096;
// Deflate expands by at most 1032; an entry that says more is damaged or hostile.
constexpr zip_uint64_t kMaxExpansion = 1100;

bool read_exactly(zip_file_t *entry, std::byte *out, zip_uint64_t size) {
  while (size > 0) {
    zip_int64_t n = zip_fread(entry, out, std::min<zip_uint64_t>(size, 1 << 30));
    if (n <= 0)
      return false;
    out += n;
    size -= zip_uint64_t(n);
  }
  return true;
}

Result<Tensor> read_entry(zip_t *archive, zip_uint64_t index, const zip_stat_t &info) {
  constexpr zip_uint64_t kNeeded = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE;
  if ((info.valid & kNeeded) != kNeeded || info.size > info.comp_size * kMaxExpansion + kHeaderBytes)
    return Error{"its size is impossible"};
  auto open = [&] { return Entry(zip_fopen_index(archive, index, 0)); };
  Entry entry = open();
  if (!entry)
    return Error{zip_strerror(archive)};
  std::vector<std::byte> start(std::min<zip_uint64_t>(info.size, kHeaderBytes));
  if (!read_exactly(entry.get(), start.data(), start.size()))
    return Error{"it is damaged"};
  KILN_TRY(header, parse_npy_header(start));
  if (header.data_offset + uint64_t(header.data_bytes) != info.size)
    return Error{fmt::format("it is {} bytes long, but its header needs {}", info.size,
                             header.data_offset + uint64_t(header.data_bytes))};
  std::vector<std::byte> bytes(info.size);
  std::copy(start.begin(), start.end(), bytes.begin());
  if (!read_exactly(entry.get(), bytes.data() + start.size(), info.size - start.size()))
    return Error{"it is damaged"};
  // Reading to the end is what checks the checksum.
  std::byte extra;
  if (zip_fread(entry.get(), &extra, 1) != 0)
    return Error{"it is damaged (wrong checksum or length)"};
  return parse_npy(bytes);
}

std::string zip_error_text(zip_error_t *error) {
  std::string out = zip_error_strerror(error);
  zip_error_fini(error);
  return out;
}

} // namespace

Result<std::vector<std::pair<std::string, Tensor>>> read_npz(const std::string &path) {
  // Through the mapping, which refuses pipes and devices.
  KILN_TRY(file, MappedFile::open(path));
  if (file->size() == 0) // which libzip takes for an archive without entries
    return Error{fmt::format("{}: the file is empty", path)};
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t *source = zip_source_buffer_create(file->bytes().data(), file->size(), 0, &error);
  if (!source)
    return Error{fmt::format("{}: {}", path, zip_error_text(&error))};
  Archive archive(zip_open_from_source(source, ZIP_RDONLY, &error));
  if (!archive) {
    zip_source_free(source);
    return Error{fmt::format("{}: {}", path, zip_error_text(&error))};
  }
  zip_int64_t count = zip_get_num_entries(archive.get(), 0);
  if (count > kMaxEntries)
    return Error{fmt::format("{}: it has too many entries", path)};
  std::vector<std::pair<std::string, Tensor>> out;
  std::set<std::string> seen;
  for (zip_int64_t i = 0; i < count; ++i) {
    zip_stat_t info;
    if (zip_stat_index(archive.get(), zip_uint64_t(i), 0, &info) != 0 || !(info.valid & ZIP_STAT_NAME))
      return Error{fmt::format("{}: {}", path, zip_strerror(archive.get()))};
    std::string name = info.name;
    if (name.ends_with(".npy"))
      name.resize(name.size() - 4);
    auto tensor = read_entry(archive.get(), zip_uint64_t(i), info);
    if (!tensor)
      return Error{fmt::format("{}: the array '{}': {}", path, name, tensor.error().message)};
    if (!seen.insert(name).second)
      return Error{fmt::format("{}: the array '{}' is there twice", path, name)};
    out.emplace_back(name, *std::move(tensor));
  }
  return out;
}

Status write_npz(const std::string &path, const std::vector<std::pair<std::string, Tensor>> &tensors) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t *target = zip_source_buffer_create(nullptr, 0, 0, &error);
  if (!target)
    return Error{zip_error_text(&error)};
  zip_source_keep(target); // the bytes are read after the archive is closed
  std::unique_ptr<zip_source_t, decltype(&zip_source_free)> keeper(target, zip_source_free);
  Archive archive(zip_open_from_source(target, ZIP_CREATE | ZIP_TRUNCATE, &error));
  if (!archive) {
    zip_source_free(target);
    return Error{zip_error_text(&error)};
  }
  std::vector<std::vector<std::byte>> contents; // must live until the archive is closed
  for (const auto &[name, tensor] : tensors) {
    contents.push_back(npy_bytes(tensor));
    zip_source_t *entry = zip_source_buffer(archive.get(), contents.back().data(), contents.back().size(), 0);
    if (!entry)
      return Error{zip_strerror(archive.get())};
    zip_int64_t index = zip_file_add(archive.get(), (name + ".npy").c_str(), entry, ZIP_FL_ENC_UTF_8);
    if (index < 0) {
      zip_source_free(entry);
      return Error{fmt::format("the array '{}': {}", name, zip_strerror(archive.get()))};
    }
    constexpr zip_uint16_t kDate1980 = (0 << 9) | (1 << 5) | 1;
    zip_set_file_compression(archive.get(), zip_uint64_t(index), ZIP_CM_STORE, 0);
    zip_file_set_dostime(archive.get(), zip_uint64_t(index), 0, kDate1980, 0);
  }
  if (tensors.empty()) { // libzip writes no archive without entries: this is one
    constexpr unsigned char kEmpty[22] = {'P', 'K', 5, 6};
    return write_file(path, std::as_bytes(std::span(kEmpty)));
  }
  if (zip_close(archive.get()) != 0)
    return Error{zip_strerror(archive.get())};
  (void)archive.release(); // zip_close has freed it
  zip_stat_t info;
  if (zip_source_stat(target, &info) != 0 || zip_source_open(target) != 0)
    return Error{"the archive could not be made"};
  std::vector<std::byte> bytes(info.size);
  zip_int64_t n = zip_source_read(target, bytes.data(), info.size);
  zip_source_close(target);
  if (n != zip_int64_t(info.size))
    return Error{"the archive could not be made"};
  return write_file(path, bytes);
}

} // namespace kiln
