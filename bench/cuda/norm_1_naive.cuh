// Norm, step 1: one thread a row. x = residual + product; residual = layer norm of x, out = the
// same in T. See AddNormStep; the ladder has no bias of the product and no other norm.
//
// Wrong with it: neighbouring threads read addresses a row apart, so each load of 4 bytes costs a
// whole line of 32; x is computed three times, so both tensors are read three times.
#pragma once

#include "norm.cuh"

namespace terse::cuda::ladder {

template <class T>
__global__ void __launch_bounds__(kRowThreads) norm_1_naive(const AddNormStep step) {
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= step.rows) return;
  const std::int64_t first = static_cast<std::int64_t>(row) * step.width;
  const auto x = [&](int column) {
    return step.residual[first + column] + step.product[first + column];
  };
  float sum = 0;
  for (int column = 0; column < step.width; ++column) sum += x(column);
  const float mean = sum / static_cast<float>(step.width);
  float squares = 0;
  for (int column = 0; column < step.width; ++column) {
    squares += (x(column) - mean) * (x(column) - mean);
  }
  const float inverse = 1.0F / sqrtf(squares / static_cast<float>(step.width) + step.sum_norm.eps);
  for (int column = 0; column < step.width; ++column) {
    const float y =
        (x(column) - mean) * inverse * step.sum_norm.weight[column] + step.sum_norm.bias[column];
    step.written_residual[first + column] = y;
    static_cast<T*>(step.out)[first + column] = from_float<T>(y);
  }
}

}  // namespace terse::cuda::ladder
