// `kiln compile --max-memory`: training steps whose values do not fit compute some of them again.
#pragma once

#include "tools/cli.h"

#include <string>

namespace kiln {

// "48M", "1.5G", "200000": bytes; nothing where it is no size.
std::optional<int64_t> parse_bytes(std::string_view text);
// Where the largest entry of `module` would need more than `limit` bytes between its kernels, loads it again with the calls of some models as remat():
// those that save enough and compute least again. Says in `note` what it chose. False where nothing fits.
bool fit_memory(const ModelOptions &model, const CompileOptions &options, int64_t limit, Module &module, std::string &note,
                Diagnostics &diagnostics);

} // namespace kiln
