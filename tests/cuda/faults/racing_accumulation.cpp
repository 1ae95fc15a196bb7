// Blocks add to one number without an atomic. Layer: races.
#include "fault.h"

namespace faults {

template <bool BUG>
__global__ void accumulate(int* sum) {
  if (threadIdx.x != 0) return;
  const int mine = static_cast<int>(blockIdx.x) + 1;
  if constexpr (BUG) {
    *sum += mine;
  } else {
    atomicAdd(sum, mine);
  }
}

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> sum(std::vector<int>{0});
  klaunch(accumulate<BUG>, 4, 32, 0, nullptr, sum.get());
  return sum.values()[0] == 10;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
