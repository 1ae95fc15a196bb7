// Rewriting text character by character.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "terse/tokenizer/ascii.h"
#include "terse/tokenizer/unicode.h"
#include "terse/utf8.h"

namespace terse {

// Rebuilds valid UTF-8 text by rewrite(code, character, &out) for every character that is not
// printable ASCII; that is copied in runs, and text that has nothing else is not touched.
template <class Rewrite>
void rewrite_characters(std::string& text, Rewrite rewrite) {
  std::size_t index = printable_ascii_end(text, 0);
  if (index == text.size()) return;
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  out.append(text, 0, index);
  while (index < text.size()) {
    const std::size_t begin = index;
    const char32_t code = utf8_next(text, &index);
    rewrite(code, std::string_view(text).substr(begin, index - begin), &out);
    const std::size_t run_end = printable_ascii_end(text, index);
    out.append(text, index, run_end - index);
    index = run_end;
  }
  text = std::move(out);
}

// Removes the characters for which the predicate on code points, false for printable ASCII, holds.
template <class Predicate>
void remove_characters(std::string& text, Predicate predicate) {
  rewrite_characters(text, [&](char32_t code, std::string_view character, std::string* out) {
    if (!predicate(code)) *out += character;
  });
}

// Lower-cases every character on its own, without context: a final sigma stays U+03C3.
inline void lowercase(std::string& text) {
  lowercase_ascii(text);
  rewrite_characters(text, [](char32_t code, std::string_view character, std::string* out) {
    append_lowercase(*out, code, character);
  });
}

}  // namespace terse
