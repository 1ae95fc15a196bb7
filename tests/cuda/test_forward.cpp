// Whole forward passes of the CUDA backend: the small reference models against the goldens, and
// models with random weights against the CPU. In f32 no score is further from the reference's f64
// than four times its own f32 is; in bf16 scores are on average no further than its own bf16.
//
// Emulation is slow, so that of the golden cases every few are run; TERSE_ALL_CASES in the
// environment runs them all.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../golden.h"
#include "../support.h"
#include "../tiny_decoder.h"
#include "terse/embed.h"
#include "terse/published.h"
#include "terse/rerank.h"
#include "terse/synth.h"

namespace {

using nlohmann::json;
using terse::Device;
using terse::DType;
using terse_test::read_json;
using terse_test::read_json_lines;
using terse_test::TemporaryFolder;
using terse_test::TinyDecoder;

terse::LoadOptions on(Device device, DType dtype) {
  terse::LoadOptions options;
  options.device = device;
  options.dtype = dtype;
  options.threads = 2;
  return options;
}

// Every `stride`-th case, or all.
std::vector<json> some_cases(const std::filesystem::path& folder, std::size_t stride,
                             const char* file = "cases.jsonl") {
  const std::vector<json> all = read_json_lines(folder / "goldens" / file);
  if (std::getenv("TERSE_ALL_CASES") != nullptr) stride = 1;
  std::vector<json> some;
  for (std::size_t i = 0; i < all.size(); i += stride) some.push_back(all[i]);
  return some;
}

std::vector<double> numbers(const json& value) {
  return value.is_array() ? value.get<std::vector<double>>()
                          : std::vector<double>{value.get<double>()};
}

struct Gap {
  double worst = 0;
  double sum = 0;
  void add(double have, double want) {
    const double gap = std::abs(have - want);
    if (!(gap <= worst)) worst = gap;
    sum += gap;
  }
};

std::vector<terse::ScoreResult> score_cases(const terse::Reranker& reranker,
                                            const std::vector<json>& cases) {
  std::vector<terse::ScoreOptions> options;
  for (const json& c : cases) options.push_back(terse_test::read_score_options(c["settings"]));
  std::vector<terse::Pair> pairs;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    pairs.push_back({cases[i]["query"], cases[i]["passage"], &options[i]});
  }
  return reranker.score_each(pairs);
}

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

struct RerankerModel {
  std::string name;
  std::size_t stride;
};
const RerankerModel kRerankers[] = {{"tiny-xlmr-reranker", 4},     {"tiny-xlmr-reranker-hd64", 5},
                                    {"tiny-jina-reranker", 4},     {"tiny-gemma-reranker", 6},
                                    {"tiny-minicpm-layerwise", 9}, {"tiny-gemma2-lightweight", 9}};
const std::string kEmbedders[] = {"tiny-bge-m3", "tiny-bge-embed", "tiny-mistral-embed",
                                  "tiny-gemma2-embed"};

}  // namespace

TEST_CASE("rerankers in f32 give the reference's scores") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  for (const RerankerModel& model : kRerankers) {
    CAPTURE(model.name);
    const auto folder = *shared / "models" / model.name;
    const auto reranker = terse::Reranker::load(folder, on(Device::cuda, DType::f32));
    CHECK(reranker.info().device == Device::cuda);
    const std::vector<json> cases = some_cases(folder, model.stride);
    const auto results = score_cases(reranker, cases);
    Gap gap;
    for (std::size_t i = 0; i < cases.size(); ++i) {
      CAPTURE(cases[i]["id"].get<std::string>());
      REQUIRE_FALSE(results[i].error.has_value());
      CHECK(results[i].input_ids == cases[i]["input_ids"].get<std::vector<std::int32_t>>());
      const auto want =
          numbers(cases[i].contains("exits") ? cases[i]["scores_f64"] : cases[i]["score_f64"]);
      REQUIRE(results[i].scores.size() == want.size());
      for (std::size_t exit = 0; exit < want.size(); ++exit) {
        gap.add(static_cast<double>(results[i].scores[exit]), want[exit]);
      }
    }
    const json stats = read_json(folder / "goldens" / "stats.json");
    MESSAGE(model.name << " f32: " << cases.size() << " cases, worst " << gap.worst);
    CHECK(gap.worst <= 4 * stats["f32_vs_f64"]["max"].get<double>());
  }
}

TEST_CASE("rerankers in bf16 are on average no further off than the reference's bf16") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  for (const RerankerModel& model : kRerankers) {
    CAPTURE(model.name);
    const auto folder = *shared / "models" / model.name;
    const auto reranker = terse::Reranker::load(folder, on(Device::cuda, DType::bf16));
    const std::vector<json> cases = some_cases(folder, model.stride);
    const std::vector<json> rounded = some_cases(folder, model.stride, "bf16.jsonl");
    const auto results = score_cases(reranker, cases);
    Gap ours, theirs;
    for (std::size_t i = 0; i < cases.size(); ++i) {
      REQUIRE(cases[i]["id"] == rounded[i]["id"]);
      REQUIRE_FALSE(results[i].error.has_value());
      const bool exits = cases[i].contains("exits");
      const auto want = numbers(cases[i][exits ? "scores_f64" : "score_f64"]);
      const auto bf16 = numbers(rounded[i][exits ? "scores_bf16" : "score_bf16"]);
      for (std::size_t exit = 0; exit < want.size(); ++exit) {
        ours.add(static_cast<double>(results[i].scores[exit]), want[exit]);
        theirs.add(bf16[exit], want[exit]);
      }
    }
    const json stats = read_json(folder / "goldens" / "stats.json");
    MESSAGE(model.name << " bf16: sum " << ours.sum << " (reference " << theirs.sum << "), worst "
                       << ours.worst);
    CHECK(ours.sum <= theirs.sum);
    CHECK(ours.worst <= 1.5 * stats["bf16_vs_f64"]["max"].get<double>());
  }
}

TEST_CASE("embedders give the reference's vectors") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  constexpr std::size_t kStride = 6;
  for (const std::string& name : kEmbedders) {
    CAPTURE(name);
    const auto folder = *shared / "models" / name;
    const auto golden = folder / "goldens" / "embeddings.safetensors";
    const std::vector<json> cases = some_cases(folder, kStride);
    const std::size_t stride =
        cases.size() == read_json_lines(folder / "goldens" / "cases.jsonl").size() ? 1 : kStride;
    const auto f64 = terse_test::read_tensor(golden, "dense_f64");
    const auto bf16 = terse_test::read_tensor(golden, "dense_bf16");
    const json stats = read_json(folder / "goldens" / "stats.json");
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const auto embedder = terse::Embedder::load(folder, on(Device::cuda, dtype));
      const auto results = embed_cases(embedder, cases);
      Gap ours, theirs, colbert;
      for (std::size_t i = 0; i < cases.size(); ++i) {
        REQUIRE_FALSE(results[i].error.has_value());
        const std::size_t width = results[i].dense.size();
        for (std::size_t column = 0; column < width; ++column) {
          const std::size_t at = i * stride * width + column;
          ours.add(static_cast<double>(results[i].dense[column]), f64[at]);
          theirs.add(bf16[at], f64[at]);
        }
        if (!embedder.info().multi_vector || dtype != DType::f32) continue;
        const auto want =
            terse_test::read_tensor(golden, "colbert_f64/" + cases[i]["id"].get<std::string>());
        REQUIRE(want.size() == results[i].colbert.size());
        for (std::size_t j = 0; j < want.size(); ++j) {
          colbert.add(static_cast<double>(results[i].colbert[j]), want[j]);
        }
        for (const auto& [token, weight] : cases[i]["sparse_f64"].items()) {
          const auto at = std::find_if(
              results[i].sparse.begin(), results[i].sparse.end(),
              [id = std::stoi(token)](const auto& entry) { return entry.first == id; });
          if (weight.get<double>() <= 1e-5) continue;
          REQUIRE(at != results[i].sparse.end());
          CHECK(std::abs(static_cast<double>(at->second) - weight.get<double>()) <=
                4 * stats["sparse"]["f32"].get<double>());
        }
      }
      MESSAGE(name << " " << terse::dtype_name(dtype) << ": worst " << ours.worst << ", sum "
                   << ours.sum << " (reference's bf16 " << theirs.sum << ")");
      if (dtype == DType::f32) {
        CHECK(ours.worst <= 4 * stats["f32_vs_f64"]["max"].get<double>());
        if (embedder.info().multi_vector) {
          CHECK(colbert.worst <= 4 * stats["colbert"]["f32"].get<double>());
        }
      } else {
        CHECK(ours.sum <= theirs.sum);
      }
    }
  }
}

namespace {

// A published model made small enough for emulation.
void write_small(const std::string& name, const std::filesystem::path& folder) {
  json config = json::parse(terse::published_config(terse::published_model(name), 2));
  config.update({{"hidden_size", 64},
                 {"intermediate_size", 96},
                 {"num_attention_heads", 4},
                 {"vocab_size", 600}});
  if (config.contains("num_key_value_heads")) config["num_key_value_heads"] = 2;
  if (config.contains("head_dim")) config["head_dim"] = 32;
  terse::SynthOptions options;
  options.threads = 1;
  terse::write_synthetic_model(folder, config.dump(), options);
}

const std::vector<terse::Pair> kPairs = {
    {"what is panda?", "hi"},
    {"what is panda?", "The giant panda is a bear species endemic to China."},
    {"what is panda?",
     "Pandas eat bamboo. A panda is not a raccoon, whatever it looks like; it is a bear "
     "and climbs, swims and sleeps."},
    {"", "x"}};

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double product = 0, first = 0, second = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    product += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    first += static_cast<double>(a[i]) * static_cast<double>(a[i]);
    second += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return product / std::sqrt(first * second);
}

}  // namespace

TEST_CASE("made-up rerankers score as on the CPU, and a pair alone as in a batch") {
  for (const char* name :
       {"bge-reranker-base", "bge-reranker-v2-gemma", "bge-reranker-v2-minicpm-layerwise",
        "bge-reranker-v2.5-gemma2-lightweight"}) {
    CAPTURE(name);
    const TemporaryFolder temporary;
    write_small(name, temporary.path() / "model");
    terse::ScoreOptions options;
    if (std::string(name).find("gemma2") != std::string::npos) {
      options.compress_layers = {1};
      options.compress_ratio = 2;
    }
    const auto cpu = terse::Reranker::load(temporary.path() / "model", on(Device::cpu, DType::f32));
    const auto want = cpu.score(kPairs, options);
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      CAPTURE(terse::dtype_name(dtype));
      const auto cuda = terse::Reranker::load(temporary.path() / "model", on(Device::cuda, dtype));
      const auto together = cuda.score(kPairs, options);
      // The programs of a batch that comes again are captured, then replayed.
      if (dtype == DType::bf16) {
        CHECK(cuda.score(kPairs, options) == together);
        CHECK(cuda.score(kPairs, options) == together);
      }
      for (std::size_t i = 0; i < kPairs.size(); ++i) {
        const double most = dtype == DType::f32 ? 1e-4 : dtype == DType::bf16 ? 5e-2 : 1e-2;
        CHECK(std::abs(together[i] - want[i]) <= most * std::max(1.0F, std::abs(want[i])));
        if (i % 2 == 0) CHECK(cuda.score({&kPairs[i], 1}, options)[0] == together[i]);
      }
      const std::vector<terse::Pair> reversed(kPairs.rbegin(), kPairs.rend());
      const auto backwards = cuda.score(reversed, options);
      CHECK(std::equal(together.begin(), together.end(), backwards.rbegin()));
    }
  }
}

TEST_CASE("odd shapes: heads of 10 columns, rows of 24, shared openings, cascades") {
  for (const char* type : {"gemma", "minicpm", "cost_wise_gemma"}) {
    CAPTURE(type);
    const TemporaryFolder temporary;
    TinyDecoder(type).write(temporary.path());
    const auto cpu = terse::Reranker::load(temporary.path(), on(Device::cpu, DType::f32));
    const auto want = cpu.score(kPairs);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(terse::dtype_name(dtype));
      const auto cuda = terse::Reranker::load(temporary.path(), on(Device::cuda, dtype));
      const auto got = cuda.score(kPairs);
      for (std::size_t i = 0; i < kPairs.size(); ++i) {
        if (dtype == DType::f32) {
          CHECK(std::abs(got[i] - want[i]) <= 1e-4F * std::max(1.0F, std::abs(want[i])));
        }
        CHECK(cuda.score({&kPairs[i], 1})[0] == got[i]);
      }
      terse::LoadOptions apart = on(Device::cuda, dtype);
      apart.savings = {false, false, false};
      CHECK(terse::Reranker::load(temporary.path(), apart).score(kPairs) == got);
      if (!cuda.info().layer_wise) continue;
      const std::vector<std::string> documents = {kPairs[0].passage, kPairs[1].passage,
                                                  kPairs[2].passage};
      const terse::CascadeOptions cascade{2, {2, 4, 5}, {{-0.5, 0.5}, {-0.5, 0.5}}};
      const auto result = cuda.cascade("what is panda?", documents, cascade);
      terse::ScoreOptions exits;
      exits.cutoff_layers = {2, 4, 5};
      for (std::size_t i = 0; i < documents.size(); ++i) {
        const terse::Pair pair{"what is panda?", documents[i]};
        const auto alone = cuda.score_each({&pair, 1}, exits)[0];
        CHECK(result.scores[i] == alone.scores[result.exits_reached[i] - 1]);
      }
    }
  }
}

TEST_CASE("made-up embedders give the vectors of the CPU") {
  for (const char* name : {"bge-m3", "bge-small-en-v1.5"}) {
    CAPTURE(name);
    const TemporaryFolder temporary;
    write_small(name, temporary.path() / "model");
    const std::vector<terse::Text> texts = {{"panda"}, {kPairs[2].passage}};
    const auto want =
        terse::Embedder::load(temporary.path() / "model", on(Device::cpu, DType::f32)).embed(texts);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(terse::dtype_name(dtype));
      const auto cuda = terse::Embedder::load(temporary.path() / "model", on(Device::cuda, dtype));
      const auto got = cuda.embed(texts);
      for (std::size_t i = 0; i < texts.size(); ++i) {
        CHECK(cosine(got[i].dense, want[i].dense) >= 0.9999);
        CHECK(cuda.embed({&texts[i], 1})[0].dense == got[i].dense);
      }
    }
  }
}

TEST_CASE("a trace has the tensors of the CPU's") {
  const TemporaryFolder temporary;
  TinyDecoder("cost_wise_gemma").write(temporary.path());
  const auto want =
      terse::Reranker::load(temporary.path(), on(Device::cpu, DType::f32)).trace(kPairs[0]);
  const auto got =
      terse::Reranker::load(temporary.path(), on(Device::cuda, DType::f32)).trace(kPairs[0]);
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    CAPTURE(want[i].name);
    CHECK(got[i].name == want[i].name);
    REQUIRE(got[i].values.size() == want[i].values.size());
    float worst = 0;
    for (std::size_t j = 0; j < want[i].values.size(); ++j) {
      worst = std::max(worst, std::abs(got[i].values[j] - want[i].values[j]) /
                                  std::max(1.0F, std::abs(want[i].values[j])));
    }
    CHECK(worst <= 1e-4F);
  }
}
