// Which settings no other setting beats.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace terse {

struct Tradeoff {
  double cost = 0;     // less is better
  double quality = 0;  // more is better
};

// Indices of the points for which no other point costs no more and is better, or costs less and is
// as good; by rising cost. Of equal points the first counts.
inline std::vector<std::size_t> pareto_front(std::span<const Tradeoff> points) {
  std::vector<std::size_t> order(points.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) {
    if (points[i].cost != points[j].cost) return points[i].cost < points[j].cost;
    return points[i].quality > points[j].quality;
  });
  std::vector<std::size_t> front;
  for (const std::size_t i : order) {
    if (front.empty() || points[i].quality > points[front.back()].quality) front.push_back(i);
  }
  return front;
}

}  // namespace terse
