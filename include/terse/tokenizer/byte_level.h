// GPT-2's byte-level view of text: words by its expression, bytes as printable characters.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "terse/tokenizer/unicode.h"
#include "terse/utf8.h"

namespace terse {

// The expression gpt2_word_end scans for, as files write it.
inline constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace detail {

enum class Gpt2Class : std::uint8_t { letter, number, space, other };

inline Gpt2Class gpt2_class(char32_t code) {
  using namespace unicode_data;
  const auto flags = unicode_record(code).flags;
  if ((flags & kLetter) != 0) return Gpt2Class::letter;
  if ((flags & kNumber) != 0) return Gpt2Class::number;
  return (flags & kWhiteSpace) != 0 ? Gpt2Class::space : Gpt2Class::other;
}

// End of the run of characters of one class at text[begin]; *last is where its last one begins.
inline std::size_t gpt2_run_end(std::string_view text, std::size_t begin, Gpt2Class run_class,
                                std::size_t* last) {
  std::size_t end = begin;
  while (end < text.size()) {
    std::size_t next = end;
    if (gpt2_class(utf8_next(text, &next)) != run_class) break;
    *last = end;
    end = next;
  }
  return end;
}

}  // namespace detail

// End of the match of kGpt2Regex at text[begin], valid UTF-8; there always is one. Going on where
// the last word ended takes linear time.
inline std::size_t gpt2_word_end(std::string_view text, std::size_t begin) {
  const std::string_view rest = text.substr(begin);
  for (const std::string_view contraction : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (rest.starts_with(contraction)) return begin + contraction.size();
  }
  std::size_t last = begin;
  std::size_t start = begin + (rest[0] == ' ' ? 1 : 0);
  if (start < text.size()) {
    std::size_t next = start;
    const auto first_class = detail::gpt2_class(utf8_next(text, &next));
    if (first_class != detail::Gpt2Class::space) {
      return detail::gpt2_run_end(text, start, first_class, &last);
    }
  }
  // White space, all but its last character if a word follows: that one belongs to the word.
  const std::size_t end = detail::gpt2_run_end(text, begin, detail::Gpt2Class::space, &last);
  return end == text.size() || last == begin ? end : last;
}

// The character that stands for a byte: itself if it is a printable character of Latin-1, else one
// from U+0100 on, in the order of the bytes.
inline constexpr std::array<char32_t, 256> kByteLevelCharacters = [] {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    characters[byte] = printable ? byte : next++;
  }
  return characters;
}();

// Appends bytes as the characters that stand for them.
inline void append_byte_level(std::string& out, std::string_view bytes) {
  for (const char byte : bytes) {
    utf8_append(out, kByteLevelCharacters[static_cast<unsigned char>(byte)]);
  }
}

// The byte that a character stands for, if it stands for one.
inline std::optional<char> byte_level_byte(char32_t character) {
  static constexpr auto kBytes = [] {
    std::array<std::int16_t, 0x144> bytes{};
    bytes.fill(-1);
    for (std::int16_t byte = 0; byte < 256; ++byte) {
      bytes[kByteLevelCharacters[static_cast<std::size_t>(byte)]] = byte;
    }
    return bytes;
  }();
  if (character >= kBytes.size() || kBytes[character] < 0) return std::nullopt;
  return static_cast<char>(kBytes[character]);
}

}  // namespace terse
