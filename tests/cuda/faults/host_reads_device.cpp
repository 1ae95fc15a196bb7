// The host reads through a pointer to device memory. Layer: emulation.
#include "fault.h"

namespace faults {

template <bool BUG>
bool correct() {
  const DeviceBuffer<int> values(std::vector<int>(4, 5));
  return (BUG ? *values.get() : values.values()[0]) == 5;
}

}  // namespace faults

int main(int argc, char** argv) {
  return faults::run(argc, argv, faults::correct<false>, faults::correct<true>);
}
