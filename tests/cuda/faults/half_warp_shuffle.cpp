// Half a warp shuffles with the mask of the whole warp. Layer: emulation.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void half_sum(int* values) {
  if (threadIdx.x >= 16) return;
  int sum = values[threadIdx.x];
  for (int offset = 8; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(BUG ? 0xffffffffU : 0x0000ffffU, sum, offset);
  }
  values[threadIdx.x] = sum;
}

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> values(std::vector<int>(16, 2));
  klaunch(half_sum<BUG>, 1, 32, 0, nullptr, values.get());
  return values.values() == std::vector<int>(16, 32);
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
