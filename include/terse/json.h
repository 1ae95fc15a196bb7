// Bounded reading of config.json, tokenizer.json, shard indexes and safetensors headers.
//
// nlohmann/json reads the text token by token; what it finds is laid out here as one flat array of
// nodes and one string of characters, because a 17 MB tokenizer.json holds half a million values
// and a tree of separately allocated ones takes longer to build than to parse. Refused besides
// malformed text: a byte order mark, invalid UTF-8, a name given twice in one object, nesting
// deeper than the limit. Only nlohmann's lexer is included: its class json, which nothing here
// needs, would add a fifth to the time that a file takes to compile.
#pragma once

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/detail/input/lexer.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/utf8.h"

namespace terse {

struct JsonLimits {
  std::size_t max_bytes = std::size_t{4} << 20;
  std::size_t max_depth = 64;
};

enum class JsonType : std::uint8_t {
  null,
  boolean,
  integer,   // an integer literal that fits int64 or uint64
  big,       // an integer literal that fits neither
  floating,  // a literal with fraction or exponent; always finite
  string,
  array,
  object
};

inline const char* json_type_name(JsonType type) {
  static constexpr const char* kNames[] = {"null",     "a boolean", "an integer", "a huge integer",
                                           "a number", "a string",  "a list",     "an object"};
  return kNames[static_cast<std::size_t>(type)];
}

// value in the fewest digits that give it back.
inline std::string json_number(double value) {
  char digits[32];
  return {digits, std::to_chars(digits, digits + sizeof(digits), value).ptr};
}

// text, which must be valid UTF-8, as a JSON string with its quotes.
inline std::string json_string(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  static constexpr std::string_view kEscaped = "\"\\\b\f\n\r\t";
  static constexpr std::string_view kEscapes = "\"\\bfnrt";
  std::string out = "\"";
  for (const char c : text) {
    const std::size_t escape = kEscaped.find(c);
    if (escape != std::string_view::npos) {
      out += '\\';
      out += kEscapes[escape];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[c & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

class JsonValue;

// A parsed document. Cheap to move; JsonValue handles point into it and must not outlive it.
class JsonDocument {
 public:
  // Parses text, which must be one JSON value and white space. `source` (a file name) leads every
  // message. Throws Error: limit (size, depth), utf8, json, duplicate, range (a number that is not
  // finite as a double).
  static JsonDocument parse(std::string_view text, const JsonLimits& limits,
                            std::string_view source);

  JsonValue root() const;
  const std::string& source() const { return source_; }

 private:
  friend class JsonValue;
  friend class JsonReader;

  struct Text {
    std::uint64_t begin = 0;
    std::uint32_t size = 0;
  };

  // Children of a container follow it directly; `end` is the index behind its last descendant.
  struct Node {
    JsonType type = JsonType::null;
    bool negative = false;
    std::uint32_t size = 0;  // children of a container, bytes of a string
    std::uint32_t end = 0;
    Text key;
    union {
      std::uint64_t integer;  // two's complement when negative
      double number;
      std::uint64_t begin;  // of a string
    };
    Node() : integer(0) {}
  };

  std::string_view text(std::uint64_t begin, std::size_t size) const {
    return std::string_view(characters_).substr(begin, size);
  }

  std::string source_;
  std::string characters_;
  std::vector<Node> nodes_;
};

// A value inside a JsonDocument. The accessors named as_* throw Error(schema) that names the
// source, the path of the value as far as the caller gave it, what was found and what was expected.
class JsonValue {
 public:
  JsonType type() const { return node().type; }
  bool is_null() const { return type() == JsonType::null; }
  bool is_boolean() const { return type() == JsonType::boolean; }
  bool is_string() const { return type() == JsonType::string; }
  bool is_array() const { return type() == JsonType::array; }
  bool is_object() const { return type() == JsonType::object; }
  // An integer literal, however large.
  bool is_integer() const { return type() == JsonType::integer || type() == JsonType::big; }
  bool is_number() const { return is_integer() || type() == JsonType::floating; }

  const std::string& source() const { return document_->source_; }

  // Number of elements or members; 0 for anything but containers.
  std::size_t size() const { return is_array() || is_object() ? node().size : 0; }

  // The member named key, or nothing. Linear in the number of members: for maps with many members
  // iterate instead.
  struct Maybe;
  Maybe find(std::string_view key) const;

  // Iteration over elements or members, in file order.
  class Iterator {
   public:
    Iterator(const JsonDocument* document, std::uint32_t index)
        : document_(document), index_(index) {}
    JsonValue operator*() const { return JsonValue(document_, index_); }
    Iterator& operator++() {
      index_ = document_->nodes_[index_].end;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return index_ != other.index_; }

   private:
    const JsonDocument* document_;
    std::uint32_t index_;
  };
  Iterator begin() const { return {document_, is_container() ? index_ + 1 : node().end}; }
  Iterator end() const { return {document_, node().end}; }

  // The name of this value in its object; empty for elements of a list and for the root.
  std::string_view key() const { return document_->text(node().key.begin, node().key.size); }

  bool as_boolean(std::string_view what) const {
    require(is_boolean(), what, "a boolean");
    return node().integer != 0;
  }
  std::string_view as_string(std::string_view what) const {
    require(is_string(), what, "a string");
    return document_->text(node().begin, node().size);
  }
  // Any number, rounded to double.
  double as_number(std::string_view what) const {
    require(is_number(), what, "a number");
    if (type() == JsonType::integer) {
      return node().negative ? static_cast<double>(static_cast<std::int64_t>(node().integer))
                             : static_cast<double>(node().integer);
    }
    return node().number;
  }
  // An integer literal inside [min, max]; Error(schema) for another kind, Error(range) outside.
  std::int64_t as_integer(std::string_view what, std::int64_t min, std::int64_t max) const {
    require(is_integer(), what, "an integer");
    const bool fits = type() == JsonType::integer &&
                      (node().negative || node().integer <= std::uint64_t{1} << 62);
    const auto value = static_cast<std::int64_t>(node().integer);
    check(fits && value >= min && value <= max, ErrorClass::range, source(), ": ", what, " is ",
          describe(), ", expected ", min, " to ", max);
    return value;
  }
  // An unsigned 64-bit integer literal, or nothing for any other value.
  bool get_unsigned(std::uint64_t* value) const {
    if (type() != JsonType::integer || node().negative) return false;
    *value = node().integer;
    return true;
  }
  JsonValue as_array(std::string_view what) const {
    require(is_array(), what, "a list");
    return *this;
  }
  JsonValue as_object(std::string_view what) const {
    require(is_object(), what, "an object");
    return *this;
  }

  // What this value is, for a message: the number, the quoted string, or the kind.
  std::string describe() const {
    switch (type()) {
      case JsonType::boolean:
        return node().integer != 0 ? "true" : "false";
      case JsonType::integer:
        return node().negative ? std::to_string(static_cast<std::int64_t>(node().integer))
                               : std::to_string(node().integer);
      case JsonType::floating:
        return json_number(node().number);
      case JsonType::string:
        return quote(document_->text(node().begin, node().size));
      default:
        return json_type_name(type());
    }
  }

 private:
  friend class JsonDocument;

  JsonValue(const JsonDocument* document, std::uint32_t index)
      : document_(document), index_(index) {}
  const JsonDocument::Node& node() const { return document_->nodes_[index_]; }
  bool is_container() const { return is_array() || is_object(); }
  void require(bool ok, std::string_view what, std::string_view expected) const {
    // Not check(): describe() would build its string for every good value too.
    if (!ok) [[unlikely]] {
      fail(ErrorClass::schema, source(), ": ", what, " is ", describe(), ", expected ", expected);
    }
  }

  const JsonDocument* document_;
  std::uint32_t index_;
};

// An optional JsonValue: `if (const auto member = object.find("name")) member->as_string(...)`.
struct JsonValue::Maybe {
  JsonValue value;
  bool found;
  explicit operator bool() const { return found; }
  const JsonValue& operator*() const { return value; }
  const JsonValue* operator->() const { return &value; }
};

inline JsonValue::Maybe JsonValue::find(std::string_view name) const {
  if (is_object()) {
    for (const JsonValue member : *this) {
      if (member.key() == name) return {member, true};
    }
  }
  return {*this, false};
}

inline JsonValue JsonDocument::root() const { return {this, 0}; }

// Puts the tokens of a text into a document, the nesting on a stack of its own. Throws where the
// text is refused.
class JsonReader {
 public:
  // text: valid UTF-8 without NUL, which the lexer would take for its end.
  JsonReader(JsonDocument& document, std::string_view text, const JsonLimits& limits)
      : document_(document),
        text_(text),
        limits_(limits),
        lexer_(nlohmann::detail::input_adapter(text.data(), text.data() + text.size())) {}

  void read() {
    advance();
    do {
      read_value();
    } while (!after_value());
    if (token_ != Token::end_of_input) malformed("the end of the text");
  }

 private:
  // The types that the lexer's numbers and strings have.
  struct Types {
    using number_integer_t = std::int64_t;
    using number_unsigned_t = std::uint64_t;
    using number_float_t = double;
    using string_t = std::string;
  };
  using Adapter = decltype(nlohmann::detail::input_adapter(std::declval<const char*>(),
                                                           std::declval<const char*>()));
  using Lexer = nlohmann::detail::lexer<Types, Adapter>;
  using Token = Lexer::token_type;

  void advance() { token_ = lexer_.scan(); }

  // A scalar, or the start of a container up to its first value; of an empty one, up to its end.
  void read_value() {
    while (true) {
      switch (token_) {
        case Token::begin_object:
          start(JsonType::object);
          if (token_ == Token::end_object) return;
          read_key();
          continue;
        case Token::begin_array:
          start(JsonType::array);
          if (token_ == Token::end_array) return;
          continue;
        case Token::value_string: {
          const JsonDocument::Text value = store(lexer_.get_string());
          auto& node = add(JsonType::string);
          node.begin = value.begin;
          node.size = value.size;
          break;
        }
        case Token::literal_true:
          add(JsonType::boolean).integer = 1;
          break;
        case Token::literal_false:
          add(JsonType::boolean);
          break;
        case Token::literal_null:
          add(JsonType::null);
          break;
        case Token::value_unsigned:
          add(JsonType::integer).integer = lexer_.get_number_unsigned();
          break;
        case Token::value_integer: {
          auto& node = add(JsonType::integer);
          node.integer = static_cast<std::uint64_t>(lexer_.get_number_integer());
          node.negative = lexer_.get_number_integer() < 0;
          break;
        }
        case Token::value_float:
          add_double(lexer_.get_number_float());
          break;
        default:
          malformed("a value");
      }
      advance();
      return;
    }
  }

  // Closes the containers that end here and takes the comma before the next value; true when the
  // outermost value is whole.
  bool after_value() {
    while (!open_.empty()) {
      const bool object = document_.nodes_[open_.back()].type == JsonType::object;
      const bool empty = document_.nodes_.size() == open_.back() + 1;
      if (token_ == Token::value_separator && !empty) {
        advance();
        if (object) read_key();
        return false;
      }
      if (token_ != (object ? Token::end_object : Token::end_array)) {
        malformed(object ? "',' or '}'" : "',' or ']'");
      }
      if (object) refuse_duplicates(open_.back());
      document_.nodes_[open_.back()].end = static_cast<std::uint32_t>(document_.nodes_.size());
      open_.pop_back();
      advance();
    }
    return true;
  }

  void read_key() {
    if (token_ != Token::value_string) malformed("a name in quotes");
    key_ = store(lexer_.get_string());
    advance();
    if (token_ != Token::name_separator) malformed("':'");
    advance();
  }

  JsonDocument::Text store(std::string_view text) {
    const JsonDocument::Text stored{document_.characters_.size(),
                                    static_cast<std::uint32_t>(text.size())};
    document_.characters_ += text;
    return stored;
  }

  JsonDocument::Node& add(JsonType type) {
    auto& node = document_.nodes_.emplace_back();
    node.type = type;
    node.key = key_;
    key_ = {};
    node.end = static_cast<std::uint32_t>(document_.nodes_.size());
    if (!open_.empty()) ++document_.nodes_[open_.back()].size;
    return node;
  }

  void add_double(double value) {
    check(std::isfinite(value), ErrorClass::range, document_.source_,
          ": a number is too large for a double");
    // An integer that fits neither 64-bit type is at least this large.
    const bool integral = std::abs(value) >= 0x1p63 && lexer_.get_token_string().find_first_not_of(
                                                           "-0123456789") == std::string::npos;
    auto& node = add(integral ? JsonType::big : JsonType::floating);
    node.number = value;
    node.negative = value < 0;
  }

  void start(JsonType type) {
    check(open_.size() < limits_.max_depth, ErrorClass::limit, document_.source_,
          ": nested deeper than ", limits_.max_depth, " levels");
    add(type);
    open_.push_back(static_cast<std::uint32_t>(document_.nodes_.size() - 1));
    advance();
  }

  void refuse_duplicates(std::uint32_t object) const {
    const auto& nodes = document_.nodes_;
    const std::size_t count = nodes[object].size;
    if (count < 2) return;
    std::vector<std::string_view> keys;
    keys.reserve(count);
    for (auto child = object + 1; child < nodes.size(); child = nodes[child].end) {
      keys.push_back(document_.text(nodes[child].key.begin, nodes[child].key.size));
    }
    // Open addressing at half load: a vocabulary has a quarter of a million names, and sorting them
    // would take longer than parsing.
    std::size_t slots = 4;
    while (slots < 2 * count) slots *= 2;
    std::vector<std::uint32_t> table(slots, 0);
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t slot = std::hash<std::string_view>{}(keys[i]) & (slots - 1);
      for (; table[slot] != 0; slot = (slot + 1) & (slots - 1)) {
        check(keys[table[slot] - 1] != keys[i], ErrorClass::duplicate, document_.source_, ": name ",
              quote(keys[i]), " given twice in one object");
      }
      table[slot] = static_cast<std::uint32_t>(i + 1);
    }
  }

  [[noreturn]] void malformed(std::string_view expected) const {
    std::string_view hint;
    if (text_.starts_with("version https://git-lfs")) {
      hint = " (a Git LFS pointer: fetch the real file with git lfs pull)";
    } else if (text_.starts_with("<!") || text_.starts_with("<html")) {
      hint = " (an HTML page: the download went wrong)";
    }
    // The lexer names the fault inside a token, which no message about what was expected could.
    const std::string fault =
        token_ == Token::parse_error
            ? std::string(lexer_.get_error_message()) + ", read " + quote(lexer_.get_token_string())
            : "found " + std::string(Lexer::token_type_name(token_));
    fail(ErrorClass::json, document_.source_, ": not well-formed JSON", hint, ": at byte ",
         lexer_.get_position().chars_read_total, " ", fault, ", expected ", expected);
  }

  JsonDocument& document_;
  std::string_view text_;
  const JsonLimits& limits_;
  Lexer lexer_;
  Token token_ = Token::uninitialized;
  std::vector<std::uint32_t> open_;  // containers around this place, the innermost last
  JsonDocument::Text key_;           // of the value that comes next
};

inline JsonDocument JsonDocument::parse(std::string_view text, const JsonLimits& limits,
                                        std::string_view source) {
  check(text.size() <= limits.max_bytes, ErrorClass::limit, source, ": ", text.size(),
        " bytes of JSON, at most ", limits.max_bytes, " are read");
  const std::size_t valid = utf8_valid_prefix(text);
  check(valid == text.size(), ErrorClass::utf8, source, ": invalid UTF-8 at byte ", valid);
  check(!text.starts_with("\xEF\xBB\xBF"), ErrorClass::json, source,
        ": starts with a byte order mark, expected a JSON value");
  // nlohmann's lexer takes a NUL for the end of the text and would ignore what follows it.
  const std::size_t nul = text.find('\0');
  check(nul == std::string_view::npos, ErrorClass::json, source, ": NUL at byte ", nul);

  JsonDocument document;
  document.source_ = source;
  document.nodes_.reserve(text.size() / 16);
  document.characters_.reserve(text.size() / 2);
  JsonReader(document, text, limits).read();
  return document;
}

}  // namespace terse
