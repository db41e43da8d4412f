// Packages from arbitrary bytes. A digest would turn nearly all of them away at the door, so the
// bytes are put into the sections of a package whose digests are then made right: what is fuzzed is
// what stands behind the digest (tables, strings, the ELF image). Nothing is run: an image that
// passes the checks is native code.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "runtime/digest.h"
#include "runtime/include/kiln/kiln.h"

namespace {

using namespace kiln::package;

constexpr size_t kSections = 3; // manifest, code, locations

// The first four bytes are the sizes of the first two parts, two bytes each.
std::vector<std::vector<uint8_t>> split(const uint8_t *data, size_t size) {
  std::vector<std::vector<uint8_t>> parts(kSections);
  if (size < 4)
    return parts;
  const uint8_t *at = data + 4, *end = data + size;
  for (size_t i = 0; i < kSections; ++i) {
    auto left = static_cast<size_t>(end - at);
    size_t wanted = i < 2 ? data[2 * i] | size_t{data[2 * i + 1]} << 8 : left;
    size_t taken = wanted < left ? wanted : left;
    parts[i].assign(at, at + taken);
    at += taken;
  }
  return parts;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  constexpr SectionKind kKinds[kSections] = {SectionKind::Manifest, SectionKind::Code,
                                             SectionKind::Locations};
  std::vector<std::vector<uint8_t>> parts = split(data, size);
  size_t total = kPageSize;
  SectionHeader sections[kSections] = {};
  for (size_t i = 0; i < kSections; ++i) {
    sections[i].kind = kKinds[i];
    sections[i].offset = total;
    sections[i].size = parts[i].size();
    sections[i].extent = (parts[i].size() + kPageSize - 1) / kPageSize * kPageSize;
    total += sections[i].extent;
  }
  std::memcpy(sections[1].name, "x86-64", 7);
  auto *file = static_cast<uint8_t *>(std::aligned_alloc(kPageSize, total));
  std::memset(file, 0, total);
  for (size_t i = 0; i < kSections; ++i) {
    if (!parts[i].empty())
      std::memcpy(file + sections[i].offset, parts[i].data(), parts[i].size());
    sections[i].digest = digest_of(file + sections[i].offset, sections[i].extent);
  }
  FileHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.format_version = kFormatVersion;
  header.section_count = kSections;
  header.file_size = total;
  std::memcpy(file, &header, sizeof header);
  std::memcpy(file + sizeof header, sections, sizeof sections);
  header.digest = digest_of(file, kPageSize);
  std::memcpy(file, &header, sizeof header);

  const KilnApi &kiln = *kiln_get_api(KILN_API_VERSION);
  KilnModule *module = nullptr;
  KilnError error{};
  int32_t code = kiln.open_memory(file, total, nullptr, &module, &error);
  if ((code == KILN_OK) != (module != nullptr) || (code != KILN_OK && error.message[0] == 0))
    std::abort();
  if (code == KILN_OK) {
    KilnValueInfo value;
    KilnKernelInfo kernel;
    KilnVariableInfo variable;
    for (uint32_t entry = 0; entry < 8; ++entry) {
      for (uint32_t i = 0; kiln.input_info(module, entry, i, &value) == KILN_OK && i < 8; ++i)
        (void)std::strlen(value.name);
      for (uint32_t i = 0; kiln.kernel_info(module, entry, i, &kernel) == KILN_OK && i < 8; ++i)
        (void)std::strlen(kernel.file);
    }
    for (uint32_t i = 0; kiln.variable_info(module, i, &variable) == KILN_OK && i < 8; ++i)
      (void)std::strlen(variable.name);
  }
  kiln.close(module);
  std::free(file);
  return 0;
}
