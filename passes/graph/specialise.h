// Code of its own for some values of symbolic dims.
//
//   export func main(x: f32[N, 64]) ...   and N=1   ->   a module with export func `main@N=1`(x: f32[1, 64]) ...
//
// Each form goes the whole way through the passes as a module of its own, for what it requires of dims is
// required of it alone. Then it joins the module that it is a form of, and lowering makes its functions
// parts of the entries that they are named after, which a run chooses by its dims.
#pragma once

#include "ir/graph.h"

namespace kiln {

using FormDims = std::vector<std::pair<std::string, int64_t>>;

// "main@N=1,H=224": the entry's name, and the dims. Nothing where a name is none of a form.
std::optional<std::pair<std::string, FormDims>> parse_form_name(const std::string &name);

// The forms, for these dims, of each exported function that has all of them. Nothing where there were errors.
std::optional<Module> specialise(const Module &module, const FormDims &dims, Diagnostics &diagnostics);
// Adds a form's functions and constants to the module it was made from, after the passes.
void join_form(Module &module, Module form);

} // namespace kiln
