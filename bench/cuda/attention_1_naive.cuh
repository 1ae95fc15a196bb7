// Attention, step 1: one thread a query, keys and values straight from memory, a running softmax.
// See AttendStep; the ladder is bidirectional, without window and soft-cap, and packs no heads.
//
// Wrong with it: every query reads all keys and values by itself, two bytes a load.
#pragma once

#include "attention.cuh"

namespace terse::cuda::ladder {

// Threads of a block, one for each row of a tile.
inline constexpr int kTileThreads = 64;

template <class T, int D>
__global__ void __launch_bounds__(kTileThreads) attention_1_naive(const AttendStep step) {
  const TileOfQueries at(step);
  const int row = static_cast<int>(threadIdx.x);
  if (row >= at.rows) return;
  float query[D];
  float result[D] = {};
#pragma unroll
  for (int d = 0; d < D; ++d) {
    query[d] = to_float(static_cast<const T*>(step.query)[at.query_offset(step, row) + d]);
  }
  float most = -INFINITY;
  float sum = 0;
  for (int index = 0; index < at.keys.own_length; ++index) {
    const T* key = static_cast<const T*>(step.key) + at.key_offset(step, index);
    const T* value = static_cast<const T*>(step.value) + at.key_offset(step, index);
    float score = 0;
#pragma unroll
    for (int d = 0; d < D; ++d) score += query[d] * to_float(key[d]);
    const float new_most = fmaxf(most, score);
    const float faded = exp_f32(most - new_most);
    const float weight = exp_f32(score - new_most);
    sum = sum * faded + weight;
#pragma unroll
    for (int d = 0; d < D; ++d) result[d] = result[d] * faded + weight * to_float(value[d]);
    most = new_most;
  }
  T* out = static_cast<T*>(step.out) + at.out_offset(step, row);
#pragma unroll
  for (int d = 0; d < D; ++d) out[d] = from_float<T>(result[d] / sum);
}

}  // namespace terse::cuda::ladder
