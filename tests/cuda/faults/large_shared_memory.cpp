// A launch with more than 48 KiB of dynamic shared memory that was not asked for. Layer: emulation.
#include "fault.h"

namespace faults {

constexpr std::size_t kBytes = 64 * 1024;

__global__ void use_all(int* out) {
  KSHARED_DYN(int, values);
  const unsigned last = kBytes / sizeof(int) - 1;
  values[last - threadIdx.x] = 9;
  __syncthreads();
  out[threadIdx.x] = values[last - 31 + threadIdx.x];
}

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> out(32);
  if constexpr (!BUG) terse::cuda::allow_dynamic_smem(use_all, kBytes);
  klaunch(use_all, 1, 32, kBytes, nullptr, out.get());
  return out.values() == std::vector<int>(32, 9);
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
