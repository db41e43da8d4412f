#include "codegen/cpu/relocate.h"

#include <llvm/BinaryFormat/ELF.h>

#include <cstring>

namespace kiln::cpu {
namespace {

namespace elf = llvm::ELF;

uint32_t read32(const uint8_t *p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

void write32(uint8_t *p, uint32_t v) {
  std::memcpy(p, &v, sizeof v);
}

bool fits(int64_t v, int bits) {
  return v >= -(int64_t(1) << (bits - 1)) && v < int64_t(1) << (bits - 1);
}

Error unsupported(uint32_t type) {
  return Error{"the code needs a relocation of type " + std::to_string(type) +
               ", which an image without imports cannot have"};
}

const Error kTooFar{"the code of the image is too large: a branch or constant is out of reach"};

Status relative32(uint8_t *bytes, int64_t distance) {
  if (!fits(distance, 32))
    return kTooFar;
  write32(bytes, uint32_t(distance));
  return Unit{};
}

// Puts `value` into `width` bits of the instruction from bit `at` on.
Status field(uint8_t *bytes, int64_t distance, int scale, int width, int at) {
  if (!fits(distance, width + scale) || (distance & ((1 << scale) - 1)) != 0)
    return kTooFar;
  uint32_t mask = ((uint32_t(1) << width) - 1) << at;
  uint32_t bits = (uint32_t(distance >> scale) << at) & mask;
  write32(bytes, (read32(bytes) & ~mask) | bits);
  return Unit{};
}

// The low 12 bits of an address, in units of the access.
Status low12(uint8_t *bytes, uint64_t target, int scale) {
  uint32_t low = uint32_t(target & 0xfff);
  if ((low & ((1u << scale) - 1)) != 0)
    return Error{"a constant in the image is not aligned"};
  write32(bytes, (read32(bytes) & ~(0xfffu << 10)) | ((low >> scale) << 10));
  return Unit{};
}

Status address21(uint8_t *bytes, int64_t value) {
  if (!fits(value, 21))
    return kTooFar;
  uint32_t v = uint32_t(value);
  uint32_t keep = read32(bytes) & 0x9f00001fu;
  write32(bytes, keep | ((v & 3u) << 29) | (((v >> 2) & 0x7ffffu) << 5));
  return Unit{};
}

Status apply_aarch64(uint32_t type, uint8_t *bytes, uint64_t place, uint64_t target) {
  int64_t distance = int64_t(target - place);
  switch (type) {
  case elf::R_AARCH64_PREL32:
    return relative32(bytes, distance);
  case elf::R_AARCH64_CALL26:
  case elf::R_AARCH64_JUMP26:
    return field(bytes, distance, 2, 26, 0);
  case elf::R_AARCH64_CONDBR19:
  case elf::R_AARCH64_LD_PREL_LO19:
    return field(bytes, distance, 2, 19, 5);
  case elf::R_AARCH64_TSTBR14:
    return field(bytes, distance, 2, 14, 5);
  case elf::R_AARCH64_ADR_PREL_LO21:
    return address21(bytes, distance);
  case elf::R_AARCH64_ADR_PREL_PG_HI21:
    return address21(bytes,
                     int64_t((target & ~uint64_t(0xfff)) - (place & ~uint64_t(0xfff))) >> 12);
  case elf::R_AARCH64_ADD_ABS_LO12_NC:
  case elf::R_AARCH64_LDST8_ABS_LO12_NC:
    return low12(bytes, target, 0);
  case elf::R_AARCH64_LDST16_ABS_LO12_NC:
    return low12(bytes, target, 1);
  case elf::R_AARCH64_LDST32_ABS_LO12_NC:
    return low12(bytes, target, 2);
  case elf::R_AARCH64_LDST64_ABS_LO12_NC:
    return low12(bytes, target, 3);
  case elf::R_AARCH64_LDST128_ABS_LO12_NC:
    return low12(bytes, target, 4);
  default:
    return unsupported(type);
  }
}

} // namespace

Status apply_relocation(uint16_t machine, uint32_t type, uint8_t *bytes, uint64_t available,
                        uint64_t place, uint64_t target) {
  if (available < 4)
    return Error{"a relocation lies outside its section"};
  if (machine == elf::EM_AARCH64)
    return apply_aarch64(type, bytes, place, target);
  if (type == elf::R_X86_64_PC32 || type == elf::R_X86_64_PLT32)
    return relative32(bytes, int64_t(target - place));
  return unsupported(type);
}

} // namespace kiln::cpu
