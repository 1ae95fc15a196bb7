// The small files of a model beside its weights, by their names in a published folder: in the
// folder itself, or in the packed file made of it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "terse/error.h"
#include "terse/file.h"
#include "terse/models/config.h"
#include "terse/packed_file.h"

namespace terse {

// The files that loaders look for; packing copies those that a folder has.
inline constexpr const char* kModelFiles[] = {
    "config.json",  "tokenizer_config.json", "special_tokens_map.json",
    "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"};

class ModelFiles {
 public:
  // path: a folder, or a packed file. Throws Error: io (neither), and what PackedFile::open throws.
  static ModelFiles open(const std::filesystem::path& path) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) return ModelFiles(path, nullptr);
    check(std::filesystem::exists(path, ignored), ErrorClass::io, path_text(path.string()),
          ": not there; expected a folder with config.json, tokenizer.json and weights, or a ",
          "packed model");
    return ModelFiles(path, PackedFile::open(path.string()));
  }

  const std::filesystem::path& path() const { return path_; }
  // nullptr of a folder.
  const std::shared_ptr<const PackedFile>& packed() const { return packed_; }

  bool has(std::string_view name) const {
    if (packed_ != nullptr) return packed_->text(name) != nullptr;
    std::error_code ignored;
    return std::filesystem::exists(path_ / name, ignored);
  }

  // Throws Error: io (no such file), limit (more than max_bytes).
  std::string text(std::string_view name, std::size_t max_bytes) const {
    if (packed_ == nullptr) return read_text_file(source(name), max_bytes);
    const std::string* text = packed_->text(name);
    check(text != nullptr, ErrorClass::io, source(name), ": not in the packed model");
    check(text->size() <= max_bytes, ErrorClass::limit, source(name), ": ", text->size(),
          " bytes, at most ", max_bytes, " are read");
    return *text;
  }

  // What messages call a file.
  std::string source(std::string_view name) const { return (path_ / name).string(); }

  // A file as a config. Throws Error: as text() and Config::parse.
  Config config(std::string_view name) const {
    return Config::parse(text(name, ConfigLimits::kBytes), source(name));
  }

 private:
  ModelFiles(std::filesystem::path path, std::shared_ptr<const PackedFile> packed)
      : path_(std::move(path)), packed_(std::move(packed)) {}

  std::filesystem::path path_;
  std::shared_ptr<const PackedFile> packed_;
};

}  // namespace terse
