// Every op of the table as plain loops: the definition that the fast backends are tested against,
// the fallback where none fits, and the text to read first.
//
//   Real     type of the residual stream and of all arithmetic: float to run, double to judge
//   Element  type of operands and prepared weights: Real, or bf16 or f16 (rounded once, when
//            written, and widened to Real before every product). A linear prepared for int8 and
//            the operands it reads are quantised instead, see reference_math.h
//   Product  how rows times a weight are multiplied; eigen.h brings another one
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "terse/ops/backend.h"
#include "terse/ops/reference_int8.h"
#include "terse/ops/reference_math.h"
#include "terse/parallel.h"

namespace terse::reference {

template <class Real>
struct RotaryValues {
  std::vector<Real> cos;  // (length, head_dim / 2)
  std::vector<Real> sin;
};

// A weight as the loops want it: the parts' rows one after another, (out_features, in_features).
template <class Real, class Element>
struct PreparedLinear {
  const Element* weight = nullptr;
  AlignedBuffer storage;     // empty where the mapped file itself is used
  Handle owner;              // keeps the mapped file
  std::vector<Real> bias;    // (out_features), zeros where a part has none
  std::vector<Real> head;    // the weight of a head, instead of the above
  Int8Weight<Real> int8;     // the weight in int8, instead of the above
  std::int64_t columns = 0;  // stacked out_features
};

// y (rows, columns) = x (rows, width) W^T, one dot product after the other, summed in rising k.
struct PlainProduct {
  static constexpr std::int64_t kBlockRows = 8;

  template <class Real, class Element>
  static void multiply(const Element* x, std::int64_t rows, std::int64_t width, const Element* w,
                       std::int64_t columns, Real* y) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column) {
        Real sum = 0;
        for (std::int64_t k = 0; k < width; ++k) {
          sum += to_real<Real>(x[row * width + k]) * to_real<Real>(w[column * width + k]);
        }
        y[row * columns + column] = sum;
      }
    }
  }
};

template <class Real, class Element, class Product = PlainProduct>
struct Ops {
  using Prepared = PreparedLinear<Real, Element>;

  static Element round(Real value) {
    if constexpr (std::is_same_v<Element, bf16>) {
      return to_bf16(static_cast<float>(value));
    } else if constexpr (std::is_same_v<Element, f16>) {
      return to_f16(static_cast<float>(value));
    } else {
      return static_cast<Element>(value);
    }
  }

  static constexpr DType element_dtype() {
    return std::is_same_v<Element, double>  ? DType::f64
           : std::is_same_v<Element, float> ? DType::f32
           : std::is_same_v<Element, bf16>  ? DType::bf16
                                            : DType::f16;
  }

  static const Real* reals(const Handle& handle) {
    return handle == nullptr ? nullptr
                             : static_cast<const std::vector<Real>*>(handle.get())->data();
  }

  // --- load time ---------------------------------------------------------------------------------

  static Linear prepare_linear(LinearKind kind, std::span<const LinearPart> parts, DType dtype) {
    auto prepared = std::make_shared<Prepared>();
    const std::int64_t width = parts[0].weight.shape[1];
    for (const LinearPart& part : parts) prepared->columns += part.weight.shape[0];
    prepared->bias.assign(static_cast<std::size_t>(prepared->columns), Real(0));
    fill_bias(parts, *prepared);
    if (kind == LinearKind::head) {
      prepared->head.resize(static_cast<std::size_t>(parts[0].weight.size()));
      convert_to(prepared->head.data(), parts[0].weight.data, parts[0].weight.dtype,
                 prepared->head.size());
    } else if (dtype == DType::i8) {
      prepared->int8 = prepare_int8<Real>(parts);
    } else {
      fill_weight(parts, width, *prepared);
    }
    const std::int64_t out_features =
        kind == LinearKind::gated ? prepared->columns / 2 : prepared->columns;
    return {kind, dtype == DType::i8 && kind != LinearKind::head ? DType::i8 : element_dtype(),
            width, out_features, prepared};
  }

  static Handle prepare_vector(const TensorView& vector) {
    auto values = std::make_shared<std::vector<Real>>(static_cast<std::size_t>(vector.size()));
    convert_to(values->data(), vector.data, vector.dtype, values->size());
    return values;
  }

  struct TableRows {
    TensorView view;
    Handle owner;
  };

  static Table prepare_table(const TensorView& table, Handle owner) {
    return {table.shape[0], table.shape[1],
            std::make_shared<TableRows>(TableRows{table, std::move(owner)})};
  }

  // Angles in double whatever Real is: position * frequency rounded to f32 would be off by 1e-3 at
  // position 8,000.
  static RotaryTable prepare_rotary(double theta, std::int64_t head_dim, std::int64_t length) {
    auto values = std::make_shared<RotaryValues<Real>>();
    const std::int64_t half = head_dim / 2;
    for (std::int64_t position = 0; position < length; ++position) {
      for (std::int64_t k = 0; k < half; ++k) {
        const double exponent = -2.0 * static_cast<double>(k) / static_cast<double>(head_dim);
        const double angle = static_cast<double>(position) * std::pow(theta, exponent);
        values->cos.push_back(static_cast<Real>(std::cos(angle)));
        values->sin.push_back(static_cast<Real>(std::sin(angle)));
      }
    }
    return {length, head_dim, values};
  }

  // --- memory ------------------------------------------------------------------------------------

  static std::size_t residual_bytes(std::int64_t rows, std::int64_t width) {
    return static_cast<std::size_t>(rows * width) * sizeof(Real);
  }
  static std::size_t operand_bytes(std::int64_t rows, std::int64_t width, DType dtype) {
    if (dtype == DType::i8) return static_cast<std::size_t>(rows) * Int8Row<Real>::bytes(width);
    return static_cast<std::size_t>(rows * width) * sizeof(Element);
  }
  static std::size_t attention_bytes(const Batch& batch, const AttentionShape& shape) {
    return residual_bytes(batch.total_tokens(),
                          (shape.heads + 2 * shape.kv_heads) * shape.head_dim);
  }

  // --- ops ---------------------------------------------------------------------------------------

  static void embed(Context& context, const Batch& batch, const EmbedSpec& spec, Residual x,
                    const Norm* next_norm, Operand* out) {
    each_row(context, x.rows, 0, [&](std::int64_t row, Real*) {
      Real* y = residual_row(x, row);
      std::fill(y, y + x.width, Real(0));
      const auto token = static_cast<std::size_t>(row);
      add_table_row(spec.word, batch.token_ids[token], y);
      add_table_row(spec.type, batch.type_ids.empty() ? 0 : batch.type_ids[token], y);
      add_table_row(spec.position, batch.positions[token], y);
      for (std::int64_t i = 0; i < x.width; ++i) y[i] *= static_cast<Real>(spec.scale);
      apply_norm(spec.norm, y, x.width, y);
    });
    if (out != nullptr) norm(context, x, next_norm, *out);
  }

  static void norm(Context& context, const Residual& x, const Norm* norm, Operand out) {
    each_row(context, x.rows, x.width, [&](std::int64_t row, Real* normed) {
      apply_norm(norm, residual_row(x, row), x.width, normed);
      write_operand(normed, out, row);
    });
  }

  static void project_qkv(Context& context, const Batch& batch, const Operand& x, const Linear& qkv,
                          const ProjectSpec& spec, AttentionInputs out) {
    const Split split = split_of(out);
    const auto* rotary = spec.rotary == nullptr
                             ? nullptr
                             : static_cast<const RotaryValues<Real>*>(spec.rotary->handle.get());
    each_product_row(context, x, qkv, [&](std::int64_t row, Real* y) {
      if (rotary != nullptr) {
        const auto half = static_cast<std::size_t>(split.shape.head_dim / 2);
        const auto at = static_cast<std::size_t>(batch.positions[static_cast<std::size_t>(row)]);
        for (std::int64_t head = 0; head < split.shape.heads + split.shape.kv_heads; ++head) {
          rotate(y + head * split.shape.head_dim, rotary->cos.data() + at * half,
                 rotary->sin.data() + at * half, split.shape.head_dim);
        }
      }
      for (std::int64_t i = 0; i < split.query_width; ++i) {
        y[i] *= static_cast<Real>(spec.query_scale);
      }
      // Rounded to the operand's type, as keys and values that leave a product are.
      for (std::int64_t i = 0; i < split.row_width; ++i) {
        split.data[row * split.row_width + i] = to_real<Real>(round(y[i]));
      }
    });
  }

  // out[i] = sum over seen keys j of softmax(q_i . k_j) v_j, head by head.
  static void attention(Context& context, const Batch& batch, const AttentionInputs& inputs,
                        const AttentionRule& rule, const RowSelection* selection, Operand out) {
    const Split split = split_of(inputs);
    const std::vector<std::int32_t> sequence_of = sequences(batch);
    const std::int64_t scratch = longest(batch) + split.query_width;
    each_row(context, out.rows, scratch, [&](std::int64_t out_row, Real* temporary) {
      const std::int64_t row =
          selection == nullptr ? out_row : selection->rows[static_cast<std::size_t>(out_row)];
      Real* attended = temporary;
      Real* scores = temporary + split.query_width;
      for (std::int64_t head = 0; head < split.shape.heads; ++head) {
        attend(batch, split, rule, sequence_of[static_cast<std::size_t>(row)], row, head, scores,
               attended + head * split.shape.head_dim);
      }
      write_operand(attended, out, out_row);
    });
  }

  static void linear_add(Context& context, const Operand& in, const Linear& linear,
                         const AddSpec& spec, Residual x, Operand* out) {
    each_product_row(context, in, linear, [&](std::int64_t row, Real* y) {
      Real* residual = residual_row(x, row);
      if (spec.product_norm != nullptr) apply_norm(spec.product_norm, y, x.width, y);
      for (std::int64_t i = 0; i < x.width; ++i)
        residual[i] += static_cast<Real>(spec.factor) * y[i];
      if (spec.sum_norm != nullptr) apply_norm(spec.sum_norm, residual, x.width, residual);
      if (out == nullptr) return;
      apply_norm(spec.next_norm, residual, x.width, y);
      write_operand(y, *out, row);
    });
  }

  static void linear_activation(Context& context, const Operand& in, const Linear& linear,
                                Activation activation, Operand out) {
    each_product_row(context, in, linear, [&](std::int64_t row, Real* y) {
      for (std::int64_t i = 0; i < out.width; ++i) y[i] = activate(activation, y[i]);
      write_operand(y, out, row);
    });
  }

  static void linear_gated(Context& context, const Operand& in, const Linear& gate_up,
                           Activation activation, Operand out) {
    each_product_row(context, in, gate_up, [&](std::int64_t row, Real* y) {
      for (std::int64_t i = 0; i < out.width; ++i) {
        y[i] = activate(activation, y[i]) * y[out.width + i];
      }
      write_operand(y, out, row);
    });
  }

  static void mean_rows(Context& context, const Residual& x, std::span<const RowSpan> spans,
                        Residual out) {
    each_row(context, out.rows, 0, [&](std::int64_t row, Real*) {
      const RowSpan span = spans[static_cast<std::size_t>(row)];
      Real* y = residual_row(out, row);
      for (std::int64_t i = 0; i < x.width; ++i) {
        Real sum = residual_row(x, span.begin)[i];
        for (std::int64_t member = span.begin + 1; member < span.end; ++member) {
          sum += residual_row(x, member)[i];
        }
        y[i] = span.end - span.begin == 1 ? sum : sum / static_cast<Real>(span.end - span.begin);
      }
    });
  }

  // Heads are small and sensitive, so their products are in Real whatever Element is.
  static void head(Context& context, const Residual& x, const HeadSpec& spec,
                   std::span<double> out) {
    const std::int64_t columns = head_columns(spec, x.width);
    const std::int64_t dense = spec.dense == nullptr ? 0 : spec.dense->out_features;
    const std::int64_t last = spec.out == nullptr ? 0 : spec.out->out_features;
    each_row(context, x.rows, x.width + dense + last, [&](std::int64_t row, Real* y) {
      apply_norm(spec.norm, residual_row(x, row), x.width, y);
      if (spec.dense != nullptr) y = head_linear(*spec.dense, spec.dense_activation, y);
      if (spec.out != nullptr) y = head_linear(*spec.out, spec.out_activation, y);
      const auto cap = static_cast<Real>(spec.softcap);
      for (std::int64_t i = 0; cap > 0 && i < columns; ++i) y[i] = cap * std::tanh(y[i] / cap);
      if (spec.l2_normalize) l2_normalize(y, columns);
      for (std::int64_t i = 0; i < columns; ++i) {
        out[static_cast<std::size_t>(row * columns + i)] = static_cast<double>(y[i]);
      }
    });
  }

  static void clear_residual(Context&, Residual x) {
    std::fill_n(static_cast<Real*>(x.data), x.rows * x.width, Real(0));
  }

  static void read_residual(Context&, const Residual& x, std::span<double> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = static_cast<double>(static_cast<const Real*>(x.data)[i]);
    }
  }

  static void read_operand(Context&, const Operand& x, std::span<double> out) {
    if (x.dtype == DType::i8) return read_int8<Real>(x, out);
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = to_real<double>(static_cast<const Element*>(x.data)[i]);
    }
  }

  // int8: products in int8, sensitive ones in Element.
  static Backend table(const char* name, bool int8 = false) {
    Backend backend;
    backend.name = name;
    backend.isa = Isa::reference;
    backend.compute = int8 ? DType::i8 : element_dtype();
    backend.sensitive = element_dtype();
    fill_ops<Ops>(backend);
    return backend;
  }

 private:
  // Queries, keys and values of a row side by side.
  struct Split {
    Real* data;
    AttentionShape shape;
    std::int64_t query_width;
    std::int64_t key_width;
    std::int64_t row_width;

    const Real* query(std::int64_t row, std::int64_t head) const {
      return data + row * row_width + head * shape.head_dim;
    }
    const Real* key(std::int64_t row, std::int64_t kv_head) const {
      return data + row * row_width + query_width + kv_head * shape.head_dim;
    }
    const Real* value(std::int64_t row, std::int64_t kv_head) const {
      return key(row, kv_head) + key_width;
    }
  };

  static Split split_of(const AttentionInputs& inputs) {
    const AttentionShape& shape = inputs.shape;
    const std::int64_t query_width = shape.heads * shape.head_dim;
    const std::int64_t key_width = shape.kv_heads * shape.head_dim;
    return {static_cast<Real*>(inputs.data), shape, query_width, key_width,
            query_width + 2 * key_width};
  }

  static void fill_bias(std::span<const LinearPart> parts, Prepared& prepared) {
    std::size_t row = 0;
    for (const LinearPart& part : parts) {
      const auto rows = static_cast<std::size_t>(part.weight.shape[0]);
      if (part.bias.data != nullptr) {
        convert_to(prepared.bias.data() + row, part.bias.data, part.bias.dtype, rows);
      }
      row += rows;
    }
  }

  // A single weight that already has the right type and alignment is multiplied where it lies.
  static void fill_weight(std::span<const LinearPart> parts, std::int64_t width,
                          Prepared& prepared) {
    const Element* in_place = parts[0].weight.template aligned<Element>();
    if (parts.size() == 1 && in_place != nullptr) {
      prepared.weight = in_place;
      prepared.owner = parts[0].owner;
      return;
    }
    const auto elements = mul_sizes(static_cast<std::uint64_t>(prepared.columns),
                                    static_cast<std::uint64_t>(width), "weight");
    prepared.storage =
        AlignedBuffer(static_cast<std::size_t>(mul_sizes(elements, sizeof(Element), "weight")));
    prepared.weight = prepared.storage.template as<Element>();
    Element* to = prepared.storage.template as<Element>();
    for (const LinearPart& part : parts) {
      const auto count = static_cast<std::size_t>(part.weight.size());
      fill(to, part.weight, count);
      to += count;
    }
  }

  static void fill(Element* out, const TensorView& weight, std::size_t count) {
    dispatch_floating(weight.dtype, [&]<class T>() {
      for (std::size_t i = 0; i < count; ++i) {
        out[i] = round(to_real<Real>(load_unaligned<T>(weight.data, i)));
      }
    });
  }

  static Real* residual_row(const Residual& x, std::int64_t row) {
    return static_cast<Real*>(x.data) + row * x.width;
  }

  static void write_operand(const Real* y, const Operand& out, std::int64_t row) {
    if (out.dtype == DType::i8) return Int8Row<Real>::of(out, row).write(y);
    Element* to = static_cast<Element*>(out.data) + row * out.width;
    for (std::int64_t i = 0; i < out.width; ++i) to[i] = round(y[i]);
  }

  static void add_table_row(const Table* table, std::int32_t row, Real* y) {
    if (table == nullptr) return;
    const auto& rows = *static_cast<const TableRows*>(table->handle.get());
    dispatch_floating(rows.view.dtype, [&]<class T>() {
      const auto first = static_cast<std::size_t>(row) * static_cast<std::size_t>(table->width);
      for (std::size_t i = 0; i < static_cast<std::size_t>(table->width); ++i) {
        y[i] += to_real<Real>(load_unaligned<T>(rows.view.data, first + i));
      }
    });
  }

  static void apply_norm(const Norm* norm, const Real* x, std::int64_t width, Real* y) {
    if (norm == nullptr) {
      if (x != y) std::copy(x, x + width, y);
    } else if (norm->kind == NormKind::layer) {
      layer_norm(x, reals(norm->weight), reals(norm->bias), static_cast<Real>(norm->eps), width, y);
    } else {
      const Real offset = norm->kind == NormKind::rms_plus_one ? Real(1) : Real(0);
      rms_norm(x, reals(norm->weight), offset, static_cast<Real>(norm->eps), width, y);
    }
  }

  // One head of one query row.
  static void attend(const Batch& batch, const Split& split, const AttentionRule& rule,
                     std::int32_t sequence, std::int64_t row, std::int64_t head, Real* scores,
                     Real* attended) {
    const std::int64_t kv_head = head / (split.shape.heads / split.shape.kv_heads);
    const std::int32_t prefix = batch.prefix_of(sequence);
    const std::int64_t prefix_begin = prefix < 0 ? 0 : begin_of(batch, prefix);
    const std::int64_t prefix_length = prefix < 0 ? 0 : batch.length(prefix);
    const std::int64_t begin = begin_of(batch, sequence);
    const std::int64_t keys = prefix_length + batch.length(sequence);
    const std::int64_t position = prefix_length + row - begin;
    const auto key_row = [&](std::int64_t j) {
      return j < prefix_length ? prefix_begin + j : begin + j - prefix_length;
    };
    const Real* query = split.query(row, head);
    const auto cap = static_cast<Real>(rule.softcap);
    for (std::int64_t j = 0; j < keys; ++j) {
      scores[j] = -std::numeric_limits<Real>::infinity();
      if (!sees(rule, position, j)) continue;
      const Real* key = split.key(key_row(j), kv_head);
      Real dot = 0;
      for (std::int64_t i = 0; i < split.shape.head_dim; ++i) dot += query[i] * key[i];
      scores[j] = cap > 0 ? cap * std::tanh(dot / cap) : dot;
    }
    softmax(scores, keys);
    std::fill(attended, attended + split.shape.head_dim, Real(0));
    for (std::int64_t j = 0; j < keys; ++j) {
      if (scores[j] == 0) continue;
      const Real* value = split.value(key_row(j), kv_head);
      for (std::int64_t i = 0; i < split.shape.head_dim; ++i) attended[i] += scores[j] * value[i];
    }
  }

  static std::int64_t begin_of(const Batch& batch, std::int32_t sequence) {
    return batch.cu_seqlens[static_cast<std::size_t>(sequence)];
  }

  static std::vector<std::int32_t> sequences(const Batch& batch) {
    std::vector<std::int32_t> sequence_of(static_cast<std::size_t>(batch.total_tokens()));
    for (std::int64_t s = 0; s < batch.size(); ++s) {
      const auto first = batch.cu_seqlens[static_cast<std::size_t>(s)];
      std::fill_n(sequence_of.begin() + first, batch.length(s), static_cast<std::int32_t>(s));
    }
    return sequence_of;
  }

  static std::int64_t longest(const Batch& batch) {
    std::int64_t most = 0;
    for (std::int64_t s = 0; s < batch.size(); ++s) {
      const std::int32_t prefix = batch.prefix_of(s);
      most =
          std::max<std::int64_t>(most, batch.length(s) + (prefix < 0 ? 0 : batch.length(prefix)));
    }
    return most;
  }

  static Real* head_linear(const Linear& linear, Activation activation, Real* x) {
    const auto& prepared = *static_cast<const Prepared*>(linear.handle.get());
    Real* y = x + linear.in_features;
    for (std::int64_t column = 0; column < linear.out_features; ++column) {
      Real sum = prepared.bias[static_cast<std::size_t>(column)];
      const Real* weight = prepared.head.data() + column * linear.in_features;
      for (std::int64_t k = 0; k < linear.in_features; ++k) sum += x[k] * weight[k];
      y[column] = activate(activation, sum);
    }
    return y;
  }

  // f(row, temporary of `reals` Reals) for every row, rows shared among the workers.
  template <class F>
  static void each_row(Context& context, std::int64_t rows, std::int64_t reals, F&& f) {
    context.scratch.reserve(context.threads, static_cast<std::size_t>(reals) * sizeof(Real));
    parallel_ranges(context.threads, rows, [&](std::int64_t begin, std::int64_t end, int worker) {
      Real* temporary = context.scratch.of<Real>(worker);
      for (std::int64_t row = begin; row < end; ++row) f(row, temporary);
    });
  }

  // y (rows, columns) = rows of x, quantised if they are not yet, times an int8 weight.
  static void multiply_int8(const Operand& x, std::int64_t first, std::int64_t rows,
                            const Int8Weight<Real>& weight, Real* y) {
    std::vector<Real> values(static_cast<std::size_t>(x.width));
    std::vector<std::int16_t> quantized(static_cast<std::size_t>(x.width));
    for (std::int64_t i = 0; i < rows; ++i, y += weight.scales.size()) {
      if (x.dtype == DType::i8) {
        const auto row = Int8Row<Real>::of(x, first + i);
        reference::multiply_int8(row.elements, row.scale(), x.width, weight, y);
        continue;
      }
      const Element* from = static_cast<const Element*>(x.data) + (first + i) * x.width;
      for (std::size_t k = 0; k < values.size(); ++k) values[k] = to_real<Real>(from[k]);
      const Real scale = quantize_operand(values.data(), x.width, quantized.data());
      reference::multiply_int8(quantized.data(), scale, x.width, weight, y);
    }
  }

  // f(row, y) for every row of x, where y (stacked columns) = x W^T + b of that row; f may write y.
  template <class F>
  static void each_product_row(Context& context, const Operand& x, const Linear& linear, F&& f) {
    const auto& prepared = *static_cast<const Prepared*>(linear.handle.get());
    const std::int64_t columns = prepared.columns;
    const std::int64_t blocks = (x.rows + Product::kBlockRows - 1) / Product::kBlockRows;
    context.scratch.reserve(context.threads, static_cast<std::size_t>(Product::kBlockRows) *
                                                 static_cast<std::size_t>(columns) * sizeof(Real));
    parallel_ranges(context.threads, blocks, [&](std::int64_t begin, std::int64_t end, int worker) {
      Real* y = context.scratch.of<Real>(worker);
      for (std::int64_t block = begin; block < end; ++block) {
        const std::int64_t first = block * Product::kBlockRows;
        const std::int64_t rows = std::min<std::int64_t>(Product::kBlockRows, x.rows - first);
        if (linear.compute == DType::i8) {
          multiply_int8(x, first, rows, prepared.int8, y);
        } else {
          Product::multiply(static_cast<const Element*>(x.data) + first * x.width, rows, x.width,
                            prepared.weight, columns, y);
        }
        for (std::int64_t row = 0; row < rows; ++row) {
          for (std::int64_t i = 0; i < columns; ++i) {
            y[row * columns + i] += prepared.bias[static_cast<std::size_t>(i)];
          }
          f(first + row, y + row * columns);
        }
      }
    });
  }
};

// The plain tables: f64 to judge, f32 to run, bf16 and f16 operands with f32 sums, int8.
template <class = void>
const Backend& backend(DType compute) {
  static const Backend f64 = Ops<double, double>::table("reference f64");
  static const Backend f32 = Ops<float, float>::table("reference");
  static const Backend bf16_operands = Ops<float, bf16>::table("reference bf16");
  static const Backend f16_operands = Ops<float, f16>::table("reference f16");
  static const Backend int8 = Ops<float, float>::table("reference int8", true);
  switch (compute) {
    case DType::f64:
      return f64;
    case DType::i8:
      return int8;
    case DType::bf16:
      return bf16_operands;
    case DType::f16:
      return f16_operands;
    default:
      check(compute == DType::f32, ErrorClass::unsupported, "the reference backend computes in ",
            "f64, f32, bf16, f16 or i8, not in ", dtype_name(compute));
      return f32;
  }
}

}  // namespace terse::reference
