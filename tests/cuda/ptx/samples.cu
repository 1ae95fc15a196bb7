// The samples as nvcc sees them.
#include "samples.cuh"

namespace terse::cuda::samples {

template __global__ void rms_norm_kernel(const float*, const float*, float*, int, float);
template __global__ void rms_norm_kernel(const bf16*, const bf16*, bf16*, int, float);
template __global__ void rms_norm_kernel(const f16*, const f16*, f16*, int, float);
template __global__ void matmul_kernel(const bf16*, const bf16*, float*, int, int);
template __global__ void matmul_kernel(const f16*, const f16*, float*, int, int);

}  // namespace terse::cuda::samples
