// The models of terse::compiled.
#include "terse/models/architectures.h"
#include "terse/models/registry.h"

namespace terse {

std::span<const Architecture> architectures() { return detail::list_architectures(); }

ModelFolder ModelFolder::open(const std::filesystem::path& path, const LoadOptions& options) {
  return detail::open_model_folder(path, options);
}

}  // namespace terse
