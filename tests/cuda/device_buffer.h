// Device memory for tests, on a device or emulated, exact in size.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

namespace terse::cuda_test {

inline void require(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
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
