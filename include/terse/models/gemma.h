// Gemma 1 as a reranker, bge-reranker-v2-gemma (Gemma Team 2024, arXiv:2403.08295): config,
// weights, one forward pass, and the logit of "Yes" as the score. Pre-norm blocks, one key head for
// all queries. Source of the mathematics: transformers 4.46, modeling_gemma.py; of the score:
// FlagEmbedding 1.4.0, FlagEmbedding/inference/reranker/decoder_only/base.py.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
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
#include "terse/models/prompt.h"
#include "terse/models/shared_prefix.h"

namespace terse {

struct GemmaConfig : DecoderConfig {
  Activation activation = Activation::gelu_tanh;
  bool tie_word_embeddings = true;

  // Throws Error (config.h) for anything the forward pass below does not implement.
  static GemmaConfig from(const Config& config) {
    GemmaConfig c;
    c.read(config, 1e-6, 256);
    // transformers 4.39 to 4.47 take the tanh approximation where hidden_activation is absent,
    // whatever hidden_act says.
    config.activation("hidden_act", "gelu_pytorch_tanh");
    c.activation = config.activation("hidden_activation", "gelu_pytorch_tanh");
    c.tie_word_embeddings = config.boolean_or("tie_word_embeddings", true);
    return c;
  }
};

class Gemma {
 public:
  // `weights` is the scope that holds `embed_tokens` and `layers`.
  Gemma(const GemmaConfig& config, const Weights& weights, const Loader& loader,
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

  const GemmaConfig& config() const { return config_; }
  const Norm& norm() const { return norm_; }

  // Calls at_exit(0, rows): the last row of every input after the last block, before the final
  // norm.
  template <class AtExit>
  void forward(Context& context, std::span<const Input* const> inputs, const RunOptions& options,
               Tracer* tracer, AtExit&& at_exit) const {
    DecoderPass pass(context, config_, inputs,
                     {.options = &options, .savings = savings_, .tracer = tracer}, prefix_);
    const RotaryTable rotary = rotary_.covering(pass.batch().max_position() + 1);
    const Activation activation = activation_of(options.gelu);

    pass.embed(embed_tokens_, std::sqrt(static_cast<double>(config_.hidden_size)),
               layers_[0].input_layernorm);
    const auto run_layer = [&](std::int64_t, const Layer& layer, const Norm* next) {
      block(pass, layer, rotary, activation, next);
    };
    run_layers(pass, layers_, run_layer, at_exit);
    pass.trace_norm(norm_);
  }

 private:
  struct Layer {
    Norm input_layernorm;
    SelfAttention self_attn;
    Norm post_attention_layernorm;  // before the feed-forward block, in spite of its name
    GatedFeedForward mlp;
  };

  // x = x + O attention(norm(x)); x = x + down(act(gate z) * up z) with z = norm(x).
  void block(DecoderPass& pass, const Layer& layer, const RotaryTable& rotary,
             Activation activation, const Norm* next) const {
    const double query_scale = 1 / std::sqrt(static_cast<double>(config_.head_dim));
    pass.attend(layer.self_attn, {.causal = true}, query_scale, rotary);
    pass.add_attended(layer.self_attn.o_proj, {.next_norm = &layer.post_attention_layernorm});
    pass.feed_forward(layer.mlp, activation, {.next_norm = next});
  }

  Activation activation_of(Gelu gelu) const {
    if (gelu == Gelu::automatic) return config_.activation;
    return gelu == Gelu::tanh ? Activation::gelu_tanh : Activation::gelu_erf;
  }

  Norm load_norm(const Loader& loader, const Weights& scope) const {
    return load_rms_norm(loader, scope, NormKind::rms_plus_one, config_.hidden_size,
                         config_.rms_norm_eps);
  }

  Layer load_layer(const Loader& loader, const Weights& scope) const {
    return {load_norm(loader, scope.scope("input_layernorm")),
            load_self_attention(loader, scope.scope("self_attn"), config_.hidden_size,
                                config_.shape(), config_.bias(), loader.layer_dtype),
            load_norm(loader, scope.scope("post_attention_layernorm")),
            load_gated_feed_forward(loader, scope.scope("mlp"), config_.hidden_size,
                                    config_.intermediate_size, loader.layer_dtype)};
  }

  GemmaConfig config_;
  Savings savings_;
  std::string prefix_;
  Table embed_tokens_;
  Norm norm_;
  Rotary rotary_;
  LazyLayers<Layer> layers_;
};

class GemmaReranker : public PromptReranker {
 public:
  // Throws Error: config.h, weights.h; tokenizer ("Yes" is no token).
  GemmaReranker(const ModelFolder& folder, const GemmaConfig& config)
      : PromptReranker(folder, decoder_info(folder, config, "Gemma"), PromptBos::unless_padding,
                       kYesNoPrompt),
        gemma_(config, trunk_scope(folder.checkpoint->root()), folder.loader(), folder.savings),
        yes_(load_yes(folder, config)) {}

  RunOptions run_options(const ScoreOptions& options, std::vector<std::string>&) const override {
    AbsentChoices{.gelu = false}.refuse(options, info_.architecture);
    RunOptions run;
    run.exits = {gemma_.config().num_hidden_layers};
    run.gelu = options.gelu;
    return run;
  }

  // s = <norm(x_last), lm_head[Yes]>.
  void forward(Context& context, std::span<const Input* const> inputs, const RunOptions& options,
               std::span<double> scores, Tracer* tracer) const override {
    gemma_.forward(context, inputs, options, tracer, [&](std::size_t, const Residual& rows) {
      context.backend->head(context, rows, {.norm = &gemma_.norm(), .out = &yes_}, scores);
    });
  }

 private:
  // The one row of the vocabulary's head that a score needs.
  Linear load_yes(const ModelFolder& folder, const GemmaConfig& config) const {
    const std::vector<TokenId> ids = tokenizer_->encode("Yes");
    check(!ids.empty(), ErrorClass::tokenizer, "\"Yes\" has no token, and its logit is the score");
    const Weights root = folder.checkpoint->root();
    const bool tied = config.tie_word_embeddings || !root.has("lm_head.weight");
    const Weights scope = tied ? trunk_scope(root).scope("embed_tokens") : root.scope("lm_head");
    const LinearPart all = linear_part(scope, config.vocab_size, config.hidden_size, Bias::none);
    const LinearPart yes = rows_of(all, ids.front(), 1);
    return folder.backend->prepare_linear(LinearKind::head, {&yes, 1}, folder.backend->sensitive);
  }

  Gemma gemma_;
  Linear yes_;
};

}  // namespace terse
