// bge-reranker-v2.5-gemma2-lightweight: the Gemma 2 trunk with a scalar head for each exit and
// token compression. Source: FlagEmbedding 1.4.0, gemma_model.py, CostWiseGemmaForCausalLM.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "terse/models/config.h"
#include "terse/models/gemma2.h"
#include "terse/models/layerwise.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/models/paused_pass.h"
#include "terse/models/prompt.h"

namespace terse {

struct Gemma2RerankerConfig : Gemma2Config {
  ExitLayers exits;

  static Gemma2RerankerConfig from(const Config& config) {
    Gemma2RerankerConfig c{Gemma2Config::from(config), {}};
    c.exits = ExitLayers::from(config, c.num_hidden_layers);
    require_layer_wise(config);
    return c;
  }
};

class Gemma2Reranker : public PromptReranker {
 public:
  // Throws Error: config.h, weights.h; tokenizer (no bos).
  Gemma2Reranker(const ModelFolder& folder, const Gemma2RerankerConfig& config)
      : PromptReranker(folder, decoder_info(folder, config, "Gemma 2 lightweight"),
                       PromptBos::always, kPredictPrompt),
        gemma2_(config, trunk_scope(folder.checkpoint->root()), folder.loader(), folder.savings),
        exits_(config.exits),
        heads_(folder.loader(), folder.checkpoint->root(), exits_, config.hidden_size) {
    info_.layer_wise = info_.compression = true;
    info_.exits = exits_.all();
  }

  // The reference runs this model without soft-capping of attention unless told otherwise.
  RunOptions run_options(const ScoreOptions& options,
                         std::vector<std::string>& warnings) const override {
    AbsentChoices{.exits = false, .compression = false, .heads = false, .attention_softcap = false}
        .refuse(options, info_.architecture);
    check(options.attention_softcap != Switch::on || gemma2_.config().attn_logit_softcapping > 0,
          ErrorClass::unsupported, "attention_softcap is on, but the config names no cap");
    RunOptions run;
    run.exits = choose_exits(options, exits_, warnings);
    choose_compression(options, run, warnings);
    run.heads = options.heads.value_or(Heads::ordinal);
    run.attention_softcap = options.attention_softcap == Switch::on;
    return run;
  }

  // s = c tanh(<norm(x_last), lm_head> / c) with c = final_logit_softcapping.
  void forward(Context& context, std::span<const Input* const> inputs, const RunOptions& options,
               std::span<double> scores, Tracer* tracer) const override {
    const auto at_exit = [&](std::size_t exit, const Residual& rows) {
      score_exit(context, rows, head_of(options, exit), exit, options.exits.size(), scores);
    };
    gemma2_.forward(context, inputs, options, 1, tracer, at_exit);
  }

  void resume(Context& context, PausedPass& paused, const RunOptions& options,
              std::span<double> scores) const override {
    const auto at_exit = [&](std::size_t exit, const Residual& rows) {
      score_exit(context, rows, head_of(options, exit), 0, 1, scores);
    };
    gemma2_.resume(context, paused, options, at_exit);
  }

 private:
  HeadSpec head_of(const RunOptions& options, std::size_t exit) const {
    return {.norm = &gemma2_.norm(),
            .out = &heads_.head_of(options, exit),
            .softcap = static_cast<float>(gemma2_.config().final_logit_softcapping)};
  }

  Gemma2 gemma2_;
  ExitLayers exits_;
  ExitHeads heads_;
};

}  // namespace terse
