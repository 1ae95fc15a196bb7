// What tests of the CUDA path share: the launch trait, which runs a test's body under emulation (in
// every schedule), through the PTX interpreter or on a device, and device buffers of exact size.
// One test source serves all; the build decides.
#pragma once

#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <vector>

#ifdef TERSE_CUDA_EMULATION
#include "emu.h"
#endif
#ifdef TERSE_CUDA_PTX
#include "ptx/launch_ptx.h"
#endif

namespace terse::cuda_test {

inline void require(cudaError_t status) {
  if (status != cudaSuccess) FAIL(std::string(cudaGetErrorString(status)));
}

// Runs body() once on a device or through the PTX interpreter, and once a schedule in emulation;
// what fails says in which.
template <class Body>
void for_each_mode(const Body& body) {
#ifdef TERSE_CUDA_EMULATION
  auto chosen = emu::schedules();
#ifdef TERSE_CUDA_PTX
  const PtxLaunches interpreted;
  chosen.resize(1);
#endif
  for (const emu::NamedOptions& schedule : chosen) {
    CAPTURE(schedule.name);
    const emu::ScopedOptions scoped(schedule.options);
    body();
  }
#else
  body();
#endif
}

// Device memory of `count` elements and not one more.
template <class T>
class DeviceBuffer {
 public:
  // Uninitialised: in emulation every bit is set, a NaN in each floating type.
  explicit DeviceBuffer(std::size_t count) : count_(count) {
    void* memory = nullptr;
    require(cudaMalloc(&memory, count * sizeof(T)));
    data_ = static_cast<T*>(memory);
  }
  explicit DeviceBuffer(const std::vector<T>& values) : DeviceBuffer(values.size()) {
    require(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceBuffer() { static_cast<void>(cudaFree(data_)); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  T* get() const { return data_; }
  std::size_t size() const { return count_; }

  // What it holds once all work is done.
  std::vector<T> values() const {
    require(cudaDeviceSynchronize());
    std::vector<T> out(count_);
    require(cudaMemcpy(out.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  std::size_t count_;
  T* data_ = nullptr;
};

}  // namespace terse::cuda_test
