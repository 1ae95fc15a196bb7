// Embedding tables: word, position and token-type rows, gathered from the mapped file.
#pragma once

#include <cstdint>

#include "terse/ops/backend.h"
#include "terse/weights.h"

namespace terse {

// scope.weight, (rows, width). Throws Error missing_tensor, shape_mismatch, dtype.
inline Table load_table(const Backend& backend, const Weights& scope, std::int64_t rows,
                        std::int64_t width) {
  return backend.prepare_table(scope.get("weight", {rows, width}), scope.checkpoint());
}

}  // namespace terse
