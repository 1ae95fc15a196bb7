// Whole models on the tables whose instructions this processor may lack, by models of the
// instructions: the small models' goldens, in f32 within its rounding and in bf16 with errors no
// larger than those of the reference's own bf16 run, mean and maximum.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "golden.h"
#include "ops_support.h"
#include "support.h"
#include "terse/rerank.h"

namespace {

const terse::Backend* chosen = nullptr;

}  // namespace

namespace terse {

// In the place of terse::compiled's: every model loads with the table under test.
const Backend& choose_backend(std::optional<Isa>, std::optional<DType>) { return *chosen; }
const Backend& choose_cuda_backend(std::optional<DType>) { return *chosen; }

}  // namespace terse

namespace {

using nlohmann::json;
using terse_test::read_json;
using terse_test::read_json_lines;

// The worst and the mean |score - f64 golden| over all cases and exits.
struct Gap {
  double worst = 0;
  double mean = 0;
};

Gap score_gap(const std::filesystem::path& folder) {
  const auto reranker = terse::Reranker::load(folder);
  const std::vector<json> cases = read_json_lines(folder / "goldens" / "cases.jsonl");
  std::vector<terse::ScoreOptions> options;
  for (const json& c : cases) options.push_back(terse_test::read_score_options(c["settings"]));
  std::vector<terse::Pair> pairs;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    pairs.push_back({cases[i]["query"], cases[i]["passage"], &options[i]});
  }
  const auto results = reranker.score_each(pairs);
  Gap gap;
  double count = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(cases[i]["id"].get<std::string>());
    REQUIRE_FALSE(results[i].error.has_value());
    const json want =
        reranker.info().layer_wise ? cases[i]["scores_f64"] : json::array({cases[i]["score_f64"]});
    REQUIRE(results[i].scores.size() == want.size());
    for (std::size_t exit = 0; exit < want.size(); ++exit) {
      const double error =
          std::abs(static_cast<double>(results[i].scores[exit]) - want[exit].get<double>());
      gap.worst = std::max(gap.worst, error);
      gap.mean += error;
      ++count;
    }
  }
  gap.mean /= count;
  return gap;
}

}  // namespace

TEST_CASE("emulated tables keep the goldens") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  for (const terse::Backend* backend : terse_test::all_backends()) {
    chosen = backend;
    CAPTURE(std::string(backend->name));
    for (const char* name : {"tiny-xlmr-reranker", "tiny-xlmr-reranker-hd64", "tiny-gemma-reranker",
                             "tiny-minicpm-layerwise", "tiny-gemma2-lightweight"}) {
      CAPTURE(name);
      const auto folder = *shared / "models" / name;
      const json stats = read_json(folder / "goldens" / "stats.json");
      const Gap gap = score_gap(folder);
      if (backend->compute == terse::DType::f32) {
        CHECK(gap.worst <= 4 * stats["f32_vs_f64"]["max"].get<double>());
        CHECK(gap.mean <= 2 * stats["f32_vs_f64"]["mean"].get<double>());
      } else {
        CHECK(gap.worst <= stats["bf16_vs_f64"]["max"].get<double>());
        CHECK(gap.mean <= stats["bf16_vs_f64"]["mean"].get<double>());
      }
    }
  }
}
