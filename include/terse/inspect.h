// What a file or folder of the family is: opened with every check that scoring with it would do.
// A file that inspect() accepts loads; one that it refuses is refused with the same Error.
#pragma once

#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/file.h"
#include "terse/json.h"
#include "terse/model_info.h"
#include "terse/models/config.h"
#include "terse/models/loading.h"
#include "terse/models/registry.h"
#include "terse/options.h"
#include "terse/tokenizer/tokenizer.h"
#include "terse/weights.h"

namespace terse {

enum class ArtifactKind : std::uint8_t { folder, config, tensors, shard_index, tokenizer, packed };

inline const char* artifact_kind_name(ArtifactKind kind) {
  static constexpr const char* kNames[] = {"model folder", "config",    "tensors",
                                           "shard index",  "tokenizer", "packed model"};
  return kNames[static_cast<std::size_t>(kind)];
}

struct InspectOptions {
  LoadOptions load = {};
  bool check_weights = false;  // look at every value: NaN and infinity are refused; of a packed
                               // model compare all digests too
};

struct Inspection {
  ArtifactKind kind = ArtifactKind::folder;
  std::string model_type;                      // of a config or folder
  std::optional<ModelRole> role;               // of a config or folder
  std::optional<ModelInfo> model;              // of a folder
  std::map<DType, Checkpoint::Usage> tensors;  // of folders and tensor files, by stored type
  std::vector<std::string> unread;             // of a folder: names of tensors nobody reads
  // Of a layer-wise folder: the cosine of the angle between score heads, (exits, exits).
  std::vector<std::vector<double>> head_cosines;
  std::vector<std::string> tokenizer;  // one line a stage

  std::uint64_t num_tensors() const { return total(&Checkpoint::Usage::tensors); }
  std::uint64_t num_parameters() const { return total(&Checkpoint::Usage::elements); }
  std::uint64_t size_bytes() const { return total(&Checkpoint::Usage::bytes); }

 private:
  std::uint64_t total(std::uint64_t Checkpoint::Usage::*member) const {
    std::uint64_t sum = 0;
    for (const auto& [dtype, usage] : tensors) sum = add_sizes(sum, usage.*member, "tensors");
    return sum;
  }
};

namespace detail {

// The kind of a JSON file by what its root object has. Throws Error: io, limit, json, utf8, ...
inline ArtifactKind json_kind(const std::string& path) {
  const std::string text = read_text_file(path, kMaxTokenizerBytes);
  const JsonLimits limits{.max_bytes = kMaxTokenizerBytes, .max_depth = 64};
  const JsonDocument document = JsonDocument::parse(text, limits, path_text(path));
  const JsonValue root = document.root();
  if (root.find("weight_map")) return ArtifactKind::shard_index;
  for (const char* key : {"model", "added_tokens", "normalizer", "pre_tokenizer"}) {
    if (root.find(key)) return ArtifactKind::tokenizer;
  }
  return ArtifactKind::config;
}

// The kind of a file whose name says nothing, by its first bytes: a safetensors file has the length
// of its header before its opening brace, a SentencePiece model starts with a protobuf field.
inline ArtifactKind content_kind(const std::string& path) {
  const RegularFile file = RegularFile::open(path);
  char head[16] = {};
  const ssize_t got = ::pread(file.descriptor.get(), head, sizeof(head), 0);
  if (got < 0) fail_io(path, "read", errno);
  const std::string_view text(head, static_cast<std::size_t>(got));
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{') return json_kind(path);
  if (text.size() > 8 && text[8] == '{') return ArtifactKind::tensors;
  return ArtifactKind::tokenizer;
}

inline ArtifactKind artifact_kind(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return ArtifactKind::folder;
  const std::string name = path.filename().string();
  if (std::filesystem::is_regular_file(path, ignored) && PackedFile::recognizes(path.string())) {
    return ArtifactKind::packed;
  }
  if (name.ends_with(".safetensors")) return ArtifactKind::tensors;
  if (name.ends_with(".safetensors.index.json")) return ArtifactKind::shard_index;
  if (name.ends_with(".model") || name == "tokenizer.json") return ArtifactKind::tokenizer;
  if (name == "config.json") return ArtifactKind::config;
  if (name.ends_with(".json")) return json_kind(path.string());
  return content_kind(path.string());
}

inline void inspect_config(const Config& config, Inspection* inspection) {
  const Architecture& architecture = find_architecture(config);
  architecture.check_config(config);
  inspection->model_type = terse::model_type(config);
  inspection->role = architecture.is_reranker(config) ? ModelRole::reranker : ModelRole::embedder;
}

inline void inspect_tensors(const Checkpoint& checkpoint, const InspectOptions& options,
                            Inspection* inspection) {
  inspection->tensors = checkpoint.usage();
  if (options.check_weights) checkpoint.check_finite(thread_count(options.load.threads));
}

// cos(a, b) = <a, b> / (|a| |b|) for each pair of lm_head.{i}.linear_head.weight, in double.
inline std::vector<std::vector<double>> head_cosines(const Weights& root, const ModelInfo& info) {
  std::vector<std::vector<double>> heads;
  for (std::size_t head = 0; head < info.exits.size(); ++head) {
    const Weights scope = root.scope("lm_head", static_cast<std::int64_t>(head));
    if (!scope.has("linear_head.weight")) return {};
    const TensorView weight = scope.get("linear_head.weight", {1, info.hidden_size});
    const auto width = static_cast<std::size_t>(info.hidden_size);
    convert_to(heads.emplace_back(width).data(), weight.data, weight.dtype, width);
  }
  const auto product = [&](std::size_t a, std::size_t b) {
    return std::inner_product(heads[a].begin(), heads[a].end(), heads[b].begin(), 0.0);
  };
  std::vector<std::vector<double>> cosines(heads.size());
  for (std::size_t a = 0; a < heads.size(); ++a) {
    for (std::size_t b = 0; b < heads.size(); ++b) {
      const double norms = std::sqrt(product(a, a) * product(b, b));
      cosines[a].push_back(norms > 0 ? product(a, b) / norms : 0);
    }
  }
  return cosines;
}

inline void inspect_folder(const std::filesystem::path& path, const InspectOptions& options,
                           Inspection* inspection) {
  LoadOptions load = options.load;
  load.savings.lazy_layers = false;  // every layer's tensors are checked, and counted as read
  const ModelFolder folder = ModelFolder::open(path, load);
  if (folder.files.packed() != nullptr && options.check_weights) {
    folder.files.packed()->check_digests(folder.threads);
  }
  inspect_config(folder.config, inspection);
  inspection->model = inspection->role == ModelRole::reranker ? load_reranker(folder)->info()
                                                              : load_embedder(folder)->info();
  inspect_tensors(*folder.checkpoint, options, inspection);
  inspection->head_cosines = head_cosines(folder.checkpoint->root(), *inspection->model);
  inspection->unread = folder.checkpoint->unread();
  inspection->tokenizer = folder.tokenizer->describe();
}

}  // namespace detail

// Opens a model folder, a packed model, a .safetensors file, a shard index, a config.json, a
// tokenizer.json or a SentencePiece model (told apart by name, else by content) and says what it
// is. Throws Error: what loading it throws; nonfinite if check_weights finds a value that is not
// finite, io if it finds a packed tensor that is not as it was written.
inline Inspection inspect(const std::filesystem::path& path, const InspectOptions& options = {}) {
  Inspection inspection;
  inspection.kind = detail::artifact_kind(path);
  switch (inspection.kind) {
    case ArtifactKind::folder:
    case ArtifactKind::packed:
      detail::inspect_folder(path, options, &inspection);
      break;
    case ArtifactKind::config:
      detail::inspect_config(Config::load(path), &inspection);
      break;
    case ArtifactKind::tensors:
    case ArtifactKind::shard_index:
      detail::inspect_tensors(*Checkpoint::open(path.string()), options, &inspection);
      break;
    case ArtifactKind::tokenizer:
      inspection.tokenizer = Tokenizer::load(path).describe();
      break;
  }
  return inspection;
}

}  // namespace terse
