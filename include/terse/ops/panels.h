// Weights in the order in which the vector backends read them, and strides of their activations.
// Nothing here depends on the instruction set.
//
// A panel holds 16 output columns: f32 as [K][16], bf16 as [K/2][16][2], int8 as [K/4][16][4], so
// that one step of k is 16 words of 4 bytes in any type. Tails of columns and of k are zeros.
//
// int8 (reference_math.h, quantize and quantize_operand): a column of a weight has one f32 scale
// beside its panel, a row of an operand one behind its elements, and with acc = sum of a w over k
//   y = float(acc) * (row scale * column scale) + bias
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
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

// Whether heads of that shape may be given to the backend's attend_selected: those that are whole
// panels.
inline bool attends_selected(const Backend& backend, const AttentionShape& shape) {
  return backend.attend_selected != nullptr && shape.head_dim % kPanelColumns == 0;
}

// Which row of which part each column of a weight's panels is: all parts one after another; of a
// gated weight even panels are gate, odd ones up.
class PanelColumns {
 public:
  // rows: out_features of each part.
  PanelColumns(LinearKind kind, std::vector<std::int64_t> rows)
      : kind_(kind), rows_(std::move(rows)) {
    for (const std::int64_t count : rows_) columns_ += count;
    panels_ = kind == LinearKind::gated ? 2 * ceil_div(columns_ / 2, kPanelColumns)
                                        : ceil_div(columns_, kPanelColumns);
  }

  std::int64_t columns() const { return columns_; }  // all parts'
  std::int64_t panels() const { return panels_; }
  // Columns of the product: of a gated weight those of one part.
  std::int64_t out_features() const { return kind_ == LinearKind::gated ? columns_ / 2 : columns_; }

  // Part -1 past the last column.
  struct Row {
    std::int64_t part = -1;
    std::int64_t row = 0;
  };
  Row row(std::int64_t panel, std::int64_t lane) const {
    if (kind_ == LinearKind::gated) {
      const std::int64_t row = panel / 2 * kPanelColumns + lane;
      return row < rows_[0] ? Row{panel % 2, row} : Row{};
    }
    std::int64_t row = panel * kPanelColumns + lane;
    for (std::size_t part = 0; part < rows_.size(); ++part) {
      if (row < rows_[part]) return {static_cast<std::int64_t>(part), row};
      row -= rows_[part];
    }
    return {};
  }

 private:
  LinearKind kind_;
  std::vector<std::int64_t> rows_;
  std::int64_t columns_ = 0;
  std::int64_t panels_ = 0;
};

// All panels of a weight as one tensor: (panels, K, 16) f32, (panels, ceil(K / 2), 16, 2) bf16,
// (panels, ceil(K / 4), 16, 4) i8.
inline Shape panel_shape(const PanelColumns& columns, std::int64_t width, DType dtype) {
  if (dtype == DType::f32) return {columns.panels(), width, kPanelColumns};
  check(dtype == DType::bf16 || dtype == DType::i8, ErrorClass::unsupported, "panels of type ",
        dtype_name(dtype), ", expected f32, bf16 or i8");
  const std::int64_t in_word = dtype == DType::bf16 ? 2 : 4;
  return {columns.panels(), ceil_div(width, in_word), kPanelColumns, in_word};
}

// What an int8 operand row ends in. An element is scale * (least + what is stored).
struct Int8RowEnd {
  // scale and least, which is -254 at least.
  Int8RowEnd(float row_scale, std::int32_t row_least)
      : scale(row_scale),
        least(row_least),
        halves((static_cast<std::uint32_t>(row_least) & 0xffffU) |
               static_cast<std::uint32_t>(row_least) << 23) {}
  Int8RowEnd() : Int8RowEnd(0, 0) {}

  float scale;
  std::int32_t least;
  std::uint32_t halves;  // least and 128 least in 16 bits each, see avx512::vnni
};
inline constexpr std::int64_t kInt8LeastHalves = 2;  // the word

// An int8 operand row: elements (of the type that the table multiplies: u8 counted from the least,
// or s16), zeros up to the end of the cache line, and from there an Int8RowEnd.
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
      : kind_(kind),
        width_(parts[0].weight.shape[1]),
        columns_(kind, rows_of_parts(parts)),
        panel_words_(words_of(width_, element_bytes) * kPanelColumns),
        parts_(parts.begin(), parts.end()) {
    words_ = AlignedBuffer(static_cast<std::size_t>(
        mul_sizes(mul_sizes(static_cast<std::uint64_t>(panels()),
                            static_cast<std::uint64_t>(panel_words_), "panels"),
                  sizeof(Word), "panels")));
    panels_ = words_.as<Word>();
    fill_bias();
    if (element_bytes > 1) return;
    check(width_ <= reference::kInt8MostWidth, ErrorClass::limit, "int8 products of ", width_,
          " elements, at most ", reference::kInt8MostWidth);
    const auto slots = static_cast<std::size_t>(panels() * kPanelColumns);
    scale_buffer_ = AlignedBuffer(slots * sizeof(float));
    sum_buffer_ = AlignedBuffer(slots * sizeof(std::int32_t));
    scales_ = scale_buffer_.as<float>();
    sums_ = sum_buffer_.as<std::int32_t>();
  }

  // Panels of a packed file, of panel_shape() and at a multiple of 64 bytes.
  explicit PanelWeight(const PackedLinear& packed)
      : kind_(packed.kind),
        width_(packed.in_features),
        columns_(packed.kind, packed.rows),
        panel_words_(words_of(width_, dtype_size(packed.panels.dtype)) * kPanelColumns),
        owner_(packed.owner),
        panels_(static_cast<const Word*>(packed.panels.data)),
        bias_values_(static_cast<const float*>(packed.bias.data)),
        scales_(static_cast<const float*>(packed.scales.data)),
        sums_(static_cast<const std::int32_t*>(packed.sums.data)),
        converted_(columns_.panels()) {
    if (bias_values_ == nullptr) fill_bias();
  }

  LinearKind kind() const { return kind_; }
  std::int64_t width() const { return width_; }                // K
  std::int64_t columns() const { return columns_.columns(); }  // all parts'
  std::int64_t out_features() const { return columns_.out_features(); }
  std::int64_t panels() const { return columns_.panels(); }
  std::int64_t panel_words() const { return panel_words_; }
  // Of all panels as one tensor of their type.
  Shape shape(DType dtype) const { return panel_shape(columns_, width_, dtype); }
  // 16 columns of [k or k/2][16] words. Valid after prepare().
  const Word* panel(std::int64_t index) const { return panels_ + index * panel_words_; }
  // The same to be filled, for prepare()'s convert.
  Word* panel_storage(std::int64_t index) const { return words_.as<Word>() + index * panel_words_; }
  // One f32 per column, in panel order; zeros where a part has no bias.
  const float* bias() const { return bias_values_; }
  // Of int8 panels, one per column, in panel order: the scale of the column, and the sum of its
  // elements, which unsigned operands lack as often as their row's least number says. Valid after
  // prepare().
  const float* scales() const { return scales_; }
  const std::int32_t* sums() const { return sums_; }
  // The same to be filled, for prepare()'s convert.
  float* scale_storage() const { return scale_buffer_.as<float>(); }
  std::int32_t* sum_storage() const { return sum_buffer_.as<std::int32_t>(); }

  // Row `lane` of a panel: the part of the checkpoint it lies in and the row there; part nullptr
  // past the last column.
  struct Row {
    const LinearPart* part = nullptr;
    std::int64_t row = 0;
  };
  Row row(std::int64_t panel, std::int64_t lane) const {
    const PanelColumns::Row found = columns_.row(panel, lane);
    if (found.part < 0 || parts_.empty()) return {};
    return {&parts_[static_cast<std::size_t>(found.part)], found.row};
  }

  // Makes sure that every panel is converted: convert(index) fills one and may not throw. Any
  // number of workers may call this at once; nobody waits but for panels that others work on.
  template <class Convert>
  void prepare(const Convert& convert) const {
    if (converted_.load(std::memory_order_acquire) == panels()) return;
    for (std::int64_t index = next_.fetch_add(1); index < panels(); index = next_.fetch_add(1)) {
      convert(index);
      if ((index + 1) % kReleasedPanels == 0) release_sources(index + 1 - kReleasedPanels);
      if (converted_.fetch_add(1, std::memory_order_acq_rel) + 1 == panels()) {
        parts_.clear();  // and with them the mapped file
        converted_.notify_all();
      }
    }
    for (std::int64_t seen = converted_.load(std::memory_order_acquire); seen != panels();
         seen = converted_.load(std::memory_order_acquire)) {
      converted_.wait(seen, std::memory_order_acquire);
    }
  }

 private:
  // So many panels at a time give back what they were made of: a few calls of the system a layer.
  static constexpr std::int64_t kReleasedPanels = 32;

  // Says of each part that the rows which panels [first, first + kReleasedPanels) hold were read.
  // What another worker still reads of them it reads from the file again.
  void release_sources(std::int64_t first) const {
    for (std::size_t part = 0; part < parts_.size(); ++part) {
      if (!parts_[part].release) continue;
      const TensorView& weight = parts_[part].weight;
      std::int64_t begin = weight.shape[0];
      std::int64_t end = 0;
      for (std::int64_t panel = first; panel < first + kReleasedPanels; ++panel) {
        const PanelColumns::Row top = columns_.row(panel, 0);
        if (top.part != static_cast<std::int64_t>(part)) continue;
        begin = std::min(begin, top.row);
        end = std::max(end, std::min(top.row + kPanelColumns, weight.shape[0]));
      }
      if (begin >= end) continue;
      const auto row_bytes = static_cast<std::size_t>(width_) * dtype_size(weight.dtype);
      parts_[part].release(
          static_cast<const std::byte*>(weight.data) + static_cast<std::size_t>(begin) * row_bytes,
          static_cast<std::size_t>(end - begin) * row_bytes);
    }
  }

  static std::vector<std::int64_t> rows_of_parts(std::span<const LinearPart> parts) {
    std::vector<std::int64_t> rows;
    for (const LinearPart& part : parts) {
      check(is_floating(part.weight.dtype), ErrorClass::dtype, "weight of type ",
            dtype_name(part.weight.dtype), ", expected f64, f32, f16 or bf16");
      rows.push_back(part.weight.shape[0]);
    }
    return rows;
  }

  void fill_bias() {
    bias_ = AlignedBuffer(static_cast<std::size_t>(panels() * kPanelColumns) * sizeof(float));
    bias_values_ = bias_.as<float>();
    for (std::int64_t column = 0; column < panels() * kPanelColumns; ++column) {
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
  PanelColumns columns_;
  std::int64_t panel_words_;
  mutable std::vector<LinearPart> parts_;
  Handle owner_;  // of panels and bias that lie in a packed file
  AlignedBuffer words_;
  AlignedBuffer bias_;
  AlignedBuffer scale_buffer_;
  AlignedBuffer sum_buffer_;
  const Word* panels_ = nullptr;
  const float* bias_values_ = nullptr;
  const float* scales_ = nullptr;
  const std::int32_t* sums_ = nullptr;
  mutable std::atomic<std::int64_t> next_{0};
  mutable std::atomic<std::int64_t> converted_{0};
};

// Fills one panel of a weight made from parts, by the definition at the top; backends do the same
// faster. May throw Error(memory).
inline void fill_panel(const PanelWeight& weight, std::int64_t panel, DType dtype) {
  Word* to = weight.panel_storage(panel);
  std::fill_n(to, weight.panel_words(), Word{0});
  std::vector<float> values(static_cast<std::size_t>(weight.width()));
  std::vector<std::int8_t> quantized(dtype == DType::i8 ? values.size() : 0);
  for (std::int64_t lane = 0; lane < kPanelColumns; ++lane) {
    const auto [part, row] = weight.row(panel, lane);
    std::fill(values.begin(), values.end(), 0.0f);
    if (part != nullptr) {
      const TensorView& view = part->weight;
      const std::size_t offset =
          static_cast<std::size_t>(row) * values.size() * dtype_size(view.dtype);
      convert_to(values.data(), static_cast<const std::byte*>(view.data) + offset, view.dtype,
                 values.size());
    }
    if (dtype == DType::i8) {
      const std::int64_t column = panel * kPanelColumns + lane;
      weight.scale_storage()[column] =
          reference::quantize(values.data(), weight.width(), quantized.data());
      weight.sum_storage()[column] = std::accumulate(quantized.begin(), quantized.end(), 0);
    }
    for (std::int64_t k = 0; k < weight.width(); ++k) {
      const auto element = static_cast<std::size_t>(k);
      if (dtype == DType::f32) {
        to[k * kPanelColumns + lane] = std::bit_cast<Word>(values[element]);
      } else if (dtype == DType::bf16) {
        to[k / 2 * kPanelColumns + lane] |= Word{to_bf16(values[element]).bits} << (k % 2 * 16);
      } else {
        const auto byte = static_cast<std::uint8_t>(quantized[element]);
        to[k / 4 * kPanelColumns + lane] |= Word{byte} << (k % 4 * 8);
      }
    }
  }
}

// The parts that a packed linear was made of, row-major, in its panels' type; of int8 panels in
// f32, scale times element.
inline std::vector<LinearPart> unpack_linear(const PackedLinear& packed) {
  const PanelColumns columns(packed.kind, packed.rows);
  const std::int64_t width = packed.in_features;
  const std::size_t element_bytes = dtype_size(packed.panels.dtype);
  const std::int64_t per_word = static_cast<std::int64_t>(sizeof(Word) / element_bytes);
  const std::int64_t panel_elements = ceil_div(width, per_word) * per_word * kPanelColumns;
  const bool int8 = packed.panels.dtype == DType::i8;
  std::vector<Tensor> weights;
  std::vector<Tensor> biases;
  for (const std::int64_t rows : packed.rows) {
    weights.emplace_back(int8 ? DType::f32 : packed.panels.dtype, Shape{rows, width});
    biases.emplace_back(DType::f32, Shape{rows});
  }
  for (std::int64_t column = 0; column < columns.panels() * kPanelColumns; ++column) {
    const std::int64_t lane = column % kPanelColumns;
    const auto [part, row] = columns.row(column / kPanelColumns, lane);
    if (part < 0) continue;
    const auto* from =
        static_cast<const std::byte*>(packed.panels.data) +
        static_cast<std::size_t>(column / kPanelColumns * panel_elements) * element_bytes;
    const Tensor& weight = weights[static_cast<std::size_t>(part)];
    std::byte* to =
        weight.data<std::byte>() + static_cast<std::size_t>(row * width) * element_bytes;
    for (std::int64_t k = 0; k < width; ++k) {
      const std::int64_t at = (k / per_word * kPanelColumns + lane) * per_word + k % per_word;
      if (int8) {
        const float scale = static_cast<const float*>(packed.scales.data)[column];
        weight.data<float>()[row * width + k] =
            scale * static_cast<float>(reinterpret_cast<const std::int8_t*>(from)[at]);
        continue;
      }
      std::memcpy(to + static_cast<std::size_t>(k) * element_bytes,
                  from + static_cast<std::size_t>(at) * element_bytes, element_bytes);
    }
    if (packed.bias.data == nullptr) continue;
    biases[static_cast<std::size_t>(part)].data<float>()[row] =
        static_cast<const float*>(packed.bias.data)[column];
  }
  std::vector<LinearPart> parts;
  for (std::size_t part = 0; part < weights.size(); ++part) {
    const auto owner = std::make_shared<std::pair<Tensor, Tensor>>(std::move(weights[part]),
                                                                   std::move(biases[part]));
    const bool has_bias = packed.bias.data != nullptr;
    parts.push_back({owner->first.view(), has_bias ? owner->second.view() : TensorView{}, owner});
  }
  return parts;
}

}  // namespace terse
