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
  Curves curves;
  std::vector<std::pair<double, double>> smooth; // rate, loss
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
    double lr = kFirst * std::pow(kLast / kFirst, double(i) / (kSteps - 1));
    step_->set_number("lr", lr);
    KILN_RETURN_IF_ERROR(step_->run(*batch));
    double loss = step_->numbers().at(0);
    if (!std::isfinite(loss))
      break;
    mean = 0.9 * mean + 0.1 * loss;
    double value = mean / (1 - std::pow(0.9, i + 1));
    smooth.emplace_back(lr, value);
    curves.add(false, step_->shape().outputs[0], lr, value);
    least = std::min(least, value);
    if (i > 20 && value > 2 * std::abs(least) + least)
      break;
  }
  // Where it falls fastest over the logarithm of the rate, and a tenth of the rate with the least loss.
  size_t best = 0, steepest = 0;
  double fall = 0;
  for (size_t i = 0; i < smooth.size(); ++i) {
    if (smooth[i].second < smooth[best].second)
      best = i;
    if (i >= 10 && smooth[i - 10].second - smooth[i].second > fall) {
      fall = smooth[i - 10].second - smooth[i].second;
      steepest = i - 5;
    }
  }
  if (smooth.size() < 20 || fall <= 0)
    return Error{"--find-lr: the loss falls at no rate; look at the model and the data"};
  double suggestion = smooth[steepest].first, tenth = smooth[best].first / 10;
  if (options_.model.json)
    std::cout << fmt::format("{{\"steepest\": {:.3g}, \"least\": {:.3g}, \"steps\": {}}}\n", suggestion, smooth[best].first, smooth.size());
  else
    std::cout << fmt::format("the loss falls fastest at a rate of {:.2g} and is least at {:.2g}: try --set lr={:.2g} (a tenth of the latter is {:.2g})\n",
                             suggestion, smooth[best].first, suggestion, tenth);
  if (options_.report.empty())
    return Unit{};
  return write_file(options_.report, curves_page("Learning rates of " + std::filesystem::path(options_.model.path).stem().string(),
                                                 {{"falls fastest at", fmt::format("{:.3g}", suggestion)}, {"least at", fmt::format("{:.3g}", smooth[best].first)}},
                                                 curves, "learning rate", true));
}

} // namespace kiln
