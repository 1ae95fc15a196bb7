// The op table of CUDA devices: each op as a few steps of ops/cuda.h. Part of programs that are
// linked with terse::cuda.
//
// Rows are counted in buckets, so that batches of about the same size are the same program of steps
// and replay its graph; the rows between the real ones and the bucket hold whatever was there, and
// nothing reads them. What changes from batch to batch (ids, positions, lengths, selections) is
// staged: written to pinned memory and copied on the stream.
//
// A row's bits: every kernel works on a row by itself in one fixed order. Products are cuBLAS's:
// one algorithm for each shape of weight, whatever the number of rows, and no sum split over k.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "terse/checked.h"
#include "terse/error.h"
#include "terse/ops/backend.h"
#include "terse/ops/cuda.h"
#include "terse/ops/cuda_state.h"
#include "terse/tensor.h"

namespace terse::cuda {

// What kernels call activations by.
static_assert(static_cast<int>(Activation::none) == 0);
static_assert(static_cast<int>(Activation::gelu_erf) == 1);
static_assert(static_cast<int>(Activation::gelu_tanh) == 2);
static_assert(static_cast<int>(Activation::silu) == 3);
static_assert(static_cast<int>(Activation::relu) == 4);
static_assert(static_cast<int>(Activation::tanh) == 5);

// --- the ops -------------------------------------------------------------------------------------

template <class Element>
struct Ops {
  static constexpr DType kType = std::is_same_v<Element, float>  ? DType::f32
                                 : std::is_same_v<Element, bf16> ? DType::bf16
                                                                 : DType::f16;
  static constexpr auto kTypeNumber = static_cast<std::int64_t>(kType);

  // --- load time ---------------------------------------------------------------------------------

  static Linear prepare_linear(LinearKind kind, std::span<const LinearPart> parts, DType) {
    auto prepared = std::make_shared<PreparedLinear>();
    const std::int64_t width = parts[0].weight.shape[1];
    bool has_bias = false;
    for (const LinearPart& part : parts) {
      prepared->columns += part.weight.shape[0];
      has_bias = has_bias || part.bias.data != nullptr;
    }
    // Heads are small and sensitive: their products are in f32 whatever the operands are.
    prepared->dtype = kind == LinearKind::head ? DType::f32 : kType;
    const auto columns = static_cast<std::size_t>(prepared->columns);
    const std::size_t row_bytes = static_cast<std::size_t>(width) * dtype_size(prepared->dtype);
    prepared->weight = Replicas(static_cast<std::size_t>(mul_sizes(columns, row_bytes, "weight")));
    if (has_bias) prepared->bias = Replicas(columns * sizeof(float));
    // cuBLAS adds a bias in the type of what it writes.
    const bool ends_inside = kind == LinearKind::plain || kind == LinearKind::qkv;
    const bool rounds = has_bias && ends_inside && kType != DType::f32;
    if (rounds) prepared->rounded_bias = Replicas(columns * sizeof(Element));
    std::size_t first = 0;
    for (const LinearPart& part : parts) {
      const auto rows = static_cast<std::size_t>(part.weight.shape[0]);
      prepared->weight.upload(part.weight, prepared->dtype, first * row_bytes);
      if (has_bias) upload_bias(part, rows, first, DType::f32, prepared->bias);
      if (rounds) upload_bias(part, rows, first, kType, prepared->rounded_bias);
      first += rows;
    }
    const std::int64_t out_features =
        kind == LinearKind::gated ? prepared->columns / 2 : prepared->columns;
    return {kind, kType, width, out_features, prepared};
  }

  static Handle prepare_vector(const TensorView& vector) {
    auto values =
        std::make_shared<Replicas>(static_cast<std::size_t>(vector.size()) * sizeof(float));
    values->upload(vector, DType::f32);
    return values;
  }

  static Table prepare_table(const TensorView& table, Handle) {
    check_width(table.shape[1]);
    auto prepared = std::make_shared<PreparedTable>();
    prepared->dtype = table.dtype == DType::f64 ? DType::f32 : table.dtype;
    prepared->rows = Replicas(static_cast<std::size_t>(table.size()) * dtype_size(prepared->dtype));
    prepared->rows.upload(table, prepared->dtype);
    return {table.shape[0], table.shape[1], prepared};
  }

  // Angles in double, see reference.h.
  static RotaryTable prepare_rotary(double theta, std::int64_t head_dim, std::int64_t length) {
    const std::int64_t half = head_dim / 2;
    std::vector<float> cos, sin;
    for (std::int64_t position = 0; position < length; ++position) {
      for (std::int64_t k = 0; k < half; ++k) {
        const double exponent = -2.0 * static_cast<double>(k) / static_cast<double>(head_dim);
        const double angle = static_cast<double>(position) * std::pow(theta, exponent);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    const std::size_t bytes = cos.size() * sizeof(float);
    auto prepared =
        std::make_shared<PreparedRotary>(PreparedRotary{Replicas(bytes), Replicas(bytes)});
    prepared->cos.upload(cos.data(), bytes);
    prepared->sin.upload(sin.data(), bytes);
    return {length, head_dim, prepared};
  }

  // --- memory ------------------------------------------------------------------------------------

  static std::size_t residual_bytes(std::int64_t rows, std::int64_t width) {
    return piece_bytes(rows, width, sizeof(float));
  }
  static std::size_t operand_bytes(std::int64_t rows, std::int64_t width, DType) {
    return piece_bytes(rows, width, sizeof(Element));
  }
  static std::size_t attention_bytes(const Batch& batch, const AttentionShape& shape) {
    return attention_room(batch.total_tokens(), shape);
  }
  static std::size_t attention_room(std::int64_t rows, const AttentionShape& shape) {
    const std::int32_t head_dim = padded_head_dim(shape.head_dim);
    check(head_dim > 0, ErrorClass::unsupported, "heads of ", shape.head_dim,
          " elements, the kernels of cuda have at most 256");
    return piece_bytes(rows, (shape.heads + 2 * shape.kv_heads) * head_dim, sizeof(Element));
  }

  static std::shared_ptr<void> make_state(int lane, std::int64_t max_rows) {
    return std::make_shared<State>(lane % static_cast<int>(devices().size()), max_rows);
  }

  // Where several devices share it, memory is the host's, which all of them can reach.
  static std::shared_ptr<void> allocate(void* state, std::size_t bytes) {
    const int shared_device = devices().size() == 1 ? 0 : kHost;
    const int device =
        state == nullptr ? shared_device : static_cast<State*>(state)->queue.device();
    const auto memory = std::make_shared<Memory>(device, bytes);
    return {memory, memory->data()};
  }

  static void finish(Context& context) {
    State& state = state_of(context);
    state.wait();
    state.staging.reset();
  }

  // --- ops ---------------------------------------------------------------------------------------

  static void embed(Context& context, const Batch& batch, const EmbedSpec& spec, Residual x,
                    const Norm* next_norm, Operand* out) {
    State& state = state_of(context);
    const std::int64_t rows = bucket(x.rows);
    state.staging.begin_op(state.queue, x.rows);
    EmbedStep step;
    step.word = table_rows(state, spec.word, batch.token_ids, rows);
    step.token_type = table_rows(state, spec.type, batch.type_ids, rows);
    step.position = table_rows(state, spec.position, batch.positions, rows);
    step.norm = norm_step(state, spec.norm);
    step.next_norm = norm_step(state, next_norm);
    step.residual = static_cast<float*>(x.data);
    step.out = out == nullptr ? nullptr : out->data;
    step.rows = static_cast<std::int32_t>(rows);
    step.width = static_cast<std::int32_t>(x.width);
    step.scale = static_cast<float>(spec.scale);
    step.type = static_cast<std::int32_t>(kTypeNumber);
    state.queue.add(step);
  }

  static void norm(Context& context, const Residual& x, const Norm* norm, Operand out) {
    State& state = state_of(context);
    AddNormStep step = row_step(x, kType);
    step.next_norm = norm_step(state, norm);
    step.out = out.data;
    state.queue.add(step);
  }

  static void project_qkv(Context& context, const Batch& batch, const Operand& x, const Linear& qkv,
                          const ProjectSpec& spec, AttentionInputs out) {
    State& state = state_of(context);
    const auto& prepared = state.hold<PreparedLinear>(qkv.handle);
    const std::int64_t rows = bucket(x.rows);
    const std::int32_t padded_dim = padded_head_dim(out.shape.head_dim);
    if (spec.rotary == nullptr && padded_dim == out.shape.head_dim) {
      state.score_scale = static_cast<float>(spec.query_scale);
      state.queue.add(finished(
          state, product_step(state, x.data, prepared, rows, qkv.in_features, out.data, kType),
          prepared, Activation::none));
      return;
    }
    state.score_scale = 1;
    TurnHeadsStep step;
    float* product = scratch_floats(state, x.rows, prepared.columns);
    step.product = product;
    if (spec.rotary != nullptr) {
      const auto& rotary = state.hold<PreparedRotary>(spec.rotary->handle);
      step.cos = rotary.cos.on<float>(state.queue.device());
      step.sin = rotary.sin.on<float>(state.queue.device());
      state.staging.begin_op(state.queue, x.rows);
      step.positions = stage<std::int32_t>(state, batch.positions, rows);
    }
    step.bias = prepared.bias.on<float>(state.queue.device());
    step.out = out.data;
    step.rows = static_cast<std::int32_t>(rows);
    step.heads = static_cast<std::int32_t>(out.shape.heads);
    step.kv_heads = static_cast<std::int32_t>(out.shape.kv_heads);
    step.head_dim = static_cast<std::int32_t>(out.shape.head_dim);
    step.padded_dim = padded_dim;
    step.query_scale = static_cast<float>(spec.query_scale);
    step.type = kTypeNumber;
    state.queue.add(
        product_step(state, x.data, prepared, rows, qkv.in_features, product, DType::f32));
    state.queue.add(step);
  }

  static void attention(Context& context, const Batch& batch, const AttentionInputs& inputs,
                        const AttentionRule& rule, const RowSelection* selection, Operand out) {
    if (out.rows == 0) return;
    State& state = state_of(context);
    AttendStep step;
    step.out = out.data;
    step.heads = static_cast<std::int32_t>(inputs.shape.heads);
    step.kv_heads = static_cast<std::int32_t>(inputs.shape.kv_heads);
    step.head_dim = static_cast<std::int32_t>(inputs.shape.head_dim);
    step.padded_dim = padded_head_dim(inputs.shape.head_dim);
    step.row_step = (step.heads + 2 * step.kv_heads) * step.padded_dim;
    const auto* projected = static_cast<const Element*>(inputs.data);
    step.query = projected;
    step.key = projected + step.heads * step.padded_dim;
    step.value = projected + (step.heads + step.kv_heads) * step.padded_dim;
    step.causal = rule.causal ? 1 : 0;
    step.window = rule.window;
    step.softcap = rule.softcap;
    step.score_scale = state.score_scale;
    step.type = static_cast<std::int32_t>(kTypeNumber);
    const std::int64_t group = step.heads / step.kv_heads;
    step.tile_rows = tile_rows(kType, step.padded_dim, out.rows * group / batch.size());
    step.packed = packed_heads(inputs.shape, step.tile_rows);
    const std::vector<QueryTile> tiles = query_tiles(
        selection == nullptr ? batch.cu_seqlens : selection->cu_rows, step.tile_rows / step.packed);
    const std::vector<KeySpan> sequences = key_spans(batch);
    state.staging.begin_op(state.queue, batch.total_tokens() + batch.size());
    const std::int64_t num_tiles = bucket(static_cast<std::int64_t>(tiles.size()));
    step.num_tiles = static_cast<std::int32_t>(num_tiles);
    step.tiles = stage<QueryTile>(state, tiles, num_tiles);
    step.sequences = stage<KeySpan>(state, sequences, bucket(batch.size()));
    if (selection != nullptr) {
      step.query_rows = stage<std::int32_t>(state, selection->rows, bucket(out.rows));
    }
    state.queue.add(step);
  }

  static void linear_add(Context& context, const Operand& in, const Linear& linear,
                         const AddSpec& spec, Residual x, Operand* out) {
    State& state = state_of(context);
    const auto& prepared = state.hold<PreparedLinear>(linear.handle);
    const std::int64_t rows = bucket(x.rows);
    float* product = scratch_floats(state, x.rows, prepared.columns);
    state.queue.add(
        product_step(state, in.data, prepared, rows, linear.in_features, product, DType::f32));
    AddNormStep step = row_step(x, kType);
    step.product = product;
    step.bias = prepared.bias.on<float>(state.queue.device());
    step.product_norm = norm_step(state, spec.product_norm);
    step.sum_norm = norm_step(state, spec.sum_norm);
    step.next_norm = norm_step(state, spec.next_norm);
    step.written_residual = static_cast<float*>(x.data);
    step.out = out == nullptr ? nullptr : out->data;
    step.factor = static_cast<float>(spec.factor);
    state.queue.add(step);
  }

  static void linear_activation(Context& context, const Operand& in, const Linear& linear,
                                Activation activation, Operand out) {
    State& state = state_of(context);
    const auto& prepared = state.hold<PreparedLinear>(linear.handle);
    const std::int64_t rows = bucket(in.rows);
    state.queue.add(finished(
        state, product_step(state, in.data, prepared, rows, linear.in_features, out.data, kType),
        prepared, activation));
  }

  static void linear_gated(Context& context, const Operand& in, const Linear& gate_up,
                           Activation activation, Operand out) {
    State& state = state_of(context);
    const auto& prepared = state.hold<PreparedLinear>(gate_up.handle);
    const std::int64_t rows = bucket(in.rows);
    void* product = state.scratch(in.rows, [&](std::int64_t most) {
      return piece_bytes(most, prepared.columns, sizeof(Element));
    });
    state.queue.add(
        product_step(state, in.data, prepared, rows, gate_up.in_features, product, kType));
    GateStep step;
    step.product = product;
    step.bias = prepared.bias.on<float>(state.queue.device());
    step.out = out.data;
    step.rows = rows;
    step.columns = static_cast<std::int32_t>(gate_up.out_features);
    step.activation = static_cast<std::int32_t>(activation);
    step.type = kTypeNumber;
    state.queue.add(step);
  }

  static void mean_rows(Context& context, const Residual& x, std::span<const RowSpan> spans,
                        Residual out) {
    if (out.rows == 0) return;
    State& state = state_of(context);
    const std::int64_t rows = bucket(out.rows);
    state.staging.begin_op(state.queue, out.rows);
    MeanRowsStep step;
    step.x = static_cast<const float*>(x.data);
    step.spans =
        &stage<RowSpan>(state, spans.first(static_cast<std::size_t>(out.rows)), rows, RowSpan{0, 1})
             ->begin;
    step.out = static_cast<float*>(out.data);
    step.rows = static_cast<std::int32_t>(rows);
    step.width = static_cast<std::int32_t>(x.width);
    state.queue.add(step);
  }

  // Block by block of rows, so that neither the memory nor that of the results, which a batch of
  // vectors for every token would make large, grows with the batch.
  static void head(Context& context, const Residual& x, const HeadSpec& spec,
                   std::span<double> out) {
    const std::int64_t kept = head_columns(spec, x.width);
    check_width(kept);
    for (std::int64_t first = 0; first < x.rows; first += kHeadRows) {
      const std::int64_t rows = std::min(kHeadRows, x.rows - first);
      const Residual block{static_cast<float*>(x.data) + first * x.width, rows, x.width};
      head_block(state_of(context), block, spec,
                 out.subspan(static_cast<std::size_t>(first * kept),
                             static_cast<std::size_t>(rows * kept)));
    }
  }

  static void clear_residual(Context& context, Residual x) {
    state_of(context).queue.add(ClearStep{x.data, residual_bytes(x.rows, x.width)});
  }

  static void read_residual(Context& context, const Residual& x, std::span<double> out) {
    read<float>(context, x.data, out);
  }
  static void read_operand(Context& context, const Operand& x, std::span<double> out) {
    read<Element>(context, x.data, out);
  }

  static Backend table() {
    Backend backend;
    backend.name = kType == DType::f32 ? "cuda" : kType == DType::bf16 ? "cuda bf16" : "cuda f16";
    backend.compute = backend.sensitive = kType;
    backend.device = Device::cuda;
    backend.group_tokens = kDeviceGroupTokens;
    backend.lanes = kLanesPerDevice * static_cast<int>(devices().size());
    backend.make_state = make_state;
    backend.allocate = allocate;
    backend.finish = finish;
    backend.attention_room = attention_room;
    fill_ops<Ops>(backend);
    return backend;
  }

 private:
  // What cuBLAS's fastest kernels want of addresses.
  static constexpr std::size_t kAlignment = 256;
  // Rows of a head that are computed at once; a bucket, so that the last block reads no row past
  // those of x.
  static constexpr std::int64_t kHeadRows = 1024;

  static State& state_of(Context& context) { return *static_cast<State*>(context.state.get()); }

  static void check_width(std::int64_t width) {
    check(width <= kMaxWidth, ErrorClass::unsupported, "rows of ", width,
          " columns, the kernels of cuda have at most ", kMaxWidth);
  }

  static std::size_t piece_bytes(std::int64_t rows, std::int64_t width, std::size_t element_bytes) {
    const std::size_t bytes = static_cast<std::size_t>(bucket(rows) * width) * element_bytes;
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  static float* scratch_floats(State& state, std::int64_t rows, std::int64_t width) {
    return static_cast<float*>(state.scratch(
        rows, [&](std::int64_t most) { return piece_bytes(most, width, sizeof(float)); }));
  }

  static void upload_bias(const LinearPart& part, std::size_t rows, std::size_t first, DType dtype,
                          const Replicas& bias) {
    const std::size_t bytes = dtype_size(dtype);
    if (part.bias.data != nullptr) {
      bias.upload(part.bias, dtype, first * bytes);
    } else {
      const std::vector<std::byte> zeros(rows * bytes);
      bias.upload(zeros.data(), zeros.size(), first * bytes);
    }
  }

  template <class T>
  static const T* stage(State& state, std::span<const T> values, std::int64_t count, T fill = {}) {
    return state.staging.stage(state.queue, values, count, fill);
  }

  static TableRows table_rows(State& state, const Table* table, std::span<const std::int32_t> ids,
                              std::int64_t rows) {
    if (table == nullptr) return {};
    const auto& prepared = state.hold<PreparedTable>(table->handle);
    return {prepared.rows.on<std::byte>(state.queue.device()),
            ids.empty() ? nullptr : stage<std::int32_t>(state, ids, rows),
            static_cast<std::int64_t>(prepared.dtype)};
  }

  static NormStep norm_step(State& state, const Norm* norm) {
    if (norm == nullptr) return {};
    const auto vector = [&](const Handle& handle) -> const float* {
      if (handle == nullptr) return nullptr;
      return state.hold<Replicas>(handle).template on<float>(state.queue.device());
    };
    return {vector(norm->weight), vector(norm->bias), norm->eps,
            static_cast<std::int32_t>(norm->kind) + 1};
  }

  // A pass over the rows of x that changes nothing yet.
  static AddNormStep row_step(const Residual& x, DType out_type) {
    AddNormStep step;
    step.residual = static_cast<const float*>(x.data);
    step.rows = static_cast<std::int32_t>(bucket(x.rows));
    step.width = static_cast<std::int32_t>(x.width);
    step.type = static_cast<std::int32_t>(out_type);
    return step;
  }

  // y (rows, columns) = x (rows, width) w^T.
  static ProductStep product_step(State& state, const void* x, const PreparedLinear& prepared,
                                  std::int64_t rows, std::int64_t width, void* y, DType out_type) {
    ProductStep step;
    step.x = x;
    step.w = prepared.weight.on<std::byte>(state.queue.device());
    step.y = y;
    step.rows = rows;
    step.columns = prepared.columns;
    step.width = width;
    step.type = static_cast<std::int32_t>(prepared.dtype);
    step.out_type = static_cast<std::int32_t>(out_type);
    return step;
  }

  // The same with the layer's bias and an activation.
  static ProductStep finished(State& state, ProductStep step, const PreparedLinear& prepared,
                              Activation activation) {
    const int device = state.queue.device();
    step.bias = prepared.bias.on<float>(device);
    step.rounded_bias = step.out_type == static_cast<std::int32_t>(DType::f32)
                            ? static_cast<const void*>(step.bias)
                            : prepared.rounded_bias.on<Element>(device);
    step.activation = static_cast<std::int32_t>(activation);
    return step;
  }

  // Some rows of head().
  static void head_block(State& state, const Residual& x, const HeadSpec& spec,
                         std::span<double> out) {
    const std::int64_t rows = bucket(x.rows);
    const std::int64_t kept = head_columns(spec, x.width);
    const std::int64_t dense = spec.dense == nullptr ? 0 : spec.dense->out_features;
    const std::int64_t last = spec.out == nullptr ? 0 : spec.out->out_features;
    const std::size_t normed_bytes = piece_bytes(kHeadRows, x.width, sizeof(float));
    const std::size_t dense_bytes = piece_bytes(kHeadRows, dense, sizeof(float));
    const std::size_t last_bytes = piece_bytes(kHeadRows, last, sizeof(float));
    auto* free = static_cast<std::byte*>(
        state.scratch(0, [&](std::int64_t) { return normed_bytes + dense_bytes + last_bytes; }));
    const void* y = x.data;
    FinishHeadStep finish_step;
    finish_step.columns = static_cast<std::int32_t>(x.width);
    if (spec.norm != nullptr) {
      AddNormStep step = row_step(x, DType::f32);
      step.next_norm = norm_step(state, spec.norm);
      step.out = free;
      state.queue.add(step);
      y = std::exchange(free, free + normed_bytes);
    }
    if (spec.dense != nullptr) {
      const auto& prepared = state.hold<PreparedLinear>(spec.dense->handle);
      const ProductStep product =
          product_step(state, y, prepared, rows, spec.dense->in_features, free, DType::f32);
      state.queue.add(finished(state, product, prepared, spec.dense_activation));
      finish_step.columns = static_cast<std::int32_t>(dense);
      y = std::exchange(free, free + dense_bytes);
    }
    if (spec.out != nullptr) {
      const auto& prepared = state.hold<PreparedLinear>(spec.out->handle);
      state.queue.add(
          product_step(state, y, prepared, rows, spec.out->in_features, free, DType::f32));
      finish_step.columns = static_cast<std::int32_t>(last);
      finish_step.bias = prepared.bias.on<float>(state.queue.device());
      finish_step.activation = static_cast<std::int32_t>(spec.out_activation);
      y = free;
    }
    const std::size_t most_bytes = piece_bytes(kHeadRows, kept, sizeof(float));
    finish_step.product = static_cast<const float*>(y);
    finish_step.out = static_cast<float*>(state.results(most_bytes));
    finish_step.rows = static_cast<std::int32_t>(rows);
    finish_step.kept = static_cast<std::int32_t>(kept);
    finish_step.softcap = spec.softcap;
    finish_step.l2_normalize = spec.l2_normalize ? 1 : 0;
    const auto* results = static_cast<const float*>(state.host_results(most_bytes));
    state.queue.add(finish_step);
    state.queue.add(CopyStep{const_cast<float*>(results), finish_step.out,
                             piece_bytes(rows, kept, sizeof(float)), 0});
    state.wait();
    std::copy_n(results, x.rows * kept, out.begin());
  }

  // The most heads of a group, dividing it, that fit a tile of `most` rows.
  static std::int32_t packed_heads(const AttentionShape& shape, std::int32_t most) {
    const auto group = static_cast<std::int32_t>(shape.heads / shape.kv_heads);
    std::int32_t packed = std::min(group, most);
    while (group % packed != 0) --packed;
    return packed;
  }

  static std::vector<QueryTile> query_tiles(std::span<const std::int32_t> cu_rows,
                                            std::int32_t positions) {
    std::vector<QueryTile> tiles;
    for (std::size_t s = 0; s + 1 < cu_rows.size(); ++s) {
      for (std::int32_t row = cu_rows[s]; row < cu_rows[s + 1]; row += positions) {
        tiles.push_back(
            {static_cast<std::int32_t>(s), row, std::min(positions, cu_rows[s + 1] - row), 0});
      }
    }
    return tiles;
  }

  static std::vector<KeySpan> key_spans(const Batch& batch) {
    std::vector<KeySpan> spans;
    for (std::int64_t s = 0; s < batch.size(); ++s) {
      const auto index = static_cast<std::size_t>(s);
      KeySpan span;
      span.own_begin = batch.cu_seqlens[index];
      span.own_length = batch.length(s);
      const std::int32_t prefix = batch.prefix_of(s);
      if (prefix >= 0) {
        span.prefix_begin = batch.cu_seqlens[static_cast<std::size_t>(prefix)];
        span.prefix_length = span.block_end = batch.length(prefix);
      } else if (!batch.shareable.empty()) {
        span.block_end = batch.shareable[index];
      }
      spans.push_back(span);
    }
    return spans;
  }

  template <class T>
  static void read(Context& context, const void* data, std::span<double> out) {
    State& state = state_of(context);
    const std::size_t bytes = out.size() * sizeof(T);
    const auto* values = static_cast<const T*>(state.host_results(bytes));
    state.queue.add(CopyStep{const_cast<T*>(values), data, bytes, 0});
    state.wait();
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = to_real<double>(values[i]);
  }
};

// The tables of the devices found: products in f32, or in bf16 or f16 with sums in f32. Throws
// Error: device, unsupported (another type).
template <class = void>
const Backend& backend(DType compute) {
  switch (compute) {
    case DType::f32: {
      static const Backend f32 = Ops<float>::table();
      return f32;
    }
    case DType::bf16: {
      static const Backend bf16_operands = Ops<bf16>::table();
      return bf16_operands;
    }
    case DType::f16: {
      static const Backend f16_operands = Ops<f16>::table();
      return f16_operands;
    }
    default:
      fail(ErrorClass::unsupported, "cuda computes in f32, bf16 or f16, not in ",
           dtype_name(compute));
  }
}

}  // namespace terse::cuda
