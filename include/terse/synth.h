// Models made up: random weights under the published names, in the published folder form, for
// measuring speed and memory where the real weights are not at hand. Values are made as they are
// written, so that a model larger than memory is no matter.
//
// A value depends on the seed, the tensor's name and the element's place alone: neither on the
// number of threads nor on which other tensors there are, so that a model of fewer layers holds the
// first layers of the whole one. Matrices have a standard deviation of 1 / sqrt(in_features) and
// embeddings of 0.02, which keeps activations of all layers near 1.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/file.h"
#include "terse/model_shape.h"
#include "terse/models/config.h"
#include "terse/parallel.h"
#include "terse/safetensors.h"
#include "terse/synth_tokenizer.h"
#include "terse/tensor.h"
#include "terse/weights.h"

namespace terse {

struct SynthOptions {
  std::uint64_t seed = 0;
  DType dtype = DType::f32;                   // f32, f16 or bf16
  std::filesystem::path tokenizer = {};       // copied into the folder; empty: a made-up one
  bool multi_vector_heads = false;            // the two more heads of bge-m3
  int threads = 0;                            // 0: every core this process may use
  std::uint64_t shard_bytes = 5'000'000'000;  // of tensors in one file, at most
  // Bytes of weights written so far, and in all.
  std::function<void(std::uint64_t, std::uint64_t)> progress = {};
  std::function<bool()> cancel = {};  // true ends the call with Error(cancelled)
};

// Random bits for the elements of one tensor: SplitMix64 (Steele, Lea and Flood 2014, "Fast
// splittable pseudorandom number generators"), whose state only counts, so that any place of the
// sequence is as near as its first.
class TensorNoise {
 public:
  TensorNoise(std::uint64_t seed, std::string_view tensor_name) : key_(mix(seed)) {
    for (const char c : tensor_name) key_ = mix(key_ ^ static_cast<unsigned char>(c));
  }

  // The bits of elements 4 * index .. 4 * index + 3.
  std::uint64_t word(std::uint64_t index) const {
    return mix(key_ + (index + 1) * 0x9e3779b97f4a7c15U);
  }

  // An element from its word: one of 65536 equidistant values with mean 0 and standard deviation 1.
  static float unit(std::uint64_t word, int element) {
    constexpr float kStep = 5.2859926e-5F;  // sqrt(12) / 65536
    const auto level = static_cast<std::int32_t>(word >> 16 * element & 0xffff);
    return (static_cast<float>(level) - 32767.5F) * kStep;
  }

 private:
  static constexpr std::uint64_t mix(std::uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
  }

  std::uint64_t key_;
};

namespace detail {

// What the values of a tensor look like.
struct Distribution {
  float mean = 0;
  float deviation = 0;
};

inline Distribution distribution_of(const ExpectedTensor& tensor, const ModelShape& shape) {
  constexpr float kSmall = 0.02F;
  if (tensor.part == TensorPart::embedding) return {0, kSmall};
  if (tensor.is_matrix()) {
    return {0, static_cast<float>(1 / std::sqrt(static_cast<double>(tensor.shape[1])))};
  }
  const bool norm_weight = tensor.name.ends_with(".weight");
  return {norm_weight && !shape.norms_plus_one ? 1.0F : 0.0F, kSmall};
}

template <class T>
T from_f32(float value) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(value);
  } else if constexpr (std::is_same_v<T, f16>) {
    return to_f16(value);
  } else {
    return value;
  }
}

// A folder that appears under its name only when commit() is called.
class StagedFolder {
 public:
  // Throws Error(io) if there is something else than an empty folder at `path`, or no place for it.
  explicit StagedFolder(const std::filesystem::path& path) : path_((path / "").parent_path()) {
    std::error_code error;
    const bool taken =
        std::filesystem::exists(path_, error) &&
        !(std::filesystem::is_directory(path_, error) && std::filesystem::is_empty(path_, error));
    check(!taken, ErrorClass::io, path_text(path_.string()),
          ": is there already, expected a new or empty folder");
    const std::filesystem::path parent = path_.has_parent_path() ? path_.parent_path() : ".";
    for (int attempt = 0; temporary_.empty(); ++attempt) {
      const auto name = parent / (".terse-synth-" + std::to_string(attempt) + ".tmp");
      if (std::filesystem::create_directory(name, error)) temporary_ = name;
      if (error) fail_io(name.string(), "create", error.value());
    }
  }
  ~StagedFolder() {
    std::error_code ignored;
    if (!temporary_.empty()) std::filesystem::remove_all(temporary_, ignored);
  }
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  std::string file(std::string_view name) const { return (temporary_ / name).string(); }

  void write(std::string_view name, std::string_view text) const {
    const std::filesystem::path target = temporary_ / name;
    std::error_code error;
    std::filesystem::create_directories(target.parent_path(), error);
    if (error) fail_io(target.string(), "create", error.value());
    AtomicFile file(target.string());
    file.write(text);
    file.commit();
  }

  // Throws Error(io) if fewer bytes are free where the folder lies.
  void require_space(std::uint64_t bytes) const {
    std::error_code error;
    const auto space = std::filesystem::space(temporary_, error);
    if (error) return;
    check(space.available >= bytes, ErrorClass::io, path_text(path_.string()), ": needs ", bytes,
          " bytes, ", space.available, " are free");
  }

  void commit() {
    std::error_code error;
    std::filesystem::rename(temporary_, path_, error);
    if (error) fail_io(path_.string(), "rename", error.value());
    temporary_.clear();
  }

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
};

// Writes tensor files of one made-up model.
class SynthWriter {
 public:
  SynthWriter(const StagedFolder& folder, const ModelShape& shape, const SynthOptions& options,
              std::uint64_t total_bytes)
      : folder_(folder),
        shape_(shape),
        options_(options),
        threads_(thread_count(options.threads)),
        total_bytes_(total_bytes),
        block_(kBlockElements * static_cast<std::size_t>(threads_) * dtype_size(options.dtype)) {}

  void write_file(const std::string& name, std::span<const ExpectedTensor> tensors) {
    std::vector<NamedTensor> entries;
    for (const ExpectedTensor& tensor : tensors) {
      entries.push_back({tensor.name, {nullptr, options_.dtype, tensor.shape}});
    }
    SafeTensorsWriter writer(folder_.file(name), entries, {{"format", "pt"}});
    for (const ExpectedTensor& tensor : tensors) {
      dispatch_floating(options_.dtype, [&]<class T>() { append<T>(writer, tensor); });
    }
    writer.commit();
  }

 private:
  static constexpr std::size_t kBlockElements = std::size_t{1} << 20;

  // Blocks are made by all threads, and written by this one.
  template <class T>
  void append(SafeTensorsWriter& writer, const ExpectedTensor& tensor) {
    const TensorNoise noise(options_.seed, tensor.name);
    const auto [mean, deviation] = distribution_of(tensor, shape_);
    const std::uint64_t count = tensor.parameters();
    const std::uint64_t block = block_.size() / sizeof(T);  // a multiple of 4
    T* const values = block_.as<T>();
    for (std::uint64_t begin = 0; begin < count; begin += block) {
      check(!options_.cancel || !options_.cancel(), ErrorClass::cancelled,
            "the caller asked to stop");
      const std::uint64_t length = std::min(block, count - begin);
      const auto words = static_cast<std::int64_t>((length + 3) / 4);
      parallel_for(threads_, words, [&, mean = mean, deviation = deviation](std::int64_t word) {
        const std::uint64_t bits = noise.word(begin / 4 + static_cast<std::uint64_t>(word));
        for (int i = 0; i < 4; ++i) {
          values[4 * word + i] = from_f32<T>(mean + deviation * TensorNoise::unit(bits, i));
        }
      });
      writer.append(std::as_bytes(std::span(values, static_cast<std::size_t>(length))));
      written_bytes_ += length * sizeof(T);
      if (options_.progress) options_.progress(written_bytes_, total_bytes_);
    }
  }

  const StagedFolder& folder_;
  const ModelShape& shape_;
  const SynthOptions& options_;
  int threads_;
  std::uint64_t total_bytes_;
  std::uint64_t written_bytes_ = 0;
  AlignedBuffer block_;
};

// The layout cut into files of at most shard_bytes (a larger tensor stands alone), in order.
inline std::vector<std::span<const ExpectedTensor>> plan_shards(
    std::span<const ExpectedTensor> layout, DType dtype, std::uint64_t shard_bytes) {
  std::vector<std::span<const ExpectedTensor>> shards;
  std::size_t begin = 0;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < layout.size(); ++i) {
    const std::uint64_t more = layout[i].parameters() * dtype_size(dtype);
    if (i > begin && bytes + more > shard_bytes) {
      shards.push_back(layout.subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += more;
  }
  shards.push_back(layout.subspan(begin));
  return shards;
}

inline std::string five_digits(std::size_t number) {
  const std::string digits = std::to_string(number);
  return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
}

// model.safetensors, or shards and their index.
inline void write_weights(const StagedFolder& folder, std::span<const ExpectedTensor> layout,
                          const SynthOptions& options, std::uint64_t total_bytes,
                          SynthWriter& writer) {
  const auto shards = plan_shards(layout, options.dtype, options.shard_bytes);
  if (shards.size() == 1) return writer.write_file("model.safetensors", layout);
  nlohmann::ordered_json index = {{"metadata", {{"total_size", total_bytes}}}};
  for (std::size_t shard = 0; shard < shards.size(); ++shard) {
    const std::string name =
        "model-" + five_digits(shard + 1) + "-of-" + five_digits(shards.size()) + ".safetensors";
    writer.write_file(name, shards[shard]);
    for (const ExpectedTensor& tensor : shards[shard]) index["weight_map"][tensor.name] = name;
  }
  folder.write("model.safetensors.index.json", index.dump(2) + "\n");
}

// What sentence-transformers keeps beside an embedder.
inline void write_sentence_transformers(const StagedFolder& folder, const ModelShape& shape) {
  constexpr const char* kTypes[] = {"Transformer", "Pooling", "Normalize"};
  constexpr const char* kPaths[] = {"", "1_Pooling", "2_Normalize"};
  nlohmann::ordered_json modules = nlohmann::ordered_json::array();
  for (int step = 0; step < 3; ++step) {
    modules.push_back({{"idx", step},
                       {"name", std::to_string(step)},
                       {"path", kPaths[step]},
                       {"type", std::string("sentence_transformers.models.") + kTypes[step]}});
  }
  const nlohmann::ordered_json pooling = {{"word_embedding_dimension", shape.hidden_size},
                                          {"pooling_mode_cls_token", true},
                                          {"pooling_mode_mean_tokens", false},
                                          {"pooling_mode_max_tokens", false},
                                          {"pooling_mode_mean_sqrt_len_tokens", false}};
  folder.write("modules.json", modules.dump(2) + "\n");
  folder.write("1_Pooling/config.json", pooling.dump(2) + "\n");
}

inline void write_tokenizer(const StagedFolder& folder, const Config& config,
                            const ModelShape& shape, const std::filesystem::path& tokenizer) {
  if (tokenizer.empty()) {
    folder.write("tokenizer.json", synthetic_tokenizer(config, shape));
    return;
  }
  const bool sentencepiece = tokenizer.extension() == ".model";
  folder.write(sentencepiece ? "tokenizer.model" : "tokenizer.json",
               read_text_file(tokenizer.string(), kMaxTokenizerBytes));
}

// bge-m3's sparse_linear and colbert_linear.
inline std::vector<std::vector<ExpectedTensor>> multi_vector_heads(const ModelShape& shape) {
  const std::int64_t width = shape.hidden_size;
  std::vector<std::vector<ExpectedTensor>> files;
  for (const auto& [name, rows] :
       {std::pair("sparse_linear", std::int64_t{1}), std::pair("colbert_linear", width)}) {
    TensorList list;
    list.begin(TensorPart::head, "");
    list.biased(name, {rows, width});
    files.push_back(list.take());
  }
  return files;
}

}  // namespace detail

// Makes the folder: config.json as given, the weights and the tokenizer that go with it. It appears
// when it is complete; a failure leaves nothing. Throws Error: what reading the config throws;
// io (the folder is there and not empty, no room on the disk); what reading the tokenizer throws;
// range (a vocabulary too small for the made-up tokenizer), unsupported (another dtype), cancelled.
inline void write_synthetic_model(const std::filesystem::path& path, std::string_view config_text,
                                  const SynthOptions& options = {}) {
  check(options.dtype == DType::f32 || options.dtype == DType::f16 || options.dtype == DType::bf16,
        ErrorClass::unsupported, "weights of type ", dtype_name(options.dtype),
        ", expected f32, f16 or bf16");
  const Config config = Config::parse(config_text, "the config");
  const ModelShape shape = read_model_shape(config);
  const std::vector<ExpectedTensor> layout = checkpoint_layout(shape);
  const auto heads = options.multi_vector_heads ? detail::multi_vector_heads(shape)
                                                : std::vector<std::vector<ExpectedTensor>>{};
  const std::uint64_t layout_bytes =
      mul_sizes(num_parameters(layout), dtype_size(options.dtype), "bytes of weights");
  std::uint64_t total_bytes = layout_bytes;
  for (const auto& head : heads) {
    total_bytes += num_parameters(head) * dtype_size(options.dtype);
  }
  detail::StagedFolder folder(path);
  folder.require_space(total_bytes);
  detail::write_tokenizer(folder, config, shape, options.tokenizer);
  detail::SynthWriter writer(folder, shape, options, total_bytes);
  detail::write_weights(folder, layout, options, layout_bytes, writer);
  for (const auto& head : heads) {
    const std::string& first = head.front().name;
    writer.write_file(first.substr(0, first.find('.')) + ".safetensors", head);
  }
  if (shape.role == ModelRole::embedder && !shape.causal) {
    detail::write_sentence_transformers(folder, shape);
  }
  folder.write("config.json", config_text);
  folder.commit();
}

}  // namespace terse
