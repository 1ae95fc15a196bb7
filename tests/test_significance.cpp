#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "support.h"
#include "terse/evaluate/significance.h"

using namespace terse;

TEST_CASE("the randomisation test is exact for few differences") {
  // All 8 sign changes of {1, 2, 3}: sums 6 4 2 0 0 -2 -4 -6; two are as large as 6.
  CHECK(randomisation_p_value(std::vector<double>{1, 2, 3}) == 2 / 8.0);
  // Observed sum 2: |sum| >= 2 in 6 of 8.
  CHECK(randomisation_p_value(std::vector<double>{1, -2, 3}) == 6 / 8.0);
  // Differences of 0 change nothing.
  CHECK(randomisation_p_value(std::vector<double>{0, 1, 0, 2, 3, 0}) == 2 / 8.0);
  CHECK(randomisation_p_value(std::vector<double>{0, 0}) == 1);
  CHECK(randomisation_p_value(std::vector<double>{}) == 1);
  // 0.1 + 0.2 and 0.3 are equal on paper: {0.1, 0.2, -0.3} sums to 0.
  CHECK(randomisation_p_value(std::vector<double>{0.1, 0.2, -0.3}) == 1);
}

TEST_CASE("sampling comes close to the exact value") {
  // 24 equal differences, 17 up and 7 down: P(|ups - downs| >= 10) of a fair coin.
  std::vector<double> differences(24, 0.5);
  for (std::size_t i = 0; i < 7; ++i) differences[i] = -0.5;
  double exact = 0;
  for (int ups = 0; ups <= 24; ++ups) {
    if (std::abs(2 * ups - 24) < 10) continue;
    exact += std::exp(std::lgamma(25.0) - std::lgamma(ups + 1.0) - std::lgamma(25.0 - ups) -
                      24 * std::log(2.0));
  }
  const double p = randomisation_p_value(differences, {.seed = 3});
  // Four standard errors of 100,000 draws.
  CHECK(std::abs(p - exact) < 4 * std::sqrt(exact * (1 - exact) / 100000));
  CHECK(p == randomisation_p_value(differences, {.seed = 3}));
  CHECK(p != randomisation_p_value(differences, {.seed = 4}));
}

TEST_CASE("random numbers are those of the published generator") {
  SplitMix64 random(1234567);
  CHECK(random.next() == 6457827717110365317ULL);
  CHECK(random.next() == 3203168211198807973ULL);
  for (int i = 0; i < 1000; ++i) CHECK(random.below(3) < 3);
}

TEST_CASE("the bootstrap interval") {
  const Interval constant = bootstrap_interval(std::vector<double>(10, 0.25));
  CHECK(constant.low == 0.25);
  CHECK(constant.high == 0.25);
  std::vector<double> values;
  for (int i = 0; i < 400; ++i) values.push_back(i % 2);
  // The mean's standard deviation is 0.5 / sqrt(400) = 0.025: about 0.5 +- 1.96 * 0.025.
  const Interval interval = bootstrap_interval(values);
  CHECK(interval.low == doctest::Approx(0.451).epsilon(0.01));
  CHECK(interval.high == doctest::Approx(0.549).epsilon(0.01));
  const Interval narrower = bootstrap_interval(values, {.confidence = 0.5});
  CHECK(narrower.low > interval.low);
  CHECK(narrower.high < interval.high);
  CHECK(terse_test::error_class_of([] { bootstrap_interval({}); }) == "range");
}

TEST_CASE("two evaluations compared") {
  const std::vector<Metric> metrics = {parse_metric("mrr")};
  const Evaluation a{metrics, {{"1", {1.0}, {0}}, {"2", {0.5}, {0}}, {"3", {0.25}, {0}}}, {}, 0, 0};
  const Evaluation b{metrics, {{"2", {0.5}, {0}}, {"3", {1.0}, {0}}, {"1", {0.5}, {0}}}, {}, 0, 0};
  const Comparison comparison = compare(a, b)[0];
  CHECK(comparison.metric == "mrr");
  CHECK(comparison.queries == 3);
  CHECK(comparison.mean == doctest::Approx(1.75 / 3));
  CHECK(comparison.other_mean == doctest::Approx(2.0 / 3));
  REQUIRE(comparison.gained.size() == 1);
  CHECK(comparison.gained[0].query == "1");
  REQUIRE(comparison.lost.size() == 1);
  CHECK(comparison.lost[0].query == "3");
  // Differences 0.5, 0, -0.75: 4 sign changes, all sums at least 0.25 in size.
  CHECK(comparison.p_value == 1);
  CHECK(comparison.difference.low <= comparison.mean - comparison.other_mean);
  const Evaluation empty{metrics, {}, {}, 0, 0};
  CHECK(terse_test::error_class_of([&] { compare(a, empty); }) == "missing");
}
