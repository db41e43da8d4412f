#include "frontend/onnx/regex_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

namespace kiln::onnx {
namespace {

constexpr int kMaxDepth = 200;     // of groups
constexpr int kMaxRepeat = 1000;   // as RE2
constexpr size_t kMaxSteps = 50'000;
constexpr uint32_t kLast = 0x10ffff;

struct RegexError {
  std::string message;
};

using Ranges = std::vector<std::pair<uint32_t, uint32_t>>; // of characters

Ranges inverted(Ranges ranges) {
  std::sort(ranges.begin(), ranges.end());
  Ranges out;
  uint32_t from = 0;
  for (auto [lo, hi] : ranges) {
    if (lo > from)
      out.emplace_back(from, lo - 1);
    from = std::max(from, hi + 1);
  }
  if (from <= kLast)
    out.emplace_back(from, kLast);
  return out;
}

// A part of the program under construction, as a tree: repeats copy it.
struct Node {
  enum class Kind : uint8_t { empty, set, assertion, join, choice, repeat } kind = Kind::empty;
  Ranges ranges;
  RegexAssertion assertion = RegexAssertion::none;
  std::vector<std::unique_ptr<Node>> parts;
  int least = 0, most = -1; // of a repeat; -1: any number
};
using NodePtr = std::unique_ptr<Node>;

NodePtr make(Node::Kind kind) {
  auto out = std::make_unique<Node>();
  out->kind = kind;
  return out;
}

struct Flags {
  bool ignore_case = false, dot_newline = false, lines = false;
};

class Parser {
public:
  explicit Parser(std::string_view text) : text_(text) {}

  NodePtr parse() {
    NodePtr out = alternatives();
    if (at_ < text_.size())
      fail("a ')' without a '('");
    return out;
  }

private:
  [[noreturn]] void fail(std::string_view what) const {
    throw RegexError{fmt::format("at its character {}: {}", at_, what)};
  }
  bool more() const { return at_ < text_.size(); }
  bool peek(char c) const { return more() && text_[at_] == c; }
  bool eat(char c) {
    bool found = peek(c);
    at_ += found;
    return found;
  }
  bool eat(std::string_view word) {
    bool found = text_.substr(at_).starts_with(word);
    at_ += found ? word.size() : 0;
    return found;
  }

  NodePtr alternatives() {
    if (++depth_ > kMaxDepth)
      fail("groups are nested too deeply");
    Flags outer = flags_;
    NodePtr choice = make(Node::Kind::choice);
    do
      choice->parts.push_back(sequence());
    while (eat('|'));
    flags_ = outer;
    --depth_;
    return choice->parts.size() == 1 ? std::move(choice->parts[0]) : std::move(choice);
  }

  NodePtr sequence() {
    NodePtr out = make(Node::Kind::join);
    while (more() && !peek('|') && !peek(')')) {
      NodePtr one = atom();
      bool repeated = false;
      while (auto count = repeat()) {
        if (std::exchange(repeated, true))
          fail("a repeat of a repeat; put the inner one in a group");
        NodePtr many = make(Node::Kind::repeat);
        std::tie(many->least, many->most) = *count;
        many->parts.push_back(std::move(one));
        one = std::move(many);
      }
      out->parts.push_back(std::move(one));
    }
    return out;
  }

  std::optional<std::pair<int, int>> repeat() {
    std::optional<std::pair<int, int>> out;
    size_t start = at_;
    if (eat('*'))
      out = {0, -1};
    else if (eat('+'))
      out = {1, -1};
    else if (eat('?'))
      out = {0, 1};
    else if (eat('{')) {
      auto least = number();
      std::optional<int> most = least;
      bool open = least && eat(',');
      if (open)
        most = peek('}') ? std::optional<int>(-1) : number();
      if (!least || !most || !eat('}')) {
        at_ = start; // a brace that begins no repeat stands for itself
        return std::nullopt;
      }
      if (*most >= 0 && *most < *least)
        fail("a repeat whose bounds are the wrong way round");
      out = {*least, *most};
    }
    if (out)
      eat('?'); // lazy: the same text matches in full
    return out;
  }

  std::optional<int> number() {
    size_t start = at_;
    int out = 0;
    for (; more() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      if ((out = out * 10 + (text_[at_] - '0')) > kMaxRepeat)
        fail(fmt::format("a repeat of more than {} times", kMaxRepeat));
    return at_ == start ? std::nullopt : std::optional(out);
  }

  NodePtr assertion(RegexAssertion what) {
    NodePtr out = make(Node::Kind::assertion);
    out->assertion = what;
    return out;
  }

  NodePtr set(Ranges ranges, bool fold = true) {
    if (flags_.ignore_case && fold)
      for (size_t i = 0, n = ranges.size(); i < n; ++i)
        for (uint32_t c = 'A'; c <= 'Z'; ++c) {
          auto [lo, hi] = ranges[i];
          if (lo <= c && c <= hi)
            ranges.emplace_back(c + 32, c + 32);
          if (lo <= c + 32 && c + 32 <= hi)
            ranges.emplace_back(c, c);
        }
    NodePtr out = make(Node::Kind::set);
    out->ranges = std::move(ranges);
    return out;
  }

  NodePtr atom() {
    if (eat('('))
      return group();
    if (eat('['))
      return set(bracket(), false);
    if (eat('.'))
      return set(flags_.dot_newline ? Ranges{{0, kLast}} : inverted({{'\n', '\n'}}));
    if (eat('^'))
      return assertion(flags_.lines ? RegexAssertion::line_start : RegexAssertion::text_start);
    if (eat('$'))
      return assertion(flags_.lines ? RegexAssertion::line_end : RegexAssertion::text_end);
    if (peek('*') || peek('+') || peek('?'))
      fail("a repeat of nothing");
    if (!eat('\\'))
      return literal(character());
    if (eat('A'))
      return assertion(RegexAssertion::text_start);
    if (eat('z'))
      return assertion(RegexAssertion::text_end);
    if (eat('b'))
      return assertion(RegexAssertion::boundary);
    if (eat('B'))
      return assertion(RegexAssertion::no_boundary);
    if (eat('Q')) {
      NodePtr out = make(Node::Kind::join);
      while (more() && !eat("\\E"))
        out->parts.push_back(literal(character()));
      return out;
    }
    return set(escape());
  }

  NodePtr literal(uint32_t c) { return set({{c, c}}); }

  NodePtr group() {
    Flags outer = flags_;
    if (eat('?')) {
      if (eat("P<") || eat('<')) {
        while (more() && !peek('>'))
          ++at_;
        if (!eat('>'))
          fail("a group's name without an end");
      } else {
        bool on = true;
        while (more() && !peek(':') && !peek(')')) {
          if (eat('-'))
            on = false;
          else if (eat('i'))
            flags_.ignore_case = on;
          else if (eat('s'))
            flags_.dot_newline = on;
          else if (eat('m'))
            flags_.lines = on;
          else if (!eat('U'))
            fail("a group that RE2 does not have");
        }
        if (eat(')'))
          return make(Node::Kind::empty); // flags for what follows in the group
        eat(':');
      }
    }
    NodePtr out = alternatives();
    flags_ = outer;
    if (!eat(')'))
      fail("a '(' without a ')'");
    return out;
  }

  // One character of UTF-8.
  uint32_t character() {
    uint8_t first = uint8_t(text_[at_++]);
    int rest = first < 0x80 ? 0 : first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : first >= 0xc2 ? 1 : -1;
    if (rest < 0 || at_ + size_t(rest) > text_.size())
      fail("a byte that is no UTF-8");
    uint32_t c = rest == 0 ? first : first & (0x3fu >> rest);
    for (; rest > 0; --rest) {
      uint8_t byte = uint8_t(text_[at_++]);
      if ((byte & 0xc0) != 0x80)
        fail("a byte that is no UTF-8");
      c = c << 6 | (byte & 0x3f);
    }
    return c;
  }

  // After a backslash: a class, or one character.
  Ranges escape() {
    if (!more())
      fail("a backslash at the end");
    const Ranges digits = {{'0', '9'}}, words = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                 spaces = {{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}};
    char c = text_[at_++];
    auto one = [](uint32_t v) { return Ranges{{v, v}}; };
    switch (c) {
    case 'd':
      return digits;
    case 'D':
      return inverted(digits);
    case 'w':
      return words;
    case 'W':
      return inverted(words);
    case 's':
      return spaces;
    case 'S':
      return inverted(spaces);
    case 'a':
      return one(7);
    case 'f':
      return one('\f');
    case 'n':
      return one('\n');
    case 'r':
      return one('\r');
    case 't':
      return one('\t');
    case 'v':
      return one('\v');
    case 'x':
      return one(hexadecimal());
    case '0':
      return one(0);
    case 'p':
    case 'P':
      fail("classes of Unicode (\\p) are not supported; write the ranges of characters");
    default:
      if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9'))
        fail(fmt::format("the escape \\{} is not supported", c));
      --at_;
      return one(character());
    }
  }

  uint32_t hexadecimal() {
    bool braces = eat('{');
    uint32_t out = 0;
    int digits = 0;
    for (; more() && digits < (braces ? 8 : 2); ++digits, ++at_) {
      char c = char(text_[at_] | 0x20);
      bool digit = text_[at_] >= '0' && text_[at_] <= '9', letter = c >= 'a' && c <= 'f';
      if (!digit && !letter)
        break;
      out = out * 16 + uint32_t(digit ? text_[at_] - '0' : c - 'a' + 10);
    }
    if (digits == 0 || (!braces && digits != 2) || (braces && !eat('}')) || out > kLast)
      fail("a \\x without the digits of a character");
    return out;
  }

  Ranges bracket() {
    bool negated = eat('^');
    Ranges out;
    for (bool first = true; first || !peek(']'); first = false) {
      if (!more())
        fail("a '[' without a ']'");
      if (eat("[:")) {
        add_named(out);
        continue;
      }
      Ranges one = range_end();
      bool single = one.size() == 1 && one[0].first == one[0].second;
      if (peek('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        Ranges last = range_end();
        if (!single || last.size() != 1 || last[0].first != last[0].second || last[0].first < one[0].first)
          fail("a range of characters that is none");
        one[0].second = last[0].first;
      }
      out.insert(out.end(), one.begin(), one.end());
    }
    eat(']');
    if (flags_.ignore_case)
      out = set(std::move(out))->ranges;
    return negated ? inverted(std::move(out)) : out;
  }

  Ranges range_end() {
    if (!more())
      fail("a '[' without a ']'");
    if (eat('\\'))
      return escape();
    uint32_t c = character();
    return {{c, c}};
  }

  void add_named(Ranges &out) {
    const std::pair<std::string_view, Ranges> kNames[] = {
        {"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}}, {"alpha", {{'A', 'Z'}, {'a', 'z'}}}, {"ascii", {{0, 127}}},
        {"blank", {{'\t', '\t'}, {' ', ' '}}}, {"cntrl", {{0, 31}, {127, 127}}}, {"digit", {{'0', '9'}}},
        {"graph", {{33, 126}}}, {"lower", {{'a', 'z'}}}, {"print", {{32, 126}}},
        {"punct", {{33, 47}, {58, 64}, {91, 96}, {123, 126}}}, {"space", {{'\t', '\r'}, {' ', ' '}}},
        {"upper", {{'A', 'Z'}}}, {"word", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
        {"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}}};
    bool negated = eat('^');
    for (const auto &[name, ranges] : kNames)
      if (eat(name)) {
        if (!eat(":]"))
          break;
        Ranges add = negated ? inverted(ranges) : ranges;
        out.insert(out.end(), add.begin(), add.end());
        return;
      }
    fail("a class of characters that there is not");
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  Flags flags_;
};

// Steps from the end to the start: each part knows what follows it.
class Writer {
public:
  RegexProgram write(const Node &root) {
    steps_.emplace_back(); // 0: leads to the first
    int match = add({});
    int first = write(root, match);
    steps_[0].kind = RegexStep::Kind::split;
    steps_[0].next = steps_[0].other = first;
    return std::move(steps_);
  }

private:
  int add(RegexStep step) {
    if (steps_.size() >= kMaxSteps)
      throw RegexError{"it is too long, repeats written out"};
    steps_.push_back(std::move(step));
    return int(steps_.size()) - 1;
  }
  int split(int next, int other) {
    RegexStep step;
    step.kind = RegexStep::Kind::split;
    step.next = next;
    step.other = other;
    return add(std::move(step));
  }
  int bytes(uint32_t lo, uint32_t hi, int next) {
    RegexStep step;
    step.kind = RegexStep::Kind::bytes;
    for (uint32_t b = lo; b <= hi; ++b)
      step.bytes.set(b);
    step.next = next;
    return add(std::move(step));
  }

  int write(const Node &node, int next) {
    if (++parts_ > kMaxSteps) // repeats of nothing make no steps
      throw RegexError{"it is too long, repeats written out"};
    switch (node.kind) {
    case Node::Kind::empty:
      return next;
    case Node::Kind::assertion: {
      RegexStep step;
      step.kind = RegexStep::Kind::assertion;
      step.assertion = node.assertion;
      step.next = next;
      return add(std::move(step));
    }
    case Node::Kind::join:
      for (size_t i = node.parts.size(); i-- > 0;)
        next = write(*node.parts[i], next);
      return next;
    case Node::Kind::choice: {
      int out = write(*node.parts.back(), next);
      for (size_t i = node.parts.size() - 1; i-- > 0;)
        out = split(write(*node.parts[i], next), out);
      return out;
    }
    case Node::Kind::repeat: {
      int out = next;
      if (node.most < 0) {
        out = split(-1, next); // back here after each
        steps_[size_t(out)].next = write(*node.parts[0], out);
      }
      for (int i = node.least; i < node.most; ++i)
        out = split(write(*node.parts[0], out), next);
      for (int i = 0; i < node.least; ++i)
        out = write(*node.parts[0], out);
      return out;
    }
    case Node::Kind::set:
      return write_set(node.ranges, next);
    }
    return next;
  }

  int write_set(const Ranges &ranges, int next) {
    std::vector<int> choices;
    RegexStep ascii;
    ascii.kind = RegexStep::Kind::bytes;
    ascii.next = next;
    for (auto [lo, hi] : ranges) {
      for (uint32_t c = lo; c <= std::min(hi, 0x7fu); ++c)
        ascii.bytes.set(c);
      // Characters of as many bytes, surrogates left out.
      for (auto [first, last, count] : {std::tuple(0x80u, 0x7ffu, 2), std::tuple(0x800u, 0xd7ffu, 3),
                                        std::tuple(0xe000u, 0xffffu, 3), std::tuple(0x10000u, kLast, 4)})
        if (std::max(lo, first) <= std::min(hi, last))
          write_range(std::max(lo, first), std::min(hi, last), count, next, choices);
    }
    if (ascii.bytes.any())
      choices.push_back(add(ascii));
    if (choices.empty()) {
      RegexStep never;
      never.kind = RegexStep::Kind::fail;
      return add(never);
    }
    int out = choices[0];
    for (size_t i = 1; i < choices.size(); ++i)
      out = split(choices[i], out);
    return out;
  }

  // The characters lo to hi of `count` bytes each, as sequences of ranges of bytes.
  void write_range(uint32_t lo, uint32_t hi, int count, int next, std::vector<int> &choices) {
    for (int tail = 1; tail < count; ++tail) {
      uint32_t low = (1u << 6 * tail) - 1;
      if ((lo & ~low) == (hi & ~low))
        continue;
      if ((lo & low) != 0) {
        write_range(lo, lo | low, count, next, choices);
        write_range((lo | low) + 1, hi, count, next, choices);
        return;
      }
      if ((hi & low) != low) {
        write_range(lo, (hi & ~low) - 1, count, next, choices);
        write_range(hi & ~low, hi, count, next, choices);
        return;
      }
    }
    int out = next;
    for (int tail = 0; tail + 1 < count; ++tail)
      out = bytes(0x80 | (lo >> 6 * tail & 0x3f), 0x80 | (hi >> 6 * tail & 0x3f), out);
    uint32_t mark = 0xf00u >> count & 0xff;
    choices.push_back(bytes(mark | lo >> 6 * (count - 1), mark | hi >> 6 * (count - 1), out));
  }

  RegexProgram steps_;
  size_t parts_ = 0;
};

} // namespace

Result<RegexProgram> parse_regex(std::string_view pattern) {
  try {
    NodePtr tree = Parser(pattern).parse();
    return Writer().write(*tree);
  } catch (const RegexError &e) {
    return Error{e.message};
  }
}

} // namespace kiln::onnx
