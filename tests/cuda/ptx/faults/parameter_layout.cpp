// Bug: a parameter struct has a field only in nvcc's eyes, so that the host packs another layout
// than the kernel reads. To be found by layer PTX: the sizes differ.
#include "device.cuh"

namespace faults {

template <bool BUG>
struct Step {
  const float* in;
#ifdef __CUDACC__
  float unseen[BUG ? 2 : 1];
#else
  float unseen[1];
#endif
  int offset;
  float* out;
};

template <bool BUG>
__global__ void step_kernel(const Step<BUG> step) {
  step.out[threadIdx.x] = step.in[threadIdx.x] + static_cast<float>(step.offset);
}

}  // namespace faults

#ifdef __CUDACC__
template __global__ void faults::step_kernel<false>(faults::Step<false>);
template __global__ void faults::step_kernel<true>(faults::Step<true>);
#else
#include "fault_ptx.h"

namespace faults {

template <bool BUG>
bool right_sum() {
  const DeviceBuffer<float> in(std::vector<float>(32, 1.0F));
  const DeviceBuffer<float> out(32);
  klaunch(step_kernel<BUG>, dim3(1), dim3(32), 0, nullptr, Step<BUG>{in.get(), {0}, 3, out.get()});
  return out.values() == std::vector<float>(32, 4.0F);
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run_ptx(argc, argv, faults::right_sum<false>, faults::right_sum<true>);
}
#endif
