// A double-buffered loop without the barrier at its end: the tile after next overwrites the one
// that slower threads still read. Layer: races.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void shifted_sum(const int* values, int tiles, int* out) {
  KSHARED(int, buffer, 2 * 64);
  const int thread = static_cast<int>(threadIdx.x);
  const auto load = [&](int tile) {
    if (tile < tiles && thread < 16) {
      terse::cuda::cp_async16(buffer + tile % 2 * 64 + thread * 4, values + tile * 64 + thread * 4);
    }
    terse::cuda::cp_async_commit();
  };
  load(0);
  int sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    load(tile + 1);
    terse::cuda::cp_async_wait<1>();
    __syncthreads();
    sum += buffer[tile % 2 * 64 + (thread + 32) % 64];
    if constexpr (!BUG) __syncthreads();
  }
  out[thread] = sum;
}

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> values(std::vector<int>(4 * 64, 2));
  const DeviceBuffer<int> out(64);
  klaunch(shifted_sum<BUG>, 1, 64, 0, nullptr, values.get(), 4, out.get());
  return out.values() == std::vector<int>(64, 8);
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
