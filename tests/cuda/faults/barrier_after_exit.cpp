// Threads past the end of the row return before a barrier of the block. Layer: emulation.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void reverse_row(int* values, unsigned length) {
  KSHARED(int, row, 64);
  const unsigned thread = threadIdx.x;
  if (BUG && thread >= length) return;
  if (thread < length) row[thread] = values[thread];
  __syncthreads();
  if (thread < length) values[thread] = row[length - 1 - thread];
}

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> values(std::vector<int>(50, 4));
  klaunch(reverse_row<BUG>, 1, 64, 0, nullptr, values.get(), 50U);
  return values.values() == std::vector<int>(50, 4);
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
