// JSON Lines: one bounded object a line in, one object a line out. Numbers are written and read
// the same in every locale.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "line_reader.h"
#include "terse/error.h"
#include "terse/json.h"

namespace terse_tools {

// value with 9 significant digits, which give a float back exactly.
template <class Float>
void append_number(std::string& out, Float value) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), static_cast<double>(value),
                                 std::chars_format::general, 9);
  out.append(digits, end.ptr);
}

inline std::string number_text(double value) {
  std::string text;
  append_number(text, value);
  return text;
}

// JSON text with the characters that many readers take for line ends (U+0085, U+2028, U+2029; they
// can only stand inside strings) escaped, so that a line stays a line.
inline std::string escape_line_ends(std::string_view json) {
  static constexpr std::pair<std::string_view, std::string_view> kLineEnds[] = {
      {"\xC2\x85", "\\u0085"}, {"\xE2\x80\xA8", "\\u2028"}, {"\xE2\x80\xA9", "\\u2029"}};
  std::string out;
  while (true) {
    const std::size_t plain = std::min(json.find_first_of("\xC2\xE2"), json.size());
    out += json.substr(0, plain);
    json.remove_prefix(plain);
    if (json.empty()) return out;
    const auto end = std::find_if(std::begin(kLineEnds), std::end(kLineEnds),
                                  [&](const auto& entry) { return json.starts_with(entry.first); });
    const bool found = end != std::end(kLineEnds);
    out += found ? end->second : json.substr(0, 1);
    json.remove_prefix(found ? end->first.size() : 1);
  }
}

// text as a JSON string; what is not valid UTF-8 becomes U+FFFD.
inline std::string json_string(std::string_view text) {
  return escape_line_ends(
      nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

inline std::string json_list(std::span<const float> values) {
  std::string out = "[";
  for (const float value : values) {
    if (out.size() > 1) out += ", ";
    append_number(out, value);
  }
  return out + "]";
}

template <class Integer>
std::string json_integers(std::span<const Integer> values) {
  std::string out = "[";
  for (const Integer value : values) {
    if (out.size() > 1) out += ", ";
    out += std::to_string(value);
  }
  return out + "]";
}

// An object being written, its members in the order they are added.
class Record {
 public:
  using Member = std::pair<std::string, std::string>;  // name, value as JSON

  Record& add(std::string_view name, std::string json) {
    members_.emplace_back(name, std::move(json));
    return *this;
  }
  Record& add_text(std::string_view name, std::string_view text) {
    return add(name, json_string(text));
  }
  Record& add_number(std::string_view name, double value) { return add(name, number_text(value)); }
  Record& add_integer(std::string_view name, std::int64_t value) {
    return add(name, std::to_string(value));
  }
  Record& add_boolean(std::string_view name, bool value) {
    return add(name, value ? "true" : "false");
  }
  Record& add_error(const terse::Error& error) {
    return add("error", Record()
                            .add_text("class", terse::error_class_name(error.error_class()))
                            .add_text("message", error.message())
                            .json());
  }

  const std::vector<Member>& members() const { return members_; }

  std::string json() const {
    std::string out = "{";
    for (const auto& [name, value] : members_) {
      if (out.size() > 1) out += ", ";
      out += json_string(name) + ": " + value;
    }
    return out + "}";
  }

 private:
  std::vector<Member> members_;
};

// The text of the value of the index-th member of `object`, which must be a well-formed object.
// For echoing it byte for byte: a parsed number may have lost digits.
inline std::string_view member_text(std::string_view object, std::size_t index) {
  std::size_t depth = 0;
  std::size_t member = 0;
  std::size_t begin = 0;
  std::size_t end = object.size();
  bool in_string = false;
  for (std::size_t i = 0; i < end; ++i) {
    const char c = object[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (--depth == 0) end = i;
    } else if (depth == 1 && c == ':' && member == index && begin == 0) {
      begin = i + 1;
    } else if (depth == 1 && c == ',' && member++ == index) {
      end = i;
    }
  }
  const std::string_view value = object.substr(begin, end - begin);
  const std::size_t first = value.find_first_not_of(" \t\r\n");
  return value.substr(first, value.find_last_not_of(" \t\r\n") + 1 - first);
}

// A line of input as a JSON object, or what is wrong with it.
struct LineObject {
  std::string id;  // JSON: as on the line, or the line's number
  std::optional<terse::JsonDocument> document;
  std::optional<terse::Error> error;
};

// "standard input:17", for messages; counted from 1, as editors do.
inline std::string line_source(const std::string& name, const Line& line) {
  return name + ":" + std::to_string(line.number + 1);
}

// Reads a line as an object whose identity is the member called one of id_names (the first that is
// there). Never throws Error: limit, utf8, json, duplicate, range and schema are kept in the
// result.
inline LineObject read_object(const Line& line, const std::string& name,
                              std::span<const std::string_view> id_names) {
  LineObject result;
  result.id = std::to_string(line.number);
  try {
    const std::string source = line_source(name, line);
    terse::check(!line.too_long, terse::ErrorClass::limit, source, ": a line of more than ",
                 LineReader::kMaxLineBytes, " bytes");
    const terse::JsonLimits limits{.max_bytes = LineReader::kMaxLineBytes, .max_depth = 32};
    auto document = terse::JsonDocument::parse(line.text, limits, source);
    const terse::JsonValue root = document.root().as_object("the line");
    std::size_t index = 0;
    std::size_t best = id_names.size();
    for (const terse::JsonValue member : root) {
      for (std::size_t k = 0; k < best; ++k) {
        if (member.key() != id_names[k]) continue;
        result.id = escape_line_ends(member_text(line.text, index));
        best = k;
      }
      ++index;
    }
    result.document = std::move(document);
  } catch (const terse::Error& error) {
    result.error = error;
  }
  return result;
}

inline LineObject read_object(const Line& line, const std::string& name) {
  static constexpr std::string_view kId[] = {"id"};
  return read_object(line, name, kId);
}

// The member called name. Throws Error(missing).
inline terse::JsonValue required_member(terse::JsonValue object, std::string_view name) {
  const auto member = object.find(name);
  terse::check(member.found, terse::ErrorClass::missing, object.source(), ": ", name,
               " is missing");
  return *member;
}

// The string member called name. Throws Error: missing, schema.
inline std::string required_text(terse::JsonValue object, std::string_view name) {
  return std::string(required_member(object, name).as_string(name));
}

// The member called name if it is there and not null.
inline std::optional<terse::JsonValue> optional_member(terse::JsonValue object,
                                                       std::string_view name) {
  const auto member = object.find(name);
  if (!member || member->is_null()) return std::nullopt;
  return *member;
}

// Whether a line holds nothing but white space.
inline bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r") == std::string_view::npos;
}

// A line of plain text without the carriage return that a file from Windows has before its newline.
// Throws Error(limit) for an over-long line.
inline std::string plain_text(const Line& line, const std::string& name) {
  terse::check(!line.too_long, terse::ErrorClass::limit, line_source(name, line),
               ": a line of more than ", LineReader::kMaxLineBytes, " bytes");
  std::string_view text = line.text;
  if (text.ends_with('\r')) text.remove_suffix(1);
  return std::string(text);
}

}  // namespace terse_tools
