// What a forward pass costs, counted from the shape of a model alone: floating-point operations,
// weights it touches, memory it needs. A multiply-add counts as two operations; linear layers and
// attention are counted, embedding, norms, heads and pooling (below 0.1 %) are not.
//
// One block of rows S, with W the parameters of its linear layers and q = heads * head_dim:
//   dense    2 W S + 4 S^2 q           every row against every row
//   causal   2 W S + 2 S (S + 1) q     every row against itself and those before it
//   absorbed 2 W + 4 S heads width     one row against all, without their keys and values
// Sliding windows are not taken into account: they matter past sliding_window tokens only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "terse/batch.h"
#include "terse/checked.h"
#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/model_shape.h"
#include "terse/models/layerwise.h"
#include "terse/models/model.h"
#include "terse/ops/backend.h"
#include "terse/options.h"

namespace terse {

// The rows of one pair and how they go through the model. Query rows are those that passages of one
// query share: bos, query, separator. Prompt rows follow the passage: separator, prompt. Only
// passage rows are ever compressed. A text of an embedder is all passage.
struct PassRequest {
  std::int64_t query_tokens = 0;
  std::int64_t passage_tokens = 0;
  std::int64_t prompt_tokens = 0;
  RunOptions run = {};  // exits, not empty; compress_layers, compress_ratio

  std::int64_t tokens() const { return query_tokens + passage_tokens + prompt_tokens; }
};

// The request that options make of a model, with the model's defaults filled in. Throws Error:
// range (a number of tokens, an exit, a ratio), limit (more tokens than the model has positions),
// unsupported (exits or compression for a model without). `warnings` are as for scoring.
inline PassRequest plan_pass(const ModelShape& shape, std::int64_t query_tokens,
                             std::int64_t passage_tokens, std::int64_t prompt_tokens,
                             const ScoreOptions& options, std::vector<std::string>& warnings) {
  for (const std::int64_t count : {query_tokens, passage_tokens, prompt_tokens}) {
    check(count >= 0 && count <= ConfigLimits::kPositions, ErrorClass::range, count,
          " tokens, expected 0 to ", ConfigLimits::kPositions);
  }
  PassRequest request{query_tokens, passage_tokens, prompt_tokens, {}};
  check(request.tokens() >= 1, ErrorClass::range, "a row of no tokens");
  check(request.tokens() <= shape.max_tokens, ErrorClass::limit, "a row of ", request.tokens(),
        " tokens, the model has positions for ", shape.max_tokens);
  AbsentChoices{.exits = shape.exits.empty(),
                .compression = !shape.compression,
                .heads = false,
                .attention_softcap = false,
                .gelu = false}
      .refuse(options, shape.model_type + " model");
  request.run.exits = {shape.num_hidden_layers};
  if (shape.exits.empty()) return request;
  const std::int64_t separation = shape.exits.size() > 1 ? shape.exits[1] - shape.exits[0] : 1;
  const ExitLayers exits{shape.exits.front(), separation, shape.num_hidden_layers};
  request.run.exits = choose_exits(options, exits, warnings);
  if (shape.compression) choose_compression(options, request.run, warnings);
  return request;
}

struct PassCost {
  std::uint64_t token_layers = 0;  // rows that go through a whole block, summed over blocks
  std::uint64_t linear_flops = 0;
  std::uint64_t attention_flops_dense = 0;
  std::uint64_t attention_flops_causal = 0;  // of encoders: the same as dense

  std::uint64_t dense_flops() const {
    return add_sizes(linear_flops, attention_flops_dense, "operations");
  }
  std::uint64_t causal_flops() const {
    return add_sizes(linear_flops, attention_flops_causal, "operations");
  }
};

// Savings that are left out: the cost as papers count it.
inline constexpr Savings kNoSavings = {.last_row_only = false, .share_prefix = false};

// Parameters of the linear layers of one block.
struct BlockWeights {
  std::uint64_t key_value = 0;  // what every row needs, scored or not
  std::uint64_t other = 0;      // query, output, feed-forward

  explicit BlockWeights(const ModelShape& shape) {
    const auto width = static_cast<std::uint64_t>(shape.hidden_size);
    const auto query = static_cast<std::uint64_t>(shape.query_width());
    const auto key = static_cast<std::uint64_t>(shape.key_width());
    const auto wide = static_cast<std::uint64_t>(shape.intermediate_size);
    const std::uint64_t matrices = shape.causal ? 3 : 2;  // a decoder's block has a gate
    key_value = 2 * width * key;
    other = 2 * width * query + matrices * width * wide;
  }
};

namespace detail {

// Adds the last block of an encoder for the one row that is scored, by Backend::attend_selected.
inline void add_absorbed_block(const ModelShape& shape, std::uint64_t rows, PassCost* cost) {
  const BlockWeights weights(shape);
  const std::uint64_t pair = mul_sizes(4 * static_cast<std::uint64_t>(shape.num_attention_heads),
                                       static_cast<std::uint64_t>(shape.hidden_size), "operations");
  const std::uint64_t attention = mul_sizes(pair, rows, "operations");
  cost->token_layers += 1;
  cost->linear_flops =
      add_sizes(cost->linear_flops, 2 * (weights.key_value + weights.other), "operations");
  for (std::uint64_t* sum : {&cost->attention_flops_dense, &cost->attention_flops_causal}) {
    *sum = add_sizes(*sum, attention, "operations");
  }
}

// Adds one block: `rows` rows in the sequence, the first `done` of which have keys and values
// already, `queries` of which go on after attention.
inline void add_block(const ModelShape& shape, std::uint64_t rows, std::uint64_t done,
                      std::uint64_t queries, PassCost* cost) {
  const BlockWeights weights(shape);
  const auto add = [](std::uint64_t* sum, std::uint64_t a, std::uint64_t b) {
    *sum = add_sizes(*sum, mul_sizes(a, b, "operations"), "operations");
  };
  const bool all_queries = queries == rows - done;
  const std::uint64_t dense_pairs = queries * rows;
  // Row i sees i + 1 rows; with all of them asking that is the sum over done .. rows - 1, with few
  // of them they are the last ones.
  const std::uint64_t first = all_queries ? done : rows - queries;
  const std::uint64_t seen_pairs = rows * (rows + 1) / 2 - first * (first + 1) / 2;
  const std::uint64_t per_pair = 4 * static_cast<std::uint64_t>(shape.query_width());
  cost->token_layers += queries;
  add(&cost->linear_flops, 2 * weights.key_value, rows - done);
  add(&cost->linear_flops, 2 * weights.other, queries);
  add(&cost->attention_flops_dense, per_pair, dense_pairs);
  add(&cost->attention_flops_causal, per_pair, shape.causal ? seen_pairs : dense_pairs);
}

}  // namespace detail

// The cost of one row. savings.last_row_only: the last executed block runs for one scored row, and
// the others only get keys and values there (not so for mean pooling and multi-vector outputs).
// savings.share_prefix: the cost of one more passage for a query whose own rows have been computed
// for another one; causal models only. absorbs_keys: attends_selected() of the backend, which an
// encoder's last block makes use of. Throws Error(overflow) for absurd shapes.
inline PassCost pass_cost(const ModelShape& shape, const PassRequest& request,
                          const Savings& savings = kNoSavings, bool absorbs_keys = false) {
  const RunOptions& run = request.run;
  const std::int64_t last = run.exits.back();
  std::int64_t passage = request.passage_tokens;
  PassCost cost;
  for (std::int64_t layer = 0; layer < last; ++layer) {
    if (std::binary_search(run.compress_layers.begin(), run.compress_layers.end(), layer)) {
      passage = (passage + run.compress_ratio - 1) / run.compress_ratio;
    }
    const std::int64_t rows = request.query_tokens + passage + request.prompt_tokens;
    const bool shared = savings.share_prefix && shape.causal && request.query_tokens < rows;
    const std::int64_t done = shared ? request.query_tokens : 0;
    const bool one_query = savings.last_row_only && layer + 1 == last;
    if (one_query && absorbs_keys && !shape.causal) {
      detail::add_absorbed_block(shape, static_cast<std::uint64_t>(rows), &cost);
      continue;
    }
    detail::add_block(shape, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(done),
                      one_query ? 1 : static_cast<std::uint64_t>(rows - done), &cost);
  }
  return cost;
}

// Parameters that one row makes a model read.
struct TouchedWeights {
  std::uint64_t embedding_rows = 0;  // at most: a token that comes twice has one row
  std::uint64_t layers = 0;          // of the blocks before the last exit
  std::uint64_t heads = 0;           // norms outside the blocks, and the heads of the exits

  std::uint64_t total() const { return embedding_rows + layers + heads; }
};

inline TouchedWeights touched_weights(const ModelShape& shape, const PassRequest& request) {
  const auto width = static_cast<std::uint64_t>(shape.hidden_size);
  const auto tokens = static_cast<std::uint64_t>(request.tokens());
  TouchedWeights touched;
  // An encoder adds a row for the position, and one token type for all.
  touched.embedding_rows = shape.causal ? tokens * width : (2 * tokens + 1) * width;
  for (const ExpectedTensor& tensor : checkpoint_layout(shape)) {
    const bool block = tensor.part == TensorPart::layer && tensor.index < request.run.exits.back();
    const bool classifier = tensor.part == TensorPart::head && !shape.causal;
    if (block) touched.layers += tensor.parameters();
    if (classifier || tensor.part == TensorPart::norm) touched.heads += tensor.parameters();
  }
  // One row of a head for each exit; of a language model the row of one token.
  if (shape.causal && shape.role == ModelRole::reranker) {
    touched.heads += request.run.exits.size() * width;
  }
  return touched;
}

// Memory of forward passes over groups of equal rows.
struct MemoryPlan {
  std::uint64_t weight_bytes = 0;      // touched weights, prepared in the type of products
  std::uint64_t activation_bytes = 0;  // of one group
  std::int64_t groups = 0;             // that run at once, one per thread

  std::uint64_t total_bytes() const {
    return weight_bytes + static_cast<std::uint64_t>(groups) * activation_bytes;
  }
};

// How the heads of all blocks lie.
inline AttentionShape attention_shape(const ModelShape& shape) {
  return {shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim};
}

// What a forward pass takes from its arena for num_sequences rows of the given length; compresses:
// passages, at some layer.
inline std::uint64_t activation_bytes(const Backend& backend, const ModelShape& shape,
                                      std::int64_t length, std::int64_t num_sequences,
                                      bool compresses) {
  Batch batch;
  batch.cu_seqlens.push_back(0);
  for (std::int64_t sequence = 0; sequence < num_sequences; ++sequence) {
    for (std::int64_t i = 0; i < length; ++i) {
      batch.positions.push_back(static_cast<std::int32_t>(i));
    }
    batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.positions.size()));
  }
  const std::int64_t rows = batch.total_tokens();
  // A second residual holds the scored rows, or those that compression leaves.
  const std::int64_t spare_rows = compresses ? rows : num_sequences;
  const AttentionShape attention = attention_shape(shape);
  const auto sum_of = [](std::initializer_list<std::size_t> buffers) {
    std::uint64_t sum = 0;
    for (const std::size_t bytes : buffers) {
      sum = add_sizes(sum, (std::uint64_t{bytes} + 63) / 64 * 64, "activations");
    }
    return sum;
  };
  const std::uint64_t kept = sum_of({backend.residual_bytes(rows, shape.hidden_size),
                                     backend.residual_bytes(spare_rows, shape.hidden_size),
                                     operand_room(backend, rows, shape.hidden_size)});
  // Attention and the feed-forward part take turns in one place.
  const std::uint64_t attending = sum_of({backend.attention_bytes(batch, attention),
                                          operand_room(backend, rows, shape.query_width())});
  const std::uint64_t gated = sum_of({operand_room(backend, rows, shape.intermediate_size)});
  return add_sizes(kept, std::max(attending, gated), "activations");
}

// group_tokens: rows computed together, at most (a longer row stands alone). Scratch memory of ops,
// the tokenizer and pages of the mapped file come on top.
inline MemoryPlan plan_memory(const Backend& backend, const ModelShape& shape,
                              const PassRequest& request, std::int64_t group_tokens, int threads) {
  const std::int64_t sequences = std::max<std::int64_t>(group_tokens / request.tokens(), 1);
  const TouchedWeights touched = touched_weights(shape, request);
  MemoryPlan plan;
  // All blocks are of one size.
  const std::int64_t blocks = request.run.exits.back();
  const std::uint64_t block = touched.layers / static_cast<std::uint64_t>(blocks);
  plan.weight_bytes =
      mul_sizes(touched.heads, dtype_size(backend.sensitive), "bytes of prepared weights");
  for (std::int64_t layer = 0; layer < blocks; ++layer) {
    const DType dtype = layer_dtype(backend, layer, shape.num_hidden_layers);
    plan.weight_bytes = add_sizes(plan.weight_bytes, mul_sizes(block, dtype_size(dtype), "weights"),
                                  "bytes of prepared weights");
  }
  plan.activation_bytes = activation_bytes(backend, shape, request.tokens(), sequences,
                                           !request.run.compress_layers.empty());
  plan.groups = threads;
  return plan;
}

}  // namespace terse
