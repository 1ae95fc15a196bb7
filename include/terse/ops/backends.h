// Which op table a machine runs.
#pragma once

#include <optional>

#include "terse/cpu.h"
#include "terse/dtype.h"
#include "terse/ops/backend.h"

#ifndef TERSE_COMPILED
#include "terse/ops/tables.h"
#endif

namespace terse {

// The op table of an instruction set (unset: the best of this machine) for a type of products
// (unset: f32, which keeps the reference's scores). Throws Error(unsupported) if the machine lacks
// the instruction set or the table lacks the type.
#ifdef TERSE_COMPILED
const Backend& choose_backend(std::optional<Isa> isa, std::optional<DType> dtype);
#else
inline const Backend& choose_backend(std::optional<Isa> isa, std::optional<DType> dtype) {
  return detail::find_table(isa, dtype);
}
#endif

}  // namespace terse
