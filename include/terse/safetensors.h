// safetensors files: read with every check done before the first tensor is handed out, and written.
//
// A file is a little-endian 64-bit length, a JSON header of that length and the data, which the
// tensors must cover completely: no holes, no overlaps, nothing left over. Values are not looked at
// (NaN and infinity are legal), and data may start at any byte address.
// Source: huggingface/safetensors README.md ("Format") and safetensors/src/tensor.rs. Stricter than
// the reference reader where the text is: a name given twice is refused.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "terse/checked.h"
#include "terse/dtype.h"
#include "terse/error.h"
#include "terse/file.h"
#include "terse/json.h"
#include "terse/tensor.h"
#include "terse/utf8.h"

namespace terse {

static_assert(std::endian::native == std::endian::little,
              "tensor files hold little-endian values, which are used in place");

struct NamedTensor {
  std::string name;
  TensorView view;
};

using Metadata = std::map<std::string, std::string, std::less<>>;

inline constexpr std::size_t kMaxSafeTensorsHeaderBytes = 100'000'000;

// A validated file. Safe to share between threads.
class SafeTensors {
 public:
  // Opens and validates a file; its data stays in place (mapped or read, see FileAccess).
  // Throws Error, its message led by the file name:
  //   io, path, memory  from MappedFile::open
  //   truncated         the file ends before its header or its data do
  //   limit             header longer than 100,000,000 bytes, JSON nested deeper than 16 levels
  //   json, utf8        the header is not JSON, or not an object
  //   duplicate         a name or field given twice
  //   schema            an entry or __metadata__ has the wrong form
  //   dtype, shape, overflow, offsets, coverage   in an entry, or between entries
  static std::shared_ptr<const SafeTensors> open(const std::string& path,
                                                 FileAccess access = FileAccess::automatic) {
    return with_memory_errors([&] { return open(MappedFile::open(path, access), path); });
  }
  // The same for a file that is open already; `path` is what messages call it.
  static std::shared_ptr<const SafeTensors> open(const std::shared_ptr<const MappedFile>& file,
                                                 const std::string& path) {
    return create(file->bytes(), path_text(path), file);
  }

  // The same for bytes that the caller keeps alive; `source` leads the messages.
  static std::shared_ptr<const SafeTensors> parse(std::span<const std::byte> bytes,
                                                  const std::string& source) {
    return create(bytes, source, nullptr);
  }

  SafeTensors(const SafeTensors&) = delete;
  SafeTensors& operator=(const SafeTensors&) = delete;

  // All tensors, in the order of the header.
  const std::vector<NamedTensor>& entries() const { return entries_; }

  // The tensor called name, or nullptr.
  const TensorView* find(std::string_view name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &entries_[found->second].view;
  }

  const Metadata& metadata() const { return metadata_; }

  // The file behind the tensors; nullptr after parse().
  const std::shared_ptr<const MappedFile>& file() const { return file_; }

 private:
  // Where a tensor lies in the data area.
  struct Range {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };

  static std::shared_ptr<const SafeTensors> create(std::span<const std::byte> bytes,
                                                   const std::string& source,
                                                   const std::shared_ptr<const MappedFile>& file) {
    return with_memory_errors(
        [&] { return std::shared_ptr<const SafeTensors>(new SafeTensors(bytes, source, file)); });
  }

  SafeTensors(std::span<const std::byte> bytes, const std::string& source,
              std::shared_ptr<const MappedFile> file)
      : file_(std::move(file)) {
    const std::string_view header = header_text(bytes, source);
    const std::span<const std::byte> data = bytes.subspan(sizeof(std::uint64_t) + header.size());
    const JsonDocument document = parse_header(header, source);
    const JsonValue root = document.root();
    check(root.is_object(), ErrorClass::json, source, ": header is ", root.describe(),
          ", expected an object");

    std::vector<Range> ranges;
    ranges.reserve(root.size());
    entries_.reserve(root.size());
    for (const JsonValue member : root) {
      if (member.key() == "__metadata__") {
        read_metadata(member);
      } else {
        ranges.push_back(read_entry(member));
      }
    }
    check_coverage(ranges, data.size(), source);
    index_.reserve(entries_.size());
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      entries_[i].view.data = data.data() + ranges[i].begin;
      index_.emplace(entries_[i].name, static_cast<std::uint32_t>(i));
    }
  }

  // What a file that is not safetensors most likely is, for the message.
  static std::string_view likely_cause(std::span<const std::byte> bytes) {
    struct Signature {
      std::string_view prefix, meaning;
    };
    static constexpr Signature kSignatures[] = {
        {"version https://git-lfs", " (a Git LFS pointer: fetch the real file with git lfs pull)"},
        {"<!", " (an HTML page: the download went wrong)"},
        {"<html", " (an HTML page: the download went wrong)"},
        {"Entry not found", " (the server's error text: the download went wrong)"},
        {"PK\x03\x04", " (a zip archive, as torch.save writes: convert it to safetensors)"},
        {"\x80\x02", " (a Python pickle: convert it to safetensors)"},
        {"GGUF", " (a GGUF file: terse reads safetensors)"},
        {"\x1f\x8b", " (compressed with gzip: unpack it first)"},
        {"{", " (plain JSON)"},
    };
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (const Signature& signature : kSignatures) {
      if (text.starts_with(signature.prefix)) return signature.meaning;
    }
    return "";
  }

  // The header's bytes, after checking its length against the limit and the size of the file.
  static std::string_view header_text(std::span<const std::byte> bytes, const std::string& source) {
    std::uint64_t length = 0;
    check(bytes.size() >= sizeof(length), ErrorClass::truncated, source, ": ", bytes.size(),
          " bytes, expected at least the 8 of the header length");
    std::memcpy(&length, bytes.data(), sizeof(length));
    check(length <= kMaxSafeTensorsHeaderBytes, ErrorClass::limit, source, ": header of ", length,
          " bytes, at most ", kMaxSafeTensorsHeaderBytes, " are read", likely_cause(bytes));
    const std::uint64_t rest = bytes.size() - sizeof(length);
    check(length <= rest, ErrorClass::truncated, source, ": header of ", length,
          " bytes, but only ", rest, " follow its length");
    return {reinterpret_cast<const char*>(bytes.data()) + sizeof(length),
            static_cast<std::size_t>(length)};
  }

  static JsonDocument parse_header(std::string_view header, const std::string& source) {
    const JsonLimits limits{.max_bytes = kMaxSafeTensorsHeaderBytes, .max_depth = 16};
    try {
      return JsonDocument::parse(header, limits, source);
    } catch (const Error& error) {
      if (error.error_class() != ErrorClass::range) throw;
      // The only numbers of a header are sizes.
      throw Error(ErrorClass::shape, std::string(error.message()));
    }
  }

  void read_metadata(const JsonValue& value) {
    for (const JsonValue member : value.as_object("__metadata__")) {
      metadata_.emplace(member.key(), member.as_string("a value of __metadata__"));
    }
  }

  // Appends an entry without its data; returns where that lies.
  Range read_entry(const JsonValue& value) {
    const auto label = [&] { return value.source() + ": tensor " + quote(value.key()); };
    if (!value.is_object()) {
      fail(ErrorClass::schema, label(), " is ", value.describe(), ", expected an object");
    }
    const auto dtype = value.find("dtype");
    const auto shape = value.find("shape");
    const auto data_offsets = value.find("data_offsets");
    if (!dtype || !shape || !data_offsets) {
      fail(ErrorClass::schema, label(), " has no ",
           !dtype   ? "dtype"
           : !shape ? "shape"
                    : "data_offsets");
    }
    auto& [name, view] = entries_.emplace_back();
    name = value.key();
    if (!dtype->is_string()) {
      fail(ErrorClass::schema, label(), ": dtype is ", dtype->describe(), ", expected a string");
    }
    if (!dtype_from_safetensors(dtype->as_string("dtype"), &view.dtype)) {
      fail(ErrorClass::dtype, label(), ": unknown dtype ", dtype->describe());
    }
    const std::uint64_t bytes = read_shape(*shape, label, &view);
    return read_range(*data_offsets, bytes, label);
  }

  // Fills view->shape; returns the size in bytes.
  template <class Label>
  static std::uint64_t read_shape(const JsonValue& value, const Label& label, TensorView* view) {
    if (!value.is_array()) {
      fail(ErrorClass::shape, label(), ": shape is ", value.describe(), ", expected a list");
    }
    view->shape.reserve(value.size());
    // The element size counts first, so that the product is bytes all along. A zero dimension does
    // not excuse an overflow before it.
    std::optional<std::uint64_t> bytes = dtype_size(view->dtype);
    for (const JsonValue member : value) {
      std::uint64_t dimension = 0;
      if (!member.get_unsigned(&dimension)) {
        fail(ErrorClass::shape, label(), ": shape holds ", member.describe(),
             ", expected whole numbers below 2^63");
      }
      bytes = checked_mul(*bytes, dimension);
      if (!bytes || dimension > std::uint64_t{INT64_MAX}) {
        fail(ErrorClass::overflow, label(), ": the size of its shape does not fit 64 bits");
      }
      view->shape.push_back(static_cast<std::int64_t>(dimension));
    }
    return *bytes;
  }

  template <class Label>
  static Range read_range(const JsonValue& value, std::uint64_t bytes, const Label& label) {
    Range range;
    bool ok = value.is_array() && value.size() == 2;
    if (ok) {
      auto member = value.begin();
      ok = (*member).get_unsigned(&range.begin);
      ++member;
      ok = (*member).get_unsigned(&range.end) && ok && range.begin <= range.end;
    }
    if (!ok) {
      fail(ErrorClass::offsets, label(), ": data_offsets must be two rising whole numbers");
    }
    if (range.end - range.begin != bytes) {
      fail(ErrorClass::offsets, label(), ": data_offsets span ", range.end - range.begin,
           " bytes, expected ", bytes, " by dtype and shape");
    }
    return range;
  }

  // Sorted by position, every tensor must start where the one before it ends, the first at 0 and
  // the last ending with the data. O(n log n).
  void check_coverage(const std::vector<Range>& ranges, std::uint64_t data_bytes,
                      const std::string& source) const {
    std::vector<std::uint32_t> order(ranges.size());
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return std::pair(ranges[a].begin, ranges[a].end) < std::pair(ranges[b].begin, ranges[b].end);
    });
    std::uint64_t covered = 0;
    for (const std::uint32_t i : order) {
      if (ranges[i].begin != covered) {
        fail(ErrorClass::coverage, source, ": tensor ", terse::quote(entries_[i].name),
             " starts at byte ", ranges[i].begin, ", expected ", covered,
             ", the end of the tensor before it");
      }
      covered = ranges[i].end;
    }
    check(covered <= data_bytes, ErrorClass::truncated, source, ": ", data_bytes,
          " bytes of data, expected ", covered, " (is the download complete?)");
    check(covered == data_bytes, ErrorClass::coverage, source, ": ", data_bytes - covered,
          " bytes after the last tensor");
  }

  std::shared_ptr<const MappedFile> file_;
  std::vector<NamedTensor> entries_;
  std::unordered_map<std::string_view, std::uint32_t> index_;  // into entries_, keys are its names
  Metadata metadata_;
};

// Writes a safetensors file tensor by tensor, for data too large to be held at once: the header is
// fixed by the constructor, append() takes the bytes of all tensors in order, and commit() makes
// the file appear. The data area starts at a multiple of `alignment` bytes (the header is padded
// with spaces).
class SafeTensorsWriter {
 public:
  // Takes names, dtypes and shapes from entries; data may be null. Throws Error: io, duplicate,
  // utf8 (a name or metadata), limit (header too long), schema (a tensor named __metadata__),
  // overflow.
  SafeTensorsWriter(const std::string& path, std::span<const NamedTensor> entries,
                    const Metadata& metadata = {}, std::size_t alignment = 64)
      : file_(path) {
    std::string header = header_text(path, entries, metadata);
    // 8 bytes of length, header and padding together fill whole blocks.
    header.append((alignment - (header.size() + sizeof(std::uint64_t)) % alignment) % alignment,
                  ' ');
    check(header.size() <= kMaxSafeTensorsHeaderBytes, ErrorClass::limit, path_text(path),
          ": header of ", header.size(), " bytes, at most ", kMaxSafeTensorsHeaderBytes);
    const std::uint64_t length = header.size();
    head_.assign(reinterpret_cast<const char*>(&length), sizeof(length));
    head_ += header;
    file_.write(head_);
  }

  // All bytes before the data: the length and the header.
  const std::string& head() const { return head_; }

  // The next bytes of the data, as many or few as there are at hand. Throws Error: io, offsets
  // (more than the tensors hold).
  void append(std::span<const std::byte> bytes) {
    check(bytes.size() <= remaining_bytes_, ErrorClass::offsets, path_text(file_.path()),
          ": more data written than the tensors hold");
    remaining_bytes_ -= bytes.size();
    file_.write(bytes);
  }

  // Throws Error: io, truncated (fewer bytes appended than the tensors hold).
  void commit() {
    check(remaining_bytes_ == 0, ErrorClass::truncated, path_text(file_.path()), ": ",
          remaining_bytes_, " bytes of the tensors were not written");
    file_.commit();
  }

 private:
  static std::string checked_string(std::string_view text, std::string_view what) {
    check_utf8(text, what);
    return json_string(text);
  }

  std::string header_text(const std::string& path, std::span<const NamedTensor> entries,
                          const Metadata& metadata) {
    std::string header = "{";
    if (!metadata.empty()) {
      header += "\"__metadata__\":{";
      for (const auto& [key, value] : metadata) {
        header +=
            checked_string(key, "metadata name") + ":" + checked_string(value, "metadata") + ",";
      }
      header.back() = '}';
      header += ",";
    }
    std::vector<std::string_view> sorted;
    for (const NamedTensor& entry : entries) {
      sorted.push_back(entry.name);
      header += entry_text(entry) + ",";
    }
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end()) {
      fail(ErrorClass::duplicate, path_text(path), ": tensor ", quote(*twice), " given twice");
    }
    if (header.size() == 1) return "{}";
    header.back() = '}';
    return header;
  }

  // One tensor's part of the header; its bytes follow those of the tensors before it.
  std::string entry_text(const NamedTensor& entry) {
    check(entry.name != "__metadata__", ErrorClass::schema,
          "a tensor cannot be called __metadata__");
    const std::uint64_t begin = remaining_bytes_;
    remaining_bytes_ = add_sizes(begin, entry.view.size_bytes(), "size of the tensor file");
    std::string shape;
    for (const std::int64_t dimension : entry.view.shape) {
      shape += (shape.empty() ? "" : ",") + std::to_string(dimension);
    }
    return checked_string(entry.name, "tensor name") + ":{\"dtype\":" +
           json_string(kDTypes[static_cast<std::size_t>(entry.view.dtype)].safetensors) +
           ",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(begin) + "," +
           std::to_string(remaining_bytes_) + "]}";
  }

  AtomicFile file_;
  std::string head_;
  std::uint64_t remaining_bytes_ = 0;
};

// Writes entries, whose data are all in memory, as a safetensors file in one go. Throws like
// SafeTensorsWriter.
inline void write_safetensors(const std::string& path, std::span<const NamedTensor> entries,
                              const Metadata& metadata = {}) {
  SafeTensorsWriter writer(path, entries, metadata);
  for (const NamedTensor& entry : entries) {
    writer.append({static_cast<const std::byte*>(entry.view.data),
                   narrow<std::size_t>(entry.view.size_bytes(), "tensor bytes")});
  }
  writer.commit();
}

}  // namespace terse
