// Batches of examples for training: a Dataset gives examples one at a time, a Loader makes batches of them, ahead of
// their use.
//
//   TensorDataset digits({{"x", images}, {"y", labels}});
//   Loader loader(digits, {.batch = 64, .seed = 1, .workers = 2});
//   for (int64_t epoch = 0; epoch < 3; ++epoch) {
//     loader.start(epoch);
//     while (const Batch *batch = loader.next())
//       step(batch->fields[0], batch->fields[1]);
//   }
//
// The order of examples follows from seed and epoch alone: it is the same for any number of workers, and an epoch can be
// entered in its middle.
#pragma once

#include "ir/support/result.h"
#include "ir/tensor.h"

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace kiln {

struct Field {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> dims; // of one example
};

// get() is called from several threads at once.
class Dataset {
public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  virtual const std::vector<Field> &fields() const = 0;
  // Writes example `index`'s elements of each field to out[field]. `draw` is a number that is the same for the
  // same seed, epoch and index: for augmentations.
  virtual Status get(int64_t index, uint64_t draw, std::span<std::byte *const> out) const = 0;
};

// Tensors whose axis 0 counts examples.
class TensorDataset : public Dataset {
public:
  explicit TensorDataset(std::vector<std::pair<std::string, Tensor>> tensors);
  // Whether all have the same number of examples.
  Status check() const;
  int64_t size() const override;
  const std::vector<Field> &fields() const override { return fields_; }
  Status get(int64_t index, uint64_t draw, std::span<std::byte *const> out) const override;

private:
  std::vector<Tensor> tensors_;
  std::vector<Field> fields_;
};

struct Batch {
  std::vector<Tensor> fields; // [count, dims...] each
  int64_t count = 0;
};

struct LoaderOptions {
  int64_t batch = 32;
  bool shuffle = true;
  bool drop_last = true; // leaves out a last batch that is not full
  uint64_t seed = 0;
  int workers = 1;       // threads that make batches; 0 makes them in next()
  int prefetch = 4;      // batches made ahead
};

class Loader {
public:
  Loader(const Dataset &dataset, LoaderOptions options);
  ~Loader();
  Loader(const Loader &) = delete;
  Loader &operator=(const Loader &) = delete;

  int64_t batches() const; // of an epoch
  // Begins an epoch, at its batch `from`.
  void start(int64_t epoch, int64_t from = 0);
  // The next batch, which stays as it is until the call after; null at the end of the epoch or on an error.
  const Batch *next();
  const std::string &error() const { return error_; }
  // The examples of an epoch in order.
  std::vector<int64_t> order(int64_t epoch) const;

private:
  struct Slot {
    Batch batch;
    int64_t index = -1; // the batch it holds, when ready
    std::string error;
  };
  void work();
  void make(int64_t index, Slot &slot) const;
  void stop();

  const Dataset &dataset_;
  LoaderOptions options_;
  std::vector<int64_t> order_;
  int64_t epoch_ = 0;
  std::vector<Slot> slots_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wanted_, ready_;
  int64_t claimed_ = 0; // the next batch that a worker takes
  int64_t given_ = 0;   // the next batch that next() gives
  bool stopping_ = false;
  std::string error_;
};

// 64 random bits of a key and a counter (splitmix64, Steele et al. 2014).
uint64_t mix_bits(uint64_t key, uint64_t counter);

} // namespace kiln
