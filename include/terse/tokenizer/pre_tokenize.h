// The "pre_tokenizer" of tokenizer.json: cuts normalized text into the words that the model encodes
// one by one.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/tokenizer/byte_level.h"
#include "terse/tokenizer/component.h"
#include "terse/tokenizer/pattern.h"
#include "terse/tokenizer/span.h"
#include "terse/tokenizer/unicode.h"
#include "terse/utf8.h"

namespace terse {

// Text and the pre-tokens in it: not empty, in order, not overlapping, each valid UTF-8.
struct PreTokens {
  std::string text;
  std::vector<Span> spans;
};

// The kinds of pre-tokenizers. Each has apply(tokens, at_text_start), which cuts every pre-token
// further in linear time, and describe(), for a person.
namespace pre_tokenizer {

// What a character does to the pre-token it stands in.
enum class Cut : std::uint8_t { none, remove, isolate };

// Ends a pre-token at every character for which classify says so.
template <Cut (*classify)(char32_t)>
void cut_at_characters(PreTokens& tokens) {
  static constexpr auto kAscii = [] {
    std::array<Cut, 0x80> cuts{};
    for (char32_t code = 0; code < cuts.size(); ++code) cuts[code] = classify(code);
    return cuts;
  }();
  std::vector<Span> spans;
  spans.reserve(tokens.spans.size() + tokens.text.size() / 4);
  const auto add = [&](std::size_t begin, std::size_t end) {
    if (begin < end) spans.push_back({begin, end});
  };
  for (const Span span : tokens.spans) {
    std::size_t word = span.begin;
    for (std::size_t index = span.begin; index < span.end;) {
      const std::size_t begin = index;
      const auto byte = static_cast<unsigned char>(tokens.text[index]);
      const Cut cut =
          byte < 0x80 ? (++index, kAscii[byte]) : classify(utf8_next(tokens.text, &index));
      if (cut == Cut::none) continue;
      add(word, begin);
      if (cut == Cut::isolate) add(begin, index);
      word = index;
    }
    add(word, span.end);
  }
  tokens.spans = std::move(spans);
}

struct WhitespaceSplit {
  static constexpr Cut classify(char32_t code) {
    return is_white_space(code) ? Cut::remove : Cut::none;
  }
  void apply(PreTokens& tokens, bool) const { cut_at_characters<classify>(tokens); }
  std::string describe() const { return "WhitespaceSplit"; }
};

struct Bert {
  static constexpr Cut classify(char32_t code) {
    if (is_white_space(code)) return Cut::remove;
    return is_bert_punctuation(code) ? Cut::isolate : Cut::none;
  }
  void apply(PreTokens& tokens, bool) const { cut_at_characters<classify>(tokens); }
  std::string describe() const { return "BertPreTokenizer"; }
};

enum class PrependScheme : std::uint8_t { first, never, always };

// Writes every space as `replacement`, puts one in front (of every pre-token, or only of the one at
// the start of the text) where there is none, and cuts before each.
struct Metaspace {
  std::string replacement;
  PrependScheme prepend_scheme = PrependScheme::always;
  bool split = true;

  static Metaspace from_json(JsonValue definition) {
    Metaspace result;
    const auto text =
        required_field(definition, "replacement", "Metaspace").as_string("replacement");
    check(!text.empty() && utf8_length(text[0]) == text.size(), ErrorClass::schema,
          definition.source(), ": replacement of Metaspace is ", quote(text),
          ", expected one character");
    result.replacement = text;
    result.split = flag_field(definition, "split", true);
    result.prepend_scheme = read_scheme(definition);
    return result;
  }

  void apply(PreTokens& tokens, bool at_text_start) const {
    PreTokens out;
    out.text.reserve(tokens.text.size() * 3 / 2 + replacement.size());
    out.spans.reserve(tokens.spans.size() + tokens.text.size() / 4);
    for (const Span span : tokens.spans) {
      const bool prepends =
          prepend_scheme == PrependScheme::always ||
          (prepend_scheme == PrependScheme::first && at_text_start && span.begin == 0);
      append(std::string_view(tokens.text).substr(span.begin, span.end - span.begin), prepends,
             &out);
    }
    tokens = std::move(out);
  }

  std::string describe() const {
    static constexpr const char* kSchemes[] = {"first", "never", "always"};
    return "Metaspace(" + quote(replacement) + " prepend " +
           kSchemes[static_cast<std::size_t>(prepend_scheme)] + (split ? ")" : " no split)");
  }

 private:
  // Files that predate prepend_scheme have add_prefix_space: true stands for always, false for
  // never; later files may have both, but not contradicting each other.
  static PrependScheme read_scheme(JsonValue definition) {
    const bool adds_prefix = flag_field(definition, "add_prefix_space", true);
    const auto scheme = definition.find("prepend_scheme");
    if (!scheme) return adds_prefix ? PrependScheme::always : PrependScheme::never;
    const std::string_view name = scheme->as_string("prepend_scheme");
    check(name == "always" || name == "first" || name == "never", ErrorClass::schema,
          definition.source(), ": prepend_scheme is ", quote(name),
          ", expected always, first or never");
    check(adds_prefix || name == "never", ErrorClass::tokenizer, definition.source(),
          ": add_prefix_space is false, but prepend_scheme is ", name);
    return name == "always"  ? PrependScheme::always
           : name == "first" ? PrependScheme::first
                             : PrependScheme::never;
  }

  // Length of the space or replacement at text[index], 0 if there is neither.
  std::size_t mark_length(std::string_view text, std::size_t index) const {
    if (text[index] == ' ') return 1;
    if (text[index] != replacement[0]) return 0;
    return text.substr(index).starts_with(replacement) ? replacement.size() : 0;
  }

  void append(std::string_view piece, bool prepends, PreTokens* out) const {
    std::size_t word = out->text.size();
    const auto end_word = [&] {
      if (word < out->text.size()) out->spans.push_back({word, out->text.size()});
      word = out->text.size();
    };
    if (prepends && mark_length(piece, 0) == 0) out->text += replacement;
    for (std::size_t index = 0; index < piece.size();) {
      if (const std::size_t length = mark_length(piece, index); length > 0) {
        if (split) end_word();
        out->text += replacement;
        index += length;
      }
      const std::size_t begin = index;
      while (index < piece.size() && mark_length(piece, index) == 0) ++index;
      out->text.append(piece, begin, index - begin);
    }
    end_word();
  }
};

// GPT-2's words and bytes. trim_offsets, which has no effect on ids, is not read.
struct ByteLevel {
  bool add_prefix_space = true;
  bool use_regex = true;

  static ByteLevel from_json(JsonValue definition) {
    return {flag_field(definition, "add_prefix_space", true),
            flag_field(definition, "use_regex", true)};
  }

  void apply(PreTokens& tokens, bool) const {
    PreTokens out;
    out.text.reserve(tokens.text.size() * 3 / 2);
    std::string piece;
    for (const Span span : tokens.spans) {
      piece.assign(add_prefix_space && tokens.text[span.begin] != ' ' ? " " : "");
      piece.append(tokens.text, span.begin, span.end - span.begin);
      for (std::size_t begin = 0; begin < piece.size();) {
        const std::size_t end = use_regex ? gpt2_word_end(piece, begin) : piece.size();
        const std::size_t out_begin = out.text.size();
        append_byte_level(out.text, std::string_view(piece).substr(begin, end - begin));
        out.spans.push_back({out_begin, out.text.size()});
        begin = end;
      }
    }
    tokens = std::move(out);
  }

  std::string describe() const {
    return std::string("ByteLevel(") + (add_prefix_space ? "add_prefix_space " : "") +
           (use_regex ? "use_regex)" : ")");
  }
};

// What becomes of the matches of a Split: dropped, words of their own, joined with the word before
// or behind, or joined with each other.
enum class SplitBehavior : std::uint8_t {
  removed,
  isolated,
  merged_with_previous,
  merged_with_next,
  contiguous
};

inline constexpr std::array<std::string_view, 5> kSplitBehaviorNames = {
    "Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};

// Cuts at the matches of a pattern or, inverted, at what lies between them.
struct Split {
  Pattern pattern;
  SplitBehavior behavior = SplitBehavior::removed;
  bool invert = false;

  static Split from_json(JsonValue definition) {
    const auto name = required_field(definition, "behavior", "Split").as_string("behavior");
    const auto* found = std::find(kSplitBehaviorNames.begin(), kSplitBehaviorNames.end(), name);
    check(found != kSplitBehaviorNames.end(), ErrorClass::schema, definition.source(),
          ": behavior of Split is ", quote(name), ", expected one of Removed, Isolated, ",
          "MergedWithPrevious, MergedWithNext, Contiguous");
    return {Pattern::from_json(required_field(definition, "pattern", "Split"), "pattern of Split"),
            static_cast<SplitBehavior>(found - kSplitBehaviorNames.begin()),
            flag_field(definition, "invert", false)};
  }

  void apply(PreTokens& tokens, bool) const {
    std::vector<Span> spans;
    for (const Span span : tokens.spans) {
      const std::size_t first = spans.size();
      const std::string_view text = std::string_view(tokens.text).substr(0, span.end);
      bool after_match = false;
      const auto add = [&](Span part, bool is_match) {
        if (part.begin == part.end) return;
        if (is_match && behavior == SplitBehavior::removed) return;
        if (spans.size() > first && joins(is_match, after_match)) {
          spans.back().end = part.end;
        } else {
          spans.push_back(part);
        }
        after_match = is_match;
      };
      std::size_t begin = span.begin;
      for (Span match; pattern.find(text, begin, &match); begin = match.end) {
        add({begin, match.begin}, invert);
        add(match, !invert);
      }
      add({begin, span.end}, invert);
    }
    tokens.spans = std::move(spans);
  }

  std::string describe() const {
    return "Split(" + pattern.description() + " " +
           std::string(kSplitBehaviorNames[static_cast<std::size_t>(behavior)]) +
           (invert ? " inverted)" : ")");
  }

 private:
  // Whether a part joins the one before it.
  bool joins(bool is_match, bool after_match) const {
    switch (behavior) {
      case SplitBehavior::merged_with_previous:
        return is_match && !after_match;
      case SplitBehavior::merged_with_next:
        return !is_match && after_match;
      case SplitBehavior::contiguous:
        return is_match == after_match;
      default:
        return false;
    }
  }
};

// Cuts into stretches of `length` characters; the last one may be shorter.
struct FixedLength {
  std::uint64_t length = 5;

  static FixedLength from_json(JsonValue definition) {
    FixedLength result;
    const auto member = definition.find("length");
    if (!member) return result;
    check(member->get_unsigned(&result.length), ErrorClass::schema, definition.source(),
          ": length of FixedLength is ", member->describe(), ", expected an unsigned integer");
    check(result.length > 0, ErrorClass::range, definition.source(),
          ": length of FixedLength is 0, expected at least 1");
    return result;
  }

  void apply(PreTokens& tokens, bool) const {
    std::vector<Span> spans;
    for (const Span span : tokens.spans) {
      std::size_t begin = span.begin;
      std::uint64_t characters = 0;
      for (std::size_t index = span.begin; index < span.end;) {
        index += utf8_length(tokens.text[index]);
        if (++characters < length && index < span.end) continue;
        spans.push_back({begin, index});
        begin = index;
        characters = 0;
      }
    }
    tokens.spans = std::move(spans);
  }

  std::string describe() const { return "FixedLength(" + std::to_string(length) + ")"; }
};

}  // namespace pre_tokenizer

class PreTokenizer {
 public:
  // Reads the component; null means that a piece of text is one pre-token. Throws Error:
  // unsupported (an unknown type or pattern), schema (missing fields or wrong kinds), tokenizer
  // (contradicting fields), limit (see Pattern).
  static PreTokenizer from_json(JsonValue definition) {
    PreTokenizer result;
    for_each_step(definition, "pretokenizers", "pre_tokenizer",
                  [&](JsonValue step, std::string_view type) {
                    result.steps_.push_back(read_step(step, type));
                  });
    return result;
  }

  // Cuts one normalized piece of text (what lies between two added tokens), valid UTF-8. Whether
  // the piece is the first of its text matters to Metaspace only.
  PreTokens apply(std::string piece, bool at_text_start) const {
    PreTokens tokens{std::move(piece), {}};
    if (!tokens.text.empty()) tokens.spans.push_back({0, tokens.text.size()});
    for (const Step& step : steps_) step.apply(tokens, at_text_start);
    return tokens;
  }

  // One line, for a person: the steps in order.
  std::string describe() const { return describe_steps(steps_); }

 private:
  using Step = PipelineStep<PreTokens&, bool>;

  static Step read_step(JsonValue step, std::string_view type) {
    if (type == "WhitespaceSplit") return pre_tokenizer::WhitespaceSplit{};
    if (type == "BertPreTokenizer") return pre_tokenizer::Bert{};
    if (type == "Metaspace") return pre_tokenizer::Metaspace::from_json(step);
    if (type == "ByteLevel") return pre_tokenizer::ByteLevel::from_json(step);
    if (type == "Split") return pre_tokenizer::Split::from_json(step);
    if (type == "FixedLength") return pre_tokenizer::FixedLength::from_json(step);
    fail(ErrorClass::unsupported, step.source(), ": pre_tokenizer of type ", quote(type));
  }

  std::vector<Step> steps_ = {};
};

}  // namespace terse
