// The workloads that speed is measured on: pairs whose lengths in tokens follow a stated
// distribution, the same text for the same tokenizer every time.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "terse/error.h"
#include "terse/rerank.h"

namespace terse_tools {

// W1 1 query x 100 passages, lengths of pairs log-normal (median 130, sigma 0.6), at most 512
// W2 1 query x 32 passages, all pairs 512 tokens        W3 one pair of 128 tokens
// W4 1 query x 1000 passages, lengths as W1             W5 1 query x 8 passages, 2k..8k tokens
struct WorkloadShape {
  std::string_view name;
  std::size_t passages;
};
inline constexpr WorkloadShape kWorkloads[] = {
    {"W1", 100}, {"W2", 32}, {"W3", 1}, {"W4", 1000}, {"W5", 8}};

// The value below which a share `p` of a normal distribution lies, by bisection.
inline double normal_quantile(double p) {
  double low = -8;
  double high = 8;
  for (int step = 0; step < 60; ++step) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
  }
  return low;
}

// Lengths of pairs in tokens: quantiles of the distribution, so that any number has its shape, in
// an order that is none of theirs. Throws Error(range) for a name that is no workload's.
inline std::vector<std::int64_t> workload_lengths(std::string_view name) {
  const auto* shape =
      std::find_if(std::begin(kWorkloads), std::end(kWorkloads),
                   [&](const WorkloadShape& candidate) { return candidate.name == name; });
  terse::check(shape != std::end(kWorkloads), terse::ErrorClass::range, "workload ",
               terse::quote(name), ", expected W1 to W5 or a file");
  std::vector<std::int64_t> lengths;
  for (std::size_t i = 0; i < shape->passages; ++i) {
    // A multiplier without common factors visits every place once.
    const std::size_t place = i * 37 % shape->passages;
    const double p = (static_cast<double>(place) + 0.5) / static_cast<double>(shape->passages);
    double length = name == "W3" ? 128 : 512;
    if (name == "W1" || name == "W4") {
      length = std::clamp(130 * std::exp(0.6 * normal_quantile(p)), 20.0, 512.0);
    }
    if (name == "W5") length = 2048 * std::pow(4.0, p);
    lengths.push_back(std::llround(length));
  }
  return lengths;
}

// Texts of common English words, word by word from a fixed sequence.
class WordSource {
 public:
  explicit WordSource(std::uint64_t seed) : state_(seed) {}

  std::string text(std::size_t words) {
    std::string text;
    for (std::size_t i = 0; i < words; ++i) text += (i == 0 ? "" : " ") + std::string(next());
    return text;
  }

 private:
  std::string_view next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;  // Knuth's MMIX generator
    return kWords[static_cast<std::size_t>(state_ >> 33) % kWords.size()];
  }

  static constexpr std::array<std::string_view, 64> kWords = {
      "the",      "of",       "and",      "water",   "in",      "history", "a",       "is",
      "river",    "for",      "with",     "species", "on",      "as",      "by",      "from",
      "that",     "was",      "large",    "city",    "century", "it",      "at",      "which",
      "language", "people",   "or",       "an",      "were",    "also",    "north",   "be",
      "this",     "research", "system",   "are",     "has",     "energy",  "its",     "new",
      "have",     "between",  "first",    "cells",   "used",    "world",   "their",   "music",
      "other",    "group",    "computer", "more",    "east",    "state",   "science", "after",
      "when",     "early",    "number",   "house",   "than",    "theory",  "market",  "been"};

  std::uint64_t state_;
};

// Pairs of one query of a dozen words whose rows have about these lengths: as many words as fit.
// row_tokens(query, passage) is the length of a row in the model's own layout, uncut.
inline std::vector<terse::Pair> make_workload(
    const std::vector<std::int64_t>& lengths,
    const std::function<std::int64_t(const std::string&, const std::string&)>& row_tokens) {
  const std::string query = WordSource(1).text(10);
  std::vector<terse::Pair> pairs;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const auto tokens = [&](std::size_t words) {
      return row_tokens(query, WordSource(2 + i).text(words));
    };
    // A word has at least one token, so no more words than tokens fit.
    std::size_t low = 0;
    auto high = static_cast<std::size_t>(lengths[i]);
    while (low < high) {
      const std::size_t middle = (low + high + 1) / 2;
      if (tokens(middle) <= lengths[i]) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    pairs.push_back({query, WordSource(2 + i).text(low)});
  }
  return pairs;
}

}  // namespace terse_tools
