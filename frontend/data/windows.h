// Examples that are stretches of one long array: windows of a text or of a series, and what follows them.
#pragma once

#include "frontend/data/dataset.h"

namespace kiln::data {

// A field's part of a window that begins at row `i`: rows i + offset .. i + offset + length. Without `keep_axis` a length of one row
// has no axis of its own.
struct Track {
  Field field; // without dims
  std::shared_ptr<const Tensor> rows;
  int64_t offset = 0, length = 1;
  bool keep_axis = true;
};
// A window every `stride` rows, as many as fit.
Result<DatasetPtr> window_dataset(std::vector<Track> tracks, int64_t stride, const std::string &path);

} // namespace kiln::data
