#include "frontend/data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace kiln {

uint64_t mix_bits(uint64_t key, uint64_t counter) {
  uint64_t z = key + (counter + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

TensorDataset::TensorDataset(std::vector<std::pair<std::string, Tensor>> tensors) {
  for (auto &[name, tensor] : tensors) {
    std::vector<int64_t> dims(tensor.dims().begin() + (tensor.rank() > 0 ? 1 : 0), tensor.dims().end());
    fields_.push_back({name, tensor.dtype(), std::move(dims)});
    tensors_.push_back(std::move(tensor));
  }
}

int64_t TensorDataset::size() const { return tensors_.empty() || tensors_[0].rank() == 0 ? 0 : tensors_[0].dims()[0]; }

Status TensorDataset::check() const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].rank() == 0)
      return Error{fmt::format("the data '{}' is a single number; axis 0 counts examples", fields_[i].name)};
    if (tensors_[i].dims()[0] != size())
      return Error{fmt::format("the data '{}' has {} examples, '{}' has {}", fields_[i].name, tensors_[i].dims()[0],
                               fields_[0].name, size())};
  }
  return Unit{};
}

Status TensorDataset::get(int64_t index, uint64_t, std::span<std::byte *const> out) const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    size_t bytes = tensors_[i].bytes().size() / size_t(size());
    std::memcpy(out[i], tensors_[i].bytes().data() + size_t(index) * bytes, bytes);
  }
  return Unit{};
}

Loader::Loader(const Dataset &dataset, LoaderOptions options) : dataset_(dataset), options_(options) {
  options_.batch = std::max<int64_t>(options_.batch, 1);
  options_.prefetch = std::max(options_.prefetch, 1);
  slots_.resize(options_.workers > 0 ? size_t(options_.prefetch) + 1 : 1);
}

Loader::~Loader() { stop(); }

void Loader::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wanted_.notify_all();
  for (std::thread &thread : threads_)
    thread.join();
  threads_.clear();
  stopping_ = false;
}

int64_t Loader::batches() const {
  int64_t n = dataset_.size();
  return options_.drop_last ? n / options_.batch : (n + options_.batch - 1) / options_.batch;
}

// Fisher and Yates' shuffle; the bits are those of the seed, the epoch and the position.
std::vector<int64_t> Loader::order(int64_t epoch) const {
  std::vector<int64_t> out(size_t(dataset_.size()));
  std::iota(out.begin(), out.end(), int64_t(0));
  if (!options_.shuffle)
    return out;
  uint64_t key = mix_bits(options_.seed, uint64_t(epoch));
  for (size_t i = out.size(); i > 1; --i)
    std::swap(out[i - 1], out[size_t((static_cast<unsigned __int128>(mix_bits(key, i)) * i) >> 64)]);
  return out;
}

void Loader::start(int64_t epoch, int64_t from) {
  stop();
  epoch_ = epoch;
  order_ = order(epoch);
  claimed_ = given_ = from;
  error_.clear();
  for (Slot &slot : slots_)
    slot.index = -1;
  for (int i = 0; i < options_.workers; ++i)
    threads_.emplace_back([this] { work(); });
}

void Loader::make(int64_t index, Slot &slot) const {
  int64_t begin = index * options_.batch, end = std::min(begin + options_.batch, dataset_.size());
  const auto &fields = dataset_.fields();
  Batch &batch = slot.batch;
  slot.error.clear();
  if (batch.count != end - begin || batch.fields.size() != fields.size()) {
    batch.fields.clear();
    for (const Field &field : fields) {
      std::vector<int64_t> dims = field.dims;
      dims.insert(dims.begin(), end - begin);
      batch.fields.emplace_back(field.dtype, dims);
    }
    batch.count = end - begin;
  }
  std::vector<std::byte *> out(fields.size());
  std::vector<size_t> stride(fields.size());
  for (size_t f = 0; f < fields.size(); ++f) {
    out[f] = batch.fields[f].mutable_bytes();
    stride[f] = batch.fields[f].bytes().size() / size_t(std::max<int64_t>(batch.count, 1));
  }
  uint64_t key = mix_bits(~options_.seed, uint64_t(epoch_));
  for (int64_t i = begin; i < end; ++i) {
    int64_t example = order_[size_t(i)];
    if (auto status = dataset_.get(example, mix_bits(key, uint64_t(example)), out); !status) {
      slot.error = fmt::format("example {}: {}", example, status.error().message);
      return;
    }
    for (size_t f = 0; f < out.size(); ++f)
      out[f] += stride[f];
  }
}

void Loader::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    // The slot of the batch that next() gave last stays untouched.
    wanted_.wait(lock, [&] {
      return stopping_ || claimed_ >= batches() || claimed_ < given_ + int64_t(slots_.size()) - 1;
    });
    if (stopping_ || claimed_ >= batches())
      return;
    int64_t index = claimed_++;
    Slot &slot = slots_[size_t(index) % slots_.size()];
    lock.unlock();
    make(index, slot);
    lock.lock();
    slot.index = index;
    ready_.notify_all();
  }
}

const Batch *Loader::next() {
  if (given_ >= batches() || !error_.empty())
    return nullptr;
  Slot &slot = slots_[size_t(given_) % slots_.size()];
  if (threads_.empty()) {
    make(given_, slot);
    ++given_;
  } else {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return slot.index == given_; });
    ++given_;
    lock.unlock();
    wanted_.notify_all();
  }
  error_ = slot.error;
  return error_.empty() ? &slot.batch : nullptr;
}

} // namespace kiln
