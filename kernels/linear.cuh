// The end of the product with the stacked weights of queries, keys and values, where heads turn or
// are padded: bias, rotary turn, query scale, in one pass. Others cuBLAS leaves as attention wants
// them.
//
// A row of width W = (heads + 2 kv_heads) head_dim to elements of t bytes: reads 4 W, writes t W
// (more where heads are padded), and 4 head_dim bytes of rotary table that stay in the cache; at
// most 4 W FLOPs. Bound by memory: each element is read once and written once. The product comes in
// f32, so that what is turned and scaled is rounded once.
#pragma once

#include "common.cuh"

namespace terse::cuda {

// See TurnHeadsStep. One block a row; a thread takes N pairs (c, head_dim / 2 + c) of a head.
template <class T, int N>
__global__ void __launch_bounds__(kRowThreads) turn_heads_kernel(const TurnHeadsStep step) {
  const int row = static_cast<int>(blockIdx.x);
  const int head_dim = step.head_dim;
  const int half =
      (head_dim + 1) / 2;  // an odd head size has no rotary: its last pair is one value
  const int units = (half + N - 1) / N;
  const int all_heads = step.heads + 2 * step.kv_heads;
  const float* product = step.product + static_cast<std::int64_t>(row) * all_heads * head_dim;
  for (int unit = static_cast<int>(threadIdx.x); unit < all_heads * units; unit += kRowThreads) {
    const int head = unit / units;
    const int c = unit % units * N;
    const bool has_second = half + c < head_dim;
    float first[N], second[N] = {};
    load_floats<N>(product + head * head_dim + c, first);
    if (has_second) load_floats<N>(product + head * head_dim + half + c, second);
    if (step.bias != nullptr) {
      float bias[N];
      load_floats<N>(step.bias + head * head_dim + c, bias);
#pragma unroll
      for (int i = 0; i < N; ++i) first[i] += bias[i];
      if (has_second) {
        load_floats<N>(step.bias + head * head_dim + half + c, bias);
#pragma unroll
        for (int i = 0; i < N; ++i) second[i] += bias[i];
      }
    }
    if (step.cos != nullptr && head < step.heads + step.kv_heads) {
      const std::int64_t at = static_cast<std::int64_t>(step.positions[row]) * half + c;
      float cos[N], sin[N];
      load_floats<N>(step.cos + at, cos);
      load_floats<N>(step.sin + at, sin);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float x = first[i];
        first[i] = x * cos[i] - second[i] * sin[i];
        second[i] = second[i] * cos[i] + x * sin[i];
      }
    }
    if (head < step.heads) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        first[i] *= step.query_scale;
        second[i] *= step.query_scale;
      }
    }
    T* to = static_cast<T*>(step.out) +
            (static_cast<std::int64_t>(row) * all_heads + head) * step.padded_dim;
    store_floats<N>(to + c, first);
    if (has_second) store_floats<N>(to + half + c, second);
    // The padding of a head is cleared by the threads that have its first columns.
    for (int pad = head_dim + c; pad < step.padded_dim; pad += N * units) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (pad + i < step.padded_dim) to[pad + i] = from_float<T>(0.0F);
      }
    }
  }
}

}  // namespace terse::cuda
