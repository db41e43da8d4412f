// CSV files (RFC 4180): cells with their lines. Quoted cells may hold separators, line ends and doubled quotes; lines may end in CR LF.
#pragma once

#include "ir/support/result.h"

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kiln::data {

struct Csv {
  std::vector<std::string> header;                 // empty where there is none
  std::vector<std::vector<std::string_view>> rows; // each as long as the first
  std::vector<int64_t> lines;                      // where a row begins, from 1
  std::deque<std::string> unquoted;                // what views of quoted cells point to
};
struct CsvOptions {
  char separator = 0;         // 0: the one of , ; tab that the first line has most of
  std::optional<bool> header; // nothing: there is one where no cell of the first line is a number
};
// `text` must outlive the result. Errors begin with the line.
Result<Csv> parse_csv(std::string_view text, const CsvOptions &options);
// Nothing where the cell, without spaces around it, is no finite number.
std::optional<double> csv_number(std::string_view cell);

} // namespace kiln::data
