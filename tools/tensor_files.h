// Files of tensors that are not .npy: pictures in, and pictures, charts and tables out, by their endings.
#pragma once

#include "ir/support/result.h"
#include "ir/tensor.h"
#include "tools/session.h"

#include <string>
#include <vector>

namespace kiln {

// .png, .jpg, .jpeg; FILE.csv:COLUMN; an IDX file.
bool is_picture(const std::string &path);
bool is_data_file(const std::string &path);
// A picture as below, a column of a CSV file for f32[N], or as many of an IDX file's arrays as the input takes, bytes as 0 to 1.
Result<Tensor> read_data_for(const Session &session, const std::string &input, const std::string &path);
// A PNG or JPEG file for that input, f32[3, H, W] or f32[1, 3, H, W] from 0 to 1, or u8; one channel is grey. Sizes that the input fixes are those
// it is brought to.
Result<Tensor> read_picture_for(const Session &session, const std::string &input, const std::string &path);
// .png, .svg (a chart), .csv, and .npy for all else.
Status write_tensor(const std::string &path, const std::string &name, const Tensor &tensor, bool text);

// An autoregressive run: the outputs of a step go to inputs of the next, the states stay.
struct FeedOptions {
  std::vector<std::string> feeds; // OUTPUT=INPUT
  std::string prompt;             // what the input is given first: characters of the data's alphabet
  int64_t repeat = 1;
};
// Prints the first output that is fed as text where the package knows what its numbers stand for, as numbers otherwise.
Status run_fed(Session &session, const FeedOptions &options);

} // namespace kiln
