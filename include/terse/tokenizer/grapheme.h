// Extended grapheme clusters (UAX 29, with rule GB9c as of Unicode 15.1).
#pragma once

#include <cstddef>
#include <string_view>

#include "terse/tokenizer/unicode.h"
#include "terse/utf8.h"

namespace terse {

// What the rules need to remember of a cluster that has begun: everything they look back at lies
// inside the cluster, so nothing is ever scanned twice.
class GraphemeCluster {
 public:
  using Class = unicode_data::GraphemeClass;

  explicit constexpr GraphemeCluster(Class first) { append(first); }

  // Whether no boundary lies between the cluster and a following character of this class.
  constexpr bool joins(Class next) const {
    using enum unicode_data::GraphemeClass;
    if (last_ == cr) return next == lf;                                     // GB3, GB4
    if (last_ == lf || last_ == control) return false;                      // GB4
    if (next == cr || next == lf || next == control) return false;          // GB5
    if (extends(next) || next == zwj || next == spacing_mark) return true;  // GB9, GB9a
    if (last_ == prepend) return true;                                      // GB9b
    switch (next) {
      case hangul_l:
      case hangul_lv:
      case hangul_lvt:
        return last_ == hangul_l;  // GB6
      case hangul_v:
        return last_ == hangul_l || last_ == hangul_v || last_ == hangul_lv;  // GB6, GB7
      case hangul_t:
        return last_ == hangul_v || last_ == hangul_t || last_ == hangul_lv ||
               last_ == hangul_lvt;  // GB7, GB8
      case consonant:
        return conjunct_ == Conjunct::linked;  // GB9c
      case pictographic:
        return in_emoji_ && last_ == zwj;  // GB11
      case regional_indicator:
        return odd_regional_;  // GB12, GB13
      default:
        return false;  // GB999
    }
  }

  constexpr void append(Class next) {
    using enum unicode_data::GraphemeClass;
    if (next == consonant) {
      conjunct_ = Conjunct::consonant;
    } else if (next == linker) {
      if (conjunct_ == Conjunct::consonant) conjunct_ = Conjunct::linked;
    } else if (next != extend && next != zwj) {
      conjunct_ = Conjunct::none;
    }
    in_emoji_ =
        next == pictographic || (in_emoji_ && last_ != zwj && (extends(next) || next == zwj));
    odd_regional_ = next == regional_indicator && !odd_regional_;
    last_ = next;
  }

 private:
  enum class Conjunct : std::uint8_t { none, consonant, linked };

  static constexpr bool extends(Class c) {
    return c == Class::extend || c == Class::linker || c == Class::non_joiner;
  }

  Class last_ = Class::other;
  Conjunct conjunct_ = Conjunct::none;
  bool in_emoji_ = false;      // a pictograph, extenders, at most one joiner
  bool odd_regional_ = false;  // a regional indicator waits for its second half
};

// End of the cluster that begins at text[begin], which must be a cluster boundary of valid UTF-8.
// Linear in the cluster. Source: UAX 29, table 1c and section 3.1.1.
inline std::size_t grapheme_end(std::string_view text, std::size_t begin) {
  std::size_t end = begin;
  GraphemeCluster cluster(unicode_record(utf8_next(text, &end)).grapheme_class);
  while (end < text.size()) {
    std::size_t after = end;
    const auto next = unicode_record(utf8_next(text, &after)).grapheme_class;
    if (!cluster.joins(next)) break;
    cluster.append(next);
    end = after;
  }
  return end;
}

}  // namespace terse
