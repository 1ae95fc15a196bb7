// Traced forward passes: collecting every intermediate tensor, and finding the first that is not
// finite.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "terse/models/model.h"
#include "terse/ops/backend.h"
#include "terse/tensor.h"
#include "terse/view.h"

namespace terse {

// Whether a value is neither NaN nor infinite, by its bits: true to its word even in programs built
// with -ffast-math, where std::isfinite may be folded away.
inline bool is_finite(double value) {
  return (std::bit_cast<std::uint64_t>(value) >> 52 & 0x7ff) != 0x7ff;
}

// Reports in W^T + b by itself: fused ops add it to the residual and never show it. `product` is a
// spare residual of at least as many rows.
inline void trace_product(Context& context, Tracer& tracer, std::string_view name,
                          const Operand& in, const Linear& linear, Residual product) {
  product.rows = in.rows;
  product.width = linear.out_features;
  context.backend->clear_residual(context, product);
  context.backend->linear_add(context, in, linear, AddSpec{}, product, nullptr);
  tracer.residual(context, name, product);
}

// A tensor of a trace, (rows, width), row-major.
struct TraceTensor {
  std::string name;
  Shape shape;
  std::vector<float> values;
};

// Reads every tensor to the host and hands it to visit(name, rows, width, values).
class ReadingTracer : public Tracer {
 public:
  void residual(Context& context, std::string_view name, const Residual& x) override {
    std::vector<double> values(static_cast<std::size_t>(x.rows * x.width));
    context.backend->read_residual(context, x, writable(values));
    visit(name, x.rows, x.width, values);
  }
  void operand(Context& context, std::string_view name, const Operand& x) override {
    std::vector<double> values(static_cast<std::size_t>(x.rows * x.width));
    context.backend->read_operand(context, x, writable(values));
    visit(name, x.rows, x.width, values);
  }

 protected:
  virtual void visit(std::string_view name, std::int64_t rows, std::int64_t width,
                     const std::vector<double>& values) = 0;
};

class CollectingTracer : public ReadingTracer {
 public:
  std::vector<TraceTensor> tensors;

 protected:
  void visit(std::string_view name, std::int64_t rows, std::int64_t width,
             const std::vector<double>& values) override {
    tensors.push_back({std::string(name), {rows, width}, {values.begin(), values.end()}});
  }
};

// Remembers the first tensor that holds a NaN or an infinity.
class FiniteTracer : public ReadingTracer {
 public:
  std::string first_bad;

 protected:
  void visit(std::string_view name, std::int64_t, std::int64_t,
             const std::vector<double>& values) override {
    if (!first_bad.empty()) return;
    for (const double value : values) {
      if (!is_finite(value)) {
        first_bad = name;
        return;
      }
    }
  }
};

}  // namespace terse
