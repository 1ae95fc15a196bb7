// Means of runs of rows in packed layout: token compression, selection of rows, mean pooling.
//
// A span of n rows of width W: reads 4 n W bytes, writes 4 W, n W FLOPs. Bound by memory: each row
// is read once.
#pragma once

#include "common.cuh"

namespace terse::cuda {

// See MeanRowsStep. One block a row of the result; each column is summed in rising order of rows by
// one thread and divided once, a span of one row is copied.
template <int N>
__global__ void __launch_bounds__(kRowThreads) mean_rows_kernel(const MeanRowsStep step) {
  const std::int64_t width = static_cast<std::int64_t>(step.width);
  const int begin = step.spans[2 * blockIdx.x];
  const int end = step.spans[2 * blockIdx.x + 1];
  each_own_column<N>(step.width, [&](int column) {
    float sum[N];
    load_floats<N>(step.x + begin * width + column, sum);
    for (int member = begin + 1; member < end; ++member) {
      float x[N];
      load_floats<N>(step.x + member * width + column, x);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += x[i];
    }
    if (end - begin > 1) {
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] = sum[i] / static_cast<float>(end - begin);
    }
    store_floats<N>(step.out + blockIdx.x * width + column, sum);
  });
}

}  // namespace terse::cuda
