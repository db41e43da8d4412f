// Arrays as a source: .npy, .npz and IDX files, whose axis 0 counts examples.
#include "frontend/data/dataset.h"
#include "frontend/data/idx.h"
#include "frontend/data/npy.h"
#include "frontend/data/npz.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::data {
namespace {

using Named = std::vector<std::pair<std::string, Tensor>>;

// "all.npz:images" names an array of it; without a name it is the field's.
Result<Tensor> read_array(const std::string &field, const std::string &path) {
  if (path.ends_with(".npy"))
    return read_npy(path);
  size_t at = path.rfind(".npz");
  if (at == std::string::npos || (at + 4 < path.size() && path[at + 4] != ':'))
    return read_idx(path);
  std::string file = path.substr(0, at + 4), name = at + 5 < path.size() ? path.substr(at + 5) : field, have;
  KILN_TRY(arrays, read_npz(file));
  for (auto &[key, tensor] : arrays) {
    if (key == name)
      return std::move(tensor);
    have += (have.empty() ? "" : ", ") + key;
  }
  return Error{fmt::format("'{}' has no array '{}'; it has {}. Write {}=@{}:NAME to take one of them", file, name, have, field, file)};
}

} // namespace

Result<DatasetPtr> open_arrays(SourceText &source) {
  Named out;
  if (!source.path.empty()) {
    KILN_TRY(arrays, read_npz(source.path));
    out = std::move(arrays);
  }
  for (const auto &[field, value] : source.words) {
    if (!value.starts_with('@') || value.size() < 2)
      return Error{fmt::format("{}={}: write {}=@FILE, for .npy, .npz and IDX files", field, value, field)};
    if (std::any_of(out.begin(), out.end(), [&, name = &field](const auto &a) { return a.first == *name; }))
      return Error{fmt::format("there is data for '{}' twice", field)};
    KILN_TRY(tensor, read_array(field, value.substr(1)));
    out.emplace_back(field, std::move(tensor));
  }
  return tensor_dataset(std::move(out));
}

} // namespace kiln::data
