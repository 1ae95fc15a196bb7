#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support.h"
#include "terse/dtype.h"
#include "terse/tensor.h"

using terse::bf16;
using terse::DType;
using terse::f16;
using terse_test::error_class_of;

namespace {

constexpr std::uint32_t kPatterns = 1U << 16;

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

template <class T>
T from_bits(std::uint32_t bits) {
  return T{static_cast<std::uint16_t>(bits)};
}

bool is_nan(bf16 value) { return (value.bits & 0x7fff) > 0x7f80; }
bool is_nan(f16 value) { return (value.bits & 0x7fff) > 0x7c00; }

// Half precision by its definition, in double.
double value_of(f16 value) {
  const int exponent = value.bits >> 10 & 31;
  const int fraction = value.bits & 1023;
  const double sign = value.bits >> 15 != 0 ? -1.0 : 1.0;
  if (exponent == 31) return sign * (fraction == 0 ? INFINITY : NAN);
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

// Checks that round(x) is right for the midpoint of two neighbours `low` and `high` = low + 1 in
// bits, and for the floats on either side of it.
template <class T, class Round>
void check_midpoint(std::uint32_t low_bits, Round round) {
  const T low = from_bits<T>(low_bits);
  const T high = from_bits<T>(low_bits + 1);
  const double exact = (static_cast<double>(to_f32(low)) + static_cast<double>(to_f32(high))) / 2;
  const auto middle = static_cast<float>(exact);
  REQUIRE(static_cast<double>(middle) == exact);
  const T even = low_bits % 2 == 0 ? low : high;
  const float toward_high = std::nextafter(middle, to_f32(high));
  const float toward_low = std::nextafter(middle, to_f32(low));
  const bool ok = round(middle) == even && round(toward_high) == high && round(toward_low) == low;
  if (!ok) CHECK_MESSAGE(ok, low_bits);
}

}  // namespace

TEST_CASE("every bit pattern of both types survives the way to f32 and back") {
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) {
    const auto brain = from_bits<bf16>(bits);
    const auto half = from_bits<f16>(bits);
    // A signalling NaN comes back quiet, with its sign and payload.
    const auto brain_expected = from_bits<bf16>(is_nan(brain) ? bits | 0x40U : bits);
    const auto half_expected = from_bits<f16>(is_nan(half) ? bits | 0x200U : bits);
    const bool ok = terse::to_bf16(to_f32(brain)) == brain_expected &&
                    terse::to_f16(to_f32(half)) == half_expected;
    if (!ok) CHECK_MESSAGE(ok, bits);
  }
}

TEST_CASE("every half is the f32 of its definition, every bf16 the upper half of an f32") {
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) {
    const float half = to_f32(from_bits<f16>(bits));
    const double expected = value_of(from_bits<f16>(bits));
    const bool same = std::isnan(expected) ? std::isnan(half)
                                           : static_cast<double>(half) == expected &&
                                                 std::signbit(half) == std::signbit(expected);
    if (!same) CHECK_MESSAGE(same, bits);
    const bool upper = bits_of(to_f32(from_bits<bf16>(bits))) == bits << 16;
    if (!upper) CHECK_MESSAGE(upper, bits);
  }
}

TEST_CASE("rounding is to nearest, ties to even, at every boundary between two values") {
  for (const std::uint32_t sign : {0U, 0x8000U}) {
    for (std::uint32_t bits = 0; bits < 0x7bff; ++bits) {
      check_midpoint<f16>(sign | bits, [](float x) { return terse::to_f16(x); });
    }
    for (std::uint32_t bits = 0; bits < 0x7f7f; ++bits) {
      check_midpoint<bf16>(sign | bits, [](float x) { return terse::to_bf16(x); });
    }
  }
}

TEST_CASE("the ends of the ranges") {
  CHECK(terse::to_f16(65504.0f).bits == 0x7bff);
  CHECK(terse::to_f16(std::nextafter(65520.0f, 0.0f)).bits == 0x7bff);
  CHECK(terse::to_f16(65520.0f).bits == 0x7c00);
  CHECK(terse::to_f16(-1e30f).bits == 0xfc00);
  CHECK(terse::to_f16(INFINITY).bits == 0x7c00);
  CHECK(terse::to_f16(0x1p-24f).bits == 1);
  CHECK(terse::to_f16(0x1p-25f).bits == 0);
  CHECK(terse::to_f16(std::nextafter(0x1p-25f, 1.0f)).bits == 1);
  CHECK(terse::to_f16(-0.0f).bits == 0x8000);
  CHECK(terse::to_f16(-std::numeric_limits<float>::denorm_min()).bits == 0x8000);
  CHECK(is_nan(terse::to_f16(std::numeric_limits<float>::quiet_NaN())));
  CHECK(is_nan(terse::to_f16(std::bit_cast<float>(0x7f800001U))));

  const float largest = std::numeric_limits<float>::max();
  CHECK(terse::to_bf16(largest).bits == 0x7f80);
  CHECK(terse::to_bf16(-largest).bits == 0xff80);
  CHECK(terse::to_bf16(std::bit_cast<float>(0x7f7f7fffU)).bits == 0x7f7f);
  CHECK(terse::to_bf16(INFINITY).bits == 0x7f80);
  CHECK(terse::to_bf16(std::bit_cast<float>(0x00008000U)).bits == 0x0000);
  CHECK(terse::to_bf16(std::bit_cast<float>(0x00008001U)).bits == 0x0001);
  CHECK(is_nan(terse::to_bf16(std::bit_cast<float>(0x7f800001U))));
  CHECK(is_nan(terse::to_bf16(std::bit_cast<float>(0xffffffffU))));
}

#if defined(__FLT16_MAX__)
TEST_CASE("half precision agrees with the compiler's") {
  // A prime step visits a million floats of every exponent.
  for (std::uint64_t bits = 0; bits <= UINT32_MAX; bits += 4099) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (std::isnan(value)) continue;
    const auto expected = std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
    const bool same = terse::to_f16(value).bits == expected;
    if (!same) CHECK_MESSAGE(same, bits);
  }
}
#endif

TEST_CASE("names and sizes of the types") {
  DType dtype = DType::f32;
  for (std::size_t i = 0; i < std::size(terse::kDTypes); ++i) {
    REQUIRE(terse::dtype_from_safetensors(terse::kDTypes[i].safetensors, &dtype));
    CHECK(dtype == static_cast<DType>(i));
  }
  for (const char* name : {"", "f32", "F32 ", "F4", "F12", "FLOAT"}) {
    CHECK(!terse::dtype_from_safetensors(name, &dtype));
  }
  CHECK(std::string(terse::dtype_name(DType::bf16)) == "bf16");
  CHECK(terse::dtype_size(DType::boolean) == 1);
  CHECK(terse::dtype_size(DType::f64) == 8);
}

TEST_CASE("dispatch picks the C++ type, and refuses what is not floating") {
  const auto size_of = [](DType dtype) {
    return terse::dispatch_floating(dtype, [&]<class T>() { return sizeof(T); });
  };
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    CHECK(terse::is_floating(dtype));
    CHECK(size_of(dtype) == terse::dtype_size(dtype));
  }
  for (const DType dtype : {DType::i64, DType::u8, DType::f8_e4m3, DType::boolean}) {
    CHECK(!terse::is_floating(dtype));
    CHECK(error_class_of([&] { size_of(dtype); }) == "dtype");
  }
}

TEST_CASE("arrays convert from any address") {
  const std::vector<float> values = {1.5f, -2.0f, 0.0f, 65504.0f};
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    std::vector<unsigned char> bytes(1 + 8 * values.size());
    terse::dispatch_floating(dtype, [&]<class T>() {
      for (std::size_t i = 0; i < values.size(); ++i) {
        T value;
        if constexpr (std::is_same_v<T, bf16>) {
          value = terse::to_bf16(values[i]);
        } else if constexpr (std::is_same_v<T, f16>) {
          value = terse::to_f16(values[i]);
        } else {
          value = values[i];
        }
        std::memcpy(bytes.data() + 1 + i * sizeof(T), &value, sizeof(T));
      }
    });
    std::vector<double> out(values.size());
    terse::convert_to(out.data(), bytes.data() + 1, dtype, out.size());
    CHECK(out[0] == 1.5);
    CHECK(out[1] == -2.0);
    CHECK(out[2] == 0.0);
    CHECK(out[3] == (dtype == DType::bf16 ? 65536.0 : 65504.0));
  }
}

TEST_CASE("tensors: sizes are checked, buffers aligned") {
  CHECK(terse::shape_text({}) == "()");
  CHECK(terse::shape_text({3, 4}) == "(3, 4)");
  CHECK(terse::shape_text(terse::Shape(2000, 1)) == "(1, 1, 1, 1, 1, 1, 1, 1, ...)");
  CHECK(terse::element_count({}) == 1);
  CHECK(terse::element_count({3, 0, 4}) == 0);
  CHECK(error_class_of([] { terse::element_count({-1}); }) == "overflow");
  CHECK(error_class_of([] { terse::element_count({1LL << 40, 1LL << 40}); }) == "overflow");
  const terse::TensorView huge{nullptr, DType::f32, {1LL << 62}};
  CHECK(error_class_of([&] { huge.size_bytes(); }) == "overflow");
  const auto more_than_there_is = [] { terse::Tensor tensor(DType::f32, {1LL << 60}); };
  // The address sanitizer calls such a request an error of its own.
#if !defined(__SANITIZE_ADDRESS__)
  CHECK(error_class_of(more_than_there_is) == "memory");
#else
  (void)more_than_there_is;
#endif
  const terse::Tensor tensor(DType::bf16, {3, 5});
  CHECK(reinterpret_cast<std::uintptr_t>(tensor.data<bf16>()) % 64 == 0);
  CHECK(tensor.view().size_bytes() == 30);
  CHECK(tensor.view().aligned<bf16>() == tensor.data<bf16>());
  CHECK(tensor.view().aligned<f16>() == nullptr);
  const terse::TensorView odd{tensor.data<char>() + 1, DType::bf16, {2}};
  CHECK(odd.aligned<bf16>() == nullptr);
}
