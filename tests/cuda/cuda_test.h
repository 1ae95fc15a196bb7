// What tests of the CUDA path share: the launch trait, which runs a test's body under emulation (in
// every schedule), through the PTX interpreter or on a device, and device buffers. One test source
// serves all; the build decides.
#pragma once

#include <doctest/doctest.h>

#include <cstdio>

#include "device_buffer.h"

#ifdef TERSE_CUDA_EMULATION
#include "emu.h"
#endif
#ifdef TERSE_CUDA_LIMITS
#include <fstream>
#include <nlohmann/json.hpp>
#endif
#ifdef TERSE_CUDA_PTX
#include "ptx/launch_ptx.h"
#endif

namespace terse::cuda_test {

#ifdef TERSE_CUDA_LIMITS
// Tells the emulator what nvcc made of the shipped kernels (limits.json), for its launch limits.
inline void use_limits() {
  static const bool used = [] {
    std::ifstream file(TERSE_CUDA_LIMITS);
    const nlohmann::json all = nlohmann::json::parse(file);
    for (const auto& [kernel, limits] : all.items()) {
      emu::set_resources(kernel, {limits.at("threads").template get<unsigned>(),
                                  limits.at("sm_90").at("max_registers").template get<unsigned>()});
    }
    return true;
  }();
  static_cast<void>(used);
}
#endif

// Runs body() once on a device or through the PTX interpreter, and once a schedule in emulation;
// what fails says in which.
template <class Body>
void for_each_mode(const Body& body) {
#ifdef TERSE_CUDA_LIMITS
  use_limits();
#endif
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
  int device_count = 0;
  if (cudaGetDeviceCount(&device_count) != cudaSuccess || device_count == 0) {
    std::puts("skipped: no CUDA device");
    return;
  }
  body();
#endif
}

}  // namespace terse::cuda_test
