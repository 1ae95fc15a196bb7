// Each deliberate bug of faults/ is found by the layer that has to find it, and the same code
// without the bug passes: otherwise a layer could be silent, or cry at everything, unnoticed.
#include "faults/outcome.h"

// Layer emulation: AddressSanitizer, the emulator's rules, or a wrong result in some schedule.
// Layer races: ThreadSanitizer. swapped_operands is found by layer PTX, in tests/cuda/ptx.
TEST_CASE("every deliberate bug is found, and nothing is found without it") {
  faults::check_found(
      {{"missing_barrier_reduction", "races", "ThreadSanitizer: data race"},
       {"missing_barrier_tile", "races", "ThreadSanitizer: data race"},
       {"missing_barrier_double_buffer", "races", "ThreadSanitizer: data race"},
       {"missing_syncwarp", "races", "ThreadSanitizer: data race"},
       {"racing_accumulation", "races", "ThreadSanitizer: data race"},
       {"shared_out_of_bounds", "emulation", "AddressSanitizer: use-after-poison"},
       {"global_out_of_bounds", "emulation", "AddressSanitizer: heap-buffer-overflow"},
       {"host_reads_device", "emulation", "AddressSanitizer: use-after-poison"},
       {"divergent_barrier", "emulation", "divergent barrier"},
       {"barrier_after_exit", "emulation", "thread exits while others wait at the barrier"},
       {"half_warp_shuffle", "emulation", "thread exits while others wait for it at shuffle"},
       {"weak_async_wait", "emulation", "wrong result in schedule"},
       {"large_shared_memory", "emulation", "device: kernel launch: cudaErrorInvalidValue"},
       {"host_pointer", "emulation", "is a pointer to no live device memory"},
       {"missing_stream_sync", "emulation", "wrong result in schedule"},
       {"dead_host_buffer", "emulation", "AddressSanitizer: heap-use-after-free"},
       {"swapped_leading_dimension", "emulation", "product: A does not lie in device memory"}});
}
