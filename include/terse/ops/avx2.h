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

inline Vector load_element(const float* from, std::int64_t count) { return load(from, count); }

// The larger of |x| and `most`, which is not negative; as bits, so that a NaN beats all numbers.
inline Vector larger_magnitude(Vector most, Vector x) {
  return _mm256_castsi256_ps(
      _mm256_max_epi32(_mm256_castps_si256(most), _mm256_castps_si256(absolute(x))));
}
// The higher of x and `most`, at least +0, and the lower of x and `least`, at most -0; as bits, so
// that a positive NaN is higher than all numbers and a negative one lower.
inline Vector higher(Vector most, Vector x) {
  return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(most), _mm256_castps_si256(x)));
}
inline Vector lower(Vector least, Vector x) {
  return _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(least), _mm256_castps_si256(x)));
}
// The highest of lanes that are +0 at least, the lowest of lanes that are -0 at most: of either the
// largest bits.
inline float lowest(Vector x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m128i halves =
      _mm_max_epu32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
  const __m128i quarters = _mm_max_epu32(halves, _mm_shuffle_epi32(halves, 0x4e));
  const __m128i eighths = _mm_max_epu32(quarters, _mm_shuffle_epi32(quarters, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(eighths));
}
inline float highest(Vector x) { return lowest(x); }
// Whole numbers from -127 to 127 in the four bytes of each word, the first lowest.
inline Vector int8_words(const Vector (&four)[4]) {
  const __m256i byte = _mm256_set1_epi32(0xff);
  __m256i words = _mm256_slli_epi32(_mm256_cvtps_epi32(four[3]), 24);
  words = _mm256_or_si256(
      words, _mm256_slli_epi32(_mm256_and_si256(_mm256_cvtps_epi32(four[2]), byte), 16));
  words = _mm256_or_si256(
      words, _mm256_slli_epi32(_mm256_and_si256(_mm256_cvtps_epi32(four[1]), byte), 8));
  return _mm256_castsi256_ps(
      _mm256_or_si256(words, _mm256_and_si256(_mm256_cvtps_epi32(four[0]), byte)));
}

inline Vector multiply_words(Vector a, Vector b, Vector c) { return multiply_add(a, b, c); }
// Words of whole numbers.
inline Vector whole_numbers(Vector words) { return _mm256_cvtepi32_ps(_mm256_castps_si256(words)); }

// What a tile's sums become on their way to memory: here they stay as they are.
template <int VECTORS>
struct Finish {
  explicit Finish(const TileArguments&) {}
  Vector operator()(int, int, Vector sum) const { return sum; }
};

// Each file builds on those before it.
// clang-format off
#include "terse/ops/vector/math.inl"
#include "terse/ops/vector/tile.inl"
#include "terse/ops/vector/f32.inl"
#include "terse/ops/vector/rows.inl"
#include "terse/ops/vector/int8.inl"
// clang-format on

// int8 as pairs of 16 bits, which this instruction set multiplies and adds up exactly at twice the
// rate of f32. Its product of bytes would need a sign moved from one factor to the other before
// every product and the sums widened after: as many instructions for as many products, and two
// registers more than there are.
namespace words {

inline Vector multiply_words(Vector a, Vector b, Vector c) {
  return _mm256_castsi256_ps(_mm256_add_epi32(
      _mm256_castps_si256(c), _mm256_madd_epi16(_mm256_castps_si256(a), _mm256_castps_si256(b))));
}
template <int VECTORS>
using Finish = Int8Finish<VECTORS>;

#include "terse/ops/vector/tile.inl"

}  // namespace words

struct Int8Words {
  using Scope = ComputeScope;
  static constexpr std::size_t kOperandBytes = 2;
  static constexpr std::size_t kWeightBytes = 1;
  static constexpr bool kWidened = true;
  static constexpr bool kFromLeast = false;
  static constexpr bool kAmx = false;
  static std::int64_t stride(std::int64_t width) { return quantized_stride(width, kOperandBytes); }
  static const auto& tiles() { return words::kTiles; }

  // [steps / 4][16][4] bytes -> [steps / 2][16][2] of 16 bits.
  static void widen(const Word* from, std::int64_t steps, Word* to) {
    // The bytes of a pair as the upper halves of its 16 bits, then down with the sign.
    const __m256i first =
        _mm256_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1, 0, -1, 1, -1,
                         4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13);
    const __m256i second =
        _mm256_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15,  //
                         -1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15);
    for (std::int64_t k = 0; k < steps; k += 4, from += kPanelColumns, to += 2 * kPanelColumns) {
      for (std::int64_t lane = 0; lane < kPanelColumns; lane += kLanes) {
        const __m256i bytes = _mm256_castps_si256(load_words(from + lane));
        const __m256i low = _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, first), 8);
        const __m256i high = _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, second), 8);
        store_words(to + lane, _mm256_castsi256_ps(low));
        store_words(to + kPanelColumns + lane, _mm256_castsi256_ps(high));
      }
    }
  }

  static void store(std::byte* row, std::int64_t i, Vector x, std::int64_t count, std::int32_t) {
    const __m256i whole = _mm256_cvtps_epi32(x);
    const __m128i halves =
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    std::byte* to = row + i * std::int64_t{kOperandBytes};
    if (count == kLanes) return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
    std::memcpy(to, &halves, static_cast<std::size_t>(count) * kOperandBytes);
  }
  static std::int16_t element(const std::byte* row, std::int64_t i) {
    return load_unaligned<std::int16_t>(row, static_cast<std::size_t>(i));
  }
};

// Products in int8, sensitive ones in f32.
struct Int8Products : FloatProducts {
  using Int8 = Int8Words;
};

// clang-format off
#include "terse/ops/vector/linear.inl"
#include "terse/ops/vector/project.inl"
#include "terse/ops/vector/softmax.inl"
#include "terse/ops/vector/attention.inl"
#include "terse/ops/vector/absorbed_attention.inl"
#include "terse/ops/vector/table.inl"
// clang-format on

// The table for products in f32, with bf16 weights or in int8. Throws Error(unsupported) for other
// types.
template <class = void>
const Backend& backend(DType compute) {
  static const Backend f32 = Ops<FloatProducts>::table("avx2", Isa::avx2, DType::f32);
  static const Backend bf16 = Ops<WidenedProducts>::table("avx2 bf16", Isa::avx2, DType::bf16);
  static const Backend int8 = Ops<Int8Products>::table("avx2 int8", Isa::avx2, DType::i8);
  if (compute == DType::bf16) return bf16;
  if (compute == DType::i8) return int8;
  check(compute == DType::f32, ErrorClass::unsupported,
        "the AVX2 backend computes in f32, bf16 or i8, not in ", dtype_name(compute));
  return f32;
}

}  // namespace terse::avx2

TERSE_TARGET_END

#endif
