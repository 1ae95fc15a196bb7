// Opens and closes the region of a header that is compiled for an instruction set, whatever the
// flags of the including file:
//
//   TERSE_TARGET_BEGIN("avx2,fma")
//   ... functions, called only where the processor has it ...
//   TERSE_TARGET_END
//
// All standard headers come before it. Regions are not nested: in clang targets do not add up, of
// two the outer one counts.
//
// TERSE_EMULATED is defined by tests that put models of the instructions in the place of
// <immintrin.h> (tests/emulated), so that these files run where the processor lacks the
// instructions. Then the compiler may use none of them, only what the models themselves are
// compiled for.
#pragma once

#define TERSE_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define TERSE_TARGET_PUSH(features) \
  TERSE_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define TERSE_TARGET_END TERSE_PRAGMA(clang attribute pop)
#else
#define TERSE_TARGET_PUSH(features) \
  TERSE_PRAGMA(GCC push_options) TERSE_PRAGMA(GCC target(features))
#define TERSE_TARGET_END TERSE_PRAGMA(GCC pop_options)
#endif

#ifdef TERSE_EMULATED
#define TERSE_TARGET_BEGIN(features) TERSE_TARGET_PUSH("avx2,fma,f16c")
#else
#define TERSE_TARGET_BEGIN(features) TERSE_TARGET_PUSH(features)
#endif
