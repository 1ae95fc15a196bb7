// The truncation and padding that tokenizer.json carries along. They are read and checked so that
// callers can see them; encoding never applies them by itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/tokenizer/component.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/truncate.h"

namespace terse {

// More tokens than this in the file's padding are refused; truncation may name any length.
inline constexpr std::uint64_t kMaxPaddedTokens = std::uint64_t{1} << 24;

struct FileTruncation {
  std::uint64_t max_length = 0;  // tokens, special ones included
  std::uint64_t stride = 0;      // tokens that overflowing windows share
  TruncationStrategy strategy = TruncationStrategy::longest_first;
  TruncationSide side = TruncationSide::right;
};

struct FilePadding {
  std::optional<std::uint64_t> fixed_length = {};  // tokens; without, to the longest of a batch
  std::optional<std::uint64_t> multiple_of = {};
  TruncationSide side = TruncationSide::right;
  TokenId pad_id = 0;
  TokenId pad_type_id = 0;
  std::string pad_token = {};
};

namespace detail {

inline std::uint64_t read_count(JsonValue value, std::string_view what) {
  std::uint64_t count = 0;
  check(value.get_unsigned(&count), ErrorClass::schema, value.source(), ": ", what, " is ",
        value.describe(), ", expected an unsigned integer");
  return count;
}

inline TruncationSide read_side(JsonValue options, TruncationSide absent) {
  const auto member = options.find("direction");
  if (!member) return absent;
  const std::string_view name = member->as_string("direction");
  check(name == "Left" || name == "Right", ErrorClass::schema, options.source(), ": direction is ",
        quote(name), ", expected Left or Right");
  return name == "Left" ? TruncationSide::left : TruncationSide::right;
}

inline TruncationStrategy read_strategy(JsonValue value) {
  const std::string_view name = value.as_string("truncation strategy");
  if (name == "LongestFirst") return TruncationStrategy::longest_first;
  if (name == "OnlyFirst") return TruncationStrategy::only_first;
  check(name == "OnlySecond", ErrorClass::schema, value.source(), ": truncation strategy is ",
        quote(name), ", expected LongestFirst, OnlyFirst or OnlySecond");
  return TruncationStrategy::only_second;
}

// What the padding strategy says: null for BatchLongest, a length for {"Fixed": length}.
inline std::optional<std::uint64_t> read_padded_length(JsonValue value) {
  if (value.is_string() && value.as_string("strategy") == "BatchLongest") return std::nullopt;
  const auto fixed = value.find("Fixed");
  check(bool{fixed}, ErrorClass::schema, value.source(), ": padding strategy is ", value.describe(),
        ", expected BatchLongest or Fixed");
  return read_count(*fixed, "padding length");
}

}  // namespace detail

// The value of "truncation", which may be null. Throws Error: schema, range (a stride that is not
// below max_length, so that windows never advance).
inline std::optional<FileTruncation> read_truncation(JsonValue value) {
  if (value.is_null()) return std::nullopt;
  const auto field = [&](std::string_view name) {
    return required_field(value.as_object("truncation"), name, "truncation");
  };
  FileTruncation truncation;
  truncation.max_length = detail::read_count(field("max_length"), "truncation max_length");
  truncation.stride = detail::read_count(field("stride"), "truncation stride");
  truncation.strategy = detail::read_strategy(field("strategy"));
  truncation.side = detail::read_side(value, TruncationSide::right);
  check(truncation.stride < truncation.max_length || truncation.stride == 0, ErrorClass::range,
        value.source(), ": truncation stride is ", truncation.stride, ", expected less than ",
        truncation.max_length);
  return truncation;
}

// The value of "padding", which may be null. Throws Error: schema, range (pad_id), limit (a length
// or multiple above kMaxPaddedTokens).
inline std::optional<FilePadding> read_padding(JsonValue value) {
  if (value.is_null()) return std::nullopt;
  const auto field = [&](std::string_view name) {
    return required_field(value.as_object("padding"), name, "padding");
  };
  FilePadding padding;
  padding.fixed_length = detail::read_padded_length(field("strategy"));
  if (const JsonValue multiple = field("pad_to_multiple_of"); !multiple.is_null()) {
    padding.multiple_of = detail::read_count(multiple, "pad_to_multiple_of");
  }
  padding.side = detail::read_side(value, TruncationSide::right);
  padding.pad_id = read_token_id(field("pad_id"), "pad_id", kMaxVocabulary);
  padding.pad_type_id = read_token_id(field("pad_type_id"), "pad_type_id", kMaxVocabulary);
  padding.pad_token = field("pad_token").as_string("pad_token");
  for (const auto& length : {padding.fixed_length, padding.multiple_of}) {
    check(!length || *length <= kMaxPaddedTokens, ErrorClass::limit, value.source(),
          ": padding to ", length.value_or(0), " tokens, at most ", kMaxPaddedTokens,
          " are supported");
  }
  return padding;
}

}  // namespace terse
