// A block reduction without the barrier between its steps. Layer: races.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void block_sum(const int* values, int* out) {
  KSHARED(int, partial, 64);
  partial[threadIdx.x] = values[threadIdx.x];
  for (unsigned stride = 32; stride > 0; stride /= 2) {
    if constexpr (!BUG) __syncthreads();
    if (threadIdx.x < stride) partial[threadIdx.x] += partial[threadIdx.x + stride];
  }
  if (threadIdx.x == 0) *out = partial[0];
}

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> values(std::vector<int>(64, 3));
  const DeviceBuffer<int> out(1);
  klaunch(block_sum<BUG>, 1, 64, 0, nullptr, values.get(), out.get());
  return out.values()[0] == 3 * 64;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
