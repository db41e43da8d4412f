#include "frontend/data/csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace kiln::data {
namespace {

constexpr size_t kMostColumns = 1 << 16;

std::string_view trimmed(std::string_view cell) {
  while (!cell.empty() && (cell.front() == ' ' || cell.front() == '\t'))
    cell.remove_prefix(1);
  while (!cell.empty() && (cell.back() == ' ' || cell.back() == '\t'))
    cell.remove_suffix(1);
  return cell;
}

char guess_separator(std::string_view text) {
  std::string_view line = text.substr(0, text.find('\n'));
  char best = ',';
  for (char c : {',', ';', '\t'})
    if (std::count(line.begin(), line.end(), c) > std::count(line.begin(), line.end(), best))
      best = c;
  return best;
}

class Reader {
public:
  Reader(std::string_view text, char separator, Csv &out) : text_(text), separator_(separator), out_(out) {}
  bool at_end() const { return at_ >= text_.size(); }
  int64_t line() const { return line_; }

  Result<std::vector<std::string_view>> row() {
    std::vector<std::string_view> cells;
    while (true) {
      KILN_TRY(cell, this->cell());
      cells.push_back(cell);
      if (cells.size() > kMostColumns)
        return Error{fmt::format("{}: more than {} cells in a line", line_, kMostColumns)};
      if (at_ < text_.size() && text_[at_] == separator_) {
        ++at_;
        continue;
      }
      end_line();
      return cells;
    }
  }

private:
  void end_line() {
    if (at_ < text_.size() && text_[at_] == '\r')
      ++at_;
    if (at_ < text_.size() && text_[at_] == '\n')
      ++at_;
    ++line_;
  }
  bool at_line_end() const { return at_ >= text_.size() || text_[at_] == '\n' || (text_[at_] == '\r' && (at_ + 1 == text_.size() || text_[at_ + 1] == '\n')); }

  Result<std::string_view> cell() {
    size_t begin = at_;
    while (begin < text_.size() && text_[begin] == ' ')
      ++begin;
    if (begin < text_.size() && text_[begin] == '"') {
      at_ = begin + 1;
      return quoted();
    }
    begin = at_;
    while (!at_line_end() && text_[at_] != separator_) {
      if (text_[at_] == '\0')
        return Error{fmt::format("{}: a zero byte; this is no text", line_)};
      ++at_;
    }
    return trimmed(text_.substr(begin, at_ - begin));
  }

  Result<std::string_view> quoted() {
    int64_t began = line_;
    std::string value;
    while (true) {
      if (at_ >= text_.size())
        return Error{fmt::format("{}: a quote is not closed", began)};
      char c = text_[at_++];
      if (c == '\n')
        ++line_;
      if (c != '"') {
        value += c;
      } else if (at_ < text_.size() && text_[at_] == '"') {
        value += '"';
        ++at_;
      } else {
        break;
      }
    }
    while (at_ < text_.size() && text_[at_] == ' ')
      ++at_;
    if (!at_line_end() && text_[at_] != separator_)
      return Error{fmt::format("{}: text after a closing quote; a quote inside of quotes is written twice", line_)};
    return std::string_view(out_.unquoted.emplace_back(std::move(value)));
  }

  std::string_view text_;
  char separator_;
  Csv &out_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

} // namespace

std::optional<double> csv_number(std::string_view cell) {
  cell = trimmed(cell);
  if (cell.starts_with('+') && !cell.substr(1).starts_with('-'))
    cell.remove_prefix(1);
  double value = 0;
  auto [end, code] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (cell.empty() || code != std::errc() || end != cell.data() + cell.size() || !std::isfinite(value))
    return std::nullopt;
  return value;
}

Result<Csv> parse_csv(std::string_view text, const CsvOptions &options) {
  if (text.starts_with("\xEF\xBB\xBF"))
    text.remove_prefix(3);
  Csv out;
  Reader reader(text, options.separator ? options.separator : guess_separator(text), out);
  size_t width = 0;
  int64_t first_line = 0;
  while (!reader.at_end()) {
    int64_t line = reader.line();
    KILN_TRY(cells, reader.row());
    if (cells.size() == 1 && cells[0].empty())
      continue; // an empty line
    if (width == 0) {
      width = cells.size();
      first_line = line;
      bool numbers = std::any_of(cells.begin(), cells.end(), [](std::string_view c) { return csv_number(c).has_value(); });
      if (options.header.value_or(!numbers)) {
        out.header.assign(cells.begin(), cells.end());
        continue;
      }
    }
    if (cells.size() != width)
      return Error{fmt::format("{}: {} cells, but line {} has {}; a cell with a separator in it needs quotes", line, cells.size(), first_line, width)};
    out.rows.push_back(std::move(cells));
    out.lines.push_back(line);
  }
  if (out.rows.empty())
    return Error{"1: there are no lines of data"};
  return out;
}

} // namespace kiln::data
