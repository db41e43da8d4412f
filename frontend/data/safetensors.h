// safetensors files: a JSON header, then the tensors' bytes without gaps. Reading maps the file; the
// tensors are views into it.
#pragma once

#include "ir/support/result.h"
#include "ir/tensor.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kiln {

struct Safetensors {
  std::vector<std::pair<std::string, Tensor>> tensors; // in the order of their bytes
  std::map<std::string, std::string> metadata;
  std::shared_ptr<const void> keep_alive; // the mapping, where the tensors are views
};

// `bytes` must outlive the tensors.
Result<Safetensors> parse_safetensors(std::span<const std::byte> bytes);
Result<Safetensors> read_safetensors(const std::string &path);

// Larger element types first, then by name, so that every tensor is aligned and the same tensors give
// the same bytes.
Status write_safetensors(const std::string &path, const std::vector<std::pair<std::string, Tensor>> &tensors,
                         const std::map<std::string, std::string> &metadata = {});

} // namespace kiln
