// Launches through the interpreter, for tests that are built with TERSE_CUDA_PTX: the path of the
// PTX file of all kernels they launch.
#pragma once

#include "module.h"

namespace terse::cuda_test {

// While one lives, launches run the PTX. The file is read once.
class PtxLaunches {
 public:
  PtxLaunches() { module().install(); }
  ~PtxLaunches() { ptx::Module::uninstall(); }
  PtxLaunches(const PtxLaunches&) = delete;
  PtxLaunches& operator=(const PtxLaunches&) = delete;

  static const ptx::Module& module() {
    static const ptx::Module loaded = ptx::Module::from_file(TERSE_CUDA_PTX);
    return loaded;
  }
};

}  // namespace terse::cuda_test
