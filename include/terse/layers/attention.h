// Self-attention of the decoders: grouped-query weights under the names of the Llama family.
#pragma once

#include <array>
#include <cstdint>

#include "terse/layers/linear.h"
#include "terse/ops/backend.h"
#include "terse/weights.h"

namespace terse {

struct SelfAttention {
  Linear qkv;     // q_proj, k_proj, v_proj stacked
  Linear o_proj;  // (hidden_size, heads * head_dim)
};

// scope.{q,k,v,o}_proj. Heads times head_dim need not be the hidden size; key and value rows are
// those of kv_heads. Throws Error missing_tensor, shape_mismatch, dtype.
inline SelfAttention load_self_attention(const Loader& loader, const Weights& scope,
                                         std::int64_t hidden_size, const AttentionShape& shape,
                                         Bias bias, DType dtype) {
  const std::int64_t query_width = shape.heads * shape.head_dim;
  const std::int64_t key_width = shape.kv_heads * shape.head_dim;
  const std::array modules = {LinearModule{scope.scope("q_proj"), query_width, hidden_size},
                              LinearModule{scope.scope("k_proj"), key_width, hidden_size},
                              LinearModule{scope.scope("v_proj"), key_width, hidden_size}};
  return {load_linear(loader, LinearKind::qkv, modules, bias, dtype),
          load_linear(loader, scope.scope("o_proj"), hidden_size, query_width, bias, dtype)};
}

}  // namespace terse
