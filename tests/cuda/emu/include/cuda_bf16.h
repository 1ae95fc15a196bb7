// Stand-in for the toolkit's <cuda_bf16.h>: the storage type alone, as kernels use none of its
// arithmetic.
#pragma once

struct __nv_bfloat16 {
  unsigned short bits;
};
