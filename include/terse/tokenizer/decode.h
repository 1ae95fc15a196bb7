// Decoders: from the texts of tokens back to one text.
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
#include "terse/tokenizer/token.h"
#include "terse/utf8.h"

namespace terse {

namespace decoders {

using Tokens = std::vector<std::string>;

inline void append_replacement(std::string& out) { out += "\xEF\xBF\xBD"; }  // U+FFFD

// How many of the first bytes, which are no valid UTF-8, count as one fault: the start of a
// sequence as far as it goes, otherwise one byte. Source: Unicode 15 chapter 3.9, "maximal
// subpart".
inline std::size_t utf8_fault_length(std::string_view bytes) {
  for (const std::size_t length : {std::size_t{3}, std::size_t{2}}) {
    if (bytes.size() < length) continue;
    std::string completed(bytes.substr(0, length));
    for (std::size_t missing = 1; length + missing <= 4; ++missing) {
      completed += '\x80';
      if (utf8_valid_prefix(completed) == completed.size()) return length;
    }
  }
  return 1;
}

// bytes with each fault replaced by U+FFFD.
inline std::string repaired_utf8(std::string_view bytes) {
  std::string out;
  while (true) {
    const std::size_t valid = utf8_valid_prefix(bytes);
    out += bytes.substr(0, valid);
    if (valid == bytes.size()) return out;
    bytes.remove_prefix(valid);
    append_replacement(out);
    bytes.remove_prefix(utf8_fault_length(bytes));
  }
}

// U+2581 (or another mark) becomes a space; in the first token it vanishes, unless the
// pre-tokenizer never put one in front.
struct Metaspace {
  Pattern replacement;
  bool keeps_first = false;

  void apply(Tokens* tokens) const {
    for (std::size_t i = 0; i < tokens->size(); ++i) {
      replace_all((*tokens)[i], replacement, i == 0 && !keeps_first ? "" : " ");
    }
  }
  std::string describe() const { return "Metaspace"; }
};

// A space in front of every token that is no continuation, and no prefix on those that are;
// cleanup closes up English punctuation and contractions.
struct WordPiece {
  std::string prefix;
  bool cleanup = true;

  void apply(Tokens* tokens) const {
    for (std::size_t i = 0; i < tokens->size(); ++i) {
      std::string& token = (*tokens)[i];
      if (i > 0 && token.starts_with(prefix)) {
        token.erase(0, prefix.size());
      } else if (i > 0) {
        token.insert(0, 1, ' ');
      }
      if (cleanup) clean_up(&token);
    }
  }
  std::string describe() const { return "WordPiece"; }

  // Source: cleanup of huggingface/tokenizers, tokenizers/src/decoders/wordpiece.rs.
  static void clean_up(std::string* token) {
    struct Rule {
      Pattern from;
      std::string_view to;
    };
    static const std::array<Rule, 11> kRules = {{{Pattern::literal(" ."), "."},
                                                 {Pattern::literal(" ?"), "?"},
                                                 {Pattern::literal(" !"), "!"},
                                                 {Pattern::literal(" ,"), ","},
                                                 {Pattern::literal(" ' "), "'"},
                                                 {Pattern::literal(" n't"), "n't"},
                                                 {Pattern::literal(" 'm"), "'m"},
                                                 {Pattern::literal(" do not"), " don't"},
                                                 {Pattern::literal(" 's"), "'s"},
                                                 {Pattern::literal(" 've"), "'ve"},
                                                 {Pattern::literal(" 're"), "'re"}}};
    for (const Rule& rule : kRules) replace_all(*token, rule.from, rule.to);
  }
};

// Runs of tokens "<0xHH>" become the text their bytes spell, or one U+FFFD for each byte.
struct ByteFallback {
  void apply(Tokens* tokens) const {
    Tokens out;
    std::string bytes;
    for (std::string& token : *tokens) {
      const int byte = byte_of(token);
      if (byte >= 0) {
        bytes += static_cast<char>(byte);
        continue;
      }
      flush(&bytes, &out);
      out.push_back(std::move(token));
    }
    flush(&bytes, &out);
    *tokens = std::move(out);
  }
  std::string describe() const { return "ByteFallback"; }

 private:
  static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  }
  // The byte that the token names, or -1.
  static int byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
    const int high = hex_digit(token[3]);
    const int low = hex_digit(token[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
  }
  static void flush(std::string* bytes, Tokens* out) {
    if (bytes->empty()) return;
    if (utf8_valid_prefix(*bytes) != bytes->size()) {
      std::string replaced;
      for (std::size_t i = 0; i < bytes->size(); ++i) append_replacement(replaced);
      *bytes = std::move(replaced);
    }
    out->push_back(std::move(*bytes));
    bytes->clear();
  }
};

// All tokens become one.
struct Fuse {
  void apply(Tokens* tokens) const {
    std::string joined;
    for (const std::string& token : *tokens) joined += token;
    tokens->assign(1, joined);
  }
  std::string describe() const { return "Fuse"; }
};

// Takes up to `start` characters `content` off the front of each token and up to `stop` off its
// end.
struct Strip {
  std::string content;
  std::size_t start = 0;
  std::size_t stop = 0;

  void apply(Tokens* tokens) const {
    for (std::string& token : *tokens) {
      std::string_view rest = token;
      for (std::size_t i = 0; i < start && rest.starts_with(content); ++i) {
        rest.remove_prefix(content.size());
      }
      for (std::size_t i = 0; i < stop && rest.ends_with(content); ++i) {
        rest.remove_suffix(content.size());
      }
      token = std::string(rest);
    }
  }
  std::string describe() const { return "Strip"; }
};

// Replaces every match of a pattern in each token.
struct Replace {
  Pattern pattern;
  std::string content;

  void apply(Tokens* tokens) const {
    for (std::string& token : *tokens) replace_all(token, pattern, content);
  }
  std::string describe() const { return "Replace"; }
};

// The suffix that ends a word becomes a space, and nothing at the end of the text.
struct Bpe {
  Pattern suffix;

  void apply(Tokens* tokens) const {
    for (std::size_t i = 0; i < tokens->size(); ++i) {
      replace_all((*tokens)[i], suffix, i + 1 < tokens->size() ? " " : "");
    }
  }
  std::string describe() const { return "BPEDecoder"; }
};

// Characters that stand for bytes become those bytes; a token with any other character stays.
struct ByteLevel {
  void apply(Tokens* tokens) const {
    std::string bytes;
    for (const std::string& token : *tokens) {
      const std::size_t before = bytes.size();
      for (std::size_t i = 0; i < token.size();) {
        const auto byte = byte_level_byte(utf8_next(token, &i));
        if (!byte) {
          bytes.replace(before, std::string::npos, token);
          break;
        }
        bytes += *byte;
      }
    }
    tokens->assign(1, repaired_utf8(bytes));
  }
  std::string describe() const { return "ByteLevel"; }
};

}  // namespace decoders

class Decoder {
 public:
  // Joins the tokens with spaces, as the reference library does without a decoder.
  Decoder() = default;

  // Reads the value of "decoder", which may be null. Throws Error: schema, unsupported (an unknown
  // type or pattern), range.
  static Decoder from_json(JsonValue value);

  // A decoder for SentencePiece files: U+2581 becomes a space, byte pieces bytes; one leading
  // space, which encoding put there, goes if add_dummy_prefix.
  static Decoder sentencepiece(bool add_dummy_prefix);

  std::string apply(std::vector<std::string> tokens) const {
    std::string text;
    for (const Step& step : steps_) step.apply(&tokens);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0 && steps_.empty()) text += ' ';
      text += tokens[i];
    }
    return text;
  }

  // The names of the steps in order; "none" without.
  std::string describe() const { return description_; }

 private:
  using Step = PipelineStep<decoders::Tokens*>;

  static Step read_step(JsonValue value, std::string_view type);
  static decoders::Metaspace read_metaspace(JsonValue value);
  static std::string read_character(JsonValue value, std::string_view what);

  std::vector<Step> steps_;
  std::string description_ = "none";
};

inline Decoder Decoder::from_json(JsonValue value) {
  Decoder decoder;
  for_each_step(value, "decoders", "decoder", [&](JsonValue step, std::string_view type) {
    decoder.steps_.push_back(read_step(step, type));
  });
  decoder.description_ = describe_steps(decoder.steps_);
  return decoder;
}

inline Decoder Decoder::sentencepiece(bool add_dummy_prefix) {
  Decoder decoder;
  decoder.description_ = "SentencePiece";
  decoder.steps_.emplace_back(decoders::ByteFallback{});
  decoder.steps_.emplace_back(decoders::Fuse{});
  if (add_dummy_prefix) decoder.steps_.emplace_back(decoders::Strip{"\u2581", 1, 0});
  decoder.steps_.emplace_back(decoders::Metaspace{Pattern::literal("\u2581"), true});
  return decoder;
}

inline Decoder::Step Decoder::read_step(JsonValue value, std::string_view type) {
  const auto field = [&](std::string_view name) { return required_field(value, name, "decoder"); };
  if (type == "Metaspace") return read_metaspace(value);
  if (type == "WordPiece") {
    return decoders::WordPiece{std::string(field("prefix").as_string("prefix")),
                               field("cleanup").as_boolean("cleanup")};
  }
  if (type == "ByteFallback") return decoders::ByteFallback{};
  if (type == "Fuse") return decoders::Fuse{};
  if (type == "Strip") {
    return decoders::Strip{read_character(field("content"), "content"),
                           read_u32(field("start"), "start"), read_u32(field("stop"), "stop")};
  }
  if (type == "Replace") {
    return decoders::Replace{Pattern::from_json(field("pattern"), "decoder pattern"),
                             std::string(field("content").as_string("content"))};
  }
  if (type == "BPEDecoder") {
    const std::string_view suffix = field("suffix").as_string("suffix");
    check(!suffix.empty(), ErrorClass::schema, value.source(), ": BPEDecoder suffix is empty");
    return decoders::Bpe{Pattern::literal(suffix)};
  }
  check(type == "ByteLevel", ErrorClass::unsupported, value.source(), ": decoder type ",
        quote(type));
  return decoders::ByteLevel{};
}

// The mark in the first token stays where the pre-tokenizer never put one there: prepend_scheme
// "never", or "add_prefix_space": false of older files.
inline decoders::Metaspace Decoder::read_metaspace(JsonValue value) {
  decoders::Metaspace metaspace;
  metaspace.replacement = Pattern::literal(
      read_character(required_field(value, "replacement", "decoder"), "replacement"));
  if (const auto scheme = value.find("prepend_scheme"); scheme && !scheme->is_null()) {
    const std::string_view name = scheme->as_string("prepend_scheme");
    check(name == "always" || name == "first" || name == "never", ErrorClass::schema,
          value.source(), ": prepend_scheme is ", quote(name), ", expected always, first or never");
    metaspace.keeps_first = name == "never";
  } else if (const auto add = value.find("add_prefix_space"); add && !add->is_null()) {
    metaspace.keeps_first = !add->as_boolean("add_prefix_space");
  }
  return metaspace;
}

inline std::string Decoder::read_character(JsonValue value, std::string_view what) {
  const std::string_view text = value.as_string(what);
  check(!text.empty() && utf8_length(text[0]) == text.size(), ErrorClass::schema, value.source(),
        ": ", what, " is ", quote(text), ", expected one character");
  return std::string(text);
}

}  // namespace terse
