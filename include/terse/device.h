// Where forward passes run.
#pragma once

#include <cstdint>

namespace terse {

enum class Device : std::uint8_t {
  automatic,  // the accelerator this program was built for, if the machine has one; else the CPU
  cpu,
  cuda,
};

inline const char* device_name(Device device) {
  static constexpr const char* kNames[] = {"auto", "cpu", "cuda"};
  return kNames[static_cast<std::uint8_t>(device)];
}

}  // namespace terse
