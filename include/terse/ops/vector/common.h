// What the files of this folder share and what does not depend on the instruction set.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "terse/batch.h"
#include "terse/cpu.h"
#include "terse/dtype.h"
#include "terse/ops/backend.h"
#include "terse/ops/compute_scope.h"
#include "terse/ops/panels.h"
#include "terse/ops/vector/attention_inputs.h"
#include "terse/parallel.h"
#include "terse/tensor.h"

namespace terse {

// Words that a core's second-level cache holds; 1 MiB of them where its size is unknown.
inline std::int64_t second_level_words() {
  const std::size_t bytes = cache_sizes().l2_bytes;
  return static_cast<std::int64_t>((bytes == 0 ? std::size_t{1} << 20 : bytes) / sizeof(Word));
}

// One call of the inner loop, see vector/tile.inl. Strides in words.
struct TileArguments {
  const Word* a = nullptr;  // element (row, step of k)
  std::int64_t a_step = 0;
  const Word* b = nullptr;  // vectors of one step of k, b_second apart
  std::int64_t b_step = 0;  // from one step of k to the next
  std::int64_t b_second = 0;
  std::int64_t k = 0;  // steps
  float* c = nullptr;  // (rows, vectors side by side)
  std::int64_t c_step = 0;
  bool accumulate = false;
  // Of int8, with the last steps of k: what turns the sums into f32, see panels.h. The rows' ends
  // are a_step words apart.
  const Word* row_end = nullptr;
  const float* column_scales = nullptr;
  const std::int32_t* column_sums = nullptr;
  // Bytes wanted soon in the second-level cache: prefetch_step further at every step of k.
  const std::byte* prefetch = nullptr;
  std::int64_t prefetch_step = 0;
};
using TileFunction = void (*)(const TileArguments&);

}  // namespace terse
