// The copies that the emulator makes on behalf of kernels and of the host, compiled with the
// sanitizers of the kernels: a bad address or a race in a copy is seen like one in a kernel.
#include <cstring>

#include "runtime.h"

#ifdef __SANITIZE_THREAD__
extern "C" {
void __tsan_write1(void* address);
}
#endif

namespace emu {

void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void fill_bytes(void* to, unsigned char value, std::size_t bytes) {
  if (bytes > 0) std::memset(to, value, bytes);
}

void touch_source(const void* from, std::size_t bytes) {
  const auto* const in = static_cast<const volatile unsigned char*>(from);
  for (std::size_t i = 0; i < bytes; ++i) static_cast<void>(in[i]);
}

void touch_target(void* to, std::size_t bytes) {
#ifdef __SANITIZE_THREAD__
  for (std::size_t i = 0; i < bytes; ++i) __tsan_write1(static_cast<unsigned char*>(to) + i);
#else
  touch_source(to, bytes);
#endif
}

}  // namespace emu
