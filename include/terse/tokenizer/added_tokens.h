// Added tokens: strings that are cut out of the text before, or after, it is normalised, and never
// reach the model.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/tokenizer/component.h"
#include "terse/tokenizer/string_matcher.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/unicode.h"
#include "terse/utf8.h"
#include "terse/view.h"

namespace terse {

// What becomes of the content of special tokens where it is written in a text.
enum class SpecialText : std::uint8_t {
  match,  // it becomes the special token, as in the reference library by default
  plain   // it is text like any other
};

struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool single_word = false;  // matches only between characters that are no word characters
  bool lstrip = false;       // swallows white space before it
  bool rstrip = false;       // swallows white space after it
  bool normalized = false;   // matches its normalised content in normalised text
  bool special = false;      // skipped by decode on request
};

// A stretch of text: an added token, or ordinary text where token is null.
struct TextPiece {
  std::size_t begin = 0;  // bytes
  std::size_t end = 0;
  const AddedToken* token = nullptr;
};

class AddedTokens {
 public:
  // What the definition needs from the rest of the tokenizer.
  struct Context {
    std::function<std::optional<TokenId>(std::string_view)> model_id;  // of a vocabulary entry
    std::size_t model_size = 0;                                        // largest model id + 1
    std::function<void(std::string&)> normalize;                       // in place
  };

  AddedTokens() = default;

  // Reads the list under "added_tokens". A token's id is the model's for its content; a content the
  // model lacks gets the next free id behind the model's, and the id in the file, which every
  // consistent file gives just so, is only checked to be one: the reference library does the same.
  // Tokens without content are skipped, of equal contents the last one's flags count.
  // Throws Error: schema (wrong kinds, a field is missing), range (id), limit (number or length),
  // tokenizer (nothing is left of a content by normalisation).
  static AddedTokens from_json(JsonValue list, const Context& context) {
    const std::string& source = list.source();
    list.as_array("added_tokens");
    check(list.size() <= kMaxAddedTokens, ErrorClass::limit, source, ": ", list.size(),
          " added tokens, at most ", kMaxAddedTokens, " are supported");
    AddedTokens added;
    std::size_t next_id = context.model_size;
    for (const JsonValue entry : list) {
      AddedToken token = read_token(entry);
      if (token.content.empty()) continue;
      if (const auto known = added.by_content_.find(token.content);
          known != added.by_content_.end()) {
        token.id = added.tokens_[known->second].id;
        added.tokens_[known->second] = std::move(token);
        continue;
      }
      const std::optional<TokenId> model_id = context.model_id(token.content);
      check(model_id || next_id < kMaxVocabulary, ErrorClass::limit, source, ": more than ",
            kMaxVocabulary, " token ids");
      token.id = model_id ? *model_id : static_cast<TokenId>(next_id++);
      added.by_content_.emplace(token.content, added.tokens_.size());
      added.tokens_.push_back(std::move(token));
    }
    added.index(context, source);
    return added;
  }

  // Cuts raw text at the tokens with normalized = false.
  std::vector<TextPiece> split_raw(std::string_view text, SpecialText special_text) const {
    return split(text, raw_, special_text);
  }
  // Cuts normalised text at the tokens with normalized = true.
  std::vector<TextPiece> split_normalized(std::string_view text, SpecialText special_text) const {
    return split(text, normalized_, special_text);
  }

  // In file order, without repetitions.
  const std::vector<AddedToken>& tokens() const { return tokens_; }

  // The added token with this content or id, or null.
  const AddedToken* find(std::string_view content) const {
    const auto found = by_content_.find(std::string(content));
    return found == by_content_.end() ? nullptr : &tokens_[found->second];
  }
  const AddedToken* find(TokenId id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &tokens_[found->second];
  }

 private:
  // The strings of one of the two passes, and which token each of them is.
  struct Pass {
    StringMatcher matcher;
    std::vector<std::size_t> tokens;
  };

  static AddedToken read_token(JsonValue entry) {
    const auto field = [&](std::string_view name) {
      return required_field(entry.as_object("an added token"), name, "an added token");
    };
    const auto flag = [&](std::string_view name) { return field(name).as_boolean(name); };
    AddedToken token;
    token.content = field("content").as_string("content of an added token");
    check(token.content.size() <= kMaxPieceBytes, ErrorClass::limit, entry.source(),
          ": an added token has ", token.content.size(), " bytes, at most ", kMaxPieceBytes,
          " are supported");
    read_token_id(field("id"), "id of an added token", kMaxVocabulary);
    token.single_word = flag("single_word");
    token.lstrip = flag("lstrip");
    token.rstrip = flag("rstrip");
    token.normalized = flag("normalized");
    token.special = flag("special");
    return token;
  }

  void index(const Context& context, const std::string& source) {
    for (std::size_t i = 0; i < tokens_.size(); ++i) by_id_[tokens_[i].id] = i;
    std::vector<std::string> raw;
    std::vector<std::string> normalized;
    // Special tokens first: they win where two contents are equal after normalisation.
    for (const bool special : {true, false}) {
      for (std::size_t i = 0; i < tokens_.size(); ++i) {
        const AddedToken& token = tokens_[i];
        if (token.special != special) continue;
        if (!token.normalized) {
          raw.push_back(token.content);
          raw_.tokens.push_back(i);
          continue;
        }
        std::string content = token.content;
        context.normalize(content);
        check(!content.empty(), ErrorClass::tokenizer, source, ": nothing is left of added token ",
              terse::quote(token.content), " by normalisation");
        normalized.push_back(std::move(content));
        normalized_.tokens.push_back(i);
      }
    }
    raw_.matcher = StringMatcher(view(raw));
    normalized_.matcher = StringMatcher(view(normalized));
  }

  std::vector<TextPiece> split(std::string_view text, const Pass& pass,
                               SpecialText special_text) const {
    std::vector<TextPiece> pieces;
    std::size_t cursor = 0;  // end of the last token; rstrip may have moved it into later matches
    WhiteRun white;
    for (const StringMatcher::Match& match : pass.matcher.leftmost_longest(text)) {
      const AddedToken& token = tokens_[pass.tokens[match.pattern]];
      std::size_t begin = match.begin;
      std::size_t end = begin + pass.matcher.length(match);
      // A match that is refused is not searched for shorter tokens.
      if (token.special && special_text == SpecialText::plain) continue;
      if (token.single_word && (word_ends_at(text, begin) || word_starts_at(text, end))) continue;
      if (token.lstrip) begin = std::max(white_start(text, begin, cursor), cursor);
      if (token.rstrip) end = white.end_after(text, end);
      if (cursor < begin) pieces.push_back({cursor, begin, nullptr});
      pieces.push_back({begin, std::max(begin, end), &token});
      cursor = end;
    }
    if (cursor < text.size()) pieces.push_back({cursor, text.size(), nullptr});
    return pieces;
  }

  // Remembers the last run of white space, so that tokens that themselves are white space with
  // rstrip do not walk the same run again and again.
  struct WhiteRun {
    std::size_t begin = 0;
    std::size_t end = 0;
    // First byte at or after `from` that is no white space.
    std::size_t end_after(std::string_view text, std::size_t from) {
      if (from >= begin && from < end) return end;
      begin = from;
      end = from;
      while (end < text.size()) {
        std::size_t next = end;
        if (!is_white_space(utf8_next(text, &next))) break;
        end = next;
      }
      return end;
    }
  };

  // Start of the white space that ends at `end`, not looked for before `floor`.
  static std::size_t white_start(std::string_view text, std::size_t end, std::size_t floor) {
    while (end > floor) {
      const std::size_t previous = previous_char(text, end);
      std::size_t next = previous;
      if (!is_white_space(utf8_next(text, &next))) break;
      end = previous;
    }
    return end;
  }
  static bool word_ends_at(std::string_view text, std::size_t end) {
    if (end == 0) return false;
    std::size_t index = previous_char(text, end);
    return is_word_char(utf8_next(text, &index));
  }
  static bool word_starts_at(std::string_view text, std::size_t begin) {
    return begin < text.size() && is_word_char(utf8_next(text, &begin));
  }
  // Where the character before `end` > 0 starts.
  static std::size_t previous_char(std::string_view text, std::size_t end) {
    do --end;
    while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80);
    return end;
  }

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, std::size_t> by_content_;
  std::unordered_map<TokenId, std::size_t> by_id_;
  Pass raw_;
  Pass normalized_;
};

}  // namespace terse
