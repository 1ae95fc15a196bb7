// The op table for AVX2 with FMA. See vector/ for the ops; this file says what a vector is. bf16
// weights are widened to f32 on the way into the products.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include "terse/ops/target.h"
#include "terse/ops/vector/common.h"

TERSE_TARGET_BEGIN("avx2,fma")

namespace terse::avx2 {

using Vector = __m256;
inline constexpr int kLanes = 8;
inline constexpr int kTileRows = 6;  // 6 x 2 sums, two columns and an element: 15 registers of 16

inline __m256i first_lanes(std::int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Vector zero() { return _mm256_setzero_ps(); }
inline Vector broadcast(float value) { return _mm256_set1_ps(value); }
inline Vector load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, Vector x) { _mm256_storeu_ps(to, x); }
// The first count lanes, 0 < count <= kLanes; the others read as zero.
inline Vector load(const float* from, std::int64_t count) {
  return count == kLanes ? load(from) : _mm256_maskload_ps(from, first_lanes(count));
}
inline void store(float* to, Vector x, std::int64_t count) {
  if (count == kLanes) return store(to, x);
  _mm256_maskstore_ps(to, first_lanes(count), x);
}

inline Vector load_words(const Word* from) {
  return _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline void store_words(Word* to, Vector x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_castps_si256(x));
}
inline Vector load_words(const Word* from, std::int64_t count) {
  return _mm256_castsi256_ps(
      _mm256_maskload_epi32(reinterpret_cast<const int*>(from), first_lanes(count)));
}
inline Vector broadcast_word(const Word* from) {
  return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(*from)));
}

inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
// The second if either is a NaN.
inline Vector maximum(Vector a, Vector b) { return _mm256_max_ps(a, b); }
inline Vector minimum(Vector a, Vector b) { return _mm256_min_ps(a, b); }
inline Vector absolute(Vector x) { return _mm256_andnot_ps(broadcast(-0.0f), x); }
inline Vector with_sign_of(Vector magnitude, Vector sign) {
  return _mm256_or_ps(magnitude, _mm256_and_ps(sign, broadcast(-0.0f)));
}
// a < b ? yes : no, lane by lane.
inline Vector select_less(Vector a, Vector b, Vector yes, Vector no) {
  return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
inline bool all_equal(Vector a, Vector b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ)) == 0;
}
inline Vector nearest_integer(Vector x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// 2^exponent for whole exponents between -126 and 127.
inline Vector power_of_two(__m256i exponent) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23));
}
// x 2^power for whole powers between -250 and 250, in two steps so that neither over- nor
// underflows before the result does.
inline Vector times_power_of_two(Vector x, Vector power) {
  const __m256i whole = _mm256_cvtps_epi32(power);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return x * power_of_two(half) * power_of_two(_mm256_sub_epi32(whole, half));
}

// x in the first count lanes, zero in the others.
inline Vector first_lanes_of(Vector x, std::int64_t count) {
  return _mm256_and_ps(x, _mm256_castsi256_ps(first_lanes(count)));
}
inline float sum(Vector x) {
  const __m128 halves = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 quarters = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
  return _mm_cvtss_f32(_mm_add_ss(quarters, _mm_movehdup_ps(quarters)));
}

// Rounded to nearest even, in the lower half of each word; a NaN stays one.
inline __m256i bf16_bits(Vector x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i kept = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, kept, nan), 16);
}
// Words of two bf16: `first` in the lower half.
inline Vector pair_words(Vector first, Vector second) {
  return _mm256_castsi256_ps(
      _mm256_or_si256(bf16_bits(first), _mm256_slli_epi32(bf16_bits(second), 16)));
}
inline Vector first_of_pair(Vector words) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(words), 16));
}
inline Vector second_of_pair(Vector words) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(_mm256_castps_si256(words), _mm256_set1_epi32(-0x10000)));
}

// rows[i][j] becomes rows[j][i].
inline void transpose(Vector (&rows)[kLanes]) {
  __m256 pairs[8], quads[8];
#pragma GCC unroll 16
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

// Unaligned elements of a checkpoint.
inline Vector load_f32(const void* from, std::int64_t count) {
  return load_words(static_cast<const Word*>(from), count);
}
inline Vector load_bf16(const void* from, std::int64_t count) {
  __m128i bits = _mm_setzero_si128();
  std::memcpy(&bits, from, static_cast<std::size_t>(count) * sizeof(bf16));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

inline Vector multiply_words(Vector a, Vector b, Vector c) { return multiply_add(a, b, c); }

// Each file builds on those before it.
// clang-format off
#include "terse/ops/vector/math.inl"
#include "terse/ops/vector/tile.inl"
#include "terse/ops/vector/f32.inl"
#include "terse/ops/vector/rows.inl"
#include "terse/ops/vector/linear.inl"
#include "terse/ops/vector/project.inl"
#include "terse/ops/vector/attention.inl"
#include "terse/ops/vector/table.inl"
// clang-format on

// The table for products in f32 or with bf16 weights. Throws Error(unsupported) for other types.
inline const Backend& backend(DType compute) {
  static const Backend f32 = Ops<FloatProducts>::table("avx2", Isa::avx2, DType::f32);
  static const Backend bf16 = Ops<WidenedProducts>::table("avx2 bf16", Isa::avx2, DType::bf16);
  if (compute == DType::bf16) return bf16;
  check(compute == DType::f32, ErrorClass::unsupported,
        "the AVX2 backend computes in f32 or bf16, not in ", dtype_name(compute));
  return f32;
}

}  // namespace terse::avx2

TERSE_TARGET_END

#endif
