// Which tokens of a text and its pair survive a maximum length.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/tokenizer/encoding.h"

namespace terse {

enum class TruncationStrategy : std::uint8_t {
  longest_first,  // cut the longer one down to the shorter, then both alike
  only_first,     // cut the text, never the pair
  only_second     // cut the pair, never the text
};

enum class TruncationSide : std::uint8_t { right, left };

struct SequenceLengths {
  std::size_t first = 0;
  std::size_t second = 0;
};

// longest_first: with a <= b the two lengths, b' = a if a > budget, else max(a, budget - a); if a +
// b' still exceeds the budget, a' = budget div 2 and b' = a' + budget mod 2. Of two equal lengths
// the first counts as the shorter.
// Source: truncate_encodings of huggingface/tokenizers, tokenizers/src/utils/truncation.rs.
inline SequenceLengths longest_first_lengths(SequenceLengths lengths, std::size_t budget) {
  const bool swapped = lengths.first > lengths.second;
  std::size_t shorter = std::min(lengths.first, lengths.second);
  std::size_t longer = shorter > budget ? shorter : std::max(shorter, budget - shorter);
  if (shorter > budget || longer > budget - shorter) {
    shorter = budget / 2;
    longer = shorter + budget % 2;
  }
  return swapped ? SequenceLengths{longer, shorter} : SequenceLengths{shorter, longer};
}

// How many tokens of each sequence are kept so that the sum is at most `budget`; a text without a
// pair has second = 0. Throws Error(limit) if only_first or only_second leaves nothing of the
// sequence it cuts.
inline SequenceLengths truncated_lengths(SequenceLengths lengths, std::size_t budget,
                                         TruncationStrategy strategy) {
  const std::size_t total = lengths.first + lengths.second;
  if (total <= budget) return lengths;
  if (strategy == TruncationStrategy::longest_first) return longest_first_lengths(lengths, budget);
  const bool first = strategy == TruncationStrategy::only_first;
  std::size_t& cut = first ? lengths.first : lengths.second;
  const std::size_t excess = total - budget;
  check(cut > excess, ErrorClass::limit, "truncation removes ", excess, " tokens from the ",
        first ? "first" : "second", " text alone, which has ", cut);
  cut -= excess;
  return lengths;
}

// Keeps the first `length` tokens, or the last ones where the left side is cut.
inline void truncate(TokenSequence* sequence, std::size_t length, TruncationSide side) {
  if (sequence->ids.size() <= length) return;
  const std::size_t begin = side == TruncationSide::left ? sequence->ids.size() - length : 0;
  const auto first = sequence->ids.begin() + static_cast<std::ptrdiff_t>(begin);
  sequence->ids = {first, first + static_cast<std::ptrdiff_t>(length)};
  std::vector<AddedTokenMatch> kept;
  for (AddedTokenMatch match : sequence->matches) {
    if (match.index < begin || match.index >= begin + length) continue;
    match.index -= begin;
    kept.push_back(match);
  }
  sequence->matches = std::move(kept);
}

}  // namespace terse
