// main() of the programs that test a real device: without one they say so and pass.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "terse/error.h"
#include "terse/ops/cuda.h"

int main(int argc, char** argv) {
  try {
    terse::cuda::find_devices();
  } catch (const terse::Error& error) {
    std::printf("skipped: no CUDA device (%s)\n", error.what());
    return 0;
  }
  return doctest::Context(argc, argv).run();
}
