// The steps of both ladders in bf16, from naive to the shipped kernel, each with its launch. All
// compute the same: residual = out = layer norm of residual + product; attention of heads of 64.
#pragma once

#include "attention_2_tiled.cuh"
#include "attention_3_tensor.cuh"
#include "norm_1_naive.cuh"
#include "norm_2_block.cuh"
#include "norm_3_once.cuh"

namespace terse::cuda::ladder {

inline constexpr int kHeadDim = 64;
inline constexpr int kShippedKeys = 64;

template <class Step>
struct Rung {
  const char* name;
  void (*kernel)(Step);
  void (*launch)(void (*kernel)(Step), const Step& step);
};

inline std::size_t row_bytes(const AddNormStep& step) {
  return static_cast<std::size_t>(step.width) * sizeof(float);
}
inline void launch_thread_a_row(void (*kernel)(AddNormStep), const AddNormStep& step) {
  klaunch(kernel, dim3(static_cast<unsigned>((step.rows + kRowThreads - 1) / kRowThreads)),
          dim3(kRowThreads), 0, nullptr, step);
}
inline void launch_block_a_row(void (*kernel)(AddNormStep), const AddNormStep& step) {
  klaunch(kernel, dim3(static_cast<unsigned>(step.rows)), dim3(kRowThreads), row_bytes(step),
          nullptr, step);
}
inline dim3 tiles_of(const AttendStep& step) {
  return dim3(static_cast<unsigned>(step.num_tiles), static_cast<unsigned>(step.heads));
}
inline void launch_thread_a_query(void (*kernel)(AttendStep), const AttendStep& step) {
  klaunch(kernel, tiles_of(step), dim3(64), 0, nullptr, step);
}
inline void launch_tensor(void (*kernel)(AttendStep), const AttendStep& step) {
  klaunch(kernel, tiles_of(step), dim3(kTensorThreads), 0, nullptr, step);
}
inline void launch_shipped(void (*kernel)(AttendStep), const AttendStep& step) {
  klaunch(kernel, tiles_of(step), dim3(kTensorThreads),
          sizeof(bf16) * kTensorElements<kHeadDim, kShippedKeys, 1>, nullptr, step);
}

inline constexpr Rung<AddNormStep> kNorm[] = {
    {"norm_1_naive", norm_1_naive<bf16>, launch_thread_a_row},
    {"norm_2_block", norm_2_block<bf16>, launch_block_a_row},
    {"norm_3_once", norm_3_once<bf16>, launch_block_a_row},
    {"norm_4 = add_norm_kernel", add_norm_kernel<bf16, 4>, launch_block_a_row},
};
inline constexpr Rung<AttendStep> kAttention[] = {
    {"attention_1_naive", attention_1_naive<bf16, kHeadDim>, launch_thread_a_query},
    {"attention_2_tiled", attention_2_tiled<bf16, kHeadDim>, launch_thread_a_query},
    {"attention_3_tensor", attention_3_tensor<bf16, kHeadDim>, launch_tensor},
    {"attention_4 = attention_mma_kernel", attention_mma_kernel<bf16, kHeadDim, kShippedKeys, 1>,
     launch_shipped},
};

}  // namespace terse::cuda::ladder
