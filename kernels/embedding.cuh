// Embedding: rows of up to three tables, gathered, added, scaled and normed.
//
// A row of width W: reads W elements of each table as they are stored, writes 4 W bytes of residual
// and W elements of operand; about 12 W FLOPs with two norms. Bound by memory: each byte is touched
// once.
#pragma once

#include "common.cuh"

namespace terse::cuda {

// sum += columns of the table's row for `row`.
template <int N>
__device__ __forceinline__ void add_table_columns(const TableRows& table, int row, int width,
                                                  int column, float (&sum)[N]) {
  if (table.rows == nullptr) return;
  const std::int64_t at =
      static_cast<std::int64_t>(table.index == nullptr ? 0 : table.index[row]) * width + column;
  float x[N];
  if (table.type == static_cast<int>(DType::f32)) {
    load_floats<N>(static_cast<const float*>(table.rows) + at, x);
  } else if (table.type == static_cast<int>(DType::bf16)) {
    load_floats<N>(static_cast<const bf16*>(table.rows) + at, x);
  } else {
    load_floats<N>(static_cast<const f16*>(table.rows) + at, x);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i] += x[i];
}

// See EmbedStep. One block a row.
template <class T, int N>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks) embed_kernel(const EmbedStep step) {
  KSHARED_DYN(float, row_values);
  KSHARED(float, partial, kRowThreads / 32);
  const int row = static_cast<int>(blockIdx.x);
  const int width = step.width;
  each_own_column<N>(width, [&](int column) {
    float x[N] = {};
    add_table_columns<N>(step.word, row, width, column, x);
    add_table_columns<N>(step.token_type, row, width, column, x);
    add_table_columns<N>(step.position, row, width, column, x);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] *= step.scale;
    store_floats<N>(row_values + column, x);
  });
  normalise_row<N>(step.norm, row_values, width, partial);
  const std::int64_t first = static_cast<std::int64_t>(row) * width;
  each_own_column<N>(width, [&](int column) {
    float x[N];
    load_floats<N>(row_values + column, x);
    store_floats<N>(step.residual + first + column, x);
  });
  if (step.out == nullptr) return;
  normalise_row<N>(step.next_norm, row_values, width, partial);
  each_own_column<N>(width, [&](int column) {
    float x[N];
    load_floats<N>(row_values + column, x);
    store_floats<N>(static_cast<T*>(step.out) + first + column, x);
  });
}

}  // namespace terse::cuda
