// Linear layers: weight (out_features, in_features) and bias from the checkpoint, handed once to
// the backend that will multiply them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "terse/ops/backend.h"
#include "terse/ops/panels.h"
#include "terse/view.h"
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
  part.release = [checkpoint = scope.checkpoint()](const void* data, std::size_t bytes) {
    checkpoint->release(data, bytes);
  };
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
  return {slice(part.weight, part.weight.shape[1]), slice(part.bias, 1), part.owner, part.release};
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

// A linear layer as it was loaded, under the name of its first module ("encoder.layer.0.output
// .dense").
struct LoadedLinear {
  std::string module;
  LinearKind kind = LinearKind::plain;
  DType dtype = DType::f32;
  std::vector<LinearPart> parts;
  std::vector<std::string> tensors;  // names of their weights and biases
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
  std::shared_ptr<std::vector<LoadedLinear>> loaded;  // told of each linear layer that is prepared
  DType layer_dtype;                                  // of the layer that is loaded
  bool prepare = true;
};

// A linear layer by its scope and its shape.
struct LinearModule {
  Weights scope;
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
};

// The same from a packed file: <first module>.panels, with a bias .panel_bias, and of int8
// .panel_scales and .panel_sums. Throws Error missing_tensor, shape_mismatch, dtype, limit.
inline Linear load_packed_linear(const Loader& loader, LinearKind kind,
                                 std::span<const LinearModule> modules, Bias bias, DType dtype) {
  const Weights& scope = modules[0].scope;
  PackedLinear packed;
  packed.kind = kind;
  packed.dtype = dtype;
  packed.in_features = modules[0].in_features;
  packed.owner = scope.checkpoint();
  for (const LinearModule& module : modules) packed.rows.push_back(module.out_features);
  const PanelColumns columns(kind, packed.rows);
  packed.panels = scope.get("panels", panel_shape(columns, packed.in_features, dtype), dtype);
  const Shape by_column = {columns.panels() * kPanelColumns};
  if (bias == Bias::required) packed.bias = scope.get("panel_bias", by_column, DType::f32);
  if (dtype == DType::i8) {
    packed.scales = scope.get("panel_scales", by_column, DType::f32);
    packed.sums = scope.get("panel_sums", by_column, DType::i32);
    check(packed.in_features <= reference::kInt8MostWidth, ErrorClass::limit, "int8 products of ",
          packed.in_features, " elements, at most ", reference::kInt8MostWidth);
  }
  if (!loader.prepare) return {kind, dtype, packed.in_features, columns.out_features(), nullptr};
  const Backend& backend = *loader.backend;
  if (backend.adopt_linear != nullptr) return backend.adopt_linear(packed);
  return backend.prepare_linear(kind, view(unpack_linear(packed)), dtype);
}

// One linear layer of several modules, as `kind` stacks them, multiplied in `dtype` (the backend's
// compute or sensitive type). Throws Error missing_tensor, shape_mismatch, dtype.
inline Linear load_linear(const Loader& loader, LinearKind kind,
                          std::span<const LinearModule> modules, Bias bias, DType dtype) {
  if (kind != LinearKind::head && modules[0].scope.checkpoint()->is_packed()) {
    return load_packed_linear(loader, kind, modules, bias, dtype);
  }
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
  if (!loader.prepare) return linear;
  if (loader.loaded != nullptr && kind != LinearKind::head) {
    LoadedLinear loaded{modules[0].scope.name(), kind, dtype, parts, {}};
    for (const LinearModule& module : modules) {
      loaded.tensors.push_back(module.scope.prefix() + "weight");
      if (bias == Bias::required) loaded.tensors.push_back(module.scope.prefix() + "bias");
    }
    loader.loaded->push_back(std::move(loaded));
  }
  return loader.backend->prepare_linear(kind, view(parts), dtype);
}

// A linear layer on its own.
inline Linear load_linear(const Loader& loader, const Weights& scope, std::int64_t out_features,
                          std::int64_t in_features, Bias bias, DType dtype,
                          LinearKind kind = LinearKind::plain) {
  const LinearModule module{scope, out_features, in_features};
  return load_linear(loader, kind, {&module, 1}, bias, dtype);
}

}  // namespace terse
