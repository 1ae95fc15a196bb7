// The measures of a sweep: quality with intervals, agreement with the full model, quality by slices
// of the queries, what a cascade would save. Everything here is a pure function of scores.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "terse/cascade.h"
#include "terse/evaluate/agreement.h"
#include "terse/evaluate/evaluation.h"
#include "terse/evaluate/significance.h"
#include "terse/evaluate/sweep_cost.h"
#include "terse/evaluate/sweep_grid.h"

namespace terse {

// A query and its candidates.
struct SweepQuery {
  std::string id;
  std::string text;
  std::vector<std::string> documents;    // ids
  std::vector<PairLength> lengths = {};  // (documents)
};

// Scores of one cell: [query][exit][document].
using CellScores = std::vector<std::vector<std::vector<float>>>;

// Queries by thirds of some quantity: 0 low, 1 middle, 2 high; equal quantities stay in order.
inline std::vector<int> split_in_thirds(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<int> third(values.size());
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    third[order[rank]] = static_cast<int>(3 * rank / order.size());
  }
  return third;
}

struct MetricSummary {
  double mean = 0;
  Interval interval;
};

struct CascadeSummary {
  double saving = 0;   // share of the exit's token-layers that is not run
  double overlap = 1;  // of the best k with those of the exit itself
};

struct RowMeasures {
  std::vector<MetricSummary> metrics;
  double kendall_tau = 0;        // with the full model, mean over queries
  double overlap = 0;            // of the best 10 with the full model's, mean over queries
  std::vector<double> slices;    // first metric: passage length thirds, then query share thirds
  CascadeSummary exact_cascade;  // bounds of this very sweep, risk 0
  CascadeSummary risky_cascade;  // the same at SweepMeasures' risk
};

// What all rows are measured with.
class SweepMeasures {
 public:
  static constexpr std::size_t kTop = 10;

  // risk: of the risky cascade. Throws Error(range) if a query's lengths are not those of its
  // documents.
  SweepMeasures(std::vector<SweepQuery> queries, const Qrels& qrels, std::vector<Metric> metrics,
                std::uint64_t seed, double risk)
      : queries_(std::move(queries)), qrels_(&qrels), metrics_(std::move(metrics)), risk_(risk) {
    significance_.seed = seed;
    std::vector<double> lengths;
    std::vector<double> shares;
    for (const SweepQuery& query : queries_) {
      check(query.lengths.size() == query.documents.size(), ErrorClass::range, "query ",
            quote(query.id), ": ", query.lengths.size(), " lengths of ", query.documents.size(),
            " documents");
      double passage = 0;
      double share = 0;
      for (const PairLength& length : query.lengths) {
        passage += static_cast<double>(length.passage);
        share += static_cast<double>(length.query) / static_cast<double>(length.tokens());
      }
      const auto count = static_cast<double>(std::max<std::size_t>(query.lengths.size(), 1));
      lengths.push_back(passage / count);
      shares.push_back(share / count);
    }
    length_third_ = split_in_thirds(lengths);
    share_third_ = split_in_thirds(shares);
  }

  const std::vector<SweepQuery>& queries() const { return queries_; }
  const std::vector<Metric>& metrics() const { return metrics_; }
  double risk() const { return risk_; }

  // full: scores of the full model, [query][document].
  RowMeasures measure(const ModelShape& shape, const SweepCell& cell, const CellScores& scores,
                      std::size_t exit, std::span<const std::vector<float>> full) const {
    RowMeasures row;
    add_quality(scores, exit, row);
    add_agreement(scores, exit, full, row);
    row.exact_cascade = cascade(shape, cell, scores, exit, 0);
    row.risky_cascade = cascade(shape, cell, scores, exit, risk_);
    return row;
  }

  // Final score minus score at an earlier exit, in [low, high] but for a share `risk` of all pairs.
  static DriftInterval drift(const CellScores& scores, std::size_t exit, std::size_t final_exit,
                             double risk) {
    std::vector<double> drifts;
    for (const auto& query : scores) {
      for (std::size_t i = 0; i < query[exit].size(); ++i) {
        drifts.push_back(static_cast<double>(query[final_exit][i]) -
                         static_cast<double>(query[exit][i]));
      }
    }
    return drift_interval(std::move(drifts), risk);
  }

 private:
  void add_quality(const CellScores& scores, std::size_t exit, RowMeasures& row) const {
    Run run;
    for (std::size_t q = 0; q < queries_.size(); ++q) {
      RunQuery query{queries_[q].id, {}};
      for (std::size_t i = 0; i < queries_[q].documents.size(); ++i) {
        query.entries.push_back(
            {queries_[q].documents[i], static_cast<double>(scores[q][exit][i])});
      }
      run.push_back(std::move(query));
    }
    const Evaluation evaluation = evaluate(run, *qrels_, metrics_);
    for (std::size_t metric = 0; metric < metrics_.size(); ++metric) {
      std::vector<double> values;
      for (const QueryEvaluation& query : evaluation.queries) {
        values.push_back(query.values[metric]);
      }
      row.metrics.push_back({evaluation.means[metric], bootstrap_interval(values, significance_)});
    }
    add_slices(evaluation, length_third_, row);
    add_slices(evaluation, share_third_, row);
  }

  void add_slices(const Evaluation& evaluation, std::span<const int> third,
                  RowMeasures& row) const {
    double sums[3] = {};
    double counts[3] = {};
    std::unordered_map<std::string_view, int> slice_of;
    for (std::size_t q = 0; q < queries_.size(); ++q) slice_of.emplace(queries_[q].id, third[q]);
    for (const QueryEvaluation& query : evaluation.queries) {
      const int slice = slice_of.at(query.query);
      sums[slice] += query.values.front();
      ++counts[slice];
    }
    for (int slice = 0; slice < 3; ++slice) row.slices.push_back(sums[slice] / counts[slice]);
  }

  void add_agreement(const CellScores& scores, std::size_t exit,
                     std::span<const std::vector<float>> full, RowMeasures& row) const {
    double taus = 0;
    double overlaps = 0;
    double defined = 0;
    for (std::size_t q = 0; q < queries_.size(); ++q) {
      const double tau = kendall_tau(scores[q][exit], full[q]);
      overlaps += top_overlap(scores[q][exit], full[q], kTop);
      if (std::isnan(tau)) continue;
      taus += tau;
      ++defined;
    }
    row.kendall_tau = taus / defined;
    row.overlap = overlaps / static_cast<double>(queries_.size());
  }

  // A cascade over the exits up to this one, replayed from the scores.
  CascadeSummary cascade(const ModelShape& shape, const SweepCell& cell, const CellScores& scores,
                         std::size_t exit, double risk) const {
    if (exit == 0) return {};
    std::vector<DriftInterval> drifts;
    std::vector<ExitCost> costs;
    for (std::size_t before = 0; before <= exit; ++before) {
      if (before < exit) drifts.push_back(drift(scores, before, exit, risk));
      costs.emplace_back(shape, cell, cell.exits[before]);
    }
    double run = 0;
    double all = 0;
    double overlaps = 0;
    for (std::size_t q = 0; q < queries_.size(); ++q) {
      const auto reached = replay_cascade(std::span(scores[q]).first(exit + 1), drifts, kTop);
      std::vector<float> kept(reached.size(), -std::numeric_limits<float>::infinity());
      for (std::size_t i = 0; i < reached.size(); ++i) {
        const PairLength& length = queries_[q].lengths[i];
        run += static_cast<double>(costs[reached[i] - 1].of(length).token_layers);
        all += static_cast<double>(costs[exit].of(length).token_layers);
        if (reached[i] == exit + 1) kept[i] = scores[q][exit][i];
      }
      overlaps += top_overlap(kept, scores[q][exit], kTop);
    }
    return {1 - run / all, overlaps / static_cast<double>(queries_.size())};
  }

  std::vector<SweepQuery> queries_;
  const Qrels* qrels_;
  std::vector<Metric> metrics_;
  double risk_;
  SignificanceOptions significance_;
  std::vector<int> length_third_;  // (queries)
  std::vector<int> share_third_;
};

}  // namespace terse
