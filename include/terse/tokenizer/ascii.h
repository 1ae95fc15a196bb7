// Runs of printable ASCII, eight bytes at a time: most text is made of them, and no normalizer does
// more to them than change their case.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace terse {

inline constexpr std::uint64_t kEveryByte = 0x0101010101010101;

// End of the run of bytes 0x20 to 0x7E that begins at text[from]; `from` itself if there is none.
inline std::size_t printable_ascii_end(std::string_view text, std::size_t from) {
  const auto is_printable = [](char c) { return c >= 0x20 && c < 0x7F; };
  if (from == text.size() || !is_printable(text[from])) return from;  // inside other scripts
  std::size_t end = from;
  for (; text.size() - end >= 8; end += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + end, 8);
    // Bit 7 appears in the byte itself if it is not ASCII, in byte - 0x20 if it is a control
    // character, in byte + 1 if it is 0x7F. A borrow only follows a byte already found out.
    if (((word | (word - 0x20 * kEveryByte) | (word + kEveryByte)) & 0x80 * kEveryByte) != 0) break;
  }
  while (end < text.size() && is_printable(text[end])) ++end;
  return end;
}

// Lower-cases the ASCII letters of text in place; bytes of other characters stay as they are.
inline void lowercase_ascii(std::string& text) {
  std::size_t index = 0;
  for (; text.size() - index >= 8; index += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + index, 8);
    const std::uint64_t low = word & 0x7F * kEveryByte;                // sums stay in their byte
    const std::uint64_t from_a = low + (0x80 - 'A') * kEveryByte;      // bit 7: low >= 'A'
    const std::uint64_t past_z = low + (0x80 - 'Z' - 1) * kEveryByte;  // bit 7: low > 'Z'
    word |= (from_a & ~past_z & ~word & 0x80 * kEveryByte) >> 2;
    std::memcpy(text.data() + index, &word, 8);
  }
  for (; index < text.size(); ++index) {
    if (text[index] >= 'A' && text[index] <= 'Z') text[index] = static_cast<char>(text[index] + 32);
  }
}

}  // namespace terse
