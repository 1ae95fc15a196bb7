// A vector as a span, said outright. The conversion that std::span has of its own asks the compiler
// whether the vector is a range in every sense of <ranges>, anew for each element type and
// constness: 10 to 20 ms of compiling each, a tenth of what terse.h took. These ask for a pointer.
#pragma once

#include <span>
#include <vector>

namespace terse {

// All values, to read.
template <class T>
std::span<const T> view(const std::vector<T>& values) {
  return {values.data(), values.size()};
}

// All values, to write.
template <class T>
std::span<T> writable(std::vector<T>& values) {
  return {values.data(), values.size()};
}

}  // namespace terse
