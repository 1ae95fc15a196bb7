// The last thread reads one element past an allocation. Layer: emulation.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void copy(const int* values, int* out) {
  out[threadIdx.x] = values[threadIdx.x + (BUG ? 1 : 0)];
}

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> values(std::vector<int>(33, 5));
  const DeviceBuffer<int> out(33);
  klaunch(copy<BUG>, 1, 33, 0, nullptr, values.get(), out.get());
  return out.values() == std::vector<int>(33, 5);
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
