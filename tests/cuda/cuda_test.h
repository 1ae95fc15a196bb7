// What tests of the CUDA path share: the launch trait, which runs a test's body under emulation (in
// every schedule), through the PTX interpreter or on a device, and device buffers. One test source
// serves all; the build decides.
#pragma once

#include <doctest/doctest.h>

#include "device_buffer.h"

#ifdef TERSE_CUDA_EMULATION
#include "emu.h"
#endif
#ifdef TERSE_CUDA_PTX
#include "ptx/launch_ptx.h"
#endif

namespace terse::cuda_test {

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

}  // namespace terse::cuda_test
