// Unicode normalization forms (UAX 15): decomposition, canonical order, composition. The data is
// that of Unicode 9.0, as in the reference library; younger characters are unassigned and stay as
// they are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/tokenizer/ascii.h"
#include "terse/tokenizer/unicode.h"
#include "terse/utf8.h"

namespace terse {

enum class NormalForm : std::uint8_t { nfc, nfd, nfkc, nfkd };

// Conjoining jamo and the syllables made of them, by arithmetic (The Unicode Standard, 3.12).
namespace hangul {

inline constexpr char32_t kFirstSyllable = 0xAC00;
inline constexpr char32_t kFirstL = 0x1100;
inline constexpr char32_t kFirstV = 0x1161;
inline constexpr char32_t kNoT = 0x11A7;  // one before the first trailing consonant
inline constexpr char32_t kNumL = 19;
inline constexpr char32_t kNumV = 21;
inline constexpr char32_t kNumT = 28;
inline constexpr char32_t kNumSyllables = kNumL * kNumV * kNumT;

constexpr bool is_syllable(char32_t code) { return code - kFirstSyllable < kNumSyllables; }

// The composite of L + V or LV + T, 0 if the two are neither.
constexpr char32_t compose(char32_t first, char32_t second) {
  if (first - kFirstL < kNumL && second - kFirstV < kNumV) {
    return kFirstSyllable + ((first - kFirstL) * kNumV + (second - kFirstV)) * kNumT;
  }
  const bool is_lv = is_syllable(first) && (first - kFirstSyllable) % kNumT == 0;
  return is_lv && second - kNoT - 1 < kNumT - 1 ? first + (second - kNoT) : 0;
}

}  // namespace hangul

// Calls emit(code point) for the full canonical or compatibility decomposition of code, which is
// code itself where it has none.
template <class Emit>
void decompose(char32_t code, bool compatibility, Emit emit) {
  if (hangul::is_syllable(code)) {
    const char32_t index = code - hangul::kFirstSyllable;
    emit(hangul::kFirstL + index / (hangul::kNumV * hangul::kNumT));
    emit(hangul::kFirstV + index / hangul::kNumT % hangul::kNumV);
    if (index % hangul::kNumT != 0) emit(hangul::kNoT + index % hangul::kNumT);
    return;
  }
  using namespace unicode_data;
  const std::size_t place =
      unicode_lookup(kDecompositionRoot, kDecompositionNodes, kDecompositionLeaves, code);
  if (place == 0) return emit(code);
  const char32_t* entry = kDecompositionPool + place;
  const char32_t length = compatibility ? entry[0] >> 8 & 0xff : entry[0] & 0xff;
  const char32_t* part = entry + (compatibility ? entry[0] >> 16 : 1);
  for (char32_t k = 0; k < length; ++k) emit(part[k]);
}

// The primary composite of the two characters, 0 if there is none.
inline char32_t compose(char32_t first, char32_t second) {
  if (const char32_t syllable = hangul::compose(first, second); syllable != 0) return syllable;
  using unicode_data::Composition;
  const auto* end = std::end(unicode_data::kCompositions);
  const auto* found =
      std::lower_bound(std::begin(unicode_data::kCompositions), end, second,
                       [first](const Composition& pair, char32_t wanted) {
                         return pair.first != first ? pair.first < first : pair.second < wanted;
                       });
  return found != end && found->first == first && found->second == second ? found->composite : 0;
}

// Receives decomposed characters, puts them in canonical order, composes them if the form asks for
// it and appends them to a string. Holds back no more than the characters that can still change:
// those since the last one that the form leaves alone whatever precedes it.
class NormalFormWriter {
 public:
  NormalFormWriter(NormalForm form, std::string* out)
      : out_(out),
        inert_(flag_of(form)),
        composes_(form == NormalForm::nfc || form == NormalForm::nfkc),
        compatibility_(form == NormalForm::nfkc || form == NormalForm::nfkd) {}

  // The flag of characters that the form leaves alone and that nothing before them affects.
  static constexpr std::uint16_t flag_of(NormalForm form) {
    switch (form) {
      case NormalForm::nfc:
        return unicode_data::kNfcInert;
      case NormalForm::nfd:
        return unicode_data::kNfdInert;
      case NormalForm::nfkc:
        return unicode_data::kNfkcInert;
      default:
        return unicode_data::kNfkdInert;
    }
  }

  void write(char32_t code) {
    decompose(code, compatibility_, [&](char32_t part) {
      const auto& record = unicode_record(part);
      if ((record.flags & inert_) != 0) flush();
      held_.push_back({part, record.combining_class});
    });
  }

  // Appends what is held back. Sorting is stable, O(n log n) in one run of marks.
  void flush() {
    if (held_.size() > 1) {
      sort_marks();
      if (composes_) compose_held();
    }
    for (const Character& character : held_) utf8_append(*out_, character.code);
    held_.clear();
  }

 private:
  struct Character {
    char32_t code;
    std::uint8_t combining_class;
  };

  void sort_marks() {
    const auto is_starter = [](const Character& c) { return c.combining_class == 0; };
    const auto by_class = [](const Character& a, const Character& b) {
      return a.combining_class < b.combining_class;
    };
    for (auto begin = held_.begin(); begin != held_.end();) {
      begin = std::find_if_not(begin, held_.end(), is_starter);
      const auto end = std::find_if(begin, held_.end(), is_starter);
      // stable_sort allocates, and marks are nearly always in order.
      if (!std::is_sorted(begin, end, by_class)) std::stable_sort(begin, end, by_class);
      begin = end;
    }
  }

  // Joins each character with the last starter unless one between them blocks it (UAX 15, D117).
  void compose_held() {
    std::size_t starter = held_.size();  // none yet
    std::size_t kept = 0;
    for (std::size_t index = 0; index < held_.size(); ++index) {
      const Character next = held_[index];
      if (starter < kept) {
        const bool adjacent = starter + 1 == kept;
        const bool blocked = !adjacent && held_[kept - 1].combining_class >= next.combining_class;
        const char32_t composite = blocked ? 0 : compose(held_[starter].code, next.code);
        if (composite != 0) {
          held_[starter].code = composite;
          continue;
        }
      }
      if (next.combining_class == 0) starter = kept;
      held_[kept++] = next;
    }
    held_.resize(kept);
  }

  std::string* out_;
  std::uint16_t inert_;
  bool composes_;
  bool compatibility_;
  std::vector<Character> held_ = {};
};

// Brings valid UTF-8 text into a normal form. Time O(n log n) in the longest run of marks, O(n)
// otherwise; printable ASCII and characters that the form leaves alone cost next to nothing.
// Source: UAX 15.
inline void to_normal_form(std::string& text, NormalForm form) {
  const std::uint16_t inert = NormalFormWriter::flag_of(form);
  std::size_t index = 0;  // end of the prefix that stays as it is
  while (index < text.size()) {
    index = printable_ascii_end(text, index);
    if (index == text.size()) return;
    std::size_t next = index;
    if (!has_flag(utf8_next(text, &next), inert)) break;
    index = next;
  }
  if (index == text.size()) return;

  // The character before may compose with what follows.
  std::size_t begin = index;
  while (begin > 0 && (begin == index || (text[begin] & 0xC0) == 0x80)) --begin;
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  out.append(text, 0, begin);
  NormalFormWriter writer(form, &out);
  for (index = begin; index < text.size();) {
    const std::size_t end = printable_ascii_end(text, index);
    if (end > index + 1) {
      writer.flush();
      out.append(text, index, end - 1 - index);
      index = end - 1;
    }
    writer.write(utf8_next(text, &index));
  }
  writer.flush();
  text = std::move(out);
}

}  // namespace terse
