// Elementwise ends of products: bias and activation, and gates.
//
// With operands of t bytes, per output element: activate reads t and writes t, about 20 FLOPs; gate
// reads 2 t and writes t. Bound by memory: each element is read once and written once.
#pragma once

#include "common.cuh"

namespace terse::cuda {

inline constexpr int kElementThreads = 256;

// See ActivateStep. A thread takes N elements of a row; columns is a multiple of N.
template <class T, int N>
__global__ void __launch_bounds__(kElementThreads) activation_kernel(const ActivateStep step) {
  const std::int64_t at =
      (static_cast<std::int64_t>(blockIdx.x) * kElementThreads + threadIdx.x) * N;
  if (at >= step.rows * step.columns) return;
  float x[N], bias[N] = {};
  load_floats<N>(static_cast<const T*>(step.product) + at, x);
  if (step.bias != nullptr) load_floats<N>(step.bias + at % step.columns, bias);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = activate(step.activation, x[i] + bias[i]);
  store_floats<N>(static_cast<T*>(step.out) + at, x);
}

// See GateStep. A thread takes N elements of a row; columns is a multiple of N.
template <class T, int N>
__global__ void __launch_bounds__(kElementThreads) gated_kernel(const GateStep step) {
  const std::int64_t at =
      (static_cast<std::int64_t>(blockIdx.x) * kElementThreads + threadIdx.x) * N;
  if (at >= step.rows * step.columns) return;
  const std::int64_t row = at / step.columns;
  const std::int64_t column = at - row * step.columns;
  const T* product = static_cast<const T*>(step.product) + 2 * row * step.columns + column;
  float gate[N], up[N], gate_bias[N] = {}, up_bias[N] = {};
  load_floats<N>(product, gate);
  load_floats<N>(product + step.columns, up);
  if (step.bias != nullptr) {
    load_floats<N>(step.bias + column, gate_bias);
    load_floats<N>(step.bias + step.columns + column, up_bias);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    gate[i] = activate(step.activation, gate[i] + gate_bias[i]) * (up[i] + up_bias[i]);
  }
  store_floats<N>(static_cast<T*>(step.out) + at, gate);
}

}  // namespace terse::cuda
