// Models of the AVX-512 instructions that the library uses, as plain loops over lanes, so that its
// AVX-512 tables run on processors without it. Named as the intrinsics less their prefix.
//
// They touch exactly the memory that the instruction touches: masked lanes neither read nor write.
// Rounding is to nearest even, as the library's ComputeScope sets it before any of them runs. A NaN
// result is a quiet NaN; its payload is not modelled.
// Source: Intel 64 and IA-32 Architectures SDM, volume 2, "Operation" of each instruction.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "terse/ops/target.h"

TERSE_TARGET_BEGIN("avx2,fma,f16c")

namespace emulated {

template <class T>
using Lanes = std::array<T, 64 / sizeof(T)>;
template <class T>
using HalfLanes = std::array<T, 32 / sizeof(T)>;

template <class T, class Vector>
inline Lanes<T> lanes(const Vector& vector) {
  static_assert(sizeof(Vector) == 64);
  Lanes<T> values;
  std::memcpy(values.data(), &vector, 64);
  return values;
}
template <class T>
inline __m512 ps(const Lanes<T>& values) {
  __m512 vector;
  std::memcpy(&vector, values.data(), 64);
  return vector;
}
template <class T>
inline __m512i si512(const Lanes<T>& values) {
  __m512i vector;
  std::memcpy(&vector, values.data(), 64);
  return vector;
}
template <class T>
inline HalfLanes<T> half_lanes(const __m256i& vector) {
  HalfLanes<T> values;
  std::memcpy(values.data(), &vector, 32);
  return values;
}
template <class T>
inline __m256i si256(const HalfLanes<T>& values) {
  __m256i vector;
  std::memcpy(&vector, values.data(), 32);
  return vector;
}

// y[i] = f(i).
template <class T, class F>
inline Lanes<T> each(const F& f) {
  Lanes<T> y;
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = f(i);
  return y;
}

constexpr bool bit(std::uint64_t mask, std::size_t index) { return (mask >> index & 1) != 0; }

inline float to_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline std::uint32_t to_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// --- moves ---------------------------------------------------------------------------------------

inline __m512 setzero_ps() {
  return ps(each<float>([](std::size_t) { return 0.0f; }));
}
inline __m512 set1_ps(float value) {
  return ps(each<float>([&](std::size_t) { return value; }));
}
inline __m512i setzero_si512() {
  return si512(each<std::int32_t>([](std::size_t) { return 0; }));
}
inline __m512i set1_epi32(int value) {
  return si512(each<std::int32_t>([&](std::size_t) { return value; }));
}
inline __m512 castsi512_ps(__m512i x) { return ps(lanes<std::uint32_t>(x)); }
inline __m512i castps_si512(__m512 x) { return si512(lanes<std::uint32_t>(x)); }

template <class T>
inline Lanes<T> load(const void* from) {
  Lanes<T> values;
  std::memcpy(values.data(), from, 64);
  return values;
}
inline __m512 loadu_ps(const void* from) { return ps(load<float>(from)); }
inline __m512i loadu_si512(const void* from) { return si512(load<std::uint32_t>(from)); }
inline void storeu_ps(void* to, __m512 x) { std::memcpy(to, &x, 64); }
inline void storeu_si512(void* to, __m512i x) { std::memcpy(to, &x, 64); }

// Elements of `mask` between memory and values; the others stay as they are.
template <class T, std::size_t N>
inline void masked_load(std::array<T, N>& values, std::uint64_t mask, const void* from) {
  for (std::size_t i = 0; i < N; ++i) {
    if (bit(mask, i)) {
      std::memcpy(&values[i], static_cast<const char*>(from) + i * sizeof(T), sizeof(T));
    }
  }
}
template <class T, std::size_t N>
inline void masked_store(void* to, std::uint64_t mask, const std::array<T, N>& values) {
  for (std::size_t i = 0; i < N; ++i) {
    if (bit(mask, i)) {
      std::memcpy(static_cast<char*>(to) + i * sizeof(T), &values[i], sizeof(T));
    }
  }
}
inline __m512 maskz_loadu_ps(__mmask16 mask, const void* from) {
  Lanes<float> values{};
  masked_load(values, mask, from);
  return ps(values);
}
inline void mask_storeu_ps(void* to, __mmask16 mask, __m512 x) {
  masked_store(to, mask, lanes<float>(x));
}
inline void mask_storeu_epi16(void* to, __mmask32 mask, __m512i x) {
  masked_store(to, mask, lanes<std::uint16_t>(x));
}
inline __m256i maskz_loadu_epi16_256(__mmask16 mask, const void* from) {
  HalfLanes<std::uint16_t> values{};
  masked_load(values, mask, from);
  return si256(values);
}
inline void mask_storeu_epi16_256(void* to, __mmask16 mask, __m256i x) {
  masked_store(to, mask, half_lanes<std::uint16_t>(x));
}

inline __m512 maskz_mov_ps(__mmask16 mask, __m512 x) {
  const auto from = lanes<float>(x);
  return ps(each<float>([&](std::size_t i) { return bit(mask, i) ? from[i] : 0.0f; }));
}
inline __m512 mask_blend_ps(__mmask16 mask, __m512 zeros, __m512 ones) {
  const auto a = lanes<float>(zeros), b = lanes<float>(ones);
  return ps(each<float>([&](std::size_t i) { return bit(mask, i) ? b[i] : a[i]; }));
}
inline __m512i mask_blend_epi32(__mmask16 mask, __m512i zeros, __m512i ones) {
  return castps_si512(mask_blend_ps(mask, castsi512_ps(zeros), castsi512_ps(ones)));
}

// Within each quarter of four lanes: two lanes of a, then two of b.
inline __m512 shuffle_ps(__m512 x, __m512 y, unsigned control) {
  const auto a = lanes<float>(x), b = lanes<float>(y);
  return ps(each<float>([&](std::size_t i) {
    const std::size_t from = i / 4 * 4 + (control >> 2 * (i % 4) & 3);
    return i % 4 < 2 ? a[from] : b[from];
  }));
}
// Two quarters of a, then two of b.
inline __m512 shuffle_f32x4(__m512 x, __m512 y, unsigned control) {
  const auto a = lanes<float>(x), b = lanes<float>(y);
  return ps(each<float>([&](std::size_t i) {
    const std::size_t from = (control >> i / 4 * 2 & 3) * 4 + i % 4;
    return i < 8 ? a[from] : b[from];
  }));
}
inline __m512 unpack(__m512 x, __m512 y, std::size_t first) {
  const auto a = lanes<float>(x), b = lanes<float>(y);
  return ps(each<float>([&](std::size_t i) {
    const std::size_t from = i / 4 * 4 + first + i % 4 / 2;
    return i % 2 == 0 ? a[from] : b[from];
  }));
}
inline __m512 unpacklo_ps(__m512 x, __m512 y) { return unpack(x, y, 0); }
inline __m512 unpackhi_ps(__m512 x, __m512 y) { return unpack(x, y, 2); }

// --- integers ------------------------------------------------------------------------------------

inline __m512i cvtepu16_epi32(__m256i x) {
  const auto from = half_lanes<std::uint16_t>(x);
  return si512(each<std::uint32_t>([&](std::size_t i) { return from[i]; }));
}
template <class F>
inline __m512i words(__m512i x, __m512i y, const F& f) {
  const auto a = lanes<std::uint32_t>(x), b = lanes<std::uint32_t>(y);
  return si512(each<std::uint32_t>([&](std::size_t i) { return f(a[i], b[i]); }));
}
inline __m512i add_epi32(__m512i x, __m512i y) {
  return words(x, y, [](std::uint32_t a, std::uint32_t b) { return a + b; });
}
inline __m512i and_si512(__m512i x, __m512i y) {
  return words(x, y, [](std::uint32_t a, std::uint32_t b) { return a & b; });
}
inline __m512i or_si512(__m512i x, __m512i y) {
  return words(x, y, [](std::uint32_t a, std::uint32_t b) { return a | b; });
}
inline __m512i slli_epi32(__m512i x, unsigned count) {
  return words(x, x, [&](std::uint32_t a, std::uint32_t) { return count < 32 ? a << count : 0; });
}
inline __m512i srli_epi32(__m512i x, unsigned count) {
  return words(x, x, [&](std::uint32_t a, std::uint32_t) { return count < 32 ? a >> count : 0; });
}
inline __m512 and_ps(__m512 x, __m512 y) {
  return castsi512_ps(and_si512(castps_si512(x), castps_si512(y)));
}
inline __m512 or_ps(__m512 x, __m512 y) {
  return castsi512_ps(or_si512(castps_si512(x), castps_si512(y)));
}

// --- single precision ----------------------------------------------------------------------------

inline __m512 fmadd_ps(__m512 x, __m512 y, __m512 z) {
  const auto a = lanes<float>(x), b = lanes<float>(y), c = lanes<float>(z);
  return ps(each<float>([&](std::size_t i) { return std::fma(a[i], b[i], c[i]); }));
}
// The second operand if either is a NaN or both are zeros.
inline __m512 max_ps(__m512 x, __m512 y) {
  const auto a = lanes<float>(x), b = lanes<float>(y);
  return ps(each<float>([&](std::size_t i) { return a[i] > b[i] ? a[i] : b[i]; }));
}
inline __m512 min_ps(__m512 x, __m512 y) {
  const auto a = lanes<float>(x), b = lanes<float>(y);
  return ps(each<float>([&](std::size_t i) { return a[i] < b[i] ? a[i] : b[i]; }));
}
inline __m512 abs_ps(__m512 x) { return and_ps(x, castsi512_ps(set1_epi32(0x7fffffff))); }

// The predicates that the library asks for.
inline __mmask16 cmp_ps_mask(__m512 x, __m512 y, int predicate) {
  const auto a = lanes<float>(x), b = lanes<float>(y);
  unsigned mask = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    bool holds = false;
    switch (predicate) {
      case _CMP_LT_OQ:
        holds = a[i] < b[i];
        break;
      case _CMP_NEQ_UQ:
        holds = !(a[i] == b[i]);
        break;
      case _CMP_UNORD_Q:
        holds = std::isnan(a[i]) || std::isnan(b[i]);
        break;
      default:
        throw std::logic_error("vcmpps: a predicate without a model");
    }
    mask |= static_cast<unsigned>(holds) << i;
  }
  return static_cast<__mmask16>(mask);
}

// Whole numbers, to nearest even.
inline __m512 roundscale_ps(__m512 x, int control) {
  if (control != (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)) {
    throw std::logic_error("vrndscaleps: a control without a model");
  }
  const auto a = lanes<float>(x);
  return ps(each<float>([&](std::size_t i) { return std::nearbyint(a[i]); }));
}

// a 2^floor(b), rounded once.
inline float scalef(float a, float b) {
  // A quiet NaN gives way to an infinite exponent, a signalling one doesn't.
  const bool quiet = (to_bits(a) & 0x00400000) != 0;
  if (std::isnan(a)) return std::isinf(b) && quiet ? (b > 0 ? b : 0.0f) : a;
  if (std::isnan(b)) return b;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (b == kInfinity) {
    return a == 0 ? std::numeric_limits<float>::quiet_NaN() : std::copysign(kInfinity, a);
  }
  if (b == -kInfinity) {
    return std::isinf(a) ? std::numeric_limits<float>::quiet_NaN() : std::copysign(0.0f, a);
  }
  const float power = std::floor(b);
  return std::ldexp(a, static_cast<int>(std::fmax(-1000.0f, std::fmin(1000.0f, power))));
}
inline __m512 scalef_ps(__m512 x, __m512 y) {
  const auto a = lanes<float>(x), b = lanes<float>(y);
  return ps(each<float>([&](std::size_t i) { return scalef(a[i], b[i]); }));
}

// x less its whole part; only for rounding downwards, which is how the difference rounds too: that
// of a whole number is -0.
inline __m512 reduce_ps(__m512 x, int control) {
  if ((control & 0xf7) != 1) throw std::logic_error("reduce_ps: a control that is not modelled");
  const auto a = lanes<float>(x);
  return ps(each<float>([&](std::size_t i) {
    if (std::isinf(a[i])) return 0.0f;
    const double exact = static_cast<double>(a[i]) - std::floor(static_cast<double>(a[i]));
    if (exact == 0) return -0.0f;
    const auto nearest = static_cast<float>(exact);
    const bool above = static_cast<double>(nearest) > exact || nearest == 1;
    return above ? std::nextafter(nearest, 0.0f) : nearest;
  }));
}

// A sequence of instructions: halves are added until one lane is left.
inline float reduce_add_ps(__m512 x) {
  auto a = lanes<float>(x);
  for (std::size_t width = 8; width > 0; width /= 2) {
    for (std::size_t i = 0; i < width; ++i) a[i] += a[i + width];
  }
  return a[0];
}

// --- bf16 ----------------------------------------------------------------------------------------

// Denormal numbers are read and written as zeros of their sign.
inline float flushed(float value) {
  const std::uint32_t bits = to_bits(value);
  return (bits & 0x7f800000) == 0 ? to_float(bits & 0x80000000) : value;
}
// x y + z of such numbers, rounded to nearest even as if there were no least exponent, then
// flushed: what is rounded to the least normal number only for want of a smaller one is a zero.
inline float flushing_multiply_add(float x, float y, float z) {
  const float sum = std::fma(x, y, z);
  constexpr float kLeast = std::numeric_limits<float>::min();
  if (std::fabs(sum) != kLeast) return flushed(sum);
  const double exact = std::fma(double{x}, double{y}, double{z});
  return std::fabs(exact) < double{kLeast} * (1 - 0x1p-25) ? std::copysign(0.0f, sum) : sum;
}
// The lower or upper half of a word, as a float.
inline float half_as_float(std::uint32_t word, bool upper) {
  return flushed(to_float(upper ? word & 0xffff0000 : word << 16));
}

// vcvtneps2bf16 of one lane.
inline std::uint16_t cvtneps_pbh(float value) {
  const std::uint32_t bits = to_bits(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  if ((bits & 0x7f800000) == 0) return static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline __m256bh cvtneps_pbh(__m512 x) {
  const auto a = lanes<float>(x);
  __m256bh y;
  HalfLanes<std::uint16_t> halves;
  for (std::size_t i = 0; i < 16; ++i) halves[i] = cvtneps_pbh(a[i]);
  std::memcpy(&y, halves.data(), 32);
  return y;
}

// The second operand's lanes first.
inline __m512bh cvtne2ps_pbh(__m512 x, __m512 y) {
  const auto upper = lanes<float>(x), lower = lanes<float>(y);
  Lanes<std::uint16_t> halves;
  for (std::size_t i = 0; i < 16; ++i) {
    halves[i] = cvtneps_pbh(lower[i]);
    halves[16 + i] = cvtneps_pbh(upper[i]);
  }
  __m512bh z;
  std::memcpy(&z, halves.data(), 64);
  return z;
}

// The halves of x in the order that the lower five bits of each half of `order` say.
inline __m512i permutexvar_epi16(__m512i order, __m512i x) {
  const auto index = lanes<std::uint16_t>(order), a = lanes<std::uint16_t>(x);
  return si512(each<std::uint16_t>([&](std::size_t i) { return a[index[i] % 32]; }));
}

// c + upper products, then + lower products, each a fused multiply-add that rounds to nearest even
// and flushes denormals, whatever MXCSR says.
inline __m512 dpbf16_ps(__m512 sums, __m512bh x, __m512bh y) {
  const auto c = lanes<float>(sums);
  const auto a = lanes<std::uint32_t>(x), b = lanes<std::uint32_t>(y);
  return ps(each<float>([&](std::size_t i) {
    const float upper =
        flushing_multiply_add(half_as_float(a[i], true), half_as_float(b[i], true), flushed(c[i]));
    return flushing_multiply_add(half_as_float(a[i], false), half_as_float(b[i], false), upper);
  }));
}

}  // namespace emulated

TERSE_TARGET_END
