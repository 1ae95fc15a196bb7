// Token ids and the limits of everything that turns text into them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace terse {

using TokenId = std::int32_t;

// Limits on files and texts from outside; beyond them loading or encoding throws Error(limit).
inline constexpr std::size_t kMaxTokenizerBytes = std::size_t{256} << 20;  // a tokenizer file
inline constexpr std::size_t kMaxVocabulary = std::size_t{1} << 24;        // ids
inline constexpr std::size_t kMaxPieceBytes = 65536;                       // one vocabulary entry
inline constexpr std::size_t kMaxAddedTokens = 65536;
inline constexpr std::size_t kMaxTextBytes = std::size_t{16} << 20;  // one text to encode

}  // namespace terse
