// BERT's text cleaning, as Hugging Face tokenizers does it (normalizers/bert.rs).
#pragma once

#include <string>
#include <string_view>

#include "terse/json.h"
#include "terse/tokenizer/ascii.h"
#include "terse/tokenizer/component.h"
#include "terse/tokenizer/normal_form.h"
#include "terse/tokenizer/rewrite.h"
#include "terse/tokenizer/unicode.h"

namespace terse {

class BertNormalizer {
 public:
  // Throws Error(schema) for a field of another kind.
  static BertNormalizer from_json(JsonValue definition) {
    BertNormalizer result;
    result.clean_text_ = flag_field(definition, "clean_text", true);
    result.handle_chinese_chars_ = flag_field(definition, "handle_chinese_chars", true);
    result.lowercase_ = flag_field(definition, "lowercase", true);
    result.strip_accents_ = flag_field(definition, "strip_accents", result.lowercase_);
    return result;
  }

  void apply(std::string& text) const {
    if (clean_text_ || handle_chinese_chars_) clean(text);
    // Also splits Hangul syllables into jamo, which is how the vocabulary has them.
    if (strip_accents_) to_normal_form(text, NormalForm::nfd);
    if (strip_accents_ || lowercase_) simplify(text);
  }

  std::string describe() const {
    std::string text = "BertNormalizer(";
    if (clean_text_) text += "clean_text ";
    if (handle_chinese_chars_) text += "handle_chinese_chars ";
    if (strip_accents_) text += "strip_accents ";
    if (lowercase_) text += "lowercase ";
    if (text.back() == ' ') text.pop_back();
    return text + ")";
  }

 private:
  // Drops control characters and makes any white space a space (unassigned characters stay); puts
  // spaces around ideographs.
  void clean(std::string& text) const {
    rewrite_characters(text, [this](char32_t code, std::string_view character, std::string* out) {
      if (clean_text_ && is_bert_control(code)) return;
      if (clean_text_ && is_white_space(code)) {
        *out += ' ';
      } else if (handle_chinese_chars_ && is_bert_ideograph(code)) {
        *out += ' ';
        *out += character;
        *out += ' ';
      } else {
        *out += character;
      }
    });
  }

  // Drops nonspacing marks, then lower-cases what is left.
  void simplify(std::string& text) const {
    if (lowercase_) lowercase_ascii(text);
    rewrite_characters(text, [this](char32_t code, std::string_view character, std::string* out) {
      if (strip_accents_ && is_bert_mark(code)) return;
      if (lowercase_) {
        append_lowercase(*out, code, character);
      } else {
        *out += character;
      }
    });
  }

  // The blocks of the Rust library. The original BERT's list has U+2B820 where this has U+2B920;
  // published models use this one.
  static constexpr bool is_bert_ideograph(char32_t code) {
    const auto in = [code](char32_t first, char32_t last) { return code >= first && code <= last; };
    return in(0x4E00, 0x9FFF) || in(0x3400, 0x4DBF) || in(0x20000, 0x2A6DF) ||
           in(0x2A700, 0x2B73F) || in(0x2B740, 0x2B81F) || in(0x2B920, 0x2CEAF) ||
           in(0xF900, 0xFAFF) || in(0x2F800, 0x2FA1F);
  }

  bool clean_text_ = true;
  bool handle_chinese_chars_ = true;
  bool strip_accents_ = true;
  bool lowercase_ = true;
};

}  // namespace terse
