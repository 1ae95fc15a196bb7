// A program with a deliberate bug that only what nvcc emitted shows; see tests/cuda/faults/fault.h.
// The file is compiled twice: by nvcc to PTX, kernels alone, and by the host compiler with main.
#pragma once

#include "../../faults/fault.h"
#include "launch_ptx.h"

namespace faults {

// As run, through the interpreter. The emulated source has to be right with the bug too, or the
// layer below could have found it.
inline int run_ptx(int argc, char** argv, bool (*good)(), bool (*bug)()) {
#ifndef TERSE_FAULT_IN_SOURCE
  if (!bug()) {
    std::fprintf(stderr, "the emulated source is wrong\n");
    return 3;
  }
#endif
  const terse::cuda_test::PtxLaunches interpreted;
  return run(argc, argv, good, bug);
}

}  // namespace faults
