// The parts of `kiln inspect`: each prints one report, as text or as JSON.
#pragma once

#include "tools/cli.h"

namespace kiln {

int inspect_package(const ModelOptions &options, const std::string &what); // io, memory, size, code, ops
int inspect_io(const Module &module, bool json);
int inspect_ops(Module &module, const ModelOptions &model);
int inspect_memory(Module &module, const ModelOptions &options, OptLevel level);
int inspect_launches(Module &module, const ModelOptions &options, OptLevel level, GpuMachine gpu, bool tf32);
int inspect_size(const Module &module, bool json);
int inspect_graph(const Module &module, const std::string &form, const std::string &output, bool json);

} // namespace kiln
