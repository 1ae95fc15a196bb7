// What the decoders of the family share around their blocks: the fields their configs have in
// common, the buffers of a forward pass, and the loop over blocks with exits and token compression.
// The blocks themselves are each model's own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/layers/attention.h"
#include "terse/layers/feed_forward.h"
#include "terse/layers/rotary.h"
#include "terse/layers/selection.h"
#include "terse/layers/token_compression.h"
#include "terse/models/config.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/models/paused_pass.h"
#include "terse/models/shared_prefix.h"
#include "terse/models/trace.h"
#include "terse/options.h"
#include "terse/view.h"

namespace terse {

struct DecoderConfig {
  std::string model_type;
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t max_position_embeddings = 0;  // a promise, not a bound: rotary positions never end
  double rope_theta = 0;
  double rms_norm_eps = 0;
  bool attention_bias = false;

  AttentionShape shape() const { return {num_attention_heads, num_key_value_heads, head_dim}; }
  Bias bias() const { return attention_bias ? Bias::required : Bias::none; }

  // default_head_dim: where the config has none; 0: hidden_size / num_attention_heads. Throws Error
  // (config.h) for what no decoder here implements.
  void read(const Config& config, double default_rms_norm_eps, std::int64_t default_head_dim) {
    constexpr std::int64_t kHeadDim = 4096;
    model_type = config.string_or("model_type", "");
    vocab_size = config.integer("vocab_size", 1, ConfigLimits::kVocabulary);
    hidden_size = config.integer("hidden_size", 1, ConfigLimits::kWidth);
    num_hidden_layers = config.integer("num_hidden_layers", 1, ConfigLimits::kLayers);
    num_attention_heads = config.integer("num_attention_heads", 1, ConfigLimits::kHeads);
    num_key_value_heads = config.optional_integer("num_key_value_heads", 1, ConfigLimits::kHeads)
                              .value_or(num_attention_heads);
    head_dim = config.optional_integer("head_dim", 1, kHeadDim).value_or(default_head_dim);
    intermediate_size = config.integer("intermediate_size", 1, ConfigLimits::kWidth);
    max_position_embeddings =
        config.integer("max_position_embeddings", 1, ConfigLimits::kPositions);
    rope_theta = config.number_or("rope_theta", 10000, 1, 1e12);
    rms_norm_eps = config.number_or("rms_norm_eps", default_rms_norm_eps, 0, 1);
    attention_bias = config.boolean_or("attention_bias", false);
    config.refuse("rope_scaling");
    config.refuse("rope_parameters");
    config.refuse("quantization_config");
    check(num_attention_heads % num_key_value_heads == 0, ErrorClass::range, config.source(),
          ": num_attention_heads ", num_attention_heads,
          " is not divisible by num_key_value_heads ", num_key_value_heads);
    if (head_dim == 0) {
      check(hidden_size % num_attention_heads == 0, ErrorClass::range, config.source(),
            ": hidden_size ", hidden_size, " is not divisible by num_attention_heads ",
            num_attention_heads);
      head_dim = hidden_size / num_attention_heads;
    }
    check(head_dim % 2 == 0, ErrorClass::range, config.source(), ": head_dim ", head_dim,
          ", expected an even number: rotary embedding turns pairs");
  }
};

// What `inspect` and results say of a decoder; the caller adds its role and what it can do.
inline ModelInfo decoder_info(const ModelFolder& folder, const DecoderConfig& config,
                              std::string_view architecture) {
  ModelInfo info = folder.info();
  info.architecture = architecture;
  info.causal = true;
  info.num_hidden_layers = config.num_hidden_layers;
  info.hidden_size = config.hidden_size;
  info.intermediate_size = config.intermediate_size;
  info.num_attention_heads = config.num_attention_heads;
  info.num_key_value_heads = config.num_key_value_heads;
  info.head_dim = config.head_dim;
  info.vocab_size = config.vocab_size;
  info.max_tokens = ConfigLimits::kPositions;
  return info;
}

// The scope below which a checkpoint keeps the trunk: "model" in models with a head, none in bare
// trunks.
inline Weights trunk_scope(const Weights& root) {
  return root.has("model.embed_tokens.weight") ? root.scope("model") : root;
}

// select_tail's count for "every row".
inline constexpr std::int32_t kAllRows = std::numeric_limits<std::int32_t>::max();

// What one forward pass is asked for.
struct DecoderRequest {
  const RunOptions* options;     // its exits are not empty
  std::int32_t scored_rows = 1;  // last rows of each sequence whose final state is wanted
  Savings savings = {};
  Tracer* tracer = nullptr;
};

// The lists of a decoder's passes, which keep their memory in a context.
struct DecoderMemory : PassMemory {
  RowPacker packer;
  PackedRows rows;
  Compression compression;

  // The one of a context, made in its first pass.
  static DecoderMemory& of(Context& context) {
    auto* memory = dynamic_cast<DecoderMemory*>(context.memory.get());
    if (memory == nullptr) {
      const auto made = std::make_shared<DecoderMemory>();
      context.memory = made;
      memory = made.get();
    }
    return *memory;
  }
};

// One forward pass on its way through the blocks: the batch as it is now and the activations, which
// lie in the context's arena until the next pass.
class DecoderPass {
 public:
  // A pass over inputs; what they have in common at their start is computed once if the request
  // asks for that. prefix: what the checkpoint's names of the trunk start with. Throws Error(limit)
  // if a row is longer than rotary tables go.
  DecoderPass(Context& context, const DecoderConfig& config, std::span<const Input* const> inputs,
              const DecoderRequest& request, std::string_view prefix)
      : DecoderPass(context, config, request, prefix, [&](DecoderMemory& memory) {
          memory.packer.pack(inputs, request.savings.share_prefix, &memory.rows);
        }) {}

  // One that goes on with the rows of a paused pass. Throws as above.
  DecoderPass(Context& context, const DecoderConfig& config, const PausedPass& paused,
              const DecoderRequest& request, std::string_view prefix)
      : DecoderPass(context, config, request, prefix,
                    [&](DecoderMemory& memory) { memory.rows = paused.rows(); }) {}

  const Batch& batch() const { return memory_->rows.batch; }
  const DecoderRequest& request() const { return request_; }
  Tracer* tracer() const { return request_.tracer; }

  // x = scale * embed_tokens[id], operand = norm(x).
  void embed(const Table& embed_tokens, double scale, const Norm& norm) {
    const EmbedSpec spec{.word = &embed_tokens, .scale = scale};
    operand_.dtype = dtype_of(0);
    context_->rows += static_cast<std::uint64_t>(batch().total_tokens());
    backend_->embed(*context_, batch(), spec, x_, &norm, &operand_);
    trace("embed_tokens", "", x_);
  }

  // Goes on with a paused pass over these rows at a layer: x as it was, operand = norm(x).
  void restore(const PausedPass& paused, std::int64_t layer, const Norm& norm) {
    paused.restore(*context_, x_);
    operand_.dtype = dtype_of(layer);
    backend_->norm(*context_, x_, &norm, operand_);
  }

  // Keeps in `paused` what restore() needs. Not after the last exit: rows are missing there.
  void pause(PausedPass& paused) { paused.pause(*context_, memory_->rows, x_); }

  void begin_layer(std::int64_t layer, bool last) {
    name_ = "layers." + std::to_string(layer);
    layer_ = layer;
    last_ = last;
  }

  // attended = attention(operand). In the last layer only for the rows that are scored: queries of
  // the others are not computed, and from here on x holds the scored rows alone.
  void attend(const SelfAttention& layer, const AttentionRule& rule, double query_scale,
              const RotaryTable& rotary) {
    const bool narrow = last_ && request_.savings.last_row_only && request_.tracer == nullptr &&
                        request_.scored_rows != kAllRows;
    const RowSelection* selection = narrow ? &context_->selection : nullptr;
    const ProjectSpec project{query_scale, &rotary, selection};
    backend_->project_qkv(*context_, batch(), operand_, layer.qkv, project, inputs_);
    if (narrow) keep(scored_spans());
    backend_->attention(*context_, batch(), inputs_, rule, selection, attended_);
    if (tracer() == nullptr) return;
    tracer()->operand(*context_, full_name(".self_attn"), attended_);
    trace_product(*context_, *tracer(), full_name(".self_attn.o_proj"), attended_, layer.o_proj,
                  product_);
  }

  // x += factor * W attended, as spec says; operand = spec.next_norm(x).
  void add_attended(const Linear& o_proj, const AddSpec& spec) {
    operand_.dtype = dtype_of(layer_);
    backend_->linear_add(*context_, attended_, o_proj, spec, x_, &operand_);
    trace(name_, ".self_attn.residual", x_);
  }

  // x += factor * down(activation(gate operand) * up operand), as spec says; operand =
  // spec.next_norm(x), or is left alone if that is null.
  void feed_forward(const GatedFeedForward& layer, Activation activation, const AddSpec& spec) {
    gated_.dtype = layer.down_proj.compute;
    backend_->linear_gated(*context_, operand_, layer.gate_up, activation, gated_);
    if (tracer() != nullptr) {
      tracer()->operand(*context_, full_name(".mlp.gated"), gated_);
    }
    operand_.dtype = dtype_of(layer_ + 1);
    backend_->linear_add(*context_, gated_, layer.down_proj, spec, x_,
                         spec.next_norm == nullptr ? nullptr : &operand_);
    trace(name_, "", x_);
  }

  // Averages runs of passage rows; operand = norm(x).
  void compress(std::int64_t layer, std::int64_t ratio, const Norm& norm) {
    Compression& compression = memory_->compression;
    terse::compress(batch(), view(memory_->rows.segments), static_cast<std::int32_t>(ratio),
                    &compression);
    keep(view(compression.spans));
    std::swap(memory_->rows.batch, compression.batch);
    select_tail(batch(), request_.scored_rows, &context_->selection);
    inputs_.query_rows = inputs_.key_rows = batch().total_tokens();
    operand_.dtype = dtype_of(layer);
    backend_->norm(*context_, x_, &norm, operand_);
    trace("layers." + std::to_string(layer), ".compressed", x_);
  }

  // The rows that are scored, in the state after the blocks run so far, in order of the inputs.
  Residual scored() {
    const auto scored_rows = static_cast<std::int64_t>(context_->selection.rows.size());
    if (x_.rows == scored_rows) return x_;
    Residual rows = spare_;
    rows.rows = scored_rows;
    backend_->mean_rows(*context_, x_, scored_spans(), rows);
    return rows;
  }

  // For traces: the final norm of all rows.
  void trace_norm(const Norm& norm) {
    if (tracer() == nullptr) return;
    operand_.dtype = backend_->sensitive;
    backend_->norm(*context_, x_, &norm, operand_);
    tracer()->operand(*context_, std::string(prefix_) + "norm", operand_);
  }

 private:
  // fill_rows(memory): packs the rows that the pass begins with.
  template <class FillRows>
  DecoderPass(Context& context, const DecoderConfig& config, const DecoderRequest& request,
              std::string_view prefix, const FillRows& fill_rows)
      : context_(&context),
        backend_(context.backend),
        memory_(&DecoderMemory::of(context)),
        request_(request),
        num_layers_(config.num_hidden_layers),
        prefix_(prefix) {
    fill_rows(*memory_);
    select_tail(batch(), request.scored_rows, &context.selection);
    check(batch().max_position() < ConfigLimits::kPositions, ErrorClass::limit, "a row of ",
          batch().max_position() + 1, " tokens, at most ", ConfigLimits::kPositions);
    context.arena.measure();
    take(config);
    context.arena.reserve();
    take(config);
  }

  // For the batch as it is at first: compression only ever makes its sequences shorter.
  void take(const DecoderConfig& config) {
    const std::int64_t rows = batch().total_tokens();
    const bool compresses = !request_.options->compress_layers.empty();
    // Where all rows are scored they are read where they are.
    const auto scored = request_.scored_rows == kAllRows
                            ? std::int64_t{0}
                            : static_cast<std::int64_t>(context_->selection.rows.size());
    x_ = make_residual(*context_, rows, config.hidden_size);
    spare_ = make_residual(*context_, compresses ? rows : scored, config.hidden_size);
    operand_ = make_operand(*context_, rows, config.hidden_size);
    if (tracer() != nullptr) product_ = make_residual(*context_, rows, config.hidden_size);
    const std::size_t shared = context_->arena.used();
    inputs_ = make_attention_inputs(*context_, batch(), config.shape());
    attended_ = make_operand(*context_, rows, config.num_attention_heads * config.head_dim);
    context_->arena.rewind(shared);
    gated_ = make_operand(*context_, rows, config.intermediate_size);
  }

  DType dtype_of(std::int64_t layer) const { return layer_dtype(*backend_, layer, num_layers_); }

  std::span<const RowSpan> scored_spans() const {
    fill_spans(context_->selection, &context_->spans);
    return view(context_->spans);
  }

  // x becomes the means of the spans of its rows; every buffer then holds that many.
  void keep(std::span<const RowSpan> spans) {
    const auto rows = static_cast<std::int64_t>(spans.size());
    spare_.rows = rows;
    backend_->mean_rows(*context_, x_, spans, spare_);
    std::swap(x_, spare_);
    operand_.rows = attended_.rows = gated_.rows = rows;
  }

  // Of something in the layer under way.
  std::string full_name(std::string_view suffix) const {
    return std::string(prefix_).append(name_).append(suffix);
  }

  // A pass that is not traced builds no names.
  void trace(std::string_view name, std::string_view suffix, const Residual& residual) {
    if (tracer() == nullptr) return;
    std::string full(prefix_);
    full.append(name).append(suffix);
    tracer()->residual(*context_, full, residual);
  }

  Context* context_;
  const Backend* backend_;
  DecoderMemory* memory_;  // the batch as it is now; the rows scored are in the context
  DecoderRequest request_;
  std::int64_t num_layers_;  // of the model, run or not
  std::string_view prefix_;  // of the trunk's names: "model." or empty
  std::int64_t layer_ = 0;   // under way
  std::string name_;         // of it
  bool last_ = false;
  Residual x_;              // (rows, hidden_size): the residual stream
  Residual spare_;          // (rows or scored rows, hidden_size): where rows are averaged to
  Residual product_;        // (rows, hidden_size), only when tracing
  Operand operand_;         // (rows, hidden_size)
  AttentionInputs inputs_;  // (rows, (heads + 2 kv_heads) * head_dim), and
  Operand attended_;        // (rows, heads * head_dim), where
  Operand gated_;           // (rows, intermediate_size) lies later
};

// Runs the blocks of a range, which ends at an exit. Before block c: an exit at c is read,
// at_exit(number, rows); then the passages are compressed if c is a compress layer; so a
// compression never affects the exit at its own depth, and nothing runs past the last exit.
//   layers     LazyLayers of structs with an input_layernorm
//   run_layer  (index, layer, norm of the next operand or nullptr)
// Source: FlagEmbedding 1.4.0, gemma_model.py, CostWiseGemmaModel.forward.
template <class Layers, class RunLayer, class AtExit>
void run_layers(DecoderPass& pass, const Layers& layers, const LayerRange& range,
                RunLayer&& run_layer, AtExit&& at_exit) {
  const RunOptions& options = *pass.request().options;
  const auto compresses = [&](std::int64_t layer) {
    return std::binary_search(options.compress_layers.begin(), options.compress_layers.end(),
                              layer);
  };
  std::size_t exit = range.exit;
  for (std::int64_t index = range.begin; index <= range.end; ++index) {
    if (options.exits[exit] == index) at_exit(exit++, pass.scored());
    if (index == range.end) return;
    const auto& layer = layers[index];
    if (compresses(index)) pass.compress(index, options.compress_ratio, layer.input_layernorm);
    const bool has_reader = index + 1 < range.end && !compresses(index + 1);
    pass.begin_layer(index, index + 1 == options.exits.back());
    run_layer(index, layer, has_reader ? &layers[index + 1].input_layernorm : nullptr);
  }
}

// All blocks up to the last exit.
template <class Layers, class RunLayer, class AtExit>
void run_layers(DecoderPass& pass, const Layers& layers, RunLayer&& run_layer, AtExit&& at_exit) {
  run_layers(pass, layers, {0, pass.request().options->exits.back(), 0}, run_layer, at_exit);
}

}  // namespace terse
