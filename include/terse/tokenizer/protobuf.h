// Bounded reading of protobuf messages, as far as SentencePiece .model files need it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"

namespace terse {

// One field of a message. Source: protobuf.dev/programming-guides/encoding.
struct ProtobufField {
  enum class Kind : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };
  std::uint32_t number = 0;
  Kind kind = Kind::varint;
  std::uint64_t value = 0;  // of a varint, fixed64 or fixed32
  std::string_view bytes;   // of a string, bytes or submessage

  bool is(std::uint32_t field_number, Kind field_kind) const {
    return number == field_number && kind == field_kind;
  }
  // The value of a fixed32 as a float.
  float as_float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(value)); }
  // The value of a varint as an int32, which writers extend to ten bytes when it is negative.
  std::int32_t as_int32() const {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(value));
  }
};

// Walks the fields of one message; groups are checked and skipped.
class ProtobufReader {
 public:
  // Reads the file `source` from its first byte.
  ProtobufReader(std::string_view file, std::string_view source)
      : file_(file), source_(source), end_(file.size()) {}

  // Reads the submessage in one of this reader's fields.
  ProtobufReader submessage(const ProtobufField& field) const {
    ProtobufReader reader = *this;
    reader.position_ = static_cast<std::size_t>(field.bytes.data() - file_.data());
    reader.end_ = reader.position_ + field.bytes.size();
    reader.is_nested_ = true;
    return reader;
  }

  // Advances to the next field; returns false at the end of the message. Throws Error: truncated
  // (the file ends first), protobuf (malformed), limit (groups nested too deep).
  bool next(ProtobufField* field) {
    while (position_ < end_) {
      const Tag tag = read_tag();
      if (tag.wire_type == kStartGroup) {
        skip_group(tag.number);
        continue;
      }
      if (tag.wire_type == kEndGroup) malformed("a group ends that never began");
      read_value(tag, field);
      return true;
    }
    return false;
  }

 private:
  static constexpr std::uint32_t kStartGroup = 3;
  static constexpr std::uint32_t kEndGroup = 4;
  static constexpr std::size_t kMaxGroupDepth = 100;

  struct Tag {
    std::uint32_t number;
    std::uint32_t wire_type;
  };

  [[noreturn]] void malformed(std::string_view what) const {
    fail(ErrorClass::protobuf, source_, ": not a SentencePiece model, at byte ", position_, ": ",
         what);
  }

  // Fewer bytes are left than needed. A file that was cut ends inside an outermost field: further
  // in, the length itself is wrong (and SentencePiece writes no groups).
  void require(std::uint64_t size) const {
    if (size <= end_ - position_) return;
    if (is_nested_) malformed("a field reaches past the end of its message or group");
    fail(ErrorClass::truncated, source_, ": ends inside a field at byte ", position_,
         ", which has ", size, " bytes");
  }

  std::uint64_t read_varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (shift > 0 && position_ == end_) malformed("a varint that never ends");
      require(1);
      const auto byte = static_cast<unsigned char>(file_[position_++]);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (shift == 63 && byte > 1) malformed("a varint of more than 64 bits");
        return value;
      }
    }
    malformed("a varint of more than ten bytes");
  }

  std::uint64_t read_fixed(std::size_t size) {
    require(size);
    std::uint64_t value = 0;
    for (std::size_t k = 0; k < size; ++k) {
      value |= std::uint64_t{static_cast<unsigned char>(file_[position_ + k])} << (8 * k);
    }
    position_ += size;
    return value;
  }

  std::string_view read_bytes() {
    const std::uint64_t size = read_varint();
    if (size > std::numeric_limits<std::int32_t>::max()) malformed("a field of more than 2 GiB");
    require(size);
    const std::string_view bytes = file_.substr(position_, static_cast<std::size_t>(size));
    position_ += bytes.size();
    return bytes;
  }

  Tag read_tag() {
    const std::uint64_t tag = read_varint();
    if (tag >> 3 == 0 || tag > std::numeric_limits<std::uint32_t>::max()) {
      malformed("a field number that is 0 or too large");
    }
    return {static_cast<std::uint32_t>(tag >> 3), static_cast<std::uint32_t>(tag & 7)};
  }

  void read_value(const Tag& tag, ProtobufField* field) {
    using Kind = ProtobufField::Kind;
    *field = {tag.number, static_cast<Kind>(tag.wire_type), 0, {}};
    switch (field->kind) {
      case Kind::varint:
        field->value = read_varint();
        return;
      case Kind::fixed64:
        field->value = read_fixed(8);
        return;
      case Kind::bytes:
        field->bytes = read_bytes();
        return;
      case Kind::fixed32:
        field->value = read_fixed(4);
        return;
    }
    malformed("an unknown wire type");
  }

  // Skips to the end of a group, keeping a list of the open ones rather than recursing.
  void skip_group(std::uint32_t number) {
    std::vector<std::uint32_t> open = {number};
    const bool was_nested = std::exchange(is_nested_, true);
    ProtobufField skipped;
    while (!open.empty()) {
      if (position_ == end_) malformed("a group that is never closed");
      const Tag tag = read_tag();
      if (tag.wire_type == kStartGroup) {
        check(open.size() < kMaxGroupDepth, ErrorClass::limit, source_,
              ": groups nested deeper than ", kMaxGroupDepth, " at byte ", position_);
        open.push_back(tag.number);
      } else if (tag.wire_type == kEndGroup) {
        if (open.back() != tag.number) malformed("a group closed under another number");
        open.pop_back();
      } else {
        read_value(tag, &skipped);
      }
    }
    is_nested_ = was_nested;
  }

  std::string_view file_;
  std::string_view source_;
  std::size_t position_ = 0;
  std::size_t end_;
  bool is_nested_ = false;  // in a submessage or group
};

}  // namespace terse
