// The encoder of BERT and XLM-RoBERTa (Devlin et al. 2019, arXiv:1810.04805; Conneau et al. 2020,
// arXiv:1911.02116): config, weights, one forward pass. Post-norm blocks over bidirectional
// attention; XLM-R differs by where its positions start. Its heads are in bert_reranker.h and
// bert_embedder.h. Source of the mathematics: transformers 4.46, modeling_bert.py and
// modeling_xlm_roberta.py.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "terse/layers/embedding.h"
#include "terse/layers/linear.h"
#include "terse/layers/norm.h"
#include "terse/layers/selection.h"
#include "terse/models/config.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/models/trace.h"
#include "terse/view.h"
#include "terse/weights.h"

namespace terse {

struct BertConfig {
  std::string model_type;  // "bert" or "xlm-roberta"
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t max_position_embeddings = 0;
  std::int64_t type_vocab_size = 0;
  std::int64_t pad_token_id = 0;
  std::int64_t num_labels = 1;
  double layer_norm_eps = 0;
  Activation hidden_act = Activation::gelu_erf;
  bool xlm_roberta = false;
  bool fused_names = false;  // jina-reranker-v2: stacked q, k, v rows and its own module names

  std::int64_t head_dim() const { return hidden_size / num_attention_heads; }
  // XLM-R counts positions from pad_token_id + 1.
  std::int64_t first_position() const { return xlm_roberta ? pad_token_id + 1 : 0; }
  std::int64_t max_tokens() const { return max_position_embeddings - first_position(); }

  // Throws Error (config.h) for anything the forward pass below does not implement.
  static BertConfig from(const Config& config, std::string_view model_type) {
    BertConfig c;
    c.model_type = model_type;
    c.xlm_roberta = model_type != "bert";
    c.vocab_size = config.integer("vocab_size", 1, ConfigLimits::kVocabulary);
    c.hidden_size = config.integer("hidden_size", 1, ConfigLimits::kWidth);
    c.num_hidden_layers = config.integer("num_hidden_layers", 1, ConfigLimits::kLayers);
    c.num_attention_heads = config.integer("num_attention_heads", 1, ConfigLimits::kHeads);
    c.intermediate_size = config.integer("intermediate_size", 1, ConfigLimits::kWidth);
    c.max_position_embeddings =
        config.integer("max_position_embeddings", 1, ConfigLimits::kPositions);
    c.type_vocab_size = config.integer_or("type_vocab_size", 2, 1, ConfigLimits::kVocabulary);
    c.pad_token_id = config.integer_or("pad_token_id", c.xlm_roberta ? 1 : 0, 0, c.vocab_size - 1);
    c.layer_norm_eps = config.number_or("layer_norm_eps", 1e-12, 0, 1);
    c.hidden_act = config.activation("hidden_act", "gelu");
    c.num_labels = labels(config);
    c.fused_names = config.boolean_or("use_flash_attn", false);
    config.require("position_embedding_type", "absolute");
    config.refuse("quantization_config");
    config.refuse("emb_pooler");
    check(c.hidden_size % c.num_attention_heads == 0, ErrorClass::range, config.source(),
          ": hidden_size ", c.hidden_size, " is not divisible by num_attention_heads ",
          c.num_attention_heads);
    check(c.max_tokens() >= 1, ErrorClass::range, config.source(), ": max_position_embeddings ",
          c.max_position_embeddings, " leaves no position after pad_token_id ", c.pad_token_id);
    return c;
  }

 private:
  static std::int64_t labels(const Config& config) {
    constexpr std::int64_t kMost = 1 << 16;
    if (!config.has("id2label")) return config.integer_or("num_labels", 1, 1, kMost);
    const JsonValue names = *config.root().find("id2label");
    check(names.is_object(), ErrorClass::type, config.source(), ": id2label is ", names.describe(),
          ", expected an object");
    check(names.size() > 0, ErrorClass::range, config.source(), ": id2label is empty");
    return static_cast<std::int64_t>(names.size());
  }
};

class Bert {
 public:
  // `weights` is the scope that holds `embeddings` and `encoder`.
  Bert(const BertConfig& config, const Weights& weights, const Loader& loader)
      : config_(config), backend_(loader.backend) {
    const Backend& backend = *loader.backend;
    const std::int64_t width = config.hidden_size;
    const Weights embeddings = weights.scope("embeddings");
    word_embeddings_ =
        load_table(backend, embeddings.scope("word_embeddings"), config.vocab_size, width);
    position_embeddings_ = load_table(backend, embeddings.scope("position_embeddings"),
                                      config.max_position_embeddings, width);
    token_type_embeddings_ = load_table(backend, embeddings.scope("token_type_embeddings"),
                                        config.type_vocab_size, width);
    embeddings_norm_ = load_layer_norm(
        backend, config.fused_names ? weights.scope("emb_ln") : embeddings.scope("LayerNorm"),
        width, config.layer_norm_eps);
    const std::string_view layers = config.fused_names ? "encoder.layers" : "encoder.layer";
    for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      layers_.push_back(load_layer(loader, weights.scope(layers, layer),
                                   layer_dtype(backend, layer, config.num_hidden_layers)));
    }
  }

  const BertConfig& config() const { return config_; }

  // Packs rows with the positions of this model into the context's batch. Throws Error(limit) if a
  // row is too long, range if an id or type has no embedding.
  const Batch& pack(Context& context, std::span<const Input* const> inputs) const {
    Batch& batch = context.batch;
    terse::pack(inputs, &batch);
    for (std::int64_t s = 0; s < batch.size(); ++s) {
      check(batch.length(s) <= config_.max_tokens(), ErrorClass::limit, "a row of ",
            batch.length(s), " tokens, the model has positions for ", config_.max_tokens());
    }
    for (const std::int32_t type : batch.type_ids) {
      check(type < config_.type_vocab_size, ErrorClass::range, "token type ", type,
            ", the model has ", config_.type_vocab_size);
    }
    if (config_.xlm_roberta) number_like_fairseq(batch);
    return batch;
  }

  // What a forward pass leaves in the context's arena, until the next one.
  struct Output {
    Residual rows;   // after the last block: the selected rows, or all of them
    Residual spare;  // (batch, hidden_size), unused: for pooling all rows
  };

  // With selection null all rows go through the last block.
  Output forward(Context& context, const Batch& batch, const RowSelection* selection,
                 Tracer* tracer) const {
    Buffers buffers;
    context.arena.measure();
    buffers.take(context, *this, batch, selection, tracer);
    context.arena.reserve();
    buffers.take(context, *this, batch, selection, tracer);

    const EmbedSpec embeddings{&word_embeddings_, &position_embeddings_, &token_type_embeddings_, 1,
                               &embeddings_norm_};
    buffers.operand.dtype = layers_.front().qkv.compute;
    context.rows += static_cast<std::uint64_t>(batch.total_tokens());
    backend_->embed(context, batch, embeddings, buffers.residual, nullptr, &buffers.operand);
    if (tracer != nullptr) tracer->residual(context, "embeddings", buffers.residual);

    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
      const bool last = layer + 1 == layers_.size();
      run_layer(context, batch, layers_[layer], buffers, last ? selection : nullptr, tracer,
                tracer == nullptr ? "" : "encoder.layer." + std::to_string(layer));
    }
    return {buffers.residual, buffers.selected};
  }

 private:
  struct Layer {
    Linear qkv;               // attention.self.{query,key,value}
    Linear attention_output;  // attention.output.dense
    Norm attention_norm;      // attention.output.LayerNorm
    Linear intermediate;      // intermediate.dense
    Linear output;            // output.dense
    Norm output_norm;         // output.LayerNorm
  };

  struct Buffers {
    Residual residual;     // (tokens, hidden_size)
    Residual selected;     // (selected rows, hidden_size)
    Residual product;      // (tokens, hidden_size), only when tracing
    Operand operand;       // (tokens, hidden_size)
    AttentionInputs qkv;   // (tokens, 3 * hidden_size), and
    Operand attended;      // (tokens, hidden_size), where
    Operand intermediate;  // (tokens, intermediate_size) lies later: smaller is faster in caches

    void take(Context& context, const Bert& bert, const Batch& batch, const RowSelection* selection,
              const Tracer* tracer) {
      const BertConfig& config = bert.config_;
      const std::int64_t tokens = batch.total_tokens();
      residual = make_residual(context, tokens, config.hidden_size);
      operand = make_operand(context, tokens, config.hidden_size);
      const std::int64_t scored =
          selection == nullptr ? batch.size() : static_cast<std::int64_t>(selection->rows.size());
      selected = make_residual(context, scored, config.hidden_size);
      if (tracer != nullptr) product = make_residual(context, tokens, config.hidden_size);
      const std::size_t shared = context.arena.used();
      qkv = make_attention_inputs(context, batch, bert.shape());
      attended = make_operand(context, tokens, config.hidden_size);
      context.arena.rewind(shared);
      intermediate = make_operand(context, tokens, config.intermediate_size);
    }
  };

  AttentionShape shape() const {
    return {config_.num_attention_heads, config_.num_attention_heads, config_.head_dim()};
  }

  // One block: x = LN(x + attention(x)); x = LN(x + W2 act(W1 x)). With a selection only those rows
  // go on after attention, since nothing reads the others any more.
  void run_layer(Context& context, const Batch& batch, const Layer& layer, Buffers& b,
                 const RowSelection* selection, Tracer* tracer, const std::string& name) const {
    const ProjectSpec project{1 / std::sqrt(static_cast<double>(config_.head_dim())), nullptr,
                              selection};
    b.operand.dtype = layer.qkv.compute;
    b.intermediate.dtype = layer.output.compute;
    if (selection != nullptr) b.attended.rows = static_cast<std::int64_t>(selection->rows.size());
    if (selection != nullptr && attends_selected(*backend_, shape())) {
      backend_->attend_selected(context, batch, b.operand, layer.qkv, project, b.qkv, b.attended);
    } else {
      backend_->project_qkv(context, batch, b.operand, layer.qkv, project, b.qkv);
      backend_->attention(context, batch, b.qkv, AttentionRule{}, selection, b.attended);
    }
    if (selection != nullptr) {
      b.operand.rows = b.intermediate.rows = b.attended.rows;
      fill_spans(*selection, &context.spans);
      backend_->mean_rows(context, b.residual, view(context.spans), b.selected);
      b.residual = b.selected;
    }
    if (tracer != nullptr) {
      tracer->operand(context, name + ".attention.self", b.attended);
      trace_product(context, *tracer, name + ".attention.output.dense", b.attended,
                    layer.attention_output, b.product);
    }
    Operand next = b.operand;
    next.dtype = layer.intermediate.compute;
    const AddSpec add_attention{.sum_norm = &layer.attention_norm};
    backend_->linear_add(context, b.attended, layer.attention_output, add_attention, b.residual,
                         &next);
    if (tracer != nullptr) tracer->residual(context, name + ".attention.output", b.residual);

    backend_->linear_activation(context, next, layer.intermediate, config_.hidden_act,
                                b.intermediate);
    if (tracer != nullptr) tracer->operand(context, name + ".intermediate", b.intermediate);
    const bool last = &layer == &layers_.back();
    if (!last) next.dtype = (&layer + 1)->qkv.compute;
    const AddSpec add_output{.sum_norm = &layer.output_norm};
    backend_->linear_add(context, b.intermediate, layer.output, add_output, b.residual,
                         last ? nullptr : &next);
    if (tracer != nullptr) tracer->residual(context, name + ".output", b.residual);
  }

  Layer load_layer(const Loader& loader, const Weights& scope, DType dtype) const {
    const std::int64_t width = config_.hidden_size;
    const std::int64_t wide = config_.intermediate_size;
    const double eps = config_.layer_norm_eps;
    const auto linear = [&](const Weights& at, std::int64_t out, std::int64_t in) {
      return load_linear(loader, at, out, in, Bias::required, dtype);
    };
    const auto qkv = [&](std::span<const LinearModule> modules) {
      return load_linear(loader, LinearKind::qkv, modules, Bias::required, dtype);
    };
    Layer layer;
    if (config_.fused_names) {
      const LinearModule stacked{scope.scope("mixer").scope("Wqkv"), 3 * width, width};
      layer.qkv = qkv({&stacked, 1});
      layer.attention_output = linear(scope.scope("mixer").scope("out_proj"), width, width);
      layer.attention_norm = load_layer_norm(*backend_, scope.scope("norm1"), width, eps);
      layer.intermediate = linear(scope.scope("mlp").scope("fc1"), wide, width);
      layer.output = linear(scope.scope("mlp").scope("fc2"), width, wide);
      layer.output_norm = load_layer_norm(*backend_, scope.scope("norm2"), width, eps);
      return layer;
    }
    const Weights attention = scope.scope("attention");
    const Weights self = attention.scope("self");
    const std::array modules = {LinearModule{self.scope("query"), width, width},
                                LinearModule{self.scope("key"), width, width},
                                LinearModule{self.scope("value"), width, width}};
    layer.qkv = qkv(modules);
    layer.attention_output = linear(attention.scope("output").scope("dense"), width, width);
    layer.attention_norm =
        load_layer_norm(*backend_, attention.scope("output").scope("LayerNorm"), width, eps);
    layer.intermediate = linear(scope.scope("intermediate").scope("dense"), wide, width);
    layer.output = linear(scope.scope("output").scope("dense"), width, wide);
    layer.output_norm =
        load_layer_norm(*backend_, scope.scope("output").scope("LayerNorm"), width, eps);
    return layer;
  }

  // XLM-R positions: padding ids stand at pad_token_id and are not counted, all others count up
  // from pad_token_id + 1. They follow from the ids, so a literal <pad> inside a text shifts what
  // follows.
  void number_like_fairseq(Batch& batch) const {
    const auto pad = static_cast<std::int32_t>(config_.pad_token_id);
    for (std::int64_t s = 0; s < batch.size(); ++s) {
      std::int32_t position = pad;
      for (auto t = static_cast<std::size_t>(batch.cu_seqlens[static_cast<std::size_t>(s)]);
           t < static_cast<std::size_t>(batch.cu_seqlens[static_cast<std::size_t>(s) + 1]); ++t) {
        batch.positions[t] = batch.token_ids[t] == pad ? pad : ++position;
      }
    }
  }

  BertConfig config_;
  const Backend* backend_;
  Table word_embeddings_;
  Table position_embeddings_;
  Table token_type_embeddings_;
  Norm embeddings_norm_;
  std::vector<Layer> layers_;
};

// What `inspect` and results say of an encoder; the caller adds its role.
inline ModelInfo bert_info(const ModelFolder& folder, const BertConfig& config) {
  ModelInfo info = folder.info();
  info.architecture = config.xlm_roberta ? "XLM-RoBERTa" : "BERT";
  info.model_type = config.model_type;
  info.num_hidden_layers = config.num_hidden_layers;
  info.hidden_size = config.hidden_size;
  info.intermediate_size = config.intermediate_size;
  info.num_attention_heads = info.num_key_value_heads = config.num_attention_heads;
  info.head_dim = config.head_dim();
  info.vocab_size = config.vocab_size;
  info.max_tokens = config.max_tokens();
  return info;
}

// The scope below which a checkpoint keeps the encoder: "roberta" or "bert" in models with a head,
// none in bare encoders.
inline Weights encoder_scope(const BertConfig& config, const Weights& weights) {
  const std::string_view prefix = config.xlm_roberta ? "roberta" : "bert";
  const Weights inside = weights.scope(prefix);
  return inside.has("embeddings.word_embeddings.weight") ? inside : weights;
}

}  // namespace terse
