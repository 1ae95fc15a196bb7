// The models of the family as they are published: their config.json, the digests of their
// tokenizers, and the scores their cards print for sample pairs. A stranger's folder is recognised
// by its shape. Sources: the config files and cards of BAAI's repositories on the Hugging Face hub;
// where a file could not be seen, what follows from its published size (bge-reranker-v2-gemma) or
// from its siblings (bge-base-zh-v1.5, bge-large-zh-v1.5).
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/model_shape.h"
#include "terse/models/config.h"

namespace terse {

enum class Family : std::uint8_t {
  xlm_roberta_reranker,
  bge_m3,
  bert_embedder,
  gemma,
  minicpm_layerwise,
  gemma2_lightweight,
};

// A score that a card prints for a pair. Of bge-m3 the mode is one of its five, else "score".
struct PublishedScore {
  std::string_view query;
  std::string_view passage;
  std::string_view mode;
  double value;
};

struct PublishedModel {
  std::string_view name;
  Family family;
  std::int64_t hidden_size;
  std::int64_t num_hidden_layers;
  std::int64_t num_attention_heads;
  std::int64_t intermediate_size;
  std::int64_t vocab_size;
  std::int64_t max_position_embeddings;
  std::string_view tokenizer_sha256 = {};  // of tokenizer.json; empty: not known
  std::span<const PublishedScore> scores = {};
  // |score - published| of a right f32 run, at most: the published ones were computed in f16.
  double score_bound = 0;
};

namespace detail {

inline constexpr std::string_view kPanda =
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a "
    "bear species endemic to China.";
inline constexpr std::string_view kAskM3 = "What is BGE M3?";
inline constexpr std::string_view kAskBm25 = "Defination of BM25";  // the card's spelling
inline constexpr std::string_view kAboutM3 =
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector "
    "interaction.";
inline constexpr std::string_view kAboutBm25 =
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query "
    "terms appearing in each document";

inline constexpr PublishedScore kRerankerV2M3Scores[] = {
    {"query", "passage", "score", -5.65234375},
    {"what is panda?", "hi", "score", -8.1875},
    {"what is panda?", kPanda, "score", 5.26171875},
};

// The mixed scores of the card follow from these three.
inline constexpr PublishedScore kM3Scores[] = {
    {kAskM3, kAboutM3, "dense", 0.6259765625},
    {kAskM3, kAboutM3, "sparse", 0.195556640625},
    {kAskM3, kAboutM3, "colbert", 0.7796499729156494},
    {kAskM3, kAboutBm25, "dense", 0.347412109375},
    {kAskM3, kAboutBm25, "sparse", 0.00879669189453125},
    {kAskM3, kAboutBm25, "colbert", 0.4621465802192688},
    {kAskBm25, kAboutM3, "dense", 0.349853515625},
    {kAskBm25, kAboutM3, "sparse", 0.0},
    {kAskBm25, kAboutM3, "colbert", 0.4523794651031494},
    {kAskBm25, kAboutBm25, "dense", 0.67822265625},
    {kAskBm25, kAboutBm25, "sparse", 0.1802978515625},
    {kAskBm25, kAboutBm25, "colbert", 0.7898575067520142},
};

inline constexpr std::string_view kEnglishTokenizer =
    "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66";
inline constexpr std::string_view kChineseTokenizer =
    "7dfbf1966ebf99d471c3796e9b457329d2b2182b817e144f1e904b957745c839";

}  // namespace detail

// The pairs every card of a reranker shows, for models whose card prints no scores for them.
inline constexpr PublishedScore kUnscoredPairs[] = {
    {"query", "passage", "score", 0},
    {"what is panda?", "hi", "score", 0},
    {"what is panda?", detail::kPanda, "score", 0},
};

inline constexpr PublishedModel kPublishedModels[] = {
    {"bge-reranker-base", Family::xlm_roberta_reranker, 768, 12, 12, 3072, 250002, 514},
    {"bge-reranker-large", Family::xlm_roberta_reranker, 1024, 24, 16, 4096, 250002, 514},
    {"bge-reranker-v2-m3", Family::xlm_roberta_reranker, 1024, 24, 16, 4096, 250002, 8194,
     "69564b696052886ed0ac63fa393e928384e0f8caada38c1f4864a9bfbf379c15",
     detail::kRerankerV2M3Scores, 0.05},
    {"bge-reranker-v2-gemma", Family::gemma, 2048, 18, 8, 16384, 256000, 8192},
    {"bge-reranker-v2-minicpm-layerwise", Family::minicpm_layerwise, 2304, 40, 36, 5760, 122753,
     2048},
    {"bge-reranker-v2.5-gemma2-lightweight", Family::gemma2_lightweight, 3584, 42, 16, 14336,
     256000, 8192},
    {"bge-m3", Family::bge_m3, 1024, 24, 16, 4096, 250002, 8194,
     "21106b6d7dab2952c1d496fb21d5dc9db75c28ed361a05f5020bbba27810dd08", detail::kM3Scores, 0.01},
    {"bge-small-en-v1.5", Family::bert_embedder, 384, 12, 12, 1536, 30522, 512,
     detail::kEnglishTokenizer},
    {"bge-base-en-v1.5", Family::bert_embedder, 768, 12, 12, 3072, 30522, 512,
     detail::kEnglishTokenizer},
    {"bge-large-en-v1.5", Family::bert_embedder, 1024, 24, 16, 4096, 30522, 512,
     detail::kEnglishTokenizer},
    {"bge-small-zh-v1.5", Family::bert_embedder, 512, 4, 8, 2048, 21128, 512,
     detail::kChineseTokenizer},
    {"bge-base-zh-v1.5", Family::bert_embedder, 768, 12, 12, 3072, 21128, 512,
     detail::kChineseTokenizer},
    {"bge-large-zh-v1.5", Family::bert_embedder, 1024, 24, 16, 4096, 21128, 512,
     detail::kChineseTokenizer},
};

// Throws Error(range) listing the names if there is no such model.
inline const PublishedModel& published_model(std::string_view name) {
  std::string names;
  for (const PublishedModel& model : kPublishedModels) {
    if (model.name == name) return model;
    names += (names.empty() ? "" : ", ") + std::string(model.name);
  }
  fail(ErrorClass::range, "no published model is called ", quote(name), ", expected one of ",
       names);
}

namespace detail {

using ConfigJson = nlohmann::ordered_json;

inline ConfigJson encoder_config(const PublishedModel& model) {
  const bool bert = model.family == Family::bert_embedder;
  const bool reranker = model.family == Family::xlm_roberta_reranker;
  ConfigJson json = {{"architectures",
                      {bert       ? "BertModel"
                       : reranker ? "XLMRobertaForSequenceClassification"
                                  : "XLMRobertaModel"}},
                     {"model_type", bert ? "bert" : "xlm-roberta"},
                     {"attention_probs_dropout_prob", 0.1},
                     {"hidden_dropout_prob", 0.1},
                     {"hidden_act", "gelu"},
                     {"initializer_range", 0.02},
                     {"layer_norm_eps", bert ? 1e-12 : 1e-5},
                     {"pad_token_id", bert ? 0 : 1},
                     {"position_embedding_type", "absolute"},
                     {"type_vocab_size", bert ? 2 : 1}};
  if (!bert) json.update({{"bos_token_id", 0}, {"eos_token_id", 2}, {"output_past", true}});
  if (reranker) {
    json["id2label"] = {{"0", "LABEL_0"}};
    json["label2id"] = {{"LABEL_0", 0}};
  }
  return json;
}

inline ConfigJson decoder_config() {
  return {{"attention_bias", false}, {"attention_dropout", 0.0}, {"rope_theta", 10000.0}};
}

inline ConfigJson gemma_config() {
  ConfigJson json = decoder_config();
  json.update({{"architectures", {"GemmaForCausalLM"}},
               {"model_type", "gemma"},
               {"num_key_value_heads", 1},
               {"head_dim", 256},
               {"hidden_act", "gelu"},
               {"initializer_range", 0.02},
               {"rms_norm_eps", 1e-6},
               {"rope_scaling", nullptr},
               {"pad_token_id", 0},
               {"eos_token_id", 1},
               {"bos_token_id", 2}});
  return json;
}

inline ConfigJson minicpm_config() {
  ConfigJson json = decoder_config();
  json.update({{"architectures", {"LayerWiseMiniCPMForCausalLM"}},
               {"model_type", "minicpm"},
               {"num_key_value_heads", 36},
               {"hidden_act", "silu"},
               {"initializer_range", 0.1},
               {"rms_norm_eps", 1e-5},
               {"rope_scaling", nullptr},
               {"bos_token_id", 1},
               {"eos_token_id", 2},
               {"pretraining_tp", 1},
               {"scale_emb", 12},
               {"scale_depth", 1.4},
               {"dim_model_base", 256},
               {"start_layer", 8},
               {"head_multi", true},
               {"head_type", "simple"},
               {"use_cache", false}});
  return json;
}

inline ConfigJson gemma2_config() {
  ConfigJson json = decoder_config();
  json.update({{"architectures", {"CostWiseGemmaForCausalLM"}},
               {"model_type", "cost_wise_gemma"},
               {"num_key_value_heads", 8},
               {"head_dim", 256},
               {"hidden_act", "gelu_pytorch_tanh"},
               {"hidden_activation", "gelu_pytorch_tanh"},
               {"initializer_range", 0.02},
               {"rms_norm_eps", 1e-6},
               {"query_pre_attn_scalar", 256},
               {"attn_logit_softcapping", 50.0},
               {"final_logit_softcapping", 30.0},
               {"sliding_window", 4096},
               {"sliding_window_size", 4096},
               {"pad_token_id", 0},
               {"eos_token_id", 1},
               {"bos_token_id", 2},
               {"cache_implementation", "hybrid"},
               {"layer_wise", true},
               {"start_layer", 8},
               {"layer_sep", 1}});
  return json;
}

inline ConfigJson family_config(const PublishedModel& model) {
  switch (model.family) {
    case Family::gemma:
      return gemma_config();
    case Family::minicpm_layerwise:
      return minicpm_config();
    case Family::gemma2_lightweight:
      return gemma2_config();
    default:
      return encoder_config(model);
  }
}

// As transformers writes it.
inline std::string_view torch_dtype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "float32";
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    default:
      fail(ErrorClass::unsupported, "weights of type ", dtype_name(dtype),
           ", expected f32, f16 or bf16");
  }
}

}  // namespace detail

// The model's config.json, for num_hidden_layers of its blocks (0: all) and weights stored as
// dtype. A layer-wise model cut below its first exit has one exit, after its last layer. Throws
// Error: range (a number of layers), unsupported (another dtype than f32, f16, bf16).
inline std::string published_config(const PublishedModel& model, std::int64_t num_hidden_layers = 0,
                                    DType dtype = DType::f32) {
  check(num_hidden_layers >= 0 && num_hidden_layers <= model.num_hidden_layers, ErrorClass::range,
        num_hidden_layers, " layers, expected 1 to ", model.num_hidden_layers, ", or 0 for all");
  const std::int64_t layers = num_hidden_layers == 0 ? model.num_hidden_layers : num_hidden_layers;
  detail::ConfigJson json = detail::family_config(model);
  json.update({{"hidden_size", model.hidden_size},
               {"num_hidden_layers", layers},
               {"num_attention_heads", model.num_attention_heads},
               {"intermediate_size", model.intermediate_size},
               {"vocab_size", model.vocab_size},
               {"max_position_embeddings", model.max_position_embeddings},
               {"torch_dtype", detail::torch_dtype(dtype)}});
  if (json.contains("start_layer") && layers < json["start_layer"].get<std::int64_t>()) {
    json["start_layer"] = layers;
  }
  return json.dump(2) + "\n";
}

// The published model of this shape, or nullptr. Models trained further from a published one have
// its shape too: what a caller makes of a match is a claim to be tested, not a fact.
inline const PublishedModel* recognize(const ModelShape& shape) {
  for (const PublishedModel& model : kPublishedModels) {
    const Config config = Config::parse(published_config(model), model.name);
    if (read_model_shape(config) == shape) return &model;
  }
  return nullptr;
}

}  // namespace terse
