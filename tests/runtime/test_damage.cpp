// Packages that must not run: truncated, changed in any byte, of another version or machine, or
// with code that is not self-contained. Each is refused with an error that names what is wrong.
#include <catch2/catch.hpp>
#include <cstring>
#include <elf.h>

#include "runtime/wide_digest.h"
#include "tests/runtime/test_model.h"

using namespace kiln;
using namespace kiln::test;

namespace {

std::vector<uint8_t> whole_package() {
  std::vector<uint8_t> image = read_file(image_path());
  REQUIRE(image.size() > 1000);
  std::vector<uint8_t> bytes;
  REQUIRE(build_package(make_spec(image), bytes).empty());
  return bytes;
}

// Opens bytes from memory, at a place where they are aligned.
struct Attempt {
  explicit Attempt(const std::vector<uint8_t> &bytes) : block(bytes.size()) {
    std::memcpy(block.get(), bytes.data(), bytes.size());
    Opened opened(block.get(), bytes.size());
    code = opened.code;
    message = opened.error.message;
  }
  Block block;
  int32_t code;
  std::string message;
};

std::string open_image(const std::vector<uint8_t> &image, const char *target = nullptr) {
  PackageSpec spec = make_spec(image);
  if (target != nullptr)
    spec.code[0].target = target;
  std::vector<uint8_t> bytes;
  std::string error = build_package(spec, bytes);
  REQUIRE(error.empty());
  Attempt attempt(bytes);
  return std::to_string(attempt.code) + ": " + attempt.message;
}

// Makes the digests of the manifest, which is the first section, and of the first page right again.
void fix_digests(uint8_t *data) {
  package::SectionHeader section;
  std::memcpy(&section, data + sizeof(package::FileHeader), sizeof section);
  REQUIRE(section.kind == package::SectionKind::Manifest);
  section.digest = package::digest_of(data + section.offset, section.extent);
  std::memcpy(data + sizeof(package::FileHeader), &section, sizeof section);
  package::FileHeader header;
  std::memcpy(&header, data, sizeof header);
  header.digest = {};
  std::memcpy(data, &header, sizeof header);
  header.digest = package::digest_of(data, package::kPageSize);
  std::memcpy(data, &header, sizeof header);
}

} // namespace

TEST_CASE("every flipped byte is refused by name") {
  std::vector<uint8_t> bytes = whole_package();
  REQUIRE(Attempt(bytes).code == KILN_OK);
  Block block(bytes.size());
  auto *data = static_cast<uint8_t *>(block.get());
  std::memcpy(data, bytes.data(), bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    data[i] ^= static_cast<uint8_t>(1u << i % 8);
    KilnModule *module = nullptr;
    KilnError error{};
    int32_t code = api().open_memory(data, bytes.size(), nullptr, &module, &error);
    bool is_refused = (code == KILN_ERROR_FORMAT || code == KILN_ERROR_VERSION) &&
                      module == nullptr && error.message[0] != 0;
    if (!is_refused)
      FAIL("byte " << i << ": " << code << " " << error.message);
    data[i] = bytes[i];
  }
}

TEST_CASE("every truncation is refused by name") {
  std::vector<uint8_t> bytes = whole_package();
  Block block(bytes.size());
  std::memcpy(block.get(), bytes.data(), bytes.size());
  for (size_t size = 0; size < bytes.size(); ++size) {
    Opened opened(block.get(), size);
    std::string message = opened.error.message;
    bool is_named = message.find(size < 8 ? "not a Kiln package" : "truncated") != message.npos;
    if (opened.code != KILN_ERROR_FORMAT || !is_named)
      FAIL("size " << size << ": " << opened.code << " " << message);
  }
  bytes.push_back(0);
  CHECK(Attempt(bytes).message == "the package in memory: 1 bytes follow its end");
}

TEST_CASE("files that are no packages") {
  CHECK(Opened(temporary("nothing.kiln")).code == KILN_ERROR_IO);
  CHECK(Opened(std::string("/")).error.message == std::string("cannot open '/': it is a folder"));
  std::string path = temporary("empty.kiln");
  write_file(path, {});
  Opened empty(path);
  CHECK(empty.code == KILN_ERROR_FORMAT);
  CHECK(empty.error.message == path + ": not a Kiln package");
}

TEST_CASE("other versions and machines are named") {
  std::vector<uint8_t> bytes = whole_package();
  bytes[8] = 7;
  CHECK(Attempt(bytes).message == "the package in memory: package format version 7, this runtime "
                                  "reads version 4; compile the model again");
  CHECK(open_image(read_file(image_path("_abi9"))) ==
        std::string("4: the package in memory: the code for ") + base_target() +
            " has the interface version 9, this runtime runs version 3; compile the model again");
  std::string other = open_image(read_file(image_path()), "riscv64");
  CHECK(other.find("5: the package in memory: built for riscv64, and this machine is ") == 0);
  std::vector<uint8_t> image = read_file(image_path());
  image[offsetof(Elf64_Ehdr, e_machine)] = EM_RISCV;
  CHECK(open_image(image).find("is for ELF machine 243") != std::string::npos);
  PackageSpec spec = make_spec(image);
  spec.code.clear();
  REQUIRE(build_package(spec, bytes).empty());
  CHECK(Attempt(bytes).message == "the package in memory: holds no code");
}

TEST_CASE("the best code for the machine is chosen, or the one asked for") {
  std::vector<uint8_t> image = read_file(image_path());
  PackageSpec spec = make_spec(image);
  spec.code.insert(spec.code.begin(), {"made-up-v9", image});
  std::string path = temporary("targets.kiln");
  REQUIRE(write_package(spec, path).empty());
  Opened module(path);
  REQUIRE(module.code == KILN_OK);
  KilnModuleInfo info;
  REQUIRE(api().module_info(module, &info) == KILN_OK);
  CHECK(info.target == std::string(base_target()));
  KilnOpenOptions options{0, 0, "sparc", nullptr};
  CHECK(Opened(path, &options).error.message ==
        path + ": no code for the target 'sparc'; it has made-up-v9, " + base_target());
}

TEST_CASE("code that needs anything from outside is refused") {
  CHECK(open_image(read_file(image_path("_imports"))).find("relocations") != std::string::npos);
  CHECK(open_image(read_file(image_path("_data"))).find("writable data") != std::string::npos);
}

TEST_CASE("a damaged image behind a good digest is refused, or harmless, never a crash") {
  // The loader may not trust an image just because its digest is right.
  std::vector<uint8_t> image = read_file(image_path());
  Elf64_Ehdr header;
  std::memcpy(&header, image.data(), sizeof header);
  size_t end = header.e_phoff + header.e_phnum * sizeof(Elf64_Phdr);
  REQUIRE(end < image.size());
  for (size_t i = 0; i < end; ++i)
    for (uint8_t change : {0x01, 0x80, 0xff}) {
      std::vector<uint8_t> changed = image;
      changed[i] ^= change;
      open_image(changed);
    }
}

TEST_CASE("a damaged manifest behind a good digest is refused, or harmless, never a crash") {
  std::vector<uint8_t> bytes = whole_package();
  Block block(bytes.size());
  auto *data = static_cast<uint8_t *>(block.get());
  package::SectionHeader section;
  std::memcpy(&section, bytes.data() + sizeof(package::FileHeader), sizeof section);
  REQUIRE(section.kind == package::SectionKind::Manifest);
  for (size_t i = 0; i < section.size; ++i)
    for (uint8_t change : {0x01, 0x80, 0xff}) {
      std::memcpy(data, bytes.data(), bytes.size());
      data[section.offset + i] ^= change;
      fix_digests(data);
      Opened opened(data, bytes.size());
      for (uint32_t entry = 0; opened.code == KILN_OK && entry < 4; ++entry) {
        size_t size = 0;
        KilnError error;
        api().context_size(opened, entry, nullptr, &size, &error);
      }
    }
}

TEST_CASE("a manifest whose entries share their arguments is not checked for hours") {
  PackageSpec spec = make_spec(read_file(image_path()));
  for (int i = 0; i < 10000; ++i) {
    spec.entries.push_back(spec.entries[0]);
    spec.entries.back().name += std::to_string(i);
  }
  std::vector<uint8_t> bytes;
  REQUIRE(build_package(spec, bytes).empty());
  CHECK(Attempt(bytes).message.find("the manifest") == std::string::npos); // it is the code that has fewer entries
  package::SectionHeader section;
  std::memcpy(&section, bytes.data() + sizeof(package::FileHeader), sizeof section);
  uint8_t *manifest = bytes.data() + section.offset;
  package::ManifestHeader header;
  std::memcpy(&header, manifest, sizeof header);
  auto *entries = reinterpret_cast<package::EntryRecord *>(manifest + header.entries.offset);
  uint32_t first = entries[header.entries.count - 10000].inputs.first;
  for (uint32_t i = header.entries.count - 10000; i < header.entries.count; ++i)
    entries[i].inputs = {first, header.values.count - first}; // those of all
  fix_digests(bytes.data());
  Attempt attempt(bytes);
  CHECK(attempt.message == "the package in memory: the manifest has a malformed input or output");
}

TEST_CASE("the widest vectors of this machine give the same digest") {
  std::vector<uint8_t> bytes(5000);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(i * i + i / 7);
  for (size_t size : {0u, 1u, 127u, 128u, 129u, 1000u, 4096u, 5000u})
    CHECK(package::same_digest(package::digest_of(bytes.data(), size, rt::fastest_absorb()),
                               package::digest_of(bytes.data(), size)));
}

TEST_CASE("the digest of a whole equals the digest of its pieces") {
  std::vector<uint8_t> bytes(1000);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(i * 37);
  package::Digest whole = package::digest_of(bytes.data(), bytes.size());
  for (size_t step : {1u, 7u, 127u, 128u, 129u, 500u}) {
    package::Digester digester;
    for (size_t at = 0; at < bytes.size(); at += step)
      digester.update(bytes.data() + at, std::min(step, bytes.size() - at));
    CHECK(package::same_digest(digester.finish(), whole));
  }
  CHECK(!package::same_digest(package::digest_of(bytes.data(), 999), whole));
}
