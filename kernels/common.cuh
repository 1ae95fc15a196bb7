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

template <class T, int N>
__device__ __forceinline__ void to_floats(const Pack<T, N>& pack, float (&to)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(pack.element[i]);
}

template <int N, class T>
__device__ __forceinline__ void load_floats(const T* from, float (&to)[N]) {
  // A copy, or each element would be a load of its own.
  const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
  to_floats(pack, to);
}

template <int N, class T>
__device__ __forceinline__ void store_floats(T* to, const float (&from)[N]) {
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
    Pack<std::uint32_t, N / 2> pairs;
#pragma unroll
    for (int i = 0; i < N / 2; ++i) pairs.element[i] = pack2<T>(from[2 * i], from[2 * i + 1]);
    *reinterpret_cast<Pack<std::uint32_t, N / 2>*>(to) = pairs;
  } else {
    Pack<T, N> pack;
#pragma unroll
    for (int i = 0; i < N; ++i) pack.element[i] = from_float<T>(from[i]);
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
  }
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

// x Phi(x) = max(x, 0) - |x| Phi(-|x|), with a tail Phi(-t) = exp(-t^2 / 2) r(t) that keeps its
// digits where 1 + erf(x) loses them. r is the polynomial in (t - 3) / (t + 3) of the CPU's tables
// (ops/vector/math.inl).
__device__ __forceinline__ float gelu_erf(float x) {
  constexpr float kCoefficients[] = {5.40938600723e-5F,  1.16207929242e-4F, -3.39556463507e-4F,
                                     -9.84276383318e-4F, 2.90442838974e-3F, 6.13219250965e-3F,
                                     -4.62132474669e-2F, 1.23225021749e-1F, -2.06402622071e-1F,
                                     1.21513947742e-1F};
  const float t = fminf(fabsf(x), 14.0F);
  const float u = (t - 3) * rcp_approx(t + 3);
  float ratio = kCoefficients[0];
#pragma unroll
  for (int i = 1; i < 10; ++i) ratio = ratio * u + kCoefficients[i];
  const float product = t * (exp2_approx(t * t * -0.72134752044448170F) * ratio);
  return x < 0 ? -product : x - product;
}

// The same within 2^-13, for results that are rounded to bf16: log2 Phi(-t) is nearly a parabola.
// Also of the CPU's.
__device__ __forceinline__ float gelu_erf_rounded(float x) {
  constexpr float kExponent[] = {2.29900634e-05F,  -6.11100055e-04F, 7.19556585e-03F,
                                 -5.11853360e-02F, -4.61271912e-01F, -1.15017426F,
                                 -1.00006473F};
  const float t = fminf(fabsf(x), 6.0F);
  float exponent = kExponent[0];
#pragma unroll
  for (int i = 1; i < 7; ++i) exponent = exponent * t + kExponent[i];
  // x < 0 rather than fmaxf(x, 0): a NaN stays one.
  return (x < 0 ? 0.0F : x) - t * exp2_approx(exponent);
}

// Activation of backend.h by number, of a result that is rounded to T; see reference::activate.
template <class T, int ACTIVATION>
__device__ __forceinline__ float activate(float x) {
  switch (ACTIVATION) {
    case 1:
      return std::is_same_v<T, bf16> ? gelu_erf_rounded(x) : gelu_erf(x);
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

// x[i] = activation(x[i]). The choice stands outside the loop: inside it each element would wait
// for the one before.
template <class T, int N>
__device__ __forceinline__ void activate_all(int activation, float (&x)[N]) {
  const auto apply = [&](auto number) {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = activate<T, decltype(number)::value>(x[i]);
  };
  switch (activation) {
    case 1:
      return apply(std::integral_constant<int, 1>());
    case 2:
      return apply(std::integral_constant<int, 2>());
    case 3:
      return apply(std::integral_constant<int, 3>());
    case 4:
      return apply(std::integral_constant<int, 4>());
    case 5:
      return apply(std::integral_constant<int, 5>());
    default:
      return;
  }
}

}  // namespace terse::cuda
