// A run of `kiln train`: a model, its data, and the way through the epochs. A run is a function of the model, the data and the seed:
// stopped anywhere and resumed, it ends with the same bits.
#pragma once

#include "tools/cli.h"
#include "tools/training_data.h"
#include "tools/training_log.h"

#include <chrono>

namespace kiln {

struct TrainOptions {
  ModelOptions model;
  DataOptions data;
  std::string step = "train_step", evaluate = "evaluate", checkpoint, log, report, output, level = "2", names_file;
  std::string monitor;                // "accuracy", "accuracy:max"
  std::vector<std::string> numbers;   // "lr=1e-3", for inputs without axes
  std::vector<int64_t> buckets;
  int64_t epochs = 1, batch = 0, checkpoint_every = 0, patience = 0;
  uint64_t seed = 0;
  std::string device; // cpu where empty, cuda:0, auto
  int threads = 1, workers = 1;
  bool resume = false, keep_order = false, keep_training = false, find_lr = false;
};

// Means of an entry's numbers over batches.
struct Means {
  std::vector<double> sums;
  double weight = 0;
  void add(const std::vector<double> &numbers, double count);
  std::vector<double> values() const;
  std::string text(const std::vector<std::string> &names) const;
};

class Training {
public:
  explicit Training(const TrainOptions &options) : options_(options) {}
  int run(); // the exit code

private:
  Status check_outputs();
  Status open_model();
  Status open_entries();
  Result<TrainEntry> open_entry(const EntryShape &shape, const data::DatasetPtr &dataset, int64_t batch);
  Status open_monitor();
  Status begin();
  Status initialise();
  void remove_temporaries() const;
  Status train();
  Status epoch();
  Status validate(bool &better);
  Status save(const std::string &name);
  Status write_names() const;
  Status find_lr();
  Status finish();
  Status write_package();
  Status write_report() const;
  bool stops_early() const;
  void progress(const Means &means, int64_t batch, int64_t batches, double seconds, bool last) const;
  std::map<std::string, std::string> identity() const;
  std::string file_in_checkpoint(const std::string &name) const { return options_.checkpoint + "/" + name + ".safetensors"; }

  const TrainOptions &options_;
  bool bad_usage_ = false;
  Opened opened_;
  Module source_; // the model before it was compiled, where it was
  std::optional<runtime::Module> module_;
  std::optional<runtime::Variables> variables_;
  std::optional<runtime::Pool> pool_;
  std::vector<std::pair<std::string, Tensor>> best_; // where there is no folder for checkpoints
  TrainData data_;
  data::DatasetPtr train_, validation_; // as the entries want them
  std::optional<TrainEntry> step_, evaluate_;
  std::unique_ptr<data::Loader> loader_;
  Position at_;
  size_t monitored_ = 0; // an output of evaluate
  bool monitor_most_ = false;
  TrainingLog log_;
};

// What is left of a module for inference: the values of its variables, and the functions that are not `dropped`. Nothing where that is
// none of those that are exported.
std::optional<Module> inference_module(Module module, const std::vector<std::pair<std::string, Tensor>> &values,
                                       const std::vector<std::string> &dropped);

} // namespace kiln
