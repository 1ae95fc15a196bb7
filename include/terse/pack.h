// Writing a packed model (packed_file.h): a model folder's weights in the order of the kernels, its
// tokenizer's arrays and small files, in one file that is used where it is mapped.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/file.h"
#include "terse/models/loading.h"
#include "terse/models/model_files.h"
#include "terse/models/registry.h"
#include "terse/ops/panels.h"
#include "terse/options.h"
#include "terse/packed_file.h"
#include "terse/parallel.h"
#include "terse/safetensors.h"
#include "terse/sha256.h"
#include "terse/tensor.h"

namespace terse {

struct PackOptions {
  LoadOptions load = {};  // dtype: the type that the packed model multiplies in
  std::string made_by = "terse";
  // After each tensor: bytes written, bytes in all.
  std::function<void(std::uint64_t, std::uint64_t)> progress = {};
  // Asked between tensors; true ends the call with Error(cancelled), and nothing is written.
  std::function<bool()> cancel = {};
};

namespace detail {

// Collects what a packed file will hold, in order, and writes it.
class Packer {
 public:
  // A tensor whose bytes are at hand, or made by `fill` when they are written.
  void add(std::string name, TensorView view, std::function<Tensor()> fill = {}) {
    align(view.size_bytes() >= kPackedPageBytes ? kPackedPageBytes : kPackedAlignment);
    append(std::move(name), std::move(view), std::move(fill));
  }

  void add_bytes(std::string name, std::string bytes) {
    auto owner = std::make_shared<const std::string>(std::move(bytes));
    const auto size = static_cast<std::int64_t>(owner->size());
    add(std::move(name), {owner->data(), DType::u8, {size}});
    owners_.push_back(std::move(owner));
  }

  // Keeps what views point to.
  void keep(std::shared_ptr<const void> owner) { owners_.push_back(std::move(owner)); }

  void write(const std::string& path, const Metadata& metadata, const PackOptions& options) {
    align(kPackedAlignment);
    const auto rows = static_cast<std::int64_t>(entries_.size()) + 1;
    append(std::string(kPackedDigests), {nullptr, DType::u8, {rows, kDigestBytes}}, {});
    SafeTensorsWriter writer(path, entries_, metadata, kPackedPageBytes);
    std::vector<std::byte> digests(static_cast<std::size_t>(rows * kDigestBytes));
    std::uint64_t done = 0;
    for (std::size_t i = 0; i + 1 < entries_.size(); ++i) {
      check(!options.cancel || !options.cancel(), ErrorClass::cancelled,
            "the caller asked to stop");
      Tensor filled;
      std::span<const std::byte> bytes = zeros(entries_[i]);
      if (fills_[i]) {
        filled = fills_[i]();
        fills_[i] = {};  // and with it the original, whose pages are given back
        bytes = bytes_of(filled.view());
      } else if (entries_[i].view.data != nullptr) {
        bytes = bytes_of(entries_[i].view);
      }
      writer.append(bytes);
      put(digests, i + 1, digest_of(bytes));
      done += bytes.size();
      if (options.progress) options.progress(done, bytes_);
    }
    const std::span<const std::byte> of_tensors = std::span(digests).subspan(kDigestBytes);
    put(digests, 0, packed_head_digest(std::as_bytes(std::span(writer.head())), of_tensors));
    writer.append(digests);
    writer.commit();
  }

 private:
  static constexpr std::int64_t kDigestBytes = 32;

  void append(std::string name, TensorView view, std::function<Tensor()> fill) {
    bytes_ = add_sizes(bytes_, view.size_bytes(), "size of the packed model");
    entries_.push_back({std::move(name), std::move(view)});
    fills_.push_back(std::move(fill));
  }

  // Zeros up to a multiple of `alignment` bytes: the format allows no holes.
  void align(std::size_t alignment) {
    const auto missing = static_cast<std::int64_t>((alignment - bytes_ % alignment) % alignment);
    if (missing == 0) return;
    append(std::string(kPackedFillPrefix) + std::to_string(num_fills_++),
           {nullptr, DType::u8, {missing}}, {});
  }

  static std::span<const std::byte> zeros(const NamedTensor& entry) {
    static constexpr std::byte kZeros[kPackedPageBytes] = {};
    return std::span(kZeros).first(
        std::min<std::size_t>(kPackedPageBytes, static_cast<std::size_t>(entry.view.size_bytes())));
  }
  static Sha256::Digest digest_of(std::span<const std::byte> bytes) {
    Sha256 digest;
    digest.add(bytes);
    return digest.digest();
  }
  static void put(std::vector<std::byte>& digests, std::size_t row, const Sha256::Digest& digest) {
    std::memcpy(digests.data() + row * kDigestBytes, digest.data(), digest.size());
  }

  std::vector<NamedTensor> entries_;
  std::vector<std::function<Tensor()>> fills_;
  std::vector<std::shared_ptr<const void>> owners_;
  std::uint64_t bytes_ = 0;
  std::size_t num_fills_ = 0;
};

// tokenizer.json without what is stored as arrays.
inline std::string tokenizer_without_arrays(std::string_view text, std::string_view type) {
  auto json = nlohmann::ordered_json::parse(text);
  json["model"]["type"] = type;
  json["model"].erase("vocab");
  json["model"].erase("merges");
  return json.dump();
}

inline void pack_tokenizer(const ModelFolder& folder, Packer& packer) {
  const std::filesystem::path file = ModelFolder::tokenizer_file(folder.path);
  const std::string text = read_text_file(file.string(), kMaxTokenizerBytes);
  PrebuiltArrays arrays;
  if (!folder.tokenizer->save(arrays)) {
    packer.add_bytes(std::string(kPackedTextPrefix) + "tokenizer.model", text);
    return;
  }
  packer.add_bytes(std::string(kPackedTextPrefix) + "tokenizer.json",
                   tokenizer_without_arrays(text, folder.tokenizer->type()));
  for (const PrebuiltArrays::Array& array : arrays.arrays()) {
    const auto element_bytes = static_cast<std::int64_t>(array.element_bytes);
    const auto count = static_cast<std::int64_t>(array.bytes.size()) / element_bytes;
    packer.add(std::string(kPackedTokenizerPrefix) + array.name,
               {array.bytes.data(), DType::u8, {count, element_bytes}});
  }
  packer.keep(folder.tokenizer);
}

// The values by column of a linear layer's panels, f32 or i32.
template <class T>
Tensor by_column(const PanelWeight& weight, const T* values, DType dtype) {
  Tensor tensor(dtype, {weight.panels() * kPanelColumns});
  std::memcpy(tensor.data<T>(), values, static_cast<std::size_t>(tensor.view().size_bytes()));
  return tensor;
}

// A linear layer as it is written: panels, and of int8 the scales and sums of columns.
struct FilledPanels {
  Tensor panels;
  Tensor scales;
  Tensor sums;
};
inline FilledPanels panels_of(const LoadedLinear& linear, int threads) {
  const PanelWeight weight(linear.kind, linear.parts, dtype_size(linear.dtype));
  parallel_for(threads, weight.panels(),
               [&](std::int64_t panel) { fill_panel(weight, panel, linear.dtype); });
  FilledPanels filled{Tensor(linear.dtype, weight.shape(linear.dtype)), {}, {}};
  std::memcpy(filled.panels.data<std::byte>(), weight.panel(0),
              static_cast<std::size_t>(filled.panels.view().size_bytes()));
  if (linear.dtype == DType::i8) {
    filled.scales = by_column(weight, weight.scales(), DType::f32);
    filled.sums = by_column(weight, weight.sums(), DType::i32);
  }
  return filled;
}

inline void pack_linear(const LoadedLinear& linear, int threads, Packer& packer) {
  const PanelWeight shape(linear.kind, linear.parts, dtype_size(linear.dtype));
  const Shape columns = {shape.panels() * kPanelColumns};
  // Filled when the panels are written, taken by what is written after them.
  const auto filled = std::make_shared<FilledPanels>();
  packer.add(linear.module + ".panels", {nullptr, linear.dtype, shape.shape(linear.dtype)},
             [linear, threads, filled] {
               *filled = panels_of(linear, threads);
               return std::move(filled->panels);
             });
  if (linear.dtype == DType::i8) {
    packer.add(linear.module + ".panel_scales", {nullptr, DType::f32, columns},
               [filled] { return std::move(filled->scales); });
    packer.add(linear.module + ".panel_sums", {nullptr, DType::i32, columns},
               [filled] { return std::move(filled->sums); });
  }
  if (linear.parts[0].bias.data == nullptr) return;
  const auto bias = std::make_shared<Tensor>(by_column(shape, shape.bias(), DType::f32));
  packer.add(linear.module + ".panel_bias", bias->view());
  packer.keep(bias);
}

}  // namespace detail

// Packs the model of a folder into the file `out`, which appears when it is complete and replaces
// one of that name. Scores of the packed model are those of the folder for the same type, bit for
// bit. Throws Error: what loading the folder throws; unsupported (a type without panels, an
// adapter, a model that is packed already), io, cancelled.
inline void pack_model(const std::filesystem::path& path, const std::filesystem::path& out,
                       const PackOptions& options = {}) {
  LoadOptions load = options.load;
  load.savings.lazy_layers = false;  // every layer is packed
  ModelFolder folder = ModelFolder::open(path, load);
  check(folder.files.packed() == nullptr, ErrorClass::unsupported, path_text(path.string()),
        ": is packed already");
  check(folder.adapter == nullptr, ErrorClass::unsupported, path_text(path.string()),
        ": packing a model with an adapter is not implemented");
  folder.loaded = std::make_shared<std::vector<LoadedLinear>>();
  // Loading it shows which tensors it uses, and which of them in linear layers.
  const Config& config = folder.config;
  if (find_architecture(config).is_reranker(config)) {
    load_reranker(folder);
  } else {
    load_embedder(folder);
  }
  detail::Packer packer;
  for (const char* name : kModelFiles) {
    if (folder.files.has(name)) {
      packer.add_bytes(std::string(kPackedTextPrefix) + name,
                       folder.files.text(name, ConfigLimits::kBytes));
    }
  }
  detail::pack_tokenizer(folder, packer);
  std::unordered_set<std::string> in_panels;
  for (const LoadedLinear& linear : *folder.loaded) {
    in_panels.insert(linear.tensors.begin(), linear.tensors.end());
  }
  folder.checkpoint->for_each_read([&](const std::string& name, const TensorView& view) {
    if (!in_panels.contains(name)) packer.add(name, view);
  });
  for (const LoadedLinear& linear : *folder.loaded) {
    detail::pack_linear(linear, folder.threads, packer);
  }
  folder.loaded->clear();
  packer.write(out.string(),
               {{"format", std::string(kPackedFormat)},
                {"version", std::string(kPackedVersion)},
                {"byte_order", std::string(kPackedByteOrder)},
                {"panels", std::string(kPackedPanels)},
                {"dtype", dtype_name(folder.backend->compute)},
                {"made_by", options.made_by},
                {"source", path_text(path.filename().string())}},
               options);
}

}  // namespace terse
