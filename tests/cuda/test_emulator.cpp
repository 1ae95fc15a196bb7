// The emulator itself: what good kernels compute in every schedule, and that each broken rule of
// CUDA is a Fault that says so. Memory errors and races are in test_faults.cpp.
#include <numeric>

#include "cuda_test.h"
#include "device.cuh"

namespace {

using terse::cuda::klaunch;
using terse::cuda_test::DeviceBuffer;
using terse::cuda_test::for_each_mode;

constexpr unsigned kFull = 0xffffffffU;

// ---- Good kernels

// out (blocks): sums of blockDim.x values each.
__global__ void block_sum(const int* values, int* out) {
  KSHARED(int, partial, 128);
  partial[threadIdx.x] = values[blockIdx.x * blockDim.x + threadIdx.x];
  for (unsigned stride = blockDim.x / 2; stride > 0; stride /= 2) {
    __syncthreads();
    if (threadIdx.x < stride) partial[threadIdx.x] += partial[threadIdx.x + stride];
  }
  if (threadIdx.x == 0) out[blockIdx.x] = partial[0];
}

TEST_CASE("a block sums through shared memory in every schedule") {
  std::vector<int> values(5 * 128);
  std::iota(values.begin(), values.end(), 0);
  for_each_mode([&] {
    const DeviceBuffer<int> in(values);
    const DeviceBuffer<int> out(5);
    klaunch(block_sum, 5, 128, 0, nullptr, in.get(), out.get());
    const std::vector<int> sums = out.values();
    for (int block = 0; block < 5; ++block) {
      CHECK(sums[static_cast<std::size_t>(block)] == 128 * (128 * block) + 127 * 128 / 2);
    }
  });
}

}  // namespace
