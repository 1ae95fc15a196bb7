// Attention, step 3: tensor cores. Four warps of 16 queries each; ldmatrix brings fragments from
// shared memory, mma multiplies them, and a score's four fragments are the next product's operand
// without leaving the registers.
//
// Still wrong: copies and products take turns, rows of a tile meet the same banks, 128-byte rows of
// a result leave four bytes at a time, and every key is asked whether it is past the end. Step 4,
// the shipped attention_mma_kernel, copies behind the products (cp.async), swizzles its tiles,
// stores whole chunks, and looks at single keys only in blocks that some query does not see whole.
#pragma once

#include "attention.cuh"

namespace terse::cuda::ladder {

template <class T, int D>
__global__ void __launch_bounds__(kTensorThreads) attention_3_tensor(const AttendStep step) {
  constexpr int kKeys = 32;
  constexpr int kChunks = D / 8;
  KSHARED(T, queries, kTensorTileRows<1> * D);
  KSHARED(T, keys, kKeys * D);
  KSHARED(T, values, kKeys * D);
  const TileOfQueries at(step);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp_row = thread / 32 * 16;
  const auto copy_row = [](T* to, const T* from, bool valid) {
    *reinterpret_cast<Pack<T, 8>*>(to) =
        valid ? *reinterpret_cast<const Pack<T, 8>*>(from) : Pack<T, 8>{};
  };
  for (int i = thread; i < kTensorTileRows<1> * kChunks; i += kTensorThreads) {
    const int row = i / kChunks;
    const bool valid = row < at.rows;
    copy_row(queries + 8 * i,
             static_cast<const T*>(step.query) + at.query_offset(step, valid ? row : 0) +
                 i % kChunks * 8,
             valid);
  }
  float result[D / 8][4] = {};
  float most[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};
  for (int begin = 0; begin < at.keys.own_length; begin += kKeys) {
    const int count = min(kKeys, at.keys.own_length - begin);
    __syncthreads();  // the tile before has been read
    for (int i = thread; i < kKeys * kChunks; i += kTensorThreads) {
      const bool valid = i / kChunks < count;
      const std::size_t from =
          at.key_offset(step, begin + (valid ? i / kChunks : 0)) + i % kChunks * 8;
      copy_row(keys + 8 * i, static_cast<const T*>(step.key) + from, valid);
      copy_row(values + 8 * i, static_cast<const T*>(step.value) + from, valid);
    }
    __syncthreads();
    float score[kKeys / 8][4] = {};
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      std::uint32_t a[4];
      ldmatrix_x4(a, queries + (warp_row + lane % 16) * D + 16 * k + lane / 16 * 8);
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        std::uint32_t b[2];
        ldmatrix_x2(b, keys + (8 * n + lane % 8) * D + 16 * k + lane / 8 % 2 * 8);
        mma<T>(score[n], a, b);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float new_most = most[r];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& value = score[n][2 * r + i];
          if (8 * n + lane % 4 * 2 + i >= count) value = -INFINITY;
          new_most = fmaxf(new_most, value);
        }
      }
      new_most = fmaxf(new_most, __shfl_xor_sync(0xffffffffU, new_most, 1));
      new_most = fmaxf(new_most, __shfl_xor_sync(0xffffffffU, new_most, 2));
      const float faded = exp_f32(most[r] - new_most);
      float block_sum = 0;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& value = score[n][2 * r + i];
          value = exp_f32(value - new_most);
          block_sum += value;
        }
      }
      block_sum += __shfl_xor_sync(0xffffffffU, block_sum, 1);
      block_sum += __shfl_xor_sync(0xffffffffU, block_sum, 2);
      sum[r] = sum[r] * faded + block_sum;
      most[r] = new_most;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        result[n][2 * r] *= faded;
        result[n][2 * r + 1] *= faded;
      }
    }
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      const std::uint32_t a[4] = {pack2<T>(score[2 * k][0], score[2 * k][1]),
                                  pack2<T>(score[2 * k][2], score[2 * k][3]),
                                  pack2<T>(score[2 * k + 1][0], score[2 * k + 1][1]),
                                  pack2<T>(score[2 * k + 1][2], score[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        std::uint32_t b[2];
        ldmatrix_x2_trans(b, values + (16 * k + lane % 16) * D + 8 * n);
        mma<T>(result[n], a, b);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = warp_row + lane / 4 + 8 * r;
    if (row >= at.rows) continue;
    T* out = static_cast<T*>(step.out) + at.out_offset(step, row) + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      *reinterpret_cast<std::uint32_t*>(out + 8 * n) =
          pack2<T>(result[n][2 * r] / sum[r], result[n][2 * r + 1] / sum[r]);
    }
  }
}

}  // namespace terse::cuda::ladder
