// model_type -> loader, one line per model.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "terse/models/bert_embedder.h"
#include "terse/models/bert_reranker.h"
#include "terse/models/config.h"
#include "terse/models/gemma.h"
#include "terse/models/gemma2_embedder.h"
#include "terse/models/gemma2_reranker.h"
#include "terse/models/loading.h"
#include "terse/models/minicpm.h"
#include "terse/models/mistral_embedder.h"
#include "terse/models/mistral_reranker.h"
#include "terse/models/model.h"

namespace terse {

// One architecture: how its config is recognised, checked and loaded. A slot is null where the
// architecture cannot be used in that role.
struct Architecture {
  std::string_view model_type;
  bool (*is_reranker)(const Config&);  // by the class named in `architectures`
  void (*check_config)(const Config&);
  std::unique_ptr<RerankModel> (*load_reranker)(const ModelFolder&);
  std::unique_ptr<EmbedModel> (*load_embedder)(const ModelFolder&);
};

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
            return std::make_unique<BertReranker>(folder, Read(folder.config));
          },
          [](const ModelFolder& folder) -> std::unique_ptr<EmbedModel> {
            return std::make_unique<BertEmbedder>(folder, Read(folder.config));
          }};
}

// An architecture that is a reranker, whatever class its config names.
template <class ModelConfig, class Reranker>
constexpr Architecture decoder_reranker(std::string_view model_type) {
  return {model_type, [](const Config&) { return true; },
          [](const Config& config) { ModelConfig::from(config); },
          [](const ModelFolder& folder) -> std::unique_ptr<RerankModel> {
            return std::make_unique<Reranker>(folder, ModelConfig::from(folder.config));
          },
          nullptr};
}

template <class ModelConfig, std::unique_ptr<EmbedModel> (*Load)(const ModelFolder&)>
constexpr Architecture decoder_embedder(std::string_view model_type) {
  return {model_type, [](const Config&) { return false; },
          [](const Config& config) { ModelConfig::from(config); }, nullptr, Load};
}

inline std::unique_ptr<EmbedModel> load_gemma2_embedder(const ModelFolder& folder) {
  return std::make_unique<Gemma2Embedder>(folder, Gemma2Config::from(folder.config));
}
inline std::unique_ptr<EmbedModel> load_mistral_embedder(const ModelFolder& folder) {
  return std::make_unique<MistralEmbedder>(folder, MistralConfig::from(folder.config));
}
inline std::unique_ptr<EmbedModel> load_llama_embedder(const ModelFolder& folder) {
  if (!LlaraEmbedder::recognizes(*folder.tokenizer)) return load_mistral_embedder(folder);
  return std::make_unique<LlaraEmbedder>(folder, MistralConfig::from(folder.config));
}

}  // namespace detail

inline constexpr Architecture kArchitectures[] = {
    detail::bert_architecture<detail::read_bert>("bert"),
    detail::bert_architecture<detail::read_xlm_roberta>("xlm-roberta"),
    detail::decoder_reranker<GemmaConfig, GemmaReranker>("gemma"),
    detail::decoder_reranker<MiniCpmConfig, MiniCpmReranker>("minicpm"),
    detail::decoder_reranker<Gemma2RerankerConfig, Gemma2Reranker>("cost_wise_gemma"),
    detail::decoder_reranker<MistralRerankerConfig, MistralReranker>("cost_wise_mistral"),
    detail::decoder_embedder<Gemma2Config, detail::load_gemma2_embedder>("gemma2"),
    detail::decoder_embedder<MistralConfig, detail::load_mistral_embedder>("mistral"),
    detail::decoder_embedder<MistralConfig, detail::load_llama_embedder>("llama"),
};

// The model_type of a config. jina-reranker-v2 publishes none and is known by its class and its
// flash-attention config; anything else without one is refused. Throws Error: missing, type.
inline std::string model_type(const Config& config) {
  const std::string name = config.string_or("model_type", "");
  if (!name.empty()) return name;
  const bool flash = config.boolean_or("use_flash_attn", false) && config.has("auto_map");
  check(flash && config.architecture().starts_with("XLMRoberta"), ErrorClass::missing,
        config.source(), ": model_type is missing");
  return "xlm-roberta";
}

// Throws Error: missing, type, unsupported (a model this library does not know).
inline const Architecture& find_architecture(const Config& config) {
  const std::string name = model_type(config);
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.model_type == name) return architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.model_type);
  }
  fail(ErrorClass::unsupported, config.source(), ": model_type ", quote(name),
       " is not implemented, only ", known);
}

// Checks everything a config says without looking at weights. Throws Error.
inline void check_config(const Config& config) { find_architecture(config).check_config(config); }

// Whether a model folder holds a reranker or an embedder, from its config.json. Throws Error.
inline ModelRole model_role(const std::filesystem::path& folder) {
  const Config config = Config::load(folder / "config.json");
  return find_architecture(config).is_reranker(config) ? ModelRole::reranker : ModelRole::embedder;
}

// Throws Error(unsupported) if the folder holds an embedder, and whatever loading throws.
inline std::unique_ptr<RerankModel> load_reranker(const ModelFolder& folder) {
  const Architecture& architecture = find_architecture(folder.config);
  architecture.check_config(folder.config);
  check(architecture.load_reranker != nullptr, ErrorClass::unsupported, folder.path.string(),
        ": a ", architecture.model_type, " model is an embedder, not a reranker");
  auto model = architecture.load_reranker(folder);
  if (folder.adapter != nullptr) folder.adapter->refuse_unused();
  return model;
}

inline std::unique_ptr<EmbedModel> load_embedder(const ModelFolder& folder) {
  const Architecture& architecture = find_architecture(folder.config);
  architecture.check_config(folder.config);
  check(architecture.load_embedder != nullptr, ErrorClass::unsupported, folder.path.string(),
        ": a ", architecture.model_type, " model is a reranker, not an embedder");
  auto model = architecture.load_embedder(folder);
  if (folder.adapter != nullptr) folder.adapter->refuse_unused();
  return model;
}

}  // namespace terse
