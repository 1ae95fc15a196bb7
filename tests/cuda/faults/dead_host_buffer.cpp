// A copy to the device is still under way when its source goes out of scope. Layer: emulation.
#include "fault.h"

namespace faults {

void upload(int* device, cudaStream_t stream, bool wait) {
  const std::vector<int> host(8, 6);
  require(cudaMemcpyAsync(device, host.data(), 8 * sizeof(int), cudaMemcpyHostToDevice, stream));
  if (wait) require(cudaStreamSynchronize(stream));
}

template <bool BUG>
bool correct() {
  cudaStream_t stream = nullptr;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const DeviceBuffer<int> device(8);
  upload(device.get(), stream, !BUG);
  const bool right = device.values() == std::vector<int>(8, 6);
  require(cudaStreamDestroy(stream));
  return right;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
