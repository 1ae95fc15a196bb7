// Rerankers that can be scored after several layers: which exits a config allows, what a request
// makes of them and of token compression, and a scalar head for each exit. Source: FlagEmbedding
// 1.4.0, gemma_model.py (CostWiseGemmaForCausalLM) and modeling_minicpm_reranker.py.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "terse/error.h"
#include "terse/layers/linear.h"
#include "terse/models/config.h"
#include "terse/models/model.h"
#include "terse/options.h"
#include "terse/view.h"

namespace terse {

// start_layer, start_layer + layer_sep, ... up to num_hidden_layers.
struct ExitLayers {
  std::int64_t start_layer = 0;
  std::int64_t layer_sep = 1;
  std::int64_t num_hidden_layers = 0;

  // Throws Error: missing, type, range.
  static ExitLayers from(const Config& config, std::int64_t num_hidden_layers) {
    return {config.integer("start_layer", 0, num_hidden_layers),
            config.integer_or("layer_sep", 1, 1, ConfigLimits::kLayers), num_hidden_layers};
  }

  bool contains(std::int64_t layer) const {
    return layer >= start_layer && layer <= num_hidden_layers &&
           (layer - start_layer) % layer_sep == 0;
  }
  // The place of an exit among all.
  std::size_t index_of(std::int64_t layer) const {
    return static_cast<std::size_t>((layer - start_layer) / layer_sep);
  }
  std::vector<std::int64_t> all() const {
    std::vector<std::int64_t> layers;
    for (std::int64_t layer = start_layer; layer <= num_hidden_layers; layer += layer_sep) {
      layers.push_back(layer);
    }
    return layers;
  }
};

// Throws Error(unsupported) unless the config has a head for each exit.
inline void require_layer_wise(const Config& config) {
  check(config.boolean_or("layer_wise", false), ErrorClass::unsupported, config.source(),
        ": layer_wise is false, only models with one head per exit are implemented");
}

namespace detail {

inline std::string number_list(const std::vector<std::int64_t>& numbers) {
  constexpr std::size_t kShown = 8;
  std::string text;
  for (std::size_t i = 0; i < std::min(numbers.size(), kShown); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(numbers[i]);
  }
  return text + (numbers.size() > kShown ? ", ..." : "");
}

// Rising, each once; what keep() refuses goes to `dropped`, in order of the request.
template <class Keep>
std::vector<std::int64_t> sorted_subset(const std::vector<std::int64_t>& requested, Keep&& keep,
                                        std::vector<std::int64_t>* dropped) {
  std::vector<std::int64_t> kept;
  for (const std::int64_t layer : requested) (keep(layer) ? kept : *dropped).push_back(layer);
  std::sort(kept.begin(), kept.end());
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  return kept;
}

}  // namespace detail

// The exits of a request, rising, each once; the last layer if it names none. As in the reference,
// layers that are no exits are left out, but `warnings` says so. Throws Error(range) if none is
// left.
inline std::vector<std::int64_t> choose_exits(const ScoreOptions& options, const ExitLayers& exits,
                                              std::vector<std::string>& warnings) {
  const std::vector<std::int64_t> all = exits.all();
  if (options.cutoff_layers.empty()) return {all.back()};
  std::vector<std::int64_t> dropped;
  const auto kept = detail::sorted_subset(
      options.cutoff_layers, [&](std::int64_t layer) { return exits.contains(layer); }, &dropped);
  const std::string allowed = std::to_string(all.front()) + " to " + std::to_string(all.back()) +
                              (exits.layer_sep > 1 ? " by " + std::to_string(exits.layer_sep) : "");
  check(!kept.empty(), ErrorClass::range, "cutoff_layers ", detail::number_list(dropped),
        ", expected layers from ", allowed);
  if (!dropped.empty()) {
    warnings.push_back("cutoff_layers " + detail::number_list(dropped) +
                       " left out: the exits of this model are " + allowed);
  }
  return kept;
}

// The compress layers and ratio of a request, for exits already chosen. As in the reference, layer
// 0, layers from the last exit on and ratio 1 compress nothing; `warnings` says so of what was
// asked for, unless it is ratio 1. Throws Error(range) for a ratio outside 1 to 4096 or a negative
// layer.
inline void choose_compression(const ScoreOptions& options, RunOptions& run,
                               std::vector<std::string>& warnings) {
  constexpr std::int64_t kMaxRatio = 4096;
  const std::int64_t ratio = options.compress_ratio.value_or(1);
  check(ratio >= 1 && ratio <= kMaxRatio, ErrorClass::range, "compress_ratio ", ratio,
        ", expected 1 to ", kMaxRatio);
  const std::vector<std::int64_t> requested =
      options.compress_layers.value_or(std::vector<std::int64_t>{8});
  for (const std::int64_t layer : requested) {
    check(layer >= 0, ErrorClass::range, "compress_layers ", layer, ", expected layers from 1 on");
  }
  if (ratio == 1) {
    if (!options.compress_ratio && options.compress_layers && !requested.empty()) {
      warnings.push_back("compress_layers without effect: no compress_ratio is given");
    }
    return;
  }
  const std::int64_t last = run.exits.back();
  std::vector<std::int64_t> dropped;
  run.compress_layers = detail::sorted_subset(
      requested, [&](std::int64_t layer) { return layer > 0 && layer < last; }, &dropped);
  if (!run.compress_layers.empty()) run.compress_ratio = ratio;
  if (!dropped.empty()) {
    warnings.push_back("compress_layers " + detail::number_list(dropped) +
                       " without effect: tokens are compressed before layers 1 to " +
                       std::to_string(last - 1) + " of this request");
  }
  if (requested.empty()) {
    warnings.push_back("compress_ratio " + std::to_string(ratio) +
                       " without effect: compress_layers is empty");
  }
}

// The choices that a model does not have; one that it has is set to false.
struct AbsentChoices {
  bool exits = true;
  bool compression = true;
  bool heads = true;
  bool attention_softcap = true;
  bool gelu = true;

  // Throws Error(unsupported) if options ask for one of them.
  void refuse(const ScoreOptions& options, std::string_view architecture) const {
    const auto check_absent = [&](bool absent, bool set, std::string_view name) {
      check(!absent || !set, ErrorClass::unsupported, name, " is set, but a ", architecture,
            " has no such choice");
    };
    check_absent(exits, !options.cutoff_layers.empty(), "cutoff_layers");
    check_absent(compression, options.compress_layers.has_value(), "compress_layers");
    check_absent(compression, options.compress_ratio.has_value(), "compress_ratio");
    check_absent(heads, options.heads.has_value(), "heads");
    check_absent(attention_softcap, options.attention_softcap != Switch::automatic,
                 "attention_softcap");
    check_absent(gelu, options.gelu != Gelu::automatic, "gelu");
  }
};

// lm_head.{0 ..}.linear_head.weight, (1, hidden_size) each, one per exit.
class ExitHeads {
 public:
  ExitHeads(const Loader& loader, const Weights& root, const ExitLayers& exits, std::int64_t width)
      : exits_(exits) {
    for (std::size_t head = 0; head < exits.all().size(); ++head) {
      const Weights scope =
          root.scope("lm_head", static_cast<std::int64_t>(head)).scope("linear_head");
      heads_.push_back(load_linear(loader, scope, 1, width, Bias::none, loader.backend->sensitive,
                                   LinearKind::head));
    }
  }

  // ordinal: exit number i of a request is read by head i, whatever its depth, as the reference
  // does; own: by the head that was made for its depth.
  const Linear& head_of(const RunOptions& options, std::size_t exit) const {
    return heads_[options.heads == Heads::ordinal ? exit : exits_.index_of(options.exits[exit])];
  }

 private:
  ExitLayers exits_;
  std::vector<Linear> heads_;
};

// softcap * tanh(head(norm(x)) / softcap) of the scored rows, one number each, into column `exit`
// of scores, (rows, exits).
inline void score_exit(Context& context, const Residual& rows, const HeadSpec& head,
                       std::size_t exit, std::size_t exits, std::span<double> scores) {
  std::vector<double>& column = context.scores;
  column.resize(static_cast<std::size_t>(rows.rows));
  context.backend->head(context, rows, head, writable(column));
  for (std::size_t row = 0; row < column.size(); ++row) scores[row * exits + exit] = column[row];
}

}  // namespace terse
