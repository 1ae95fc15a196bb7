// Whether two runs differ by more than chance: paired randomisation test, bootstrap interval, and
// the queries that were lost and gained. Deterministic: the same values and seed give the same
// figures on every machine.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/evaluate/evaluation.h"

namespace terse {

// Random numbers that are the same everywhere, which those of <random>'s distributions are not.
// Source: Steele, Lea and Flood, OOPSLA 2014 (SplitMix64).
class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t mixed = state_ += 0x9e3779b97f4a7c15ULL;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebULL;
    return mixed ^ mixed >> 31;
  }

  // A number below `limit`, by the upper half of a product: its bias is below limit / 2^32.
  std::size_t below(std::uint32_t limit) {
    return static_cast<std::size_t>((next() >> 32) * limit >> 32);
  }

 private:
  std::uint64_t state_;
};

struct SignificanceOptions {
  std::uint64_t seed = 1;
  std::size_t permutations = 100'000;
  std::size_t resamples = 10'000;
  double confidence = 0.95;
};

struct Interval {
  double low = 0;
  double high = 0;
};

namespace detail {

// All sign changes, each from the one before it by a single change (Gray code). Returns how many of
// the 2^n sums are at least `observed` in size.
inline std::uint64_t count_all_signs(std::vector<double> terms, double observed) {
  double sum = 0;
  for (const double term : terms) sum += term;
  std::uint64_t extreme = 0;
  const std::uint64_t total = std::uint64_t{1} << terms.size();
  for (std::uint64_t i = 1; i <= total; ++i) {
    if (std::abs(sum) >= observed) ++extreme;
    if (i == total) break;
    double& term = terms[static_cast<std::size_t>(std::countr_zero(i))];
    sum -= 2 * term;
    term = -term;
  }
  return extreme;
}

inline double sum_with_random_signs(std::span<const double> terms, SplitMix64& random) {
  double sum = 0;
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    if (i % 64 == 0) bits = random.next();
    sum += (bits & 1) != 0 ? terms[i] : -terms[i];
    bits >>= 1;
  }
  return sum;
}

}  // namespace detail

// Two-sided p-value of Fisher's paired randomisation test: how often a mean difference at least as
// large arises when each query's two values are swapped by chance. Exact over all 2^n swaps if at
// most 20 differences are not 0, else (extreme + 1) / (permutations + 1) by sampling.
// Source: Smucker, Allan and Carterette, CIKM 2007.
inline double randomisation_p_value(std::span<const double> differences,
                                    const SignificanceOptions& options = {}) {
  constexpr std::size_t kMaxExact = 20;
  std::vector<double> terms;
  double sum = 0;
  double size = 0;
  for (const double difference : differences) {
    if (difference == 0) continue;  // swapping it changes nothing
    terms.push_back(difference);
    sum += difference;
    size += std::abs(difference);
  }
  // Sums that are equal on paper differ by rounding; such a tie counts as extreme.
  const double observed = std::abs(sum) - 1e-12 * size;
  if (terms.size() <= kMaxExact) {
    const double total = std::exp2(static_cast<double>(terms.size()));
    return static_cast<double>(detail::count_all_signs(terms, observed)) / total;
  }
  SplitMix64 random(options.seed);
  std::size_t extreme = 0;
  for (std::size_t i = 0; i < options.permutations; ++i) {
    if (std::abs(detail::sum_with_random_signs(terms, random)) >= observed) ++extreme;
  }
  return static_cast<double>(extreme + 1) / static_cast<double>(options.permutations + 1);
}

// Percentile bootstrap interval of the mean of values: the values are drawn anew with replacement,
// and the middle `confidence` of the means is kept. Throws Error(range) without values, or with
// 2^32 of them. Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
inline Interval bootstrap_interval(std::span<const double> values,
                                   const SignificanceOptions& options = {}) {
  check(!values.empty() && values.size() <= UINT32_MAX && options.resamples > 0, ErrorClass::range,
        "a bootstrap of ", values.size(), " values, ", options.resamples, " times");
  SplitMix64 random(options.seed);
  const auto limit = static_cast<std::uint32_t>(values.size());
  std::vector<double> means(options.resamples);
  for (double& mean : means) {
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) sum += values[random.below(limit)];
    mean = sum / static_cast<double>(values.size());
  }
  std::sort(means.begin(), means.end());
  const double tail = (1 - options.confidence) / 2 * static_cast<double>(means.size() - 1);
  const auto low = static_cast<std::size_t>(tail);
  return {means[low], means[means.size() - 1 - low]};
}

struct QueryDifference {
  std::string query;
  double value = 0;
  double other = 0;
};

// One metric of a run beside that of another one, over the queries that both evaluations have.
struct Comparison {
  std::string metric;
  std::size_t queries = 0;
  double mean = 0;
  double other_mean = 0;
  double p_value = 1;
  Interval difference;                  // of the mean difference, this run minus the other
  std::vector<QueryDifference> gained;  // better than in the other, the largest difference first
  std::vector<QueryDifference> lost;    // worse, the largest difference first
};

namespace detail {

inline Comparison compare_values(std::string metric, std::vector<QueryDifference>& values,
                                 const SignificanceOptions& options) {
  Comparison comparison;
  comparison.metric = std::move(metric);
  comparison.queries = values.size();
  std::vector<double> differences;
  for (const QueryDifference& query : values) {
    comparison.mean += query.value / static_cast<double>(values.size());
    comparison.other_mean += query.other / static_cast<double>(values.size());
    differences.push_back(query.value - query.other);
    if (query.value > query.other) comparison.gained.push_back(query);
    if (query.value < query.other) comparison.lost.push_back(query);
  }
  comparison.p_value = randomisation_p_value(differences, options);
  comparison.difference = bootstrap_interval(differences, options);
  const auto larger = [](const QueryDifference& a, const QueryDifference& b) {
    return std::abs(a.value - a.other) > std::abs(b.value - b.other);
  };
  std::stable_sort(comparison.gained.begin(), comparison.gained.end(), larger);
  std::stable_sort(comparison.lost.begin(), comparison.lost.end(), larger);
  return comparison;
}

}  // namespace detail

// Every metric of a run against the same metric of another run, both evaluated with the same
// metrics. Throws Error(missing) if they have no query in common.
inline std::vector<Comparison> compare(const Evaluation& evaluation, const Evaluation& other,
                                       const SignificanceOptions& options = {}) {
  std::unordered_map<std::string_view, const QueryEvaluation*> others;
  for (const QueryEvaluation& query : other.queries) others.emplace(query.query, &query);
  std::vector<Comparison> comparisons;
  for (std::size_t metric = 0; metric < evaluation.metrics.size(); ++metric) {
    std::vector<QueryDifference> values;
    for (const QueryEvaluation& query : evaluation.queries) {
      const auto at = others.find(query.query);
      if (at == others.end()) continue;
      values.push_back({query.query, query.values[metric], at->second->values[metric]});
    }
    check(!values.empty(), ErrorClass::missing, "the two runs have no judged query in common");
    comparisons.push_back(detail::compare_values(evaluation.metrics[metric].name, values, options));
  }
  return comparisons;
}

}  // namespace terse
