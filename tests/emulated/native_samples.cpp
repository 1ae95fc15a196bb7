// The samples with the processor's own instructions.
#if !defined(__clang__)
// GCC 12 warns about the undefined vectors of its own intrinsics (bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "samples.h"

namespace terse_test {

const std::vector<Sample>& native_samples() {
  static const std::vector<Sample> samples = make_samples();
  return samples;
}

}  // namespace terse_test
