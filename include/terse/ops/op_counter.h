// Counts the operations that forward passes ask for, op by op, where they ask: at the op table. The
// formulas of flops.h are held to these counts; a sweep says with them what a saving really spared.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <span>

#include "terse/batch.h"
#include "terse/ops/backend.h"

namespace terse {

// Floating-point operations, a multiply-add being two.
struct OpCounts {
  std::uint64_t linear_flops = 0;            // 2 * rows * in_features * out_features
  std::uint64_t attention_flops_dense = 0;   // 4 * head_dim * heads for each query row and key row
  std::uint64_t attention_flops_causal = 0;  // without keys behind the query; windows aside
  std::uint64_t head_flops = 0;              // linear layers of heads

  bool operator==(const OpCounts&) const = default;
};

// Puts a table in front of another one: every op is handed on as it came, so bits are the same, and
// those that multiply are counted first. Give it to LoadOptions::op_counter; it outlives what is
// loaded with it. A model loaded without one runs its table itself and pays nothing.
class OpCounter {
 public:
  OpCounter() = default;
  OpCounter(const OpCounter&) = delete;
  OpCounter& operator=(const OpCounter&) = delete;

  // The table to run instead of `backend`, as long as this lives. A Context that runs its ops has
  // it as its backend.
  const Backend& count(const Backend& backend) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return tables_.emplace_back(backend, *this);
  }

  // Of all passes since the last reset, whichever threads ran them.
  OpCounts counts() const { return {linear_, dense_, causal_, head_}; }
  void reset() { linear_ = dense_ = causal_ = head_ = 0; }

 private:
  struct CountingTable : Backend {
    CountingTable(const Backend& backend, OpCounter& owner)
        : Backend(backend), counted(&backend), counter(&owner) {
      project_qkv = [](Context& context, const Batch& batch, const Operand& x, const Linear& qkv,
                       const ProjectSpec& spec, AttentionInputs out) {
        const std::int64_t key_width = 2 * out.shape.kv_heads * out.shape.head_dim;
        const std::int64_t queries = spec.selection == nullptr
                                         ? x.rows
                                         : static_cast<std::int64_t>(spec.selection->rows.size());
        of(context).counter->add_linear(x.rows, x.width, key_width);
        of(context).counter->add_linear(queries, x.width, qkv.out_features - key_width);
        of(context).counted->project_qkv(context, batch, x, qkv, spec, out);
      };
      attention = [](Context& context, const Batch& batch, const AttentionInputs& in,
                     const AttentionRule& rule, const RowSelection* selection, Operand out) {
        of(context).counter->add_attention(batch, in.shape, rule.causal, selection);
        of(context).counted->attention(context, batch, in, rule, selection, out);
      };
      if (backend.attend_selected != nullptr) {
        attend_selected = [](Context& context, const Batch& batch, const Operand& x,
                             const Linear& qkv, const ProjectSpec& spec, AttentionInputs queries,
                             Operand out) {
          // Both sides of a head's dot products are as wide as x.
          const AttentionShape wide{queries.shape.heads, queries.shape.heads, x.width};
          of(context).counter->add_linear(out.rows, x.width, qkv.out_features);
          of(context).counter->add_attention(batch, wide, false, spec.selection);
          of(context).counted->attend_selected(context, batch, x, qkv, spec, queries, out);
        };
      }
      linear_add = [](Context& context, const Operand& in, const Linear& linear,
                      const AddSpec& spec, Residual x, Operand* out) {
        of(context).counter->add_linear(in.rows, linear.in_features, linear.out_features);
        of(context).counted->linear_add(context, in, linear, spec, x, out);
      };
      linear_activation = [](Context& context, const Operand& in, const Linear& linear,
                             Activation activation, Operand out) {
        of(context).counter->add_linear(in.rows, linear.in_features, linear.out_features);
        of(context).counted->linear_activation(context, in, linear, activation, out);
      };
      linear_gated = [](Context& context, const Operand& in, const Linear& gate_up,
                        Activation activation, Operand out) {
        of(context).counter->add_linear(in.rows, gate_up.in_features, 2 * gate_up.out_features);
        of(context).counted->linear_gated(context, in, gate_up, activation, out);
      };
      head = [](Context& context, const Residual& x, const HeadSpec& spec, std::span<double> out) {
        for (const Linear* linear : {spec.dense, spec.out}) {
          if (linear == nullptr) continue;
          of(context).counter->head_ +=
              product_flops(x.rows, linear->in_features, linear->out_features);
        }
        of(context).counted->head(context, x, spec, out);
      };
    }

    static const CountingTable& of(const Context& context) {
      return static_cast<const CountingTable&>(*context.backend);
    }

    const Backend* counted;
    OpCounter* counter;
  };

  static std::uint64_t product_flops(std::int64_t rows, std::int64_t in, std::int64_t out) {
    return static_cast<std::uint64_t>(2 * rows * in * out);
  }

  void add_linear(std::int64_t rows, std::int64_t in, std::int64_t out) {
    linear_ += product_flops(rows, in, out);
  }

  // By the batch alone: a query row stands against its prefix's rows and those of its own sequence.
  void add_attention(const Batch& batch, const AttentionShape& shape, bool causal,
                     const RowSelection* selection) {
    std::uint64_t dense_pairs = 0;
    std::uint64_t causal_pairs = 0;
    for (std::int64_t sequence = 0; sequence < batch.size(); ++sequence) {
      const auto at = static_cast<std::size_t>(sequence);
      const std::int32_t prefix = batch.prefix_of(sequence);
      const std::int32_t before = prefix < 0 ? 0 : batch.length(prefix);
      const std::int32_t keys = before + batch.length(sequence);
      const auto add_query = [&](std::int32_t row) {
        const std::int32_t seen = causal ? before + row - batch.cu_seqlens[at] + 1 : keys;
        dense_pairs += static_cast<std::uint64_t>(keys);
        causal_pairs += static_cast<std::uint64_t>(seen);
      };
      if (selection == nullptr) {
        for (std::int32_t row = batch.cu_seqlens[at]; row < batch.cu_seqlens[at + 1]; ++row) {
          add_query(row);
        }
      } else {
        for (std::int32_t i = selection->cu_rows[at]; i < selection->cu_rows[at + 1]; ++i) {
          add_query(selection->rows[static_cast<std::size_t>(i)]);
        }
      }
    }
    const auto per_pair = static_cast<std::uint64_t>(4 * shape.heads * shape.head_dim);
    dense_ += per_pair * dense_pairs;
    causal_ += per_pair * causal_pairs;
  }

  std::mutex mutex_;
  std::list<CountingTable> tables_;  // one for each model
  std::atomic<std::uint64_t> linear_ = 0;
  std::atomic<std::uint64_t> dense_ = 0;
  std::atomic<std::uint64_t> causal_ = 0;
  std::atomic<std::uint64_t> head_ = 0;
};

}  // namespace terse
