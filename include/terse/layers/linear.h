// Linear layers: weight (out_features, in_features) and bias from the checkpoint, handed once to
// the backend that will multiply them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

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
  part.owner = scope.lease(part.weight);
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

// Changes to weights that are made when they are prepared: an adapter merged into them.
class WeightAdapter {
 public:
  virtual ~WeightAdapter() = default;
  // Told of a linear layer before it is prepared. Throws Error(shape_mismatch) if what it has for
  // this one does not fit.
  virtual void expect(const Weights& module, const LinearPart& part) const = 0;
  // The part with the adapter's change made, in memory of its own; the part itself if there is
  // none.
  virtual LinearPart merge(const Weights& module, const LinearPart& part) const = 0;
};

// What layers are loaded with. A loader that does not prepare only looks tensors up and checks
// their shapes and types: no weight is read, and the handles of what it returns are empty.
struct Loader {
  // Not explicit: a backend by itself loads weights as they are.
  Loader(const Backend& weights_of, std::shared_ptr<const WeightAdapter> merged = nullptr)
      : backend(&weights_of), adapter(std::move(merged)), layer_dtype(weights_of.compute) {}

  Loader checking() const {
    Loader loader = *this;
    loader.prepare = false;
    return loader;
  }

  const Backend* backend;
  std::shared_ptr<const WeightAdapter> adapter;
  DType layer_dtype;  // in which the layer that is loaded multiplies
  bool prepare = true;
};

// A linear layer by its scope and its shape.
struct LinearModule {
  Weights scope;
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
};

// One linear layer of several modules, as `kind` stacks them, multiplied in `dtype` (the backend's
// compute or sensitive type). Throws Error missing_tensor, shape_mismatch, dtype.
inline Linear load_linear(const Loader& loader, LinearKind kind,
                          std::span<const LinearModule> modules, Bias bias, DType dtype) {
  Linear linear{kind, dtype, modules[0].in_features, 0, nullptr};
  std::vector<LinearPart> parts;
  for (const LinearModule& module : modules) {
    LinearPart part = linear_part(module.scope, module.out_features, module.in_features, bias);
    if (loader.adapter != nullptr) {
      loader.adapter->expect(module.scope, part);
      if (loader.prepare) part = loader.adapter->merge(module.scope, part);
    }
    if (kind == LinearKind::gated) {
      linear.out_features = module.out_features;
    } else {
      linear.out_features += module.out_features;
    }
    parts.push_back(std::move(part));
  }
  return loader.prepare ? loader.backend->prepare_linear(kind, parts, dtype) : linear;
}

// A linear layer on its own.
inline Linear load_linear(const Loader& loader, const Weights& scope, std::int64_t out_features,
                          std::int64_t in_features, Bias bias, DType dtype,
                          LinearKind kind = LinearKind::plain) {
  const LinearModule module{scope, out_features, in_features};
  return load_linear(loader, kind, {&module, 1}, bias, dtype);
}

}  // namespace terse
