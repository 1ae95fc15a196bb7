// What follows the products that are added to the residual stream: bias, norm of the product, the
// sum, its norm, and the operand of the next product, in one pass over the row.
//
// A row of width W and operands of t bytes: reads 4 W of product and 4 W of residual, writes 4 W of
// residual and t W of operand (14 W bytes in bf16); about 20 W FLOPs with two norms. Bound by
// memory: each tensor is read once and written once. Products stay f32 on their way to the residual
// stream: rounded to bf16 they would cost 2 W bytes less and more error than all roundings of
// operands.
#pragma once

#include "common.cuh"

namespace terse::cuda {

// See AddNormStep. One block a row.
template <class T, int N>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks) add_norm_kernel(const AddNormStep step) {
  KSHARED_DYN(float, row_values);
  KSHARED(float, partial, kRowThreads / 32);
  const int width = step.width;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * width;
  if (step.product != nullptr) {
    const float* product = step.product + first;
    each_own_column<N>(width, [&](int column) {
      float x[N], bias[N] = {};
      load_floats<N>(product + column, x);
      if (step.bias != nullptr) load_floats<N>(step.bias + column, bias);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] += bias[i];
      store_floats<N>(row_values + column, x);
    });
    normalise_row<N>(step.product_norm, row_values, width, partial);
  }
  each_own_column<N>(width, [&](int column) {
    float x[N];
    load_floats<N>(step.residual + first + column, x);
    if (step.product != nullptr) {
      float y[N];
      load_floats<N>(row_values + column, y);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] += step.factor * y[i];
    }
    store_floats<N>(row_values + column, x);
  });
  normalise_row<N>(step.sum_norm, row_values, width, partial);
  if (step.written_residual != nullptr) {
    each_own_column<N>(width, [&](int column) {
      float x[N];
      load_floats<N>(row_values + column, x);
      store_floats<N>(step.written_residual + first + column, x);
    });
  }
  if (step.out == nullptr) return;
  normalise_row<N>(step.next_norm, row_values, width, partial);
  each_own_column<N>(width, [&](int column) {
    float x[N];
    load_floats<N>(row_values + column, x);
    store_floats<N>(static_cast<T*>(step.out) + first + column, x);
  });
}

}  // namespace terse::cuda
