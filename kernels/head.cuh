// The end of heads: scores of rerankers, vectors of embedders, sparse weights and token vectors of
// bge-m3.
//
// A row of `columns` values: reads 4 bytes of each, writes 4 of each that is kept; about 10 FLOPs a
// value. Bound by memory, and by launch for scores: each value is read once.
#pragma once

#include "common.cuh"

namespace terse::cuda {

// See FinishHeadStep. One block a row; columns past the kept ones are not read.
template <int N>
__global__ void __launch_bounds__(kRowThreads) finish_head_kernel(const FinishHeadStep step) {
  KSHARED_DYN(float, row_values);
  KSHARED(float, partial, kRowThreads / 32);
  const float* product = step.product + static_cast<std::int64_t>(blockIdx.x) * step.columns;
  float squares = 0;
  each_own_column<N>(step.kept, [&](int column) {
    float x[N], bias[N] = {};
    load_floats<N>(product + column, x);
    if (step.bias != nullptr) load_floats<N>(step.bias + column, bias);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] += bias[i];
    activate_all<float>(step.activation, x);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (step.softcap > 0) x[i] = step.softcap * tanh_f32(x[i] / step.softcap);
      squares += x[i] * x[i];
    }
    store_floats<N>(row_values + column, x);
  });
  float norm = 1;
  if (step.l2_normalize != 0) norm = fmaxf(sqrtf(block_sum(squares, partial)), 1e-12F);
  each_own_column<N>(step.kept, [&](int column) {
    float x[N];
    load_floats<N>(row_values + column, x);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = x[i] / norm;
    store_floats<N>(step.out + static_cast<std::int64_t>(blockIdx.x) * step.kept + column, x);
  });
}

}  // namespace terse::cuda
