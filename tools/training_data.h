// The data of `kiln train`: what --data and its companions say, as datasets in the form that an entry's inputs have.
#pragma once

#include "tools/trainer.h"

#include <map>

namespace CLI {
class App;
}

namespace kiln {

struct DataOptions {
  std::vector<std::string> data, validation; // sources, as in data::try_open
  std::string split;                         // "0.2" or "last:0.2"
  std::vector<std::string> normalise;        // "x=0.1307,0.3081", "x=auto"
  std::vector<std::string> augment;          // "x=flip,crop:4"
  uint64_t seed = 0;

  void add_to(CLI::App &verb);
};

struct TrainData {
  data::DatasetPtr train, validation; // as they come; validation may be null
  struct Input {
    std::vector<double> mean, std;
    bool flip = false;
    int64_t crop = 0;
  };
  std::map<std::string, Input> inputs; // what is done to them
  std::vector<std::string> named;      // fields that the sources name by hand, which an entry must have
};
Result<TrainData> open_data(const DataOptions &options);

// The fields as the entry's inputs want them. Fields that it has no input for are an error where they were named by hand.
// `augment`: also what is for training alone.
Result<data::DatasetPtr> fit_data(const data::DatasetPtr &dataset, const TrainData &data, const EntryShape &entry, bool augment);

// The largest values of an entry's symbols: the batch, and lengths that follow from the data.
Result<std::vector<int64_t>> entry_dims(const EntryShape &entry, const std::vector<const data::Dataset *> &datasets, int64_t batch,
                                        const std::vector<int64_t> &buckets);

// "lr=1e-3"
Result<std::pair<std::string, double>> parse_setting(const std::string &text);

} // namespace kiln
