// y = x w^T with the number of outputs for the leading dimension of w. Layer: emulation.
#include <cublas_v2.h>

#include "fault.h"

namespace faults {

template <bool BUG>
bool correct() {
  constexpr int kRows = 3, kOutputs = 24, kInputs = 16;
  const DeviceBuffer<float> x(std::vector<float>(kRows * kInputs, 1.0f));
  const DeviceBuffer<float> w(std::vector<float>(kOutputs * kInputs, 0.5f));
  const DeviceBuffer<float> y(kRows * kOutputs);
  cublasHandle_t blas = nullptr;
  if (cublasCreate(&blas) != CUBLAS_STATUS_SUCCESS) return false;
  const float one = 1, zero = 0;
  // Row-major y = x w^T is column-major y^T = w x^T.
  const cublasStatus_t status =
      cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, kOutputs, kRows, kInputs, &one, w.get(),
                   CUDA_R_32F, BUG ? kOutputs : kInputs, x.get(), CUDA_R_32F, kInputs, &zero,
                   y.get(), CUDA_R_32F, kOutputs, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  return cublasDestroy(blas) == CUBLAS_STATUS_SUCCESS && status == CUBLAS_STATUS_SUCCESS &&
         y.values() == std::vector<float>(kRows * kOutputs, 8.0f);
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
