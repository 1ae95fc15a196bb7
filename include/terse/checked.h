// Size arithmetic that cannot wrap: every offset, count and byte size that comes from a file or a
// caller goes through these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "terse/error.h"

namespace terse {

// a + b, or nothing if the sum does not fit 64 bits.
constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

// a * b, or nothing if the product does not fit 64 bits.
constexpr std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// a + b; throws Error(overflow) naming `what` if the sum does not fit.
inline std::uint64_t add_sizes(std::uint64_t a, std::uint64_t b, std::string_view what) {
  const auto sum = checked_add(a, b);
  check(sum.has_value(), ErrorClass::overflow, what, ": ", a, " + ", b, " does not fit 64 bits");
  return *sum;
}

// a * b; throws Error(overflow) naming `what` if the product does not fit.
inline std::uint64_t mul_sizes(std::uint64_t a, std::uint64_t b, std::string_view what) {
  const auto product = checked_mul(a, b);
  check(product.has_value(), ErrorClass::overflow, what, ": ", a, " x ", b,
        " does not fit 64 bits");
  return *product;
}

// Whether [offset, offset + size) lies inside [0, limit), without ever computing a sum that wraps.
constexpr bool range_fits(std::uint64_t offset, std::uint64_t size, std::uint64_t limit) {
  return offset <= limit && size <= limit - offset;
}

// value as To; throws Error(overflow) naming `what` if it is not representable.
template <class To, class From>
To narrow(From value, std::string_view what) {
  const auto result = static_cast<To>(value);
  check(static_cast<From>(result) == value && (result < To{}) == (value < From{}),
        ErrorClass::overflow, what, ": ", value, " does not fit its type");
  return result;
}

}  // namespace terse
