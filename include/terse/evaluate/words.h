// How BM25 cuts texts into words.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "terse/tokenizer/unicode.h"
#include "terse/utf8.h"

namespace terse {

namespace detail {

// Scripts written without blanks between words: Han, Hiragana, Katakana, Thai, Lao, Myanmar, Khmer.
// By blocks, Source: the Unicode Character Database's Blocks.txt.
constexpr bool is_unspaced_script(char32_t code) {
  return (code >= 0x0e00 && code <= 0x0eff) || (code >= 0x1000 && code <= 0x109f) ||
         (code >= 0x1780 && code <= 0x17ff) || (code >= 0x3005 && code <= 0x3007) ||
         (code >= 0x3040 && code <= 0x30ff) || (code >= 0x31f0 && code <= 0x31ff) ||
         (code >= 0x3400 && code <= 0x4dbf) || (code >= 0x4e00 && code <= 0x9fff) ||
         (code >= 0xf900 && code <= 0xfaff) || (code >= 0xff66 && code <= 0xff9f) ||
         (code >= 0x20000 && code <= 0x323af);
}

}  // namespace detail

// Calls visit(std::string_view) for every word of text, which must be valid UTF-8, in lower case.
// A word is a run of word characters (letters, marks, digits, connecting punctuation: \w of Unicode
// Technical Standard 18). Where a script has no blanks between words, each pair of neighbouring
// characters is one, and a character alone is one by itself.
template <class Visit>
void for_each_word(std::string_view text, Visit&& visit) {
  std::string word;            // in lower case
  std::size_t last_begin = 0;  // of the last character, in word
  std::size_t unspaced = 0;    // characters of the current unspaced run
  const auto finish = [&] {
    if (unspaced <= 1 && !word.empty()) visit(std::string_view(word));
    word.clear();
    unspaced = 0;
  };
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t begin = i;
    const char32_t code = utf8_next(text, &i);
    if (!is_word_char(code)) {
      finish();
      continue;
    }
    const bool is_unspaced = detail::is_unspaced_script(code);
    if (is_unspaced != (unspaced > 0)) finish();
    if (unspaced > 1) word.erase(0, last_begin);
    last_begin = word.size();
    append_lowercase(word, code, text.substr(begin, i - begin));
    if (is_unspaced && ++unspaced > 1) visit(std::string_view(word));
  }
  finish();
}

}  // namespace terse
