// LoRA adapters (Hu et al. 2021, arXiv:2106.09685) as PEFT saves them: low-rank changes of linear
// layers, merged into the weights when these are prepared, and whole weights that replace theirs.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/layers/linear.h"
#include "terse/models/config.h"
#include "terse/parallel.h"
#include "terse/tensor.h"
#include "terse/weights.h"

namespace terse {

struct LoraConfig {
  std::int64_t r = 0;
  double lora_alpha = 0;
  bool use_rslora = false;
  bool rank_pattern = false;  // modules may have ranks of their own

  // The factor of B A for a module of rank `rank`.
  double scale(std::int64_t rank) const {
    const auto divisor = static_cast<double>(rank);
    return lora_alpha / (use_rslora ? std::sqrt(divisor) : divisor);
  }

  // Throws Error (config.h) for anything that changes weights in another way than B A does.
  static LoraConfig from(const Config& config) {
    LoraConfig c;
    config.require("peft_type", "LORA");
    config.require("bias", "none");
    c.r = config.integer("r", 1, ConfigLimits::kWidth);
    c.lora_alpha = config.number_or("lora_alpha", 8, -1e9, 1e9);
    c.use_rslora = config.boolean_or("use_rslora", false);
    for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias"}) {
      check(!config.boolean_or(key, false), ErrorClass::unsupported, config.source(), ": ", key,
            " is true, which is not implemented");
    }
    check(!has_entries(config, "alpha_pattern"), ErrorClass::unsupported, config.source(),
          ": alpha_pattern is set, which is not implemented");
    c.rank_pattern = has_entries(config, "rank_pattern");
    return c;
  }

 private:
  static bool has_entries(const Config& config, std::string_view key) {
    return config.has(key) && config.root().find(key)->as_object(key).size() > 0;
  }
};

// An adapter folder: adapter_config.json and adapter_model.safetensors (or .bin). Which modules it
// changes is told by its tensors, base_model.model.<module>.lora_A.weight (rank, in_features) and
// lora_B.weight (out_features, rank), and base_model.model.<module>.weight for those replaced.
class LoraAdapter : public WeightAdapter {
 public:
  // Throws Error: io, config.h, safetensors.h; unsupported (a tensor of another kind),
  // missing_tensor (half of a pair), shape_mismatch (ranks that disagree).
  static std::shared_ptr<const LoraAdapter> load(const std::filesystem::path& folder, int threads) {
    std::shared_ptr<LoraAdapter> adapter(new LoraAdapter(folder, threads));
    const Config config = Config::load(folder / "adapter_config.json");
    const LoraConfig lora = LoraConfig::from(config);
    adapter->checkpoint_->for_each(
        [&](std::string_view name, const TensorView& view) { adapter->add(name, view); });
    for (auto& [module, change] : adapter->changes_) adapter->finish(module, change, lora);
    return adapter;
  }

  void expect(const Weights& module, const LinearPart& part) const override {
    const Change* change = find(module);
    if (change == nullptr) return;
    change->used.store(true, std::memory_order_relaxed);
    const Shape& shape = part.weight.shape;
    const Shape found = change->weight.data != nullptr
                            ? change->weight.shape
                            : Shape{change->b.shape[0], change->a.shape[1]};
    check(found == shape, ErrorClass::shape_mismatch, path_, ": the change of ",
          quote(module.prefix(), 200), " has shape ", shape_text(found), ", the weight ",
          shape_text(shape));
  }

  // W + scale B A, summed in f32, in f64 where W is.
  LinearPart merge(const Weights& module, const LinearPart& part) const override {
    const Change* change = find(module);
    if (change == nullptr) return part;
    LinearPart merged = part;
    merged.release = {};
    if (change->weight.data != nullptr) {
      merged.weight = change->weight;
      merged.owner = checkpoint_;
      return merged;
    }
    const auto tensor = std::make_shared<Tensor>(
        part.weight.dtype == DType::f64 ? DType::f64 : DType::f32, part.weight.shape);
    if (tensor->dtype() == DType::f64) {
      add_product(part.weight, *change, tensor->data<double>());
    } else {
      add_product(part.weight, *change, tensor->data<float>());
    }
    merged.weight = tensor->view();
    merged.owner = tensor;
    return merged;
  }

  // Throws Error(unsupported) naming a module that no layer of the model has asked for: a change
  // that would be lost. To be called when the model is loaded.
  void refuse_unused() const {
    for (const auto& [module, change] : changes_) {
      check(change.used.load(std::memory_order_relaxed), ErrorClass::unsupported, path_,
            ": changes ", quote(module, 200),
            ", which is no linear layer of this model or cannot be changed");
    }
  }

 private:
  struct Change {
    TensorView a;       // (rank, in_features)
    TensorView b;       // (out_features, rank)
    TensorView weight;  // or the whole weight, (out_features, in_features)
    double scale = 0;
    mutable std::atomic<bool> used{false};
  };

  LoraAdapter(const std::filesystem::path& folder, int threads)
      : path_(folder.string()), threads_(threads) {
    std::filesystem::path file = folder / "adapter_model.safetensors";
    if (!std::filesystem::exists(file) && std::filesystem::exists(folder / "adapter_model.bin")) {
      file = folder / "adapter_model.bin";
    }
    checkpoint_ = Checkpoint::open(file.string());
  }

  void add(std::string_view name, const TensorView& view) {
    check(is_floating(view.dtype) && view.shape.size() == 2, ErrorClass::unsupported, path_,
          ": tensor ", quote(name, 200), " of type ", dtype_name(view.dtype), " and shape ",
          shape_text(view.shape), ", expected a matrix of floats");
    std::string_view rest = name;
    if (rest.starts_with("base_model.model.")) rest.remove_prefix(17);
    const auto ends = [&](std::string_view suffix) {
      if (!rest.ends_with(suffix)) return false;
      rest.remove_suffix(suffix.size());
      return true;
    };
    if (ends(".lora_A.weight")) {
      changes_[std::string(rest)].a = view;
    } else if (ends(".lora_B.weight")) {
      changes_[std::string(rest)].b = view;
    } else {
      check(ends(".weight") && rest.find("lora_") == std::string_view::npos,
            ErrorClass::unsupported, path_, ": tensor ", quote(name, 200),
            ", expected lora_A, lora_B or a whole weight");
      changes_[std::string(rest)].weight = view;
    }
  }

  void finish(const std::string& module, Change& change, const LoraConfig& lora) const {
    const bool pair = change.a.data != nullptr || change.b.data != nullptr;
    if (!pair) return;
    check(change.a.data != nullptr && change.b.data != nullptr, ErrorClass::missing_tensor, path_,
          ": ", quote(module, 200), " has one of lora_A and lora_B");
    check(change.weight.data == nullptr, ErrorClass::duplicate, path_, ": ", quote(module, 200),
          " has lora_A and a whole weight");
    const std::int64_t rank = change.a.shape[0];
    check(rank > 0 && rank == change.b.shape[1] && (lora.rank_pattern || rank == lora.r),
          ErrorClass::shape_mismatch, path_, ": ", quote(module, 200), " has lora_A ",
          shape_text(change.a.shape), " and lora_B ", shape_text(change.b.shape), ", r is ",
          lora.r);
    change.scale = lora.scale(rank);
  }

  // PEFT names modules as the class it wrapped does: with or without the "model." that a checkpoint
  // of a trunk lacks.
  const Change* find(const Weights& module) const {
    constexpr std::string_view kTrunk = "model.";
    std::string name = module.prefix();
    name.pop_back();  // the dot of a scope
    auto at = changes_.find(name);
    if (at == changes_.end()) at = changes_.find(std::string(kTrunk) + name);
    if (at == changes_.end() && name.starts_with(kTrunk)) {
      at = changes_.find(name.substr(kTrunk.size()));
    }
    return at == changes_.end() ? nullptr : &at->second;
  }

  template <class Real>
  void add_product(const TensorView& weight, const Change& change, Real* out) const {
    const auto columns = static_cast<std::size_t>(weight.shape[1]);
    const auto rank = static_cast<std::size_t>(change.a.shape[0]);
    std::vector<Real> a(rank * columns);
    std::vector<Real> b(static_cast<std::size_t>(weight.shape[0]) * rank);
    convert_to(a.data(), change.a.data, change.a.dtype, a.size());
    convert_to(b.data(), change.b.data, change.b.dtype, b.size());
    const std::size_t row_bytes = columns * dtype_size(weight.dtype);
    parallel_for(threads_, weight.shape[0], [&](std::int64_t index) {
      const auto row = static_cast<std::size_t>(index);
      Real* y = out + row * columns;
      convert_to(y, static_cast<const std::byte*>(weight.data) + row * row_bytes, weight.dtype,
                 columns);
      for (std::size_t k = 0; k < rank; ++k) {
        const Real factor = static_cast<Real>(change.scale) * b[row * rank + k];
        for (std::size_t i = 0; i < columns; ++i) y[i] += factor * a[k * columns + i];
      }
    });
  }

  std::string path_;
  int threads_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::map<std::string, Change> changes_;
};

}  // namespace terse
