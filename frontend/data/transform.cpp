// Fields on their way into a batch: pictures flipped and shifted, numbers converted and normalised. An example is changed by its own draw,
// so the result does not depend on which worker makes it, or in which batch.
#include "frontend/data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>

namespace kiln::data {
namespace {

int64_t product_of(std::span<const int64_t> dims) { return std::accumulate(dims.begin(), dims.end(), int64_t(1), std::multiplies<>()); }

struct Step {
  Transform what;
  DType from = DType::f32, to = DType::f32;
  int64_t count = 0;         // elements of an example; of one row where it varies
  bool varies = false, identity = false;
  int64_t height = 0, width = 0, planes = 1; // of pictures
  std::vector<float> scale, shift; // y = x * scale + shift, for each channel or column
  int64_t inner = 1;         // elements that share a channel's, next to each other
  size_t scratch = 0;
};

// flip and crop: from `in` to `out`, `bytes` an element.
void move_pixels(const Step &step, uint64_t draw, const std::byte *in, std::byte *out, size_t bytes) {
  bool flip = step.what.flip && (mix_bits(draw, 0) & 1) != 0;
  int64_t reach = 2 * step.what.crop + 1;
  int64_t down = step.what.crop == 0 ? 0 : int64_t(mix_bits(draw, 1) % uint64_t(reach)) - step.what.crop;
  int64_t right = step.what.crop == 0 ? 0 : int64_t(mix_bits(draw, 2) % uint64_t(reach)) - step.what.crop;
  const int64_t h = step.height, w = step.width;
  int64_t begin = std::clamp<int64_t>(-right, 0, w), end = std::clamp<int64_t>(w - right, 0, w); // columns that have a source
  for (int64_t p = 0; p < step.planes; ++p)
    for (int64_t y = 0; y < h; ++y) {
      std::byte *row = out + size_t((p * h + y) * w) * bytes;
      int64_t from = y + down;
      if (from < 0 || from >= h) {
        std::memset(row, 0, size_t(w) * bytes);
        continue;
      }
      const std::byte *source = in + size_t((p * h + from) * w) * bytes;
      std::memset(row, 0, size_t(begin) * bytes);
      std::memcpy(row + size_t(begin) * bytes, source + size_t(begin + right) * bytes, size_t(end - begin) * bytes);
      std::memset(row + size_t(end) * bytes, 0, size_t(w - end) * bytes);
      for (int64_t a = 0, b = w - 1; flip && a < b; ++a, --b)
        std::swap_ranges(row + size_t(a) * bytes, row + size_t(a + 1) * bytes, row + size_t(b) * bytes);
    }
}

template <typename T>
void scale_row(const T *in, float *out, int64_t n, float scale, float shift) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = float(in[i]) * scale + shift;
}

void convert(const Step &step, const std::byte *in, std::byte *out, int64_t count) {
  bool scaled = !step.scale.empty();
  if (step.from == step.to && !scaled) {
    std::memcpy(out, in, size_t(count * dtype_bytes(step.from)));
    return;
  }
  auto f32 = [&](const auto *values) {
    auto *to = reinterpret_cast<float *>(out);
    for (int64_t i = 0, c = 0; i < count; i += step.inner, c = c + 1 == int64_t(step.scale.size()) ? 0 : c + 1)
      scale_row(values + i, to + i, std::min(step.inner, count - i), step.scale[size_t(c)], step.shift[size_t(c)]);
  };
  if (scaled && step.to == DType::f32 && step.from == DType::u8)
    return f32(reinterpret_cast<const uint8_t *>(in));
  if (scaled && step.to == DType::f32 && step.from == DType::f32)
    return f32(reinterpret_cast<const float *>(in));
  Tensor from(step.from, {count}, {in, size_t(count * dtype_bytes(step.from))}), to(step.to, {count});
  for (int64_t i = 0; i < count; ++i) {
    size_t c = size_t(i / step.inner) % std::max<size_t>(step.scale.size(), 1);
    if (scaled)
      to.set_f64(i, from.at_f64(i) * double(step.scale[c]) + double(step.shift[c]));
    else if (holds_floats(step.to) || holds_floats(step.from))
      to.set_f64(i, from.at_f64(i));
    else
      to.set_i64(i, from.at_i64(i));
  }
  std::memcpy(out, to.bytes().data(), to.bytes().size());
}

class Transformed : public Dataset {
public:
  Transformed(DatasetPtr of, std::vector<Step> steps, std::vector<Field> fields)
      : of_(std::move(of)), steps_(std::move(steps)), fields_(std::move(fields)) {}
  int64_t size() const override { return of_->size(); }
  const std::vector<Field> &fields() const override { return fields_; }
  int64_t length(int64_t index) const override { return of_->length(index); }
  bool get(int64_t index, uint64_t draw, std::span<std::byte *const> out, std::string &error) const override {
    // Memory that stays with the thread; a transformed dataset below this one finds it taken, and makes its own.
    thread_local std::vector<std::byte> spare_read, spare_moved;
    std::vector<std::byte> read = std::move(spare_read), moved = std::move(spare_moved);
    bool fine = get(index, draw, out, read, moved, error);
    spare_read = std::move(read);
    spare_moved = std::move(moved);
    return fine;
  }

private:
  bool get(int64_t index, uint64_t draw, std::span<std::byte *const> out, std::vector<std::byte> &read, std::vector<std::byte> &moved,
           std::string &error) const {
    int64_t length = of_->length(index);
    size_t all = 0, most = 0;
    for (const Step &step : steps_) {
      size_t bytes = size_t(step.count * (step.varies ? length : 1) * dtype_bytes(step.from));
      all += step.identity ? 0 : (bytes + 63) / 64 * 64;
      most = std::max(most, bytes);
    }
    read.resize(std::max(read.size(), all));
    moved.resize(std::max(moved.size(), most));
    std::vector<std::byte *> to;
    size_t at = 0;
    for (size_t f = 0; f < steps_.size(); ++f) {
      to.push_back(steps_[f].identity ? out[f] : read.data() + at);
      size_t bytes = size_t(steps_[f].count * (steps_[f].varies ? length : 1) * dtype_bytes(steps_[f].from));
      at += steps_[f].identity ? 0 : (bytes + 63) / 64 * 64;
    }
    if (!of_->get(index, draw, to, error))
      return false;
    for (size_t f = 0; f < steps_.size(); ++f) {
      const Step &step = steps_[f];
      if (step.identity)
        continue;
      const std::byte *in = to[f];
      if (step.what.flip || step.what.crop > 0) {
        move_pixels(step, draw, in, moved.data(), size_t(dtype_bytes(step.from)));
        in = moved.data();
      }
      convert(step, in, out[f], step.count * (step.varies ? length : 1));
    }
    return true;
  }

  DatasetPtr of_;
  std::vector<Step> steps_;
  std::vector<Field> fields_;
};

// How many indices the axis with means of its own has, and how many elements lie between two of them. Bytes are pictures.
std::pair<int64_t, int64_t> channels(const Field &field) {
  const auto &dims = field.dims;
  if (dims.empty() || (field.dtype == KILN_U8 && dims.size() < 3))
    return {1, 1};
  if (dims.size() == 3)
    return {dims[0], dims[1] * dims[2]};
  return {dims.back() < 0 ? 1 : dims.back(), 1};
}

Status set_scale(Step &step, const Field &field) {
  const Transform &what = step.what;
  bool bytes = step.from == DType::u8 && is_float(step.to);
  if (what.mean.empty() && what.std.empty() && !bytes)
    return Unit{};
  if (!is_float(step.to))
    return Error{fmt::format("'{}' is {}; only floats are normalised", field.name, dtype_name(step.to))};
  auto [n, inner] = channels(field);
  auto at = [](const std::vector<double> &list, int64_t c, double otherwise) {
    return list.empty() ? otherwise : list[list.size() == 1 ? 0 : size_t(c)];
  };
  for (const auto *list : {&what.mean, &what.std})
    if (list->size() > 1 && int64_t(list->size()) != n)
      return Error{fmt::format("'{}' has {} channels or columns, but {} numbers are given to normalise them", field.name, n, list->size())};
  bool one = what.mean.size() <= 1 && what.std.size() <= 1;
  for (int64_t c = 0; c < (one ? 1 : n); ++c) {
    double mean = at(what.mean, c, 0), std = at(what.std, c, 1);
    if (!std::isfinite(mean) || !std::isfinite(std) || std == 0)
      return Error{fmt::format("'{}' cannot be normalised by the mean {} and the deviation {}", field.name, mean, std)};
    step.scale.push_back(float((bytes ? 1.0 / 255 : 1.0) / std));
    step.shift.push_back(float(-mean / std));
  }
  step.inner = one ? std::max<int64_t>(step.count, 1) : inner;
  return Unit{};
}

Result<Step> make_step(const Field &field, const Transform &what) {
  Step step;
  step.what = what;
  step.from = step.to = dtype_of(field);
  if (what.dtype != 0) {
    auto to = dtype_from_code(int(what.dtype));
    if (!to)
      return Error{fmt::format("'{}': there is no dtype {}", field.name, what.dtype)};
    step.to = *to;
  }
  step.varies = !field.dims.empty() && field.dims[0] == kVaries;
  step.count = product_of(std::span(field.dims).subspan(step.varies ? 1 : 0));
  if (is_float(step.from) && !is_float(step.to))
    return Error{fmt::format("the data for '{}' is {}; {} is wanted", field.name, dtype_name(step.from), dtype_name(step.to))};
  if (what.flip || what.crop > 0) {
    size_t rank = field.dims.size();
    if (rank < 2 || rank > 3 || step.varies)
      return Error{fmt::format("'{}' is {}[{}]; pictures that can be flipped or cropped are [H, W] or [C, H, W]", field.name,
                               dtype_name(step.from), fmt::join(field.dims, ", "))};
    step.height = field.dims[rank - 2];
    step.width = field.dims[rank - 1];
    step.planes = rank == 3 ? field.dims[0] : 1;
    if (what.crop >= std::min(step.height, step.width))
      return Error{fmt::format("'{}' has {}x{} pixels; a crop of {} would leave none", field.name, step.height, step.width, what.crop)};
  }
  KILN_RETURN_IF_ERROR(set_scale(step, field));
  step.identity = step.from == step.to && step.scale.empty() && !what.flip && what.crop == 0;
  return step;
}

} // namespace

DatasetPtr try_transformed(DatasetPtr dataset, std::vector<Transform> transforms, std::string &error) {
  std::vector<Field> fields = dataset->fields();
  std::vector<Step> steps;
  for (Field &field : fields) {
    Transform what{.field = field.name};
    for (const Transform &t : transforms)
      if (t.field == field.name)
        what = t;
    auto step = make_step(field, what);
    if (!step) {
      error = step.error().message;
      return nullptr;
    }
    field.dtype = code_of(step->to);
    if (what.reshape) {
      if (step->varies || product_of(what.dims) != step->count) {
        error = fmt::format("the data for '{}' is {}[{}]: an example does not fill [{}]", field.name, dtype_name(step->from),
                            fmt::join(field.dims, ", "), fmt::join(what.dims, ", "));
        return nullptr;
      }
      field.dims = what.dims;
    }
    steps.push_back(std::move(*step));
  }
  for (const Transform &t : transforms)
    if (std::none_of(fields.begin(), fields.end(), [&](const Field &f) { return f.name == t.field; })) {
      error = fmt::format("there is no data '{}' to transform", t.field);
      return nullptr;
    }
  return std::make_shared<Transformed>(std::move(dataset), std::move(steps), std::move(fields));
}

bool try_statistics(const Dataset &dataset, const std::string &name, Statistics &out, std::string &error) {
  const auto &fields = dataset.fields();
  auto it = std::find_if(fields.begin(), fields.end(), [&](const Field &f) { return f.name == name; });
  if (it == fields.end()) {
    error = fmt::format("there is no data '{}'", name);
    return false;
  }
  auto [n, inner] = channels(*it);
  std::vector<double> sum(size_t(std::max<int64_t>(n, 1))), squares(sum.size());
  std::vector<int64_t> counts(sum.size());
  constexpr int64_t kMost = 10'000;
  int64_t size = dataset.size(), reads = std::min(size, kMost);
  double scale = it->dtype == KILN_U8 ? 1.0 / 255 : 1.0;
  for (int64_t k = 0; k < reads; ++k) {
    int64_t index = reads == size ? k : k * (size / reads);
    std::vector<Tensor> values;
    std::vector<std::byte *> to;
    for (const Field &field : fields) {
      std::vector<int64_t> dims = field.dims;
      if (!dims.empty() && dims[0] == kVaries)
        dims[0] = dataset.length(index);
      values.emplace_back(dtype_of(field), dims);
      to.push_back(values.back().mutable_bytes());
    }
    if (!dataset.get(index, 0, to, error))
      return false;
    const Tensor &value = values[size_t(it - fields.begin())];
    for (int64_t i = 0; i < value.count(); ++i) {
      size_t c = size_t(i / inner) % sum.size();
      double x = value.at_f64(i) * scale;
      sum[c] += x, squares[c] += x * x, ++counts[c];
    }
  }
  out = {};
  for (size_t c = 0; c < sum.size(); ++c) {
    auto count = double(std::max<int64_t>(counts[c], 1));
    double mean = sum[c] / count, variance = std::max(squares[c] / count - mean * mean, 0.0);
    out.mean.push_back(mean);
    out.std.push_back(variance > 1e-12 * std::max(mean * mean, 1e-6) ? std::sqrt(variance) : 1.0); // a column of one value stays 0
  }
  return true;
}

} // namespace kiln::data
