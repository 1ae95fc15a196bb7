// Properties of code points (Unicode 15.0) that normalizers, pre-tokenizers and added tokens ask
// for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "terse/tokenizer/unicode_data.h"
#include "terse/utf8.h"

namespace terse {

// The value that one of the generated tables has for a code point, in three steps: the upper bits
// select a node, the middle ones a leaf in it, the lowest an entry in the leaf. Values past
// U+10FFFF are never looked up: text is valid UTF-8 here.
template <class Root, class Nodes, class Leaves>
constexpr auto unicode_lookup(const Root& root, const Nodes& nodes, const Leaves& leaves,
                              char32_t code) {
  using unicode_data::kLeafBits;
  using unicode_data::kNodeBits;
  const std::size_t in_node = code >> kLeafBits & ((1U << kNodeBits) - 1);
  const std::size_t in_leaf = code & ((1U << kLeafBits) - 1);
  const std::size_t node = root[code >> (kLeafBits + kNodeBits)];
  const std::size_t leaf = nodes[node << kNodeBits | in_node];
  return leaves[leaf << kLeafBits | in_leaf];
}

// All properties of a code point.
constexpr const unicode_data::Record& unicode_record(char32_t code) {
  using namespace unicode_data;
  return kRecords[unicode_lookup(kRecordRoot, kRecordNodes, kRecordLeaves, code)];
}

constexpr bool has_flag(char32_t code, std::uint16_t flag) {
  return (unicode_record(code).flags & flag) != 0;
}

// White_Space: Rust's char::is_whitespace and the regular expressions' \s.
constexpr bool is_white_space(char32_t code) { return has_flag(code, unicode_data::kWhiteSpace); }

// General category L*, the regular expressions' \p{L}.
constexpr bool is_letter(char32_t code) { return has_flag(code, unicode_data::kLetter); }

// General category N*, \p{N}.
constexpr bool is_number(char32_t code) { return has_flag(code, unicode_data::kNumber); }

// \w of UTS 18: alphabetic, marks, decimal digits, connector punctuation, join controls.
constexpr bool is_word_char(char32_t code) { return has_flag(code, unicode_data::kWord); }

// General category M* (Mn, Mc, Me) of Unicode 9.0.
constexpr bool is_mark(char32_t code) { return has_flag(code, unicode_data::kMark); }

// General category Mn of Unicode 8.0.
constexpr bool is_bert_mark(char32_t code) { return has_flag(code, unicode_data::kBertMark); }

// What BERT isolates: general category P* of Unicode 8.0 and all ASCII symbols. Symbols outside
// ASCII stay inside words.
constexpr bool is_bert_punctuation(char32_t code) {
  return has_flag(code, unicode_data::kBertPunctuation);
}

// What BERT's cleaning drops: U+FFFD and the categories Cc (with U+0000), Cf and Co of Unicode 8.0,
// but not TAB, LF, CR.
constexpr bool is_bert_control(char32_t code) {
  if (code == U'\t' || code == U'\n' || code == U'\r') return false;
  return code == 0xFFFD || has_flag(code, unicode_data::kBertControl);
}

// Appends the full lower case of one character, given as code point and as UTF-8, without context:
// a final sigma stays U+03C3. U+0130 is the only one whose lower case has two characters
// (SpecialCasing.txt).
inline void append_lowercase(std::string& out, char32_t code, std::string_view character) {
  const auto delta = unicode_record(code).lowercase_delta;
  if (code == 0x0130) {
    out += "i\xCC\x87";
  } else if (delta == 0) {
    out += character;
  } else {
    utf8_append(out, static_cast<char32_t>(static_cast<std::int32_t>(code) + delta));
  }
}

}  // namespace terse
