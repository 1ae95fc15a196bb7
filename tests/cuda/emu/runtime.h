// What the parts of the emulator say to each other; tests include emu.h.
#pragma once

#include <cstddef>

#include "emu.h"

namespace emu {

// Runs a grid to its end in the order that options() choose. shared_limit_bytes is how much shared
// memory a block may have, static and dynamic together. Throws Fault.
void run_grid(dim3 grid, dim3 block, std::size_t dynamic_smem, std::size_t shared_limit_bytes,
              const Body& body);

// Whether [address, address + bytes) lies in one live device allocation.
bool in_device_memory(const void* address, std::size_t bytes);

// Runs an operation on device memory at once or when the stream is synchronised, or records it
// while the stream is captured. Returns what the host call has to return.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> operation);

// Makes device memory accessible for as long as it lives: it is poisoned for host code.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

// emu_copy.cpp, the part that sanitizers see. Copies and fills by the running thread.
void copy_bytes(void* to, const void* from, std::size_t bytes);
void fill_bytes(void* to, unsigned char value, std::size_t bytes);
// Reads and writes memory without changing it, as a copy still under way does.
void touch_source(const void* from, std::size_t bytes);
void touch_target(void* to, std::size_t bytes);

// Sanitizers, or nothing in a plain build.
void poison(const void* address, std::size_t bytes);
void unpoison(const void* address, std::size_t bytes);

}  // namespace emu
