// Batches by worker threads. Which batch is whose example is decided before an epoch begins (`Plan`), so workers only take the number of
// the next batch; a batch goes to the slot of its number, and next() waits for the slot of the number it gives.
#include "frontend/data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <numeric>
#include <optional>
#include <system_error>
#include <thread>

namespace kiln::data {
namespace {

struct Plan {
  std::vector<int64_t> examples; // of all batches
  std::vector<size_t> begins;    // of each batch, and the end
  std::vector<int64_t> widths;   // of each batch; 0: its longest example's
  int64_t batches() const { return int64_t(begins.size()) - 1; }
};

struct Slot {
  Batch batch;
  int64_t index = -1; // the batch it holds, when ready
  std::string error;
};

struct FieldSize {
  size_t element = 1, fixed = 1; // bytes of an element; elements of an example, or of one row of it where it varies
  bool varies = false;
  std::vector<std::byte> pad;
};

void free_array(std::byte *memory) { ::operator delete[](memory, std::align_val_t{KILN_MEMORY_ALIGNMENT}); }

// Room for an array of these dims, which it keeps where it has them already.
bool reserve(Array &array, const Field &field, std::vector<int64_t> dims, std::string &error) {
  auto size = checked_bytes(dtype_of(field), dims);
  if (array.memory && array.dims == dims)
    return true;
  if (size && (!array.memory || array.size < uint64_t(*size))) {
    void *memory = ::operator new[](std::max<size_t>(size_t(*size), 1), std::align_val_t{KILN_MEMORY_ALIGNMENT}, std::nothrow);
    array.memory = {static_cast<std::byte *>(memory), free_array};
  }
  if (!size || !array.memory) {
    error = fmt::format("no memory for a batch of '{}', {}[{}]: take smaller batches", field.name, dtype_name(dtype_of(field)),
                        fmt::join(dims, ", "));
    return false;
  }
  array.name = field.name;
  array.dtype = field.dtype;
  array.dims = std::move(dims);
  array.size = uint64_t(*size);
  return true;
}

} // namespace

uint64_t mix_bits(uint64_t key, uint64_t counter) {
  uint64_t z = key + (counter + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Fisher and Yates' shuffle; the bits are those of the key and the position.
void shuffle(std::vector<int64_t> &list, uint64_t key) {
  for (size_t i = list.size(); i > 1; --i)
    std::swap(list[i - 1], list[size_t((static_cast<unsigned __int128>(mix_bits(key, i)) * i) >> 64)]);
}

struct Loader::State {
  DatasetPtr dataset;
  LoaderOptions options;
  std::vector<FieldSize> sizes;
  std::vector<uint8_t> bucket_of;
  int64_t batches = 0;

  int64_t epoch = 0;
  Plan plan;
  std::vector<Slot> slots;
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wanted, ready;
  int64_t claimed = 0; // the next batch that a worker takes
  int64_t given = 0;   // the next batch that next() gives
  bool stopping = false;
  std::string error;

  ~State() { stop(); }
  bool check(std::string &why);
  bool assign_buckets(std::string &why);
  Plan make_plan(int64_t of_epoch) const;
  void start(int64_t of_epoch, int64_t from);
  void stop();
  void work();
  void make(int64_t index, Slot &slot) const;
  bool fill(int64_t index, Slot &slot) const;
  const Batch *next(std::string &why);
};

bool Loader::State::check(std::string &why) {
  options.batch = std::max<int64_t>(options.batch, 1);
  options.prefetch = std::max(options.prefetch, 1);
  slots.resize(options.workers > 0 ? size_t(options.prefetch) + 1 : 1);
  bool varies = false;
  for (const Field &field : dataset->fields()) {
    auto dtype = dtype_from_code(int(field.dtype));
    FieldSize size;
    size.varies = !field.dims.empty() && field.dims[0] == kVaries;
    varies |= size.varies;
    std::vector<int64_t> fixed(field.dims.begin() + (size.varies ? 1 : 0), field.dims.end());
    auto bytes = dtype ? checked_bytes(*dtype, fixed) : std::nullopt;
    if (!bytes) {
      why = fmt::format("the field '{}' has no size: its dtype is {} and its dims are [{}]", field.name, field.dtype, fmt::join(field.dims, ", "));
      return false;
    }
    size.element = size_t(dtype_bytes(*dtype));
    size.fixed = size_t(*bytes) / size.element;
    Tensor pad(*dtype, {1});
    pad.set_f64(0, field.pad);
    size.pad.assign(pad.bytes().begin(), pad.bytes().end());
    sizes.push_back(std::move(size));
  }
  if (!options.buckets.empty() && !varies) {
    why = "buckets are for data whose examples have different lengths, which these do not";
    return false;
  }
  if (!options.buckets.empty())
    return assign_buckets(why);
  int64_t n = dataset->size();
  batches = n / options.batch + (!options.drop_last && n % options.batch != 0);
  return true;
}

bool Loader::State::assign_buckets(std::string &why) {
  const auto &buckets = options.buckets;
  if (buckets.size() > 255 || !std::is_sorted(buckets.begin(), buckets.end()) || buckets[0] < 1) {
    why = fmt::format("buckets are up to 255 lengths, the least first, not {}", fmt::join(buckets, ", "));
    return false;
  }
  std::vector<int64_t> counts(buckets.size());
  for (int64_t i = 0; i < dataset->size(); ++i) {
    auto at = std::lower_bound(buckets.begin(), buckets.end(), dataset->length(i));
    if (at == buckets.end()) {
      why = fmt::format("example {} has a length of {}, more than the last bucket's {}: add a larger one", i, dataset->length(i), buckets.back());
      return false;
    }
    bucket_of.push_back(uint8_t(at - buckets.begin()));
    ++counts[bucket_of.back()];
  }
  for (int64_t count : counts)
    batches += count / options.batch + (!options.drop_last && count % options.batch != 0);
  return true;
}

Plan Loader::State::make_plan(int64_t of_epoch) const {
  std::vector<int64_t> order(size_t(dataset->size()));
  std::iota(order.begin(), order.end(), int64_t(0));
  if (options.shuffle)
    shuffle(order, mix_bits(options.seed, uint64_t(of_epoch)));
  Plan out;
  auto batch = size_t(options.batch);
  if (bucket_of.empty()) {
    for (int64_t i = 0; i < batches; ++i)
      out.begins.push_back(size_t(i) * batch);
    out.begins.push_back(std::min(size_t(batches) * batch, order.size()));
    out.widths.assign(size_t(batches), 0);
    out.examples = std::move(order);
    return out;
  }
  std::vector<std::vector<int64_t>> open(options.buckets.size());
  auto close = [&](size_t b) {
    out.begins.push_back(out.examples.size());
    out.widths.push_back(options.buckets[b]);
    out.examples.insert(out.examples.end(), open[b].begin(), open[b].end());
    open[b].clear();
  };
  for (int64_t example : order) {
    size_t b = bucket_of[size_t(example)];
    open[b].push_back(example);
    if (open[b].size() == batch)
      close(b);
  }
  for (size_t b = 0; b < open.size(); ++b)
    if (!options.drop_last && !open[b].empty())
      close(b);
  out.begins.push_back(out.examples.size());
  return out;
}

void Loader::State::stop() {
  {
    std::lock_guard lock(mutex);
    stopping = true;
  }
  wanted.notify_all();
  for (std::thread &thread : threads)
    thread.join();
  threads.clear();
  stopping = false;
}

void Loader::State::start(int64_t of_epoch, int64_t from) {
  stop();
  epoch = of_epoch;
  plan = make_plan(of_epoch);
  claimed = given = std::clamp<int64_t>(from, 0, batches);
  error.clear();
  for (Slot &slot : slots)
    slot.index = -1;
  try {
    for (int i = 0; i < options.workers; ++i)
      threads.emplace_back([this] { work(); });
  } catch (const std::system_error &) {
    // The system gives no more threads: those that there are do the work, or next() where there are none.
  }
}

bool Loader::State::fill(int64_t index, Slot &slot) const {
  size_t begin = plan.begins[size_t(index)], end = plan.begins[size_t(index) + 1];
  const auto &fields = dataset->fields();
  Batch &batch = slot.batch;
  batch.count = int64_t(end - begin);
  batch.lengths.clear();
  int64_t width = plan.widths[size_t(index)];
  bool varies = std::any_of(sizes.begin(), sizes.end(), [](const FieldSize &size) { return size.varies; });
  for (size_t i = begin; varies && i < end; ++i)
    batch.lengths.push_back(dataset->length(plan.examples[i]));
  if (varies && width == 0)
    width = *std::max_element(batch.lengths.begin(), batch.lengths.end());
  batch.fields.resize(fields.size());
  std::vector<std::byte *> out(fields.size());
  std::vector<size_t> stride(fields.size());
  for (size_t f = 0; f < fields.size(); ++f) {
    std::vector<int64_t> dims = fields[f].dims;
    if (sizes[f].varies)
      dims[0] = width;
    dims.insert(dims.begin(), batch.count);
    if (!reserve(batch.fields[f], fields[f], std::move(dims), slot.error))
      return false;
    out[f] = batch.fields[f].memory.get();
    stride[f] = size_t(batch.fields[f].size) / size_t(std::max<int64_t>(batch.count, 1));
  }
  uint64_t key = mix_bits(~options.seed, uint64_t(epoch));
  for (size_t i = begin; i < end; ++i) {
    int64_t example = plan.examples[i];
    if (!dataset->get(example, mix_bits(key, uint64_t(example)), out, slot.error)) {
      slot.error = fmt::format("example {}: {}", example, slot.error);
      return false;
    }
    for (size_t f = 0; f < out.size(); ++f) {
      const FieldSize &size = sizes[f];
      size_t row = size.fixed * size.element;
      for (size_t at = size.varies ? size_t(batch.lengths[i - begin]) * row : stride[f]; at < stride[f]; at += size.element)
        std::memcpy(out[f] + at, size.pad.data(), size.element);
      out[f] += stride[f];
    }
  }
  return true;
}

// A user's own dataset may throw what it likes.
void Loader::State::make(int64_t index, Slot &slot) const {
  slot.error.clear();
  try {
    if (!fill(index, slot) && slot.error.empty())
      slot.error = "the dataset did not say what is wrong";
  } catch (const std::exception &thrown) {
    slot.error = thrown.what();
  } catch (...) {
    slot.error = "the dataset threw something that is no std::exception";
  }
}

void Loader::State::work() {
  std::unique_lock lock(mutex);
  while (true) {
    // The slot of the batch that next() gave last stays untouched.
    wanted.wait(lock, [&] { return stopping || claimed >= batches || claimed < given + int64_t(slots.size()) - 1; });
    if (stopping || claimed >= batches)
      return;
    int64_t index = claimed++;
    Slot &slot = slots[size_t(index) % slots.size()];
    lock.unlock();
    make(index, slot);
    lock.lock();
    slot.index = index;
    ready.notify_all();
  }
}

const Batch *Loader::State::next(std::string &why) {
  why = error;
  if (given >= batches || !error.empty() || plan.begins.empty())
    return nullptr;
  Slot &slot = slots[size_t(given) % slots.size()];
  if (threads.empty()) {
    make(given++, slot);
  } else {
    std::unique_lock lock(mutex);
    ready.wait(lock, [&] { return slot.index == given; });
    ++given;
    // Waking a worker costs as much as making a small batch: they sleep until half of what is made ahead is used up.
    bool wake = claimed - given <= options.prefetch / 2;
    lock.unlock();
    if (wake)
      wanted.notify_all();
  }
  why = error = slot.error;
  return error.empty() ? &slot.batch : nullptr;
}

std::unique_ptr<Loader> Loader::try_make(DatasetPtr dataset, const LoaderOptions &options, std::string &error) {
  auto state = std::make_unique<State>();
  state->dataset = std::move(dataset);
  state->options = options;
  if (!state->check(error))
    return nullptr;
  return std::unique_ptr<Loader>(new Loader(std::move(state)));
}

Loader::Loader(std::unique_ptr<State> state) : state_(std::move(state)) {}
Loader::Loader(DatasetPtr dataset, const LoaderOptions &options) : state_(std::make_unique<State>()) {
  state_->dataset = std::move(dataset);
  state_->options = options;
  std::string error;
  if (!state_->check(error))
    throw DataError(error);
}
Loader::~Loader() = default;
Loader::Loader(Loader &&) noexcept = default;
const Dataset &Loader::dataset() const { return *state_->dataset; }
int64_t Loader::batches() const { return state_->batches; }
void Loader::start(int64_t epoch, int64_t from) { state_->start(epoch, from); }
const Batch *Loader::try_next(std::string &error) { return state_->next(error); }
Loader::Position Loader::position() const { return {state_->epoch, state_->given}; }

std::vector<std::vector<int64_t>> Loader::order(int64_t epoch) const {
  Plan plan = state_->make_plan(epoch);
  std::vector<std::vector<int64_t>> out;
  for (size_t i = 0; i + 1 < plan.begins.size(); ++i)
    out.emplace_back(plan.examples.begin() + int64_t(plan.begins[i]), plan.examples.begin() + int64_t(plan.begins[i + 1]));
  return out;
}

} // namespace kiln::data
