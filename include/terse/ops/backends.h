// Which op table a machine runs: the only header that knows them all.
#pragma once

#include <optional>

#include "terse/cpu.h"
#include "terse/dtype.h"
#include "terse/ops/backend.h"
#include "terse/ops/eigen.h"
#include "terse/ops/reference.h"

namespace terse {

// The op table of an instruction set (unset: the best of this machine) for a type of products
// (unset: f32, which keeps the reference's scores). Throws Error(unsupported) if the machine lacks
// the instruction set or the table lacks the type.
inline const Backend& choose_backend(std::optional<Isa> isa, std::optional<DType> dtype) {
  if (isa) require_isa(*isa);
  return eigen::backend(dtype.value_or(DType::f32));
}

}  // namespace terse
