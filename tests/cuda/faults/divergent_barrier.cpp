// A barrier in each branch of a condition that differs within the block. Layer: emulation.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void branches(int* values) {
  KSHARED(int, row, 64);
  if (threadIdx.x < 32) {
    row[threadIdx.x] = 1;
    if constexpr (BUG) __syncthreads();
  } else {
    row[threadIdx.x] = 2;
    if constexpr (BUG) __syncthreads();
  }
  if constexpr (!BUG) __syncthreads();
  values[threadIdx.x] = row[63 - threadIdx.x];
}

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> values(64);
  klaunch(branches<BUG>, 1, 64, 0, nullptr, values.get());
  return values.values()[0] == 2;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
