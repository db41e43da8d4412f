#include "frontend/files/file_writer.h"

#include "runtime/file.h"

namespace kiln {
namespace {

Status status_of(const KilnError &error) {
  return error.code == KILN_OK ? Status(Unit{}) : Status(Error{error.message});
}

} // namespace

FileWriter::FileWriter() : file_(std::make_unique<rt::WholeFile>()) {}
FileWriter::FileWriter(FileWriter &&other) noexcept = default;
FileWriter::~FileWriter() = default;

Result<FileWriter> FileWriter::create(const std::string &path) {
  FileWriter out;
  KilnError error{};
  out.file_->create(path.c_str(), &error);
  KILN_RETURN_IF_ERROR(status_of(error));
  return out;
}

Status FileWriter::write(std::span<const std::byte> bytes) {
  KilnError error{};
  file_->put(written_, bytes.data(), bytes.size(), &error);
  written_ += bytes.size();
  return status_of(error);
}

Status FileWriter::commit() {
  KilnError error{};
  file_->commit(&error);
  return status_of(error);
}

bool is_temporary_of(std::string_view file, std::string_view target) {
  return file.starts_with(target) && file.substr(target.size()).starts_with(rt::kTemporaryMark);
}

Status write_file(const std::string &path, std::span<const std::byte> bytes) {
  KILN_TRY(writer, FileWriter::create(path));
  KILN_RETURN_IF_ERROR(writer.write(bytes));
  return writer.commit();
}

Status write_file(const std::string &path, std::string_view text) {
  return write_file(path, std::as_bytes(std::span(text)));
}

} // namespace kiln
