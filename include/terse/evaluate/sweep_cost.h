// What a cell of a sweep costs, from the real lengths of its pairs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "terse/evaluate/sweep_grid.h"
#include "terse/flops.h"
#include "terse/model_shape.h"

namespace terse {

// Tokens of a pair's rows: those of the query before the passage, the passage, the prompt after it.
// Only passage tokens are ever compressed.
struct PairLength {
  std::int64_t query = 0;
  std::int64_t passage = 0;
  std::int64_t prompt = 0;

  std::int64_t tokens() const { return query + passage + prompt; }
};

// query_tokens: of a row of the query with an empty passage, for models whose rows do not say where
// the passage begins.
inline PairLength pair_length(const Input& input, std::int64_t query_tokens) {
  const auto tokens = static_cast<std::int64_t>(input.token_ids.size());
  const std::int64_t query =
      input.query_length > 0 ? input.query_length : std::min(query_tokens, tokens);
  return {query, tokens - query - input.prompt_length, input.prompt_length};
}

// Costs are of one exit alone, as if nothing ran past it. Nothing is spared: neither shared query
// tokens nor rows of the last layer that are not scored, as papers count it.
class ExitCost {
 public:
  // exit: the layer after which scores are read.
  ExitCost(const ModelShape& shape, const SweepCell& cell, std::int64_t exit)
      : shape_(&shape), exit_(exit) {
    run_.exits = {exit};
    run_.compress_ratio = cell.ratio;
    for (const std::int64_t layer : cell.compress_layers) {
      if (layer < exit) run_.compress_layers.push_back(layer);
    }
  }

  PassCost of(const PairLength& length) const {
    return pass_cost(*shape_, {length.query, length.passage, length.prompt, run_});
  }

  // Tokens left of a pair when the exit is reached.
  std::int64_t tokens_after(const PairLength& length) const {
    std::int64_t passage = length.passage;
    for (std::size_t i = 0; i < run_.compress_layers.size(); ++i) {
      passage = (passage + run_.compress_ratio - 1) / run_.compress_ratio;
    }
    return length.query + passage + length.prompt;
  }

  // Share of token-layers saved by the model card's convention: every token counts as compressible,
  // whatever the texts. Ratio 2 before layer 8 and exit 25 of 42: 1 - (8 + 17 / 2) / 42.
  double nominal_saving() const {
    double sum = 0;
    double share = 1;
    for (std::int64_t layer = 0; layer < exit_; ++layer) {
      if (std::binary_search(run_.compress_layers.begin(), run_.compress_layers.end(), layer)) {
        share /= static_cast<double>(run_.compress_ratio);
      }
      sum += share;
    }
    return 1 - sum / static_cast<double>(shape_->num_hidden_layers);
  }

 private:
  const ModelShape* shape_;
  std::int64_t exit_;
  RunOptions run_;
};

// Means over pairs, and the share of token-layers saved against all layers without compression.
struct CostSummary {
  double tokens_in = 0;
  double tokens_after = 0;
  double nominal_saving = 0;
  double saving = 0;
  double dense_flops = 0;
  double causal_flops = 0;
};

inline CostSummary summarize_cost(const ModelShape& shape, const SweepCell& cell, std::int64_t exit,
                                  std::span<const std::vector<PairLength>> queries) {
  const ExitCost cost(shape, cell, exit);
  CostSummary sum;
  double pairs = 0;
  double token_layers = 0;
  for (const auto& lengths : queries) {
    for (const PairLength& length : lengths) {
      const PassCost pass = cost.of(length);
      sum.tokens_in += static_cast<double>(length.tokens());
      sum.tokens_after += static_cast<double>(cost.tokens_after(length));
      sum.dense_flops += static_cast<double>(pass.dense_flops());
      sum.causal_flops += static_cast<double>(pass.causal_flops());
      token_layers += static_cast<double>(pass.token_layers);
      ++pairs;
    }
  }
  const double all = sum.tokens_in * static_cast<double>(shape.num_hidden_layers);
  return {sum.tokens_in / pairs,  sum.tokens_after / pairs, cost.nominal_saving(),
          1 - token_layers / all, sum.dense_flops / pairs,  sum.causal_flops / pairs};
}

}  // namespace terse
