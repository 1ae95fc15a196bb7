// Which architecture a config names, and models loaded through it.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "terse/models/architecture.h"
#include "terse/models/config.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"

#ifndef TERSE_COMPILED
#include "terse/models/architectures.h"
#endif

namespace terse {

// Every architecture of this library. With TERSE_COMPILED it is defined in the library
// terse::compiled, so that files which only use models need not compile them.
#ifdef TERSE_COMPILED
std::span<const Architecture> architectures();
#else
template <class = void>
std::span<const Architecture> architectures() {
  return detail::list_architectures();
}
#endif

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
template <class = void>
const Architecture& find_architecture(const Config& config) {
  const std::string name = model_type(config);
  std::string known;
  for (const Architecture& architecture : architectures()) {
    if (architecture.model_type == name) return architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.model_type);
  }
  fail(ErrorClass::unsupported, config.source(), ": model_type ", quote(name),
       " is not implemented, only ", known);
}

// Checks everything a config says without looking at weights. Throws Error.
template <class = void>
void check_config(const Config& config) {
  find_architecture(config).check_config(config);
}

// Whether a model folder or packed file holds a reranker or an embedder, from its config.json.
// Throws Error.
template <class = void>
ModelRole model_role(const std::filesystem::path& path) {
  const Config config = ModelFiles::open(path).config("config.json");
  return find_architecture(config).is_reranker(config) ? ModelRole::reranker : ModelRole::embedder;
}

// Throws Error(unsupported) if the folder holds an embedder, and whatever loading throws.
template <class = void>
std::unique_ptr<RerankModel> load_reranker(const ModelFolder& folder) {
  const Architecture& architecture = find_architecture(folder.config);
  architecture.check_config(folder.config);
  check(architecture.load_reranker != nullptr, ErrorClass::unsupported, folder.path.string(),
        ": a ", architecture.model_type, " model is an embedder, not a reranker");
  auto model = architecture.load_reranker(folder);
  if (folder.adapter != nullptr) folder.adapter->refuse_unused();
  return model;
}

template <class = void>
std::unique_ptr<EmbedModel> load_embedder(const ModelFolder& folder) {
  const Architecture& architecture = find_architecture(folder.config);
  architecture.check_config(folder.config);
  check(architecture.load_embedder != nullptr, ErrorClass::unsupported, folder.path.string(),
        ": a ", architecture.model_type, " model is a reranker, not an embedder");
  auto model = architecture.load_embedder(folder);
  if (folder.adapter != nullptr) folder.adapter->refuse_unused();
  return model;
}

}  // namespace terse
