// What every loader starts from: a model folder opened, its config read, a backend chosen.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "terse/layers/linear.h"
#include "terse/model_info.h"
#include "terse/models/config.h"
#include "terse/models/lora.h"
#include "terse/ops/backends.h"
#include "terse/options.h"
#include "terse/parallel.h"
#include "terse/tokenizer/tokenizer.h"
#include "terse/weights.h"

namespace terse {

// A model folder whose weights and tokenizer are open. Shared by the model made from it.
struct ModelFolder {
  std::filesystem::path path;
  Config config;
  std::shared_ptr<Checkpoint> checkpoint;
  std::shared_ptr<const Tokenizer> tokenizer;
  const Backend* backend = nullptr;
  int threads = 1;
  Savings savings = {};
  std::shared_ptr<const LoraAdapter> adapter = nullptr;
  std::string device_note = {};

  // Throws Error of whatever part of the folder is wrong; its message names the file.
  static ModelFolder open(const std::filesystem::path& path, const LoadOptions& options);

  // tokenizer.json, or where there is none a SentencePiece model under one of its usual names.
  static std::filesystem::path tokenizer_file(const std::filesystem::path& path) {
    for (const char* name : {"tokenizer.json", "sentencepiece.bpe.model", "tokenizer.model"}) {
      if (std::filesystem::exists(path / name)) return path / name;
    }
    return path / "tokenizer.json";
  }

  // Throws Error(range) if the tokenizer can give ids that the embedding has no rows for.
  void check_vocabulary(std::int64_t vocab_size) const {
    check(tokenizer->max_id() < vocab_size, ErrorClass::range, path.string(),
          ": the tokenizer gives ids up to ", tokenizer->max_id(), ", the embedding has ",
          vocab_size, " rows");
  }

  // What the layers of the model are loaded with.
  Loader loader() const { return Loader(*backend, adapter); }

  // The fields of ModelInfo that do not depend on the architecture.
  ModelInfo info() const {
    ModelInfo info;
    info.model_type = config.string_or("model_type", "");
    info.dtype = backend->compute;
    info.isa = backend->isa;
    info.threads = threads;
    info.device = backend->device;
    info.device_note = device_note;
    return info;
  }
};

namespace detail {

inline ModelFolder open_model_folder(const std::filesystem::path& path,
                                     const LoadOptions& options) {
  check(std::filesystem::is_directory(path), ErrorClass::io, path.string(),
        ": not a folder; expected one with config.json, tokenizer.json and weights");
  ModelFolder folder{path, Config::load(path / "config.json"), nullptr, nullptr};
  folder.backend = &choose_backend(options.device, options.isa, options.dtype, &folder.device_note);
  folder.threads = thread_count(options.threads);
  folder.savings = options.savings;
  // Reading a large tokenizer.json takes as long as everything else together.
  std::exception_ptr failures[2];
  parallel_for(2, 2, [&](std::int64_t part) {
    try {
      if (part == 0) {
        folder.tokenizer =
            std::make_shared<const Tokenizer>(Tokenizer::load(ModelFolder::tokenizer_file(path)));
      } else {
        folder.checkpoint = Checkpoint::open(path.string());
      }
    } catch (...) {
      failures[part] = std::current_exception();
    }
  });
  // Wrong weights are reported before a wrong tokenizer, whichever was found first.
  if (failures[1] != nullptr) std::rethrow_exception(failures[1]);
  if (failures[0] != nullptr) std::rethrow_exception(failures[0]);
  if (!options.adapter.empty()) {
    folder.adapter = LoraAdapter::load(options.adapter, folder.threads);
  }
  return folder;
}

}  // namespace detail

#ifndef TERSE_COMPILED
inline ModelFolder ModelFolder::open(const std::filesystem::path& path,
                                     const LoadOptions& options) {
  return detail::open_model_folder(path, options);
}
#endif

}  // namespace terse
