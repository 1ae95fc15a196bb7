// The op tables for AVX-512 (F, BW, DQ, VL), with products of bf16 pairs where the processor has
// AVX-512 BF16, and of int8 by VNNI where it has that. See vector/ for the ops; this file says what
// a vector is.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include "terse/ops/target.h"
#include "terse/ops/vector/common.h"

#if !defined(__clang__)
#pragma GCC diagnostic push
// GCC 12 warns about the undefined vectors of its own intrinsics (bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

TERSE_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")

namespace terse::avx512 {

using Vector = __m512;
inline constexpr int kLanes = 16;
inline constexpr int kTileRows = 12;  // 12 x 2 sums, two columns and an element: 27 registers of 32

inline __mmask16 first_lanes(std::int64_t count) {
  return static_cast<__mmask16>((1U << count) - 1);
}

inline Vector zero() { return _mm512_setzero_ps(); }
inline Vector broadcast(float value) { return _mm512_set1_ps(value); }
inline Vector load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Vector x) { _mm512_storeu_ps(to, x); }
// The first count lanes, 0 < count <= kLanes; the others read as zero.
inline Vector load(const float* from, std::int64_t count) {
  return count == kLanes ? load(from) : _mm512_maskz_loadu_ps(first_lanes(count), from);
}
inline void store(float* to, Vector x, std::int64_t count) {
  if (count == kLanes) return store(to, x);
  _mm512_mask_storeu_ps(to, first_lanes(count), x);
}

inline Vector load_words(const Word* from) { return _mm512_loadu_ps(from); }
inline void store_words(Word* to, Vector x) { _mm512_storeu_ps(to, x); }
inline Vector load_words(const Word* from, std::int64_t count) {
  return _mm512_maskz_loadu_ps(first_lanes(count), from);
}
inline Vector broadcast_word(const Word* from) {
  return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*from)));
}

inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
// The second if either is a NaN.
inline Vector maximum(Vector a, Vector b) { return _mm512_max_ps(a, b); }
inline Vector minimum(Vector a, Vector b) { return _mm512_min_ps(a, b); }
inline Vector absolute(Vector x) { return _mm512_abs_ps(x); }
inline Vector with_sign_of(Vector magnitude, Vector sign) {
  return _mm512_or_ps(magnitude, _mm512_and_ps(sign, broadcast(-0.0f)));
}
// a < b ? yes : no, lane by lane.
inline Vector select_less(Vector a, Vector b, Vector yes, Vector no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
inline bool all_equal(Vector a, Vector b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ) == 0; }
inline Vector nearest_integer(Vector x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// x 2^power for whole powers.
inline Vector times_power_of_two(Vector x, Vector power) { return _mm512_scalef_ps(x, power); }

// x in the first count lanes, zero in the others.
inline Vector first_lanes_of(Vector x, std::int64_t count) {
  return _mm512_maskz_mov_ps(first_lanes(count), x);
}
inline float sum(Vector x) { return _mm512_reduce_add_ps(x); }

// Rounded to nearest even, in the lower half of each word; a NaN stays one.
inline __m512i bf16_bits(Vector x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i kept = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, kept), 16);
}
// Words of two bf16: `first` in the lower half.
inline Vector pair_words(Vector first, Vector second) {
  return _mm512_castsi512_ps(
      _mm512_or_si512(bf16_bits(first), _mm512_slli_epi32(bf16_bits(second), 16)));
}
inline Vector first_of_pair(Vector words) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(words), 16));
}
inline Vector second_of_pair(Vector words) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(words), _mm512_set1_epi32(-0x10000)));
}
// rows[i][j] becomes rows[j][i].
inline void transpose(Vector (&rows)[kLanes]) {
  __m512 pairs[16], quads[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {
    quads[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    quads[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
  // quads[4 r + c] holds, in its four quarters, columns c, c + 4, c + 8, c + 12 of rows 4 r ...
#pragma GCC unroll 16
  for (int c = 0; c < 4; ++c) {
    const __m512 low01 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0x44);
    const __m512 high01 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0xee);
    const __m512 low23 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0x44);
    const __m512 high23 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0xee);
    rows[c] = _mm512_shuffle_f32x4(low01, low23, 0x88);
    rows[c + 4] = _mm512_shuffle_f32x4(low01, low23, 0xdd);
    rows[c + 8] = _mm512_shuffle_f32x4(high01, high23, 0x88);
    rows[c + 12] = _mm512_shuffle_f32x4(high01, high23, 0xdd);
  }
}

// Unaligned elements of a checkpoint.
inline Vector load_f32(const void* from, std::int64_t count) {
  return _mm512_maskz_loadu_ps(first_lanes(count), from);
}
inline Vector load_bf16(const void* from, std::int64_t count) {
  const __m256i bits = _mm256_maskz_loadu_epi16(first_lanes(count), from);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline Vector load_element(const float* from, std::int64_t count) { return load(from, count); }
inline Vector load_element(const bf16* from, std::int64_t count) { return load_bf16(from, count); }

// The larger of |x| and `most`, which is not negative; as bits, so that a NaN beats all numbers.
inline Vector larger_magnitude(Vector most, Vector x) {
  return _mm512_castsi512_ps(
      _mm512_max_epi32(_mm512_castps_si512(most), _mm512_castps_si512(absolute(x))));
}
// The higher of x and `most`, at least +0, and the lower of x and `least`, at most -0; as bits, so
// that a positive NaN is higher than all numbers and a negative one lower.
inline Vector higher(Vector most, Vector x) {
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(most), _mm512_castps_si512(x)));
}
inline Vector lower(Vector least, Vector x) {
  return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(least), _mm512_castps_si512(x)));
}
// The highest of lanes that are +0 at least, the lowest of lanes that are -0 at most.
inline float highest(Vector x) {
  return std::bit_cast<float>(_mm512_reduce_max_epi32(_mm512_castps_si512(x)));
}
inline float lowest(Vector x) {
  return std::bit_cast<float>(_mm512_reduce_max_epu32(_mm512_castps_si512(x)));
}
// Whole numbers from -127 to 127 in the four bytes of each word, the first lowest.
inline Vector int8_words(const Vector (&four)[4]) {
  const __m512i byte = _mm512_set1_epi32(0xff);
  __m512i words = _mm512_slli_epi32(_mm512_cvtps_epi32(four[3]), 24);
  words = _mm512_or_si512(
      words, _mm512_slli_epi32(_mm512_and_si512(_mm512_cvtps_epi32(four[2]), byte), 16));
  words = _mm512_or_si512(
      words, _mm512_slli_epi32(_mm512_and_si512(_mm512_cvtps_epi32(four[1]), byte), 8));
  return _mm512_castsi512_ps(
      _mm512_or_si512(words, _mm512_and_si512(_mm512_cvtps_epi32(four[0]), byte)));
}

inline Vector multiply_words(Vector a, Vector b, Vector c) { return multiply_add(a, b, c); }
// Words of whole numbers.
inline Vector whole_numbers(Vector words) { return _mm512_cvtepi32_ps(_mm512_castps_si512(words)); }

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

// int8 as pairs of 16 bits, where there is no VNNI: exact, and half of the memory of bf16.
namespace words {

inline Vector multiply_words(Vector a, Vector b, Vector c) {
  return _mm512_castsi512_ps(_mm512_add_epi32(
      _mm512_castps_si512(c), _mm512_madd_epi16(_mm512_castps_si512(a), _mm512_castps_si512(b))));
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
    for (std::int64_t k = 0; k < steps; k += 4, from += kPanelColumns, to += 2 * kPanelColumns) {
      const __m512i bytes = _mm512_castps_si512(load_words(from));
      // Bytes 0 and 2 of a word in its halves, with their signs, and 1 and 3.
      const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8);
      const __m512i odd = _mm512_srai_epi16(bytes, 8);
      const __m512i low = _mm512_mask_blend_epi16(0xaaaaaaaaU, even, _mm512_slli_epi32(odd, 16));
      const __m512i high = _mm512_mask_blend_epi16(0xaaaaaaaaU, _mm512_srli_epi32(even, 16), odd);
      store_words(to, _mm512_castsi512_ps(low));
      store_words(to + kPanelColumns, _mm512_castsi512_ps(high));
    }
  }

  static void store(std::byte* row, std::int64_t i, Vector x, std::int64_t count, std::int32_t) {
    _mm256_mask_storeu_epi16(row + i * std::int64_t{kOperandBytes}, first_lanes(count),
                             _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x)));
  }
  static std::int16_t element(const std::byte* row, std::int64_t i) {
    return load_unaligned<std::int16_t>(row, static_cast<std::size_t>(i));
  }
};

}  // namespace terse::avx512

TERSE_TARGET_END
TERSE_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")

// The inner loop for int8 with VNNI, which multiplies unsigned by signed: operands are counted from
// their row's least number, and that times the sum of a column's elements is added in the end.
namespace terse::avx512::vnni {

inline Vector multiply_words(Vector a, Vector b, Vector c) {
  return _mm512_castsi512_ps(
      _mm512_dpbusd_epi32(_mm512_castps_si512(c), _mm512_castps_si512(a), _mm512_castps_si512(b)));
}
// Adds least * sum of the column, exactly: two products of 16 bits, the sum cut at its seventh bit.
// vpmaddwd is one operation where vpmulld is two. (vpdpwssd would add too, but writes over a sum,
// and g++ 12 then moves sums through memory at every step of k.)
template <int VECTORS>
struct Finish {
  explicit Finish(const TileArguments& tile) : row_end(tile.row_end), row_step(tile.a_step) {
    const __m512i low = _mm512_set1_epi32(127);
    for (int v = 0; v < VECTORS; ++v) {
      const __m512i sums = _mm512_loadu_si512(tile.column_sums + v * kLanes);
      const __m512i upper = _mm512_slli_epi32(_mm512_srli_epi32(sums, 7), 16);
      halves[v] = _mm512_castsi512_ps(_mm512_or_si512(upper, _mm512_and_si512(sums, low)));
      scales[v] = load(tile.column_scales + v * kLanes);
    }
  }
  Vector operator()(int row, int v, Vector sum) const {
    const Word* end = row_end + row * row_step;
    const __m512i lacking =
        _mm512_madd_epi16(_mm512_castps_si512(broadcast_word(end + kInt8LeastHalves)),
                          _mm512_castps_si512(halves[v]));
    const __m512i exact = _mm512_add_epi32(_mm512_castps_si512(sum), lacking);
    return _mm512_cvtepi32_ps(exact) * (broadcast_word(end) * scales[v]);
  }
  const Word* row_end;
  std::int64_t row_step;
  Vector halves[static_cast<std::size_t>(VECTORS)];
  Vector scales[static_cast<std::size_t>(VECTORS)];
};

#include "terse/ops/vector/tile.inl"

}  // namespace terse::avx512::vnni

TERSE_TARGET_END
TERSE_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")

namespace terse::avx512 {

// Operands that are multiplied as they are stored in bytes, unsigned by the weights' signed ones.
struct Int8Bytes {
  static constexpr std::size_t kOperandBytes = 1;
  static constexpr std::size_t kWeightBytes = 1;
  static constexpr bool kWidened = false;
  static constexpr bool kFromLeast = true;
  static std::int64_t stride(std::int64_t width) { return quantized_stride(width, kOperandBytes); }

  static void store(std::byte* row, std::int64_t i, Vector x, std::int64_t count,
                    std::int32_t least) {
    const __m512i above = _mm512_sub_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(least));
    _mm_mask_storeu_epi8(row + i, first_lanes(count), _mm512_cvtepi32_epi8(above));
  }
  static int element(const std::byte* row, std::int64_t i) { return static_cast<int>(row[i]); }
};

struct Int8Vnni : Int8Bytes {
  using Scope = ComputeScope;
  static constexpr bool kAmx = false;
  static const auto& tiles() { return vnni::kTiles; }
};

// Products in int8, sensitive ones in f32.
template <class Products>
struct Int8Products : FloatProducts {
  using Int8 = Products;
};

// clang-format off
#include "terse/ops/vector/linear.inl"
#include "terse/ops/vector/project.inl"
#include "terse/ops/vector/softmax.inl"
#include "terse/ops/vector/attention.inl"
#include "terse/ops/vector/absorbed_attention.inl"
#include "terse/ops/vector/table.inl"
// clang-format on

}  // namespace terse::avx512

TERSE_TARGET_END
TERSE_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c")

// The same ops on words of two bf16, for processors with AVX-512 BF16. Its instructions round to
// nearest even and read and write denormal numbers as zeros.
namespace terse::avx512::pairs {

using avx512::store;
inline void store(bf16* to, Vector x, std::int64_t count) {
  _mm256_mask_storeu_epi16(to, first_lanes(count),
                           reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}
// Every other bf16 of memory, from `to` on: to[2 i] = x[i].
inline void store_alternate(bf16* to, Vector x, std::int64_t count) {
  const __m512i bits = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
  const auto even = static_cast<__mmask32>(0x55555555U & ((std::uint64_t{1} << 2 * count) - 1));
  _mm512_mask_storeu_epi16(to, even, bits);
}
// Words of two bf16: `first` in the lower half.
inline Vector pair_words(Vector first, Vector second) {
  alignas(64) static constexpr std::uint16_t kAlternate[] = {
      0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const auto halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_loadu_si512(kAlternate), halves));
}
// Adds two products to every f32.
inline Vector multiply_words(Vector a, Vector b, Vector c) {
  return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

// 2^x to a relative 3e-6, half of what two bf16 keep; exactly 0 at minus infinity; a NaN stays one.
// The instructions take the fraction and the whole part themselves: a polynomial on [0, 1).
inline Vector exp2_rounded(Vector x) {
  constexpr float kCoefficients[] = {1.35341678e-2f, 5.20114601e-2f, 2.41442755e-1f, 6.93003833e-1f,
                                     1.00000262f};
  const Vector fraction = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  return _mm512_scalef_ps(polynomial(fraction, kCoefficients), x);
}

// clang-format off
#include "terse/ops/vector/tile.inl"
#include "terse/ops/vector/rows.inl"
#include "terse/ops/vector/linear.inl"
#include "terse/ops/vector/project.inl"
#include "terse/ops/vector/softmax.inl"
#include "terse/ops/vector/attention.inl"
#include "terse/ops/vector/absorbed_attention.inl"
#include "terse/ops/vector/table.inl"
// clang-format on

// Operands, weights and the products of attention in bf16.
struct PairProducts {
  using Element = bf16;
  using Int8 = void;
  using Scope = ComputeScope;
  static constexpr std::size_t kOperandBytes = 2;
  static constexpr std::size_t kWeightBytes = 2;
  static constexpr bool kWidened = false;
  static constexpr bool kAmx = false;
  static std::int64_t stride(std::int64_t width) { return operand_stride(width, kOperandBytes); }
  static const auto& tiles() { return kTiles; }
  static Vector probability(Vector exponent) { return exp2_rounded(exponent); }
};

// Products in int8, sensitive ones in bf16.
struct Int8Products : PairProducts {
  using Int8 = Int8Vnni;
};

template <class = void>
const Backend& backend() {
  static const Backend bf16 = Ops<PairProducts>::table("avx512 bf16", Isa::avx512, DType::bf16);
  return bf16;
}
// Needs VNNI too.
template <class = void>
const Backend& int8_backend() {
  static const Backend int8 =
      Ops<Int8Products>::table("avx512 vnni int8, bf16", Isa::avx512, DType::i8);
  return int8;
}

}  // namespace terse::avx512::pairs

TERSE_TARGET_END
TERSE_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")

namespace terse::avx512 {

// bf16 weights and f32 operands, for processors without AVX-512 BF16.
template <class = void>
const Backend& widened_backend() {
  static const Backend bf16 =
      Ops<WidenedProducts>::table("avx512 widened bf16", Isa::avx512, DType::bf16);
  return bf16;
}

// int8 with f32 where it is sensitive, for processors with VNNI but not BF16, and with neither.
template <class = void>
const Backend& vnni_backend() {
  static const Backend int8 =
      Ops<Int8Products<Int8Vnni>>::table("avx512 vnni int8", Isa::avx512, DType::i8);
  return int8;
}
template <class = void>
const Backend& words_backend() {
  static const Backend int8 =
      Ops<Int8Products<Int8Words>>::table("avx512 int8", Isa::avx512, DType::i8);
  return int8;
}

// The table for products in f32, bf16 or int8. Throws Error(unsupported) for other types.
template <class = void>
const Backend& backend(DType compute) {
  static const Backend f32 = Ops<FloatProducts>::table("avx512", Isa::avx512, DType::f32);
  if (compute == DType::bf16) {
    return cpu_features().avx512_bf16 ? pairs::backend() : widened_backend();
  }
  if (compute == DType::i8) {
    if (!cpu_features().avx512_vnni) return words_backend();
    return cpu_features().avx512_bf16 ? pairs::int8_backend() : vnni_backend();
  }
  check(compute == DType::f32, ErrorClass::unsupported,
        "the AVX-512 backend computes in f32, bf16 or i8, not in ", dtype_name(compute));
  return f32;
}

}  // namespace terse::avx512

TERSE_TARGET_END

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
