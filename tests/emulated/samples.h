// One use of each instruction whose rounding, order or masking a model could get wrong, on blocks
// of 64 bytes. Compiled twice: with models in the place of the intrinsics, and with the
// instructions.
#pragma once

#include <immintrin.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "terse/cpu.h"
#include "terse/ops/target.h"

namespace terse_test {

struct alignas(64) Block {
  std::array<std::uint32_t, 16> words = {};
};

struct Sample {
  const char* name;
  bool available;  // on this processor
  void (*run)(const Block& x, const Block& y, const Block& z, Block& out);
};

const std::vector<Sample>& native_samples();

// Of a thread's tiles: 0 is C (1 row of 16 words), 4 is A (1 row of 2 words), 6 is B (2 rows).
inline constexpr Block kProductConfig = [] {
  Block config;
  config.words[0] = 1;         // palette
  config.words[4] = 64;        // bytes a row of tiles 0 and 1, two bytes each
  config.words[6] = 8;         // of 4 and 5
  config.words[7] = 64;        // of 6 and 7
  config.words[12] = 1;        // rows of tiles 0 to 3, one byte each
  config.words[13] = 0x20001;  // of 4 to 7
  return config;
}();

}  // namespace terse_test

TERSE_TARGET_BEGIN(
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,amx-tile,amx-bf16,amx-int8,fma")

namespace {

using terse_test::Block;

inline __m512 load(const Block& x) { return _mm512_loadu_ps(&x); }
inline void store(Block& to, __m512 x) { _mm512_storeu_ps(&to, x); }

void fmadd(const Block& x, const Block& y, const Block& z, Block& out) {
  store(out, _mm512_fmadd_ps(load(x), load(y), load(z)));
}
void maximum(const Block& x, const Block& y, const Block&, Block& out) {
  store(out, _mm512_max_ps(load(x), load(y)));
}
void scalef(const Block& x, const Block& y, const Block&, Block& out) {
  store(out, _mm512_scalef_ps(load(x), load(y)));
}
void roundscale(const Block& x, const Block&, const Block&, Block& out) {
  store(out, _mm512_roundscale_ps(load(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
void compare(const Block& x, const Block& y, const Block& z, Block& out) {
  store(out,
        _mm512_mask_blend_ps(_mm512_cmp_ps_mask(load(x), load(y), _CMP_LT_OQ), load(x), load(z)));
}
void shuffle(const Block& x, const Block& y, const Block&, Block& out) {
  store(out, _mm512_shuffle_f32x4(_mm512_shuffle_ps(load(x), load(y), 0x8d),
                                  _mm512_unpackhi_ps(load(x), load(y)), 0x93));
}
void permute(const Block& x, const Block& y, const Block&, Block& out) {
  store(out, _mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_castps_si512(load(y)),
                                                          _mm512_castps_si512(load(x)))));
}
void two_to_bf16(const Block& x, const Block& y, const Block&, Block& out) {
  store(out, reinterpret_cast<__m512>(_mm512_cvtne2ps_pbh(load(x), load(y))));
}
void reduce(const Block& x, const Block&, const Block&, Block& out) {
  store(out, _mm512_reduce_ps(load(x), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
}
void masked(const Block& x, const Block& y, const Block&, Block& out) {
  out = y;
  _mm512_mask_storeu_ps(&out, 0x5a3c, _mm512_maskz_loadu_ps(0x0ff0, &x));
}
void to_bf16(const Block& x, const Block&, const Block&, Block& out) {
  const __m256bh y = _mm512_cvtneps_pbh(load(x));
  out = {};
  std::memcpy(out.words.data(), &y, sizeof(y));
}
void dot_bf16(const Block& x, const Block& y, const Block& z, Block& out) {
  store(out, _mm512_dpbf16_ps(load(z), reinterpret_cast<__m512bh>(load(x)),
                              reinterpret_cast<__m512bh>(load(y))));
}
void dot_int8(const Block& x, const Block& y, const Block& z, Block& out) {
  store(out, _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(load(z)),
                                                     _mm512_castps_si512(load(x)),
                                                     _mm512_castps_si512(load(y)))));
}
void multiply_words(const Block& x, const Block& y, const Block&, Block& out) {
  store(out, _mm512_castsi512_ps(
                 _mm512_madd_epi16(_mm512_castps_si512(load(x)), _mm512_castps_si512(load(y)))));
}
// out = z + the first two words of x times the rows x and y.
template <bool INT8>
void tile_product(const Block& x, const Block& y, const Block& z, Block& out) {
  const Block b[2] = {x, y};
  out = z;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  _tile_loadconfig(&terse_test::kProductConfig);
  _tile_loadd(0, &out, 64);
  _tile_loadd(4, &x, 64);
  __asm__ volatile("" : : "m"(b));
  _tile_loadd(6, b, 64);
  if constexpr (INT8) _tile_dpbusd(0, 4, 6);
  if constexpr (!INT8) _tile_dpbf16ps(0, 4, 6);
  _tile_stored(0, &out, 64);
  _tile_release();
}

}  // namespace

TERSE_TARGET_END

namespace {

// Outside of the region: this runs on any processor.
inline std::vector<terse_test::Sample> make_samples() {
  const terse::CpuFeatures& cpu = terse::cpu_features();
  const bool amx = terse::isa_available(terse::Isa::amx);
  return {{"vfmaddps", cpu.avx512, fmadd},
          {"vmaxps", cpu.avx512, maximum},
          {"vscalefps", cpu.avx512, scalef},
          {"vrndscaleps", cpu.avx512, roundscale},
          {"vcmpps", cpu.avx512, compare},
          {"vshufps", cpu.avx512, shuffle},
          {"vpermw", cpu.avx512, permute},
          {"vreduceps", cpu.avx512, reduce},
          {"masked vmovups", cpu.avx512, masked},
          {"vcvtneps2bf16", cpu.avx512_bf16, to_bf16},
          {"vcvtne2ps2bf16", cpu.avx512_bf16, two_to_bf16},
          {"vdpbf16ps", cpu.avx512_bf16, dot_bf16},
          {"vpdpbusd", cpu.avx512_vnni, dot_int8},
          {"vpmaddwd", cpu.avx512, multiply_words},
          {"tdpbf16ps", amx, tile_product<false>},
          {"tdpbusd", amx, tile_product<true>}};
}

}  // namespace
