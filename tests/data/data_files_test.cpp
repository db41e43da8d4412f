#define CATCH_CONFIG_MAIN
#include "frontend/data/npy.h"
#include "frontend/data/npz.h"
#include "frontend/data/safetensors.h"
#include "frontend/files/file_writer.h"
#include "frontend/files/mapped_file.h"
#include "tests/temp_folder.h"

#include <catch2/catch.hpp>

#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

using namespace kiln;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

using Folder = test::TempFolder;

Tensor counting(DType dtype, std::vector<int64_t> dims) {
  Tensor out(dtype, std::move(dims));
  for (int64_t i = 0; i < out.count(); ++i)
    out.set_i64(i, is_bool(dtype) ? i % 2 : i);
  return out;
}

bool same(const Tensor &a, const Tensor &b) {
  return a.dtype() == b.dtype() && a.dims() == b.dims() &&
         (a.count() == 0 || std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0);
}

const DType kAll[] = {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i16,
                      DType::i8,  DType::u64, DType::u32, DType::u16,  DType::u8,  DType::bool_};

std::span<const std::byte> bytes_of(const std::string &text) { return std::as_bytes(std::span(text)); }

// A .npy of version 1 with this header and these elements.
std::string npy(std::string header, const std::string &data) {
  header += '\n';
  std::string out = "\x93NUMPY";
  out += '\1';
  out += '\0';
  out += char(header.size() & 255);
  out += char(header.size() >> 8);
  return out + header + data;
}

std::string npy_error(const std::string &file) {
  auto t = parse_npy(bytes_of(file));
  return t ? "" : t.error().message;
}

// A safetensors file with this header and these elements.
std::string safetensors(const std::string &header, const std::string &data) {
  uint64_t n = header.size();
  return std::string(reinterpret_cast<const char *>(&n), 8) + header + data;
}

std::string safetensors_error(const std::string &file) {
  auto t = parse_safetensors(bytes_of(file));
  return t ? "" : t.error().message;
}

} // namespace

TEST_CASE("npy: every dtype and shape comes back") {
  Folder folder;
  for (DType dtype : kAll)
    for (std::vector<int64_t> dims : {std::vector<int64_t>{}, {5}, {2, 3}, {0, 4}, {2, 1, 3, 2}}) {
      Tensor t = counting(dtype, dims);
      REQUIRE(write_npy(folder / "t.npy", t).ok());
      auto back = read_npy(folder / "t.npy");
      INFO(t.type().text());
      REQUIRE(back.ok());
      CHECK(same(t, *back));
      CHECK((npy_bytes(t).size() - t.bytes().size()) % 64 == 0);
    }
}

TEST_CASE("npy: Fortran order, big-endian numbers, bools that are not 0 or 1") {
  std::string data;
  for (char c = 0; c < 6; ++c)
    data += c;
  auto t = parse_npy(bytes_of(npy("{'descr': '|i1', 'fortran_order': True, 'shape': (2, 3), }", data)));
  REQUIRE(t.ok());
  CHECK(t->at_i64(0) == 0);
  CHECK(t->at_i64(1) == 2);
  CHECK(t->at_i64(3) == 1);
  auto big = parse_npy(bytes_of(npy("{'descr': '>u2', 'fortran_order': False, 'shape': (1,), }", std::string("\1\2"))));
  REQUIRE(big.ok());
  CHECK(big->at_i64(0) == 258);
  auto bools = parse_npy(bytes_of(npy("{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }", std::string("\0\7", 2))));
  REQUIRE(bools.ok());
  CHECK(int(bools->bytes()[1]) == 1);
}

TEST_CASE("npy: wrong files are refused") {
  std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  CHECK(npy_error(npy(good, "12345678")) == "");
  CHECK_THAT(npy_error(""), Contains("no .npy"));
  CHECK_THAT(npy_error(npy(good, "1234567")), Contains("7 bytes"));
  CHECK_THAT(npy_error(npy(good, "123456789")), Contains("9 bytes"));
  CHECK_THAT(npy_error(npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", "")), Contains("not supported"));
  CHECK_THAT(npy_error(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", "")), Contains("records"));
  CHECK_THAT(npy_error(npy("{'descr': '<f4', 'shape': (2,), }", "")), Contains("lacks"));
  CHECK_THAT(npy_error(npy("{'descr': '<f4', 'descr': '<f4', 'shape': (2,), }", "")), Contains("twice"));
  CHECK_THAT(npy_error(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "")), Contains("size"));
  CHECK_THAT(npy_error(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "")), Contains("overflow"));
  CHECK_THAT(npy_error(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", "")), Contains("overflow"));
  CHECK(npy_error(npy(good, "12345678").substr(0, 20)) != "");
  std::string file = npy(good, "12345678");
  for (size_t n = 0; n < file.size(); ++n)
    CHECK(npy_error(file.substr(0, n)) != "");
}

TEST_CASE("npz: what is written comes back, the same bytes each time") {
  Folder folder;
  std::vector<std::pair<std::string, Tensor>> in;
  for (DType dtype : kAll)
    in.emplace_back("t/" + std::string(dtype_name(dtype)), counting(dtype, {3, 5}));
  REQUIRE(write_npz(folder / "a.npz", in).ok());
  auto out = read_npz(folder / "a.npz");
  INFO((out ? "" : out.error().message));
  REQUIRE(out.ok());
  REQUIRE(out->size() == in.size());
  for (size_t i = 0; i < in.size(); ++i) {
    CHECK((*out)[i].first == in[i].first);
    CHECK(same((*out)[i].second, in[i].second));
  }
  ::sleep(2); // times in archives have a resolution of two seconds
  REQUIRE(write_npz(folder / "b.npz", in).ok());
  auto a = MappedFile::open(folder / "a.npz"), b = MappedFile::open(folder / "b.npz");
  CHECK(std::string(reinterpret_cast<const char *>((*a)->bytes().data()), (*a)->size()) ==
        std::string(reinterpret_cast<const char *>((*b)->bytes().data()), (*b)->size()));
  REQUIRE(write_npz(folder / "none.npz", {}).ok());
  auto none = read_npz(folder / "none.npz");
  REQUIRE(none.ok());
  CHECK(none->empty());
}

TEST_CASE("npz: damaged archives are refused") {
  Folder folder;
  REQUIRE(write_npz(folder / "a.npz", {{"x", counting(DType::f32, {100})}, {"y", counting(DType::i8, {7})}}).ok());
  auto whole = MappedFile::open(folder / "a.npz");
  std::string bytes(reinterpret_cast<const char *>((*whole)->bytes().data()), (*whole)->size());
  for (size_t n = 0; n < bytes.size(); n += 7) {
    REQUIRE(write_file(folder / "t.npz", bytes.substr(0, n)).ok());
    CHECK_FALSE(read_npz(folder / "t.npz").ok());
  }
  // An element flipped: the checksum says so.
  std::string flipped = bytes;
  flipped[200] ^= 1;
  REQUIRE(write_file(folder / "t.npz", flipped).ok());
  CHECK_FALSE(read_npz(folder / "t.npz").ok());
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string broken = bytes;
    broken[i] = char(broken[i] ^ 0x55);
    REQUIRE(write_file(folder / "t.npz", broken).ok());
    (void)read_npz(folder / "t.npz"); // an error or not, but no crash
  }
  CHECK_FALSE(read_npz(folder / "missing.npz").ok());
}

TEST_CASE("safetensors: what is written comes back, aligned") {
  Folder folder;
  std::vector<std::pair<std::string, Tensor>> in;
  for (DType dtype : kAll)
    in.emplace_back(std::string(dtype_name(dtype)), counting(dtype, {3, 5}));
  in.emplace_back("scalar", counting(DType::f32, {}));
  in.emplace_back("empty \"quoted\"", counting(DType::f32, {0}));
  REQUIRE(write_safetensors(folder / "a.safetensors", in, {{"format", "pt"}}).ok());
  auto out = read_safetensors(folder / "a.safetensors");
  INFO((out ? "" : out.error().message));
  REQUIRE(out.ok());
  CHECK(out->metadata.at("format") == "pt");
  CHECK(out->tensors.size() == in.size());
  for (const auto &[name, tensor] : in) {
    bool found = false;
    for (const auto &[got, view] : out->tensors)
      if (got == name) {
        found = true;
        CHECK(same(view, tensor));
        CHECK(reinterpret_cast<uintptr_t>(view.bytes().data()) % uintptr_t(dtype_bytes(view.dtype())) == 0);
      }
    CHECK(found);
  }
}

TEST_CASE("safetensors: wrong files are refused") {
  auto entry = [](const std::string &dtype, const std::string &shape, const std::string &offsets) {
    return "{\"a\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
  };
  CHECK(safetensors_error(safetensors(entry("\"U8\"", "[4]", "[0,4]"), "1234")) == "");
  CHECK(safetensors_error(safetensors("{}", "")) == "");
  CHECK_THAT(safetensors_error("1234"), Contains("ends inside"));
  CHECK_THAT(safetensors_error(std::string(8, '\xff')), Contains("header would be"));
  CHECK_THAT(safetensors_error(safetensors("[]", "")), Contains("JSON object"));
  CHECK_THAT(safetensors_error(safetensors("{", "")), Contains("JSON object"));
  CHECK_THAT(safetensors_error(safetensors(entry("\"F8\"", "[4]", "[0,4]"), "1234")), Contains("not supported"));
  CHECK_THAT(safetensors_error(safetensors(entry("7", "[4]", "[0,4]"), "1234")), Contains("not supported"));
  CHECK_THAT(safetensors_error(safetensors(entry("\"U8\"", "[-4]", "[0,4]"), "1234")), Contains("no size"));
  CHECK_THAT(safetensors_error(safetensors(entry("\"U8\"", "[4.0]", "[0,4]"), "1234")), Contains("no size"));
  CHECK_THAT(safetensors_error(safetensors(entry("\"U8\"", "[9223372036854775807,9]", "[0,4]"), "1234")), Contains("do not fit"));
  CHECK_THAT(safetensors_error(safetensors(entry("\"U8\"", "[4]", "[4,0]"), "1234")), Contains("do not fit"));
  CHECK_THAT(safetensors_error(safetensors(entry("\"U8\"", "[4]", "[0,4]"), "123")), Contains("past the end"));
  CHECK_THAT(safetensors_error(safetensors(entry("\"U8\"", "[4]", "[1,5]"), "12345")), Contains("gap"));
  CHECK_THAT(safetensors_error(safetensors(entry("\"U8\"", "[4]", "[0,4]"), "12345")), Contains("belong to none"));
  CHECK_THAT(safetensors_error(safetensors(entry("\"BOOL\"", "[4]", "[0,4]"), "1234")), Contains("bools"));
  std::string one = "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}";
  CHECK_THAT(safetensors_error(safetensors("{" + one + "," + one + "}", "1")), Contains("twice"));
  std::string overlap = "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}";
  CHECK_THAT(safetensors_error(safetensors("{" + one + "," + overlap + "}", "1")), Contains("overlaps"));
  CHECK_THAT(safetensors_error(safetensors("{\"a\":" + std::string(100000, '['), "")), Contains("nested"));
  CHECK_THAT(safetensors_error(safetensors("{\"__metadata__\":{\"k\":1}}", "")), Contains("no string"));
}

TEST_CASE("files are written whole or not at all") {
  Folder folder;
  REQUIRE(write_file(folder / "f", "old").ok());
  {
    auto writer = FileWriter::create(folder / "f");
    REQUIRE(writer.ok());
    REQUIRE(writer->write("new").ok());
    size_t temporaries = 0;
    for (const auto &entry : fs::directory_iterator(folder.path))
      temporaries += is_temporary_of(entry.path().filename().string(), "f");
    CHECK(temporaries == 1);
    CHECK_FALSE(is_temporary_of("f", "f"));
    CHECK_FALSE(is_temporary_of("f2.tmp1.0", "f"));
  } // not committed
  auto content = [&] {
    auto file = MappedFile::open(folder / "f");
    return std::string(reinterpret_cast<const char *>((*file)->bytes().data()), (*file)->size());
  };
  CHECK(content() == "old");
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);
  REQUIRE(write_file(folder / "f", "new").ok());
  CHECK(content() == "new");
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);
  CHECK_FALSE(write_file(folder / "missing/f", "x").ok());
  fs::create_symlink("f", folder / "link");
  REQUIRE(write_file(folder / "link", "through the link").ok());
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(content() == "through the link");
  fs::create_directory(folder / "sub");
  fs::create_symlink("../link", folder / "sub/link"); // from its own folder, to another one
  REQUIRE(write_file(folder / "sub/link", "through two links").ok());
  CHECK(content() == "through two links");
  CHECK((fs::is_symlink(folder / "sub/link") && fs::is_symlink(folder / "link")));
  fs::remove(folder / "f");
  REQUIRE(write_file(folder / "sub/link", "a link to nothing").ok());
  CHECK(content() == "a link to nothing");
  fs::create_symlink("circle", folder / "circle");
  CHECK_THAT(write_file(folder / "circle", "x").error().message, Contains("circle'"));
  CHECK_THAT(write_file(folder / "sub", "x").error().message, Contains("it is a folder"));
  CHECK_THAT(write_file(std::string(5000, 'x'), "x").error().message, Contains("cannot create 'xxx"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  int pipe = ::open((folder / "pipe").c_str(), O_RDWR); // so that writing need not wait for a reader
  REQUIRE(write_file(folder / "pipe", "x").ok());
  char byte = 0;
  CHECK((::read(pipe, &byte, 1) == 1 && byte == 'x'));
  CHECK(fs::is_fifo(folder / "pipe"));
  ::close(pipe);
}

TEST_CASE("only regular files are mapped") {
  Folder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THAT(MappedFile::open(folder / "pipe").error().message, Contains("not a regular file"));
  CHECK_THAT(MappedFile::open(folder.path.string()).error().message, Contains("not a regular file"));
  CHECK_THAT(MappedFile::open(folder / "none").error().message, Contains("none"));
  REQUIRE(write_file(folder / "empty", "").ok());
  auto empty = MappedFile::open(folder / "empty");
  REQUIRE(empty.ok());
  CHECK((*empty)->size() == 0);
}
