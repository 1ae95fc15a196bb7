// Stand-in for the toolkit's <cublasLt.h>.
#pragma once

#include "../blas_types.h"
