// Ranking by a layer-wise model that gives up candidates on the way: at each exit, those that
// cannot reach the best k any more. What "cannot" means is a stated bound: the interval in which
// final score minus score at the exit lay in a calibration (terse sweep --bounds).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "terse/error.h"
#include "terse/models/model.h"
#include "terse/view.h"

namespace terse {

// final score - score at an exit lies in [low, high].
struct DriftInterval {
  double low = 0;
  double high = 0;
};

// The interval that holds all but a share `risk` of the drifts, half of it on either side; risk 0:
// all of them, and on either side a margin that is a share of its width more. Throws Error(range):
// no drifts, a risk outside 0 to 1.
inline DriftInterval drift_interval(std::vector<double> drifts, double risk, double margin = 0.05) {
  check(!drifts.empty() && risk >= 0 && risk < 1, ErrorClass::range, "an interval of ",
        drifts.size(), " drifts at risk ", risk);
  std::sort(drifts.begin(), drifts.end());
  const auto skipped = static_cast<std::size_t>(risk / 2 * static_cast<double>(drifts.size()));
  const double low = drifts[skipped];
  const double high = drifts[drifts.size() - 1 - skipped];
  const double slack = risk > 0 ? 0 : margin * (high - low);
  return {low - slack, high + slack};
}

// Candidates that may still be among the best k in the end: all but those whose highest possible
// final score is below the k-th highest of the lowest possible ones. Scores are those of the
// candidates still in the race; indices into them, rising.
inline std::vector<std::size_t> cascade_survivors(std::span<const float> scores,
                                                  const DriftInterval& drift, std::size_t k) {
  std::vector<std::size_t> survivors;
  std::vector<float> sorted(scores.begin(), scores.end());
  if (k < sorted.size()) {
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(k - 1),
                     sorted.end(), std::greater<>());
  }
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const bool beaten = k < scores.size() && static_cast<double>(scores[i]) + drift.high <
                                                 static_cast<double>(sorted[k - 1]) + drift.low;
    if (!beaten) survivors.push_back(i);
  }
  return survivors;
}

// With bounds at risk 0 a candidate is dropped only if they prove that it is not among the best k;
// with those at a risk, also if the proof fails for that share of scores.
struct CascadeOptions {
  std::size_t top_k = 10;
  std::vector<std::int64_t> exits;    // rising; the last one gives the final scores
  std::vector<DriftInterval> drifts;  // (exits - 1): of each exit but the last

  // Throws Error(range).
  void validate() const {
    check(top_k >= 1, ErrorClass::range, "cascade: top_k 0, expected at least 1");
    check(!exits.empty() && std::is_sorted(exits.begin(), exits.end(), std::less_equal<>()),
          ErrorClass::range, "cascade: exits do not rise");
    check(drifts.size() + 1 == exits.size(), ErrorClass::range, "cascade: ", drifts.size(),
          " bounds for ", exits.size(), " exits, expected one for each but the last");
    for (const DriftInterval& drift : drifts) {
      check(std::isfinite(drift.low) && std::isfinite(drift.high) && drift.low <= drift.high,
            ErrorClass::range, "cascade: bound ", drift.low, " to ", drift.high);
    }
  }
};

// For each candidate at how many exits it is scored, 1 .. exits, if its scores at all of them are
// known: what a cascade would have done. scores (exits, candidates).
inline std::vector<std::size_t> replay_cascade(std::span<const std::vector<float>> scores,
                                               std::span<const DriftInterval> drifts,
                                               std::size_t top_k) {
  std::vector<std::size_t> reached(scores.front().size(), 1);
  std::vector<std::size_t> live(reached.size());
  for (std::size_t i = 0; i < live.size(); ++i) live[i] = i;
  for (std::size_t exit = 0; exit < drifts.size(); ++exit) {
    std::vector<float> now;
    for (const std::size_t i : live) now.push_back(scores[exit][i]);
    std::vector<std::size_t> kept;
    for (const std::size_t i : cascade_survivors(view(now), drifts[exit], top_k)) {
      kept.push_back(live[i]);
      ++reached[live[i]];
    }
    live = std::move(kept);
  }
  return reached;
}

// Rows times blocks that an input runs through up to an exit, compression counted.
inline std::uint64_t token_layers(const Input& input, const RunOptions& options,
                                  std::int64_t exit) {
  const std::int64_t around = input.query_length + input.prompt_length;
  auto passage = static_cast<std::int64_t>(input.token_ids.size()) - around;
  std::int64_t sum = 0;
  for (std::int64_t layer = 0; layer < exit; ++layer) {
    if (std::binary_search(options.compress_layers.begin(), options.compress_layers.end(), layer)) {
      passage = (passage + options.compress_ratio - 1) / options.compress_ratio;
    }
    sum += around + passage;
  }
  return static_cast<std::uint64_t>(sum);
}

}  // namespace terse
