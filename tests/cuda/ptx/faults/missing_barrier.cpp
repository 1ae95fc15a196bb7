// Bug: no barrier between the writes of a block's partial sums and their reading. To be found by
// layer PTX under ThreadSanitizer, which proves that the interpreter's accesses are seen by it.
#include "device.cuh"

namespace faults {

template <bool BUG>
__global__ void reverse_kernel(const float* in, float* out) {
  KSHARED(float, tile, 64);
  tile[threadIdx.x] = in[threadIdx.x];
  if constexpr (!BUG) __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

}  // namespace faults

#ifdef __CUDACC__
template __global__ void faults::reverse_kernel<false>(const float*, float*);
template __global__ void faults::reverse_kernel<true>(const float*, float*);
#else
#include "fault_ptx.h"

namespace faults {

template <bool BUG>
bool right_order() {
  std::vector<float> values(64);
  for (std::size_t i = 0; i < 64; ++i) values[i] = static_cast<float>(i);
  const DeviceBuffer<float> in(values);
  const DeviceBuffer<float> out(64);
  klaunch(reverse_kernel<BUG>, dim3(1), dim3(64), 0, nullptr, in.get(), out.get());
  const std::vector<float> result = out.values();
  for (std::size_t i = 0; i < 64; ++i) {
    if (result[i] != static_cast<float>(63 - i)) return false;
  }
  return true;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run_ptx(argc, argv, faults::right_order<false>, faults::right_order<true>);
}
#endif
