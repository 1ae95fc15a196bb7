// Attention, step 2: the block brings tiles of keys and values to shared memory, 16 bytes a load,
// and all its queries read them there: memory gives each once a tile of queries instead of once a
// query.
//
// Still wrong: all arithmetic is by single multiply-adds, each with a load from shared memory.
#pragma once

#include "attention_1_naive.cuh"

namespace terse::cuda::ladder {

inline constexpr int kTileKeys = 32;

template <class T, int D>
__global__ void __launch_bounds__(kTileThreads) attention_2_tiled(const AttendStep step) {
  KSHARED(T, keys, kTileKeys * D);
  KSHARED(T, values, kTileKeys * D);
  const TileOfQueries at(step);
  const int row = static_cast<int>(threadIdx.x);
  float query[D] = {};
  float result[D] = {};
  if (row < at.rows) {
#pragma unroll
    for (int d = 0; d < D; d += 8) {
      float part[8];
      load_floats<8>(static_cast<const T*>(step.query) + at.query_offset(step, row) + d, part);
#pragma unroll
      for (int i = 0; i < 8; ++i) query[d + i] = part[i];
    }
  }
  float most = -INFINITY;
  float sum = 0;
  for (int begin = 0; begin < at.keys.own_length; begin += kTileKeys) {
    const int count = min(kTileKeys, at.keys.own_length - begin);
    __syncthreads();  // the tile before has been read
    for (int i = row; i < count * (D / 8); i += kTileThreads) {
      const std::size_t from = at.key_offset(step, begin + i / (D / 8)) + i % (D / 8) * 8;
      *reinterpret_cast<Pack<T, 8>*>(keys + 8 * i) =
          *reinterpret_cast<const Pack<T, 8>*>(static_cast<const T*>(step.key) + from);
      *reinterpret_cast<Pack<T, 8>*>(values + 8 * i) =
          *reinterpret_cast<const Pack<T, 8>*>(static_cast<const T*>(step.value) + from);
    }
    __syncthreads();
    for (int index = 0; index < count; ++index) {
      float score = 0;
#pragma unroll
      for (int d = 0; d < D; ++d) score += query[d] * to_float(keys[index * D + d]);
      const float new_most = fmaxf(most, score);
      const float faded = exp_f32(most - new_most);
      const float weight = exp_f32(score - new_most);
      sum = sum * faded + weight;
#pragma unroll
      for (int d = 0; d < D; ++d) {
        result[d] = result[d] * faded + weight * to_float(values[index * D + d]);
      }
      most = new_most;
    }
  }
  if (row >= at.rows) return;
  T* out = static_cast<T*>(step.out) + at.out_offset(step, row);
#pragma unroll
  for (int d = 0; d < D; ++d) out[d] = from_float<T>(result[d] / sum);
}

}  // namespace terse::cuda::ladder
