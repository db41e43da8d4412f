// The names of devices: cpu, cuda (the first GPU), cuda:N, auto (the first GPU that there is code for, else the processor).
#pragma once

#include <cstdint>
#include <cstring>

namespace kiln::rt {

enum class DeviceName : uint8_t { Unknown, Cpu, Cuda, Auto };

constexpr char kDeviceNames[] = "cpu, cuda, cuda:0 or auto"; // for messages
constexpr int kMostDevices = 10000;

// `*ordinal`: the number of a GPU, 0 where none is said.
inline DeviceName parse_device(const char *text, int *ordinal) {
  *ordinal = 0;
  if (std::strcmp(text, "cpu") == 0)
    return DeviceName::Cpu;
  if (std::strcmp(text, "auto") == 0)
    return DeviceName::Auto;
  if (std::strncmp(text, "cuda", 4) != 0)
    return DeviceName::Unknown;
  const char *at = text + 4;
  if (*at == 0)
    return DeviceName::Cuda;
  if (*at++ != ':' || *at == 0)
    return DeviceName::Unknown;
  for (; *at >= '0' && *at <= '9' && *ordinal < kMostDevices; ++at)
    *ordinal = *ordinal * 10 + (*at - '0');
  return *at == 0 ? DeviceName::Cuda : DeviceName::Unknown;
}

} // namespace kiln::rt
