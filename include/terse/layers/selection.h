// Which rows of a packed batch are still needed: the scored token of every sequence, or all of
// them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "terse/batch.h"
#include "terse/ops/backend.h"

namespace terse {

// The first row of every sequence.
inline void select_first(const Batch& batch, RowSelection* selection) {
  selection->rows.clear();
  selection->cu_rows.assign(1, 0);
  for (std::int64_t s = 0; s < batch.size(); ++s) {
    selection->rows.push_back(batch.cu_seqlens[static_cast<std::size_t>(s)]);
    selection->cu_rows.push_back(static_cast<std::int32_t>(selection->rows.size()));
  }
}

// The last `count` rows (all, if it has fewer) of every sequence that no other sequence names as
// its prefix.
inline void select_tail(const Batch& batch, std::int32_t count, RowSelection* selection) {
  // At first 1 behind a sequence that is a prefix: each is overwritten after it has been read.
  std::vector<std::int32_t>& cu_rows = selection->cu_rows;
  cu_rows.assign(batch.cu_seqlens.size(), 0);
  for (const std::int32_t prefix : batch.prefix) {
    if (prefix >= 0) cu_rows[static_cast<std::size_t>(prefix) + 1] = 1;
  }
  selection->rows.clear();
  for (std::size_t s = 0; s + 1 < cu_rows.size(); ++s) {
    const std::int32_t end = batch.cu_seqlens[s + 1];
    const std::int32_t length = end - batch.cu_seqlens[s];
    const std::int32_t kept = cu_rows[s + 1] == 0 ? std::min(length, count) : 0;
    for (std::int32_t row = end - kept; row < end; ++row) selection->rows.push_back(row);
    cu_rows[s + 1] = static_cast<std::int32_t>(selection->rows.size());
  }
}

inline void select_last(const Batch& batch, RowSelection* selection) {
  select_tail(batch, 1, selection);
}

// Spans that make mean_rows copy exactly the selected rows.
inline void fill_spans(const RowSelection& selection, std::vector<RowSpan>* spans) {
  spans->clear();
  for (const std::int32_t row : selection.rows) spans->push_back({row, row + 1});
}

// One span a sequence: mean_rows then pools whole sequences.
inline void fill_sequence_spans(const Batch& batch, std::vector<RowSpan>* spans) {
  spans->clear();
  for (std::size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s) {
    spans->push_back({batch.cu_seqlens[s], batch.cu_seqlens[s + 1]});
  }
}

}  // namespace terse
