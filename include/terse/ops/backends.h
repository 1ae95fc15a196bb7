// Which op table a machine runs.
#pragma once

#include <optional>
#include <string>

#include "terse/cpu.h"
#include "terse/device.h"
#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/ops/backend.h"

#ifndef TERSE_COMPILED
#include "terse/ops/tables.h"
#endif

namespace terse {

// The op table of an instruction set (unset: the best of this machine) for a type of products
// (unset: bf16 where an instruction multiplies it, else f32; docs/precision.md says why). Throws
// Error(unsupported) if the machine lacks the instruction set or the table lacks the type.
#ifdef TERSE_COMPILED
const Backend& choose_backend(std::optional<Isa> isa, std::optional<DType> dtype);
const Backend& choose_cuda_backend(std::optional<DType> dtype);
#else
template <class = void>
const Backend& choose_backend(std::optional<Isa> isa, std::optional<DType> dtype) {
  return detail::find_table(isa, dtype);
}

// The op table of the CUDA devices. Throws Error: device (built without CUDA, no driver, no
// device), unsupported (a type that has no kernels there).
template <class = void>
const Backend& choose_cuda_backend(std::optional<DType> dtype) {
  return detail::find_cuda_table(dtype);
}
#endif

// The op table of a device. automatic: CUDA where it is to be had, unless an instruction set is
// asked for; else the CPU, and *note says why. Throws as above.
template <class = void>
const Backend& choose_backend(Device device, std::optional<Isa> isa, std::optional<DType> dtype,
                              std::string* note) {
  if (device == Device::cpu || (device == Device::automatic && isa)) {
    return choose_backend(isa, dtype);
  }
  check(!isa, ErrorClass::unsupported, "an instruction set is chosen for the CPU, not for cuda");
  if (device == Device::cuda) return choose_cuda_backend(dtype);
  try {
    return choose_cuda_backend(dtype);
  } catch (const Error& error) {
    *note = error.what();
  }
  return choose_backend(isa, dtype);
}

}  // namespace terse
