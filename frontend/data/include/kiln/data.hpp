// Data for training: datasets of examples, and batches of them, made ahead of their use by worker threads. Needs C++20.
//
//   using namespace kiln;
//   data::Loader loader(data::open("x=@images-idx3-ubyte.gz y=@labels-idx1-ubyte.gz"), {.batch = 64, .seed = 1});
//   for (int64_t epoch = 0; epoch < 3; ++epoch) {
//     loader.start(epoch);
//     while (const data::Batch *batch = loader.next()) {
//       batch->bind(step);   // a kiln::runtime::Context of the entry `train_step`
//       step.run();
//     }
//   }
//
// Which examples a batch holds, their order and what augmentation does to them follow from the seed, the epoch and the example
// alone: they are the same for any number of workers, and an epoch can be entered in its middle.
//
// Functions whose names begin with try_ say what is wrong in `error` (with the file, the line and what to do) and throw nothing;
// those without throw kiln::data::DataError. Datasets may be used from several threads at once, a Loader from one at a time.
#pragma once

#include <kiln/kiln.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#define KILN_DATA_API __attribute__((visibility("default")))

namespace kiln::data {

class KILN_DATA_API DataError : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

// A size that is another one in each example; dims[0] of a field can have it.
inline constexpr int64_t kVaries = -1;

struct Field {
  std::string name;
  uint32_t dtype = KILN_F32;        // KILN_F32, KILN_I64, KILN_U8, ...
  std::vector<int64_t> dims{};      // of one example
  double pad = 0;                   // what follows an example that is shorter than its batch
  std::vector<std::string> names{}; // what its integers stand for: classes, tokens; empty where nothing
};

// Derive from it to bring data of your own.
class KILN_DATA_API Dataset {
public:
  virtual ~Dataset();
  virtual int64_t size() const = 0;
  virtual const std::vector<Field> &fields() const = 0;
  // What dims[0] is in this example, for the fields where it varies.
  virtual int64_t length(int64_t index) const;
  // Writes the elements of each field of example `index`, dense and row-major, to out[field]. `draw` is the same for the same seed,
  // epoch and index, for augmentation. False where it fails, and why in `error`. Called from several threads at once.
  virtual bool get(int64_t index, uint64_t draw, std::span<std::byte *const> out, std::string &error) const = 0;
};
using DatasetPtr = std::shared_ptr<const Dataset>;

// Data from files. `text` is a source and words with options, separated by spaces ("..." keeps spaces):
//
//   x=@images.npy y=@labels.npz          arrays whose axis 0 counts examples: .npy, .npz, IDX (.gz too)
//   data.npz                             all of its arrays
//   iris.csv x=0-3 y=species             columns by number (from 0) or name; text becomes classes
//   airline.csv x=passengers y=passengers window=12    x: 12 rows, y: the row after them
//   shakespeare.txt window=64            x: 64 characters, y: the characters after each
//   lines:names.txt                      x: a line of characters after a newline, y: the next of each
//   photos size=64x64                    a folder of PNG and JPEG in a folder for each class: x: u8[3, 64, 64], y: i64
//
// docs/commands.md lists all options.
KILN_DATA_API DatasetPtr try_open(const std::string &text, std::string &error);

// What happens to a field on its way into a batch, in this order: flip and crop, conversion (bytes that become floats are divided by
// 255), (x - mean) / std, another shape of as many elements.
struct Transform {
  std::string field;
  uint32_t dtype = 0;            // 0: as it is
  std::vector<int64_t> dims{};   // none: as they are
  bool reshape = false;          // takes `dims`
  std::vector<double> mean{}, std{}; // one for all, or one for each channel (axis 0 of three) or column (the last axis)
  bool flip = false;             // left and right, in half of the draws; pictures are [H, W] or [C, H, W]
  int64_t crop = 0;              // shifts by up to so many pixels either way; zeros come in
};
KILN_DATA_API DatasetPtr try_transformed(DatasetPtr dataset, std::vector<Transform> transforms, std::string &error);

// Mean and standard deviation of a field for each channel or column, of bytes as they are after the division by 255; of 10,000 examples,
// evenly spread, where there are more.
struct Statistics {
  std::vector<double> mean, std;
};
KILN_DATA_API bool try_statistics(const Dataset &dataset, const std::string &field, Statistics &out, std::string &error);

// Fields of several datasets of the same size side by side.
KILN_DATA_API DatasetPtr try_zip(std::vector<DatasetPtr> datasets, std::string &error);
// Some examples of a dataset, by index.
KILN_DATA_API DatasetPtr subset(DatasetPtr dataset, std::vector<int64_t> indices);
// Two parts, the second with `fraction` of the examples, drawn by the seed or the last ones.
struct Split {
  DatasetPtr first, second;
};
KILN_DATA_API Split split(DatasetPtr dataset, double fraction, uint64_t seed, bool last = false);

// A field of a batch: [count, dims...], dense and row-major, 64-byte aligned.
struct Array {
  std::string name;
  uint32_t dtype = KILN_F32;
  std::vector<int64_t> dims;
  std::unique_ptr<std::byte[], void (*)(std::byte *)> memory{nullptr, nullptr};
  uint64_t size = 0; // in bytes

  template <typename T>
  std::span<const T> values() const {
    return {reinterpret_cast<const T *>(memory.get()), size / sizeof(T)};
  }
  // For bind_input; `dims` are the array's.
  KilnTensor tensor() const { return {memory.get(), size, dtype, uint32_t(dims.size()), dims.data()}; }
};

struct Batch {
  std::vector<Array> fields;
  std::vector<int64_t> lengths; // of the examples, where dims[0] of a field varies
  int64_t count = 0;

  // Gives a kiln::runtime::Context the fields that its entry has as inputs.
  template <typename Context>
  void bind(Context &context) const;
};

struct LoaderOptions {
  int64_t batch = 32;
  bool shuffle = true;
  bool drop_last = true; // leaves out batches that are not full
  uint64_t seed = 0;
  int workers = 1;  // threads that make batches; 0 makes them in next()
  int prefetch = 4; // batches made ahead
  // For examples of varying length, ascending: a batch holds examples of one bucket, the least that takes them, and is as long as that.
  // Without buckets a batch takes what comes, and is as long as its longest example.
  std::vector<int64_t> buckets{};
};

class KILN_DATA_API Loader {
public:
  // Throws where the options do not fit the dataset.
  Loader(DatasetPtr dataset, const LoaderOptions &options);
  static std::unique_ptr<Loader> try_make(DatasetPtr dataset, const LoaderOptions &options, std::string &error);
  ~Loader();
  Loader(Loader &&) noexcept;

  const Dataset &dataset() const;
  int64_t batches() const; // of an epoch; the same for all
  // Begins an epoch, at its batch `from`.
  void start(int64_t epoch, int64_t from = 0);
  // The next batch, which stays as it is until the call after; null at the end of the epoch, or where `error` says why.
  const Batch *try_next(std::string &error);
  const Batch *next() {
    std::string error;
    const Batch *batch = try_next(error);
    return error.empty() ? batch : throw DataError(error);
  }
  // What start() takes to go on with the batch that would come next: save it with a checkpoint.
  struct Position {
    int64_t epoch = 0, batch = 0;
  };
  Position position() const;
  // The examples of an epoch's batches in order.
  std::vector<std::vector<int64_t>> order(int64_t epoch) const;

private:
  struct State;
  explicit Loader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// 64 random bits of a key and a counter (splitmix64, Steele et al. 2014).
KILN_DATA_API uint64_t mix_bits(uint64_t key, uint64_t counter);

inline DatasetPtr open(const std::string &text) {
  std::string error;
  DatasetPtr out = try_open(text, error);
  return out ? out : throw DataError(error);
}
inline DatasetPtr transformed(DatasetPtr dataset, std::vector<Transform> transforms) {
  std::string error;
  DatasetPtr out = try_transformed(std::move(dataset), std::move(transforms), error);
  return out ? out : throw DataError(error);
}

template <typename Context>
void Batch::bind(Context &context) const {
  for (const Array &field : fields)
    switch (field.dtype) {
    case KILN_F64: context.input(field.name, field.values<double>(), field.dims); break;
    case KILN_F32: context.input(field.name, field.values<float>(), field.dims); break;
    case KILN_I64: context.input(field.name, field.values<int64_t>(), field.dims); break;
    case KILN_I32: context.input(field.name, field.values<int32_t>(), field.dims); break;
    case KILN_I16: context.input(field.name, field.values<int16_t>(), field.dims); break;
    case KILN_I8: context.input(field.name, field.values<int8_t>(), field.dims); break;
    case KILN_U64: context.input(field.name, field.values<uint64_t>(), field.dims); break;
    case KILN_U32: context.input(field.name, field.values<uint32_t>(), field.dims); break;
    case KILN_U16: context.input(field.name, field.values<uint16_t>(), field.dims); break;
    case KILN_U8: context.input(field.name, field.values<uint8_t>(), field.dims); break;
    case KILN_BOOL: context.input(field.name, field.values<bool>(), field.dims); break;
    default: throw DataError("the field '" + field.name + "' has a dtype that C++ has no type for; bind it with kiln_get_api()");
    }
}

} // namespace kiln::data
