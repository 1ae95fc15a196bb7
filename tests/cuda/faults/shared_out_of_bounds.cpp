// The last thread writes one element past a shared array. Layer: emulation.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void shift(const int* values, int* out) {
  KSHARED(int, row, 64);
  row[threadIdx.x + (BUG ? 1 : 0)] = values[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = row[63 - threadIdx.x];
}

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> values(std::vector<int>(64, 5));
  const DeviceBuffer<int> out(64);
  klaunch(shift<BUG>, 1, 64, 0, nullptr, values.get(), out.get());
  return out.values() == std::vector<int>(64, 5);
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
