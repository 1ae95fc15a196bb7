// MiniCPM as a layer-wise reranker, bge-reranker-v2-minicpm-layerwise (Hu et al. 2024,
// arXiv:2404.06395): config, weights, one forward pass that is read after several layers, a scalar
// head for each. Pre-norm blocks with scaled embeddings and residuals. Source of the mathematics:
// modeling_minicpm_reranker.py beside the published weights.
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
#include "terse/models/layerwise.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/models/paused_pass.h"
#include "terse/models/prompt.h"
#include "terse/models/shared_prefix.h"

namespace terse {

struct MiniCpmConfig : DecoderConfig {
  Activation hidden_act = Activation::silu;
  double scale_emb = 1;
  double scale_depth = 1;
  ExitLayers exits;

  // Of the configured depth, wherever a pass exits.
  double residual_factor() const {
    return scale_depth / std::sqrt(static_cast<double>(num_hidden_layers));
  }

  // Throws Error (config.h) for anything the forward pass below does not implement. dim_model_base
  // scales only heads of other types than "simple".
  static MiniCpmConfig from(const Config& config) {
    constexpr double kMostScale = 1e6;
    MiniCpmConfig c;
    c.read(config, 1e-6, 0);
    c.hidden_act = config.activation("hidden_act", "silu");
    c.scale_emb = config.number_or("scale_emb", 1, 0, kMostScale);
    c.scale_depth = config.number_or("scale_depth", 1, 0, kMostScale);
    c.exits = ExitLayers::from(config, c.num_hidden_layers);
    config.require("head_type", "simple");
    check(config.boolean_or("head_multi", true), ErrorClass::unsupported, config.source(),
          ": head_multi is false, only models with one head per exit are implemented");
    return c;
  }
};

class MiniCpm {
 public:
  // `weights` is the scope that holds `embed_tokens` and `layers`.
  MiniCpm(const MiniCpmConfig& config, const Weights& weights, const Loader& loader,
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

  const MiniCpmConfig& config() const { return config_; }
  const Norm& norm() const { return norm_; }

  // Calls at_exit(exit, rows) for each of options.exits: the last row of every input after that
  // many blocks, before the final norm, which all exits share.
  template <class AtExit>
  void forward(Context& context, std::span<const Input* const> inputs, const RunOptions& options,
               Tracer* tracer, AtExit&& at_exit) const {
    DecoderPass pass(context, config_, inputs,
                     {.options = &options, .savings = savings_, .tracer = tracer}, prefix_);
    pass.embed(embed_tokens_, config_.scale_emb, layers_[0].input_layernorm);
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
      pass.embed(embed_tokens_, config_.scale_emb, layers_[0].input_layernorm);
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
    const auto run_layer = [&](std::int64_t, const Layer& layer, const Norm* next) {
      block(pass, layer, rotary, next);
    };
    run_layers(pass, layers_, range, run_layer, at_exit);
  }

  // x = x + r O attention(norm(x)); x = x + r down(act(gate z) * up z) with z = norm(x).
  void block(DecoderPass& pass, const Layer& layer, const RotaryTable& rotary,
             const Norm* next) const {
    const double query_scale = 1 / std::sqrt(static_cast<double>(config_.head_dim));
    const double factor = config_.residual_factor();
    pass.attend(layer.self_attn, {.causal = true}, query_scale, rotary);
    pass.add_attended(layer.self_attn.o_proj,
                      {.factor = factor, .next_norm = &layer.post_attention_layernorm});
    pass.feed_forward(layer.mlp, config_.hidden_act, {.factor = factor, .next_norm = next});
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

  MiniCpmConfig config_;
  Savings savings_;
  std::string prefix_;
  Table embed_tokens_;
  Norm norm_;
  Rotary rotary_;
  LazyLayers<Layer> layers_;
};

class MiniCpmReranker : public PromptReranker {
 public:
  // Throws Error: config.h, weights.h; tokenizer (no bos).
  MiniCpmReranker(const ModelFolder& folder, const MiniCpmConfig& config)
      : PromptReranker(folder, decoder_info(folder, config, "MiniCPM layer-wise"),
                       PromptBos::always, kYesNoPrompt),
        minicpm_(config, trunk_scope(folder.checkpoint->root()), folder.loader(), folder.savings),
        heads_(folder.loader(), folder.checkpoint->root(), config.exits, config.hidden_size) {
    info_.layer_wise = true;
    info_.exits = config.exits.all();
  }

  // Each exit is read by the head of its own depth: the reference pairs heads with the request's
  // order, which is the same for every rising request.
  RunOptions run_options(const ScoreOptions& options,
                         std::vector<std::string>& warnings) const override {
    AbsentChoices{.exits = false}.refuse(options, info_.architecture);
    RunOptions run;
    run.exits = choose_exits(options, minicpm_.config().exits, warnings);
    run.heads = Heads::own;
    return run;
  }

  // s = <norm(x_last), lm_head[depth - start_layer]>.
  void forward(Context& context, std::span<const Input* const> inputs, const RunOptions& options,
               std::span<double> scores, Tracer* tracer) const override {
    const auto at_exit = [&](std::size_t exit, const Residual& rows) {
      score_exit(context, rows, head_of(options, exit), exit, options.exits.size(), scores);
    };
    minicpm_.forward(context, inputs, options, tracer, at_exit);
  }

  void resume(Context& context, PausedPass& paused, const RunOptions& options,
              std::span<double> scores) const override {
    const auto at_exit = [&](std::size_t exit, const Residual& rows) {
      score_exit(context, rows, head_of(options, exit), 0, 1, scores);
    };
    minicpm_.resume(context, paused, options, at_exit);
  }

 private:
  HeadSpec head_of(const RunOptions& options, std::size_t exit) const {
    return {.norm = &minicpm_.norm(), .out = &heads_.head_of(options, exit)};
  }

  MiniCpm minicpm_;
  ExitHeads heads_;
};

}  // namespace terse
