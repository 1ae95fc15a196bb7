// Post-processors: where the special tokens stand around a text and its pair, and which type id
// each token has. Every kind is read into two templates, one for a text alone and one for a pair.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/tokenizer/component.h"
#include "terse/tokenizer/encoding.h"
#include "terse/tokenizer/token.h"

namespace terse {

class PostProcessor {
 public:
  // More special tokens than this in one template are refused.
  static constexpr std::size_t kMaxSpecialTokens = 65536;

  // Adds nothing: the text has type id 0, its pair 1.
  PostProcessor() : single_{text(0)}, pair_{text(0), pair(1)} {}

  // Reads the value of "post_processor", which may be null. vocab_size is the largest id + 1.
  // Throws Error: schema (wrong kinds, a missing field), range (an id outside the vocabulary),
  // tokenizer (a template that contradicts itself), limit, unsupported (an unknown type, or a
  // Sequence with more than one processor that inserts tokens).
  static PostProcessor from_json(JsonValue value, std::size_t vocab_size) {
    PostProcessor result;
    std::size_t inserting = 0;
    for_each_step(
        value, "processors", "post_processor", [&](JsonValue step, std::string_view type) {
          if (type == "ByteLevel") return;  // only moves offsets, which nobody keeps here
          check(++inserting == 1, ErrorClass::unsupported, value.source(),
                ": post_processor has several steps that insert tokens");
          if (type == "TemplateProcessing") {
            result = from_template(step, vocab_size);
          } else if (type == "BertProcessing") {
            result = from_bert(step, vocab_size);
          } else if (type == "RobertaProcessing") {
            result = from_roberta(step, vocab_size);
          } else {
            fail(ErrorClass::unsupported, value.source(), ": post_processor type ", quote(type));
          }
        });
    return result;
  }

  // How many special tokens apply() inserts.
  std::size_t num_special_tokens(bool has_pair) const {
    std::size_t count = 0;
    for (const Item& item : has_pair ? pair_ : single_) count += item.special.size();
    return count;
  }

  // Lays out the template for `first` alone, or for both when second is not null; without special
  // tokens only the texts, in the template's order and with its type ids.
  Encoding apply(const TokenSequence& first, const TokenSequence* second,
                 bool add_special_tokens) const {
    Encoding encoding;
    for (const Item& item : second != nullptr ? pair_ : single_) {
      if (item.place != Place::special) {
        append(&encoding, item.place == Place::first ? first : *second, item);
      } else if (add_special_tokens) {
        encoding.ids.insert(encoding.ids.end(), item.special.begin(), item.special.end());
        encoding.special_mask.resize(encoding.ids.size(), 1);
        encoding.type_ids.resize(encoding.ids.size(), item.type_id);
      }
    }
    return encoding;
  }

  // The two templates, for example "[0] A [2] / [0] A [2] [2] B [2]" with ids in brackets.
  std::string describe() const { return describe(single_) + " / " + describe(pair_); }

 private:
  enum class Place : std::uint8_t { first, second, special };
  struct Item {
    Place place = Place::special;
    TokenId type_id = 0;
    std::vector<TokenId> special = {};  // the ids of a special token
  };
  using Template = std::vector<Item>;

  static Item text(TokenId type_id) { return {Place::first, type_id}; }
  static Item pair(TokenId type_id) { return {Place::second, type_id}; }
  static Item special(TokenId id, TokenId type_id) { return {Place::special, type_id, {id}}; }

  static JsonValue field(JsonValue object, std::string_view name) {
    return required_field(object.as_object("post_processor"), name, "post_processor");
  }

  // cls A sep, and B sep of type 1 for the pair.
  static PostProcessor from_bert(JsonValue value, std::size_t vocab_size) {
    const TokenId cls = named_token(value, "cls", vocab_size);
    const TokenId sep = named_token(value, "sep", vocab_size);
    PostProcessor result;
    result.single_ = {special(cls, 0), text(0), special(sep, 0)};
    result.pair_ = {special(cls, 0), text(0), special(sep, 0), pair(1), special(sep, 1)};
    return result;
  }

  // cls A sep, and sep B sep for the pair; every type id is 0.
  static PostProcessor from_roberta(JsonValue value, std::size_t vocab_size) {
    const TokenId cls = named_token(value, "cls", vocab_size);
    const TokenId sep = named_token(value, "sep", vocab_size);
    PostProcessor result;
    result.single_ = {special(cls, 0), text(0), special(sep, 0)};
    result.pair_ = {special(cls, 0), text(0), special(sep, 0),
                    special(sep, 0), pair(0), special(sep, 0)};
    return result;
  }

  // A [content, id] list; the id counts.
  static TokenId named_token(JsonValue value, std::string_view name, std::size_t vocab_size) {
    const JsonValue token = field(value, name).as_array(name);
    check(token.size() == 2, ErrorClass::schema, value.source(), ": post_processor: ", name,
          " has ", token.size(), " elements, expected a token and its id");
    auto element = token.begin();
    (*element).as_string(name);
    ++element;
    return read_token_id(*element, "post_processor token id", vocab_size);
  }

  static PostProcessor from_template(JsonValue value, std::size_t vocab_size) {
    PostProcessor result;
    const JsonValue special_tokens = field(value, "special_tokens").as_object("special_tokens");
    for (const JsonValue token : special_tokens) read_special_ids(token, vocab_size);
    result.single_ = read_template(field(value, "single"), special_tokens, vocab_size);
    result.pair_ = read_template(field(value, "pair"), special_tokens, vocab_size);
    const auto texts = [](const Template& items) {
      std::array<std::size_t, 3> count{};
      for (const Item& item : items) ++count[static_cast<std::size_t>(item.place)];
      return std::pair(count[0], count[1]);
    };
    check(texts(result.single_) == std::pair(std::size_t{1}, std::size_t{0}), ErrorClass::tokenizer,
          value.source(), ": post_processor: the template for a single text needs A once and no B");
    check(texts(result.pair_) == std::pair(std::size_t{1}, std::size_t{1}), ErrorClass::tokenizer,
          value.source(), ": post_processor: the template for a pair needs A and B once each");
    return result;
  }

  static std::vector<TokenId> read_special_ids(JsonValue token, std::size_t vocab_size) {
    std::vector<TokenId> ids;
    for (const JsonValue id : field(token, "ids").as_array("ids")) {
      ids.push_back(read_token_id(id, "template token id", vocab_size));
    }
    return ids;
  }

  static Template read_template(JsonValue list, JsonValue special_tokens, std::size_t vocab_size) {
    Template items;
    std::size_t num_special = 0;
    for (const JsonValue entry : list.as_array("template")) {
      check(entry.is_object() && entry.size() == 1, ErrorClass::schema, list.source(),
            ": template item is ", entry.describe(), ", expected one Sequence or SpecialToken");
      const JsonValue content = *entry.begin();
      const std::string_view id = field(content, "id").as_string("id");
      Item item;
      item.type_id = read_token_id(field(content, "type_id"), "type_id", kMaxVocabulary);
      if (content.key() == "Sequence") {
        check(id == "A" || id == "B", ErrorClass::schema, list.source(),
              ": template names sequence ", quote(id), ", expected A or B");
        item.place = id == "A" ? Place::first : Place::second;
      } else {
        check(content.key() == "SpecialToken", ErrorClass::schema, list.source(),
              ": template item ", quote(content.key()), ", expected Sequence or SpecialToken");
        const auto token = special_tokens.find(id);
        check(bool{token}, ErrorClass::tokenizer, list.source(), ": template token ", quote(id),
              " is not among special_tokens");
        item.special = read_special_ids(*token, vocab_size);
        num_special += item.special.size();
        check(num_special <= kMaxSpecialTokens, ErrorClass::limit, list.source(),
              ": a template inserts more than ", kMaxSpecialTokens, " special tokens");
      }
      items.push_back(std::move(item));
    }
    return items;
  }

  static void append(Encoding* encoding, const TokenSequence& sequence, const Item& item) {
    const std::size_t offset = encoding->ids.size();
    encoding->ids.insert(encoding->ids.end(), sequence.ids.begin(), sequence.ids.end());
    encoding->special_mask.resize(encoding->ids.size(), 0);
    encoding->type_ids.resize(encoding->ids.size(), item.type_id);
    for (AddedTokenMatch match : sequence.matches) {
      match.index += offset;
      match.sequence = item.place == Place::first ? 0 : 1;
      encoding->matches.push_back(match);
    }
  }

  static std::string describe(const Template& items) {
    std::string line;
    for (const Item& item : items) {
      if (!line.empty()) line += ' ';
      if (item.place != Place::special) {
        line += item.place == Place::first ? 'A' : 'B';
        continue;
      }
      line += '[';
      for (const TokenId id : item.special) {
        if (line.back() != '[') line += ' ';
        line += std::to_string(id);
      }
      line += ']';
    }
    return line;
  }

  Template single_;
  Template pair_;
};

}  // namespace terse
