// The types, constants and functions of cuBLAS and cuBLASLt that terse may use, under the toolkit's
// names. Included by the stand-ins <cublas_v2.h> and <cublasLt.h>.
#pragma once

#include "runtime_types.h"

using cublasHandle_t = struct cublasContext*;
using cublasLtHandle_t = struct cublasLtContext*;
using cublasLtMatmulDesc_t = struct cublasLtMatmulDescOpaque_t*;
using cublasLtMatrixLayout_t = struct cublasLtMatrixLayoutOpaque_t*;
using cublasLtMatmulPreference_t = struct cublasLtMatmulPreferenceOpaque_t*;

#define EMU_BEGIN(type) enum type {
#define EMU_VALUE(name, value) name = value,
#define EMU_END(type) \
  }                   \
  ;
#define EMU_FUNCTION(result, name, parameters) result name parameters;
#include "blas_api.inc"
#undef EMU_BEGIN
#undef EMU_VALUE
#undef EMU_END
#undef EMU_FUNCTION
