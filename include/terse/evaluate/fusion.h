// Several runs made into one: weighted sum of scores, or of reciprocal ranks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/evaluate/run.h"
#include "terse/evaluate/text_map.h"

namespace terse {

enum class Fusion : std::uint8_t {
  sum,              // weighted sum of scores
  reciprocal_rank,  // weighted sum of 1 / (rank_constant + rank)
};

// How the scores of a query in one run are made comparable to those of another run.
enum class ScoreScale : std::uint8_t {
  none,
  min_max,  // (score - min) / (max - min), 0.5 where all are equal
  z_score,  // (score - mean) / standard deviation, 0 where all are equal
};

struct FusionOptions {
  Fusion fusion = Fusion::reciprocal_rank;
  ScoreScale scale = ScoreScale::min_max;  // of Fusion::sum
  std::vector<double> weights = {};        // of the runs; empty: 1 each
  double rank_constant = 60;               // of Fusion::reciprocal_rank
  std::size_t top_k = 1000;                // documents kept of each query
};

namespace detail {

// What each entry of a query adds to its document, its order being trec_eval's. A document that a
// run lacks gets from it what the last one would: nothing, or the lowest scaled score.
struct Contributions {
  std::vector<double> values;  // (entries)
  double absent = 0;
};

inline Contributions scaled_scores(std::span<const RunEntry> entries, ScoreScale scale) {
  Contributions result;
  double low = entries.front().score;
  double high = low;
  double sum = 0;
  for (const RunEntry& entry : entries) {
    low = std::min(low, entry.score);
    high = std::max(high, entry.score);
    sum += entry.score;
  }
  const double mean = sum / static_cast<double>(entries.size());
  double squares = 0;
  for (const RunEntry& entry : entries) squares += (entry.score - mean) * (entry.score - mean);
  const double deviation = std::sqrt(squares / static_cast<double>(entries.size()));
  const auto scaled = [&](double score) {
    if (scale == ScoreScale::none) return score;
    if (scale == ScoreScale::min_max) return high > low ? (score - low) / (high - low) : 0.5;
    return deviation > 0 ? (score - mean) / deviation : 0;
  };
  for (const RunEntry& entry : entries) result.values.push_back(scaled(entry.score));
  result.absent = scale == ScoreScale::z_score ? scaled(low) : 0;
  return result;
}

inline Contributions reciprocal_ranks(std::span<const RunEntry> entries, double constant) {
  Contributions result;
  for (std::size_t rank = 1; rank <= entries.size(); ++rank) {
    result.values.push_back(1 / (constant + static_cast<double>(rank)));
  }
  return result;
}

// Adds one run's entries for a query to the sums so far.
inline void add_entries(std::vector<RunEntry> entries, double weight, const FusionOptions& options,
                        TextMap<double>& sums, double& absent_sum) {
  std::sort(entries.begin(), entries.end(), trec_before);
  const Contributions added = options.fusion == Fusion::sum
                                  ? scaled_scores(entries, options.scale)
                                  : reciprocal_ranks(entries, options.rank_constant);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    // absent_sum goes to every document in the end: here only what goes beyond it.
    sums[entries[i].document] += weight * (added.values[i] - added.absent);
  }
  absent_sum += weight * added.absent;
}

inline void check_fusion(std::span<const Run> runs, const FusionOptions& options) {
  check(!runs.empty(), ErrorClass::range, "no run to fuse");
  check(options.weights.empty() || options.weights.size() == runs.size(), ErrorClass::range,
        options.weights.size(), " weights for ", runs.size(), " runs");
  check(options.rank_constant >= 0, ErrorClass::range, "rank constant ", options.rank_constant,
        ", expected at least 0");
  if (options.fusion != Fusion::sum) return;
  for (const Run& run : runs) {
    for (const RunQuery& query : run) {
      for (const RunEntry& entry : query.entries) {
        check(std::isfinite(entry.score), ErrorClass::nonfinite, "query ", quote(query.id),
              ": an infinite score cannot be summed");
      }
    }
  }
}

}  // namespace detail

// For each query of any run, its documents by descending fused score, equal ones by descending id.
// Throws Error: range (weights that are not one a run), nonfinite (an infinite score to sum).
// Source: Cormack, Clarke and Buettcher, SIGIR 2009 (reciprocal rank fusion, constant 60); Fox and
// Shaw, TREC-2, 1994 (sums of scores).
inline Run fuse(std::span<const Run> runs, const FusionOptions& options = {}) {
  detail::check_fusion(runs, options);
  Run fused;
  TextMap<std::vector<std::pair<std::size_t, const RunQuery*>>> queries;  // (run, query in it)
  for (std::size_t run = 0; run < runs.size(); ++run) {
    for (const RunQuery& query : runs[run]) {
      const auto [at, added] = queries.try_emplace(query.id);
      if (added) fused.push_back({query.id, {}});
      at->second.emplace_back(run, &query);
    }
  }
  for (RunQuery& query : fused) {
    TextMap<double> sums;
    double absent_sum = 0;
    for (const auto& [run, part] : queries.find(query.id)->second) {
      const double weight = options.weights.empty() ? 1 : options.weights[run];
      detail::add_entries(part->entries, weight, options, sums, absent_sum);
    }
    for (const auto& [document, sum] : sums) query.entries.push_back({document, sum + absent_sum});
    std::sort(query.entries.begin(), query.entries.end(), trec_before);
    if (query.entries.size() > options.top_k) query.entries.resize(options.top_k);
  }
  return fused;
}

}  // namespace terse
