// Linear layers: weight (out_features, in_features) and bias from the checkpoint, handed once to
// the backend that will multiply them.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "terse/ops/backend.h"
#include "terse/weights.h"

namespace terse {

enum class Bias : std::uint8_t { none, required };

// The tensors of one linear layer: scope.weight (out_features, in_features) and, if required,
// scope.bias (out_features). Throws Error missing_tensor, shape_mismatch, dtype.
inline LinearPart linear_part(const Weights& scope, std::int64_t out_features,
                              std::int64_t in_features, Bias bias) {
  LinearPart part;
  part.weight = scope.get("weight", {out_features, in_features});
  if (bias == Bias::required) part.bias = scope.get("bias", {out_features});
  part.owner = scope.checkpoint();
  return part;
}

// Rows [first, first + count) of a part, without copying: one of several stacked in one tensor.
inline LinearPart rows_of(const LinearPart& part, std::int64_t first, std::int64_t count) {
  const auto slice = [&](TensorView view, std::int64_t row_elements) {
    if (view.data == nullptr) return view;
    view.data = static_cast<const std::byte*>(view.data) +
                static_cast<std::size_t>(first * row_elements) * dtype_size(view.dtype);
    view.shape[0] = count;
    return view;
  };
  return {slice(part.weight, part.weight.shape[1]), slice(part.bias, 1), part.owner};
}

// A linear layer on its own, multiplied in `dtype` (the backend's compute or sensitive type).
inline Linear load_linear(const Backend& backend, const Weights& scope, std::int64_t out_features,
                          std::int64_t in_features, Bias bias, DType dtype,
                          LinearKind kind = LinearKind::plain) {
  const LinearPart part = linear_part(scope, out_features, in_features, bias);
  return backend.prepare_linear(kind, {&part, 1}, dtype);
}

}  // namespace terse
