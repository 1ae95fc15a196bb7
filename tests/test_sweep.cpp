#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "support.h"
#include "terse/evaluate/agreement.h"
#include "terse/evaluate/pareto.h"
#include "terse/evaluate/sha256.h"
#include "terse/evaluate/sweep.h"
#include "terse/evaluate/sweep_table.h"

using terse_test::error_class_of;

namespace {

using Layers = std::vector<std::int64_t>;

terse::ModelInfo lightweight() {
  terse::ModelInfo info;
  info.architecture = "Gemma 2 lightweight";
  info.layer_wise = info.compression = info.causal = true;
  info.num_hidden_layers = 42;
  for (std::int64_t exit = 8; exit <= 42; ++exit) info.exits.push_back(exit);
  return info;
}

terse::ModelShape lightweight_shape() {
  terse::ModelShape shape;
  shape.causal = shape.compression = true;
  shape.num_hidden_layers = 42;
  shape.hidden_size = 3584;
  shape.intermediate_size = 14336;
  shape.num_attention_heads = 16;
  shape.num_key_value_heads = 8;
  shape.head_dim = 256;
  return shape;
}

// Tau-b by its definition, over all pairs.
double slow_tau(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  double untied_a = 0;
  double untied_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const int sign_a = (a[i] > a[j]) - (a[i] < a[j]);
      const int sign_b = (b[i] > b[j]) - (b[i] < b[j]);
      sum += sign_a * sign_b;
      untied_a += sign_a != 0;
      untied_b += sign_b != 0;
    }
  }
  return sum / std::sqrt(untied_a * untied_b);
}

}  // namespace

TEST_CASE("Kendall's tau-b is that of its definition, ties and all") {
  std::mt19937 random(3);
  for (const std::size_t count : {2U, 3U, 10U, 65U}) {
    for (const unsigned values : {2U, 5U, 1000U}) {
      std::vector<float> a(count);
      std::vector<float> b(count);
      for (float& x : a) x = static_cast<float>(random() % values);
      for (float& x : b) x = static_cast<float>(random() % values);
      const double expected = slow_tau(a, b);
      if (std::isnan(expected)) {
        CHECK(std::isnan(terse::kendall_tau(a, b)));
      } else {
        CHECK(terse::kendall_tau(a, b) == doctest::Approx(expected).epsilon(1e-12));
      }
    }
  }
  const std::vector<float> rising = {1, 2, 3};
  CHECK(terse::kendall_tau(rising, rising) == 1);
  CHECK(terse::kendall_tau(rising, std::vector<float>{3, 2, 1}) == -1);
  CHECK(std::isnan(terse::kendall_tau(rising, std::vector<float>{1, 1, 1})));
  CHECK(error_class_of([&] { terse::kendall_tau(rising, {}); }) == "range");
}

TEST_CASE("overlap counts common documents of the best k") {
  const std::vector<float> a = {5, 4, 3, 2, 1};
  const std::vector<float> b = {1, 4, 5, 2, 3};
  CHECK(terse::top_overlap(a, b, 1) == 0);
  CHECK(terse::top_overlap(a, b, 2) == 0.5);
  CHECK(terse::top_overlap(a, b, 3) == doctest::Approx(2 / 3.0));
  CHECK(terse::top_overlap(a, b, 5) == 1);
  CHECK(terse::top_overlap(a, b, 50) == 1);
  CHECK(terse::top_overlap({}, {}, 10) == 1);
}

TEST_CASE("the Pareto front holds what nothing beats, by rising cost") {
  using Front = std::vector<std::size_t>;
  const std::vector<terse::Tradeoff> points = {{3, 5}, {1, 2}, {2, 2}, {2, 4}, {4, 5}, {1, 2}};
  CHECK(terse::pareto_front(points) == Front{1, 3, 0});
  CHECK(terse::pareto_front({}).empty());
}

TEST_CASE("a grid becomes cells: the full model first, each cell once") {
  terse::SweepGrid grid;
  grid.ratios = {4, 1, 2, 2};
  grid.compress_layers = terse::parse_layer_sets("8;16;16,8;30");
  grid.exits = {25, 16};
  const auto cells = terse::plan_cells(grid, lightweight());
  REQUIRE(cells.size() == 7);
  CHECK(cells[0].exits == Layers{16, 25, 42});
  CHECK(cells[0].name() == "ratio-1");
  CHECK(cells[1].exits == Layers{16, 25});
  CHECK(cells[1].name() == "ratio-2-layers-8");
  CHECK(cells[3].layers_text() == "8;16");
  CHECK(cells[6].name() == "ratio-4-layers-8-16");  // nothing runs at 30 before exit 25
  grid.ratios = {2};
  CHECK(terse::plan_cells(grid, lightweight())[0].exits == Layers{42});
  grid.exits = {};
  CHECK(terse::plan_cells(grid, lightweight())[1].exits == Layers{42});
}

TEST_CASE("a grid asks for nothing that the model does not have") {
  const auto refused = [](const terse::SweepGrid& grid, const terse::ModelInfo& model) {
    return error_class_of([&] { terse::plan_cells(grid, model); });
  };
  terse::ModelInfo encoder;
  encoder.num_hidden_layers = 12;
  CHECK(refused({}, encoder) == "none");
  CHECK(terse::plan_cells({}, encoder).size() == 1);
  CHECK(refused({{2}, {{8}}, {}}, encoder) == "unsupported");
  CHECK(refused({{1}, {{8}}, {6}}, encoder) == "unsupported");
  CHECK(refused({{1}, {{8}}, {7}}, lightweight()) == "range");
  CHECK(refused({{0}, {{8}}, {}}, lightweight()) == "range");
  for (const char* text : {"", "8;", "8,,9", "a", "0", "8 ", "-1"}) {
    CHECK(error_class_of([&] { terse::parse_layer_sets(text); }) == "range");
  }
}

TEST_CASE("costs are those of the model card and of a pair's real lengths") {
  const terse::ModelShape shape = lightweight_shape();
  const terse::SweepCell cell{2, {8}, {25, 42}};
  const terse::ExitCost cost(shape, cell, 25);
  CHECK(cost.nominal_saving() == doctest::Approx(1 - (8 + 17 / 2.0) / 42));
  const terse::PairLength length{24, 476, 12};
  CHECK(cost.tokens_after(length) == 24 + 238 + 12);
  // The table of FLOPs at 512 tokens: 8.704 T in full, 3.525 T for this cell.
  CHECK(static_cast<double>(cost.of(length).dense_flops()) ==
        doctest::Approx(3.525e12).epsilon(2e-4));
  const terse::ExitCost full(shape, {}, 42);
  CHECK(full.nominal_saving() == 0);
  CHECK(static_cast<double>(full.of(length).dense_flops()) ==
        doctest::Approx(8.704e12).epsilon(2e-4));
  const std::vector<std::vector<terse::PairLength>> lengths = {{length, length}};
  const auto summary = terse::summarize_cost(shape, cell, 25, lengths);
  CHECK(summary.tokens_in == 512);
  CHECK(summary.tokens_after == 274);
  CHECK(summary.saving == doctest::Approx(1 - (8 * 512 + 17 * 274) / (42.0 * 512)));
  CHECK(summary.dense_flops > summary.causal_flops);
  // A layer at or after the exit compresses nothing.
  CHECK(terse::ExitCost(shape, {2, {8, 30}, {}}, 25).tokens_after(length) == 274);
}

TEST_CASE("measures of a row: quality, agreement, slices, cascade") {
  terse::Qrels qrels;
  std::vector<terse::SweepQuery> queries;
  terse::CellScores scores;
  std::vector<std::vector<float>> full;
  for (int q = 0; q < 3; ++q) {
    const std::string id = "q" + std::to_string(q);
    qrels.add(id, "a", 1);
    queries.push_back({id, "", {"a", "b", "c"}, {3, terse::PairLength{4, 10 + 10 * q, 2}}});
    // The relevant document is first for q0, second for q1, third for q2.
    const auto top = static_cast<float>(3 - q) - 0.5F;
    scores.push_back({{top, 2, 1}, {top, 2, 1}});
    full.push_back({top, 2, 1});
  }
  const terse::SweepMeasures measures(queries, qrels, {terse::parse_metric("mrr")}, 1, 0.01);
  const terse::SweepCell cell{1, {}, {8, 42}};
  const auto row = measures.measure(lightweight_shape(), cell, scores, 1, full);
  REQUIRE(row.metrics.size() == 1);
  CHECK(row.metrics[0].mean == doctest::Approx((1 + 0.5 + 1 / 3.0) / 3));
  CHECK(row.metrics[0].interval.low <= row.metrics[0].mean);
  CHECK(row.metrics[0].interval.high >= row.metrics[0].mean);
  CHECK(row.kendall_tau == 1);
  CHECK(row.overlap == 1);
  // Longer passages mean a smaller share of the query.
  CHECK(row.slices[0] == 1);
  CHECK(row.slices[2] == doctest::Approx(1 / 3.0));
  CHECK(row.slices[3] == doctest::Approx(1 / 3.0));
  CHECK(row.slices[5] == 1);
  CHECK(row.exact_cascade.saving == 0);  // three candidates are all among the best 10
  CHECK(row.exact_cascade.overlap == 1);
}

TEST_CASE("an exact cascade keeps the best k of its own calibration") {
  std::mt19937 random(5);
  terse::Qrels qrels;
  std::vector<terse::SweepQuery> queries;
  terse::CellScores scores;
  std::vector<std::vector<float>> full;
  for (int q = 0; q < 4; ++q) {
    terse::SweepQuery query{"q" + std::to_string(q), "", {}, {}};
    qrels.add(query.id, "d0", 1);
    std::vector<float> early;
    std::vector<float> late;
    for (int i = 0; i < 60; ++i) {
      query.documents.push_back("d" + std::to_string(i));
      query.lengths.push_back({10, 100, 5});
      late.push_back(static_cast<float>(random() % 1000) / 50);
      early.push_back(late.back() - 3 + static_cast<float>(random() % 100) / 40);
    }
    full.push_back(late);
    scores.push_back({early, late});
    queries.push_back(query);
  }
  const terse::SweepMeasures measures(queries, qrels, {terse::parse_metric("mrr")}, 1, 0.2);
  const terse::SweepCell cell{1, {}, {8, 42}};
  const auto row = measures.measure(lightweight_shape(), cell, scores, 1, full);
  CHECK(row.exact_cascade.overlap == 1);
  CHECK(row.exact_cascade.saving > 0.2);
  CHECK(row.risky_cascade.saving > row.exact_cascade.saving);
  CHECK(row.risky_cascade.overlap > 0.9);
}

TEST_CASE("thirds of queries") {
  CHECK(terse::split_in_thirds(std::vector<double>{5, 1, 3}) == std::vector<int>{2, 0, 1});
  CHECK(terse::split_in_thirds(std::vector<double>{7, 7, 7, 7}) == std::vector<int>{0, 0, 1, 2});
  CHECK(terse::split_in_thirds({}).empty());
}

TEST_CASE("rows are written and read back; fields with commas are quoted") {
  const std::vector<terse::Metric> metrics = {terse::parse_metric("ndcg@10")};
  const terse::SweepCell cell{2, {8, 16}, {25}};
  terse::RowMeasures measures;
  measures.metrics = {{0.25, {0.125, 0.5}}};
  measures.slices = {0, 0.1, 0.2, std::nan(""), 0.4, 0.5};
  const std::string row = terse::sweep_row(cell, 25, 3, 30, {}, measures, {});
  CHECK(row.starts_with("2,8;16,25,3,30,"));
  CHECK(row.starts_with(terse::sweep_row_key(cell, 25)));
  const terse::SweepTable table(terse::sweep_heading(metrics) + row);
  REQUIRE(table.size() == 1);
  CHECK(table.number(0, "ndcg@10_low") == 0.125);
  CHECK(table.text(0, "compress_layers") == "8;16");
  CHECK(std::isnan(table.number(0, "ndcg@10_low_query_share")));
  CHECK(std::isnan(table.number(0, "latency_p95_ms")));
  CHECK(error_class_of([&] { table.number(0, "map"); }) == "missing");
  CHECK(error_class_of([] { terse::SweepTable("a,b\n1\n"); }) == "schema");
  const std::string field = "a,\"b\"";
  CHECK(terse::csv_field(field) == "\"a,\"\"b\"\"\"");
  CHECK(terse::split_csv(terse::csv_field(field) + ",x,") ==
        std::vector<std::string>{field, "x", ""});
  CHECK(error_class_of([] { terse::split_csv("\"a"); }) == "schema");
}

TEST_CASE("digests are those of FIPS 180-4") {
  const auto digest = [](const std::string& text) {
    terse::Sha256 sha;
    sha.add(text);
    return sha.finish();
  };
  CHECK(digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest(std::string(1000000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}
