// Kernels of the interpreter's own tests: one of each way in which shipped kernels use a block,
// small enough to check by eye. They run emulated, interpreted and against an f64 definition, and
// validate the opcode table of tests/cuda/static.
#pragma once

#include "device.cuh"

namespace terse::cuda::samples {

// out[block] = sum of block's `count` values: warp shuffles, then shared memory.
__global__ void sum_kernel(const float* in, float* out, int count) {
  KSHARED(float, partial, 32);
  const int thread = static_cast<int>(threadIdx.x);
  float sum = 0;
  for (int i = thread; i < count; i += static_cast<int>(blockDim.x)) {
    sum += in[static_cast<std::size_t>(blockIdx.x) * static_cast<std::size_t>(count) +
              static_cast<std::size_t>(i)];
  }
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, offset);
  if (thread % 32 == 0) partial[thread / 32] = sum;
  __syncthreads();
  if (thread > 0) return;
  float total = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / 32; ++warp) total += partial[warp];
  out[blockIdx.x] = total;
}

// y = x / sqrt(mean(x^2) + eps) * weight, one warp a row; T is a storage type.
template <class T>
__global__ void rms_norm_kernel(const T* x, const T* weight, T* y, int width, float eps) {
  const int lane = static_cast<int>(threadIdx.x);
  const T* row = x + static_cast<std::size_t>(blockIdx.x) * static_cast<std::size_t>(width);
  T* out = y + static_cast<std::size_t>(blockIdx.x) * static_cast<std::size_t>(width);
  float squares = 0;
  for (int i = lane; i < width; i += 32) squares += to_float(row[i]) * to_float(row[i]);
  for (int offset = 16; offset > 0; offset /= 2) {
    squares += __shfl_xor_sync(0xffffffffU, squares, offset);
  }
  const float inverse = rsqrt_approx(squares / static_cast<float>(width) + eps);
  for (int i = lane; i < width; i += 32) {
    out[i] = from_float<T>(to_float(row[i]) * inverse * to_float(weight[i]));
  }
}

// c (64, n) = a (64, k) b (n, k)^T, k a multiple of 32, n of 8: tiles of 32 columns of a and of 8
// rows of b copied behind the multiplication of the tile before, four warps of 16 rows each.
template <class T>
__global__ void matmul_kernel(const T* a, const T* b, float* c, int k, int n) {
  constexpr int kStride = 40;  // rows of 80 bytes: eight rows lie in eight groups of banks
  KSHARED(T, tiles_a, 2 * 64 * kStride);
  KSHARED(T, tiles_b, 2 * 8 * kStride);
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int lane = thread % 32;
  const int column = static_cast<int>(blockIdx.x) * 8;
  const auto copy = [&](int tile) {
    T* to_a = tiles_a + tile % 2 * 64 * kStride;
    T* to_b = tiles_b + tile % 2 * 8 * kStride;
    for (int i = thread; i < 64 * 4; i += 128) {
      cp_async16(to_a + i / 4 * kStride + i % 4 * 8, a + i / 4 * k + tile * 32 + i % 4 * 8);
    }
    if (thread < 32) {
      cp_async16(to_b + thread / 4 * kStride + thread % 4 * 8,
                 b + (column + thread / 4) * k + tile * 32 + thread % 4 * 8);
    }
    cp_async_commit();
  };
  float d[4] = {};
  copy(0);
  for (int tile = 0; tile < k / 32; ++tile) {
    const bool more = tile + 1 < k / 32;
    if (more) copy(tile + 1);
    if (more) {
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    const T* tile_a = tiles_a + tile % 2 * 64 * kStride;
    const T* tile_b = tiles_b + tile % 2 * 8 * kStride;
    for (int step = 0; step < 2; ++step) {
      std::uint32_t fragment_a[4];
      std::uint32_t fragment_b[2];
      ldmatrix_x4(fragment_a,
                  tile_a + (warp * 16 + lane % 16) * kStride + step * 16 + lane / 16 * 8);
      ldmatrix_x2(fragment_b, tile_b + lane % 8 * kStride + step * 16 + lane / 8 % 2 * 8);
      if constexpr (std::is_same_v<T, bf16>) {
        mma_m16n8k16_bf16(d, fragment_a, fragment_b);
      } else {
        mma_m16n8k16_f16(d, fragment_a, fragment_b);
      }
    }
    __syncthreads();  // the tile has been read; the next copy may replace it
  }
  for (int i = 0; i < 4; ++i) {
    const int row = warp * 16 + lane / 4 + i / 2 * 8;
    c[row * n + column + 2 * (lane % 4) + i % 2] = d[i];
  }
}

// counts[value % 16] of all values, by atomics.
__global__ void histogram_kernel(const int* values, int* counts, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) atomicAdd(counts + (values[i] & 15), 1);
}

// Launchers.
inline void sum(const float* in, float* out, int rows, int count) {
  klaunch(sum_kernel, dim3(static_cast<unsigned>(rows)), dim3(96), 0, nullptr, in, out, count);
}
template <class T>
void rms_norm(const T* x, const T* weight, T* y, int rows, int width, float eps) {
  klaunch(rms_norm_kernel<T>, dim3(static_cast<unsigned>(rows)), dim3(32), 0, nullptr, x, weight, y,
          width, eps);
}
template <class T>
void matmul(const T* a, const T* b, float* c, int k, int n) {
  klaunch(matmul_kernel<T>, dim3(static_cast<unsigned>(n / 8)), dim3(128), 0, nullptr, a, b, c, k,
          n);
}
inline void histogram(const int* values, int* counts, int count) {
  klaunch(histogram_kernel, dim3(static_cast<unsigned>((count + 63) / 64)), dim3(64), 0, nullptr,
          values, counts, count);
}

}  // namespace terse::cuda::samples
