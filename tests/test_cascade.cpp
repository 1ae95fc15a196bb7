#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "support.h"
#include "terse/cascade.h"
#include "terse/models/paused_pass.h"
#include "terse/ops/reference.h"
#include "terse/rerank.h"
#include "tiny_decoder.h"

using terse_test::error_class_of;
using terse_test::TemporaryFolder;
using terse_test::TinyDecoder;

namespace {

const char* const kLayerWise[] = {"cost_wise_gemma", "cost_wise_mistral", "minicpm"};
const std::vector<std::int64_t> kExits = {2, 3, 5};

std::vector<std::string> passages() {
  const std::string text = "The giant panda is a bear species endemic to China, and eats bamboo.";
  std::vector<std::string> documents;
  for (std::size_t i = 0; i < 24; ++i) documents.push_back(text.substr(i, 3 + 7 * i % 50));
  return documents;
}

terse::ScoreOptions score_options(const std::string& model_type) {
  terse::ScoreOptions options;
  if (model_type.starts_with("cost_wise")) {
    options.compress_layers = {{2, 3}};
    options.compress_ratio = 2;
  }
  return options;
}

// Scores of all passages after every exit: [exit][document].
std::vector<std::vector<float>> all_scores(const terse::Reranker& reranker,
                                           terse::ScoreOptions options) {
  options.cutoff_layers = kExits;
  std::vector<terse::Pair> pairs;
  for (const std::string& passage : passages()) pairs.push_back({"what is a panda?", passage});
  std::vector<std::vector<float>> scores(kExits.size());
  for (const auto& result : reranker.score_each(pairs, options)) {
    for (std::size_t exit = 0; exit < kExits.size(); ++exit) {
      scores[exit].push_back(result.scores[exit]);
    }
  }
  return scores;
}

// Bounds that hold for these very scores.
terse::CascadeOptions calibrated(const std::vector<std::vector<float>>& scores, std::size_t top_k) {
  terse::CascadeOptions cascade{top_k, kExits, {}};
  for (std::size_t exit = 0; exit + 1 < kExits.size(); ++exit) {
    std::vector<double> drifts;
    for (std::size_t i = 0; i < scores[exit].size(); ++i) {
      drifts.push_back(static_cast<double>(scores.back()[i]) -
                       static_cast<double>(scores[exit][i]));
    }
    cascade.drifts.push_back(terse::drift_interval(drifts, 0));
  }
  return cascade;
}

}  // namespace

TEST_CASE("an interval holds all drifts but those at risk") {
  std::vector<double> drifts;
  for (int i = 0; i < 200; ++i) drifts.push_back(i);
  const auto all = terse::drift_interval(drifts, 0, 0);
  CHECK(all.low == 0);
  CHECK(all.high == 199);
  const auto wider = terse::drift_interval(drifts, 0, 0.1);
  CHECK(wider.low == doctest::Approx(-19.9));
  CHECK(wider.high == doctest::Approx(218.9));
  const auto most = terse::drift_interval(drifts, 0.1);
  CHECK(most.low == 10);
  CHECK(most.high == 189);
  CHECK(error_class_of([] { terse::drift_interval({}, 0); }) == "range");
  CHECK(error_class_of([] { terse::drift_interval({1}, 1); }) == "range");
}

TEST_CASE("a candidate is dropped only below what k others reach at least") {
  using Indices = std::vector<std::size_t>;
  const std::vector<float> scores = {5, 1, 4, 3};
  // Two candidates reach at least 4 - 1 = 3: nobody is beaten who may reach 3.
  CHECK(terse::cascade_survivors(scores, {-1, 0}, 2) == Indices{0, 2, 3});
  CHECK(terse::cascade_survivors(scores, {-1, 1.9}, 2) == Indices{0, 2, 3});
  CHECK(terse::cascade_survivors(scores, {-1, 2}, 2) == Indices{0, 1, 2, 3});
  CHECK(terse::cascade_survivors(scores, {0, 0}, 1) == Indices{0});
  CHECK(terse::cascade_survivors(scores, {0, 0}, 4).size() == 4);
  CHECK(terse::cascade_survivors(scores, {0, 0}, 9).size() == 4);
}

TEST_CASE("options of a cascade are checked") {
  const auto refused = [](const terse::CascadeOptions& options) {
    return error_class_of([&] { options.validate(); });
  };
  CHECK(refused({10, {2, 4}, {{-1, 1}}}) == "none");
  CHECK(refused({0, {2, 4}, {{-1, 1}}}) == "range");
  CHECK(refused({10, {4, 2}, {{-1, 1}}}) == "range");
  CHECK(refused({10, {2, 2}, {{-1, 1}}}) == "range");
  CHECK(refused({10, {2, 4}, {}}) == "range");
  CHECK(refused({10, {2, 4}, {{1, -1}}}) == "range");
  CHECK(refused({10, {}, {}}) == "range");
}

TEST_CASE("a cascade with bounds that hold gives the same best k, bit for bit") {
  for (const std::string model_type : kLayerWise) {
    CAPTURE(model_type);
    const TemporaryFolder folder;
    TinyDecoder(model_type).write(folder.path());
    for (const terse::DType dtype : {terse::DType::f32, terse::DType::bf16, terse::DType::i8}) {
      terse::LoadOptions load;
      load.dtype = dtype;
      load.threads = 2;
      load.batch_tokens = 150;  // several groups
      const auto reranker = terse::Reranker::load(folder.path(), load);
      const terse::ScoreOptions options = score_options(model_type);
      const auto scores = all_scores(reranker, options);
      for (const std::size_t top_k : {1U, 3U, 24U, 99U}) {
        const auto cascade = calibrated(scores, top_k);
        const auto result = reranker.cascade("what is a panda?", passages(), cascade, options);
        auto expected = terse::rank_scores(scores.back());
        if (expected.size() > top_k) expected.resize(top_k);
        REQUIRE(result.ranking.size() == expected.size());
        for (std::size_t rank = 0; rank < expected.size(); ++rank) {
          CHECK(result.ranking[rank].index == expected[rank].index);
          CHECK(result.ranking[rank].score == expected[rank].score);
        }
        CHECK(result.exits_reached == terse::replay_cascade(scores, cascade.drifts, top_k));
        for (std::size_t i = 0; i < result.scores.size(); ++i) {
          CHECK(result.scores[i] == scores[result.exits_reached[i] - 1][i]);
        }
        CHECK((result.token_layers < result.full_token_layers) ==
              (result.exits_reached != std::vector<std::size_t>(24, 3)));
      }
    }
  }
}

TEST_CASE("a cascade refuses what it cannot do") {
  const TemporaryFolder folder;
  TinyDecoder("minicpm").write(folder.path() / "exits");
  TinyDecoder("gemma").write(folder.path() / "plain");
  const auto reranker = terse::Reranker::load(folder.path() / "exits");
  const auto plain = terse::Reranker::load(folder.path() / "plain");
  const terse::CascadeOptions cascade{1, {2, 5}, {{0, 0}}};
  const std::vector<std::string> documents = {"panda", "bear"};
  const auto refused = [&](const terse::Reranker& model, const terse::CascadeOptions& how,
                           const terse::ScoreOptions& options) {
    return error_class_of([&] { model.cascade("q", documents, how, options); });
  };
  CHECK(refused(reranker, cascade, {}) == "none");
  CHECK(refused(plain, cascade, {}) == "unsupported");
  CHECK(refused(reranker, {1, {1, 5}, {{0, 0}}}, {}) == "range");
  terse::ScoreOptions options;
  options.normalize = true;
  CHECK(refused(reranker, cascade, options) == "unsupported");
  CHECK(reranker.cascade("q", {}, cascade).ranking.empty());
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

}  // namespace

TEST_CASE("a paused pass runs each block once, for the rows that are left") {
  const TemporaryFolder folder;
  TinyDecoder("minicpm").write(folder.path());
  terse::ModelFolder opened = terse::ModelFolder::open(folder.path(), {});
  opened.backend = &counting_backend();
  const auto model = terse::load_reranker(opened);
  terse::Context context;
  context.backend = opened.backend;
  terse::Input input;  // 4 rows that the inputs share, then 6 of its own
  input.token_ids = {2, 5, 6, 7, 8, 9, 10, 11, 12, 13};
  input.shareable = input.query_length = 4;
  input.prompt_length = 3;
  const terse::Input* const inputs[] = {&input, &input, &input};
  terse::RunOptions options;
  options.exits = kExits;
  options.heads = terse::Heads::own;
  terse::PausedPass pass(inputs, true);
  const auto resume = [&](std::size_t left) {
    std::vector<double> scores(left);
    counted_rows = 0;
    model->resume(context, pass, options, scores);
    return counted_rows.load();
  };
  CHECK(resume(3) == 2 * 22);
  pass.keep(std::vector<char>{1, 0, 1});
  CHECK(resume(2) == 16);
  pass.keep(std::vector<char>{0, 1});
  CHECK(resume(1) == 10 + 1);  // the last block for the scored row alone
}
