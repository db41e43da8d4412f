// Tensors of a model: element types, and TensorProtos turned into Tensors. Elements that the file holds
// in our own form stay there, as views, which need not be aligned to an element; small ones are copied.
#pragma once

#include "frontend/files/mapped_file.h"
#include "frontend/onnx/wire.h"
#include "ir/tensor.h"

#include <map>
#include <memory>
#include <string>

namespace kiln::onnx {

// ONNX's TensorProto.DataType; nothing for strings, complex numbers and types that Kiln lacks.
std::optional<DType> dtype_from_onnx(int64_t type);
std::string onnx_type_name(int64_t type);

// The files that a model refers to, each mapped once.
class ExternalFiles {
public:
  // `folder` is empty where external data is refused (a model in memory).
  explicit ExternalFiles(std::optional<std::string> folder) : folder_(std::move(folder)) {}
  Result<std::span<const std::byte>> bytes(std::string_view location);
  const std::map<std::string, std::shared_ptr<const MappedFile>, std::less<>> &all() const { return files_; }

private:
  std::optional<std::string> folder_;
  std::map<std::string, std::shared_ptr<const MappedFile>, std::less<>> files_;
};

Result<Tensor> make_tensor(const TensorView &view, ExternalFiles &files);

// With its zeros written out.
Result<Tensor> make_tensor(const SparseView &view, ExternalFiles &files);

} // namespace kiln::onnx
