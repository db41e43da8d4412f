// What the parts of the data library share: Results in place of error strings, arrays as datasets, and what each kind of
// source is opened with. Users see include/kiln/data.hpp alone.
#pragma once

#include "ir/support/result.h"
#include "ir/tensor.h"

#include <kiln/data.hpp>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kiln::data {

inline DType dtype_of(const Field &field) { return *dtype_from_code(int(field.dtype)); }
inline uint32_t code_of(DType dtype) { return uint32_t(dtype); }
void shuffle(std::vector<int64_t> &list, uint64_t key);

// Tensors whose axis 0 counts examples.
Result<DatasetPtr> tensor_dataset(std::vector<std::pair<std::string, Tensor>> tensors, std::map<std::string, std::vector<std::string>> names = {});

// "PATH key=value ...", taken apart. Whoever opens the source takes the options it knows; what is left is an error.
class SourceText {
public:
  static Result<SourceText> parse(const std::string &text);

  std::string path; // "" where all words are fields
  std::vector<std::pair<std::string, std::string>> words;

  std::optional<std::string> take(std::string_view key);
  Result<int64_t> take_int(std::string_view key, int64_t otherwise, int64_t least, int64_t most);
  // For sources that have options only; `known` lists them.
  Status finish(std::string_view known) const;
};

// Each takes its options out of `source`.
Result<DatasetPtr> open_arrays(SourceText &source);
Result<DatasetPtr> open_csv(SourceText &source);
Result<DatasetPtr> open_text(SourceText &source, bool lines);
Result<DatasetPtr> open_pictures(SourceText &source);

} // namespace kiln::data
