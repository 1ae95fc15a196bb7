// Rotary position embedding (Su et al. 2021, arXiv:2104.09864): the table of cosines and sines that
// project_qkv turns queries and keys by, as long as rows have needed so far.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <mutex>

#include "terse/ops/backend.h"

namespace terse {

// Immutable to its users: the table only ever grows, and an entry does not depend on how long the
// table is. Any number of threads may ask at once.
class Rotary {
 public:
  Rotary(const Backend& backend, double theta, std::int64_t head_dim)
      : backend_(&backend), theta_(theta), head_dim_(head_dim) {}

  // A table for positions 0 .. length - 1 at least; it stays valid when a longer one is made.
  RotaryTable covering(std::int64_t length) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (table_.length < length) {
      // Doubling: rows of rising length rebuild it a few times, not every time.
      const auto doubled =
          static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(length)));
      table_ = backend_->prepare_rotary(theta_, head_dim_, std::max(kShortest, doubled));
    }
    return table_;
  }

 private:
  static constexpr std::int64_t kShortest = 512;

  const Backend* backend_;
  double theta_;
  std::int64_t head_dim_;
  mutable std::mutex mutex_;
  mutable RotaryTable table_;
};

}  // namespace terse
