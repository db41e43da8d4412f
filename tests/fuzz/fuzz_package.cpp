// Packages from arbitrary bytes. An input is a whole file as `kiln compile` writes it (tests/fuzz/run makes the first ones), whose
// digests are made right here: they would turn nearly all changes away at the door, and what is fuzzed stands behind them, the
// section headers, manifest, ELF image, locations, state, and the tables for GPUs. What passes the checks is indexed without any
// more, so all that can be asked of it is asked. Nothing is run: an image that passes is native code.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <vector>

#include "runtime/cuda/device_section.h"
#include "runtime/digest.h"
#include "runtime/include/kiln/kiln.h"
#include "runtime/package_view.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

namespace {

using namespace kiln;
using namespace kiln::package;
using namespace kiln::rt;

constexpr size_t kMaxSize = 1 << 20;

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};
using Bytes = std::unique_ptr<uint8_t, Free>;

// A copy at the alignment that mapped files and their sections have, with nothing readable behind it.
Bytes copy_of(const uint8_t *data, size_t size, size_t alignment) {
  void *memory = nullptr;
  if (posix_memalign(&memory, alignment, std::max<size_t>(size, 1)) != 0)
    std::abort();
  std::memcpy(memory, data, size);
  return Bytes(static_cast<uint8_t *>(memory));
}

SectionHeader header_at(const uint8_t *file, uint32_t index) {
  SectionHeader section;
  std::memcpy(&section, file + sizeof(FileHeader) + index * sizeof section, sizeof section);
  return section;
}

// The sections that the bytes declare, and the first page, get the digests that they have.
void make_digests_right(uint8_t *file, size_t size) {
  FileHeader header;
  std::memcpy(&header, file, sizeof header);
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.format_version = kFormatVersion;
  header.file_size = size;
  header.section_count = std::min<uint32_t>(header.section_count, kMaxSections);
  for (uint32_t i = 0; i < header.section_count; ++i) {
    SectionHeader section = header_at(file, i);
    if (section.offset <= size && section.extent <= size - section.offset)
      section.digest = digest_of(file + section.offset, section.extent);
    std::memcpy(file + sizeof header + i * sizeof section, &section, sizeof section);
  }
  header.digest = Digest{};
  std::memcpy(file, &header, sizeof header);
  header.digest = digest_of(file, kPageSize);
  std::memcpy(file, &header, sizeof header);
}

// Through the API, as a program that embeds the runtime would.
void ask_all(uint8_t *file, size_t size) {
  const KilnApi &kiln = *kiln_get_api(KILN_API_VERSION);
  KilnModule *module = nullptr;
  KilnError error{};
  int32_t code = kiln.open_memory(file, size, nullptr, &module, &error);
  if ((code == KILN_OK) != (module != nullptr) || (code != KILN_OK && error.message[0] == 0))
    std::abort();
  if (code == KILN_OK) {
    KilnValueInfo value;
    KilnKernelInfo kernel;
    KilnVariableInfo variable;
    for (uint32_t entry = 0; entry < 8; ++entry) {
      for (uint32_t i = 0; i < 8 && kiln.input_info(module, entry, i, &value) == KILN_OK; ++i)
        (void)std::strlen(value.name);
      for (uint32_t i = 0; i < 8 && kiln.kernel_info(module, entry, i, &kernel) == KILN_OK; ++i)
        (void)std::strlen(kernel.file);
    }
    for (uint32_t i = 0; i < 8 && kiln.variable_info(module, i, &variable) == KILN_OK; ++i)
      (void)std::strlen(variable.name);
  }
  kiln.close(module);
}

// Every expression, name and image of the tables for a GPU, for sizes from everywhere.
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
        for (uint32_t i = 0; i < step.completed.count; ++i)
          if (step.kind != DeviceStepKind::Launch || section.lists()[step.completed.first + i] >= manifest.entries()[e].kernels.count)
            std::abort();
        if (step.kind == DeviceStepKind::Launch)
          sum += std::strlen(section.text(section.functions()[step.function].name)) +
                 *section.image(section.functions()[step.function].image);
      }
    }
  }
  return sum;
}

// Before a driver is opened; the runtime does so where a device is asked for.
void open_device_sections(uint8_t *file, size_t size) {
  PackageView view;
  Manifest manifest;
  KilnError error{};
  if (open_package(file, size, true, nullptr, "fuzz", &view, &error) != KILN_OK ||
      manifest.open(view.manifest.data, view.manifest.size, view.weights.size, "fuzz", &error) != KILN_OK)
    return;
  for (uint32_t i = 0; i < view.header->section_count; ++i) {
    const SectionHeader &section = view.sections[i];
    if (section.kind != SectionKind::Device)
      continue;
    Bytes alone = copy_of(file + section.offset, section.size, 64);
    DeviceSection device;
    if (device.open(alone.get(), section.size, manifest, "fuzz", &error) == KILN_OK) {
      volatile uint64_t sum = evaluate_all(device, manifest);
      (void)sum;
    } else if (error.message[0] == 0) {
      std::abort();
    }
  }
}

// What can be said of one section: words become numbers close to those there, others of the same section, or the ends of their range.
void change_words(uint8_t *part, uint64_t size, std::minstd_rand &random) {
  auto below = [&](uint64_t n) { return random() % n; };
  uint64_t words = std::min<uint64_t>(size, below(3) == 0 ? 256 : 16384) / 4; // headers more often
  uint8_t *at = part + 4 * below(words);
  uint32_t word = 0, other = 0;
  std::memcpy(&word, at, 4);
  std::memcpy(&other, part + 4 * below(size / 4), 4);
  constexpr uint32_t kEnds[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff8, 64, 1024};
  uint32_t values[] = {word + uint32_t(below(17)) - 8, other, kEnds[below(std::size(kEnds))], word ^ (uint32_t{1} << below(32))};
  std::memcpy(at, &values[below(std::size(values))], 4);
}

} // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  if (size < 2 * kPageSize)
    return LLVMFuzzerMutate(data, size, max_size);
  std::minstd_rand random(seed);
  std::vector<SectionHeader> tables;
  for (uint32_t i = 0; i < kMaxSections; ++i) {
    SectionHeader section = header_at(data, i);
    bool is_read = section.kind != SectionKind::Weights && section.kind <= SectionKind::Device;
    if (is_read && section.offset < size && section.size >= 8 && section.size <= size - section.offset)
      tables.push_back(section);
  }
  for (uint64_t i = random() % 4 + 1; i > 0; --i) {
    uint64_t choice = random() % 16;
    if (choice == 0 || tables.empty()) {
      change_words(data, kPageSize, random);
      continue;
    }
    const SectionHeader &section = tables[random() % tables.size()];
    if (choice == 1)
      LLVMFuzzerMutate(data + section.offset, section.size, section.size);
    else
      change_words(data + section.offset, section.size, random);
  }
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 * kPageSize || size > kMaxSize)
    return 0;
  size = size / kPageSize * kPageSize;
  Bytes file = copy_of(data, size, kPageSize);
  make_digests_right(file.get(), size);
  ask_all(file.get(), size);
  open_device_sections(file.get(), size);
  return 0;
}
