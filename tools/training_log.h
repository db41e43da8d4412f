// What a run of `kiln train` leaves to read: a line of JSON for each step and validation, and a page with the curves.
#pragma once

#include "ir/support/result.h"

#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace kiln {

struct Curves {
  using Points = std::vector<std::pair<double, double>>; // step, value
  std::vector<std::pair<std::string, Points>> train, validation; // by name, in order
  void add(bool is_validation, const std::string &name, double step, double value);
};

// One page, without any reference outside itself. `log_x`: for learning rates.
std::string curves_page(const std::string &title, const std::vector<std::pair<std::string, std::string>> &facts, const Curves &curves,
                        const std::string &x_name = "step", bool log_x = false);

class TrainingLog {
public:
  // An empty path keeps no file. A run that goes on after `step` of `epoch` keeps the lines up to there; a line that a killed run
  // left unfinished goes.
  Status open(const std::string &path, bool resume, int64_t epoch, int64_t step);
  void step(int64_t epoch, int64_t step, const std::vector<std::string> &names, const std::vector<double> &values);
  void validation(int64_t epoch, int64_t step, const std::vector<std::string> &names, const std::vector<double> &values);
  const Curves &curves() const { return curves_; }

private:
  void write(bool is_validation, int64_t epoch, int64_t step, const std::vector<std::string> &names, const std::vector<double> &values);
  std::ofstream file_;
  Curves curves_;
};

} // namespace kiln
