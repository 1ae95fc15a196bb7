// The "normalizer" of tokenizer.json: what happens to text before it is cut into pre-tokens.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/tokenizer/bert_normalizer.h"
#include "terse/tokenizer/charsmap.h"
#include "terse/tokenizer/component.h"
#include "terse/tokenizer/normal_form.h"
#include "terse/tokenizer/pattern.h"
#include "terse/tokenizer/rewrite.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/unicode.h"
#include "terse/utf8.h"

namespace terse {

// The kinds of normalizers. Each has apply(text), in place and linear, and describe(), for a
// person.
namespace normalizer {

// Puts a text in front, unless there is nothing behind it.
struct Prepend {
  std::string content;

  void apply(std::string& text) const {
    if (!text.empty()) text.insert(0, content);
  }
  std::string describe() const { return "Prepend(" + quote(content) + ")"; }
};

// Replaces all matches, left to right, not overlapping.
struct Replace {
  Pattern pattern;
  std::string content;

  void apply(std::string& text) const { replace_all(text, pattern, content); }
  std::string describe() const {
    return "Replace(" + pattern.description() + " by " + quote(content) + ")";
  }
};

// Removes White_Space at the ends.
struct Strip {
  bool left;
  bool right;

  void apply(std::string& text) const {
    if (right) {
      std::size_t end = text.size();
      while (end > 0) {
        std::size_t begin = end - 1;
        while ((text[begin] & 0xC0) == 0x80) --begin;
        std::size_t next = begin;
        if (!is_white_space(utf8_next(text, &next))) break;
        end = begin;
      }
      text.resize(end);
    }
    if (left) {
      std::size_t begin = 0;
      for (std::size_t next = 0; next < text.size(); begin = next) {
        if (!is_white_space(utf8_next(text, &next))) break;
      }
      text.erase(0, begin);
    }
  }
  std::string describe() const {
    return std::string("Strip(") + (left ? "left " : "") + (right ? "right)" : ")");
  }
};

struct Lowercase {
  void apply(std::string& text) const { lowercase(text); }
  std::string describe() const { return "Lowercase"; }
};

// Drops marks of all kinds, spacing ones too (BertNormalizer keeps those); decomposes nothing, so
// precomposed letters keep theirs.
struct StripAccents {
  void apply(std::string& text) const { remove_characters(text, is_mark); }
  std::string describe() const { return "StripAccents"; }
};

struct Form {
  NormalForm form;

  void apply(std::string& text) const { to_normal_form(text, form); }
  std::string describe() const {
    static constexpr const char* kNames[] = {"NFC", "NFD", "NFKC", "NFKD"};
    return kNames[static_cast<std::size_t>(form)];
  }
};

// SentencePiece's "nmt" rules: drops control characters, makes other blanks a space.
struct Nmt {
  void apply(std::string& text) const {
    rewrite_characters(text, [](char32_t code, std::string_view character, std::string* out) {
      if (!is_dropped(code)) *out += is_blank(code) ? std::string_view(" ") : character;
    });
  }
  std::string describe() const { return "Nmt"; }

 private:
  static constexpr bool is_dropped(char32_t code) {
    return (code >= 0x01 && code <= 0x08) || code == 0x0B || (code >= 0x0E && code <= 0x1F) ||
           code == 0x7F || code == 0x8F || code == 0x9F;
  }
  static constexpr bool is_blank(char32_t code) {
    return code == 0x09 || code == 0x0A || code == 0x0C || code == 0x0D || code == 0x1680 ||
           (code >= 0x200B && code <= 0x200F) || code == 0x2028 || code == 0x2029 ||
           code == 0x2581 || code == 0xFEFF || code == 0xFFFD;
  }
};

struct Precompiled {
  Charsmap map;

  void apply(std::string& text) const { map.normalize_graphemes(text); }
  std::string describe() const {
    return "Precompiled(" + std::to_string(map.num_units()) + " units)";
  }
};

}  // namespace normalizer

class Normalizer {
 public:
  // Reads the component; null means no normalizer. Throws Error: unsupported (an unknown type or
  // pattern), schema (missing fields or wrong kinds), tokenizer or limit (see Charsmap, Pattern).
  static Normalizer from_json(JsonValue definition) {
    Normalizer result;
    for_each_step(definition, "normalizers", "normalizer",
                  [&](JsonValue step, std::string_view type) {
                    result.steps_.push_back(read_step(step, type));
                  });
    return result;
  }

  // Normalizes one piece of text (what lies between two added tokens), valid UTF-8, in place.
  // Throws Error(limit) past kMaxNormalizedBytes.
  void apply(std::string& text) const {
    for (const Step& step : steps_) {
      step.apply(text);
      check_normalized_size(text.size());
    }
  }

  // One line, for a person: the steps in order.
  std::string describe() const { return describe_steps(steps_); }

 private:
  using Step = PipelineStep<std::string&>;

  static Step read_step(JsonValue step, std::string_view type) {
    const auto field = [&](std::string_view name) { return required_field(step, name, type); };
    if (type == "BertNormalizer") return BertNormalizer::from_json(step);
    if (type == "Precompiled") {
      const auto encoded = field("precompiled_charsmap").as_string("precompiled_charsmap");
      return normalizer::Precompiled{
          Charsmap::from_base64(encoded, step.source() + ": precompiled_charsmap")};
    }
    if (type == "Replace") {
      return normalizer::Replace{Pattern::from_json(field("pattern"), "pattern of Replace"),
                                 short_text(field("content"), "content of Replace")};
    }
    if (type == "Prepend") {
      return normalizer::Prepend{short_text(field("prepend"), "prepend")};
    }
    if (type == "Strip") {
      return normalizer::Strip{field("strip_left").as_boolean("strip_left"),
                               field("strip_right").as_boolean("strip_right")};
    }
    if (type == "Lowercase") return normalizer::Lowercase{};
    if (type == "StripAccents") return normalizer::StripAccents{};
    if (type == "Nmt") return normalizer::Nmt{};
    if (type == "NFC") return normalizer::Form{NormalForm::nfc};
    if (type == "NFD") return normalizer::Form{NormalForm::nfd};
    if (type == "NFKC") return normalizer::Form{NormalForm::nfkc};
    if (type == "NFKD") return normalizer::Form{NormalForm::nfkd};
    fail(ErrorClass::unsupported, step.source(), ": normalizer of type ", quote(type));
  }

  // Long insertions, once for every match or piece, would take time beyond all proportion.
  static std::string short_text(JsonValue value, std::string_view what) {
    const std::string_view text = value.as_string(what);
    check(text.size() <= Pattern::kMaxBytes, ErrorClass::limit, value.source(), ": ", what, " has ",
          text.size(), " bytes, at most ", Pattern::kMaxBytes, " are supported");
    return std::string(text);
  }

  std::vector<Step> steps_ = {};
};

}  // namespace terse
