// The BERT and XLM-R family against the reference: ids, scores, vectors and traces of the small
// models, and the promise that a pair's bits depend on nothing but the pair.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "golden.h"
#include "support.h"
#include "terse/embed.h"
#include "terse/rerank.h"

namespace {

using nlohmann::json;
using terse_test::read_json;
using terse_test::read_json_lines;

terse::LoadOptions with_dtype(terse::DType dtype) {
  terse::LoadOptions options;
  options.dtype = dtype;
  return options;
}

terse::LoadOptions reference_f64() {
  terse::LoadOptions options = with_dtype(terse::DType::f64);
  options.isa = terse::Isa::reference;
  return options;
}

// The worst and the mean |score - float64 golden| over all cases; ids must be equal.
struct Gap {
  double worst = 0;
  double mean = 0;
};

Gap score_gap(const std::filesystem::path& folder, const terse::LoadOptions& load) {
  const auto reranker = terse::Reranker::load(folder, load);
  const std::vector<json> cases = read_json_lines(folder / "goldens" / "cases.jsonl");
  std::vector<terse::ScoreOptions> options;
  for (const json& c : cases) options.push_back(terse_test::read_score_options(c["settings"]));
  std::vector<terse::Pair> pairs;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    pairs.push_back({cases[i]["query"], cases[i]["passage"], &options[i]});
  }
  const auto results = reranker.score_each(pairs);
  Gap gap;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(cases[i]["id"].get<std::string>());
    REQUIRE_FALSE(results[i].error.has_value());
    CHECK(results[i].input_ids == cases[i]["input_ids"].get<std::vector<std::int32_t>>());
    const double error =
        std::abs(static_cast<double>(results[i].scores[0]) - cases[i]["score_f64"].get<double>());
    gap.worst = std::max(gap.worst, error);
    gap.mean += error / static_cast<double>(cases.size());
  }
  return gap;
}

const char* const kRerankers[] = {"tiny-xlmr-reranker", "tiny-xlmr-reranker-hd64",
                                  "tiny-jina-reranker"};

}  // namespace

TEST_CASE("encoder rerankers give the reference's scores") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  for (const char* name : kRerankers) {
    CAPTURE(name);
    const auto folder = *shared / "models" / name;
    const json stats = read_json(folder / "goldens" / "stats.json");
    // In double only the final rounding of the score to a float is left: 2^-24 of at most 8.
    CHECK(score_gap(folder, reference_f64()).worst <= 8 * 0x1p-24);
    const Gap f32 = score_gap(folder, with_dtype(terse::DType::f32));
    CHECK(f32.worst <= 4 * stats["f32_vs_f64"]["max"].get<double>());
    CHECK(f32.mean <= 2 * stats["f32_vs_f64"]["mean"].get<double>());
    const Gap bf16 = score_gap(folder, with_dtype(terse::DType::bf16));
    CHECK(bf16.mean <= stats["bf16_vs_f64"]["mean"].get<double>());
    const Gap int8 = score_gap(folder, with_dtype(terse::DType::i8));
    MESSAGE(name << " int8 " << int8.worst << " " << int8.mean << " bf16 ref "
                 << stats["bf16_vs_f64"]["max"].get<double>() << " "
                 << stats["bf16_vs_f64"]["mean"].get<double>());
  }
}

TEST_CASE("traces agree with the reference layer by layer") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  for (const char* name : kRerankers) {
    const auto folder = *shared / "models" / name;
    if (!std::filesystem::exists(folder / "goldens" / "trace.safetensors")) continue;
    const auto golden =
        terse::SafeTensors::open((folder / "goldens" / "trace.safetensors").string());
    const auto reranker = terse::Reranker::load(folder, with_dtype(terse::DType::f32));
    for (const json& c : read_json_lines(folder / "goldens" / "cases.jsonl")) {
      const std::string id = c["id"];
      if (golden->find(id + "/embedding") == nullptr) continue;
      const auto options = terse_test::read_score_options(c["settings"]);
      std::size_t compared = 0;
      for (const auto& tensor : reranker.trace({c["query"], c["passage"]}, options)) {
        std::string point;
        if (tensor.name == "embeddings") point = "embedding";
        if (tensor.name == "encoder.layer.0.attention.output.dense") point = "attn.0";
        for (int layer = 0; layer < 4; ++layer) {
          if (tensor.name == "encoder.layer." + std::to_string(layer) + ".output") {
            point = "block." + std::to_string(layer);
          }
        }
        if (point.empty()) continue;
        const auto want =
            terse_test::read_tensor(folder / "goldens" / "trace.safetensors", id + "/" + point);
        REQUIRE(want.size() == tensor.values.size());
        double worst = 0;
        double largest = 0;
        for (std::size_t i = 0; i < want.size(); ++i) {
          worst = std::max(worst, std::abs(want[i] - static_cast<double>(tensor.values[i])));
          largest = std::max(largest, std::abs(want[i]));
        }
        CAPTURE(id + "/" + point);
        CHECK(worst <= 1e-5 * largest);
        ++compared;
      }
      CHECK(compared >= 5);
    }
  }
}

namespace {

// All texts of an embedder's goldens, in f32, with every output the model has.
std::vector<terse::EmbedResult> embed_cases(const terse::Embedder& embedder,
                                            const std::vector<json>& cases) {
  std::vector<terse::EmbedOptions> options;
  for (const json& c : cases) options.push_back(terse_test::read_embed_options(c["settings"]));
  std::vector<terse::Text> texts;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const bool query = cases[i]["settings"].value("role", "passage") == "query";
    texts.push_back(
        {cases[i]["text"], query ? terse::TextKind::query : terse::TextKind::passage, &options[i]});
  }
  terse::EmbedOptions outputs;
  outputs.sparse = outputs.colbert = embedder.info().multi_vector;
  return embedder.embed(texts, outputs);
}

double worst_gap(const std::vector<float>& have, const double* want) {
  double worst = 0;
  for (std::size_t i = 0; i < have.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(have[i]) - want[i]));
  }
  return worst;
}

}  // namespace

TEST_CASE("encoder embedders give the reference's vectors") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  for (const char* name : {"tiny-bge-embed", "tiny-bge-m3"}) {
    CAPTURE(name);
    const auto folder = *shared / "models" / name;
    const auto vectors = folder / "goldens" / "embeddings.safetensors";
    const std::vector<json> cases = read_json_lines(folder / "goldens" / "cases.jsonl");
    const double reference =
        read_json(folder / "goldens" / "stats.json")["f32_vs_f64"]["max"].get<double>();
    const auto embedder = terse::Embedder::load(folder, with_dtype(terse::DType::f32));
    const auto results = embed_cases(embedder, cases);
    const auto dense = terse_test::read_tensor(vectors, "dense_f64");
    for (std::size_t i = 0; i < cases.size(); ++i) {
      CAPTURE(cases[i]["id"].get<std::string>());
      REQUIRE_FALSE(results[i].error.has_value());
      CHECK(results[i].input_ids == cases[i]["input_ids"].get<std::vector<std::int32_t>>());
      const std::size_t width = results[i].dense.size();
      CHECK(worst_gap(results[i].dense, dense.data() + i * width) <= 4 * reference);
      if (!embedder.info().multi_vector) continue;
      const auto colbert =
          terse_test::read_tensor(vectors, "colbert_f64/" + cases[i]["id"].get<std::string>());
      REQUIRE(colbert.size() == results[i].colbert.size());
      CHECK(worst_gap(results[i].colbert, colbert.data()) <= 4 * 1.5e-6);
      std::size_t weights = 0;
      for (const auto& [token, weight] : cases[i]["sparse_f64"].items()) {
        if (weight.get<double>() <= 1e-5) continue;
        ++weights;
        const auto& sparse = results[i].sparse;
        const auto at = std::find_if(
            sparse.begin(), sparse.end(),
            [&, id = std::stoi(token)](const auto& entry) { return entry.first == id; });
        REQUIRE(at != sparse.end());
        CHECK(std::abs(static_cast<double>(at->second) - weight.get<double>()) <= 4 * 3.8e-6);
      }
      const auto kept = std::count_if(results[i].sparse.begin(), results[i].sparse.end(),
                                      [](const auto& entry) { return entry.second > 1e-5f; });
      CHECK(static_cast<std::size_t>(kept) == weights);
    }
  }
}

TEST_CASE("the five scores of bge-m3") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const auto folder = *shared / "models" / "tiny-bge-m3";
  const auto embedder = terse::Embedder::load(folder, with_dtype(terse::DType::f32));
  terse::EmbedOptions outputs;
  outputs.sparse = outputs.colbert = true;
  for (const json& pair : read_json_lines(folder / "goldens" / "pairs.jsonl")) {
    terse::EmbedOptions query_options;
    terse::EmbedOptions passage_options;
    query_options.max_length =
        terse_test::read_optional<std::int64_t>(pair["settings"], "max_query_length");
    passage_options.max_length =
        terse_test::read_optional<std::int64_t>(pair["settings"], "max_passage_length");
    const terse::Text texts[] = {{pair["query"], terse::TextKind::passage, &query_options},
                                 {pair["passage"], terse::TextKind::passage, &passage_options}};
    const auto results = embedder.embed(texts, outputs);
    const auto weights =
        terse_test::read_optional<std::array<double, 3>>(pair["settings"], "weights");
    const auto scores =
        terse::m3_scores(results[0], results[1], weights.value_or(std::array<double, 3>{1, 1, 1}));
    const json& want = pair["scores_f64"];
    const std::pair<const char*, float> modes[] = {
        {"dense", scores.dense},
        {"sparse", scores.sparse},
        {"colbert", scores.colbert},
        {"sparse+dense", scores.sparse_dense},
        {"colbert+sparse+dense", scores.colbert_sparse_dense}};
    for (const auto& [mode, score] : modes) {
      CAPTURE(mode);
      CHECK(std::abs(static_cast<double>(score) - want[mode].get<double>()) <= 4 * 8.8e-6);
    }
  }
}

TEST_CASE("a pair has the same bits alone, in any batch, order and thread count") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const auto folder = *shared / "models" / "tiny-xlmr-reranker";
  const std::vector<json> cases = read_json_lines(folder / "goldens" / "cases.jsonl");
  std::mt19937 random(7);
  // 2,010 distinct pairs of whole sentences, from one token to the longest row.
  std::vector<terse::Pair> pairs;
  for (std::size_t i = 0; i < 30 * cases.size(); ++i) {
    const json& query = cases[random() % cases.size()]["query"];
    const json& passage = cases[random() % cases.size()]["passage"];
    pairs.push_back({query.get<std::string>() + std::to_string(i), passage});
  }
  REQUIRE(pairs.size() >= 2000);
  for (const terse::DType dtype : {terse::DType::f32, terse::DType::bf16, terse::DType::i8}) {
    std::vector<float> alone;
    {
      const auto reranker = terse::Reranker::load(folder, with_dtype(dtype));
      for (const terse::Pair& pair : pairs) alone.push_back(reranker.score({&pair, 1})[0]);
    }
    std::vector<std::size_t> order(pairs.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    const std::pair<int, std::int64_t> compositions[] = {{1, 1},    {1, 64},    {1, 4096}, {2, 0},
                                                         {2, 200},  {2, 777},   {3, 1024}, {4, 130},
                                                         {8, 2048}, {16, 16384}};
    for (const auto& [threads, batch_tokens] : compositions) {
      terse::LoadOptions load = with_dtype(dtype);
      load.threads = threads;
      load.batch_tokens = batch_tokens;
      const auto reranker = terse::Reranker::load(folder, load);
      std::shuffle(order.begin(), order.end(), random);
      std::vector<terse::Pair> shuffled;
      for (const std::size_t i : order) shuffled.push_back(pairs[i]);
      const std::vector<float> scores = reranker.score(shuffled);
      std::size_t differ = 0;
      for (std::size_t i = 0; i < order.size(); ++i) {
        differ += std::bit_cast<std::uint32_t>(scores[i]) !=
                  std::bit_cast<std::uint32_t>(alone[order[i]]);
      }
      CAPTURE(threads);
      CAPTURE(batch_tokens);
      CHECK(differ == 0);
    }
  }
}
