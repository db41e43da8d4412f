#include "frontend/onnx/regex_dfa.h"

#include "frontend/onnx/regex_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace kiln::onnx {
namespace {

constexpr size_t kMaxStates = 4096;
constexpr size_t kMaxWork = 64'000'000; // places looked at, over all states and kinds of bytes

// What stands before or after a place.
enum class Edge : uint8_t { text_end, word, newline, other };

bool is_word(int byte) {
  return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || byte == '_';
}

Edge edge_of(int byte) { return is_word(byte) ? Edge::word : byte == '\n' ? Edge::newline : Edge::other; }

bool holds(RegexAssertion what, Edge before, Edge after) {
  bool boundary = (before == Edge::word) != (after == Edge::word);
  switch (what) {
  case RegexAssertion::none:
    return true;
  case RegexAssertion::text_start:
    return before == Edge::text_end;
  case RegexAssertion::text_end:
    return after == Edge::text_end;
  case RegexAssertion::line_start:
    return before == Edge::text_end || before == Edge::newline;
  case RegexAssertion::line_end:
    return after == Edge::text_end || after == Edge::newline;
  case RegexAssertion::boundary:
    return boundary;
  default:
    return !boundary;
  }
}

struct State {
  std::vector<int> places; // sorted
  Edge before;
  friend auto operator<=>(const State &, const State &) = default;
};

class Builder {
public:
  explicit Builder(const RegexProgram &program) : program_(program), seen_(program.size()) {}

  Result<RegexDfa> build() {
    find_kinds();
    if (auto start = state({{0}, Edge::text_end}); !start)
      return start.error();
    for (size_t i = 0; i < states_.size(); ++i) {
      State from = states_[i];
      out_.accepts.push_back(reaches_end(from));
      for (int k = 0; k < out_.kinds; ++k) {
        std::vector<int> places;
        for (int place : closure(from, edge_of(sample_[size_t(k)])))
          if (const RegexStep &step = program_[size_t(place)];
              step.kind == RegexStep::Kind::bytes && step.bytes[size_t(sample_[size_t(k)])])
            places.push_back(step.next);
        std::sort(places.begin(), places.end());
        places.erase(std::unique(places.begin(), places.end()), places.end());
        // What can never match again is one state, whatever stands before it.
        Edge before = places.empty() ? Edge::other : edge_of(sample_[size_t(k)]);
        KILN_TRY(to, state({std::move(places), before}));
        out_.next.push_back(to);
      }
      if (work_ > kMaxWork)
        return Error{"the expression is too large to be compiled"};
    }
    return std::move(out_);
  }

private:
  // Bytes that every step and every assertion treat alike.
  void find_kinds() {
    std::map<std::vector<bool>, int> kinds;
    for (int byte = 0; byte < 256; ++byte) {
      std::vector<bool> profile = {is_word(byte), byte == '\n'};
      for (const RegexStep &step : program_)
        if (step.kind == RegexStep::Kind::bytes)
          profile.push_back(step.bytes[size_t(byte)]);
      auto [it, fresh] = kinds.emplace(std::move(profile), out_.kinds);
      if (fresh) {
        sample_.push_back(byte);
        ++out_.kinds;
      }
      out_.kind[size_t(byte)] = uint8_t(it->second);
    }
  }

  Result<int32_t> state(State s) {
    auto [it, fresh] = numbers_.emplace(s, int32_t(states_.size()));
    if (fresh) {
      if (states_.size() >= kMaxStates)
        return Error{fmt::format("the expression needs an automaton of more than {} states", kMaxStates)};
      states_.push_back(std::move(s));
    }
    return it->second;
  }

  // The places reached without a byte, where `after` stands behind them.
  const std::vector<int> &closure(const State &from, Edge after) {
    reached_.clear();
    std::fill(seen_.begin(), seen_.end(), false);
    std::vector<int> open = from.places;
    while (!open.empty()) {
      int place = open.back();
      open.pop_back();
      ++work_;
      if (seen_[size_t(place)])
        continue;
      seen_[size_t(place)] = true;
      reached_.push_back(place);
      const RegexStep &step = program_[size_t(place)];
      if (step.kind == RegexStep::Kind::split) {
        open.push_back(step.next);
        open.push_back(step.other);
      } else if (step.kind == RegexStep::Kind::assertion && holds(step.assertion, from.before, after)) {
        open.push_back(step.next);
      }
    }
    return reached_;
  }

  bool reaches_end(const State &from) {
    for (int place : closure(from, Edge::text_end))
      if (program_[size_t(place)].kind == RegexStep::Kind::match)
        return true;
    return false;
  }

  const RegexProgram &program_;
  RegexDfa out_;
  std::vector<int> sample_; // a byte of each kind
  std::vector<State> states_;
  std::map<State, int32_t> numbers_;
  std::vector<bool> seen_;
  std::vector<int> reached_;
  size_t work_ = 0;
};

} // namespace

Result<RegexDfa> compile_regex(std::string_view pattern) {
  KILN_TRY(program, parse_regex(pattern));
  return Builder(program).build();
}

} // namespace kiln::onnx
