// The learning-rate finder (Smith 2017, "Cyclical learning rates"): steps at rates that grow from 1e-7 to 10, until the loss explodes. The
// rate is an input `lr` of the training entry; what the steps change is thrown away.
#include "tools/training.h"

#include "frontend/files/file_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>

namespace kiln {

Status Training::find_lr() {
  constexpr int kSteps = 160;
  constexpr double kFirst = 1e-7, kLast = 10;
  if (!step_->set_number("lr", kFirst))
    return Error{fmt::format("--find-lr: '{}' has no input `lr: f32[]`; add it, and give it to opt.step(..., lr=lr)", options_.step)};
  KILN_RETURN_IF_ERROR(initialise());
  std::vector<double> rates, losses;
  double mean = 0, least = INFINITY;
  std::string error;
  loader_->start(0);
  for (int i = 0; i < kSteps; ++i) {
    const data::Batch *batch = loader_->try_next(error);
    if (!batch && error.empty()) {
      loader_->start(loader_->position().epoch + 1);
      batch = loader_->try_next(error);
    }
    if (!batch)
      return Error{error};
    rates.push_back(kFirst * std::pow(kLast / kFirst, double(i) / (kSteps - 1)));
    step_->set_number("lr", rates.back());
    KILN_RETURN_IF_ERROR(step_->run(*batch));
    losses.push_back(step_->numbers().at(0));
    mean = i == 0 ? losses[0] : 0.8 * mean + 0.2 * losses.back();
    least = std::min(least, mean);
    if (!std::isfinite(mean) || (i > 20 && mean > 2 * std::abs(least) + least))
      break;
  }
  // Batches differ more than neighbouring rates: means of 15 steps, and a fall that is more than what they scatter by before it.
  while (!losses.empty() && !std::isfinite(losses.back()))
    losses.pop_back();
  Curves curves;
  std::vector<double> smooth;
  for (size_t i = 0; i < losses.size(); ++i) {
    size_t begin = i > 7 ? i - 7 : 0, end = std::min(losses.size(), i + 8);
    double sum = 0;
    for (size_t k = begin; k < end; ++k)
      sum += losses[k];
    smooth.push_back(sum / double(end - begin));
    curves.add(false, step_->shape().outputs[0], rates[i], smooth.back());
  }
  constexpr size_t kQuiet = 40; // rates below 1e-5, that change nothing
  if (smooth.size() < kQuiet + 10)
    return Error{"--find-lr: the loss explodes at the smallest rates; look at the model and the data"};
  auto [low, high] = std::minmax_element(smooth.begin(), smooth.begin() + kQuiet);
  auto best = size_t(std::min_element(smooth.begin(), smooth.end()) - smooth.begin());
  double begins = (*low + *high) / 2;
  if (smooth[best] > *low - 0.5 * (*high - *low))
    return Error{"--find-lr: the loss falls at no rate; look at the model and the data"};
  size_t half = best;
  while (half > 0 && smooth[half - 1] < (begins + smooth[best]) / 2)
    --half;
  if (options_.model.json)
    std::cout << fmt::format("{{\"lr\": {:.3g}, \"least\": {:.3g}, \"steps\": {}}}\n", rates[half], rates[best], losses.size());
  else
    std::cout << fmt::format("the loss is half way down at a rate of {:.2g} and least at {:.2g}: try --set lr={:.2g}\n", rates[half], rates[best], rates[half]);
  if (options_.report.empty())
    return Unit{};
  return write_file(options_.report, curves_page("Learning rates of " + std::filesystem::path(options_.model.path).stem().string(),
                                                 {{"half way down at", fmt::format("{:.3g}", rates[half])}, {"least at", fmt::format("{:.3g}", rates[best])}},
                                                 curves, "learning rate", true));
}

} // namespace kiln
