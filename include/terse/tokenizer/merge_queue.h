// The pending merges of a BPE word: lowest rank first, leftmost among equals.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

namespace terse {

// A priority queue of (rank, position). A binary heap of millions of entries misses the cache at
// every level, and a book without spaces is one word; but merges of one rank are mostly proposed
// from left to right. So once there are many entries, each rank gets a lane of its own, first in
// first out, and only what comes out of order goes to the heap. O(log n) for each entry at worst.
class MergeQueue {
 public:
  struct Entry {
    std::uint32_t rank;
    std::uint32_t position;
  };

  // Ranks are below num_ranks.
  explicit MergeQueue(std::size_t num_ranks) : num_ranks_(num_ranks) {}

  void push(Entry entry) {
    if (has_lanes_) {
      push_to_lane(entry);
      return;
    }
    push_to_heap(entry);
    if (heap_.size() > kMaxHeap) open_lanes();
  }

  // Removes the first entry; returns false if there is none.
  bool pop(Entry* entry) {
    const std::uint64_t in_heap = heap_.empty() ? kNothing : heap_.front();
    const std::uint64_t in_lanes = first_in_lanes();
    const std::uint64_t key = std::min(in_heap, in_lanes);
    if (key == kNothing) {
      has_lanes_ = false;
      return false;
    }
    *entry = {static_cast<std::uint32_t>(key >> 32), static_cast<std::uint32_t>(key)};
    if (in_heap <= in_lanes) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      heap_.pop_back();
    } else {
      pop_from_lane(entry->rank);
    }
    return true;
  }

 private:
  // As many entries as are sorted out in the time that the table of lanes takes.
  static constexpr std::size_t kMaxHeap = std::size_t{1} << 15;
  static constexpr std::uint64_t kNothing = std::numeric_limits<std::uint64_t>::max();
  static constexpr std::uint32_t kNoLane = std::numeric_limits<std::uint32_t>::max();

  struct Lane {
    std::vector<std::uint32_t> positions;  // ascending
    std::size_t first = 0;                 // those before it are gone
  };

  // Keys order as (rank, position) does.
  static std::uint64_t key_of(Entry entry) {
    return std::uint64_t{entry.rank} << 32 | entry.position;
  }

  void push_to_heap(Entry entry) {
    heap_.push_back(key_of(entry));
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  void open_lanes() {
    lane_of_rank_.resize(num_ranks_, kNoLane);
    has_lanes_ = true;
    std::vector<std::uint64_t> keys;
    keys.swap(heap_);
    std::sort(keys.begin(), keys.end());
    for (const std::uint64_t key : keys) {
      push_to_lane({static_cast<std::uint32_t>(key >> 32), static_cast<std::uint32_t>(key)});
    }
  }

  void push_to_lane(Entry entry) {
    std::uint32_t& index = lane_of_rank_[entry.rank];
    if (index == kNoLane) {
      index = static_cast<std::uint32_t>(lanes_.size());
      lanes_.emplace_back();
    }
    std::vector<std::uint32_t>& positions = lanes_[index].positions;
    if (positions.empty()) {
      busy_ranks_.push_back(entry.rank);
      std::push_heap(busy_ranks_.begin(), busy_ranks_.end(), std::greater<>());
    } else if (entry.position < positions.back()) {
      push_to_heap(entry);
      return;
    }
    positions.push_back(entry.position);
  }

  std::uint64_t first_in_lanes() const {
    if (busy_ranks_.empty()) return kNothing;
    const Lane& lane = lanes_[lane_of_rank_[busy_ranks_.front()]];
    return key_of({busy_ranks_.front(), lane.positions[lane.first]});
  }

  // rank is the lowest busy one.
  void pop_from_lane(std::uint32_t rank) {
    Lane& lane = lanes_[lane_of_rank_[rank]];
    if (++lane.first < lane.positions.size()) return;
    lane = {};
    std::pop_heap(busy_ranks_.begin(), busy_ranks_.end(), std::greater<>());
    busy_ranks_.pop_back();
  }

  std::size_t num_ranks_;
  bool has_lanes_ = false;
  std::vector<std::uint64_t> heap_;          // of keys, smallest first
  std::vector<Lane> lanes_;                  // of the ranks met so far
  std::vector<std::uint32_t> lane_of_rank_;  // (ranks) kNoLane for those not met
  std::vector<std::uint32_t> busy_ranks_;    // a heap of those whose lane holds something
};

}  // namespace terse
