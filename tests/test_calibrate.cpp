#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support.h"
#include "terse/evaluate/calibrate.h"

using namespace terse;
using terse_test::error_class_of;

TEST_CASE("the sigmoid does not overflow") {
  const Sigmoid sigmoid;
  CHECK(sigmoid(0) == 0.5);
  CHECK(sigmoid(1000) == 1);
  CHECK(sigmoid(-1000) == 0);
  CHECK(sigmoid(2) == doctest::Approx(1 / (1 + std::exp(-2.0))));
}

TEST_CASE("the fit is where the gradient vanishes") {
  const std::vector<LabelledScore> examples = {{3, true}, {2.5, true}, {1, true},   {0.5, false},
                                               {0, true}, {-1, false}, {-2, false}, {-4, false}};
  const Sigmoid sigmoid = fit_sigmoid(examples);
  CHECK(sigmoid.slope > 0);
  double d_slope = 0;
  double d_intercept = 0;
  for (const LabelledScore& example : examples) {
    const double target = example.relevant ? 5 / 6.0 : 1 / 6.0;  // four of each kind
    const double error = sigmoid(example.score) - target;
    d_slope += error * example.score;
    d_intercept += error;
  }
  CHECK(std::abs(d_slope) < 1e-8);
  CHECK(std::abs(d_intercept) < 1e-8);
}

TEST_CASE("two scores have a fit in closed form") {
  // Separable: the fit passes through the soft targets, logit +-log(3) for two of each kind.
  const std::vector<LabelledScore> examples = {{2, true}, {2, true}, {-2, false}, {-2, false}};
  const Sigmoid sigmoid = fit_sigmoid(examples);
  CHECK(sigmoid.slope == doctest::Approx(std::log(3.0) / 2));
  CHECK(sigmoid.intercept == doctest::Approx(0).scale(1));
  CHECK(sigmoid(2) == doctest::Approx(0.75));
}

TEST_CASE("the threshold of greatest F1") {
  const std::vector<LabelledScore> examples = {{5, true}, {4, true},  {3, false},
                                               {2, true}, {1, false}, {0, false}};
  const Threshold best = best_threshold(examples);
  // Accepting 4: precision 3 / 4, recall 1, F1 6 / 7; accepting 2: F1 4 / 5.
  CHECK(best.threshold == 1.5);
  CHECK(best.precision == 0.75);
  CHECK(best.recall == 1);
  CHECK(best.f1 == doctest::Approx(6 / 7.0));
  // Equal scores are accepted together.
  const std::vector<LabelledScore> tied = {{1, true}, {1, false}, {1, false}, {0, false}};
  CHECK(best_threshold(tied).precision == doctest::Approx(1 / 3.0));
  CHECK(best_threshold(tied).threshold == 0.5);
  // No number lies between these two.
  const double above = std::nextafter(1.0, 2.0);
  const std::vector<LabelledScore> close = {{above, true}, {1, false}};
  CHECK(best_threshold(close).threshold == above);
}

TEST_CASE("bins of a reliability diagram") {
  const std::vector<LabelledScore> examples = {{-30, false}, {0.0, true}, {0.0, false}, {30, true}};
  const auto bins = reliability_bins(examples, Sigmoid{}, 4);
  REQUIRE(bins.size() == 4);
  CHECK(bins[0].count == 1);
  CHECK(bins[1].count == 0);
  CHECK(bins[2].count == 2);
  CHECK(bins[2].low == 0.5);
  CHECK(bins[2].high == 0.75);
  CHECK(bins[2].predicted == 0.5);
  CHECK(bins[2].observed == 0.5);
  CHECK(bins[3].count == 1);
  CHECK(bins[3].observed == 1);
}

TEST_CASE("a calibration of all parts") {
  const std::vector<LabelledScore> examples = {{2, true}, {2, true}, {-2, false}, {-2, false}};
  const Calibration calibration = calibrate(examples, 10);
  CHECK(calibration.count == 4);
  CHECK(calibration.relevant == 2);
  CHECK(calibration.best.f1 == 1);
  CHECK(calibration.calibration_error == doctest::Approx(0.25));
  CHECK(calibration.brier_score == doctest::Approx(0.0625));
}

TEST_CASE("examples that cannot be fitted are refused") {
  CHECK(error_class_of([] { calibrate({}); }) == "missing");
  const std::vector<LabelledScore> one_kind = {{1, true}, {2, true}};
  CHECK(error_class_of([&] { calibrate(one_kind); }) == "missing");
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<LabelledScore> infinite = {{1, true}, {infinity, false}};
  CHECK(error_class_of([&] { calibrate(infinite); }) == "nonfinite");
}
