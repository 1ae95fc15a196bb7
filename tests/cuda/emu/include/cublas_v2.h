// Stand-in for the toolkit's <cublas_v2.h>.
#pragma once

#include "../blas_types.h"

#define cublasCreate cublasCreate_v2
#define cublasDestroy cublasDestroy_v2
#define cublasSetStream cublasSetStream_v2
#define cublasSetWorkspace cublasSetWorkspace_v2
