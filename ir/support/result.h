// Result<T>: a value, or an Error that says what is wrong with the user's input. C++20 has no
// std::expected; this is the small part of it that the compiler needs.
#pragma once

#include "ir/support/check.h"

#include <string>
#include <utility>
#include <variant>

namespace kiln {

// What is wrong and what to do, without a place; whoever knows the place makes a Diagnostic of it.
struct Error {
  std::string message;
};

template <typename T>
class [[nodiscard]] Result {
public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T &value() {
    KILN_CHECK(ok(), state_.index() == 1 ? std::get<1>(state_).message : "no value");
    return std::get<0>(state_);
  }
  const T &value() const { return const_cast<Result *>(this)->value(); }
  T &operator*() { return value(); }
  const T &operator*() const { return value(); }
  T *operator->() { return &value(); }
  const T *operator->() const { return &value(); }
  const Error &error() const {
    KILN_CHECK(!ok(), "a result with a value has no error");
    return std::get<1>(state_);
  }

private:
  std::variant<T, Error> state_;
};

struct Unit {};
using Status = Result<Unit>;

} // namespace kiln

// Evaluates a Result; on error returns it from the enclosing function, otherwise defines `name`.
#define KILN_TRY(name, expression)                                                                 \
  auto name##_result = (expression);                                                               \
  if (!name##_result.ok())                                                                         \
    return name##_result.error();                                                                  \
  auto &name = *name##_result
#define KILN_RETURN_IF_ERROR(expression)                                                           \
  do {                                                                                             \
    if (auto kiln_status = (expression); !kiln_status.ok())                                        \
      return kiln_status.error();                                                                  \
  } while (false)
