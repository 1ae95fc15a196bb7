// A packed batch: the tokens of all sequences one after another, no padding and no masks.
#pragma once

#include <cstdint>
#include <vector>

namespace terse {

// Rows [begin, end) of a packed tensor.
struct RowSpan {
  std::int32_t begin = 0;
  std::int32_t end = 0;
};

// Sequence s holds rows cu_seqlens[s] .. cu_seqlens[s + 1] - 1 of every per-token tensor.
//
// A causal model computes the opening that several passages of one query share (bos, query,
// separator) once: the opening is a sequence of its own, and each passage names it as its prefix. A
// row then attends to all rows of its prefix and to its own sequence up to itself.
struct Batch {
  std::vector<std::int32_t> token_ids;   // (total_tokens)
  std::vector<std::int32_t> positions;   // (total_tokens), counted from the start of the prefix
  std::vector<std::int32_t> type_ids;    // (total_tokens), or empty: all 0
  std::vector<std::int32_t> cu_seqlens;  // (batch + 1)
  std::vector<std::int32_t> prefix;      // (batch): sequence whose rows come first, or -1; or empty
  // (batch): number of leading tokens that another batch might have put into a prefix; a fast
  // attention ends a block of keys there, so that sharing never changes a bit. Or empty: 0.
  std::vector<std::int32_t> shareable;

  // No sequences; what memory it has is kept.
  void clear() {
    for (auto* list : {&token_ids, &positions, &type_ids, &cu_seqlens, &prefix, &shareable}) {
      list->clear();
    }
    cu_seqlens.push_back(0);
  }
  std::int64_t total_tokens() const { return static_cast<std::int64_t>(positions.size()); }
  std::int64_t size() const { return static_cast<std::int64_t>(cu_seqlens.size()) - 1; }
  std::int32_t length(std::int64_t sequence) const {
    const auto s = static_cast<std::size_t>(sequence);
    return cu_seqlens[s + 1] - cu_seqlens[s];
  }
  // The sequence whose rows precede those of `sequence` as keys, or -1.
  std::int32_t prefix_of(std::int64_t sequence) const {
    return prefix.empty() ? -1 : prefix[static_cast<std::size_t>(sequence)];
  }
  std::int32_t max_position() const {
    std::int32_t most = 0;
    for (const std::int32_t position : positions) most = position > most ? position : most;
    return most;
  }
};

// Some rows of a batch, in rising order: the only ones whose result is still needed. Sequence s has
// rows[cu_rows[s]] .. rows[cu_rows[s + 1] - 1].
struct RowSelection {
  std::vector<std::int32_t> rows;
  std::vector<std::int32_t> cu_rows;  // (batch + 1)
};

}  // namespace terse
