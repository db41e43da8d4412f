// The floating-point mode that compiled code runs in: round to nearest, no exceptions trapped, and
// denormals as zero (unless the model keeps them), whatever the program around it has set.
#pragma once

#include <cstdint>

namespace kiln::rt {

#if defined(__x86_64__)

using FpMode = uint32_t;

inline FpMode fp_mode(bool keeps_denormals) {
  constexpr FpMode kMasked = 0x1f80, kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  return keeps_denormals ? kMasked : kMasked | kFlushToZero | kDenormalsAreZero;
}

inline void set_fp_mode(FpMode mode) {
  __asm__ volatile("ldmxcsr %0" : : "m"(mode) : "memory");
}

inline FpMode get_fp_mode() {
  FpMode mode;
  __asm__ volatile("stmxcsr %0" : "=m"(mode) : : "memory");
  return mode;
}

#elif defined(__aarch64__)

using FpMode = uint64_t;

inline FpMode fp_mode(bool keeps_denormals) {
  constexpr FpMode kFlushToZero = FpMode{1} << 24, kFlushHalfToZero = FpMode{1} << 19;
  return keeps_denormals ? 0 : kFlushToZero | kFlushHalfToZero;
}

inline void set_fp_mode(FpMode mode) {
  __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory");
}

inline FpMode get_fp_mode() {
  FpMode mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode) : : "memory");
  return mode;
}

#endif

// Sets a mode and restores what was there.
class FpScope {
public:
  explicit FpScope(FpMode mode) : saved_(get_fp_mode()) { set_fp_mode(mode); }
  ~FpScope() { set_fp_mode(saved_); }
  FpScope(const FpScope &) = delete;
  FpScope &operator=(const FpScope &) = delete;

private:
  FpMode saved_;
};

} // namespace kiln::rt
