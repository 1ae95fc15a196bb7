// Addresses of an interpreted kernel, checked before they are used.
#pragma once

#include <cstddef>
#include <cstdint>

#include "decoder.h"

namespace terse::ptx {

enum class Space : std::uint8_t { generic, global, constant, shared, local, parameter };

// The host address of `bytes` bytes at an address of that space. Faults unless it is a multiple of
// `bytes` and all of them lie in one static array, the dynamic part, the parameters, the thread's
// local memory, one live device allocation or one variable of the module, as the space demands.
void* locate(Thread& thread, const Op& op, Space space, std::uint64_t address, std::size_t bytes);

}  // namespace terse::ptx
