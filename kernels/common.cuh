// What kernels share: vectors of elements, sums over a block, norms of a row, activations.
//
// Rows of the residual stream are worked on by one block each. A row lies in dynamic shared memory
// as float, and each thread reads and writes only its own columns of it, so that nothing but the
// sums needs a barrier. Sums are taken in one fixed order, which depends on the width alone.
#pragma once

#include "device.cuh"
#include "terse/ops/cuda.h"

namespace terse::cuda {

// Threads of a block that works on one row, and how many such blocks a multiprocessor has room for
// at least: without a number ptxas aims at more of them and spills a register.
inline constexpr int kRowThreads = 128;
inline constexpr int kRowBlocks = 5;

// N consecutive elements, read or written at once; addresses are multiples of its size.
template <class T, int N>
struct alignas(sizeof(T) * static_cast<unsigned>(N)) Pack {
  T element[N];
};

template <int N, class T>
__device__ __forceinline__ void load_floats(const T* from, float (&to)[N]) {
  const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(pack.element[i]);
}

template <int N, class T>
__device__ __forceinline__ void store_floats(T* to, const float (&from)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) pack.element[i] = from_float<T>(from[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// The sum of value over the block, in every thread. partial: one float a warp, used by nothing
// else.
__device__ __forceinline__ float block_sum(float value, float* partial) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffU, value, offset);
  }
  __syncthreads();  // the partial sums of the call before have been read
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kRowThreads / 32; ++warp) sum += partial[warp];
  return sum;
}

// f(column) for the first of every N columns of a row that this thread owns.
template <int N, class F>
__device__ __forceinline__ void each_own_column(int width, F&& f) {
#pragma unroll 2
  for (int column = static_cast<int>(threadIdx.x) * N; column < width; column += kRowThreads * N) {
    f(column);
  }
}

// 1 / sqrt(x) within an ulp: one step of Newton's iteration after the approximate instruction, and
// none of the slow path of sqrtf, whose calls cost registers.
__device__ __forceinline__ float inverse_root(float x) {
  const float y = rsqrt_approx(x);
  return y * (1.5F - 0.5F * x * y * y);
}

// row = norm(row), in place; see reference::layer_norm and rms_norm.
template <int N>
__device__ __forceinline__ void normalise_row(const NormStep& norm, float* row, int width,
                                              float* partial) {
  if (norm.kind == 0) return;
  float mean = 0;
  if (norm.kind == 1) {
    float sum = 0;
    each_own_column<N>(width, [&](int column) {
      float x[N];
      load_floats<N>(row + column, x);
#pragma unroll
      for (int i = 0; i < N; ++i) sum += x[i];
    });
    mean = block_sum(sum, partial) / static_cast<float>(width);
  }
  float squares = 0;
  each_own_column<N>(width, [&](int column) {
    float x[N];
    load_floats<N>(row + column, x);
#pragma unroll
    for (int i = 0; i < N; ++i) squares += (x[i] - mean) * (x[i] - mean);
  });
  const float inverse =
      inverse_root(block_sum(squares, partial) / static_cast<float>(width) + norm.eps);
  const float offset = norm.kind == 3 ? 1.0F : 0.0F;
  each_own_column<N>(width, [&](int column) {
    float x[N], weight[N], bias[N] = {};
    load_floats<N>(row + column, x);
    load_floats<N>(norm.weight + column, weight);
    if (norm.kind == 1) load_floats<N>(norm.bias + column, bias);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = (x[i] - mean) * inverse * (offset + weight[i]) + bias[i];
    store_floats<N>(row + column, x);
  });
}

// Activation of backend.h by number; see reference::activate.
__device__ __forceinline__ float activate(int activation, float x) {
  switch (activation) {
    case 1:  // gelu_erf
      return x / 2 * (1 + erf_f32(x * 0.70710678118654752F));
    case 2:  // gelu_tanh
      return x / 2 * (1 + tanh_f32(0.79788456080286536F * (x + 0.044715F * x * x * x)));
    case 3:  // silu
      return x / (1 + exp_f32(-x));
    case 4:  // relu; a NaN stays one
      return x < 0 ? 0.0F : x;
    case 5:
      return tanh_f32(x);
    default:
      return x;
  }
}

}  // namespace terse::cuda
