// What every model of the family offers to rerank.h and embed.h: its way to lay out a text or pair
// as tokens, and one forward pass over a packed batch.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terse/batch.h"
#include "terse/error.h"
#include "terse/model_info.h"
#include "terse/ops/backend.h"
#include "terse/options.h"
#include "terse/tensor.h"
#include "terse/tokenizer/tokenizer.h"
#include "terse/view.h"

namespace terse {

// One row for the model: a text, a pair, or one chunk of a pair.
struct Input {
  std::vector<TokenId> token_ids;
  std::vector<TokenId> type_ids;  // empty: all 0
  bool truncated = false;
  std::int32_t shareable = 0;      // leading tokens that other passages of the query share
  std::int32_t query_length = 0;   // tokens before the passage, for token compression
  std::int32_t prompt_length = 0;  // tokens after it
};

// The choices of a forward pass that all sequences of a batch must have in common.
struct RunOptions {
  std::vector<std::int64_t> exits = {};            // rising; empty for models without exits
  std::vector<std::int64_t> compress_layers = {};  // rising; empty: none
  std::int64_t compress_ratio = 1;
  Heads heads = Heads::ordinal;
  bool attention_softcap = false;
  Gelu gelu = Gelu::automatic;
  bool operator==(const RunOptions&) const = default;
};

// Told every intermediate tensor of a forward pass, under the checkpoint's own module names.
class Tracer {
 public:
  virtual ~Tracer() = default;
  virtual void residual(Context&, std::string_view name, const Residual&) = 0;
  virtual void operand(Context&, std::string_view name, const Operand&) = 0;
};

// Both sides of a pair, tokenized each on its own.
struct PairTokens {
  std::span<const TokenId> query;
  std::span<const TokenId> passage;
  bool empty_passage = false;  // the text itself is empty: white space may have no ids either
};

class PausedPass;

class RerankModel {
 public:
  virtual ~RerankModel() = default;

  virtual const ModelInfo& info() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;

  // Ids of one side of a pair: instruction applied, no special tokens, not cut yet.
  virtual std::vector<TokenId> tokenize_query(std::string_view, const ScoreOptions&) const = 0;
  virtual std::vector<TokenId> tokenize_passage(std::string_view, const ScoreOptions&) const = 0;

  // The rows of a pair: truncated, special tokens and prompt added. One row, or one per chunk.
  virtual std::vector<Input> assemble(const PairTokens&, const ScoreOptions&) const = 0;

  // Checks a request's choices (Error range, unsupported) and fills in the defaults. What is left
  // out of a request that is otherwise sound is said in `warnings`.
  virtual RunOptions run_options(const ScoreOptions&, std::vector<std::string>& warnings) const = 0;

  // Raw scores, (inputs, exits or 1). Same arithmetic for a row whatever else is in the batch.
  virtual void forward(Context&, std::span<const Input* const> inputs, const RunOptions&,
                       std::span<double> scores, Tracer* tracer) const = 0;

  // Goes on with a pass (paused_pass.h) to its next exit: raw scores there, (inputs still kept),
  // with the bits that forward() gives. Throws Error(unsupported) for models without exits.
  virtual void resume(Context&, PausedPass&, const RunOptions&, std::span<double>) const {
    fail(ErrorClass::unsupported, "a ", info().architecture, " has no exits to stop at");
  }
};

// Vectors of one text.
struct Vectors {
  std::vector<float> dense;  // (width)
  std::vector<float>
      weights;  // bge-m3: (tokens), what sparse_linear gives each token, not negative
  std::vector<float> colbert;  // bge-m3: (tokens - 1, width)
};

class EmbedModel {
 public:
  virtual ~EmbedModel() = default;
  virtual const ModelInfo& info() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;
  virtual Input encode(std::string_view text, TextKind kind, const EmbedOptions&) const = 0;
  // Throws Error (unsupported, range) for outputs this model cannot give.
  virtual void check_options(const EmbedOptions&) const = 0;
  // Options that all texts of a batch share: pooling, normalisation, truncate_dim, outputs.
  virtual void forward(Context&, std::span<const Input* const> inputs, const EmbedOptions&,
                       std::span<Vectors> out, Tracer* tracer) const = 0;
};

// The head's values for every row of x, (rows, columns).
inline std::vector<float> run_head(Context& context, const Residual& x, const HeadSpec& head) {
  std::vector<double> values(static_cast<std::size_t>(x.rows * head_columns(head, x.width)));
  context.backend->head(context, x, head, writable(values));
  return {values.begin(), values.end()};
}

// Packs inputs one after another, positions from 0 in each, in place of what the batch held.
inline void pack(std::span<const Input* const> inputs, Batch* batch) {
  batch->clear();
  for (const Input* input : inputs) {
    const std::size_t length = input->token_ids.size();
    batch->token_ids.insert(batch->token_ids.end(), input->token_ids.begin(),
                            input->token_ids.end());
    for (std::size_t i = 0; i < length; ++i) {
      batch->positions.push_back(static_cast<std::int32_t>(i));
    }
    if (!input->type_ids.empty()) {
      batch->type_ids.resize(batch->token_ids.size() - length, 0);
      batch->type_ids.insert(batch->type_ids.end(), input->type_ids.begin(), input->type_ids.end());
    }
    batch->cu_seqlens.push_back(static_cast<std::int32_t>(batch->token_ids.size()));
  }
  if (!batch->type_ids.empty()) batch->type_ids.resize(batch->token_ids.size(), 0);
}

}  // namespace terse
