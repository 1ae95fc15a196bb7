// The cost model: against the published table, against tensors of real folders, and against the
// operations that forward passes really ask of a backend.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support.h"
#include "terse/flops.h"
#include "terse/ops/op_counter.h"
#include "terse/ops/reference.h"
#include "terse/published.h"
#include "terse/synth.h"

namespace {

using nlohmann::json;
using terse_test::TemporaryFolder;

terse::ModelShape shape_of(const std::string& name) {
  const std::string text = terse::published_config(terse::published_model(name));
  return terse::read_model_shape(terse::Config::parse(text, name));
}

terse::ScoreOptions compressed(std::int64_t cutoff, std::vector<std::int64_t> layers,
                               std::int64_t ratio) {
  terse::ScoreOptions options;
  options.cutoff_layers = {cutoff};
  options.compress_layers = std::move(layers);
  options.compress_ratio = ratio;
  return options;
}

terse::PassRequest request_of(const terse::ModelShape& shape, std::int64_t query,
                              std::int64_t passage, std::int64_t prompt,
                              const terse::ScoreOptions& options = {}) {
  std::vector<std::string> warnings;
  return terse::plan_pass(shape, query, passage, prompt, options, warnings);
}

// 1 - cost / cost of the whole model, in percent.
double saved(const terse::ModelShape& shape, std::int64_t tokens, std::int64_t query,
             const terse::ScoreOptions& options, bool causal) {
  const auto cost = [&](const terse::ScoreOptions& of) {
    const auto pass =
        terse::pass_cost(shape, request_of(shape, query, tokens - query - 12, 12, of));
    return static_cast<double>(causal ? pass.causal_flops() : pass.dense_flops());
  };
  return 100 * (1 - cost(options) / cost({}));
}

}  // namespace

TEST_CASE("operations of the lightweight reranker are those of the published table") {
  struct Row {
    std::int64_t tokens, query;
    double full_tflop, compressed_tflop, saved_percent, rounding;
  };
  // At 2048 the table prints 61.2, but the two figures beside it make 61.15.
  const Row rows[] = {
      {128, 24, 2.142, 0.962, 55.1, 0.05},    {256, 24, 4.307, 1.810, 58.0, 0.05},
      {512, 12, 8.704, 3.484, 59.97, 0.005},  {512, 24, 8.704, 3.525, 59.5, 0.05},
      {512, 64, 8.704, 3.663, 57.9, 0.05},    {1024, 24, 17.768, 7.034, 60.4, 0.05},
      {2048, 24, 36.980, 14.367, 61.1, 0.05}, {4096, 24, 79.732, 30.297, 62.0, 0.05}};
  const terse::ModelShape shape = shape_of("bge-reranker-v2.5-gemma2-lightweight");
  const auto tflop = [](const terse::PassCost& cost) {
    return static_cast<double>(cost.dense_flops()) * 1e-12;
  };
  for (const Row& row : rows) {
    CAPTURE(row.tokens);
    CAPTURE(row.query);
    const std::int64_t passage = row.tokens - row.query - 12;
    const auto options = compressed(25, {8}, 2);
    const auto full = terse::pass_cost(shape, request_of(shape, row.query, passage, 12));
    const auto less = terse::pass_cost(shape, request_of(shape, row.query, passage, 12, options));
    CHECK(std::abs(tflop(full) - row.full_tflop) <= 0.0005);
    CHECK(std::abs(tflop(less) - row.compressed_tflop) <= 0.0005);
    CHECK(std::abs(saved(shape, row.tokens, row.query, options, false) - row.saved_percent) <=
          row.rounding);
  }
  terse::ScoreOptions early;
  early.cutoff_layers = {25};
  CHECK(std::abs(saved(shape, 512, 24, early, false) - 40.5) <= 0.05);
  CHECK(std::abs(saved(shape, 512, 24, compressed(28, {24, 40}, 2), false) - 37.8) <= 0.05);
  CHECK(std::abs(saved(shape, 512, 24, compressed(25, {8}, 4), false) - 68.9) <= 0.05);
  CHECK(std::abs(saved(shape, 512, 24, compressed(25, {8}, 8), false) - 73.5) <= 0.05);
  CHECK(std::abs(saved(shape, 512, 24, compressed(25, {8}, 2), true) - 59.4) <= 0.05);
}

TEST_CASE("token-layers, and parameters up to the exit") {
  const terse::ModelShape shape = shape_of("bge-reranker-v2.5-gemma2-lightweight");
  const auto request = request_of(shape, 24, 476, 12, compressed(25, {8}, 2));
  CHECK(terse::pass_cost(shape, request).token_layers == 8 * 512 + 17 * (24 + 238 + 12));
  const std::uint64_t block = 198'180'864;  // linear weights of one block
  CHECK(terse::BlockWeights(shape).key_value + terse::BlockWeights(shape).other == block);
  const terse::TouchedWeights touched = terse::touched_weights(shape, request);
  CHECK(touched.layers == 25 * (block + 4 * 3584));
  CHECK(touched.embedding_rows == 512 * 3584);
  CHECK(touched.heads == 2 * 3584);  // the final norm and one exit's head
}

TEST_CASE("published shapes have the published numbers of parameters") {
  const std::map<std::string, std::uint64_t> published = {
      {"bge-reranker-base", 278'044'417},
      {"bge-reranker-large", 559'891'457},
      {"bge-reranker-v2-m3", 567'755'777},
      {"bge-reranker-v2-gemma", 2'506'172'416},
      {"bge-reranker-v2-minicpm-layerwise", 2'724'956'928},
      {"bge-reranker-v2.5-gemma2-lightweight", 9'241'831'424}};
  for (const auto& [name, parameters] : published) {
    CAPTURE(name);
    const terse::ModelShape shape = shape_of(name);
    CHECK(terse::num_parameters(terse::checkpoint_layout(shape)) == parameters);
  }
  for (const terse::PublishedModel& model : terse::kPublishedModels) {
    CHECK(terse::recognize(shape_of(std::string(model.name))) == &model);
  }
  terse::ModelShape stranger = shape_of("bge-reranker-base");
  ++stranger.intermediate_size;
  CHECK(terse::recognize(stranger) == nullptr);
}

TEST_CASE("a layout names exactly the tensors of the reference's folders") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  for (const auto& entry : std::filesystem::directory_iterator(*shared / "models")) {
    if (!entry.is_directory()) continue;
    CAPTURE(entry.path().string());
    std::map<std::string, terse::Shape> found;
    terse::Checkpoint::open(entry.path().string())
        ->for_each([&](const std::string& name, const terse::TensorView& view) {
          found[name] = view.shape;
        });
    const auto shape = terse::read_model_shape(terse::Config::load(entry.path() / "config.json"));
    std::map<std::string, terse::Shape> expected;
    for (const terse::ExpectedTensor& tensor : terse::checkpoint_layout(shape)) {
      expected[tensor.name] = tensor.shape;
    }
    CHECK(found == expected);
  }
}

namespace {

const terse::Backend& plain() { return terse::reference::backend(terse::DType::f32); }

// A published model made small: other widths, the same keys.
std::string small_config(const std::string& name) {
  json config = json::parse(terse::published_config(terse::published_model(name)));
  config.update({{"hidden_size", 24},
                 {"intermediate_size", 40},
                 {"num_attention_heads", 4},
                 {"num_hidden_layers", 5},
                 {"vocab_size", 700},
                 {"max_position_embeddings", 130}});
  if (config.contains("num_key_value_heads")) {
    config["num_key_value_heads"] = config["num_key_value_heads"] == 36 ? 4 : 2;
  }
  if (config.contains("head_dim")) config["head_dim"] = 10;
  if (config.contains("start_layer")) config["start_layer"] = 2;
  return config.dump();
}

struct SmallModel {
  TemporaryFolder temporary;
  std::unique_ptr<terse::OpCounter> counter = std::make_unique<terse::OpCounter>();
  const terse::Backend* backend = &counter->count(plain());
  terse::ModelShape shape;
  std::unique_ptr<terse::RerankModel> reranker;
  std::unique_ptr<terse::EmbedModel> embedder;

  explicit SmallModel(const std::string& name, const terse::Savings& savings = {}) {
    const std::filesystem::path path = temporary.path() / "model";
    terse::write_synthetic_model(path, small_config(name));
    terse::ModelFolder folder = terse::ModelFolder::open(path, {});
    folder.savings = savings;
    folder.backend = backend;
    shape = terse::read_model_shape(folder.config);
    if (shape.role == terse::ModelRole::reranker) {
      reranker = terse::load_reranker(folder);
    } else {
      embedder = terse::load_embedder(folder);
    }
  }

  // Counts what a pass over these requests (of one query) does.
  terse::OpCounts run(const std::vector<terse::PassRequest>& requests,
                      terse::Context& context) const {
    std::vector<terse::Input> inputs;
    for (const terse::PassRequest& request : requests) {
      terse::Input& input = inputs.emplace_back();
      for (std::int64_t i = 0; i < request.tokens(); ++i) {
        input.token_ids.push_back(static_cast<terse::TokenId>(300 + i));
      }
      input.shareable = input.query_length = static_cast<std::int32_t>(request.query_tokens);
      input.prompt_length = static_cast<std::int32_t>(request.prompt_tokens);
    }
    std::vector<const terse::Input*> rows;
    for (const terse::Input& input : inputs) rows.push_back(&input);
    context.backend = backend;
    counter->reset();
    if (reranker != nullptr) {
      std::vector<double> scores(rows.size() * requests[0].run.exits.size());
      reranker->forward(context, rows, requests[0].run, scores, nullptr);
    } else {
      std::vector<terse::Vectors> vectors(rows.size());
      embedder->forward(context, rows, {}, vectors, nullptr);
    }
    return counter->counts();
  }
};

const char* const kSmallModels[] = {"bge-reranker-v2-m3",
                                    "bge-m3",
                                    "bge-small-en-v1.5",
                                    "bge-reranker-v2-gemma",
                                    "bge-reranker-v2-minicpm-layerwise",
                                    "bge-reranker-v2.5-gemma2-lightweight"};

void check_same(const terse::OpCounts& counted, const terse::PassCost& cost) {
  CHECK(counted.linear_flops == cost.linear_flops);
  CHECK(counted.attention_flops_dense == cost.attention_flops_dense);
  CHECK(counted.attention_flops_causal == cost.attention_flops_causal);
}

}  // namespace

TEST_CASE("the formula counts what forward passes ask of a backend") {
  for (const std::string name : kSmallModels) {
    CAPTURE(name);
    for (const bool last_row_only : {true, false}) {
      CAPTURE(last_row_only);
      const SmallModel model(name, {.last_row_only = last_row_only, .share_prefix = false});
      if (!model.shape.causal && !last_row_only) continue;  // encoders always prune
      terse::ScoreOptions options;
      if (!model.shape.exits.empty()) options.cutoff_layers = {2, 4};
      if (model.shape.compression) {
        options.compress_layers = {{1, 3}};
        options.compress_ratio = 3;
      }
      const auto request = request_of(model.shape, 7, 19, 5, options);
      terse::Context context;
      check_same(model.run({request}, context),
                 terse::pass_cost(model.shape, request,
                                  {.last_row_only = last_row_only, .share_prefix = false}));
    }
  }
}

TEST_CASE("a second passage of a query costs what the formula for a shared prefix says") {
  for (const bool last_row_only : {true, false}) {
    const terse::Savings savings{.last_row_only = last_row_only, .share_prefix = true};
    const SmallModel model("bge-reranker-v2.5-gemma2-lightweight", savings);
    const auto options = compressed(4, {2}, 2);
    const auto first = request_of(model.shape, 7, 19, 5, options);
    const auto second = request_of(model.shape, 7, 8, 5, options);
    const terse::Savings alone{.last_row_only = last_row_only, .share_prefix = false};
    terse::Context context;
    const terse::OpCounts counted = model.run({first, second}, context);
    const auto one = terse::pass_cost(model.shape, first, alone);
    const auto more = terse::pass_cost(model.shape, second, savings);
    CHECK(counted.linear_flops == one.linear_flops + more.linear_flops);
    // Not so the dense count: rows of the prefix have no passage to stand against.
    CHECK(counted.attention_flops_causal ==
          one.attention_flops_causal + more.attention_flops_causal);
  }
}

TEST_CASE("the planned activations are what a pass reserves") {
  for (const std::string name : kSmallModels) {
    CAPTURE(name);
    const SmallModel model(name, {.share_prefix = false});
    const auto request = request_of(model.shape, 7, 19, 5);
    terse::Context context;
    model.run({request, request, request}, context);
    CHECK(context.arena.capacity() == terse::activation_bytes(plain(), model.shape, 31, 3, false));
  }
  const SmallModel model("bge-reranker-v2.5-gemma2-lightweight", {.share_prefix = false});
  const auto fewer = request_of(model.shape, 7, 19, 5, compressed(4, {2}, 2));
  terse::Context context;
  model.run({fewer, fewer, fewer}, context);
  CHECK(context.arena.capacity() == terse::activation_bytes(plain(), model.shape, 31, 3, true));
  const terse::ModelShape shape = shape_of("bge-reranker-v2-gemma");
  const auto request = request_of(shape, 12, 100, 16);
  const auto plan = terse::plan_memory(plain(), shape, request, 512, 3);
  CHECK(plan.activation_bytes == terse::activation_bytes(plain(), shape, 128, 4, false));
  CHECK(plan.total_bytes() == plan.weight_bytes + 3 * plan.activation_bytes);
  CHECK(plan.weight_bytes == 4 * (terse::touched_weights(shape, request).layers + 2 * 2048));
}

TEST_CASE("what a model cannot be asked is refused") {
  const auto refusal = [](const std::string& name, std::int64_t tokens,
                          const terse::ScoreOptions& options) {
    return terse_test::error_class_of([&] { request_of(shape_of(name), 10, tokens, 2, options); });
  };
  terse::ScoreOptions exits;
  exits.cutoff_layers = {12};
  CHECK(refusal("bge-reranker-base", 500, {}) == "none");
  CHECK(refusal("bge-reranker-base", 501, {}) == "limit");
  CHECK(refusal("bge-reranker-base", -1, {}) == "range");
  CHECK(refusal("bge-reranker-base", 100, exits) == "unsupported");
  CHECK(refusal("bge-reranker-v2-gemma", 100, exits) == "unsupported");
  CHECK(refusal("bge-reranker-v2-minicpm-layerwise", 100, exits) == "none");
  CHECK(refusal("bge-reranker-v2-minicpm-layerwise", 100, compressed(12, {8}, 2)) == "unsupported");
  CHECK(refusal("bge-reranker-v2.5-gemma2-lightweight", 100, compressed(7, {8}, 2)) == "range");
  CHECK(refusal("bge-reranker-v2.5-gemma2-lightweight", 100, compressed(12, {8}, 0)) == "range");
}
