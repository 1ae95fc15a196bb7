// State of the stand-in runtime that its files share: fake_runtime.cpp (devices, errors, memory),
// fake_launch.cpp (launches), fake_stream.cpp (streams, events, graphs), fake_blas.cpp.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "runtime.h"

namespace emu {

using Operation = std::function<void()>;

// Shared memory of a block that opted in to no more.
inline constexpr std::size_t kDefaultSharedBytes = std::size_t{48} << 10;
inline constexpr unsigned kRegisters = 65536;   // of a multiprocessor
inline constexpr std::size_t kAlignment = 256;  // as the runtime promises

struct Allocation {
  std::size_t bytes;
  int device;
};

struct DeviceState {
  std::size_t used_bytes = 0;
  cudaError_t lost = cudaSuccess;
  long calls_until_lost = 0;
};

struct Runtime {
  std::recursive_mutex mutex;
  Counters counters;
  std::map<std::uintptr_t, Allocation> allocations;  // by address
  std::map<std::uintptr_t, std::size_t> pinned;      // bytes of the host's, by address
  std::map<int, DeviceState> devices;
  std::map<std::pair<int, const void*>, std::size_t> dynamic_limits;  // opted in
  std::map<std::string, Resources> resources;  // by kernel, as in limits.json
  std::function<Body(const Launch&)> body_provider;
  long allocations_until_failure = -1;
  int access_depth = 0;
};
Runtime& runtime();

// The allocation that holds the byte at `address`, or null.
const std::pair<const std::uintptr_t, Allocation>* find_allocation(std::uintptr_t address);

// Whether the byte at `address` is pinned memory of the host, which kernels of every device may
// read and write.
bool is_pinned(std::uintptr_t address);

// One lock for all calls: emulated devices take turns.
std::recursive_mutex& runtime_mutex();
using Lock = std::lock_guard<std::recursive_mutex>;

// What each call begins with: an error if there is no driver or device, or the current device is
// lost.
cudaError_t enter();
// Notes an error for cudaGetLastError and returns it.
cudaError_t note(cudaError_t error);
int current_device();
// A call that neither waits nor allocates.
template <class Work>
cudaError_t on_runtime(const Work& work) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t error = enter(); error != cudaSuccess) return error;
  return work();
}

Counters& counted();

// Makes every stream's work done (of one device; -1: of all), as cudaDeviceSynchronize does.
void finish_device(int device);
// Makes the work done that a call on the legacy default stream waits for.
void finish_blocking(int device);
// Forgets queued work of a device that is reset.
void drop_streams(int device);
// The device of a stream, or -1 for no stream at all.
int device_of(cudaStream_t stream);
// Whether a capture forbids a call that allocates or synchronises; the capture is then lost.
bool breaks_capture();

}  // namespace emu
