// Every op, sample and dtype of the table on every target that this machine runs: what the compiled code
// computes against what the reference says. Nothing here names an op.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "tests/targets/check_target.h"

using namespace kiln;
using namespace kiln::test;

TEST_CASE("native code computes what the references do, at every level of this machine") {
  for (auto &target : native_targets())
    check_target(*target);
}

TEST_CASE("C computes what the references do") { check_target(*c_target()); }
