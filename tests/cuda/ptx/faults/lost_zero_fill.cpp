// Bug: the inline PTX of a zero-filling copy leaves out its last operand, so that it reads all 16
// bytes always, past the end of the tensor too; its host model is right. To be found by layer PTX:
// an address in no live allocation.
#include "device.cuh"

namespace faults {

template <bool BUG>
__device__ void copy(void* shared, const void* global, bool valid) {
#ifdef __CUDACC__
  if constexpr (BUG) {
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(terse::cuda::shared_address(shared)),
        "l"(global)
        : "memory");
    return;
  }
#endif
  terse::cuda::cp_async16_zfill(shared, global, valid);
}

// out (32) = in (count, a multiple of 4), then zeros.
template <bool BUG>
__global__ void copy_kernel(const float* in, float* out, int count) {
  KSHARED(float, tile, 32);
  const int first = static_cast<int>(threadIdx.x) * 4;
  copy<BUG>(tile + first, in + first, first < count);
  terse::cuda::cp_async_commit();
  terse::cuda::cp_async_wait<0>();
  for (int i = first; i < first + 4; ++i) out[i] = tile[i];
}

}  // namespace faults

#ifdef __CUDACC__
template __global__ void faults::copy_kernel<false>(const float*, float*, int);
template __global__ void faults::copy_kernel<true>(const float*, float*, int);
#else
#include "fault_ptx.h"

namespace faults {

template <bool BUG>
bool right_copy() {
  const DeviceBuffer<float> in(std::vector<float>(20, 1.0F));
  const DeviceBuffer<float> out(32);
  klaunch(copy_kernel<BUG>, dim3(1), dim3(8), 0, nullptr, in.get(), out.get(), 20);
  const std::vector<float> values = out.values();
  for (std::size_t i = 0; i < 32; ++i) {
    if (values[i] != (i < 20 ? 1.0F : 0.0F)) return false;
  }
  return true;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run_ptx(argc, argv, faults::right_copy<false>, faults::right_copy<true>);
}
#endif
