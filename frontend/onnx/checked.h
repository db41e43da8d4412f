// Access that no handler can get wrong. Handlers say themselves what they expect of ranks and lengths; where
// one does not, reading a dim, an operand or an entry that is not there throws, and the importer makes an
// error of the node of it. Files are not trusted: a check that is forgotten may not become a read of foreign memory.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kiln::onnx {

// What the operands or attributes of a node lack. Thrown by accesses, caught by the importer around each handler.
struct Unmet {
  std::string message;
};

// The entries of an attribute, or of an operand that is known, whose index is checked.
template <typename T>
class List : public std::vector<T> {
public:
  List() = default;
  List(std::vector<T> entries, std::string_view what) : std::vector<T>(std::move(entries)), what_(what) {}
  const T &operator[](size_t i) const { return std::vector<T>::operator[](checked(i)); }
  T &operator[](size_t i) { return std::vector<T>::operator[](checked(i)); }
  const T &front() const { return (*this)[0]; }
  const T &back() const { return (*this)[this->size() - 1]; }
  T &front() { return (*this)[0]; }
  T &back() { return (*this)[this->size() - 1]; }

private:
  size_t checked(size_t i) const {
    if (i >= this->size())
      throw Unmet{"its '" + what_ + "' has " + std::to_string(this->size()) + " entries, which are too few"};
    return i;
  }
  std::string what_;
};

} // namespace kiln::onnx
