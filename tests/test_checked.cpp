#include <doctest/doctest.h>

#include <cstdint>

#include "support.h"
#include "terse/checked.h"

using terse_test::error_class_of;

namespace {
constexpr std::uint64_t kMax = UINT64_MAX;
}

TEST_CASE("sums and products that fit are exact, others are nothing") {
  CHECK(terse::checked_add(kMax - 1, 1) == kMax);
  CHECK(!terse::checked_add(kMax, 1));
  CHECK(!terse::checked_add(kMax, kMax));
  CHECK(terse::checked_mul(kMax, 1) == kMax);
  CHECK(terse::checked_mul(kMax, 0) == 0);
  CHECK(terse::checked_mul(1ULL << 32, 1ULL << 31) == 1ULL << 63);
  CHECK(!terse::checked_mul(1ULL << 32, 1ULL << 32));
  CHECK(!terse::checked_mul(4194305ULL * 4194305, 211106198978564));
}

TEST_CASE("the throwing forms name what did not fit") {
  CHECK(terse::add_sizes(2, 3, "x") == 5);
  CHECK(terse::mul_sizes(2, 3, "x") == 6);
  CHECK(error_class_of([] { terse::add_sizes(kMax, 1, "header"); }) == "overflow");
  CHECK(error_class_of([] { terse::mul_sizes(kMax, 2, "header"); }) == "overflow");
  try {
    terse::mul_sizes(kMax, 2, "rows");
  } catch (const terse::Error& error) {
    CHECK(error.message() == "rows: 18446744073709551615 x 2 does not fit 64 bits");
  }
}

TEST_CASE("ranges are compared without a sum that could wrap") {
  CHECK(terse::range_fits(0, 0, 0));
  CHECK(terse::range_fits(3, 5, 8));
  CHECK(terse::range_fits(8, 0, 8));
  CHECK(!terse::range_fits(3, 6, 8));
  CHECK(!terse::range_fits(9, 0, 8));
  CHECK(!terse::range_fits(kMax, 2, 8));
  CHECK(!terse::range_fits(2, kMax, 8));
  CHECK(terse::range_fits(1, kMax - 1, kMax));
}

TEST_CASE("narrowing keeps the value or fails") {
  CHECK(terse::narrow<std::int32_t>(std::int64_t{INT32_MAX}, "x") == INT32_MAX);
  CHECK(terse::narrow<std::int32_t>(std::int64_t{INT32_MIN}, "x") == INT32_MIN);
  CHECK(terse::narrow<std::uint8_t>(255, "x") == 255);
  CHECK(error_class_of([] { terse::narrow<std::int32_t>(std::int64_t{1} << 31, "x"); }) ==
        "overflow");
  CHECK(error_class_of([] { terse::narrow<std::uint8_t>(256, "x"); }) == "overflow");
  CHECK(error_class_of([] { terse::narrow<std::uint64_t>(-1, "x"); }) == "overflow");
  CHECK(error_class_of([] { terse::narrow<std::int64_t>(kMax, "x"); }) == "overflow");
}
