// The counter of operations: it changes no bit, and the FLOPs columns of a sweep are its counts,
// for every model of the reference data.
#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "support.h"
#include "terse/embed.h"
#include "terse/evaluate/sweep_cost.h"
#include "terse/flops.h"
#include "terse/ops/backends.h"
#include "terse/ops/op_counter.h"
#include "terse/ops/panels.h"
#include "terse/rerank.h"

namespace {

const char* const kRerankers[] = {"tiny-xlmr-reranker",     "tiny-xlmr-reranker-hd64",
                                  "tiny-jina-reranker",     "tiny-gemma-reranker",
                                  "tiny-minicpm-layerwise", "tiny-gemma2-lightweight"};

// One query with several passages, one of them empty, and another query.
std::vector<terse::Pair> sample_pairs() {
  const std::string query = "what is panda?";
  return {{query, "The giant panda is a bear species endemic to China, sometimes called panda."},
          {query, "hi"},
          {query, ""},
          {query, "A dough that does not rise has usually met dead yeast or cold water."},
          {"why", "Because."}};
}

terse::ModelShape shape_of(const std::filesystem::path& folder) {
  return terse::read_model_shape(terse::Config::load(folder / "config.json"));
}

terse::LoadOptions counted(terse::OpCounter& counter, const terse::Savings& savings = {}) {
  terse::LoadOptions options;
  options.threads = 2;
  options.savings = savings;
  options.op_counter = &counter;
  return options;
}

// Whether the tables that tests run by default attend without keys where that is possible.
bool absorbs_keys(const terse::ModelInfo& info) {
  return terse::attends_selected(
      terse::choose_backend(info.isa, info.dtype),
      {info.num_attention_heads, info.num_key_value_heads, info.head_dim});
}

// The cells that a model can be swept over, each with one exit: as a row of a sweep counts it.
std::vector<terse::SweepCell> cells_of(const terse::ModelInfo& info) {
  if (!info.layer_wise) return {{1, {}, {}}};
  std::vector<terse::SweepCell> cells;
  for (const std::int64_t exit : {info.exits.front(), info.exits[2], info.exits.back()}) {
    cells.push_back({1, {}, {exit}});
    if (!info.compression) continue;
    for (const std::int64_t ratio : {2, 4}) {
      cells.push_back({ratio, {1}, {exit}});
      cells.push_back({ratio, {1, 2, 5}, {exit}});
    }
  }
  return cells;
}

}  // namespace

TEST_CASE("the FLOPs columns of a sweep are what the ops were asked for") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  for (const std::string name : kRerankers) {
    CAPTURE(name);
    const auto folder = *shared / "models" / name;
    const terse::ModelShape shape = shape_of(folder);
    terse::OpCounter counter;
    const auto reranker = terse::Reranker::load(folder, counted(counter, terse::kNoSavings));
    const std::vector<terse::Pair> pairs = sample_pairs();
    for (const terse::SweepCell& cell : cells_of(reranker.info())) {
      CAPTURE(cell.name());
      const terse::ScoreOptions options = cell.options({}, reranker.info());
      std::vector<std::vector<terse::PairLength>> lengths(1);
      terse::PassCost pruned;
      const std::int64_t exit = cell.exits.empty() ? shape.num_hidden_layers : cell.exits[0];
      for (const terse::Pair& pair : pairs) {
        const auto query = reranker.rows({pair.query, ""}, options).front().token_ids.size();
        const terse::Input row = reranker.rows(pair, options).front();
        const auto length = terse::pair_length(row, static_cast<std::int64_t>(query));
        lengths[0].push_back(length);
        const auto cost = terse::pass_cost(shape, {0, length.tokens(), 0, {{exit}}},
                                           {.last_row_only = true, .share_prefix = false},
                                           absorbs_keys(reranker.info()));
        pruned.linear_flops += cost.linear_flops;
        pruned.attention_flops_dense += cost.attention_flops_dense;
      }
      counter.reset();
      reranker.score(pairs, options);
      const terse::OpCounts counts = counter.counts();
      CHECK(counts.head_flops > 0);
      if (!shape.causal) {  // an encoder never runs its last block for rows that nobody reads
        CHECK(counts.linear_flops == pruned.linear_flops);
        CHECK(counts.attention_flops_dense == pruned.attention_flops_dense);
        CHECK(counts.attention_flops_causal == pruned.attention_flops_dense);
        continue;
      }
      const auto columns = terse::summarize_cost(shape, cell, exit, lengths);
      const auto num_pairs = static_cast<double>(pairs.size());
      // Whole numbers far below 2^53, divided by the same number: equal to the last bit.
      CHECK(static_cast<double>(counts.linear_flops + counts.attention_flops_dense) / num_pairs ==
            columns.dense_flops);
      CHECK(static_cast<double>(counts.linear_flops + counts.attention_flops_causal) / num_pairs ==
            columns.causal_flops);
    }
  }
}

TEST_CASE("savings are counted: a group's opening and the last block's rows") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const std::vector<terse::Pair> pairs = sample_pairs();
  for (const std::string name : {"tiny-gemma-reranker", "tiny-gemma2-lightweight"}) {
    CAPTURE(name);
    const auto folder = *shared / "models" / name;
    const terse::ModelShape shape = shape_of(folder);
    for (const terse::Savings savings :
         {terse::Savings{.last_row_only = true, .share_prefix = false},
          terse::Savings{.last_row_only = false, .share_prefix = true}, terse::Savings{}}) {
      terse::OpCounter counter;
      terse::LoadOptions options = counted(counter, savings);
      options.threads = 1;
      options.batch_tokens = 100'000;  // one group
      const auto reranker = terse::Reranker::load(folder, options);
      reranker.score(pairs);
      std::uint64_t linear = 0;
      std::uint64_t causal = 0;
      for (std::size_t i = 0; i < pairs.size(); ++i) {
        const terse::Input row = reranker.rows(pairs[i]).front();
        const auto tokens = static_cast<std::int64_t>(row.token_ids.size());
        const terse::PassRequest request{
            row.shareable, tokens - row.shareable, 0, {{shape.num_hidden_layers}}};
        terse::Savings own = savings;
        own.share_prefix = savings.share_prefix && i > 0 && pairs[i].query == pairs[0].query;
        const auto cost = terse::pass_cost(shape, request, own);
        linear += cost.linear_flops;
        causal += cost.attention_flops_causal;
      }
      CHECK(counter.counts().linear_flops == linear);
      CHECK(counter.counts().attention_flops_causal == causal);
    }
  }
}

TEST_CASE("a cascade that drops nobody asks for what a pass asks for") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const std::string query = "what is panda?";
  std::vector<std::string> documents;
  for (const terse::Pair& pair : sample_pairs()) documents.push_back(pair.passage);
  for (const std::string name : {"tiny-minicpm-layerwise", "tiny-gemma2-lightweight"}) {
    CAPTURE(name);
    terse::OpCounter counter;
    const auto reranker =
        terse::Reranker::load(*shared / "models" / name, counted(counter, {.share_prefix = false}));
    terse::CascadeOptions cascade;
    cascade.top_k = 2;
    cascade.exits = {2, 4, 6};
    cascade.drifts = std::vector<terse::DriftInterval>(2, {-1e9, 1e9});
    terse::ScoreOptions options;
    options.cutoff_layers = cascade.exits;
    if (reranker.info().compression) {
      options.compress_layers = {{1, 3}};
      options.compress_ratio = 2;
    }
    counter.reset();
    reranker.cascade(query, documents, cascade, options);
    const terse::OpCounts paused = counter.counts();
    counter.reset();
    reranker.rank(query, documents, options);
    CHECK(paused == counter.counts());
    counter.reset();
    cascade.drifts = std::vector<terse::DriftInterval>(2, {0, 0});
    reranker.cascade(query, documents, cascade, options);
    CHECK(counter.counts().linear_flops < paused.linear_flops);
  }
}

TEST_CASE("texts of embedders, by their pooling") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  std::vector<terse::Text> texts;
  for (const terse::Pair& pair : sample_pairs()) texts.push_back({pair.passage});
  for (const std::string name :
       {"tiny-bge-m3", "tiny-bge-embed", "tiny-mistral-embed", "tiny-gemma2-embed"}) {
    CAPTURE(name);
    const auto folder = *shared / "models" / name;
    const terse::ModelShape shape = shape_of(folder);
    terse::OpCounter counter;
    const auto embedder = terse::Embedder::load(folder, counted(counter));
    for (const bool every_row : {false, true}) {
      CAPTURE(every_row);
      if (every_row && shape.causal) continue;  // their pooling is of the last row
      terse::EmbedOptions options;
      if (every_row) options.pooling = terse::Pooling::mean;
      counter.reset();
      std::uint64_t linear = 0;
      std::uint64_t causal = 0;
      for (const terse::EmbedResult& result : embedder.embed(texts, options)) {
        const auto cost = terse::pass_cost(
            shape, {0, result.tokens, 0, {{shape.num_hidden_layers}}},
            {.last_row_only = !every_row, .share_prefix = false}, absorbs_keys(embedder.info()));
        linear += cost.linear_flops;
        causal += cost.attention_flops_causal;
      }
      CHECK(counter.counts().linear_flops == linear);
      CHECK(counter.counts().attention_flops_causal == causal);
    }
  }
}

TEST_CASE("counting changes no bit, whatever table is counted") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const std::vector<terse::Pair> pairs = sample_pairs();
  for (const std::string name : kRerankers) {
    CAPTURE(name);
    terse::OpCounter counter;
    std::vector<terse::OpCounts> seen;
    bool absorbs = false;
    for (const terse::DType dtype : {terse::DType::f32, terse::DType::bf16}) {
      for (const terse::Isa isa : {terse::Isa::reference, terse::best_isa()}) {
        terse::LoadOptions options;
        options.dtype = dtype;
        options.isa = isa;
        const auto plain = terse::Reranker::load(*shared / "models" / name, options);
        options.op_counter = &counter;
        const auto watched = terse::Reranker::load(*shared / "models" / name, options);
        CHECK(watched.info().isa == plain.info().isa);
        CHECK(watched.score(pairs) == plain.score(pairs));
        seen.push_back(counter.counts());
        counter.reset();
        absorbs = !plain.info().causal && absorbs_keys(plain.info());
      }
    }
    CHECK(seen[0] == seen[2]);
    CHECK(seen[1] == seen[3]);
    CHECK((seen[0] == seen[1]) == !absorbs);
    CHECK(counter.counts() == terse::OpCounts{});
  }
}
