#include "tests/emulate/amx.h"

#include <atomic>
#include <cmath>
#include <cpuid.h>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace kiln::test {
namespace {

constexpr int kTiles = 8, kRows = 16, kRowBytes = 64;

struct Tile {
  int rows = 0, row_bytes = 0; // as configured; both 0 in one that is not
  uint8_t data[kRows][kRowBytes] = {};
};

struct TileFile {
  uint8_t palette = 0; // 0: no tile is configured
  uint8_t start_row = 0;
  Tile tiles[kTiles];
};

thread_local constinit TileFile t_file;

std::atomic<uint64_t> g_products, g_multiplied, g_loads, g_stores, g_configurations;

enum class Outcome { done, undefined, bad_config };

// What LDTILECFG reads.
struct Config {
  uint8_t palette, start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(Config) == 64);

bool is_valid(const Config &config) {
  bool valid = config.palette == 1;
  for (uint8_t byte : config.reserved)
    valid &= byte == 0;
  for (int i = 0; i < 16; ++i) {
    int rows = config.rows[i], row_bytes = config.row_bytes[i];
    valid &= (rows == 0) == (row_bytes == 0) && rows <= kRows && row_bytes <= kRowBytes;
    valid &= i < kTiles || rows == 0;
  }
  return valid;
}

Outcome load_config(const void *address) {
  Config config;
  std::memcpy(&config, address, sizeof config);
  if (config.palette != 0 && !is_valid(config))
    return Outcome::bad_config;
  t_file = {};
  if (config.palette == 0)
    return Outcome::done;
  ++g_configurations;
  t_file.palette = config.palette;
  t_file.start_row = config.start_row;
  for (int i = 0; i < kTiles; ++i) {
    t_file.tiles[i].rows = config.rows[i];
    t_file.tiles[i].row_bytes = config.row_bytes[i];
  }
  return Outcome::done;
}

Outcome store_config(void *address) {
  Config config{};
  config.palette = t_file.palette;
  config.start_row = t_file.start_row;
  for (int i = 0; i < kTiles; ++i) {
    config.rows[i] = static_cast<uint8_t>(t_file.tiles[i].rows);
    config.row_bytes[i] = static_cast<uint16_t>(t_file.tiles[i].row_bytes);
  }
  std::memcpy(address, &config, sizeof config);
  return Outcome::done;
}

// An instruction of three bytes of VEX, an opcode and its operands.
struct Instruction {
  uint8_t opcode = 0;
  int prefix = 0; // 0: none, 1: 66, 2: F3, 3: F2
  int reg = 0, rm = 0, vvvv = 0;
  bool has_memory = false, has_sib = false;
  uint64_t base = 0; // with the displacement
  uint64_t index = 0; // scaled; the distance of rows
  int size = 0;
};

uint64_t register_value(const ucontext_t &context, int number) {
  constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return static_cast<uint64_t>(context.uc_mcontext.gregs[kOrder[number]]);
}

// False where it is no VEX.128.0F38.W0 instruction of tiles.
bool decode(const uint8_t *code, const ucontext_t &context, Instruction &out) {
  if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0)
    return false;
  const int extend_reg = (code[1] & 0x80) != 0 ? 0 : 8, extend_index = (code[1] & 0x40) != 0 ? 0 : 8;
  const int extend_rm = (code[1] & 0x20) != 0 ? 0 : 8;
  out.vvvv = ~(code[2] >> 3) & 15;
  out.prefix = code[2] & 3;
  out.opcode = code[3];
  const uint8_t modrm = code[4];
  const int mode = modrm >> 6;
  out.reg = (modrm >> 3 & 7) + extend_reg;
  out.rm = (modrm & 7) + extend_rm;
  const uint8_t *at = code + 5;
  if (mode == 3) {
    out.size = 5;
    return true;
  }
  out.has_memory = true;
  bool is_relative = false, has_base = true;
  int base = out.rm;
  if ((modrm & 7) == 4) {
    const uint8_t sib = *at++;
    out.has_sib = true;
    int index = (sib >> 3 & 7) + extend_index;
    if (index != 4)
      out.index = register_value(context, index) << (sib >> 6);
    base = (sib & 7) + extend_rm;
    has_base = mode != 0 || (sib & 7) != 5;
  } else {
    is_relative = mode == 0 && (modrm & 7) == 5;
  }
  int64_t displacement = 0;
  if (mode == 1) {
    displacement = static_cast<int8_t>(*at++);
  } else if (mode == 2 || is_relative || !has_base) {
    int32_t wide;
    std::memcpy(&wide, at, 4);
    displacement = wide;
    at += 4;
  }
  out.size = static_cast<int>(at - code);
  if (is_relative)
    out.base = reinterpret_cast<uint64_t>(at);
  else if (has_base)
    out.base = register_value(context, base);
  out.base += static_cast<uint64_t>(displacement);
  return true;
}

void *pointer(uint64_t address) { return reinterpret_cast<void *>(address); }

Outcome move_rows(const Instruction &in, bool loads) {
  if (in.reg >= kTiles || t_file.tiles[in.reg].rows == 0 || in.vvvv != 0)
    return Outcome::undefined;
  Tile &tile = t_file.tiles[in.reg];
  ++(loads ? g_loads : g_stores);
  if (loads && t_file.start_row == 0)
    std::memset(tile.data, 0, sizeof tile.data);
  for (int row = t_file.start_row; row < tile.rows; ++row) {
    void *memory = pointer(in.base + static_cast<uint64_t>(row) * in.index);
    if (loads)
      std::memcpy(tile.data[row], memory, static_cast<size_t>(tile.row_bytes));
    else
      std::memcpy(memory, tile.data[row], static_cast<size_t>(tile.row_bytes));
  }
  t_file.start_row = 0;
  return Outcome::done;
}

float bits_to_float(uint32_t bits) {
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

template <class T> T element(const Tile &tile, int row, int column) {
  T out;
  std::memcpy(&out, tile.data[row] + static_cast<size_t>(column) * sizeof(T), sizeof(T));
  return out;
}

template <class T> void set_element(Tile &tile, int row, int column, T value) {
  std::memcpy(tile.data[row] + static_cast<size_t>(column) * sizeof(T), &value, sizeof(T));
}

float half_to_float(uint16_t half, bool is_brain) {
  if (is_brain)
    return bits_to_float(static_cast<uint32_t>(half) << 16);
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const float magnitude = exponent == 31 ? (fraction == 0 ? INFINITY : NAN)
                          : exponent == 0
                              ? std::ldexp(static_cast<float>(fraction), -24)
                              : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

// c += a * b for bytes: four neighbours of a row by four of a column; the sums wrap.
template <class A, class B> void multiply_bytes(Tile &c, const Tile &a, const Tile &b) {
  for (int m = 0; m < c.rows; ++m)
    for (int n = 0; n < c.row_bytes / 4; ++n) {
      auto sum = element<uint32_t>(c, m, n);
      for (int k = 0; k < a.row_bytes / 4; ++k)
        for (int i = 0; i < 4; ++i)
          sum += static_cast<uint32_t>(int{element<A>(a, m, 4 * k + i)} *
                                       int{element<B>(b, k, 4 * n + i)});
      set_element(c, m, n, sum);
    }
}

// The even and the odd products have a sum each, rounded after every product. Denormals are zero, but
// those of f16, which are no denormals as f32.
void multiply_halves(Tile &c, const Tile &a, const Tile &b, bool is_brain) {
  for (int m = 0; m < c.rows; ++m)
    for (int n = 0; n < c.row_bytes / 4; ++n) {
      __m128 sums[2] = {_mm_setzero_ps(), _mm_setzero_ps()};
      for (int k = 0; k < a.row_bytes / 4; ++k)
        for (int i = 0; i < 2; ++i) {
          __m128 x = _mm_set_ss(half_to_float(element<uint16_t>(a, m, 2 * k + i), is_brain));
          __m128 y = _mm_set_ss(half_to_float(element<uint16_t>(b, k, 2 * n + i), is_brain));
          sums[i] = _mm_fmadd_ss(x, y, sums[i]);
        }
      __m128 sum = _mm_add_ss(_mm_set_ss(element<float>(c, m, n)), _mm_add_ss(sums[0], sums[1]));
      set_element(c, m, n, _mm_cvtss_f32(sum));
    }
}

Outcome multiply(const Instruction &in) {
  if (in.has_memory || in.reg >= kTiles || in.rm >= kTiles || in.vvvv >= kTiles)
    return Outcome::undefined;
  Tile &c = t_file.tiles[in.reg], &a = t_file.tiles[in.rm], &b = t_file.tiles[in.vvvv];
  bool is_valid = &c != &a && &c != &b && &a != &b && c.rows != 0 && a.rows != 0 && b.rows != 0 &&
                  c.row_bytes % 4 == 0 && a.row_bytes % 4 == 0 && b.row_bytes % 4 == 0 &&
                  c.rows == a.rows && c.row_bytes == b.row_bytes && a.row_bytes / 4 == b.rows;
  if (!is_valid)
    return Outcome::undefined;
  ++g_products;
  g_multiplied += static_cast<uint64_t>(c.rows * (c.row_bytes / 4) * a.row_bytes);
  if (in.opcode == 0x5c && in.prefix >= 2) {
    multiply_halves(c, a, b, in.prefix == 2);
  } else if (in.opcode == 0x5e) {
    switch (in.prefix) {
    case 0: multiply_bytes<uint8_t, uint8_t>(c, a, b); break;
    case 1: multiply_bytes<uint8_t, int8_t>(c, a, b); break;
    case 2: multiply_bytes<int8_t, uint8_t>(c, a, b); break;
    default: multiply_bytes<int8_t, int8_t>(c, a, b); break;
    }
  } else {
    return Outcome::undefined;
  }
  t_file.start_row = 0;
  return Outcome::done;
}

Outcome execute(const Instruction &in) {
  switch (in.opcode) {
  case 0x49:
    if (in.vvvv != 0)
      return Outcome::undefined;
    if (in.has_memory && in.reg == 0 && in.prefix == 0)
      return load_config(pointer(in.base));
    if (in.has_memory && in.reg == 0 && in.prefix == 1)
      return store_config(pointer(in.base));
    if (!in.has_memory && in.reg == 0 && in.rm == 0 && in.prefix == 0) { // TILERELEASE
      t_file = {};
      return Outcome::done;
    }
    if (!in.has_memory && in.rm == 0 && in.prefix == 3 && in.reg < kTiles &&
        t_file.tiles[in.reg].rows != 0) { // TILEZERO
      std::memset(t_file.tiles[in.reg].data, 0, sizeof t_file.tiles[in.reg].data);
      t_file.start_row = 0;
      return Outcome::done;
    }
    return Outcome::undefined;
  case 0x4b: // TILELOADD, TILELOADDT1, TILESTORED
    return in.has_sib && in.prefix != 0 ? move_rows(in, in.prefix != 2) : Outcome::undefined;
  default:
    return multiply(in);
  }
}

// The instruction runs again and ends the process as it would without a handler.
void give_up(int signal) { std::signal(signal, SIG_DFL); }

void on_illegal_instruction(int signal, siginfo_t *, void *raw) {
  _mm_setcsr(0x9fc0); // nearest, denormals are zero, no exceptions; the old one comes back with the context
  auto &context = *static_cast<ucontext_t *>(raw);
  greg_t &rip = context.uc_mcontext.gregs[REG_RIP];
  Instruction in;
  if (!decode(static_cast<const uint8_t *>(pointer(static_cast<uint64_t>(rip))), context, in))
    return give_up(signal);
  switch (execute(in)) {
  case Outcome::done:
    rip += in.size;
    return;
  case Outcome::undefined:
    return give_up(signal);
  case Outcome::bad_config:
    raise(SIGSEGV);
  }
}

// Half an emulation is none: once a processor knows tiles, it configures its own.
bool processor_has_amx() {
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  constexpr unsigned kWanted = kBf16 | kTile | kInt8;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kWanted) != kWanted)
    return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

} // namespace

TileCounts tile_counts() { return {g_products, g_multiplied, g_loads, g_stores, g_configurations}; }

bool enable_amx() {
  static const bool is_emulated = [] {
    if (processor_has_amx())
      return false;
    struct sigaction action = {};
    action.sa_sigaction = on_illegal_instruction;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, nullptr);
    return true;
  }();
  return is_emulated;
}

bool multiplies_f16() {
  unsigned a, b, c, d;
  constexpr unsigned kFp16 = 1u << 21;
  return enable_amx() || (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & kFp16) != 0);
}

} // namespace kiln::test
