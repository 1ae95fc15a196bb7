// int8 weights and operand rows of the reference tables, as plain loops. What quantising is:
// reference_math.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "terse/checked.h"
#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/ops/backend.h"
#include "terse/ops/reference_math.h"

namespace terse::reference {

// The parts' rows one after another, each quantised on its own: a scale per output channel.
template <class Real>
struct Int8Weight {
  std::vector<std::int8_t> elements;  // (out_features, in_features)
  std::vector<Real> scales;           // (out_features)
};

// Throws Error(limit) for rows so wide that an i32 might not hold their sums.
template <class Real>
Int8Weight<Real> prepare_int8(std::span<const LinearPart> parts) {
  const std::int64_t width = parts[0].weight.shape[1];
  check(width <= kInt8MostWidth, ErrorClass::limit, "int8 products of ", width,
        " elements, at most ", kInt8MostWidth);
  Int8Weight<Real> weight;
  std::vector<Real> values(static_cast<std::size_t>(width));
  for (const LinearPart& part : parts) {
    const TensorView& view = part.weight;
    weight.elements.resize(weight.elements.size() + static_cast<std::size_t>(view.size()));
    std::int8_t* to = weight.elements.data() + weight.elements.size() - view.size();
    for (std::int64_t row = 0; row < view.shape[0]; ++row, to += width) {
      const std::size_t offset = static_cast<std::size_t>(row * width) * dtype_size(view.dtype);
      convert_to(values.data(), static_cast<const std::byte*>(view.data) + offset, view.dtype,
                 values.size());
      weight.scales.push_back(quantize(values.data(), width, to));
    }
  }
  return weight;
}

// y (out_features) = x W^T of one int8 row: sums in i32, exact; then times the scales of the row
// and of the column.
template <class Real>
void multiply_int8(const std::int16_t* x, Real scale, std::int64_t width,
                   const Int8Weight<Real>& weight, Real* y) {
  const std::int8_t* w = weight.elements.data();
  for (const Real column_scale : weight.scales) {
    std::int32_t sum = 0;
    for (std::int64_t k = 0; k < width; ++k) sum += x[k] * w[k];
    *y++ = static_cast<Real>(sum) * (scale * column_scale);
    w += width;
  }
}

// A row of an int8 operand: its elements, then its scale.
template <class Real>
struct Int8Row {
  std::int16_t* elements;  // which is simpler than bytes counted from the least
  std::int64_t width;

  static std::size_t bytes(std::int64_t width) {
    return static_cast<std::size_t>(width) * sizeof(std::int16_t) + sizeof(Real);
  }
  static Int8Row of(const Operand& x, std::int64_t row) {
    std::byte* data = static_cast<std::byte*>(x.data);
    return {reinterpret_cast<std::int16_t*>(data + row * static_cast<std::int64_t>(bytes(x.width))),
            x.width};
  }
  Real scale() const { return load_unaligned<Real>(elements + width, 0); }
  void write(const Real* values) const {
    const Real scale = quantize_operand(values, width, elements);
    std::memcpy(elements + width, &scale, sizeof(scale));
  }
};

// The numbers that the rows of an int8 operand stand for.
template <class Real>
void read_int8(const Operand& x, std::span<double> out) {
  for (std::int64_t row = 0; row < x.rows; ++row) {
    const auto from = Int8Row<Real>::of(x, row);
    for (std::int64_t i = 0; i < x.width; ++i) {
      out[static_cast<std::size_t>(row * x.width + i)] =
          static_cast<double>(from.scale()) * static_cast<double>(from.elements[i]);
    }
  }
}

}  // namespace terse::reference
