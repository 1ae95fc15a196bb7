// The table of architectures: model_type -> loader, one line per model.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "terse/models/architecture.h"
#include "terse/models/bert_embedder.h"
#include "terse/models/bert_reranker.h"
#include "terse/models/gemma.h"
#include "terse/models/gemma2_embedder.h"
#include "terse/models/gemma2_reranker.h"
#include "terse/models/minicpm.h"
#include "terse/models/mistral_embedder.h"
#include "terse/models/mistral_reranker.h"

namespace terse {

namespace detail {

inline bool names_classifier(const Config& config) {
  return config.architecture().ends_with("ForSequenceClassification");
}

inline BertConfig read_bert(const Config& c) { return BertConfig::from(c, "bert"); }
inline BertConfig read_xlm_roberta(const Config& c) { return BertConfig::from(c, "xlm-roberta"); }

template <BertConfig (*Read)(const Config&)>
constexpr Architecture bert_architecture(std::string_view model_type) {
  return {model_type, names_classifier, [](const Config& config) { Read(config); },
          [](const ModelFolder& folder) -> std::unique_ptr<RerankModel> {
            return std::unique_ptr<RerankModel>(new BertReranker(folder, Read(folder.config)));
          },
          [](const ModelFolder& folder) -> std::unique_ptr<EmbedModel> {
            return std::unique_ptr<EmbedModel>(new BertEmbedder(folder, Read(folder.config)));
          }};
}

// An architecture that is a reranker, whatever class its config names.
template <class ModelConfig, class Reranker>
constexpr Architecture decoder_reranker(std::string_view model_type) {
  return {
      model_type, [](const Config&) { return true; },
      [](const Config& config) { ModelConfig::from(config); },
      [](const ModelFolder& folder) -> std::unique_ptr<RerankModel> {
        return std::unique_ptr<RerankModel>(new Reranker(folder, ModelConfig::from(folder.config)));
      },
      nullptr};
}

template <class ModelConfig, std::unique_ptr<EmbedModel> (*Load)(const ModelFolder&)>
constexpr Architecture decoder_embedder(std::string_view model_type) {
  return {model_type, [](const Config&) { return false; },
          [](const Config& config) { ModelConfig::from(config); }, nullptr, Load};
}

inline std::unique_ptr<EmbedModel> load_gemma2_embedder(const ModelFolder& folder) {
  return std::unique_ptr<EmbedModel>(new Gemma2Embedder(folder, Gemma2Config::from(folder.config)));
}
inline std::unique_ptr<EmbedModel> load_mistral_embedder(const ModelFolder& folder) {
  return std::unique_ptr<EmbedModel>(
      new MistralEmbedder(folder, MistralConfig::from(folder.config)));
}
inline std::unique_ptr<EmbedModel> load_llama_embedder(const ModelFolder& folder) {
  if (!LlaraEmbedder::recognizes(*folder.tokenizer)) return load_mistral_embedder(folder);
  return std::unique_ptr<EmbedModel>(new LlaraEmbedder(folder, MistralConfig::from(folder.config)));
}

template <class = void>
std::span<const Architecture> list_architectures() {
  static constexpr Architecture kArchitectures[] = {
      bert_architecture<read_bert>("bert"),
      bert_architecture<read_xlm_roberta>("xlm-roberta"),
      decoder_reranker<GemmaConfig, GemmaReranker>("gemma"),
      decoder_reranker<MiniCpmConfig, MiniCpmReranker>("minicpm"),
      decoder_reranker<Gemma2RerankerConfig, Gemma2Reranker>("cost_wise_gemma"),
      decoder_reranker<MistralRerankerConfig, MistralReranker>("cost_wise_mistral"),
      decoder_embedder<Gemma2Config, load_gemma2_embedder>("gemma2"),
      decoder_embedder<MistralConfig, load_mistral_embedder>("mistral"),
      decoder_embedder<MistralConfig, load_llama_embedder>("llama"),
  };
  return kArchitectures;
}

}  // namespace detail

}  // namespace terse
