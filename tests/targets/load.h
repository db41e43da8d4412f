// A module from text of the language, for tests whose samples stand in them.
#pragma once

#include "frontend/kir/kir.h"

#include <catch2/catch.hpp>

#include <string>

namespace kiln::test {

inline Module load(const std::string &text) {
  Module module;
  Diagnostics diagnostics;
  module.name = "sample";
  bool ok = load_kir("sample.kir", text, {}, module, diagnostics);
  INFO(diagnostics.render());
  REQUIRE(ok);
  return module;
}

} // namespace kiln::test
