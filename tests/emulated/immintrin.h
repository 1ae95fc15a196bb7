// Stands before the compiler's <immintrin.h> on the include path of tests that run AVX-512 and AMX
// code on any processor with AVX2: the intrinsics that the library uses become models, AVX2 and
// below stay what they are. Needs TERSE_EMULATED, see ops/target.h.
//
// An intrinsic without a model is a compile error: the compiler refuses to inline it.
#pragma once

#include_next <immintrin.h>

#ifndef TERSE_EMULATED
#error "only for files compiled with TERSE_EMULATED"
#endif

#include "amx_model.h"
#include "avx512_model.h"
#include "int8_model.h"

// Some are macros where the compiler does not optimise.
#undef _mm512_cmp_ps_mask
#undef _mm512_reduce_ps
#undef _mm512_roundscale_ps
#undef _mm512_mask_blend_epi16
#undef _mm512_shuffle_f32x4
#undef _mm512_shuffle_ps
#undef _mm512_slli_epi32
#undef _mm512_srli_epi32
#undef _tile_dpbf16ps
#undef _tile_dpbusd
#undef _tile_loadd
#undef _tile_stored
#undef _tile_stream_loadd
#undef _tile_zero

#define _mm256_mask_storeu_epi16 emulated::mask_storeu_epi16_256
#define _mm256_maskz_loadu_epi16 emulated::maskz_loadu_epi16_256
#define _mm512_abs_ps emulated::abs_ps
#define _mm512_add_epi32 emulated::add_epi32
#define _mm512_and_ps emulated::and_ps
#define _mm512_and_si512 emulated::and_si512
#define _mm512_castps_si512 emulated::castps_si512
#define _mm512_castsi512_ps emulated::castsi512_ps
#define _mm512_cmp_ps_mask emulated::cmp_ps_mask
#define _mm512_cvtepi32_epi16 emulated::cvtepi32_epi16
#define _mm512_cvtepi32_epi8 emulated::cvtepi32_epi8
#define _mm512_cvtepi32_ps emulated::cvtepi32_ps
#define _mm512_cvtepu16_epi32 emulated::cvtepu16_epi32
#define _mm512_cvtne2ps_pbh emulated::cvtne2ps_pbh
#define _mm512_cvtneps_pbh emulated::cvtneps_pbh
#define _mm512_cvtps_epi32 emulated::cvtps_epi32
#define _mm512_dpbf16_ps emulated::dpbf16_ps
#define _mm512_dpbusd_epi32 emulated::dpbusd_epi32
#define _mm512_fmadd_ps emulated::fmadd_ps
#define _mm512_loadu_ps emulated::loadu_ps
#define _mm512_loadu_si512 emulated::loadu_si512
#define _mm512_madd_epi16 emulated::madd_epi16
#define _mm512_mask_blend_epi16 emulated::mask_blend_epi16
#define _mm512_mask_blend_epi32 emulated::mask_blend_epi32
#define _mm512_mask_blend_ps emulated::mask_blend_ps
#define _mm512_mask_storeu_epi16 emulated::mask_storeu_epi16
#define _mm512_mask_storeu_ps emulated::mask_storeu_ps
#define _mm512_maskz_loadu_ps emulated::maskz_loadu_ps
#define _mm512_maskz_mov_ps emulated::maskz_mov_ps
#define _mm512_max_epi32 emulated::max_epi32
#define _mm512_max_epu32 emulated::max_epu32
#define _mm512_max_ps emulated::max_ps
#define _mm512_min_ps emulated::min_ps
#define _mm512_mullo_epi32 emulated::mullo_epi32
#define _mm512_or_ps emulated::or_ps
#define _mm512_or_si512 emulated::or_si512
#define _mm512_permutexvar_epi16 emulated::permutexvar_epi16
#define _mm512_reduce_add_ps emulated::reduce_add_ps
#define _mm512_reduce_max_epi32 emulated::reduce_max_epi32
#define _mm512_reduce_max_epu32 emulated::reduce_max_epu32
#define _mm512_reduce_ps emulated::reduce_ps
#define _mm512_roundscale_ps emulated::roundscale_ps
#define _mm512_scalef_ps emulated::scalef_ps
#define _mm512_set1_epi32 emulated::set1_epi32
#define _mm512_set1_ps emulated::set1_ps
#define _mm512_setzero_ps emulated::setzero_ps
#define _mm512_shuffle_f32x4 emulated::shuffle_f32x4
#define _mm512_shuffle_ps emulated::shuffle_ps
#define _mm512_slli_epi16 emulated::slli_epi16
#define _mm512_slli_epi32 emulated::slli_epi32
#define _mm512_srai_epi16 emulated::srai_epi16
#define _mm512_srli_epi32 emulated::srli_epi32
#define _mm512_storeu_ps emulated::storeu_ps
#define _mm512_sub_epi32 emulated::sub_epi32
#define _mm512_unpackhi_ps emulated::unpackhi_ps
#define _mm512_unpacklo_ps emulated::unpacklo_ps
#define _mm_mask_storeu_epi8 emulated::mask_storeu_epi8_128

#define _tile_dpbf16ps emulated::tiles().dpbf16ps
#define _tile_dpbusd emulated::tiles().dpbusd
#define _tile_loadconfig emulated::tiles().configure
#define _tile_loadd emulated::tiles().load
#define _tile_release emulated::tiles().release
#define _tile_stored emulated::tiles().store
#define _tile_stream_loadd emulated::tiles().load
#define _tile_zero emulated::tiles().zero
