// Reading the golden files of the reference models: cases as JSON lines, tensors as safetensors.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "terse/dtype.h"
#include "terse/options.h"
#include "terse/safetensors.h"

namespace terse_test {

inline std::vector<nlohmann::json> read_json_lines(const std::filesystem::path& path) {
  std::vector<nlohmann::json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(nlohmann::json::parse(line));
  }
  return lines;
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

// A golden tensor as doubles, row-major.
inline std::vector<double> read_tensor(const std::filesystem::path& path, const std::string& name) {
  const auto file = terse::SafeTensors::open(path.string());
  const terse::TensorView& view = *file->find(name);
  std::vector<double> values(static_cast<std::size_t>(view.size()));
  terse::convert_to(values.data(), view.data, view.dtype, values.size());
  return values;
}

// The instruction of one side of a golden case: an absent key is the default, null is none.
inline terse::Instruction read_instruction(const nlohmann::json& settings, const std::string& key) {
  terse::Instruction instruction;
  if (settings.contains(key)) {
    instruction = settings[key].is_null()
                      ? terse::Instruction{terse::Instruction::State::none}
                      : terse::Instruction::of(settings[key].get<std::string>());
  }
  if (settings.contains(key + "_format")) instruction.format = settings[key + "_format"];
  return instruction;
}

template <class T>
std::optional<T> read_optional(const nlohmann::json& settings, const char* key) {
  if (!settings.contains(key) || settings[key].is_null()) return std::nullopt;
  return settings[key].get<T>();
}

// The settings of a golden reranker case as options.
inline terse::ScoreOptions read_score_options(const nlohmann::json& settings) {
  terse::ScoreOptions options;
  options.max_length = read_optional<std::int64_t>(settings, "max_length");
  options.query_max_length = read_optional<std::int64_t>(settings, "query_max_length");
  options.normalize = settings.value("normalize", false);
  options.query_instruction = read_instruction(settings, "query_instruction");
  options.passage_instruction = read_instruction(settings, "passage_instruction");
  options.prompt = read_optional<std::string>(settings, "prompt");
  options.cutoff_layers = read_optional<std::vector<std::int64_t>>(settings, "cutoff_layers")
                              .value_or(std::vector<std::int64_t>{});
  options.compress_layers = read_optional<std::vector<std::int64_t>>(settings, "compress_layers");
  options.compress_ratio = read_optional<std::int64_t>(settings, "compress_ratio");
  return options;
}

inline terse::EmbedOptions read_embed_options(const nlohmann::json& settings) {
  terse::EmbedOptions options;
  options.max_length = read_optional<std::int64_t>(settings, "max_length");
  options.query_instruction = read_instruction(settings, "instruction");
  return options;
}

}  // namespace terse_test
