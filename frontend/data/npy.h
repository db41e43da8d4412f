// NumPy's .npy files: one array with a small header. Versions 1 to 3, either byte order, C or Fortran
// order; bfloat16 is what the ml_dtypes package writes ("<V2"). Arrays of strings ('S', and 'U' as UTF-8) are u8 with
// the bytes of each string in one more dim, zeros behind them.
#pragma once

#include "ir/support/result.h"
#include "ir/tensor.h"

#include <span>
#include <string>
#include <vector>

namespace kiln {

// The header alone: what follows it and how much that is.
struct NpyHeader {
  DType dtype = DType::f32;
  std::vector<int64_t> dims;
  bool fortran_order = false;
  bool big_endian = false;
  bool is_text = false; // the last dim is that of a string
  bool unicode = false; // ... of u32 characters, which parse_npy() makes UTF-8
  size_t data_offset = 0;
  int64_t data_bytes = 0;
};
Result<NpyHeader> parse_npy_header(std::span<const std::byte> bytes);

// The tensor owns its elements. Bytes after the array are an error.
Result<Tensor> parse_npy(std::span<const std::byte> bytes);
Result<Tensor> read_npy(const std::string &path);

// `text`: u8, written as an 'S' array.
std::vector<std::byte> npy_bytes(const Tensor &tensor, bool text = false);
Status write_npy(const std::string &path, const Tensor &tensor, bool text = false);

} // namespace kiln
