// How one kind of model is recognised, checked and loaded.
#pragma once

#include <memory>
#include <string_view>

#include "terse/models/config.h"
#include "terse/models/loading.h"
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

}  // namespace terse
