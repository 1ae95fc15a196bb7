// Helpers of a traced forward pass.
#pragma once

#include <string_view>

#include "terse/models/model.h"
#include "terse/ops/backend.h"

namespace terse {

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

}  // namespace terse
