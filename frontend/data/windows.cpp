#include "frontend/data/windows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace kiln::data {
namespace {

class Windows : public Dataset {
public:
  Windows(std::vector<Track> tracks, int64_t stride, int64_t size) : tracks_(std::move(tracks)), stride_(stride), size_(size) {
    for (Track &track : tracks_) {
      Field field = track.field;
      field.dims.assign(track.rows->dims().begin() + 1, track.rows->dims().end());
      row_.push_back(track.rows->bytes().size() / size_t(std::max<int64_t>(track.rows->dims()[0], 1)));
      if (track.keep_axis || track.length != 1)
        field.dims.insert(field.dims.begin(), track.length);
      fields_.push_back(std::move(field));
    }
  }
  int64_t size() const override { return size_; }
  const std::vector<Field> &fields() const override { return fields_; }
  bool get(int64_t index, uint64_t, std::span<std::byte *const> out, std::string &) const override {
    for (size_t f = 0; f < tracks_.size(); ++f) {
      const Track &t = tracks_[f];
      std::memcpy(out[f], t.rows->bytes().data() + size_t(index * stride_ + t.offset) * row_[f], size_t(t.length) * row_[f]);
    }
    return true;
  }

private:
  std::vector<Track> tracks_;
  std::vector<Field> fields_;
  std::vector<size_t> row_; // bytes
  int64_t stride_, size_;
};

} // namespace

Result<DatasetPtr> window_dataset(std::vector<Track> tracks, int64_t stride, const std::string &path) {
  int64_t reach = 0, rows = tracks[0].rows->dims()[0];
  for (const Track &track : tracks)
    reach = std::max(reach, track.offset + track.length);
  if (rows < reach)
    return Error{fmt::format("'{}' has {}, but a window and what follows it are {}: take a smaller window=", path, rows, reach)};
  return DatasetPtr(std::make_shared<Windows>(std::move(tracks), stride, (rows - reach) / stride + 1));
}

} // namespace kiln::data
