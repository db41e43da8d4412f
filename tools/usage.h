// Values of options that are wrong whatever the files hold are found before any file is read, by the parser that
// reads them later: bad usage, exit code 2.
//
//   app.add_option("--dim", dims)->check(well_formed(parse_dim));
#pragma once

#include "ir/support/result.h"

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

// cpu, cuda, cuda:N or auto
inline std::string check_device(const std::string &text) {
  bool numbered = text.starts_with("cuda:") && text.size() > 5 && text.find_first_not_of("0123456789", 5) == std::string::npos;
  return text == "cpu" || text == "cuda" || text == "auto" || numbered ? "" : "no such device as '" + text + "': write cpu, cuda, cuda:0 or auto";
}

} // namespace kiln
