// Values of options that are wrong whatever the files hold are found before any file is read, by the parser that
// reads them later: bad usage, exit code 2.
//
//   app.add_option("--dim", dims)->check(well_formed(parse_dim));
#pragma once

#include "ir/support/result.h"
#include "runtime/device_name.h"

#include <string>

namespace kiln {

// A check for CLI11 of what gives a Result or a Status.
template <typename Parse> auto well_formed(Parse parse) {
  return [parse](const std::string &text) -> std::string {
    auto parsed = parse(text);
    return parsed ? "" : parsed.error().message;
  };
}

// "x=...": a name, and something behind the `=`.
inline auto named(std::string what) {
  return [what](const std::string &text) -> std::string {
    size_t equals = text.find('=');
    bool fine = equals != std::string::npos && equals > 0 && equals + 1 < text.size();
    return fine ? "" : "'" + text + "': write " + what;
  };
}

inline std::string check_device(const std::string &text) {
  int ordinal = 0;
  bool is_known = rt::parse_device(text.c_str(), &ordinal) != rt::DeviceName::Unknown;
  return is_known ? "" : "no such device as '" + text + "': write " + rt::kDeviceNames;
}

} // namespace kiln
