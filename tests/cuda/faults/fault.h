// A program with a deliberate bug, to prove that the tests find it. Each file here is one: its
// first comment names the bug and the layer that must find it, test_faults.cpp says by which words.
//
//   fault_NAME good    runs the code as it should be, in every schedule; exit status 0
//   fault_NAME bug     runs it with the bug; has to fail
//
// Exit status 1: a wrong result, 2: a Fault or an error of the library; sanitizers choose theirs.
#pragma once

#include <cstdio>
#include <cstring>
#include <exception>

#include "device.cuh"
#include "device_buffer.h"
#include "emu.h"

namespace faults {

using terse::cuda::klaunch;
using terse::cuda_test::DeviceBuffer;
using terse::cuda_test::require;

// good() and bug() are the code without and with the bug: whether the result is right.
inline int run(int argc, char** argv, bool (*good)(), bool (*bug)()) {
  if (argc != 2) return 64;
  bool (*const chosen)() = std::strcmp(argv[1], "bug") == 0 ? bug : good;
  try {
    for (const emu::NamedOptions& schedule : emu::schedules()) {
      const emu::ScopedOptions scoped(schedule.options);
      if (chosen()) continue;
      std::fprintf(stderr, "wrong result in schedule %s\n", schedule.name.c_str());
      return 1;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  return 0;
}

}  // namespace faults
