// Lanes hand values to each other through shared memory with a shuffle, which orders no memory, in
// place of a warp barrier. Layer: races.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void reverse_warp(int* values) {
  KSHARED(int, box, 32);
  box[threadIdx.x] = values[threadIdx.x];
  if constexpr (BUG) {
    __shfl_sync(0xffffffffU, 0, 0);
  } else {
    __syncwarp();
  }
  values[threadIdx.x] = box[31 - threadIdx.x];
}

template <bool BUG>
bool correct() {
  std::vector<int> in(32), expected(32);
  for (int i = 0; i < 32; ++i) {
    in[static_cast<std::size_t>(i)] = i;
    expected[static_cast<std::size_t>(i)] = 31 - i;
  }
  const DeviceBuffer<int> values(in);
  klaunch(reverse_warp<BUG>, 1, 32, 0, nullptr, values.get());
  return values.values() == expected;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
