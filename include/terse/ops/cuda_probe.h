// What CUDA devices can do at this moment: one large product by cuBLAS, for the same reason as
// probe.h: a share of it can be compared between devices.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "terse/cpu.h"
#include "terse/dtype.h"
#include "terse/ops/cuda.h"
#include "terse/ops/cuda_state.h"

namespace terse::cuda {

// Square matrices of one type on every device, multiplied when asked. Throws Error(device).
class ProductProbe {
 public:
  // Large enough that a device reaches its best rate: a fifth of a second of f32, or milliseconds.
  static constexpr std::int64_t kSize = 8192;

  explicit ProductProbe(DType dtype) : dtype_(dtype) {
    const std::vector<std::byte> values = random_values();
    for (std::size_t device = 0; device < devices().size(); ++device) {
      devices_.push_back(std::make_unique<OnDevice>(static_cast<int>(device), values));
    }
    run_all();  // chooses an algorithm, captures the graph
    run_all();
  }

  std::string name() const {
    return "cuBLASLt product of " + std::to_string(kSize) + " x " + std::to_string(kSize);
  }

  // Operations per second, all devices together: of each the best product.
  double measure() const {
    constexpr int kRounds = 8;
    constexpr double kOperations = 2.0 * kSize * kSize * kSize;
    double sum = 0;
    for (const auto& device : devices_) {
      double best = 0;
      for (int round = 0; round < kRounds; ++round) {
        const auto start = std::chrono::steady_clock::now();
        run(*device);
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, kProducts * kOperations / seconds.count());
      }
      sum += best;
    }
    return sum;
  }

 private:
  // In one program, so that the start of it does not count.
  static constexpr int kProducts = 4;

  struct OnDevice {
    OnDevice(int device, const std::vector<std::byte>& values)
        : queue(device), x(device, values.size()), y(device, kSize * kSize * sizeof(float)) {
      x.upload(values.data(), values.size());
    }
    Queue queue;
    Memory x;  // both factors
    Memory y;
  };

  // Values in [-1, 1): products of zeros draw less power, and are faster than any real ones.
  std::vector<std::byte> random_values() const {
    constexpr auto kCount = static_cast<std::size_t>(kSize * kSize);
    std::vector<std::byte> bytes(kCount * dtype_size(dtype_));
    std::uint32_t state = 1;
    for (std::size_t i = 0; i < kCount; ++i) {
      state = state * 1664525 + 1013904223;  // Numerical Recipes, 7.1
      const float value = static_cast<float>(state >> 8) / 8388608.0F - 1;
      if (dtype_ == DType::f32) reinterpret_cast<float*>(bytes.data())[i] = value;
      if (dtype_ == DType::bf16) reinterpret_cast<bf16*>(bytes.data())[i] = to_bf16(value);
      if (dtype_ == DType::f16) reinterpret_cast<f16*>(bytes.data())[i] = to_f16(value);
    }
    return bytes;
  }

  void run(OnDevice& device) const {
    ProductStep step;
    step.x = step.w = device.x.data();
    step.y = device.y.data();
    step.rows = step.columns = step.width = kSize;
    step.type = step.out_type = static_cast<std::int32_t>(dtype_);
    for (int product = 0; product < kProducts; ++product) device.queue.add(step);
    device.queue.wait();
  }

  void run_all() const {
    for (const auto& device : devices_) run(*device);
  }

  DType dtype_;
  std::vector<std::unique_ptr<OnDevice>> devices_;
};

}  // namespace terse::cuda
