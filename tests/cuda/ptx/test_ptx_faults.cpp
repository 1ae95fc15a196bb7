// Each deliberate bug of ptx/faults is found by layer PTX, and the same code without it passes.
#include <doctest/doctest.h>

#include "../faults/outcome.h"

TEST_CASE("what only nvcc's PTX shows is found there") {
  faults::check_found({{"swapped_operands", "PTX", "wrong result in schedule"},
                       {"lost_zero_fill", "PTX", "in no live device allocation"},
                       {"parameter_layout", "PTX", "size of parameter 0 differs from the PTX"},
                       {"missing_barrier", "PTX", "ThreadSanitizer: data race"}});
}
