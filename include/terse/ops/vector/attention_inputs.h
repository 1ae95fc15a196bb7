// Queries, keys and values between project_qkv and attention.
#pragma once

#include <cstddef>
#include <cstdint>

#include "terse/batch.h"
#include "terse/dtype.h"
#include "terse/ops/backend.h"
#include "terse/ops/panels.h"

namespace terse {

// Where the rows of a sequence lie as keys and values. Keys are walked in two segments, the opening
// that another batch might share and the rest, so that sharing never moves the end of a block.
struct KeyRows {
  std::int64_t begin = 0;  // first row
  std::int64_t length = 0;
  std::int64_t opening = 0;      // rows of the first segment
  std::int64_t value_begin = 0;  // first value slot, even

  KeyRows(const Batch& batch, std::int64_t sequence)
      : begin(batch.cu_seqlens[static_cast<std::size_t>(sequence)]),
        length(batch.length(sequence)),
        opening(batch.shareable.empty() ? 0 : batch.shareable[static_cast<std::size_t>(sequence)]),
        value_begin(round_up(begin, 2) + 4 * sequence) {
    if (opening > length) opening = length;
  }

  // Both segments start at an even slot.
  std::int64_t value_slot(std::int64_t index) const {
    return value_begin + (index < opening ? index : round_up(opening, 2) + index - opening);
  }
  // Whether row `index` ends a segment.
  bool ends_segment(std::int64_t index) const {
    return index + 1 == opening || index + 1 == length;
  }
};

// Head by head, so that the rows that attention walks are neighbours:
//   queries  (heads, rows, stride)      scaled, rotated
//   keys     (kv_heads, rows, stride)   rotated
//   values   (kv_heads, slots, stride)  f32; of bf16 two slots are interleaved,
//   [slots/2][stride][2]
// where stride is head_dim in whole words.
template <class Element>
class AttentionLayout {
 public:
  static constexpr std::int64_t kPerWord =
      static_cast<std::int64_t>(sizeof(Word) / sizeof(Element));
  static constexpr std::size_t kReach = 64;  // bytes: one vector of AVX-512

  AttentionLayout(const Batch& batch, const AttentionShape& attention, void* data)
      : shape_(attention),
        rows_(batch.total_tokens()),
        slots_(round_up(rows_, 2) + 4 * batch.size()),
        stride_(round_up(attention.head_dim, kPerWord)),
        keys_begin_(part_elements(shape_.heads * rows_)),
        values_begin_(keys_begin_ + part_elements(shape_.kv_heads * rows_)),
        data_(static_cast<Element*>(data)) {}

  const AttentionShape& shape() const { return shape_; }
  std::int64_t stride() const { return stride_; }
  // Vectors of the last values may reach past them, by less than kReach.
  std::size_t bytes() const {
    return static_cast<std::size_t>(values_begin_ + part_elements(shape_.kv_heads * slots_)) *
               sizeof(Element) +
           kReach;
  }

  Element* query(std::int64_t row, std::int64_t head) const {
    return data_ + (head * rows_ + row) * stride_;
  }
  Element* key(std::int64_t row, std::int64_t kv_head) const {
    return data_ + keys_begin_ + (kv_head * rows_ + row) * stride_;
  }
  // Element 0 of a slot; of bf16 the next element is two further.
  Element* value(std::int64_t slot, std::int64_t kv_head) const {
    Element* head = data_ + values_begin_ + kv_head * slots_ * stride_;
    if constexpr (kPerWord == 1) return head + slot * stride_;
    return head + slot / 2 * 2 * stride_ + slot % 2;
  }

 private:
  // Elements of `count` rows of heads, in whole cache lines.
  std::int64_t part_elements(std::int64_t count) const {
    return round_up(count * stride_, 64 / static_cast<std::int64_t>(sizeof(Element)));
  }

  AttentionShape shape_;
  std::int64_t rows_;
  std::int64_t slots_;
  std::int64_t stride_;
  std::int64_t keys_begin_;
  std::int64_t values_begin_;
  Element* data_;
};

}  // namespace terse
