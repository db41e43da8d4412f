// A package's training entries over one block of variables: what `kiln train` does with the runtime, without its command
// line. Checkpoints hold all variables and where the run stands, and are written whole or not at all.
#pragma once

#include "ir/tensor.h"

#include <kiln/kiln.hpp>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kiln {

// Where a run stands: the next batch of an epoch.
struct Position {
  int64_t epoch = 0, batch = 0, step = 0;
};

class TrainEntry {
public:
  // `batch` is the value of the entry's symbolic dim, where it has one.
  static Result<TrainEntry> open(const runtime::Module &module, const std::string &name, runtime::Variables &variables,
                                 const KilnExecutor *executor, int64_t batch);
  struct Input {
    std::string name;
    DType dtype;
    std::vector<int64_t> dims; // with the batch first
  };
  const std::vector<Input> &inputs() const { return inputs_; }
  const std::vector<std::string> &output_names() const { return output_names_; }
  // Inputs in the entry's order; they are read during the call.
  Status run(const std::vector<const Tensor *> &inputs);
  // Outputs of the last run that are one number; NaN for others.
  std::vector<double> numbers() const;

private:
  TrainEntry(runtime::Context context) : context_(std::move(context)) {}
  runtime::Context context_;
  std::vector<Input> inputs_;
  std::vector<std::string> output_names_;
  std::vector<Tensor> outputs_;
};

// All variables, by name.
Result<std::vector<std::pair<std::string, Tensor>>> read_variables(const runtime::Module &module, const runtime::Variables &variables);

Status write_checkpoint(const std::string &path, const runtime::Module &module, const runtime::Variables &variables,
                        const Position &position, const std::map<std::string, std::string> &metadata);
// Changes nothing unless all of the model's variables are there with their types. `metadata` says what the run was started
// with; a checkpoint that says otherwise is refused.
Result<Position> read_checkpoint(const std::string &path, const runtime::Module &module, runtime::Variables &variables,
                                 const std::map<std::string, std::string> &metadata);

} // namespace kiln
