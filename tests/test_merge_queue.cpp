#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <queue>
#include <random>
#include <utility>
#include <vector>

#include "terse/tokenizer/merge_queue.h"

using terse::MergeQueue;

namespace {

using Pair = std::pair<std::uint32_t, std::uint32_t>;
using Reference = std::priority_queue<Pair, std::vector<Pair>, std::greater<>>;

// Pops one entry from both; false when both are empty.
bool pop_both(MergeQueue* queue, Reference* reference) {
  MergeQueue::Entry entry{};
  const bool popped = queue->pop(&entry);
  CHECK(popped == !reference->empty());
  if (!popped || reference->empty()) return false;
  const bool same = Pair(entry.rank, entry.position) == reference->top();
  reference->pop();
  if (!same) CHECK(same);
  return same;
}

// Pushes num_entries in the order of position, then pops and pushes in turn, then empties.
void check_against_heap(std::size_t num_entries, std::uint32_t num_ranks, std::uint32_t seed) {
  std::mt19937 random(seed);
  MergeQueue queue(num_ranks);
  Reference reference;
  const auto push = [&](std::uint32_t position) {
    const std::uint32_t rank = static_cast<std::uint32_t>(random()) % num_ranks;
    queue.push({rank, position});
    reference.emplace(rank, position);
  };
  for (int round = 0; round < 2; ++round) {  // an emptied queue starts anew
    for (std::uint32_t position = 0; position < num_entries; ++position) push(position);
    for (std::size_t step = 0; step < num_entries; ++step) {
      if (!pop_both(&queue, &reference)) return;
      if (step % 3 == 0) push(static_cast<std::uint32_t>(random()) % 100000);
    }
    while (pop_both(&queue, &reference)) {
    }
  }
}

}  // namespace

TEST_CASE("entries come out by rank, then by position") {
  MergeQueue queue(10);
  queue.push({3, 1});
  queue.push({2, 9});
  queue.push({2, 4});
  MergeQueue::Entry entry{};
  REQUIRE(queue.pop(&entry));
  CHECK(entry.rank == 2);
  CHECK(entry.position == 4);
  REQUIRE(queue.pop(&entry));
  CHECK(entry.position == 9);
  REQUIRE(queue.pop(&entry));
  CHECK(entry.rank == 3);
  CHECK(!queue.pop(&entry));
}

TEST_CASE("small and large queues agree with a heap") {
  check_against_heap(0, 1, 1);
  check_against_heap(100, 7, 2);
  check_against_heap(40000, 1, 3);        // past the size at which each rank gets a lane
  check_against_heap(100000, 50, 4);      // lanes and entries out of order
  check_against_heap(100000, 200000, 5);  // mostly one entry in a lane
}
