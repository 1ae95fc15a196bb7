// All op tables: the only header that knows them.
//
// Compiling the tables takes a fifth of the time of this whole library, and most files of a program
// only pass models and scores around. So every function on the way from Reranker::load to a table
// is a template, though it needs no parameter (template <class = void>), as are Reranker and
// Embedder themselves: a file compiles only what it calls.
#pragma once

#include <optional>

#include "terse/cpu.h"
#include "terse/device.h"
#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/ops/amx.h"
#include "terse/ops/avx2.h"
#include "terse/ops/avx512.h"
#include "terse/ops/backend.h"
#include "terse/ops/eigen.h"
#include "terse/ops/reference.h"
#ifdef TERSE_WITH_CUDA
#include "terse/ops/cuda_backend.h"
#endif

namespace terse::detail {

// The type that products take on their own: bf16 where an instruction multiplies it, which errs no
// more than the reference does in bf16 (docs/accuracy.md); elsewhere it would only cost digits.
inline DType automatic_dtype(std::optional<Isa> isa) {
  const Isa wanted = isa ? require_isa(*isa) : best_isa();
  const bool multiplies =
      wanted == Isa::amx || (wanted == Isa::avx512 && cpu_features().avx512_bf16);
  return multiplies ? DType::bf16 : DType::f32;
}

// See choose_backend. Types that no fast table has (f64, f16) are the reference's.
template <class = void>
const Backend& find_table(std::optional<Isa> isa, std::optional<DType> dtype) {
  const DType compute = dtype ? *dtype : automatic_dtype(isa);
  const bool fast = compute == DType::f32 || compute == DType::bf16 || compute == DType::i8;
  const Isa wanted = isa ? require_isa(*isa) : fast ? best_isa() : Isa::reference;
#if defined(__x86_64__)
  if (wanted == Isa::amx && compute == DType::bf16) return amx::backend();
  if (wanted == Isa::amx && compute == DType::i8) return amx::int8_backend();
  if (wanted >= Isa::avx512) return avx512::backend(compute);
  if (wanted == Isa::avx2) return avx2::backend(compute);
#endif
  return eigen::backend(compute);
}

// The table of the CUDA devices, bf16 if no type is asked for. Throws Error: device, unsupported.
template <class = void>
const Backend& find_cuda_table([[maybe_unused]] std::optional<DType> dtype) {
#ifdef TERSE_WITH_CUDA
  return cuda::backend(dtype.value_or(DType::bf16));
#else
  fail(ErrorClass::device, "this program was built without CUDA");
#endif
}

}  // namespace terse::detail
