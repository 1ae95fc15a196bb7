// Norm, step 3: the row stays in shared memory, each thread's own columns, so that both tensors are
// read once and the rest needs no further barrier than its sums.
//
// Still wrong: four bytes a load and two bytes a store, where 16 and 8 are possible. Step 4, the
// shipped add_norm_kernel, takes four columns at a time.
#pragma once

#include "norm.cuh"

namespace terse::cuda::ladder {

template <class T>
__global__ void __launch_bounds__(kRowThreads) norm_3_once(const AddNormStep step) {
  KSHARED_DYN(float, row_values);
  KSHARED(float, partial, kRowThreads / 32);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * step.width;
  each_own_column<1>(step.width, [&](int column) {
    row_values[column] = step.residual[first + column] + step.product[first + column];
  });
  normalise_row<1>(step.sum_norm, row_values, step.width, partial);
  each_own_column<1>(step.width, [&](int column) {
    step.written_residual[first + column] = row_values[column];
    static_cast<T*>(step.out)[first + column] = from_float<T>(row_values[column]);
  });
}

}  // namespace terse::cuda::ladder
