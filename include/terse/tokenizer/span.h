// A range of bytes in a text.
#pragma once

#include <cstddef>

namespace terse {

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;

  bool operator==(const Span&) const = default;
};

}  // namespace terse
