// What the cores can do at this moment: products whose operands never leave the registers. A share
// of this is comparable between machines, and between a quiet minute and a busy one; a number of
// operations a second is not. One multiply and add counts as two operations.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "terse/cpu.h"
#include "terse/dtype.h"
#include "terse/parallel.h"

namespace terse {

// A loop of products: operations done in `steps` rounds.
struct Probe {
  std::string_view name;  // of the instruction
  double (*run)(std::int64_t steps) = nullptr;
  std::int64_t slice_steps = 0;  // about a millisecond
};

namespace detail {

// Sixteen chains of scalar multiplies and adds, for processors without a loop of their own below.
inline double probe_plain(std::int64_t steps) {
  volatile float one = 1;
  float sums[16] = {};
  const float factor = one * 1.5f;
  for (std::int64_t step = 0; step < steps; ++step) {
    for (float& sum : sums) sum = sum * factor + 1e-9f;
  }
  for (const float sum : sums) one = sum;
  return static_cast<double>(steps) * 16 * 2;
}

#if defined(__x86_64__)

// The empty statement asks for a vector in a register, so that no sum is folded, moved or kept in
// memory; an asm statement takes at most 30 operands.
#define TERSE_KEEP_12(constraint, x)                                               \
  asm volatile(""                                                                  \
               : "+" constraint(x[0]), "+" constraint(x[1]), "+" constraint(x[2]), \
                 "+" constraint(x[3]), "+" constraint(x[4]), "+" constraint(x[5]), \
                 "+" constraint(x[6]), "+" constraint(x[7]), "+" constraint(x[8]), \
                 "+" constraint(x[9]), "+" constraint(x[10]), "+" constraint(x[11]))

__attribute__((target("avx2,fma"))) inline double probe_f32_avx2(std::int64_t steps) {
  const __m256 a = _mm256_set1_ps(1.5f);
  const __m256 b = _mm256_set1_ps(1e-9f);
  __m256 sums[12];
#pragma GCC unroll 24
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 24
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(a, b, sum);
    TERSE_KEEP_12("x", sums);
  }
  return static_cast<double>(steps) * 12 * 8 * 2;
}

// Without VNNI: bytes to words, words to 32 bits, and a sum.
__attribute__((target("avx2"))) inline double probe_i8_avx2(std::int64_t steps) {
  const __m256i a = _mm256_set1_epi8(0x5a);
  const __m256i b = _mm256_set1_epi8(0x33);
  const __m256i one = _mm256_set1_epi16(1);
  __m256i sums[12];
#pragma GCC unroll 24
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 24
    for (__m256i& sum : sums) {
      __m256i bytes = a;
      asm volatile("" : "+x"(bytes));  // a new operand each time: the product is not one constant
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(one, _mm256_maddubs_epi16(bytes, b)));
    }
    TERSE_KEEP_12("x", sums);
  }
  return static_cast<double>(steps) * 12 * 32 * 2;
}

__attribute__((target("avx512f"))) inline double probe_f32_avx512(std::int64_t steps) {
  const __m512 a = _mm512_set1_ps(1.5f);
  const __m512 b = _mm512_set1_ps(1e-9f);
  __m512 sums[24];
#pragma GCC unroll 24
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(a, b, sum);
    __m512* half = sums + 12;
    TERSE_KEEP_12("v", sums);
    TERSE_KEEP_12("v", half);
  }
  return static_cast<double>(steps) * 24 * 16 * 2;
}

__attribute__((target("avx512f,avx512bf16"))) inline double probe_bf16_avx512(std::int64_t steps) {
  const __m512i a = _mm512_set1_epi32(0x3fc03fc0);  // pairs of 1.5
  const __m512i b = _mm512_set1_epi32(0x30893089);  // and of 1e-9
  __m512bh first;
  __m512bh second;
  std::memcpy(&first, &a, sizeof(first));
  std::memcpy(&second, &b, sizeof(second));
  __m512 sums[24];
#pragma GCC unroll 24
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, first, second);
    __m512* half = sums + 12;
    TERSE_KEEP_12("v", sums);
    TERSE_KEEP_12("v", half);
  }
  return static_cast<double>(steps) * 24 * 32 * 2;
}

__attribute__((target("avx512f,avx512vnni"))) inline double probe_i8_avx512(std::int64_t steps) {
  const __m512i a = _mm512_set1_epi32(0x5a5a5a5a);
  const __m512i b = _mm512_set1_epi32(0x33cc33cc);
  __m512i sums[24];
#pragma GCC unroll 24
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 24
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, b);
    __m512i* half = sums + 12;
    TERSE_KEEP_12("v", sums);
    TERSE_KEEP_12("v", half);
  }
  return static_cast<double>(steps) * 24 * 64 * 2;
}

struct alignas(64) ProbeTiles {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

__attribute__((target("amx-tile"))) inline void configure_probe_tiles() {
  const ProbeTiles tiles;
  // GCC 12's intrinsic declares only the first 8 of these 64 bytes as read.
  asm volatile("" ::"m"(tiles), "r"(&tiles) : "memory");
  _tile_loadconfig(&tiles);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

__attribute__((target("amx-tile,amx-bf16"))) inline double probe_bf16_amx(std::int64_t steps) {
  configure_probe_tiles();
  for (std::int64_t step = 0; step < steps; ++step) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return static_cast<double>(steps) * 4 * 16 * 16 * 32 * 2;
}

__attribute__((target("amx-tile,amx-int8"))) inline double probe_i8_amx(std::int64_t steps) {
  configure_probe_tiles();
  for (std::int64_t step = 0; step < steps; ++step) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
  return static_cast<double>(steps) * 4 * 16 * 16 * 64 * 2;
}

#undef TERSE_KEEP_12

#endif

}  // namespace detail

// The loop for products of a type with what an instruction set has: bf16 counts as f32 where bf16
// weights are widened. The instruction set must be available.
inline Probe find_probe(DType dtype, Isa isa) {
#if defined(__x86_64__)
  const CpuFeatures& cpu = cpu_features();
  if (isa >= Isa::amx && dtype == DType::bf16) {
    return {"tdpbf16ps", detail::probe_bf16_amx, 15'000};
  }
  if (isa >= Isa::amx && dtype == DType::i8 && cpu.amx_int8) {
    return {"tdpbssd", detail::probe_i8_amx, 15'000};
  }
  if (isa >= Isa::avx512 && dtype == DType::bf16 && cpu.avx512_bf16) {
    return {"vdpbf16ps zmm", detail::probe_bf16_avx512, 100'000};
  }
  if (isa >= Isa::avx512 && dtype == DType::i8 && cpu.avx512_vnni) {
    return {"vpdpbusd zmm", detail::probe_i8_avx512, 100'000};
  }
  if (isa >= Isa::avx512 && dtype != DType::i8) {
    return {"vfmadd231ps zmm", detail::probe_f32_avx512, 100'000};
  }
  if (isa >= Isa::avx2 && dtype == DType::i8) {
    return {"vpmaddubsw ymm", detail::probe_i8_avx2, 150'000};
  }
  if (isa >= Isa::avx2) return {"vfmadd231ps ymm", detail::probe_f32_avx2, 400'000};
#endif
  return {"scalar multiply and add", detail::probe_plain, 100'000};
}

// Processor time of the calling thread: what others take from a busy core does not count.
inline double thread_seconds() {
  struct timespec time = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Operations per second of processor time that `threads` cores do together: of each the best slice
// of about `milliseconds` of them.
inline double measure_probe(const Probe& probe, int threads, double milliseconds = 30) {
  std::vector<double> best(static_cast<std::size_t>(threads), 0.0);
  parallel_ranges(threads, threads, [&](std::int64_t, std::int64_t, int worker) {
    const double begin = thread_seconds();
    double last = begin;
    do {
      const double operations = probe.run(probe.slice_steps);
      const double now = thread_seconds();
      double& rate = best[static_cast<std::size_t>(worker)];
      rate = std::max(rate, operations / std::max(now - last, 1e-9));
      last = now;
    } while ((last - begin) * 1e3 < milliseconds);
  });
  double sum = 0;
  for (const double rate : best) sum += rate;
  return sum;
}

}  // namespace terse
