// State of the stand-in runtime that its two files share: fake_runtime.cpp (devices, memory,
// launches) and fake_stream.cpp (streams, events, graphs).
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime.h"

namespace emu {

using Operation = std::function<void()>;

// One lock for all calls: emulated devices take turns.
std::recursive_mutex& runtime_mutex();
using Lock = std::lock_guard<std::recursive_mutex>;

// What each call begins with: an error if there is no driver or device, or the current device is
// lost; counts the call.
cudaError_t enter();
// Notes an error for cudaGetLastError and returns it.
cudaError_t note(cudaError_t error);
int current_device();

Counters& counted();
// Runs an allocation's release.
cudaError_t release_memory(void* pointer);
cudaError_t allocate(void** pointer, std::size_t bytes);

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
