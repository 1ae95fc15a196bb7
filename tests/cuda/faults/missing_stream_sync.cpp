// The host reads a copy from the device that it did not wait for. Layer: emulation.
#include "fault.h"

namespace faults {

__global__ void answer(int* out) {
  if (threadIdx.x == 0) *out = 42;
}

template <bool BUG>
bool correct() {
  cudaStream_t stream = nullptr;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const DeviceBuffer<int> device(1);
  int host = 0;
  klaunch(answer, 1, 32, 0, stream, device.get());
  require(cudaMemcpyAsync(&host, device.get(), sizeof(host), cudaMemcpyDeviceToHost, stream));
  if constexpr (!BUG) require(cudaStreamSynchronize(stream));
  const int seen = host;
  require(cudaStreamDestroy(stream));
  return seen == 42;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
