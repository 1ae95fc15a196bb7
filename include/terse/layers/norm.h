// Layer norm and RMS norm: their parameters from the checkpoint. The formulas are in
// ops/reference_math.h.
#pragma once

#include <cstdint>

#include "terse/layers/linear.h"
#include "terse/ops/backend.h"
#include "terse/weights.h"

namespace terse {

// scope.weight and scope.bias, (width); the older spelling gamma and beta where a file has it.
// Throws Error missing_tensor, shape_mismatch, dtype.
inline Norm load_layer_norm(const Backend& backend, const Weights& scope, std::int64_t width,
                            double eps) {
  const bool old_names = !scope.has("weight") && scope.has("gamma");
  const TensorView weight = scope.get(old_names ? "gamma" : "weight", {width});
  const TensorView bias = scope.get(old_names ? "beta" : "bias", {width});
  return {NormKind::layer, static_cast<float>(eps), width, backend.prepare_vector(weight),
          backend.prepare_vector(bias)};
}

// scope.weight, (width); kind is rms or rms_plus_one. Throws as above.
inline Norm load_rms_norm(const Loader& loader, const Weights& scope, NormKind kind,
                          std::int64_t width, double eps) {
  const TensorView weight = scope.get("weight", {width});
  return {kind, static_cast<float>(eps), width,
          loader.prepare ? loader.backend->prepare_vector(weight) : nullptr, nullptr};
}

}  // namespace terse
