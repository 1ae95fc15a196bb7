// The patterns of Replace and Split. There is no regular expression engine: a pattern is accepted
// if it is one of the few forms that published tokenizers use, and each of these has a linear
// scanner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/tokenizer/byte_level.h"
#include "terse/tokenizer/component.h"
#include "terse/tokenizer/span.h"
#include "terse/tokenizer/token.h"
#include "terse/utf8.h"

namespace terse {

class Pattern {
 public:
  static constexpr std::size_t kMaxBytes = 256;

  // Reads {"String": literal} or {"Regex": expression}. An expression may be a sequence of literal
  // characters, one literal character with +, {n}, {n,} or {n,m} (n > 0), or GPT-2's expression.
  // Throws Error: schema (another shape, or empty), limit (longer than kMaxBytes), unsupported (any
  // other expression).
  static Pattern from_json(JsonValue definition, std::string_view what) {
    const auto literal = definition.as_object(what).find("String");
    const auto regex = definition.find("Regex");
    check(literal.found != regex.found, ErrorClass::schema, definition.source(), ": ", what,
          " is an object, expected one with \"String\" or \"Regex\"");
    const std::string_view text = (literal ? *literal : *regex).as_string(what);
    check(!text.empty(), ErrorClass::schema, definition.source(), ": ", what, " is empty");
    check(text.size() <= kMaxBytes, ErrorClass::limit, definition.source(), ": ", what, " has ",
          text.size(), " bytes, at most ", kMaxBytes, " are supported");
    Pattern pattern;
    if (literal) {
      pattern.text_ = text;
    } else {
      check(pattern.read_regex(text), ErrorClass::unsupported, definition.source(), ": ", what, " ",
            quote(text), ", expected literal text, one repeated character, or GPT-2's expression");
    }
    pattern.description_ = quote(text);
    return pattern;
  }

  // A pattern that matches one string.
  static Pattern literal(std::string_view text) {
    Pattern pattern;
    pattern.text_ = text;
    pattern.description_ = quote(text);
    return pattern;
  }

  // The leftmost match that begins at or after `from`. False if there is none. Calls that go on
  // where the last match ended take linear time together.
  bool find(std::string_view text, std::size_t from, Span* match) const {
    switch (kind_) {
      case Kind::literal:
        match->begin = text.find(text_, from);
        match->end = match->begin + text_.size();
        return match->begin != std::string_view::npos;
      case Kind::repeated:
        return find_repeated(text, from, match);
      default:
        if (from >= text.size()) return false;
        *match = {from, gpt2_word_end(text, from)};
        return true;
    }
  }

  // The pattern as the file wrote it, quoted.
  const std::string& description() const { return description_; }

 private:
  enum class Kind : std::uint8_t { literal, repeated, gpt2 };

  bool read_regex(std::string_view regex) {
    if (regex == kGpt2Regex) {
      kind_ = Kind::gpt2;
      return true;
    }
    while (!regex.empty()) {
      const std::size_t escape = regex[0] == '\\' ? 1 : 0;
      if (escape == regex.size() || is_special(regex[escape]) != (escape == 1)) break;
      const std::size_t length = escape + utf8_length(regex[escape]);
      text_ += regex.substr(escape, length - escape);
      regex.remove_prefix(length);
    }
    if (regex.empty()) return true;
    kind_ = Kind::repeated;
    const bool is_single = !text_.empty() && utf8_length(text_[0]) == text_.size();
    return is_single && read_repetition(regex);
  }

  static bool is_special(char c) {
    return std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos;
  }

  // + or {n} or {n,} or {n,m}, nothing behind it.
  bool read_repetition(std::string_view text) {
    if (text == "+") return true;
    if (text.size() < 3 || text.front() != '{' || text.back() != '}') return false;
    text = text.substr(1, text.size() - 2);
    const std::size_t comma = text.find(',');
    if (!read_count(text.substr(0, comma), &min_)) return false;
    if (comma == std::string_view::npos) {
      max_ = min_;
    } else if (comma + 1 < text.size() && !read_count(text.substr(comma + 1), &max_)) {
      return false;
    }
    return min_ > 0 && min_ <= max_;
  }

  static bool read_count(std::string_view digits, std::size_t* count) {
    if (digits.empty() || digits.size() > 4) return false;
    *count = 0;
    for (const char digit : digits) {
      if (digit < '0' || digit > '9') return false;
      *count = *count * 10 + static_cast<std::size_t>(digit - '0');
    }
    return true;
  }

  bool find_repeated(std::string_view text, std::size_t from, Span* match) const {
    while ((from = text.find(text_, from)) != std::string_view::npos) {
      std::size_t count = 0;
      std::size_t end = from;
      while (count < max_ && text.substr(end, text_.size()) == text_) {
        end += text_.size();
        ++count;
      }
      if (count >= min_) {
        *match = {from, end};
        return true;
      }
      from = end;
    }
    return false;
  }

  Kind kind_ = Kind::literal;
  std::string text_ = {};  // the literal, or the character that is repeated
  std::size_t min_ = 1;
  std::size_t max_ = std::string_view::npos;
  std::string description_ = {};
};

// Replaces every match of pattern in text by content. Linear. Throws Error(limit) past
// kMaxNormalizedBytes.
inline void replace_all(std::string& text, const Pattern& pattern, std::string_view content) {
  Span match;
  if (!pattern.find(text, 0, &match)) return;
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  std::size_t copied = 0;
  do {
    out.append(text, copied, match.begin - copied);
    out += content;
    check_normalized_size(out.size());
    copied = match.end;
  } while (pattern.find(text, copied, &match));
  out.append(text, copied);
  text = std::move(out);
}

}  // namespace terse
