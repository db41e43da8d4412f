// A recursive descent over the text; its depth is bounded, and all arithmetic is checked.
#include "runtime/dim_expression.h"

#include <cstring>

namespace kiln::rt {
namespace {

constexpr int32_t kMaxDepth = 64;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_name(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.';
}

// Floor division and the remainder that goes with it.
bool divide(int64_t a, int64_t b, int64_t *quotient, int64_t *remainder) {
  if (b == 0 || (a == INT64_MIN && b == -1))
    return false;
  *quotient = a / b;
  *remainder = a % b;
  if (*remainder != 0 && (*remainder < 0) != (b < 0)) {
    *quotient -= 1;
    *remainder += b;
  }
  return true;
}

class Evaluator {
public:
  Evaluator(const char *text, DimLookup lookup, const void *self)
      : at_(text), lookup_(lookup), self_(self) {}

  bool evaluate(int64_t *value) {
    *value = sum();
    skip();
    return is_fine_ && *at_ == 0;
  }

private:
  void skip() {
    while (*at_ == ' ')
      ++at_;
  }
  bool take(char c) {
    skip();
    if (*at_ != c)
      return false;
    ++at_;
    return true;
  }
  void expect(bool condition) { is_fine_ = is_fine_ && condition; }

  int64_t sum() {
    expect(++depth_ <= kMaxDepth);
    int64_t value = is_fine_ ? product() : 0;
    while (is_fine_) {
      if (take('+'))
        expect(!__builtin_add_overflow(value, product(), &value));
      else if (take('-'))
        expect(!__builtin_sub_overflow(value, product(), &value));
      else
        break;
    }
    --depth_;
    return value;
  }

  int64_t product() {
    int64_t value = atom(), quotient = 0, remainder = 0;
    while (is_fine_) {
      if (take('*')) {
        expect(!__builtin_mul_overflow(value, atom(), &value));
      } else if (take('/')) {
        expect(divide(value, atom(), &quotient, &remainder));
        value = quotient;
      } else if (take('%')) {
        expect(divide(value, atom(), &quotient, &remainder));
        value = remainder;
      } else {
        break;
      }
    }
    return value;
  }

  int64_t atom() {
    bool is_negative = false;
    while (take('-'))
      is_negative = !is_negative;
    int64_t value = primary();
    expect(value != INT64_MIN);
    return is_negative && is_fine_ ? -value : value;
  }

  int64_t primary() {
    if (take('(')) {
      int64_t value = sum();
      expect(take(')'));
      return value;
    }
    return is_digit(*at_) ? number() : name();
  }

  int64_t number() {
    int64_t value = 0;
    for (; is_digit(*at_); ++at_)
      expect(!__builtin_mul_overflow(value, int64_t{10}, &value) &&
             !__builtin_add_overflow(value, int64_t{*at_ - '0'}, &value));
    return value;
  }

  int64_t name() {
    const char *begin = at_;
    while (is_name(*at_))
      ++at_;
    auto size = static_cast<uint64_t>(at_ - begin);
    bool is_min = size == 3 && std::memcmp(begin, "min", 3) == 0;
    bool is_max = size == 3 && std::memcmp(begin, "max", 3) == 0;
    if ((is_min || is_max) && take('(')) {
      int64_t a = sum();
      expect(take(','));
      int64_t b = is_fine_ ? sum() : 0;
      expect(take(')'));
      return (a < b) == is_min ? a : b;
    }
    int64_t value = 0;
    expect(size != 0 && lookup_(self_, begin, size, &value));
    return value;
  }

  const char *at_;
  DimLookup lookup_;
  const void *self_;
  int32_t depth_ = 0;
  bool is_fine_ = true;
};

} // namespace

bool evaluate_dim(const char *text, DimLookup lookup, const void *self, int64_t *value) {
  return Evaluator(text, lookup, self).evaluate(value);
}

} // namespace kiln::rt
