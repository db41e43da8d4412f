// Packages with code for GPUs, from arbitrary bytes: what the runtime reads of a device section before it opens a driver. An input
// is a whole package, as `kiln compile --cuda` writes it, whose digests are made right here. What passes the checks is indexed without any,
// so every expression of it is evaluated here. Nothing is run.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <vector>

#include "runtime/cuda/device_section.h"
#include "runtime/digest.h"
#include "runtime/package_view.h"

namespace {

using namespace kiln;
using namespace kiln::package;
using namespace kiln::rt;

constexpr size_t kMaxSize = 1 << 20;

// The sections that the bytes declare, and the first page, get the digests that they have.
void make_digests_right(uint8_t *file, size_t size) {
  FileHeader header;
  std::memcpy(&header, file, sizeof header);
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.format_version = kFormatVersion;
  header.file_size = size;
  header.section_count = std::min<uint32_t>(header.section_count, kMaxSections);
  for (uint32_t i = 0; i < header.section_count; ++i) {
    uint8_t *at = file + sizeof header + i * sizeof(SectionHeader);
    SectionHeader section;
    std::memcpy(&section, at, sizeof section);
    if (section.offset <= size && section.extent <= size - section.offset)
      section.digest = digest_of(file + section.offset, section.extent);
    std::memcpy(at, &section, sizeof section);
  }
  header.digest = Digest{};
  std::memcpy(file, &header, sizeof header);
  header.digest = digest_of(file, kPageSize);
  std::memcpy(file, &header, sizeof header);
}

uint64_t evaluate_all(const DeviceSection &section, const Manifest &manifest) {
  constexpr int64_t kSizes[] = {0, 1, 7, INT64_MAX, INT64_MIN};
  uint64_t sum = 0;
  for (int64_t size : kSizes) {
    std::vector<int64_t> slots(kMaxDeviceSlots, size);
    for (uint32_t e = 0; e < section.header().entries.count; ++e) {
      const DeviceEntryRecord &entry = section.entries()[e];
      for (uint32_t s = entry.steps.first; s < entry.steps.first + entry.steps.count; ++s) {
        const DeviceStepRecord &step = section.steps()[s];
        for (uint32_t i = 0; i < step.buffers.count; ++i)
          sum += uint64_t(section.evaluate(section.buffers()[step.buffers.first + i].offset, slots.data()));
        for (uint32_t i = 0; i < step.dims.count; ++i)
          sum += uint64_t(section.evaluate(section.lists()[step.dims.first + i], slots.data()));
        if (step.kind == DeviceStepKind::Launch)
          sum += std::strlen(section.text(section.functions()[step.function].name)) +
                 *section.image(section.functions()[step.function].image);
      }
    }
  }
  return sum + manifest.header().entries.count;
}

} // namespace

// Most of a package is code, which nobody reads here: words of the manifest and of the device sections change, to numbers that
// are close to those there, to others of the same section, or to the ends of their range.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t, unsigned seed) {
  std::minstd_rand random(seed);
  auto below = [&](uint64_t n) { return n == 0 ? 0 : random() % n; };
  if (size < kPageSize)
    return size;
  std::vector<SectionHeader> tables;
  for (uint32_t i = 0; i < kMaxSections; ++i) {
    SectionHeader section;
    std::memcpy(&section, data + sizeof(FileHeader) + i * sizeof section, sizeof section);
    bool is_read = section.kind == SectionKind::Manifest || section.kind == SectionKind::Device;
    if (is_read && section.offset < size && section.size >= 8 && section.size <= size - section.offset)
      tables.push_back(section);
  }
  for (uint64_t i = below(4) + 1; i > 0 && !tables.empty(); --i) {
    const SectionHeader &section = tables[below(tables.size())];
    uint64_t words = std::min<uint64_t>(section.size, below(3) == 0 ? 256 : 16384) / 4; // headers more often
    uint8_t *at = data + section.offset + 4 * below(words);
    uint32_t word = 0, other = 0;
    std::memcpy(&word, at, 4);
    std::memcpy(&other, data + section.offset + 4 * below(section.size / 4), 4);
    constexpr uint32_t kEnds[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff8, 64, 1024};
    uint32_t values[] = {word + uint32_t(below(17)) - 8, other, kEnds[below(std::size(kEnds))], word ^ (uint32_t{1} << below(32))};
    std::memcpy(at, &values[below(std::size(values))], 4);
  }
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 * kPageSize || size > kMaxSize)
    return 0;
  size = size / kPageSize * kPageSize;
  auto *file = static_cast<uint8_t *>(std::aligned_alloc(kPageSize, size));
  std::memcpy(file, data, size);
  make_digests_right(file, size);
  PackageView view;
  Manifest manifest;
  KilnError error{};
  bool fine = open_package(file, size, true, nullptr, "fuzz", &view, &error) == KILN_OK &&
              manifest.open(view.manifest.data, view.manifest.size, view.weights.size, "fuzz", &error) == KILN_OK;
  for (uint32_t i = 0; fine && i < view.header->section_count; ++i) {
    const SectionHeader &section = view.sections[i];
    DeviceSection device;
    if (section.kind != SectionKind::Device)
      continue;
    // A copy of its own, so that what is read behind the end is seen.
    void *memory = nullptr;
    if (posix_memalign(&memory, 64, std::max<uint64_t>(section.size, 1)) != 0)
      break;
    auto *alone = static_cast<uint8_t *>(memory);
    std::memcpy(alone, file + section.offset, section.size);
    if (device.open(alone, section.size, manifest, "fuzz", &error) == KILN_OK)
      fine = evaluate_all(device, manifest) != 1;
    std::free(alone);
  }
  if (!fine && error.code != KILN_OK && error.message[0] == 0)
    std::abort();
  std::free(file);
  return 0;
}
