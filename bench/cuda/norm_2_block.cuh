// Norm, step 2: one block a row, its columns dealt out in turn, so that a warp reads whole lines;
// the sums meet in shuffles and shared memory.
//
// Still wrong: both tensors are read three times, four bytes a load.
#pragma once

#include "norm.cuh"

namespace terse::cuda::ladder {

template <class T>
__global__ void __launch_bounds__(kRowThreads) norm_2_block(const AddNormStep step) {
  KSHARED(float, partial, kRowThreads / 32);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * step.width;
  const auto x = [&](int column) {
    return step.residual[first + column] + step.product[first + column];
  };
  float sum = 0;
  each_own_column<1>(step.width, [&](int column) { sum += x(column); });
  const float mean = block_sum(sum, partial) / static_cast<float>(step.width);
  float squares = 0;
  each_own_column<1>(step.width,
                     [&](int column) { squares += (x(column) - mean) * (x(column) - mean); });
  const float inverse = 1.0F / sqrtf(block_sum(squares, partial) / static_cast<float>(step.width) +
                                     step.sum_norm.eps);
  each_own_column<1>(step.width, [&](int column) {
    const float y =
        (x(column) - mean) * inverse * step.sum_norm.weight[column] + step.sum_norm.bias[column];
    step.written_residual[first + column] = y;
    static_cast<T*>(step.out)[first + column] = from_float<T>(y);
  });
}

}  // namespace terse::cuda::ladder
