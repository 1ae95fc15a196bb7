// The trunk of Mistral 7B and Llama 2 (Jiang et al. 2023, arXiv:2310.06825; Touvron et al. 2023,
// arXiv:2307.09288): config, weights, one forward pass. Pre-norm blocks, grouped keys; Mistral has
// a sliding window on every layer. Its heads are in mistral_embedder.h and mistral_reranker.h.
// Source of the mathematics: transformers 4.46, modeling_mistral.py and modeling_llama.py.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "terse/layers/attention.h"
#include "terse/layers/embedding.h"
#include "terse/layers/feed_forward.h"
#include "terse/layers/lazy_layers.h"
#include "terse/layers/norm.h"
#include "terse/layers/rotary.h"
#include "terse/models/config.h"
#include "terse/models/decoder.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/models/shared_prefix.h"

namespace terse {

struct MistralConfig : DecoderConfig {
  Activation hidden_act = Activation::silu;
  std::int64_t sliding_window = 0;  // 0: none

  // Throws Error (config.h) for anything the forward pass below does not implement.
  static MistralConfig from(const Config& config) {
    constexpr std::int64_t kAbsentWindow = 4096;
    MistralConfig c;
    c.read(config, 1e-6, 0);
    c.hidden_act = config.activation("hidden_act", "silu");
    const bool llama = c.model_type == "llama";
    const auto window = config.optional_integer("sliding_window", 1, ConfigLimits::kPositions);
    const bool named = static_cast<bool>(config.root().find("sliding_window"));
    check(!llama || !window, ErrorClass::unsupported, config.source(),
          ": sliding_window is set, which no Llama has");
    c.sliding_window = window.value_or(named || llama ? 0 : kAbsentWindow);
    check(!config.boolean_or("mlp_bias", false), ErrorClass::unsupported, config.source(),
          ": mlp_bias is true, which is not implemented");
    return c;
  }
};

class Mistral {
 public:
  // `weights` is the scope that holds `embed_tokens` and `layers`.
  Mistral(const MistralConfig& config, const Weights& weights, const Loader& loader,
          const Savings& savings)
      : config_(config),
        savings_(savings),
        prefix_(weights.prefix()),
        embed_tokens_(load_table(*loader.backend, weights.scope("embed_tokens"), config.vocab_size,
                                 config.hidden_size)),
        norm_(load_norm(loader, weights.scope("norm"))),
        rotary_(*loader.backend, config.rope_theta, config.head_dim),
        layers_(
            config.num_hidden_layers, loader, weights.scope("layers"),
            [this](const Loader& with, const Weights& scope) { return load_layer(with, scope); },
            savings.lazy_layers) {}

  const MistralConfig& config() const { return config_; }
  const Norm& norm() const { return norm_; }

  // Calls at_exit(exit, rows) for each of options.exits: the last `scored_rows` rows of every input
  // after that many blocks, before the final norm, which all exits share.
  template <class AtExit>
  void forward(Context& context, std::span<const Input* const> inputs, const RunOptions& options,
               std::int32_t scored_rows, Tracer* tracer, AtExit&& at_exit) const {
    DecoderPass pass(context, config_, inputs, {&options, scored_rows, savings_, tracer}, prefix_);
    pass.embed(embed_tokens_, 1, layers_[0].input_layernorm);
    run(pass, {0, options.exits.back(), 0}, at_exit);
    pass.trace_norm(norm_);
  }

  // Goes on with a paused pass to its next exit, where the last row of every input is read.
  template <class AtExit>
  void resume(Context& context, PausedPass& paused, const RunOptions& options,
              AtExit&& at_exit) const {
    DecoderPass pass(context, config_, paused, {.options = &options, .savings = savings_}, prefix_);
    const LayerRange range = paused.next(options);
    if (paused.has_begun()) {
      pass.restore(paused, range.begin, layers_[range.begin].input_layernorm);
    } else {
      pass.embed(embed_tokens_, 1, layers_[0].input_layernorm);
    }
    run(pass, range, at_exit);
    if (range.end < options.exits.back()) pass.pause(paused);
  }

 private:
  struct Layer {
    Norm input_layernorm;
    SelfAttention self_attn;
    Norm post_attention_layernorm;  // before the feed-forward block, in spite of its name
    GatedFeedForward mlp;
  };

  template <class AtExit>
  void run(DecoderPass& pass, const LayerRange& range, AtExit&& at_exit) const {
    const RotaryTable rotary = rotary_.covering(pass.batch().max_position() + 1);
    const auto run_layer = [&](std::int64_t index, const Layer& layer, const Norm* next) {
      block(pass, layer, rule(index, *pass.request().options), rotary, next);
    };
    run_layers(pass, layers_, range, run_layer, at_exit);
  }

  // x = x + O attention(norm(x)); x = x + down(act(gate z) * up z) with z = norm(x).
  void block(DecoderPass& pass, const Layer& layer, const AttentionRule& rule,
             const RotaryTable& rotary, const Norm* next) const {
    const double query_scale = 1 / std::sqrt(static_cast<double>(config_.head_dim));
    pass.attend(layer.self_attn, rule, query_scale, rotary);
    pass.add_attended(layer.self_attn.o_proj, {.next_norm = &layer.post_attention_layernorm});
    pass.feed_forward(layer.mlp, config_.hidden_act, {.next_norm = next});
  }

  // Rows that have been compressed see all rows before them: the reference rebuilds their mask
  // without the window (FlagEmbedding, Matroyshka_reranker, mistral_model.py).
  AttentionRule rule(std::int64_t layer, const RunOptions& options) const {
    const bool compressed =
        !options.compress_layers.empty() && layer >= options.compress_layers.front();
    return {.causal = true,
            .window = compressed ? 0 : static_cast<std::int32_t>(config_.sliding_window)};
  }

  Norm load_norm(const Loader& loader, const Weights& scope) const {
    return load_rms_norm(loader, scope, NormKind::rms, config_.hidden_size, config_.rms_norm_eps);
  }

  Layer load_layer(const Loader& loader, const Weights& scope) const {
    return {load_norm(loader, scope.scope("input_layernorm")),
            load_self_attention(loader, scope.scope("self_attn"), config_.hidden_size,
                                config_.shape(), config_.bias(), loader.layer_dtype),
            load_norm(loader, scope.scope("post_attention_layernorm")),
            load_gated_feed_forward(loader, scope.scope("mlp"), config_.hidden_size,
                                    config_.intermediate_size, loader.layer_dtype)};
  }

  MistralConfig config_;
  Savings savings_;
  std::string prefix_;
  Table embed_tokens_;
  Norm norm_;
  Rotary rotary_;
  LazyLayers<Layer> layers_;
};

}  // namespace terse
