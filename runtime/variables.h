// Params and state that entries write: blocks of the caller's memory, and files that hold them.
#pragma once

#include "runtime/module.h"

namespace kiln::rt {

int32_t variables_init(const KilnModule *module, void *block, KilnError *error);
int32_t variable_read(const KilnModule *module, const void *block, uint32_t index, void *data,
                      uint64_t size, KilnError *error);
int32_t variable_write(const KilnModule *module, void *block, uint32_t index, const void *data,
                       uint64_t size, KilnError *error);
int32_t save(const KilnModule *module, const void *block, const char *path, uint32_t flags,
             KilnError *error);
int32_t load(const KilnModule *module, void *block, const char *path, KilnError *error);

} // namespace kiln::rt
