// NumPy's .npz files: a zip archive of .npy files, stored or deflated.
#pragma once

#include "ir/support/result.h"
#include "ir/tensor.h"

#include <string>
#include <utility>
#include <vector>

namespace kiln {

// In the order of the archive; names without ".npy". Entries are unpacked one at a time, and one whose
// size does not follow from its header is refused before it is unpacked.
Result<std::vector<std::pair<std::string, Tensor>>> read_npz(const std::string &path);

// Stored, without times: the same tensors give the same bytes.
Status write_npz(const std::string &path, const std::vector<std::pair<std::string, Tensor>> &tensors);

} // namespace kiln
