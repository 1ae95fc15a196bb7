// A forward pass that stops at each exit and goes on with the inputs that are still wanted. Keys
// and values belong to a layer, so the residual stream is all that has to be kept in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "terse/batch.h"
#include "terse/layers/token_compression.h"
#include "terse/models/model.h"
#include "terse/models/shared_prefix.h"
#include "terse/ops/backend.h"
#include "terse/view.h"

namespace terse {

// Blocks [begin, end) of a pass; `exit` is the number of the first exit read on the way.
struct LayerRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::size_t exit = 0;
};

class PausedPass {
 public:
  // A pass over inputs that has not begun. share: openings that inputs have in common run once.
  PausedPass(std::span<const Input* const> inputs, bool share) {
    RowPacker().pack(inputs, share, &rows_);
  }

  const PackedRows& rows() const { return rows_; }
  bool has_begun() const { return num_read_ > 0; }

  // From where the pass stands to the next exit.
  LayerRange next(const RunOptions& options) const {
    return {has_begun() ? options.exits[num_read_ - 1] : 0, options.exits[num_read_], num_read_};
  }

  // Keeps the state at the exit that was read last: the rows as they are now, and x.
  void pause(Context& context, PackedRows rows, const Residual& x) {
    rows_ = std::move(rows);
    rows_.batch.token_ids.clear();  // embedded
    const std::size_t bytes = context.backend->residual_bytes(x.rows, x.width);
    if (buffer_bytes_ < bytes) {
      buffer_ = allocate_for_all(*context.backend, bytes);
      buffer_bytes_ = bytes;
    }
    x_ = {buffer_.get(), x.rows, x.width};
    kept_.clear();
    for (std::int64_t row = 0; row < x.rows; ++row) {
      const auto begin = static_cast<std::int32_t>(row);
      kept_.push_back({begin, begin + 1});
    }
    context.backend->mean_rows(context, x, view(kept_), x_);
    ++num_read_;
  }

  // Copies what is left of x to where the pass goes on.
  void restore(Context& context, const Residual& x) const {
    context.backend->mean_rows(context, x_, view(kept_), x);
  }

  // Drops inputs, by their order among those still there, and openings that none of the others
  // needs. At least one input is kept.
  void keep(std::span<const char> kept) {
    const std::vector<char> stays = sequences_that_stay(kept);
    PackedRows left;
    std::vector<RowSpan> spans;
    std::vector<std::int32_t> moved(stays.size(), -1);
    left.batch.cu_seqlens.push_back(0);
    for (std::size_t s = 0; s < stays.size(); ++s) {
      if (stays[s] == 0) continue;
      const Batch& batch = rows_.batch;
      moved[s] = static_cast<std::int32_t>(left.segments.size());
      for (auto row = static_cast<std::size_t>(batch.cu_seqlens[s]);
           row < static_cast<std::size_t>(batch.cu_seqlens[s + 1]); ++row) {
        left.batch.positions.push_back(batch.positions[row]);
        spans.push_back(kept_[row]);
      }
      left.batch.cu_seqlens.push_back(static_cast<std::int32_t>(spans.size()));
      const std::int32_t prefix = batch.prefix_of(static_cast<std::int64_t>(s));
      left.batch.prefix.push_back(prefix < 0 ? -1 : moved[static_cast<std::size_t>(prefix)]);
      left.batch.shareable.push_back(batch.shareable[s]);
      left.segments.push_back(rows_.segments[s]);
    }
    rows_ = std::move(left);
    kept_ = std::move(spans);
  }

 private:
  // Of the sequences that are inputs those with kept != 0, and the prefixes of these.
  std::vector<char> sequences_that_stay(std::span<const char> kept) const {
    const Batch& batch = rows_.batch;
    std::vector<char> is_prefix(rows_.segments.size(), 0);
    for (const std::int32_t prefix : batch.prefix) {
      if (prefix >= 0) is_prefix[static_cast<std::size_t>(prefix)] = 1;
    }
    std::vector<char> stays(is_prefix.size(), 0);
    std::size_t input = 0;
    for (std::size_t s = 0; s < stays.size(); ++s) {
      if (is_prefix[s] != 0 || kept[input++] == 0) continue;
      stays[s] = 1;
      const std::int32_t prefix = batch.prefix[s];
      if (prefix >= 0) stays[static_cast<std::size_t>(prefix)] = 1;
    }
    return stays;
  }

  PackedRows rows_;
  std::size_t num_read_ = 0;      // exits
  std::shared_ptr<void> buffer_;  // of x_
  std::size_t buffer_bytes_ = 0;
  Residual x_;                 // (rows when paused, hidden_size)
  std::vector<RowSpan> kept_;  // rows of x_ that are left, one a span
};

}  // namespace terse
