// A kernel is handed the address of host memory. Layer: emulation.
#include "fault.h"

namespace faults {

__global__ void sum(const int* values, int* out) {
  if (threadIdx.x == 0) *out = values[0] + values[1];
}

template <bool BUG>
bool correct() {
  const std::vector<int> host = {20, 22};
  const DeviceBuffer<int> device(host);
  const DeviceBuffer<int> out(1);
  klaunch(sum, 1, 32, 0, nullptr, BUG ? host.data() : device.get(), out.get());
  return out.values()[0] == 42;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
