// Matroyshka rerankers: the Mistral trunk with a scalar head for each exit and token compression.
// Source: FlagEmbedding, research/Matroyshka_reranker, mistral_model.py.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "terse/models/config.h"
#include "terse/models/layerwise.h"
#include "terse/models/loading.h"
#include "terse/models/mistral.h"
#include "terse/models/model.h"
#include "terse/models/paused_pass.h"
#include "terse/models/prompt.h"

namespace terse {

struct MistralRerankerConfig : MistralConfig {
  ExitLayers exits;

  static MistralRerankerConfig from(const Config& config) {
    MistralRerankerConfig c{MistralConfig::from(config), {}};
    c.exits = ExitLayers::from(config, c.num_hidden_layers);
    require_layer_wise(config);
    return c;
  }
};

class MistralReranker : public PromptReranker {
 public:
  // Throws Error: config.h, weights.h; tokenizer (no bos).
  MistralReranker(const ModelFolder& folder, const MistralRerankerConfig& config)
      : PromptReranker(folder, decoder_info(folder, config, "Matroyshka"), PromptBos::always,
                       kPredictPrompt),
        mistral_(config, trunk_scope(folder.checkpoint->root()), folder.loader(), folder.savings),
        exits_(config.exits),
        heads_(folder.loader(), folder.checkpoint->root(), exits_, config.hidden_size) {
    info_.layer_wise = info_.compression = true;
    info_.exits = exits_.all();
  }

  RunOptions run_options(const ScoreOptions& options,
                         std::vector<std::string>& warnings) const override {
    AbsentChoices{.exits = false, .compression = false, .heads = false}.refuse(options,
                                                                               info_.architecture);
    RunOptions run;
    run.exits = choose_exits(options, exits_, warnings);
    choose_compression(options, run, warnings);
    run.heads = options.heads.value_or(Heads::ordinal);
    return run;
  }

  // s = <norm(x_last), lm_head>.
  void forward(Context& context, std::span<const Input* const> inputs, const RunOptions& options,
               std::span<double> scores, Tracer* tracer) const override {
    const auto at_exit = [&](std::size_t exit, const Residual& rows) {
      score_exit(context, rows, head_of(options, exit), exit, options.exits.size(), scores);
    };
    mistral_.forward(context, inputs, options, 1, tracer, at_exit);
  }

  void resume(Context& context, PausedPass& paused, const RunOptions& options,
              std::span<double> scores) const override {
    const auto at_exit = [&](std::size_t exit, const Residual& rows) {
      score_exit(context, rows, head_of(options, exit), 0, 1, scores);
    };
    mistral_.resume(context, paused, options, at_exit);
  }

 private:
  HeadSpec head_of(const RunOptions& options, std::size_t exit) const {
    return {.norm = &mistral_.norm(), .out = &heads_.head_of(options, exit)};
  }

  Mistral mistral_;
  ExitLayers exits_;
  ExitHeads heads_;
};

}  // namespace terse
