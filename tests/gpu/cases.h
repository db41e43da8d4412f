// The op table as packages in a folder: made where the compiler is, run where the GPU is.
#pragma once

#include "tests/targets/targets.h"

#include <fstream>
#include <iterator>

namespace kiln::test {

// The n-th module that the op table test compiles.
inline std::string case_file(const std::string &folder, size_t n) { return folder + "/op" + std::to_string(n) + ".kiln"; }

} // namespace kiln::test
