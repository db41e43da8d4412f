// A package's training entries over one block of variables: what `kiln train` does with the runtime, without its command
// line. Checkpoints hold all variables and where the run stands, and are written whole or not at all.
#pragma once

#include "ir/tensor.h"

#include <kiln/data.hpp>
#include <kiln/kiln.hpp>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kiln {

// Where a run stands: the next batch of an epoch, and how its validation went so far.
struct Position {
  int64_t epoch = 0, batch = 0, step = 0;
  std::optional<double> best; // of what is monitored
  int64_t best_epoch = 0;
};

// What an entry takes and gives, before it is known how large its batches are.
struct EntryShape {
  struct Input {
    std::string name;
    DType dtype;
    std::vector<int64_t> dims;      // -1 where it is no number
    std::vector<int32_t> symbols;   // -1 where it is no symbol by itself
    std::vector<std::string> texts; // "N", "2*N", "28"
    std::string text() const;       // "x: f32[N, 28]"
  };
  std::string name;
  std::vector<Input> inputs;
  std::vector<std::string> outputs, symbols;
  int32_t batch_symbol = -1; // axis 0 of the inputs that have axes, where it is a symbol
  int64_t batch = 0;         // where it is a number
};
Result<EntryShape> entry_shape(const runtime::Module &module, const std::string &name);

class TrainEntry {
public:
  // `dims`: the largest values of the entry's symbols, in their order. `fields`: those of the batches that it will run on; inputs
  // without axes are none of them.
  static Result<TrainEntry> open(const runtime::Module &module, EntryShape shape, runtime::Variables &variables,
                                 const KilnExecutor *executor, const std::vector<int64_t> &dims, const std::vector<data::Field> &fields);
  const EntryShape &shape() const { return shape_; }
  // False where there is no such input.
  bool set_number(const std::string &input, double value);
  Status run(const data::Batch &batch);
  // The same in parts: while a step computes, the next batch may be bound and sent to the device. A batch stays as
  // it is until the step is started, on the processor until it is finished.
  Status bind(const data::Batch &batch);
  Status start();
  Status send();
  Status finish();
  // Outputs of the last run that are one number; NaN for others.
  std::vector<double> numbers() const;

private:
  TrainEntry(runtime::Context context) : context_(std::move(context)) {}
  EntryShape shape_;
  runtime::Context context_;
  std::vector<int> field_of_;                 // of each input; -1 for numbers
  std::vector<std::pair<int, int>> dim_from_; // of each symbol: a field of the batch, and an axis of it
  std::vector<int64_t> dims_;
  std::vector<Tensor> numbers_;
  std::vector<Tensor> outputs_;
  bool bound_ = false;
};

// `init(seed)`, where the model has it.
Status run_init(const runtime::Module &module, runtime::Variables &variables, uint64_t seed);

// All variables, by name.
Result<std::vector<std::pair<std::string, Tensor>>> read_variables(const runtime::Module &module, const runtime::Variables &variables);

Status write_checkpoint(const std::string &path, const runtime::Module &module, const runtime::Variables &variables,
                        const Position &position, const std::map<std::string, std::string> &metadata);
// Changes nothing unless all of the model's variables are there with their types. `metadata` says what the run was started
// with; a checkpoint that says otherwise is refused.
Result<Position> read_checkpoint(const std::string &path, const runtime::Module &module, runtime::Variables &variables,
                                 const std::map<std::string, std::string> &metadata);

} // namespace kiln
