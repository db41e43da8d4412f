// The data of `kiln train`: files by input name, brought into the form that the model's inputs have.
#pragma once

#include "frontend/data/loader.h"
#include "tools/trainer.h"

namespace kiln {

// "x=@images.npy", "x=@all.npz", "y=@labels-idx1-ubyte.gz": an array whose axis 0 counts examples.
Result<std::pair<std::string, Tensor>> read_data(const std::string &text);

// Arrays as an entry's inputs want them, one for each: integers become floats where a float is wanted (bytes are divided by
// 255, as images are), then (x - mean) / std where `normalise` says so; examples are reshaped where the number of their
// elements fits.
struct Normalise {
  std::string name;
  double mean = 0, std = 1;
};
Result<Normalise> parse_normalise(const std::string &text); // "x=0.1307,0.3081"
Result<std::vector<std::pair<std::string, Tensor>>> fit_data(std::vector<std::pair<std::string, Tensor>> arrays,
                                                             const std::vector<TrainEntry::Input> &inputs,
                                                             const std::vector<Normalise> &normalise);

} // namespace kiln
