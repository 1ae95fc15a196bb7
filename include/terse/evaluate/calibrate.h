// What scores mean: a sigmoid that turns them into probabilities, the threshold that separates
// relevant from not relevant best, and how far the probabilities can be trusted.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "terse/error.h"

namespace terse {

struct LabelledScore {
  double score = 0;
  bool relevant = false;
};

// probability = 1 / (1 + exp(-(slope * score + intercept)))
struct Sigmoid {
  double slope = 1;
  double intercept = 0;

  double operator()(double score) const {
    const double logit = slope * score + intercept;
    return logit >= 0 ? 1 / (1 + std::exp(-logit)) : std::exp(logit) / (1 + std::exp(logit));
  }
};

// Relevant is what scores at least `threshold`.
struct Threshold {
  double threshold = 0;
  double precision = 0;
  double recall = 0;
  double f1 = 0;
};

// A bar of a reliability diagram: the examples whose probability is in [low, high), the last bar
// including its upper end.
struct ReliabilityBin {
  double low = 0;
  double high = 0;
  std::size_t count = 0;
  double predicted = 0;  // mean probability; 0 without examples
  double observed = 0;   // share of relevant ones; 0 without examples
};

struct Calibration {
  std::size_t count = 0;
  std::size_t relevant = 0;
  Sigmoid sigmoid;
  Threshold best;
  std::vector<ReliabilityBin> bins;
  double calibration_error = 0;  // expected: mean of |predicted - observed|, weighted by count
  double brier_score = 0;        // mean of (probability - label)^2
};

namespace detail {

inline std::size_t count_relevant(std::span<const LabelledScore> examples) {
  return static_cast<std::size_t>(std::count_if(examples.begin(), examples.end(),
                                                [](const LabelledScore& e) { return e.relevant; }));
}

inline void check_examples(std::span<const LabelledScore> examples) {
  const std::size_t relevant = count_relevant(examples);
  check(relevant > 0 && relevant < examples.size(), ErrorClass::missing,
        "calibration needs relevant and other examples, got ", relevant, " relevant of ",
        examples.size());
  for (const LabelledScore& example : examples) {
    check(std::isfinite(example.score), ErrorClass::nonfinite, "a score is not finite");
  }
}

// Negative log likelihood, its gradient and the upper triangle of its second derivatives.
struct SigmoidLoss {
  double value = 0;
  double d_slope = 0;
  double d_intercept = 0;
  double d_slope_slope = 0;
  double d_slope_intercept = 0;
  double d_intercept_intercept = 0;
};

// target: what a relevant and another example should get.
inline SigmoidLoss sigmoid_loss(std::span<const LabelledScore> examples, const Sigmoid& sigmoid,
                                double target_relevant, double target_other) {
  SigmoidLoss loss;
  for (const LabelledScore& example : examples) {
    const double target = example.relevant ? target_relevant : target_other;
    const double logit = sigmoid.slope * example.score + sigmoid.intercept;
    // log(1 + exp(logit)) - target * logit, without overflow
    loss.value += std::max(logit, 0.0) + std::log1p(std::exp(-std::abs(logit))) - target * logit;
    const double p = sigmoid(example.score);
    loss.d_slope += example.score * (p - target);
    loss.d_intercept += p - target;
    loss.d_slope_slope += example.score * example.score * p * (1 - p);
    loss.d_slope_intercept += example.score * p * (1 - p);
    loss.d_intercept_intercept += p * (1 - p);
  }
  return loss;
}

}  // namespace detail

namespace detail {

// Labels softened so that separable examples, too, have a fit of finite slope.
struct SoftTargets {
  double relevant = 0;
  double other = 0;
};

// One step of Newton's method, halved until the loss falls enough; false if rounding allows no
// further descent.
inline bool newton_step(std::span<const LabelledScore> examples, const SoftTargets& targets,
                        Sigmoid& sigmoid, SigmoidLoss& loss) {
  constexpr double kRidge = 1e-12;  // keeps the second derivatives invertible
  constexpr double kShortest = 1e-10;
  const double a = loss.d_slope_slope + kRidge;
  const double b = loss.d_slope_intercept;
  const double c = loss.d_intercept_intercept + kRidge;
  const double determinant = a * c - b * b;
  const double d_slope = -(c * loss.d_slope - b * loss.d_intercept) / determinant;
  const double d_intercept = -(a * loss.d_intercept - b * loss.d_slope) / determinant;
  const double descent = loss.d_slope * d_slope + loss.d_intercept * d_intercept;
  for (double length = 1; length > kShortest; length /= 2) {
    const Sigmoid next{sigmoid.slope + length * d_slope, sigmoid.intercept + length * d_intercept};
    const SigmoidLoss next_loss = sigmoid_loss(examples, next, targets.relevant, targets.other);
    if (!(next_loss.value <= loss.value + 1e-4 * length * descent)) continue;
    sigmoid = next;
    loss = next_loss;
    return true;
  }
  return false;
}

}  // namespace detail

// Platt's fit: the slope and intercept of greatest likelihood, labels softened to
// (relevant + 1) / (relevant + 2) and 1 / (others + 2). Throws Error: missing (examples of one kind
// only), nonfinite. Source: Platt 1999; Lin, Lin and Weng, Machine Learning 68, 2007.
inline Sigmoid fit_sigmoid(std::span<const LabelledScore> examples) {
  constexpr int kMaxSteps = 100;
  constexpr double kFlat = 1e-9;
  detail::check_examples(examples);
  const auto relevant = static_cast<double>(detail::count_relevant(examples));
  const auto others = static_cast<double>(examples.size()) - relevant;
  const detail::SoftTargets targets{(relevant + 1) / (relevant + 2), 1 / (others + 2)};
  Sigmoid sigmoid{0, std::log((relevant + 1) / (others + 1))};
  auto loss = detail::sigmoid_loss(examples, sigmoid, targets.relevant, targets.other);
  for (int step = 0; step < kMaxSteps; ++step) {
    const bool flat = std::abs(loss.d_slope) < kFlat && std::abs(loss.d_intercept) < kFlat;
    if (flat || !detail::newton_step(examples, targets, sigmoid, loss)) break;
  }
  return sigmoid;
}

// The threshold of greatest F1, the harmonic mean of precision and recall: half way between the
// lowest score that is accepted and the highest that is not; of equal ones the highest. Throws
// Error: missing (examples of one kind only), nonfinite.
inline Threshold best_threshold(std::span<const LabelledScore> examples) {
  detail::check_examples(examples);
  std::vector<LabelledScore> falling(examples.begin(), examples.end());
  std::sort(falling.begin(), falling.end(),
            [](const LabelledScore& a, const LabelledScore& b) { return a.score > b.score; });
  const auto relevant = static_cast<double>(detail::count_relevant(examples));
  Threshold best;
  double hits = 0;
  for (std::size_t i = 0; i < falling.size(); ++i) {
    hits += falling[i].relevant ? 1 : 0;
    const bool last = i + 1 == falling.size();
    if (!last && falling[i + 1].score == falling[i].score) continue;
    const double precision = hits / static_cast<double>(i + 1);
    const double recall = hits / relevant;
    const double f1 = hits > 0 ? 2 * precision * recall / (precision + recall) : 0;
    if (f1 <= best.f1) continue;
    const double accepted = falling[i].score;
    const double refused = last ? accepted : falling[i + 1].score;
    const double middle = accepted / 2 + refused / 2;
    best = {middle > refused ? middle : accepted, precision, recall, f1};
  }
  return best;
}

// Examples in bins of equal width over the probabilities 0 to 1. Throws Error(range) for no bin.
inline std::vector<ReliabilityBin> reliability_bins(std::span<const LabelledScore> examples,
                                                    const Sigmoid& sigmoid, std::size_t num_bins) {
  check(num_bins > 0, ErrorClass::range, "a reliability diagram of 0 bins");
  std::vector<ReliabilityBin> bins(num_bins);
  const auto width = 1 / static_cast<double>(num_bins);
  for (std::size_t i = 0; i < num_bins; ++i) {
    bins[i].low = static_cast<double>(i) * width;
    bins[i].high = static_cast<double>(i + 1) * width;
  }
  for (const LabelledScore& example : examples) {
    const double p = sigmoid(example.score);
    const auto at = static_cast<std::size_t>(p * static_cast<double>(num_bins));
    ReliabilityBin& bin = bins[std::min(at, num_bins - 1)];
    ++bin.count;
    bin.predicted += p;
    bin.observed += example.relevant ? 1 : 0;
  }
  for (ReliabilityBin& bin : bins) {
    if (bin.count == 0) continue;
    bin.predicted /= static_cast<double>(bin.count);
    bin.observed /= static_cast<double>(bin.count);
  }
  return bins;
}

// All of the above, for one set of examples. Throws what the parts throw.
// Source of the expected calibration error: Naeini, Cooper and Hauskrecht, AAAI 2015.
inline Calibration calibrate(std::span<const LabelledScore> examples, std::size_t num_bins = 10) {
  Calibration result;
  result.sigmoid = fit_sigmoid(examples);
  result.best = best_threshold(examples);
  result.bins = reliability_bins(examples, result.sigmoid, num_bins);
  result.count = examples.size();
  result.relevant = detail::count_relevant(examples);
  for (const ReliabilityBin& bin : result.bins) {
    const double share = static_cast<double>(bin.count) / static_cast<double>(result.count);
    result.calibration_error += share * std::abs(bin.predicted - bin.observed);
  }
  for (const LabelledScore& example : examples) {
    const double error = result.sigmoid(example.score) - (example.relevant ? 1 : 0);
    result.brier_score += error * error / static_cast<double>(result.count);
  }
  return result;
}

}  // namespace terse
