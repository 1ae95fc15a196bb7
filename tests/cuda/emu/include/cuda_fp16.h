// Stand-in for the toolkit's <cuda_fp16.h>: the storage type alone, as kernels use none of its
// arithmetic.
#pragma once

struct __half {
  unsigned short bits;
};
