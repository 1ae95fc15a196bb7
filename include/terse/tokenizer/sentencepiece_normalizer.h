// The normalizer that a SentencePiece file carries.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "terse/tokenizer/charsmap.h"
#include "terse/tokenizer/sentencepiece_proto.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/trie.h"
#include "terse/utf8.h"

namespace terse {

// Raw bytes to the text that the model splits: longest charsmap matches, U+FFFD for malformed
// UTF-8, spaces collapsed and escaped as U+2581. User-defined pieces pass unchanged.
// Source: google/sentencepiece src/normalizer.cc.
class SentencePieceNormalizer {
 public:
  SentencePieceNormalizer() = default;

  // Throws Error(tokenizer) for a malformed charsmap.
  SentencePieceNormalizer(const SentencePieceProto& proto, Trie user_defined,
                          const std::string& source)
      : user_defined_(std::move(user_defined)),
        space_(proto.escape_whitespaces ? kEscapedSpace : " "),
        add_dummy_prefix_(proto.add_dummy_prefix),
        remove_extra_whitespaces_(proto.remove_extra_whitespaces),
        treat_whitespace_as_suffix_(proto.treat_whitespace_as_suffix) {
    if (!proto.precompiled_charsmap.empty()) {
      charsmap_ =
          Charsmap::from_bytes(proto.precompiled_charsmap, source + ": precompiled_charsmap");
    }
  }

  // The normalized form of any bytes, in valid UTF-8; empty if nothing but spaces is left of them.
  // Throws Error(limit) past kMaxNormalizedBytes.
  std::string apply(std::string_view text) const {
    if (remove_extra_whitespaces_) skip_spaces(&text);
    std::string normalized;
    if (text.empty()) return normalized;
    normalized.reserve(text.size() + text.size() / 2 + space_.size());
    if (add_dummy_prefix_ && !treat_whitespace_as_suffix_) normalized += space_;
    bool after_space = remove_extra_whitespaces_;
    while (!text.empty()) {
      Prefix prefix = normalize_prefix(text);
      while (after_space && prefix.normalized.starts_with(' ')) prefix.normalized.remove_prefix(1);
      if (!prefix.normalized.empty()) {
        append_escaped(prefix.normalized, &normalized);
        check_normalized_size(normalized.size());
        after_space = remove_extra_whitespaces_ && prefix.normalized.ends_with(' ');
      }
      text.remove_prefix(prefix.consumed);
    }
    while (remove_extra_whitespaces_ && normalized.ends_with(space_)) {
      normalized.resize(normalized.size() - space_.size());
    }
    if (add_dummy_prefix_ && treat_whitespace_as_suffix_) normalized += space_;
    return normalized;
  }

  // The longest user-defined piece that text begins with; its length is 0 if there is none.
  Trie::Match user_defined_prefix(std::string_view text) const {
    return user_defined_.longest_prefix(text);
  }

  bool add_dummy_prefix() const { return add_dummy_prefix_; }

 private:
  static constexpr std::string_view kEscapedSpace = "\xE2\x96\x81";          // U+2581
  static constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

  struct Prefix {
    std::string_view normalized;
    std::size_t consumed;
  };

  // Normalizes the first unit of text: a user-defined piece, a charsmap key, a character or a byte.
  Prefix normalize_prefix(std::string_view text) const {
    if (const std::size_t length = user_defined_prefix(text).length; length > 0) {
      return {text.substr(0, length), length};
    }
    std::string_view replacement;
    if (charsmap_) {
      const std::size_t length = charsmap_->longest_match(text, &replacement);
      if (length > 0) return {replacement, length};
    }
    const std::string_view character = text.substr(0, utf8_length(text[0]));
    if (utf8_valid_prefix(character) == character.size()) return {character, character.size()};
    return {kReplacementCharacter, 1};
  }

  void skip_spaces(std::string_view* text) const {
    while (!text->empty()) {
      const Prefix prefix = normalize_prefix(*text);
      if (prefix.normalized != " ") return;
      text->remove_prefix(prefix.consumed);
    }
  }

  void append_escaped(std::string_view text, std::string* normalized) const {
    for (const char byte : text) {
      if (byte == ' ') {
        *normalized += space_;
      } else {
        *normalized += byte;
      }
    }
  }

  Trie user_defined_;
  std::optional<Charsmap> charsmap_;
  std::string_view space_ = kEscapedSpace;
  bool add_dummy_prefix_ = true;
  bool remove_extra_whitespaces_ = true;
  bool treat_whitespace_as_suffix_ = false;
};

}  // namespace terse
