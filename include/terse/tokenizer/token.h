// Token ids, how a tokenizer file writes them, and the limits of everything that turns text into
// ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

#include "terse/error.h"
#include "terse/json.h"

namespace terse {

using TokenId = std::int32_t;

// Limits on files and texts from outside; beyond them loading or encoding throws Error(limit).
inline constexpr std::size_t kMaxTokenizerBytes = std::size_t{256} << 20;  // a tokenizer file
inline constexpr std::size_t kMaxVocabulary = std::size_t{1} << 24;        // ids
inline constexpr std::size_t kMaxPieceBytes = 65536;                       // one vocabulary entry
inline constexpr std::size_t kMaxAddedTokens = 65536;
inline constexpr std::size_t kMaxTextBytes = std::size_t{16} << 20;  // one text to encode
// The same text normalised. What normal forms and marked spaces can make of a text fits (U+FDFA
// grows thirteenfold); a chain of replacements that feed each other does not.
inline constexpr std::size_t kMaxNormalizedBytes = 16 * kMaxTextBytes;

// Throws Error(limit) if a text has grown past kMaxNormalizedBytes.
inline void check_normalized_size(std::size_t bytes) {
  check(bytes <= kMaxNormalizedBytes, ErrorClass::limit, "text: more than ", kMaxNormalizedBytes,
        " bytes after normalisation");
}

// value as an unsigned 32-bit number, the type that ids, type ids and counts have in
// tokenizer.json; `what` names it. Throws Error(schema) for anything else.
inline std::uint32_t read_u32(JsonValue value, std::string_view what) {
  std::uint64_t number = 0;
  check(value.get_unsigned(&number) && number <= std::numeric_limits<std::uint32_t>::max(),
        ErrorClass::schema, value.source(), ": ", what, " is ", value.describe(),
        ", expected an unsigned 32-bit integer");
  return static_cast<std::uint32_t>(number);
}

// value as a token id below `limit`; `what` names it. Throws Error: schema if it is not an unsigned
// 32-bit integer, range if it is not below the limit.
inline TokenId read_token_id(JsonValue value, std::string_view what, std::size_t limit) {
  const std::uint32_t id = read_u32(value, what);
  check(id < limit, ErrorClass::range, value.source(), ": ", what, " is ", id,
        ", expected less than ", limit);
  return static_cast<TokenId>(id);
}

}  // namespace terse
