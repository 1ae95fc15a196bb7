// Models of the AVX-512 instructions on integers that the int8 tables use, see avx512_model.h.
#pragma once

#include "avx512_model.h"

TERSE_TARGET_BEGIN("avx2,fma,f16c")

namespace emulated {

inline __m512i sub_epi32(__m512i x, __m512i y) {
  return words(x, y, [](std::uint32_t a, std::uint32_t b) { return a - b; });
}
inline __m512i max_epi32(__m512i x, __m512i y) {
  const auto a = lanes<std::int32_t>(x), b = lanes<std::int32_t>(y);
  return si512(each<std::int32_t>([&](std::size_t i) { return std::max(a[i], b[i]); }));
}
inline int reduce_max_epi32(__m512i x) {
  const auto a = lanes<std::int32_t>(x);
  return *std::max_element(a.begin(), a.end());
}
inline __m512i max_epu32(__m512i x, __m512i y) {
  const auto a = lanes<std::uint32_t>(x), b = lanes<std::uint32_t>(y);
  return si512(each<std::uint32_t>([&](std::size_t i) { return std::max(a[i], b[i]); }));
}
inline unsigned reduce_max_epu32(__m512i x) {
  const auto a = lanes<std::uint32_t>(x);
  return *std::max_element(a.begin(), a.end());
}
// The lower halves of the products.
inline __m512i mullo_epi32(__m512i x, __m512i y) {
  const auto a = lanes<std::uint32_t>(x), b = lanes<std::uint32_t>(y);
  return si512(each<std::uint32_t>([&](std::size_t i) { return a[i] * b[i]; }));
}

inline __m512i slli_epi16(__m512i x, unsigned count) {
  const auto a = lanes<std::uint16_t>(x);
  return si512(each<std::uint16_t>(
      [&](std::size_t i) { return static_cast<std::uint16_t>(count < 16 ? a[i] << count : 0); }));
}
// The sign fills up from the left.
inline __m512i srai_epi16(__m512i x, unsigned count) {
  const auto a = lanes<std::int16_t>(x);
  return si512(each<std::int16_t>(
      [&](std::size_t i) { return static_cast<std::int16_t>(a[i] >> std::min(count, 15U)); }));
}
inline __m512i mask_blend_epi16(__mmask32 mask, __m512i zeros, __m512i ones) {
  const auto a = lanes<std::uint16_t>(zeros), b = lanes<std::uint16_t>(ones);
  return si512(each<std::uint16_t>([&](std::size_t i) { return bit(mask, i) ? b[i] : a[i]; }));
}

// To nearest even; the lowest integer for a NaN and what an i32 cannot hold.
inline __m512i cvtps_epi32(__m512 x) {
  const auto a = lanes<float>(x);
  return si512(each<std::int32_t>([&](std::size_t i) {
    const float whole = std::nearbyint(a[i]);
    const bool fits = whole >= -0x1p31f && whole < 0x1p31f;
    return fits ? static_cast<std::int32_t>(whole) : std::numeric_limits<std::int32_t>::min();
  }));
}
inline __m512 cvtepi32_ps(__m512i x) {
  const auto a = lanes<std::int32_t>(x);
  return ps(each<float>([&](std::size_t i) { return static_cast<float>(a[i]); }));
}
// The low half, or byte, of each word.
inline __m256i cvtepi32_epi16(__m512i x) {
  const auto a = lanes<std::uint32_t>(x);
  HalfLanes<std::uint16_t> low;
  for (std::size_t i = 0; i < 16; ++i) low[i] = static_cast<std::uint16_t>(a[i]);
  return si256(low);
}
inline __m128i cvtepi32_epi8(__m512i x) {
  const auto a = lanes<std::uint32_t>(x);
  std::array<std::uint8_t, 16> low;
  for (std::size_t i = 0; i < 16; ++i) low[i] = static_cast<std::uint8_t>(a[i]);
  __m128i vector;
  std::memcpy(&vector, low.data(), 16);
  return vector;
}
inline void mask_storeu_epi8_128(void* to, __mmask16 mask, __m128i x) {
  std::array<std::uint8_t, 16> values;
  std::memcpy(values.data(), &x, 16);
  masked_store(to, mask, values);
}

// The two products of each word's signed halves, added.
inline __m512i madd_epi16(__m512i x, __m512i y) {
  const auto a = lanes<std::int16_t>(x), b = lanes<std::int16_t>(y);
  return si512(each<std::uint32_t>([&](std::size_t i) {
    const std::int32_t first = a[2 * i] * b[2 * i], second = a[2 * i + 1] * b[2 * i + 1];
    return static_cast<std::uint32_t>(first) + static_cast<std::uint32_t>(second);
  }));
}
// sum + the four products of each word's bytes, of a unsigned, of b signed.
inline __m512i dpbusd_epi32(__m512i sum, __m512i x, __m512i y) {
  const auto c = lanes<std::uint32_t>(sum);
  const auto a = lanes<std::uint8_t>(x);
  const auto b = lanes<std::int8_t>(y);
  return si512(each<std::uint32_t>([&](std::size_t i) {
    std::uint32_t total = c[i];
    for (std::size_t j = 4 * i; j < 4 * i + 4; ++j) {
      total += static_cast<std::uint32_t>(a[j] * b[j]);
    }
    return total;
  }));
}

}  // namespace emulated

TERSE_TARGET_END
