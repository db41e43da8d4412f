// Adds a model's data to the object that the cpu target makes: weights, manifest and locations as
// read-only sections, and the KilnStaticModel that names them and the entries' functions, so that one
// .o is all that a program links (--emit=object).
#pragma once

#include "codegen/compile.h"

#include <cstddef>
#include <string>
#include <vector>

namespace kiln {

// kiln_<model>_model, kiln_<model>_weights.
std::string model_symbol(const Program &program);
std::string weights_symbol(const Program &program);

// The weights section as a package has it.
std::vector<std::byte> weights_section(const Module &module, const Program &program);

// A relocatable object for compiled.targets[0].
Result<std::vector<std::byte>> object_with_data(const Module &module, const Compiled &compiled, int jobs);

// The header that goes with it: sizes as macros, a typed function for each entry.
std::string object_header(const Module &module, const Compiled &compiled);

} // namespace kiln
