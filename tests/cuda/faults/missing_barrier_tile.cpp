// A tile in shared memory is loaded again without a barrier after its last use. Layer: races.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void reverse_tiles(const int* values, int tiles, int* out) {
  KSHARED(int, tile, 64);
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = 0; i < tiles; ++i) {
    tile[thread] = values[i * 64 + thread];
    __syncthreads();
    out[i * 64 + thread] = tile[63 - thread];
    if constexpr (!BUG) __syncthreads();
  }
}

template <bool BUG>
bool correct() {
  std::vector<int> in(2 * 64), expected(2 * 64);
  for (int i = 0; i < 128; ++i) {
    in[static_cast<std::size_t>(i)] = i;
    expected[static_cast<std::size_t>(i)] = i / 64 * 64 + 63 - i % 64;
  }
  const DeviceBuffer<int> values(in);
  const DeviceBuffer<int> out(in.size());
  klaunch(reverse_tiles<BUG>, 1, 64, 0, nullptr, values.get(), 2, out.get());
  return out.values() == expected;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
