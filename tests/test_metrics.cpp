#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "support.h"
#include "terse/evaluate/evaluation.h"
#include "terse/evaluate/lines.h"
#include "terse/evaluate/metrics.h"
#include "terse/file.h"
#include "terse/json.h"

using namespace terse;
using terse_test::error_class_of;

namespace {

double value(const std::string& metric, const std::vector<RunEntry>& entries, const Grades& grades,
             TieRule rule = TieRule::trec) {
  return measure(parse_metric(metric), judge(entries, grades, rule));
}

// a, b, c, d in this order; b (grade 2) and d (grade 1) are relevant, x (grade 3) was not found.
const std::vector<RunEntry> kEntries = {{"a", 4}, {"b", 3}, {"c", 2}, {"d", 1}};
const Grades kGrades = {{"b", 2}, {"d", 1}, {"x", 3}, {"c", 0}, {"a", -1}};

}  // namespace

TEST_CASE("metrics of a small ranking, computed by hand") {
  const double log2_3 = std::log2(3.0);
  const double log2_5 = std::log2(5.0);
  const double ideal = 3 + 2 / log2_3 + 1 / 2.0;
  CHECK(value("ndcg", kEntries, kGrades) == doctest::Approx((2 / log2_3 + 1 / log2_5) / ideal));
  CHECK(value("ndcg@2", kEntries, kGrades) == doctest::Approx((2 / log2_3) / (3 + 2 / log2_3)));
  CHECK(value("map", kEntries, kGrades) == doctest::Approx((1 / 2.0 + 2 / 4.0) / 3));
  CHECK(value("map@3", kEntries, kGrades) == doctest::Approx((1 / 2.0) / 3));
  CHECK(value("mrr", kEntries, kGrades) == doctest::Approx(0.5));
  CHECK(value("mrr@1", kEntries, kGrades) == 0);
  CHECK(value("recall", kEntries, kGrades) == doctest::Approx(2 / 3.0));
  CHECK(value("recall@3", kEntries, kGrades) == doctest::Approx(1 / 3.0));
  CHECK(value("p@4", kEntries, kGrades) == doctest::Approx(0.5));
  CHECK(value("P@10", kEntries, kGrades) == doctest::Approx(0.2));
  CHECK(value("success@1", kEntries, kGrades) == 0);
  CHECK(value("success@2", kEntries, kGrades) == 1);
  CHECK(value("Rprec", kEntries, kGrades) == doctest::Approx(1 / 3.0));
  CHECK(value("bpref", kEntries, kGrades) == doctest::Approx(1 / 3.0));  // c stands before d
}

TEST_CASE("a query without relevant documents measures 0") {
  for (const char* name :
       {"ndcg@10", "map", "mrr", "recall", "p@5", "success@5", "rprec", "bpref"}) {
    CHECK(value(name, kEntries, {{"a", 0}, {"b", -2}}) == 0);
    CHECK(value(name, {}, kGrades) == 0);
  }
}

TEST_CASE("names of metrics") {
  CHECK(parse_metric("nDCG@10").cutoff == 10);
  CHECK(parse_metric("nDCG@10").name == "nDCG@10");
  CHECK(parse_metric("map").cutoff == Metric::kAllRanks);
  for (const char* name : {"", "p", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@x", "ndcg10", "f1@3",
                           "success", "rprec@5", "ndcg@99999999999999999999"}) {
    CHECK(error_class_of([&] { parse_metric(name); }) == "range");
  }
}

TEST_CASE("tie rules order equal scores") {
  const std::vector<RunEntry> tied = {{"a", 1}, {"z", 1}, {"m", 1}};
  CHECK(value("mrr", tied, {{"z", 1}}) == 1);
  CHECK(value("mrr", tied, {{"a", 1}}) == doctest::Approx(1 / 3.0));
  CHECK(value("mrr", tied, {{"a", 1}}, TieRule::input) == 1);
  CHECK(value("mrr", tied, {{"m", 1}}, TieRule::input) == doctest::Approx(1 / 3.0));
  // Scores are compared as float32.
  CHECK(value("mrr", {{"a", 1.00000001}, {"z", 1}}, {{"z", 1}}) == 1);
}

TEST_CASE("ties at the cut-off are counted") {
  const auto ranking =
      judge(std::vector<RunEntry>{{"a", 3}, {"b", 2}, {"c", 2}, {"d", 2}, {"e", 1}}, kGrades,
            TieRule::trec);
  CHECK(ranking.tied_at(1) == 0);
  CHECK(ranking.tied_at(2) == 3);
  CHECK(ranking.tied_at(3) == 3);
  CHECK(ranking.tied_at(4) == 0);
  CHECK(ranking.tied_at(Metric::kAllRanks) == 0);
}

TEST_CASE("the average rule is the mean over all orders") {
  // One score for the middle four: every order of them, by TieRule::input.
  std::vector<std::string> middle = {"b", "c", "d", "e"};
  const Grades grades = {{"b", 2}, {"c", 0}, {"d", 1}, {"e", 0}, {"f", 1}, {"y", 1}, {"z", 0}};
  for (const char* name : {"ndcg", "ndcg@3", "map", "map@3", "mrr", "mrr@3", "recall@3", "p@2",
                           "success@2", "success@3", "success@5", "rprec", "bpref"}) {
    double sum = 0;
    int orders = 0;
    std::sort(middle.begin(), middle.end());
    std::vector<RunEntry> entries;
    do {
      entries = {{"a", 3}};
      for (const std::string& document : middle) entries.push_back({document, 2});
      entries.push_back({"f", 1});
      sum += value(name, entries, grades, TieRule::input);
      ++orders;
    } while (std::next_permutation(middle.begin(), middle.end()));
    CHECK(orders == 24);
    CHECK(value(name, entries, grades, TieRule::average) == doctest::Approx(sum / orders));
  }
}

TEST_CASE("means are over queries with judgements and a run") {
  Qrels qrels;
  qrels.add("q1", "a", 1);
  qrels.add("q2", "a", 1);
  const Run run = {{"q1", {{"a", 1}}}, {"qX", {{"a", 1}}}};
  const std::vector<Metric> metrics = {parse_metric("mrr")};
  const Evaluation judged = evaluate(run, qrels, metrics);
  CHECK(judged.means == std::vector<double>{1});
  CHECK(judged.queries.size() == 1);
  CHECK(judged.judged_only == 1);
  CHECK(judged.run_only == 1);
  CHECK(evaluate(run, qrels, metrics, {.complete = true}).means == std::vector<double>{0.5});
  CHECK(error_class_of([&] { evaluate({{"qX", {}}}, qrels, metrics); }) == "missing");
}

TEST_CASE("documents with the query's id are dropped on request") {
  Qrels qrels;
  qrels.add("1", "2", 1);
  const Run run = {{"1", {{"1", 9}, {"2", 8}}}};
  const std::vector<Metric> metrics = {parse_metric("mrr")};
  CHECK(evaluate(run, qrels, metrics).means == std::vector<double>{0.5});
  CHECK(evaluate(run, qrels, metrics, {.drop_same_id = true}).means == std::vector<double>{1});
}

namespace {

// Our name of a measure in the reference data.
const std::vector<std::pair<std::string, std::string>> kEdgeNames = {{"ndcg", "ndcg"},
                                                                     {"ndcg@3", "ndcg_cut_3"},
                                                                     {"ndcg@10", "ndcg_cut_10"},
                                                                     {"map", "map"},
                                                                     {"mrr", "recip_rank"},
                                                                     {"recall", "set_recall"},
                                                                     {"recall@3", "recall_3"},
                                                                     {"recall@100", "recall_100"},
                                                                     {"p@3", "P_3"},
                                                                     {"p@10", "P_10"},
                                                                     {"success@1", "success_1"},
                                                                     {"success@5", "success_5"},
                                                                     {"rprec", "Rprec"},
                                                                     {"bpref", "bpref"}};
const std::vector<std::pair<std::string, std::string>> kCollectionNames = {
    {"ndcg@10", "ndcg@10"},      {"ndcg@5", "ndcg@5"},  {"map", "map"},
    {"mrr@10", "mrr@10"},        {"mrr", "recip_rank"}, {"p@10", "p@10"},
    {"recall@100", "recall@100"}};

std::vector<Metric> metrics_called(const std::vector<std::pair<std::string, std::string>>& names) {
  std::vector<Metric> metrics;
  for (const auto& [ours, theirs] : names) metrics.push_back(parse_metric(ours));
  return metrics;
}

// Holds values to the members of an object of reference figures; how many there were.
int compare(const std::vector<double>& values, JsonValue expected,
            const std::vector<std::pair<std::string, std::string>>& names) {
  int compared = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto member = expected.find(names[i].second);
    if (!member) continue;
    INFO(names[i].first);
    CHECK(values[i] == doctest::Approx(member->as_number("figure")).epsilon(1e-9));
    ++compared;
  }
  return compared;
}

Evaluation evaluate_files(const std::filesystem::path& qrels, const std::filesystem::path& run,
                          const std::vector<Metric>& metrics, bool complete = false) {
  TextLines qrels_lines(qrels.string());
  TextLines run_lines(run.string());
  return evaluate(read_run(run_lines), read_qrels(qrels_lines), metrics, {.complete = complete});
}

JsonDocument parse_file(const std::filesystem::path& path) {
  return JsonDocument::parse(terse_test::read_file(path), {.max_bytes = 64 << 20}, path.string());
}

int compare_queries(const Evaluation& evaluation, JsonValue per_query,
                    const std::vector<std::pair<std::string, std::string>>& names) {
  int compared = 0;
  CHECK(evaluation.queries.size() == per_query.size());
  for (const QueryEvaluation& query : evaluation.queries) {
    INFO(query.query);
    const auto expected = per_query.find(query.query);
    REQUIRE(expected);
    compared += compare(query.values, *expected, names);
  }
  return compared;
}

}  // namespace

TEST_CASE("metric edge cases agree with trec_eval") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const auto root = *shared / "collections" / "metric-edge-cases";
  const auto metrics = metrics_called(kEdgeNames);
  int compared = 0;
  const JsonDocument cases = parse_file(root / "cases.json");
  for (const JsonValue entry : cases.root()) {
    const std::string name(entry.find("case")->as_string("case"));
    const auto folder = root / name;
    INFO(name);
    if (name == "nan-scores" || name == "duplicate-doc-in-run") {
      CHECK(error_class_of([&] {
              evaluate_files(folder / "qrels.trec", folder / "run.trec", metrics);
            }) == (name == "nan-scores" ? "nonfinite" : "duplicate"));
      continue;
    }
    const JsonDocument expected = parse_file(folder / "expected.json");
    const auto evaluation = evaluate_files(folder / "qrels.trec", folder / "run.trec", metrics);
    compared += compare_queries(evaluation, *expected.root().find("per_query"), kEdgeNames);
    compared += compare(evaluation.means, *expected.root().find("mean_over_evaluated"), kEdgeNames);
    const auto complete = evaluate_files(folder / "qrels.trec", folder / "run.trec", metrics, true);
    compared +=
        compare(complete.means, *expected.root().find("mean_over_all_judged_queries"), kEdgeNames);
  }
  CHECK(compared > 500);
}

TEST_CASE("every figure of every collection agrees with trec_eval") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const auto metrics = metrics_called(kCollectionNames);
  int compared = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(*shared / "collections")) {
    if (entry.path().filename() != "metrics.json") continue;
    const auto folder = entry.path().parent_path();
    const JsonDocument document = parse_file(entry.path());
    const JsonValue runs = *document.root().find("runs");
    for (const JsonValue run : runs) {
      INFO(folder.string() << " " << run.key());
      const auto path = folder / "runs" / (std::string(run.key()) + ".trec");
      const auto evaluation = evaluate_files(folder / "qrels.trec", path, metrics);
      compared += compare_queries(evaluation, *run.find("per_query"), kCollectionNames);
      compared += compare(evaluation.means, *run.find("mean"), kCollectionNames);
      const auto complete = evaluate_files(folder / "qrels.tsv", path, metrics, true);
      compared += compare(complete.means, *run.find("mean_over_judged"), kCollectionNames);
    }
  }
  CHECK(compared > 10000);
}
