// The shape of a model as its config.json says it, and the tensors that a checkpoint of that shape
// holds, without opening one: what costs are counted from (flops.h), models are made up from
// (synth.h) and published models are recognised by (published.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/model_info.h"
#include "terse/models/bert.h"
#include "terse/models/config.h"
#include "terse/models/gemma.h"
#include "terse/models/gemma2_reranker.h"
#include "terse/models/minicpm.h"
#include "terse/models/mistral_reranker.h"
#include "terse/models/registry.h"
#include "terse/tensor.h"

namespace terse {

struct ModelShape {
  std::string model_type;
  ModelRole role = ModelRole::reranker;
  bool causal = false;
  std::int64_t num_hidden_layers = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  std::int64_t max_tokens = 0;       // longest row
  std::int64_t type_vocab_size = 0;  // 0: no table of token types
  std::int64_t num_labels = 1;       // of a sequence classifier
  bool attention_bias = false;       // decoders; encoders have biases everywhere
  bool sandwich_norms = false;       // Gemma 2: norms after attention and feed-forward too
  bool norms_plus_one = false;       // a stored norm weight is an offset from 1
  bool vocabulary_head = false;      // lm_head apart from the embedding
  bool stacked_qkv = false;          // jina-reranker-v2's names
  bool compression = false;          // can compress passage tokens
  std::vector<std::int64_t> exits;   // layers with a scalar head of their own; empty: none

  std::int64_t query_width() const { return num_attention_heads * head_dim; }
  std::int64_t key_width() const { return num_key_value_heads * head_dim; }
  bool operator==(const ModelShape&) const = default;
};

namespace detail {

inline ModelShape encoder_shape(const BertConfig& config) {
  ModelShape shape;
  shape.num_hidden_layers = config.num_hidden_layers;
  shape.hidden_size = config.hidden_size;
  shape.intermediate_size = config.intermediate_size;
  shape.num_attention_heads = shape.num_key_value_heads = config.num_attention_heads;
  shape.head_dim = config.head_dim();
  shape.vocab_size = config.vocab_size;
  shape.max_position_embeddings = config.max_position_embeddings;
  shape.max_tokens = config.max_tokens();
  shape.type_vocab_size = config.type_vocab_size;
  shape.num_labels = config.num_labels;
  shape.stacked_qkv = config.fused_names;
  return shape;
}

inline ModelShape decoder_shape(const DecoderConfig& config) {
  ModelShape shape;
  shape.causal = true;
  shape.num_hidden_layers = config.num_hidden_layers;
  shape.hidden_size = config.hidden_size;
  shape.intermediate_size = config.intermediate_size;
  shape.num_attention_heads = config.num_attention_heads;
  shape.num_key_value_heads = config.num_key_value_heads;
  shape.head_dim = config.head_dim;
  shape.vocab_size = config.vocab_size;
  shape.max_position_embeddings = config.max_position_embeddings;
  shape.max_tokens = ConfigLimits::kPositions;
  shape.attention_bias = config.attention_bias;
  return shape;
}

inline ModelShape gemma_shape(const GemmaConfig& config) {
  ModelShape shape = decoder_shape(config);
  shape.norms_plus_one = true;
  shape.vocabulary_head = !config.tie_word_embeddings;
  return shape;
}

inline ModelShape gemma2_shape(const Gemma2Config& config) {
  ModelShape shape = decoder_shape(config);
  shape.norms_plus_one = shape.sandwich_norms = true;
  return shape;
}

inline ModelShape layer_wise(ModelShape shape, const ExitLayers& exits, bool compression) {
  shape.exits = exits.all();
  shape.compression = compression;
  return shape;
}

inline ModelShape shape_of_type(const Config& config, const std::string& type) {
  if (type == "bert" || type == "xlm-roberta") return encoder_shape(BertConfig::from(config, type));
  if (type == "gemma") return gemma_shape(GemmaConfig::from(config));
  if (type == "gemma2") return gemma2_shape(Gemma2Config::from(config));
  if (type == "minicpm") {
    const MiniCpmConfig c = MiniCpmConfig::from(config);
    return layer_wise(decoder_shape(c), c.exits, false);
  }
  if (type == "cost_wise_gemma") {
    const Gemma2RerankerConfig c = Gemma2RerankerConfig::from(config);
    return layer_wise(gemma2_shape(c), c.exits, true);
  }
  if (type == "cost_wise_mistral") {
    const MistralRerankerConfig c = MistralRerankerConfig::from(config);
    return layer_wise(decoder_shape(c), c.exits, true);
  }
  return decoder_shape(MistralConfig::from(config));  // mistral and llama
}

}  // namespace detail

// Throws Error: whatever a model's own reading of the config throws (models/config.h).
inline ModelShape read_model_shape(const Config& config) {
  const Architecture& architecture = find_architecture(config);
  ModelShape shape = detail::shape_of_type(config, std::string(architecture.model_type));
  shape.model_type = architecture.model_type;
  shape.role = architecture.is_reranker(config) ? ModelRole::reranker : ModelRole::embedder;
  return shape;
}

// What of a model a tensor belongs to.
enum class TensorPart : std::uint8_t {
  embedding,  // a table that rows are gathered from
  layer,      // of block `index`
  norm,       // the final norm, or that of the embeddings
  head,       // of a layer-wise model: of exit number `index`
  unused,     // published, but not read by this library
};

struct ExpectedTensor {
  std::string name;
  Shape shape;
  TensorPart part = TensorPart::layer;
  std::int64_t index = 0;

  std::uint64_t parameters() const { return element_count(shape); }
  bool is_matrix() const { return shape.size() == 2; }
};

namespace detail {

// Collects the tensors of one part under a prefix.
class TensorList {
 public:
  void begin(TensorPart part, std::string prefix, std::int64_t index = 0) {
    part_ = part;
    prefix_ = std::move(prefix);
    index_ = index;
  }
  void weight(std::string_view module, Shape shape) { add(module, ".weight", std::move(shape)); }
  void biased(std::string_view module, const Shape& shape) {
    weight(module, shape);
    add(module, ".bias", {shape[0]});
  }
  std::vector<ExpectedTensor> take() { return std::move(tensors_); }

 private:
  void add(std::string_view module, std::string_view kind, Shape shape) {
    std::string name = prefix_;
    name += module;
    name += kind;
    tensors_.push_back({std::move(name), std::move(shape), part_, index_});
  }

  std::vector<ExpectedTensor> tensors_;
  std::string prefix_;
  TensorPart part_ = TensorPart::layer;
  std::int64_t index_ = 0;
};

inline void list_encoder_layer(const ModelShape& shape, TensorList& list) {
  const std::int64_t width = shape.hidden_size;
  const std::int64_t wide = shape.intermediate_size;
  if (shape.stacked_qkv) {
    list.biased("mixer.Wqkv", {3 * width, width});
    list.biased("mixer.out_proj", {width, width});
    list.biased("norm1", {width});
    list.biased("mlp.fc1", {wide, width});
    list.biased("mlp.fc2", {width, wide});
    list.biased("norm2", {width});
    return;
  }
  for (const char* module : {"attention.self.query", "attention.self.key", "attention.self.value",
                             "attention.output.dense"}) {
    list.biased(module, {width, width});
  }
  list.biased("attention.output.LayerNorm", {width});
  list.biased("intermediate.dense", {wide, width});
  list.biased("output.dense", {width, wide});
  list.biased("output.LayerNorm", {width});
}

// Rerankers have their encoder under "roberta" or "bert", embedders are bare and have a pooler.
inline std::vector<ExpectedTensor> list_encoder(const ModelShape& shape) {
  const bool reranker = shape.role == ModelRole::reranker;
  const bool roberta = shape.model_type != "bert";
  const std::string prefix = !reranker ? "" : roberta ? "roberta." : "bert.";
  const std::int64_t width = shape.hidden_size;
  TensorList list;
  list.begin(TensorPart::embedding, prefix + "embeddings.");
  list.weight("word_embeddings", {shape.vocab_size, width});
  list.weight("position_embeddings", {shape.max_position_embeddings, width});
  list.weight("token_type_embeddings", {shape.type_vocab_size, width});
  list.begin(TensorPart::norm, prefix);
  list.biased(shape.stacked_qkv ? "emb_ln" : "embeddings.LayerNorm", {width});
  for (std::int64_t layer = 0; layer < shape.num_hidden_layers; ++layer) {
    const char* layers = shape.stacked_qkv ? "encoder.layers." : "encoder.layer.";
    list.begin(TensorPart::layer, prefix + layers + std::to_string(layer) + ".", layer);
    list_encoder_layer(shape, list);
  }
  if (!reranker) {
    list.begin(TensorPart::unused, "");
    list.biased("pooler.dense", {width, width});
  } else if (roberta) {
    list.begin(TensorPart::head, "classifier.");
    list.biased("dense", {width, width});
    list.biased("out_proj", {shape.num_labels, width});
  } else {
    list.begin(TensorPart::head, "");
    list.biased("bert.pooler.dense", {width, width});
    list.biased("classifier", {shape.num_labels, width});
  }
  return list.take();
}

inline void list_decoder_layer(const ModelShape& shape, TensorList& list) {
  const std::int64_t width = shape.hidden_size;
  const auto projection = [&](const char* module, std::int64_t out, std::int64_t in) {
    if (shape.attention_bias) {
      list.biased(module, {out, in});
    } else {
      list.weight(module, {out, in});
    }
  };
  list.weight("input_layernorm", {width});
  projection("self_attn.q_proj", shape.query_width(), width);
  projection("self_attn.k_proj", shape.key_width(), width);
  projection("self_attn.v_proj", shape.key_width(), width);
  projection("self_attn.o_proj", width, shape.query_width());
  list.weight("post_attention_layernorm", {width});
  if (shape.sandwich_norms) list.weight("pre_feedforward_layernorm", {width});
  list.weight("mlp.gate_proj", {shape.intermediate_size, width});
  list.weight("mlp.up_proj", {shape.intermediate_size, width});
  list.weight("mlp.down_proj", {width, shape.intermediate_size});
  if (shape.sandwich_norms) list.weight("post_feedforward_layernorm", {width});
}

// Rerankers have their trunk under "model", embedders are bare.
inline std::vector<ExpectedTensor> list_decoder(const ModelShape& shape) {
  const std::string prefix = shape.role == ModelRole::reranker ? "model." : "";
  const std::int64_t width = shape.hidden_size;
  TensorList list;
  list.begin(TensorPart::embedding, prefix);
  list.weight("embed_tokens", {shape.vocab_size, width});
  for (std::int64_t layer = 0; layer < shape.num_hidden_layers; ++layer) {
    list.begin(TensorPart::layer, prefix + "layers." + std::to_string(layer) + ".", layer);
    list_decoder_layer(shape, list);
  }
  list.begin(TensorPart::norm, prefix);
  list.weight("norm", {width});
  for (std::size_t exit = 0; exit < shape.exits.size(); ++exit) {
    const auto index = static_cast<std::int64_t>(exit);
    list.begin(TensorPart::head, "lm_head." + std::to_string(index) + ".", index);
    list.weight("linear_head", {1, width});
  }
  if (shape.vocabulary_head) {
    list.begin(TensorPart::head, "");
    list.weight("lm_head", {shape.vocab_size, width});
  }
  return list.take();
}

}  // namespace detail

// Every tensor of a checkpoint of this shape under its published name, in the order of a forward
// pass. What lies in other files (bge-m3's heads) is not among them.
inline std::vector<ExpectedTensor> checkpoint_layout(const ModelShape& shape) {
  return shape.causal ? detail::list_decoder(shape) : detail::list_encoder(shape);
}

inline std::uint64_t num_parameters(const std::vector<ExpectedTensor>& layout) {
  std::uint64_t sum = 0;
  for (const ExpectedTensor& tensor : layout) {
    sum = add_sizes(sum, tensor.parameters(), "number of parameters");
  }
  return sum;
}

}  // namespace terse
