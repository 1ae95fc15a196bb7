// Feed-forward block of the decoders: down(activation(gate x) * up x), Shazeer 2020,
// arXiv:2002.05202.
#pragma once

#include <array>
#include <cstdint>

#include "terse/layers/linear.h"
#include "terse/ops/backend.h"
#include "terse/weights.h"

namespace terse {

struct GatedFeedForward {
  Linear gate_up;    // gate_proj and up_proj, (intermediate_size, hidden_size) each
  Linear down_proj;  // (hidden_size, intermediate_size)
};

// scope.{gate,up,down}_proj, none with a bias. Throws Error missing_tensor, shape_mismatch, dtype.
inline GatedFeedForward load_gated_feed_forward(const Loader& loader, const Weights& scope,
                                                std::int64_t hidden_size,
                                                std::int64_t intermediate_size, DType dtype) {
  const std::array modules = {
      LinearModule{scope.scope("gate_proj"), intermediate_size, hidden_size},
      LinearModule{scope.scope("up_proj"), intermediate_size, hidden_size}};
  return {load_linear(loader, LinearKind::gated, modules, Bias::none, dtype),
          load_linear(loader, scope.scope("down_proj"), hidden_size, intermediate_size, Bias::none,
                      dtype)};
}

}  // namespace terse
