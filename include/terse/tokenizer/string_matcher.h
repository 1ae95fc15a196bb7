// Finds a fixed set of strings in a text, leftmost first and longest at each place, in time linear
// in the text whatever the strings are.
//
// The usual forward automaton rescans after every match, so a text of letters `a` against the
// tokens `a` and `aaa...ab` costs their product. Here the automaton reads reversed patterns from
// the end of the text to its start: at each byte its state knows the longest pattern that *starts*
// there, and one pass forward over those picks the matches.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terse/checked.h"
#include "terse/error.h"

namespace terse {

class StringMatcher {
 public:
  struct Match {
    std::uint32_t begin = 0;    // byte offset in the text
    std::uint32_t pattern = 0;  // index of the pattern; of equal patterns the first
  };

  StringMatcher() : StringMatcher(std::span<const std::string>{}) {}

  // Patterns must not be empty; time and memory are linear in their total length. Throws
  // Error(limit) if they have 2^31 bytes or more in all.
  // Source: Aho and Corasick 1975, "Efficient string matching", on reversed patterns.
  explicit StringMatcher(std::span<const std::string> patterns) {
    std::uint64_t total_bytes = 0;
    for (const std::string& pattern : patterns) {
      total_bytes = add_sizes(total_bytes, pattern.size(), "added tokens");
    }
    check(total_bytes < std::uint64_t{1} << 31, ErrorClass::limit, "added tokens have ",
          total_bytes, " bytes in all, expected less than 2^31");
    reserve_edges(total_bytes);
    states_.reserve(total_bytes + 1);
    states_.emplace_back();
    lengths_.reserve(patterns.size());
    for (const std::string& pattern : patterns) insert(pattern);
    link_failures();
  }

  // The non-overlapping matches in text, in order; text has less than 2^32 bytes.
  std::vector<Match> leftmost_longest(std::string_view text) const {
    std::vector<Match> longest = longest_at_each_start(text);
    std::vector<Match> matches;
    std::size_t position = 0;
    for (std::size_t i = longest.size(); i-- > 0;) {
      const Match& match = longest[i];
      if (match.begin < position) continue;
      matches.push_back(match);
      position = match.begin + lengths_[match.pattern];
    }
    return matches;
  }

  std::size_t length(const Match& match) const { return lengths_[match.pattern]; }

 private:
  static constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();
  static constexpr std::uint32_t kRoot = 0;

  struct State {
    std::uint32_t parent = kRoot;
    std::uint32_t failure = kRoot;
    std::uint32_t pattern = kNone;  // the longest pattern that starts where this state is reached
    std::uint32_t depth = 0;
    unsigned char byte = 0;  // on the edge from the parent
  };

  struct Edge {
    std::uint64_t key = 0;         // state and byte
    std::uint32_t target = kRoot;  // no edge leads to the root: it marks an empty slot
  };

  // For each place where a pattern starts, the longest one there; from the last place to the first.
  std::vector<Match> longest_at_each_start(std::string_view text) const {
    check(text.size() < kNone, ErrorClass::limit, "a text of ", text.size(),
          " bytes is too long to search for added tokens");
    std::vector<Match> found;
    std::uint32_t state = kRoot;
    for (std::size_t i = text.size(); i-- > 0;) {
      state = next_state(state, static_cast<unsigned char>(text[i]));
      const std::uint32_t pattern = states_[state].pattern;
      if (pattern != kNone) found.push_back({static_cast<std::uint32_t>(i), pattern});
    }
    return found;
  }

  std::uint32_t next_state(std::uint32_t state, unsigned char byte) const {
    while (state != kRoot) {
      const std::uint32_t target = find_edge(state, byte);
      if (target != kRoot) return target;
      state = states_[state].failure;
    }
    return from_root_[byte];
  }

  void insert(const std::string& pattern) {
    std::uint32_t state = kRoot;
    for (std::size_t i = pattern.size(); i-- > 0;) {
      const auto byte = static_cast<unsigned char>(pattern[i]);
      std::uint32_t target = state == kRoot ? from_root_[byte] : find_edge(state, byte);
      if (target == kRoot) {
        target = static_cast<std::uint32_t>(states_.size());
        states_.push_back({state, kRoot, kNone, states_[state].depth + 1, byte});
        add_edge(state, byte, target);
      }
      state = target;
    }
    const auto index = static_cast<std::uint32_t>(lengths_.size());
    if (states_[state].pattern == kNone) states_[state].pattern = index;
    lengths_.push_back(static_cast<std::uint32_t>(pattern.size()));
  }

  // A state's failure is the state of its longest proper suffix; shallower states come first.
  void link_failures() {
    for (const std::uint32_t state : states_by_depth()) {
      State& node = states_[state];
      if (node.depth > 1) node.failure = next_state(states_[node.parent].failure, node.byte);
      if (node.pattern == kNone) node.pattern = states_[node.failure].pattern;
    }
  }

  // All states but the root, by counting sort.
  std::vector<std::uint32_t> states_by_depth() const {
    std::vector<std::uint32_t> first;
    for (const State& state : states_) {
      if (state.depth >= first.size()) first.resize(state.depth + 1, 0);
      ++first[state.depth];
    }
    std::uint32_t sum = 0;
    first[0] = 0;
    for (std::uint32_t& count : first) {
      const std::uint32_t here = count;
      count = sum;
      sum += here;
    }
    std::vector<std::uint32_t> order(states_.size() - 1);
    for (std::uint32_t state = 1; state < states_.size(); ++state) {
      order[first[states_[state].depth]++] = state;
    }
    return order;
  }

  // Edges beyond the root's live in one open-addressing table, at most half full.
  void reserve_edges(std::uint64_t count) {
    std::size_t slots = 2;
    while (slots < 2 * count) slots *= 2;
    edges_.resize(slots);
  }
  std::size_t slot_of(std::uint64_t key) const {
    return static_cast<std::size_t>(key * 0x9E3779B97F4A7C15ULL >> 20) & (edges_.size() - 1);
  }
  std::uint32_t find_edge(std::uint32_t state, unsigned char byte) const {
    const std::uint64_t key = std::uint64_t{state} << 8 | byte;
    std::size_t slot = slot_of(key);
    while (edges_[slot].target != kRoot && edges_[slot].key != key) {
      slot = (slot + 1) & (edges_.size() - 1);
    }
    return edges_[slot].target;
  }
  void add_edge(std::uint32_t state, unsigned char byte, std::uint32_t target) {
    if (state == kRoot) {
      from_root_[byte] = target;
      return;
    }
    const std::uint64_t key = std::uint64_t{state} << 8 | byte;
    std::size_t slot = slot_of(key);
    while (edges_[slot].target != kRoot) slot = (slot + 1) & (edges_.size() - 1);
    edges_[slot] = {key, target};
  }

  std::vector<State> states_;
  std::vector<Edge> edges_;
  std::array<std::uint32_t, 256> from_root_{};
  std::vector<std::uint32_t> lengths_;
};

}  // namespace terse
