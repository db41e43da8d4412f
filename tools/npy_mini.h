// NumPy's .npy files, as much as kiln-run needs: every dtype of Kiln's, row-major or column-major
// in, row-major out. The header is parsed strictly; whatever is not understood is an error.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kiln::tools {

struct Tensor {
  uint32_t dtype = 0; // KILN_F32, ...
  std::vector<int64_t> dims;
  std::vector<uint8_t> data; // row-major
};

// Bits of an element's code; 0 where the dtype is not narrow.
int narrow_bits(uint32_t dtype);
// Says that an array of bytes holds codes of the narrow dtype that is wanted, where it is one and they fit;
// nothing happens otherwise.
void take_as_codes(uint32_t wanted, Tensor &tensor);

// Bytes of one element; 0 for a code that is no dtype.
uint32_t element_size(uint32_t dtype);
const char *element_name(uint32_t dtype);
// 0 where no dtype has that name.
uint32_t find_dtype(const std::string &name);

// Bytes of a dense tensor; false where they do not fit in 63 bits or a dim is negative.
bool dense_size(uint32_t dtype, const std::vector<int64_t> &dims, uint64_t &size);

// Both return an empty string, or what is wrong, with the file's name. "-" is standard input or
// output. Files are written whole or not at all.
std::string read_npy(const std::string &path, Tensor &tensor);
std::string write_npy(const std::string &path, const Tensor &tensor);

// Parses the bytes of a file (read_npy without the file).
std::string parse_npy(const std::vector<uint8_t> &bytes, Tensor &tensor);

} // namespace kiln::tools
