// Work that causal models are spared: it is spared, and no bit of a score shows it.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support.h"
#include "terse/layers/lazy_layers.h"
#include "terse/layers/norm.h"
#include "terse/models/gemma2.h"
#include "terse/ops/reference.h"
#include "terse/rerank.h"
#include "tiny_decoder.h"

namespace {

using terse_test::TemporaryFolder;
using terse_test::TinyDecoder;

const char* const kRerankers[] = {"gemma", "minicpm", "cost_wise_gemma", "cost_wise_mistral"};

// Three queries with four passages each, of all lengths, one of them empty.
struct Pairs {
  std::vector<terse::ScoreOptions> options;
  std::vector<terse::Pair> pairs;

  explicit Pairs(const std::string& model_type) {
    options.resize(3);
    options[1].normalize = true;
    if (model_type != "gemma") options[1].cutoff_layers = {2, 4, 5};
    if (model_type != "gemma") options[2].cutoff_layers = {3};
    if (model_type.starts_with("cost_wise")) {
      options[0].compress_layers = {{1, 3}};
      options[0].compress_ratio = 2;
      options[1].compress_layers = {{2}};
      options[1].compress_ratio = 3;
      options[1].heads = terse::Heads::own;
    }
    const std::string text = "The giant panda is a bear species endemic to China, and eats bamboo.";
    for (std::size_t i = 0; i < 12; ++i) {
      const std::string query =
          std::vector<std::string>{"what is a panda?", "", "who eats?"}[i / 4];
      pairs.push_back({query, text.substr(0, i % 4 * (11 + i)), &options[i / 4]});
    }
  }
};

terse::LoadOptions load_options(terse::DType dtype) {
  terse::LoadOptions options;
  options.isa = terse::Isa::reference;
  options.dtype = dtype;
  options.threads = 2;
  return options;
}

using Scores = std::vector<std::vector<float>>;

Scores scores_of(const std::filesystem::path& folder, const terse::LoadOptions& options,
                 const std::vector<terse::Pair>& pairs) {
  const auto reranker = terse::Reranker::load(folder, options);
  Scores scores;
  for (const auto& result : reranker.score_each(pairs)) {
    REQUIRE_FALSE(result.error.has_value());
    scores.push_back(result.scores);
  }
  return scores;
}

}  // namespace

TEST_CASE("every saving switched off gives the same bits") {
  for (const std::string model_type : kRerankers) {
    CAPTURE(model_type);
    const TemporaryFolder folder;
    TinyDecoder(model_type).write(folder.path());
    const Pairs pairs(model_type);
    for (const terse::DType dtype :
         {terse::DType::f64, terse::DType::f32, terse::DType::bf16, terse::DType::i8}) {
      terse::LoadOptions options = load_options(dtype);
      const Scores all_on = scores_of(folder.path(), options, pairs.pairs);
      for (const terse::Savings savings :
           {terse::Savings{false, true, true}, terse::Savings{true, false, true},
            terse::Savings{true, true, false}, terse::Savings{false, false, false}}) {
        options.savings = savings;
        CHECK(scores_of(folder.path(), options, pairs.pairs) == all_on);
      }
    }
  }
}

TEST_CASE("a pair's bits do not depend on its company, its place or the threads") {
  for (const std::string model_type : kRerankers) {
    CAPTURE(model_type);
    const TemporaryFolder folder;
    TinyDecoder(model_type).write(folder.path());
    const Pairs pairs(model_type);
    for (const terse::DType dtype : {terse::DType::f32, terse::DType::bf16, terse::DType::i8}) {
      terse::LoadOptions options = load_options(dtype);
      const Scores together = scores_of(folder.path(), options, pairs.pairs);
      options.threads = 1;
      const auto reranker = terse::Reranker::load(folder.path(), options);
      for (std::size_t i = 0; i < pairs.pairs.size(); ++i) {
        CHECK(reranker.score_each({&pairs.pairs[i], 1})[0].scores == together[i]);
      }
      options.batch_tokens = 60;
      std::vector<terse::Pair> reversed = pairs.pairs;
      std::reverse(reversed.begin(), reversed.end());
      Scores backwards = scores_of(folder.path(), options, reversed);
      std::reverse(backwards.begin(), backwards.end());
      CHECK(backwards == together);
    }
  }
}

TEST_CASE("layers past the last exit are neither run nor prepared") {
  const TemporaryFolder folder;
  TinyDecoder model("cost_wise_gemma");
  for (double& value : model.weights["model.layers.3.mlp.up_proj.weight"].values) {
    value = std::numeric_limits<double>::quiet_NaN();
  }
  model.write(folder.path());
  const std::vector<terse::Pair> pairs = {{"what", "panda"}};
  for (const terse::DType dtype : {terse::DType::f32, terse::DType::bf16, terse::DType::i8}) {
    terse::LoadOptions load = load_options(dtype);
    for (const bool fastest : {false, true}) {
      if (fastest) load.isa.reset();
      const auto reranker = terse::Reranker::load(folder.path(), load);
      terse::ScoreOptions options;
      options.cutoff_layers = {2, 3};
      CHECK(reranker.score_each(pairs, options)[0].scores.size() == 2);
      options.cutoff_layers = {2, 4};
      CHECK(terse_test::error_class_of([&] { reranker.score(pairs, options); }) == "nonfinite");
    }
  }
}

TEST_CASE("lazy layers are looked up at once and prepared when they are reached") {
  const TemporaryFolder folder;
  TinyDecoder("gemma").write(folder.path());
  const terse::Loader loader(terse::reference::backend(terse::DType::f32));
  const auto checkpoint = terse::Checkpoint::open(folder.path().string());
  const terse::Weights scope = checkpoint->root().scope("model.layers");
  std::vector<std::string> checked;
  std::vector<std::string> prepared;
  const auto load = [&](const terse::Loader& with, const terse::Weights& layer) {
    (with.prepare ? prepared : checked).push_back(layer.prefix());
    return terse::load_rms_norm(with, layer.scope("input_layernorm"), terse::NormKind::rms,
                                TinyDecoder::kWidth, 1e-6);
  };
  const terse::LazyLayers<terse::Norm> lazy(TinyDecoder::kLayers, loader, scope, load, true);
  CHECK(checked.size() == 5);
  CHECK(prepared.empty());
  CHECK(lazy[1].weight != nullptr);
  CHECK(&lazy[1] == &lazy[1]);
  CHECK(prepared == std::vector<std::string>{"model.layers.1."});
  const terse::LazyLayers<terse::Norm> eager(TinyDecoder::kLayers, loader, scope, load, false);
  CHECK(prepared.size() == 6);
}

TEST_CASE("a missing tensor is found at load, not at the first score") {
  const TemporaryFolder folder;
  TinyDecoder model("minicpm");
  model.weights.erase("model.layers.4.mlp.up_proj.weight");
  model.write(folder.path());
  CHECK(terse_test::error_class_of([&] {
          terse::Reranker::load(folder.path(), load_options(terse::DType::f32));
        }) == "missing_tensor");
}

namespace {

// Rows that went through a feed-forward block, in a backend that counts them.
std::atomic<std::int64_t> counted_rows{0};

const terse::Backend& counting_backend() {
  static const terse::Backend backend = [] {
    terse::Backend counting = terse::reference::backend(terse::DType::f32);
    counting.linear_gated = [](terse::Context& context, const terse::Operand& in,
                               const terse::Linear& gate_up, terse::Activation activation,
                               terse::Operand out) {
      counted_rows += out.rows;
      terse::reference::backend(terse::DType::f32)
          .linear_gated(context, in, gate_up, activation, out);
    };
    return counting;
  }();
  return backend;
}

std::int64_t rows_run(const terse::Savings& savings, const terse::RunOptions& options,
                      const std::vector<terse::Input>& inputs) {
  const TemporaryFolder folder;
  TinyDecoder("cost_wise_gemma").write(folder.path());
  const auto config = terse::Gemma2Config::from(terse::Config::load(folder.path() / "config.json"));
  const auto checkpoint = terse::Checkpoint::open(folder.path().string());
  const terse::Gemma2 model(config, checkpoint->root().scope("model"),
                            terse::Loader(counting_backend()), savings);
  terse::Context context;
  context.backend = &counting_backend();
  std::vector<const terse::Input*> rows;
  for (const terse::Input& input : inputs) rows.push_back(&input);
  counted_rows = 0;
  model.forward(context, rows, options, 1, nullptr, [](std::size_t, const terse::Residual&) {});
  return counted_rows;
}

}  // namespace

TEST_CASE("rows run: shared openings once, only scored ones in the last layer, none past it") {
  // 10 rows each: 4 in front of the passage, 3 behind it.
  terse::Input input;
  input.token_ids = {2, 5, 6, 7, 8, 9, 10, 11, 12, 13};
  input.shareable = input.query_length = 4;
  input.prompt_length = 3;
  const std::vector<terse::Input> inputs = {input, input, input};
  terse::RunOptions options;
  options.exits = {2, 4};
  CHECK(rows_run({false, false, true}, options, inputs) == 4 * 30);
  CHECK(rows_run({true, false, true}, options, inputs) == 3 * 30 + 3);
  CHECK(rows_run({false, true, true}, options, inputs) == 4 * 22);
  CHECK(rows_run({true, true, true}, options, inputs) == 3 * 22 + 3);
  options.compress_layers = {1};
  options.compress_ratio = 2;  // 3 passage rows become 2
  CHECK(rows_run({true, false, true}, options, inputs) == 30 + 2 * 27 + 3);
  CHECK(rows_run({true, true, true}, options, inputs) == 22 + 2 * 19 + 3);
}

TEST_CASE("rows of a query are planned together, their opening counted once") {
  using Groups = std::vector<std::vector<std::size_t>>;
  const std::vector<terse::ScheduledRow> rows = {
      {20, 0, 1, 8}, {30, 0, 2, 8}, {22, 0, 1, 8}, {26, 0, 2, 8}, {24, 1, 1, 8}};
  CHECK(terse::plan_groups(rows, {48}) == Groups{{1, 3}, {2, 0}, {4}});
  CHECK(terse::plan_groups(rows, {1000}) == Groups{{1, 3, 2, 0}, {4}});
  CHECK(terse::plan_groups(rows, {1}) == Groups{{1}, {3}, {4}, {2}, {0}});
  CHECK(terse::group_budget(0, rows, 4).most == terse::kGroupTokens);
  // 2,048 tokens and an opening of 74 are one group, not one of 15 rows and one of a single row.
  const std::vector<terse::ScheduledRow> sixteen(16, {202, 0, 1, 74});
  CHECK(terse::group_budget(0, sixteen, 2).most == 2048 + 74);
  CHECK(terse::plan_groups(sixteen, {2048 + 74}).size() == 1);
  const std::vector<terse::ScheduledRow> encoder_rows = {{20, 0}, {40, 0}};
  CHECK(terse::group_budget(0, encoder_rows, 4).most == 15 + 15);
  // 15,000 tokens after the openings are four rounds of two groups: 1,875 each, half a row to
  // spare, and an opening of its own.
  const std::vector<terse::ScheduledRow> many_rows(100, {200, 0, 1, 50});
  CHECK(terse::group_budget(0, many_rows, 2).most == 1875 + 75 + 50);
}

TEST_CASE("threads share a few long rows rather than leave one of them idle") {
  terse::Backend backend;
  const auto plan = [&](const std::vector<terse::ScheduledRow>& rows, int threads,
                        std::int64_t asked = 0) {
    return terse::plan_call(backend, 768, asked, rows, threads);
  };
  const std::vector<terse::ScheduledRow> three(3, {512});
  CHECK(terse::share_at_work({{0, 1}, {2}}, three, 2) == doctest::Approx(0.75));
  CHECK(plan(three, 2).together);
  CHECK(plan(three, 2).groups.size() == 1);
  // Four are two for each of two workers; fewer rows than workers are shared in any case.
  const std::vector<terse::ScheduledRow> four(4, {512});
  CHECK_FALSE(plan(four, 2).together);
  CHECK(plan(four, 2).groups.size() == 2);
  CHECK(plan(four, 16).together);
  // Groups of a size that was asked for keep it.
  CHECK(plan(three, 2, 512).groups.size() == 3);
  CHECK(plan(three, 2, 512).together);
  // So many that the longest does not matter.
  std::vector<terse::ScheduledRow> many(100, {150});
  many.push_back({512});
  CHECK_FALSE(plan(many, 2).together);
  CHECK(plan({}, 2).groups.empty());
  backend.lanes = 1;  // a device
  CHECK_FALSE(plan(three, 2).together);
}

TEST_CASE("rows that share nothing are planned by what they cost") {
  // Attention makes 512 tokens cost as much as 640 of short rows, and 100 as 104.
  std::vector<terse::ScheduledRow> rows(4, {512});
  rows.insert(rows.end(), 24, {100});
  const terse::GroupBudget budget = terse::group_budget(0, rows, 2);
  CHECK(budget.of_cost);
  CHECK(budget.most == (4 * 640 + 24 * 104) / 4 + 90);  // two rounds of two groups, half a row more
  std::vector<std::size_t> sizes;
  for (const auto& group : terse::plan_groups(rows, budget)) sizes.push_back(group.size());
  CHECK(sizes == std::vector<std::size_t>{13, 2, 2, 11});
  CHECK_FALSE(terse::group_budget(500, rows, 2).of_cost);
  CHECK(terse::plan_groups(rows, terse::group_budget(500, rows, 2)).size() == 4 + 5);
}
