// What every loader starts from: a model folder or packed file opened, its config read, a backend
// chosen.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "terse/layers/linear.h"
#include "terse/model_info.h"
#include "terse/models/config.h"
#include "terse/models/lora.h"
#include "terse/models/model_files.h"
#include "terse/ops/backends.h"
#include "terse/ops/op_counter.h"
#include "terse/options.h"
#include "terse/parallel.h"
#include "terse/tokenizer/tokenizer.h"
#include "terse/weights.h"

namespace terse {

// A model folder, or a packed file that stands for one, whose weights and tokenizer are open.
// Shared by the model made from it.
struct ModelFolder {
  std::filesystem::path path;
  ModelFiles files;
  Config config;
  std::shared_ptr<Checkpoint> checkpoint;
  std::shared_ptr<const Tokenizer> tokenizer;
  const Backend* backend = nullptr;
  int threads = 1;
  Savings savings = {};
  std::shared_ptr<const LoraAdapter> adapter = nullptr;
  // Set to be told of each linear layer that is loaded, for packing.
  std::shared_ptr<std::vector<LoadedLinear>> loaded = nullptr;
  std::string device_note = {};

  // Throws Error of whatever part of the folder is wrong; its message names the file.
#ifdef TERSE_COMPILED
  static ModelFolder open(const std::filesystem::path& path, const LoadOptions& options);
#else
  template <class = void>
  static ModelFolder open(const std::filesystem::path& path, const LoadOptions& options);
#endif

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
  Loader loader() const {
    Loader loader(*backend, adapter);
    loader.loaded = loaded;
    return loader;
  }

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

// A packed file is for one type of products: another one asked for would need other panels.
inline DType packed_dtype(const PackedFile& packed, const LoadOptions& options) {
  check(!options.dtype || *options.dtype == packed.dtype(), ErrorClass::unsupported,
        path_text(packed.path()), ": packed for ", dtype_name(packed.dtype()), ", not for ",
        dtype_name(options.dtype.value_or(DType::f32)), ": pack the folder again");
  check(options.adapter.empty(), ErrorClass::unsupported, path_text(packed.path()),
        ": an adapter is merged into a model folder, not into a packed model");
  return packed.dtype();
}

// A tokenizer whose arrays are used where the file is mapped; SentencePiece models are small and
// read as they are.
inline Tokenizer unpack_tokenizer(const std::shared_ptr<const PackedFile>& packed) {
  const std::string source = path_text(packed->path());
  if (const std::string* model = packed->text("tokenizer.model")) {
    return Tokenizer::from_sentencepiece(*model, source);
  }
  const std::string* text = packed->text("tokenizer.json");
  check(text != nullptr, ErrorClass::missing, source, ": the packed model has no tokenizer");
  std::vector<PrebuiltArrays::Array> arrays;
  for (const NamedTensor& entry : packed->tensors()->entries()) {
    if (!entry.name.starts_with(kPackedTokenizerPrefix)) continue;
    const Shape& shape = entry.view.shape;
    check(entry.view.dtype == DType::u8 && shape.size() == 2, ErrorClass::schema, source,
          ": tensor ", quote(entry.name), " is not a list of elements of bytes");
    arrays.push_back({entry.name.substr(kPackedTokenizerPrefix.size()),
                      static_cast<std::size_t>(shape[1]), bytes_of(entry.view)});
  }
  return Tokenizer::from_prebuilt(*text, source, {std::move(arrays), packed, source});
}

inline std::shared_ptr<const Tokenizer> open_tokenizer(const ModelFiles& files) {
  if (files.packed() == nullptr) {
    return std::make_shared<const Tokenizer>(
        Tokenizer::load(ModelFolder::tokenizer_file(files.path())));
  }
  return std::make_shared<const Tokenizer>(unpack_tokenizer(files.packed()));
}

template <class = void>
ModelFolder open_model_folder(const std::filesystem::path& path, const LoadOptions& options) {
  const ModelFiles files = ModelFiles::open(path);
  const auto& packed = files.packed();
  ModelFolder folder{path, files, files.config("config.json"), nullptr, nullptr};
  folder.backend = &choose_backend(
      options.device, options.isa,
      packed == nullptr ? options.dtype : packed_dtype(*packed, options), &folder.device_note);
  if (options.op_counter != nullptr) folder.backend = &options.op_counter->count(*folder.backend);
  folder.threads = thread_count(options.threads);
  folder.savings = options.savings;
  // Reading a large tokenizer.json takes as long as everything else together.
  std::exception_ptr failures[2];
  parallel_for(2, 2, [&](std::int64_t part) {
    try {
      if (part == 0) {
        folder.tokenizer = open_tokenizer(files);
      } else {
        folder.checkpoint =
            packed == nullptr ? Checkpoint::open(path.string()) : Checkpoint::open(packed);
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

// The tokenizer of a model folder or packed file, or a tokenizer file by itself. Throws Error: what
// Tokenizer::load and PackedFile::open throw.
inline std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& path) {
  std::error_code ignored;
  const bool model =
      std::filesystem::is_directory(path, ignored) || PackedFile::recognizes(path.string());
  if (model) return detail::open_tokenizer(ModelFiles::open(path));
  return std::make_shared<const Tokenizer>(Tokenizer::load(path));
}

#ifndef TERSE_COMPILED
template <class>
ModelFolder ModelFolder::open(const std::filesystem::path& path, const LoadOptions& options) {
  return detail::open_model_folder(path, options);
}
#endif

}  // namespace terse
