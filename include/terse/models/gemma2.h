// The trunk of Gemma 2 (Gemma Team 2024, arXiv:2408.00118), stock or with the exits and the token
// compression of the lightweight reranker: config, weights, one forward pass. Norms before and
// after each half of a block, a sliding window on every other layer, optional soft-capping of
// attention. Its heads are in gemma2_reranker.h and gemma2_embedder.h. Source of the mathematics:
// transformers 4.46, modeling_gemma2.py; FlagEmbedding 1.4.0, gemma_model.py.
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
#include "terse/models/shared_prefix.h"

namespace terse {

struct Gemma2Config : DecoderConfig {
  Activation hidden_activation = Activation::gelu_tanh;
  double query_pre_attn_scalar = 0;
  double attn_logit_softcapping = 0;   // 0: none
  double final_logit_softcapping = 0;  // 0: none
  std::int64_t sliding_window = 0;     // 0: none
  std::vector<char> slides;            // (num_hidden_layers): 1 if a layer has the window

  // Throws Error (config.h) for anything the forward pass below does not implement.
  static Gemma2Config from(const Config& config) {
    Gemma2Config c;
    c.read(config, 1e-6, 256);
    c.hidden_activation = config.activation("hidden_activation", "gelu_pytorch_tanh");
    c.query_pre_attn_scalar = config.number("query_pre_attn_scalar", kLeast, kMost);
    c.attn_logit_softcapping = softcap(config, "attn_logit_softcapping", 50);
    c.final_logit_softcapping = softcap(config, "final_logit_softcapping", 30);
    // Early configs call the field sliding_window_size.
    const bool early = !config.root().find("sliding_window");
    c.sliding_window = window(config, early ? "sliding_window_size" : "sliding_window");
    c.slides = layer_types(config, c.num_hidden_layers);
    return c;
  }

 private:
  static constexpr double kLeast = 1e-3;
  static constexpr double kMost = 1e9;

  // Absent: what transformers takes; null: none.
  static double softcap(const Config& config, std::string_view key, double absent) {
    if (!config.root().find(key)) return absent;
    return config.has(key) ? config.number(key, kLeast, kMost) : 0;
  }
  static std::int64_t window(const Config& config, std::string_view key) {
    constexpr std::int64_t kAbsent = 4096;
    if (!config.root().find(key)) return kAbsent;
    return config.optional_integer(key, 1, ConfigLimits::kPositions).value_or(0);
  }

  // layer_types of newer configs; without it the even layers slide.
  static std::vector<char> layer_types(const Config& config, std::int64_t num_hidden_layers) {
    std::vector<char> slides;
    if (!config.has("layer_types")) {
      for (std::int64_t layer = 0; layer < num_hidden_layers; ++layer) {
        slides.push_back(layer % 2 == 0 ? 1 : 0);
      }
      return slides;
    }
    const JsonValue list = *config.root().find("layer_types");
    check(list.is_array(), ErrorClass::type, config.source(), ": layer_types is ", list.describe(),
          ", expected a list of strings");
    check(static_cast<std::int64_t>(list.size()) == num_hidden_layers, ErrorClass::range,
          config.source(), ": layer_types names ", list.size(), " layers, num_hidden_layers is ",
          num_hidden_layers);
    for (const JsonValue entry : list) {
      check(entry.is_string(), ErrorClass::type, config.source(), ": layer_types holds ",
            entry.describe(), ", expected strings");
      const std::string_view name = entry.as_string("layer_types");
      check(name == "sliding_attention" || name == "full_attention", ErrorClass::unsupported,
            config.source(), ": layer_types holds ", quote(name),
            ", expected sliding_attention or full_attention");
      slides.push_back(name == "sliding_attention" ? 1 : 0);
    }
    return slides;
  }
};

class Gemma2 {
 public:
  // `weights` is the scope that holds `embed_tokens` and `layers`.
  Gemma2(const Gemma2Config& config, const Weights& weights, const Loader& loader,
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

  const Gemma2Config& config() const { return config_; }
  const Norm& norm() const { return norm_; }

  // Calls at_exit(exit, rows) for each of options.exits: the last `scored_rows` rows of every input
  // after that many blocks, before the final norm, which all exits share.
  template <class AtExit>
  void forward(Context& context, std::span<const Input* const> inputs, const RunOptions& options,
               std::int32_t scored_rows, Tracer* tracer, AtExit&& at_exit) const {
    DecoderPass pass(context, config_, inputs, {&options, scored_rows, savings_, tracer}, prefix_);
    pass.embed(embed_tokens_, std::sqrt(static_cast<double>(config_.hidden_size)),
               layers_[0].input_layernorm);
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
      pass.embed(embed_tokens_, std::sqrt(static_cast<double>(config_.hidden_size)),
                 layers_[0].input_layernorm);
    }
    run(pass, range, at_exit);
    if (range.end < options.exits.back()) pass.pause(paused);
  }

 private:
  struct Layer {
    Norm input_layernorm;
    SelfAttention self_attn;
    Norm post_attention_layernorm;
    Norm pre_feedforward_layernorm;
    GatedFeedForward mlp;
    Norm post_feedforward_layernorm;
  };

  template <class AtExit>
  void run(DecoderPass& pass, const LayerRange& range, AtExit&& at_exit) const {
    const RotaryTable rotary = rotary_.covering(pass.batch().max_position() + 1);
    const auto run_layer = [&](std::int64_t index, const Layer& layer, const Norm* next) {
      block(pass, layer, rule(index, *pass.request().options), rotary, next);
    };
    run_layers(pass, layers_, range, run_layer, at_exit);
  }

  // x = x + norm(O attention(norm(x))); x = x + norm(down(act(gate z) * up z)) with z = norm(x).
  void block(DecoderPass& pass, const Layer& layer, const AttentionRule& rule,
             const RotaryTable& rotary, const Norm* next) const {
    pass.attend(layer.self_attn, rule, 1 / std::sqrt(config_.query_pre_attn_scalar), rotary);
    pass.add_attended(layer.self_attn.o_proj, {.product_norm = &layer.post_attention_layernorm,
                                               .next_norm = &layer.pre_feedforward_layernorm});
    pass.feed_forward(layer.mlp, config_.hidden_activation,
                      {.product_norm = &layer.post_feedforward_layernorm, .next_norm = next});
  }

  // The window counts the rows there are, compressed or not.
  AttentionRule rule(std::int64_t layer, const RunOptions& options) const {
    const bool slides = config_.slides[static_cast<std::size_t>(layer)] != 0;
    const double softcap = options.attention_softcap ? config_.attn_logit_softcapping : 0;
    return {.causal = true,
            .window = slides ? static_cast<std::int32_t>(config_.sliding_window) : 0,
            .softcap = static_cast<float>(softcap)};
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
            load_norm(loader, scope.scope("pre_feedforward_layernorm")),
            load_gated_feed_forward(loader, scope.scope("mlp"), config_.hidden_size,
                                    config_.intermediate_size, loader.layer_dtype),
            load_norm(loader, scope.scope("post_feedforward_layernorm"))};
  }

  Gemma2Config config_;
  Savings savings_;
  std::string prefix_;
  Table embed_tokens_;
  Norm norm_;
  Rotary rotary_;
  LazyLayers<Layer> layers_;
};

}  // namespace terse
