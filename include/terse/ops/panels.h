// Weights in the order in which the vector backends read them, and strides of their activations.
// Nothing here depends on the instruction set.
//
// A panel holds 16 output columns: f32 as [K][16], bf16 as [K/2][16][2], int8 as [K/4][16][4], so
// that one step of k is 16 words of 4 bytes in any type. Tails of columns and of k are zeros.
//
// int8 is symmetric (reference_math.h, quantize): a column of a weight has one f32 scale beside its
// panel, a row of an operand one behind its elements, and with acc = sum of a w over k in i32
//   y = float(acc) * (row scale * column scale) + bias
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "terse/checked.h"
#include "terse/error.h"
#include "terse/ops/backend.h"
#include "terse/ops/reference_math.h"
#include "terse/tensor.h"

namespace terse {

// What one lane of a product reads in one step: an f32, two neighbouring bf16, or four int8.
using Word = std::uint32_t;

inline constexpr std::int64_t kPanelColumns = 16;

constexpr std::int64_t ceil_div(std::int64_t count, std::int64_t step) {
  return (count + step - 1) / step;
}
constexpr std::int64_t round_up(std::int64_t count, std::int64_t step) {
  return ceil_div(count, step) * step;
}

// Words of k elements of a type of element_bytes.
constexpr std::int64_t words_of(std::int64_t elements, std::size_t element_bytes) {
  return ceil_div(elements * static_cast<std::int64_t>(element_bytes),
                  static_cast<std::int64_t>(sizeof(Word)));
}

// Words from one row of an operand to the next: whole cache lines, and an odd number of them, so
// that a dozen rows read side by side never fall into one set of the cache.
constexpr std::int64_t operand_stride(std::int64_t width, std::size_t element_bytes) {
  return (ceil_div(words_of(width, element_bytes), 16) | 1) * 16;
}

// An int8 operand row: elements (of the type that the table multiplies: s8, s8 + 128 as u8, or s8
// widened to s16), zeros up to the end of the cache line, one f32: the row's scale.
constexpr std::int64_t scale_word(std::int64_t width, std::size_t element_bytes) {
  return round_up(words_of(width, element_bytes), 16);
}
// Words from one row to the next: an odd number of cache lines, as above.
constexpr std::int64_t quantized_stride(std::int64_t width, std::size_t element_bytes) {
  return ((scale_word(width, element_bytes) / 16 + 1) | 1) * 16;
}

// A weight as panels. It starts as views of the checkpoint; the workers that first need it convert
// it together, panel by panel, which hides the conversion in the first forward pass and keeps
// untouched layers where they are.
class PanelWeight {
 public:
  // f32, bf16 or int8 panels, by the bytes of an element. Throws Error: dtype (a type that is no
  // weight's), limit (int8 wider than an i32 sums), overflow, memory.
  PanelWeight(LinearKind kind, std::span<const LinearPart> parts, std::size_t element_bytes)
      : kind_(kind), width_(parts[0].weight.shape[1]), parts_(parts.begin(), parts.end()) {
    for (const LinearPart& part : parts) {
      columns_ += part.weight.shape[0];
      check(is_floating(part.weight.dtype), ErrorClass::dtype, "weight of type ",
            dtype_name(part.weight.dtype), ", expected f64, f32, f16 or bf16");
    }
    panels_ = kind == LinearKind::gated ? 2 * ceil_div(columns_ / 2, kPanelColumns)
                                        : ceil_div(columns_, kPanelColumns);
    panel_words_ = words_of(width_, element_bytes) * kPanelColumns;
    words_ = AlignedBuffer(static_cast<std::size_t>(
        mul_sizes(mul_sizes(static_cast<std::uint64_t>(panels_),
                            static_cast<std::uint64_t>(panel_words_), "panels"),
                  sizeof(Word), "panels")));
    fill_bias();
    if (element_bytes > 1) return;
    check(width_ <= reference::kInt8MostWidth, ErrorClass::limit, "int8 products of ", width_,
          " elements, at most ", reference::kInt8MostWidth);
    const auto slots = static_cast<std::size_t>(panels_ * kPanelColumns);
    scales_ = AlignedBuffer(slots * sizeof(float));
    sums_ = AlignedBuffer(slots * sizeof(std::int32_t));
  }

  LinearKind kind() const { return kind_; }
  std::int64_t width() const { return width_; }      // K
  std::int64_t columns() const { return columns_; }  // all parts'
  std::int64_t panels() const { return panels_; }
  std::int64_t panel_words() const { return panel_words_; }
  // 16 columns of [k or k/2][16] words. Valid after prepare().
  const Word* panel(std::int64_t index) const { return words_.as<Word>() + index * panel_words_; }
  // The same to be filled, for prepare()'s convert.
  Word* panel_storage(std::int64_t index) const { return words_.as<Word>() + index * panel_words_; }
  // One f32 per column, in panel order; zeros where a part has no bias.
  const float* bias() const { return bias_.as<float>(); }
  // Of int8 panels, one per column, in panel order: the scale of the column, and the sum of its
  // elements, which a product with unsigned operands takes off 128 times. Filled by prepare()'s
  // convert, valid after it.
  float* scales() const { return scales_.as<float>(); }
  std::int32_t* sums() const { return sums_.as<std::int32_t>(); }

  // Row `lane` of a panel: the part of the checkpoint it lies in and the row there; part nullptr
  // past the last column. Of a gated weight even panels are gate, odd ones up.
  struct Row {
    const LinearPart* part = nullptr;
    std::int64_t row = 0;
  };
  Row row(std::int64_t panel, std::int64_t lane) const {
    if (kind_ == LinearKind::gated) {
      const LinearPart& part = parts_[static_cast<std::size_t>(panel % 2)];
      const std::int64_t row = panel / 2 * kPanelColumns + lane;
      return row < part.weight.shape[0] ? Row{&part, row} : Row{};
    }
    std::int64_t row = panel * kPanelColumns + lane;
    for (const LinearPart& part : parts_) {
      if (row < part.weight.shape[0]) return {&part, row};
      row -= part.weight.shape[0];
    }
    return {};
  }

  // Makes sure that every panel is converted: convert(index) fills one and may not throw. Any
  // number of workers may call this at once; nobody waits but for panels that others work on.
  template <class Convert>
  void prepare(const Convert& convert) const {
    if (converted_.load(std::memory_order_acquire) == panels_) return;
    for (std::int64_t index = next_.fetch_add(1); index < panels_; index = next_.fetch_add(1)) {
      convert(index);
      if (converted_.fetch_add(1, std::memory_order_acq_rel) + 1 == panels_) {
        parts_.clear();  // and with them the mapped file
        converted_.notify_all();
      }
    }
    for (std::int64_t seen = converted_.load(std::memory_order_acquire); seen != panels_;
         seen = converted_.load(std::memory_order_acquire)) {
      converted_.wait(seen, std::memory_order_acquire);
    }
  }

 private:
  void fill_bias() {
    bias_ = AlignedBuffer(static_cast<std::size_t>(panels_ * kPanelColumns) * sizeof(float));
    for (std::int64_t column = 0; column < panels_ * kPanelColumns; ++column) {
      const Row from = row(column / kPanelColumns, column % kPanelColumns);
      float& value = bias_.as<float>()[column];
      value = 0;
      if (from.part == nullptr || from.part->bias.data == nullptr) continue;
      const TensorView& bias = from.part->bias;
      const auto offset = static_cast<std::size_t>(from.row) * dtype_size(bias.dtype);
      convert_to(&value, static_cast<const std::byte*>(bias.data) + offset, bias.dtype, 1);
    }
  }

  LinearKind kind_;
  std::int64_t width_;
  std::int64_t columns_ = 0;
  std::int64_t panels_ = 0;
  std::int64_t panel_words_ = 0;
  mutable std::vector<LinearPart> parts_;
  AlignedBuffer words_;
  AlignedBuffer bias_;
  AlignedBuffer scales_;
  AlignedBuffer sums_;
  mutable std::atomic<std::int64_t> next_{0};
  mutable std::atomic<std::int64_t> converted_{0};
};

}  // namespace terse
