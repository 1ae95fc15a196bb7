// Elementwise ends of products: bias and activation, and gates.
//
// With operands of t bytes, per output element: activate reads t and writes t, about 20 FLOPs; gate
// reads 2 t and writes t. Bound by memory: each element is read once and written once.
#pragma once

#include "common.cuh"

namespace terse::cuda {

inline constexpr int kElementThreads = 256;

// Units of N elements that a thread of the activation kernel takes, all of them read before the
// first is used: on an H200 it takes 89 us where one at a time take 105. The gate reads two units
// anyway; more of them need registers that other threads lack.
inline constexpr int kActivationUnits = 4;

// f(unit, i) for a thread's units of `count`, a block's threads side by side. 32 bits hold their
// number, and dividing it takes a fraction of what 64 bits take.
template <class F>
__device__ __forceinline__ void each_unit(unsigned count, F&& f) {
#pragma unroll
  for (unsigned i = 0; i < kActivationUnits; ++i) {
    const unsigned unit = (blockIdx.x * kActivationUnits + i) * kElementThreads + threadIdx.x;
    if (unit < count) f(unit, i);
  }
}

// See ActivateStep. columns is a multiple of N.
template <class T, int N>
__global__ void __launch_bounds__(kElementThreads) activation_kernel(const ActivateStep step) {
  const unsigned row_units = static_cast<unsigned>(step.columns) / N;
  const unsigned count = static_cast<unsigned>(step.rows) * row_units;
  const auto* from = static_cast<const Pack<T, N>*>(step.product);
  Pack<T, N> product[kActivationUnits];
  each_unit(count, [&](unsigned unit, unsigned i) { product[i] = from[unit]; });
  each_unit(count, [&](unsigned unit, unsigned i) {
    float x[N], bias[N] = {};
    to_floats(product[i], x);
    if (step.bias != nullptr) load_floats<N>(step.bias + unit % row_units * N, bias);
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] += bias[j];
    activate_all<T>(step.activation, x);
    store_floats<N>(static_cast<T*>(step.out) + std::int64_t{unit} * N, x);
  });
}

// See GateStep. A thread takes a unit of N elements; columns is a multiple of N.
template <class T, int N>
__global__ void __launch_bounds__(kElementThreads) gated_kernel(const GateStep step) {
  const unsigned row_units = static_cast<unsigned>(step.columns) / N;
  const unsigned unit = blockIdx.x * kElementThreads + threadIdx.x;
  if (unit >= static_cast<unsigned>(step.rows) * row_units) return;
  const std::int64_t row = unit / row_units;
  const unsigned column = unit % row_units * N;
  const T* product = static_cast<const T*>(step.product) + 2 * row * step.columns + column;
  float gate[N], up[N], gate_bias[N] = {}, up_bias[N] = {};
  load_floats<N>(product, gate);
  load_floats<N>(product + step.columns, up);
  if (step.bias != nullptr) {
    load_floats<N>(step.bias + column, gate_bias);
    load_floats<N>(step.bias + step.columns + column, up_bias);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) gate[i] += gate_bias[i];
  activate_all<T>(step.activation, gate);
#pragma unroll
  for (int i = 0; i < N; ++i) gate[i] *= up[i] + up_bias[i];
  store_floats<N>(static_cast<T*>(step.out) + std::int64_t{unit} * N, gate);
}

}  // namespace terse::cuda
