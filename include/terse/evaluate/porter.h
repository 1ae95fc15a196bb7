// English words reduced to stems by the Porter2 algorithm, and English stop words.
// Source: M. F. Porter, "The English (Porter2) stemming algorithm", snowballstem.org, 2002:
// regions, short syllables and steps below are named as they are there.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace terse {

// The 33 words that Lucene's EnglishAnalyzer drops.
inline bool is_english_stop_word(std::string_view word) {
  static constexpr std::array<std::string_view, 33> kWords = {
      "a",   "an",    "and",  "are",   "as",    "at",   "be",   "but", "by",  "for",  "if",
      "in",  "into",  "is",   "it",    "no",    "not",  "of",   "on",  "or",  "such", "that",
      "the", "their", "then", "there", "these", "they", "this", "to",  "was", "will", "with"};
  return std::binary_search(kWords.begin(), kWords.end(), word);
}

namespace detail {

// A suffix and what takes its place. The longest suffix that a word has decides, also where its
// condition then fails, so that tables list longer suffixes before those they end in.
using SuffixRule = std::pair<std::string_view, std::string_view>;

inline constexpr SuffixRule kPorterWholeWords[] = {
    {"skis", "ski"},    {"skies", "sky"},  {"dying", "die"},    {"lying", "lie"},
    {"tying", "tie"},   {"idly", "idl"},   {"gently", "gentl"}, {"ugly", "ugli"},
    {"early", "earli"}, {"only", "onli"},  {"singly", "singl"}, {"sky", "sky"},
    {"news", "news"},   {"howe", "howe"},  {"atlas", "atlas"},  {"cosmos", "cosmos"},
    {"bias", "bias"},   {"andes", "andes"}};
inline constexpr std::string_view kPorterKeptAfterStep1a[] = {
    "inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed"};
inline constexpr SuffixRule kPorterStep2[] = {
    {"ization", "ize"}, {"ational", "ate"}, {"fulness", "ful"}, {"ousness", "ous"},
    {"iveness", "ive"}, {"tional", "tion"}, {"biliti", "ble"},  {"lessli", "less"},
    {"entli", "ent"},   {"ation", "ate"},   {"alism", "al"},    {"aliti", "al"},
    {"ousli", "ous"},   {"iviti", "ive"},   {"fulli", "ful"},   {"enci", "ence"},
    {"anci", "ance"},   {"abli", "able"},   {"izer", "ize"},    {"ator", "ate"},
    {"alli", "al"},     {"bli", "ble"},     {"ogi", "og"},      {"li", ""}};
inline constexpr SuffixRule kPorterStep3[] = {
    {"ational", "ate"}, {"tional", "tion"}, {"alize", "al"}, {"icate", "ic"}, {"iciti", "ic"},
    {"ative", ""},      {"ical", "ic"},     {"ness", ""},    {"ful", ""}};
inline constexpr std::string_view kPorterStep4[] = {"ement", "ance", "ence", "able", "ible", "ment",
                                                    "ant",   "ent",  "ism",  "ate",  "iti",  "ous",
                                                    "ive",   "ize",  "ion",  "al",   "er",   "ic"};

// One word on its way through the steps. Inside it a y that counts as a consonant is written Y.
class PorterStemmer {
 public:
  explicit PorterStemmer(std::string_view word) : word_(word) {}

  std::string stem() {
    if (word_.size() <= 2) return word_;
    for (const auto& [word, stem] : kPorterWholeWords) {
      if (word_ == word) return std::string(stem);
    }
    mark_consonant_y();
    find_regions();
    step_1a();
    const auto* const kept_end = std::end(kPorterKeptAfterStep1a);
    if (std::find(std::begin(kPorterKeptAfterStep1a), kept_end, word_) == kept_end) {
      step_1b();
      step_1c();
      step_2();
      step_3();
      step_4();
      step_5();
    }
    std::replace(word_.begin(), word_.end(), 'Y', 'y');
    return std::move(word_);
  }

 private:
  static bool is_vowel(char c) { return std::string_view("aeiouy").find(c) != std::string::npos; }
  bool vowel_at(std::size_t i) const { return is_vowel(word_[i]); }
  bool ends_with(std::string_view suffix) const { return word_.ends_with(suffix); }
  bool in_region(std::size_t region, std::string_view suffix) const {
    return word_.size() - suffix.size() >= region;
  }
  void replace_end(std::string_view suffix, std::string_view replacement) {
    word_.replace(word_.size() - suffix.size(), suffix.size(), replacement);
  }
  bool has_vowel_before(std::size_t end) const {
    return std::any_of(word_.begin(), word_.begin() + static_cast<std::ptrdiff_t>(end), is_vowel);
  }

  void mark_consonant_y() {
    for (std::size_t i = 0; i < word_.size(); ++i) {
      if (word_[i] == 'y' && (i == 0 || vowel_at(i - 1))) word_[i] = 'Y';
    }
  }

  // Behind the first consonant that follows a vowel at or after `begin`.
  std::size_t region_after(std::size_t begin) const {
    for (std::size_t i = begin + 1; i < word_.size(); ++i) {
      if (!vowel_at(i) && vowel_at(i - 1)) return i + 1;
    }
    return word_.size();
  }

  void find_regions() {
    r1_ = region_after(0);
    for (const std::string_view prefix : {"gener", "commun", "arsen"}) {
      if (word_.starts_with(prefix)) r1_ = prefix.size();
    }
    r2_ = region_after(r1_);
  }

  // Whether the first `end` letters end in a short syllable.
  bool ends_in_short_syllable(std::size_t end) const {
    if (end < 2 || vowel_at(end - 1) || !vowel_at(end - 2)) return false;
    if (end == 2) return true;
    return !vowel_at(end - 3) && std::string_view("wxY").find(word_[end - 1]) == std::string::npos;
  }
  bool is_short() const { return r1_ >= word_.size() && ends_in_short_syllable(word_.size()); }

  void step_1a() {
    if (ends_with("sses")) {
      replace_end("sses", "ss");
    } else if (ends_with("ied") || ends_with("ies")) {
      replace_end("ied", word_.size() > 4 ? "i" : "ie");
    } else if (ends_with("s") && !ends_with("us") && !ends_with("ss")) {
      if (has_vowel_before(word_.size() - 2)) word_.pop_back();
    }
  }

  void step_1b() {
    for (const std::string_view suffix : {"eedly", "eed"}) {
      if (!ends_with(suffix)) continue;
      if (in_region(r1_, suffix)) replace_end(suffix, "ee");
      return;
    }
    for (const std::string_view suffix : {"ingly", "edly", "ing", "ed"}) {
      if (!ends_with(suffix)) continue;
      if (!has_vowel_before(word_.size() - suffix.size())) return;
      replace_end(suffix, "");
      return repair_step_1b();
    }
  }

  void repair_step_1b() {
    if (ends_with("at") || ends_with("bl") || ends_with("iz")) {
      word_ += 'e';
      return;
    }
    for (const std::string_view twice : {"bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt"}) {
      if (!ends_with(twice)) continue;
      word_.pop_back();
      return;
    }
    if (is_short()) word_ += 'e';
  }

  void step_1c() {
    const std::size_t size = word_.size();
    if ((ends_with("y") || ends_with("Y")) && size > 2 && !vowel_at(size - 2)) word_.back() = 'i';
  }

  // The letter before a suffix that the word has; NUL if there is none.
  char before(std::string_view suffix) const {
    return word_.size() > suffix.size() ? word_[word_.size() - suffix.size() - 1] : '\0';
  }

  void step_2() {
    for (const auto& [suffix, replacement] : kPorterStep2) {
      if (!ends_with(suffix)) continue;
      const std::string_view allowed = suffix == "ogi"  ? "l"
                                       : suffix == "li" ? "cdeghkmnrt"
                                                        : std::string_view();
      const bool fits = allowed.empty() || allowed.find(before(suffix)) != std::string_view::npos;
      if (fits && in_region(r1_, suffix)) replace_end(suffix, replacement);
      return;
    }
  }

  void step_3() {
    for (const auto& [suffix, replacement] : kPorterStep3) {
      if (!ends_with(suffix)) continue;
      const std::size_t region = suffix == "ative" ? r2_ : r1_;
      if (in_region(region, suffix)) replace_end(suffix, replacement);
      return;
    }
  }

  void step_4() {
    for (const std::string_view suffix : kPorterStep4) {
      if (!ends_with(suffix)) continue;
      const bool fits = suffix != "ion" || before(suffix) == 's' || before(suffix) == 't';
      if (fits && in_region(r2_, suffix)) replace_end(suffix, "");
      return;
    }
  }

  void step_5() {
    if (ends_with("e")) {
      const bool short_before = ends_in_short_syllable(word_.size() - 1);
      if (in_region(r2_, "e") || (in_region(r1_, "e") && !short_before)) word_.pop_back();
    } else if (ends_with("ll") && in_region(r2_, "l")) {
      word_.pop_back();
    }
  }

  std::string word_;
  std::size_t r1_ = 0;
  std::size_t r2_ = 0;
};

}  // namespace detail

// The stem of a word in lower case without apostrophes ("running" -> "run").
inline std::string stem_english(std::string_view word) {
  return detail::PorterStemmer(word).stem();
}

}  // namespace terse
