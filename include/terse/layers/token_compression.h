// Token compression: runs of `ratio` passage rows of the residual stream become their mean, query
// and prompt rows stay. Source: FlagEmbedding 1.4.0, gemma_model.py, token_compress, on packed
// batches instead of padded ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "terse/batch.h"

namespace terse {

// Of a sequence's rows, those before the passage and those after it.
struct Segments {
  std::int32_t query = 0;
  std::int32_t prompt = 0;
};

struct Compression {
  std::vector<RowSpan> spans;  // (rows of the shorter batch): rows that mean_rows averages
  Batch batch;                 // the shorter batch, without token ids: they have been embedded
};

// Every sequence keeps its first segments.query and last segments.prompt rows; of the p between,
// row j of the ceil(p / ratio) new ones is the mean of rows j * ratio .. min((j + 1) * ratio, p) -
// 1: a last run of fewer rows is divided by its own number. Positions are renumbered without gaps.
// What memory `out` has is used.
inline void compress(const Batch& batch, std::span<const Segments> segments, std::int32_t ratio,
                     Compression* out) {
  std::vector<RowSpan>& spans = out->spans;
  Batch& shorter = out->batch;
  spans.clear();
  shorter.clear();
  shorter.prefix = batch.prefix;
  shorter.shareable = batch.shareable;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const std::int32_t begin = batch.cu_seqlens[s];
    const std::int32_t end = batch.cu_seqlens[s + 1];
    const std::int32_t passage_begin = begin + segments[s].query;
    const std::int32_t passage_end = end - segments[s].prompt;
    for (std::int32_t row = begin; row < end;) {
      const bool in_passage = row >= passage_begin && row < passage_end;
      const std::int32_t next = in_passage ? std::min(row + ratio, passage_end) : row + 1;
      const auto made = static_cast<std::int32_t>(spans.size()) - shorter.cu_seqlens.back();
      shorter.positions.push_back(batch.positions[static_cast<std::size_t>(begin)] + made);
      spans.push_back({row, next});
      row = next;
    }
    shorter.cu_seqlens.push_back(static_cast<std::int32_t>(spans.size()));
  }
}

}  // namespace terse
