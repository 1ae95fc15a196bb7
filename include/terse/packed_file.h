// Packed models: everything a model needs in one file that is used where it is mapped. Such a file
// is safetensors, so all that safetensors.h checks holds; what stands in it:
//
//   __metadata__          format, version, byte_order, panels, dtype; made_by and source for people
//   <module>.panels       a linear layer's weight in the order of the kernels (ops/panels.h), and
//   <module>.panel_bias   its bias in that order; <module> is the first of those stacked in it
//   other names           tables, norms and heads, as in the checkpoint
//   packed:text/<name>    config.json and the small files beside it
//   packed:tokenizer/...  the tokenizer's arrays, see tokenizer/prebuilt.h
//   packed:fill/<n>       zeros, so that what follows starts at a page or a cache line
//   packed:digests        (1 + n, 32) bytes for the n other tensors: SHA-256 of all bytes before
//                         the data and the rows that follow; then of each tensor, as the header
//                         lists them
//
// The first digest vouches for the header and all other digests. It and the texts are checked
// whenever a file is opened; weights, which take longer to digest than to use, on demand.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/file.h"
#include "terse/parallel.h"
#include "terse/safetensors.h"
#include "terse/sha256.h"
#include "terse/tensor.h"

namespace terse {

// What a file must say to be read; whatever changes in its layout or its panels' changes a value.
inline constexpr std::string_view kPackedFormat = "terse packed model";
inline constexpr std::string_view kPackedVersion = "1";
inline constexpr std::string_view kPackedByteOrder = "little";
inline constexpr std::string_view kPackedPanels = "16 columns, 4 bytes of k";

inline constexpr std::string_view kPackedPrefix = "packed:";
inline constexpr std::string_view kPackedTextPrefix = "packed:text/";
inline constexpr std::string_view kPackedTokenizerPrefix = "packed:tokenizer/";
inline constexpr std::string_view kPackedFillPrefix = "packed:fill/";
inline constexpr std::string_view kPackedDigests = "packed:digests";
inline constexpr std::size_t kPackedAlignment = 64;    // of every tensor: a line of the cache
inline constexpr std::size_t kPackedPageBytes = 4096;  // alignment of the larger ones

namespace detail {

inline std::span<const std::byte> bytes_of(const TensorView& view) {
  return {static_cast<const std::byte*>(view.data), static_cast<std::size_t>(view.size_bytes())};
}

// The first row of packed:digests.
inline Sha256::Digest packed_head_digest(std::span<const std::byte> head,
                                         std::span<const std::byte> tensor_digests) {
  Sha256 digest;
  digest.add(head);
  digest.add(tensor_digests);
  return digest.digest();
}

}  // namespace detail

// A packed model that is open, its header and texts verified. Safe to share between threads.
class PackedFile {
 public:
  // Throws Error, its message led by the file name: what SafeTensors::open throws; schema (not a
  // packed model), unsupported (another version, byte order or layout of panels), dtype, offsets (a
  // tensor that is not aligned), io (header or texts are not those that were written).
  static std::shared_ptr<const PackedFile> open(const std::string& path,
                                                FileAccess access = FileAccess::automatic) {
    return with_memory_errors([&] {
      return std::shared_ptr<const PackedFile>(new PackedFile(SafeTensors::open(path, access)));
    });
  }

  // Whether a file says that it is a packed model. Throws Error: path, io.
  static bool recognizes(const std::string& path) {
    const RegularFile file = RegularFile::open(path);
    char head[1024] = {};
    const ssize_t got = detail::retry_interrupted(
        [&] { return ::pread(file.descriptor.get(), head, sizeof(head), 0); });
    const std::string_view text(head, got < 0 ? 0 : static_cast<std::size_t>(got));
    return text.substr(0, 9).ends_with('{') && text.find(kPackedFormat) != std::string_view::npos;
  }

  const std::shared_ptr<const SafeTensors>& tensors() const { return tensors_; }
  const std::string& path() const { return tensors_->file()->path(); }
  // The type of products that its panels are for.
  DType dtype() const { return dtype_; }
  // What the file says of itself.
  const Metadata& metadata() const { return tensors_->metadata(); }

  // A small file of the published folder, by its name there; nullptr if it had none.
  const std::string* text(std::string_view name) const {
    const auto found = texts_.find(name);
    return found == texts_.end() ? nullptr : &found->second;
  }

  // Digests every tensor. Throws Error(io) naming the first that is not as it was written.
  void check_digests(int threads) const {
    const std::vector<NamedTensor>& entries = tensors_->entries();
    parallel_dynamic(threads, static_cast<std::int64_t>(entries.size()),
                     [&](std::int64_t index, int) {
                       const NamedTensor& entry = entries[static_cast<std::size_t>(index)];
                       if (entry.name != kPackedDigests)
                         check_tensor(static_cast<std::size_t>(index));
                     });
  }

 private:
  explicit PackedFile(std::shared_ptr<const SafeTensors> tensors) : tensors_(std::move(tensors)) {
    check(value("format") == kPackedFormat, ErrorClass::schema, name(),
          ": not a packed model; expected a model folder or a file made by terse pack");
    require("version", kPackedVersion);
    require("byte_order", kPackedByteOrder);
    require("panels", kPackedPanels);
    find_digests();
    check_head();
    for (std::size_t index = 0; index < tensors_->entries().size(); ++index) {
      const NamedTensor& entry = tensors_->entries()[index];
      const bool aligned = offset_of(entry.view) % kPackedAlignment == 0;
      check(aligned || entry.name.starts_with(kPackedFillPrefix), ErrorClass::offsets, name(),
            ": tensor ", quote(entry.name), " does not start at a multiple of ", kPackedAlignment);
      if (entry.name.starts_with(kPackedTextPrefix)) read_text(index);
    }
    dtype_ = read_dtype();
  }

  std::string name() const { return path_text(path()); }
  std::string_view value(const std::string& key) const {
    const auto found = metadata().find(key);
    return found == metadata().end() ? std::string_view() : std::string_view(found->second);
  }
  void require(const std::string& key, std::string_view expected) const {
    check(value(key) == expected, ErrorClass::unsupported, name(), ": packed with ", key, " ",
          quote(value(key)), ", expected ", quote(expected), ": pack the model again");
  }

  DType read_dtype() const {
    for (const DType dtype : {DType::f32, DType::bf16, DType::i8}) {
      if (value("dtype") == dtype_name(dtype)) return dtype;
    }
    fail(ErrorClass::dtype, name(), ": packed for products of type ", quote(value("dtype")),
         ", expected f32, bf16 or i8");
  }

  std::size_t offset_of(const TensorView& view) const {
    return static_cast<std::size_t>(static_cast<const std::byte*>(view.data) -
                                    tensors_->file()->bytes().data());
  }

  void find_digests() {
    const TensorView* found = tensors_->find(kPackedDigests);
    const auto count = static_cast<std::int64_t>(tensors_->entries().size());
    check(found != nullptr, ErrorClass::missing_tensor, name(), ": tensor ", quote(kPackedDigests),
          " is missing");
    check(found->dtype == DType::u8 && found->shape == Shape{count, std::int64_t{kDigestBytes}},
          ErrorClass::shape_mismatch, name(), ": tensor ", quote(kPackedDigests), " has shape ",
          shape_text(found->shape), ", expected (", count, ", ", kDigestBytes, ")");
    digests_ = detail::bytes_of(*found);
    std::size_t row = 1;
    for (const NamedTensor& entry : tensors_->entries()) {
      rows_.push_back(entry.name == kPackedDigests ? 0 : row++);
    }
  }

  void check_head() const {
    const std::span<const std::byte> bytes = tensors_->file()->bytes();
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    const auto head = bytes.first(sizeof(length) + static_cast<std::size_t>(length));
    const auto digest = detail::packed_head_digest(head, digests_.subspan(kDigestBytes));
    check(std::memcmp(digest.data(), digests_.data(), kDigestBytes) == 0, ErrorClass::io, name(),
          ": damaged: its header is not the one that was written");
  }

  void check_tensor(std::size_t index) const {
    const NamedTensor& entry = tensors_->entries()[index];
    Sha256 digest;
    digest.add(detail::bytes_of(entry.view));
    check(std::memcmp(digest.digest().data(), digests_.data() + rows_[index] * kDigestBytes,
                      kDigestBytes) == 0,
          ErrorClass::io, name(), ": damaged: tensor ", quote(entry.name, 200),
          " is not the one that was written");
  }

  void read_text(std::size_t index) {
    const NamedTensor& entry = tensors_->entries()[index];
    check_tensor(index);
    const auto bytes = detail::bytes_of(entry.view);
    texts_.emplace(entry.name.substr(kPackedTextPrefix.size()),
                   std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }

  static constexpr std::size_t kDigestBytes = 32;

  std::shared_ptr<const SafeTensors> tensors_;
  DType dtype_ = DType::f32;
  std::span<const std::byte> digests_;  // (1 + tensors, kDigestBytes)
  std::vector<std::size_t> rows_;       // of entries in digests_
  std::map<std::string, std::string, std::less<>> texts_;
};

}  // namespace terse
