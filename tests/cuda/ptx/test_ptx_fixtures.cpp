// The PTX of every shipped kernel has an interpretation; which opcodes that takes is printed.
#include <doctest/doctest.h>

#include <iostream>
#include <string>

#include "launch_ptx.h"

TEST_CASE("every opcode of the shipped kernels is known") {
  const terse::ptx::Module& module = terse::cuda_test::PtxLaunches::module();
  CHECK(!module.programs().empty());
  for (const auto& [opcode, count] : module.opcodes()) std::cout << count << "\t" << opcode << "\n";
  std::cout << module.opcodes().size() << " opcodes in " << module.programs().size()
            << " kernels\n";
}

TEST_CASE("no shipped kernel has local memory or calls in its PTX") {
  for (const auto& [name, program] : terse::cuda_test::PtxLaunches::module().programs()) {
    CAPTURE(name);
    CHECK(program.local_bytes == 0);
  }
}
