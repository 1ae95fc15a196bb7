// How far two ways of scoring the same documents agree on their order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "terse/error.h"

namespace terse {

// Indices of scores, best first; equal scores keep their order.
inline std::vector<std::size_t> score_order(std::span<const float> scores) {
  std::vector<std::size_t> order(scores.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  return order;
}

namespace detail {

// Pairs (i, j) of a run of equal values are n (n - 1) / 2; summed over the runs of a sorted range.
template <class Equal>
std::uint64_t tied_pairs(std::size_t count, Equal&& equal) {
  std::uint64_t pairs = 0;
  for (std::size_t begin = 0, end = 0; begin < count; begin = end) {
    while (end < count && equal(begin, end)) ++end;
    pairs += std::uint64_t{end - begin} * (end - begin - 1) / 2;
  }
  return pairs;
}

// Sorts values and returns how many pairs stood in falling order: merge sort, bottom up.
inline std::uint64_t sort_counting_inversions(std::vector<float>& values) {
  std::vector<float> merged(values.size());
  std::uint64_t inversions = 0;
  for (std::size_t width = 1; width < values.size(); width *= 2) {
    for (std::size_t begin = 0; begin < values.size(); begin += 2 * width) {
      const std::size_t middle = std::min(begin + width, values.size());
      const std::size_t end = std::min(begin + 2 * width, values.size());
      std::size_t left = begin;
      std::size_t right = middle;
      for (std::size_t out = begin; out < end; ++out) {
        const bool take_right = right < end && (left == middle || values[right] < values[left]);
        if (take_right) inversions += middle - left;
        merged[out] = values[take_right ? right++ : left++];
      }
    }
    values.swap(merged);
  }
  return inversions;
}

}  // namespace detail

// Kendall's tau-b of two lists of scores for the same documents, in O(n log n):
//   (concordant - discordant) / sqrt((pairs - ties in a) (pairs - ties in b))
// NaN if either list has no two different scores. Throws Error(range) if their sizes differ.
// Source: Kendall 1945, Biometrika 33; the algorithm: Knight 1966, JASA 61.
inline double kendall_tau(std::span<const float> a, std::span<const float> b) {
  check(a.size() == b.size(), ErrorClass::range, "Kendall's tau of ", a.size(), " and ", b.size(),
        " scores");
  const std::size_t count = a.size();
  std::vector<std::size_t> order(count);
  for (std::size_t i = 0; i < count; ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](std::size_t i, std::size_t j) { return a[i] != a[j] ? a[i] < a[j] : b[i] < b[j]; });
  const auto same_a = [&](std::size_t i, std::size_t j) { return a[order[i]] == a[order[j]]; };
  const std::uint64_t ties_a = detail::tied_pairs(count, same_a);
  const std::uint64_t ties_both = detail::tied_pairs(count, [&](std::size_t i, std::size_t j) {
    return same_a(i, j) && b[order[i]] == b[order[j]];
  });
  std::vector<float> sorted_b(count);
  for (std::size_t i = 0; i < count; ++i) sorted_b[i] = b[order[i]];
  const std::uint64_t discordant = detail::sort_counting_inversions(sorted_b);
  const std::uint64_t ties_b = detail::tied_pairs(
      count, [&](std::size_t i, std::size_t j) { return sorted_b[i] == sorted_b[j]; });
  const std::uint64_t pairs = count < 2 ? 0 : std::uint64_t{count} * (count - 1) / 2;
  if (pairs == ties_a || pairs == ties_b) return std::numeric_limits<double>::quiet_NaN();
  const double ordered = static_cast<double>(pairs + ties_both - ties_a - ties_b);
  return (ordered - 2 * static_cast<double>(discordant)) /
         std::sqrt(static_cast<double>(pairs - ties_a) * static_cast<double>(pairs - ties_b));
}

// Share of the best k documents by a (all, if there are fewer) that are among the best k by b; 1
// without documents. Throws Error(range) if the sizes differ.
inline double top_overlap(std::span<const float> a, std::span<const float> b, std::size_t k) {
  check(a.size() == b.size(), ErrorClass::range, "overlap of ", a.size(), " and ", b.size(),
        " scores");
  const std::size_t kept = std::min(k, a.size());
  if (kept == 0) return 1;
  const std::vector<std::size_t> order_a = score_order(a);
  const std::vector<std::size_t> order_b = score_order(b);
  std::vector<char> in_a(a.size(), 0);
  for (std::size_t rank = 0; rank < kept; ++rank) in_a[order_a[rank]] = 1;
  std::size_t common = 0;
  for (std::size_t rank = 0; rank < kept; ++rank) common += in_a[order_b[rank]] != 0 ? 1U : 0U;
  return static_cast<double>(common) / static_cast<double>(kept);
}

}  // namespace terse
