// Whether two functions are called alike: as many parameters, numbers of equal size, pointers to what is alike again, where
// void stands for whatever the driver keeps to itself. So `CUstream *` is `void **`, and an enum is an int.
#pragma once

#include <tuple>
#include <type_traits>

namespace kiln {

template <typename A, typename B>
constexpr bool is_alike() {
  if constexpr (std::is_pointer_v<A> && std::is_pointer_v<B>) {
    using X = std::remove_cv_t<std::remove_pointer_t<A>>;
    using Y = std::remove_cv_t<std::remove_pointer_t<B>>;
    // What is behind a pointer to void, or to a type that nobody has seen whole, is nobody's business.
    if constexpr (std::is_void_v<X> || std::is_void_v<Y> || std::is_same_v<X, Y>)
      return true;
    else if constexpr (std::is_class_v<X> || std::is_class_v<Y>)
      return false;
    else
      return is_alike<X, Y>();
  } else {
    constexpr bool are_numbers = (std::is_integral_v<A> || std::is_enum_v<A>) && (std::is_integral_v<B> || std::is_enum_v<B>);
    if constexpr (are_numbers)
      return sizeof(A) == sizeof(B);
    else
      return std::is_same_v<A, B>;
  }
}

template <typename F, typename G>
struct SameAbi : std::false_type {};
template <typename R, typename... A, typename S, typename... B>
struct SameAbi<R (*)(A...), S (*)(B...)> {
  static constexpr bool compare() {
    if constexpr (sizeof...(A) != sizeof...(B))
      return false;
    else
      return is_alike<R, S>() && (is_alike<A, B>() && ...);
  }
  static constexpr bool value = compare();
};

} // namespace kiln
