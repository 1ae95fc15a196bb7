// The wait lets the group that is read next be unfinished. Layer: emulation.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void two_groups(const int* values, int* out) {
  KSHARED(int, tile, 2 * 32);
  const int thread = static_cast<int>(threadIdx.x);
  for (int group = 0; group < 2; ++group) {
    if (thread < 8) {
      terse::cuda::cp_async16(tile + group * 32 + thread * 4, values + group * 32 + thread * 4);
    }
    terse::cuda::cp_async_commit();
  }
  terse::cuda::cp_async_wait<BUG ? 2 : 1>();
  __syncthreads();
  const int first = tile[31 - thread];
  terse::cuda::cp_async_wait<0>();
  __syncthreads();
  out[thread] = first + tile[63 - thread];
}

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> values(std::vector<int>(64, 7));
  const DeviceBuffer<int> out(32);
  klaunch(two_groups<BUG>, 1, 32, 0, nullptr, values.get(), out.get());
  return out.values() == std::vector<int>(32, 14);
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
