// Corpora and queries as JSON Lines, and reranking lists:
//   BEIR            {"_id": ..., "title": ..., "text": ...}          title may be absent
//   FlagEmbedding   {"id": ..., "title": ..., "text": ...}
//   MTEB lists      {"query": ..., "positive": [...], "negative": [...]}
// Ids may be strings or integers.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/evaluate/lines.h"
#include "terse/evaluate/text_map.h"
#include "terse/json.h"

namespace terse {

// A document or a query: what is indexed, embedded or scored is its text.
struct TextRecord {
  std::string id;
  std::string text;
};

// A query with passages that are relevant to it and passages that are not.
struct RerankingList {
  std::vector<std::string> queries;  // several wordings of one question, usually one
  std::vector<std::string> positives;
  std::vector<std::string> negatives;
};

// title and text as one, without white space at the ends. Source: BEIR's document encoders.
inline std::string join_title(std::string_view title, std::string_view text) {
  std::string joined(title);
  joined += ' ';
  joined += text;
  const std::size_t first = joined.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return {};
  return joined.substr(first, joined.find_last_not_of(" \t\r\n") + 1 - first);
}

namespace detail {

// A line as JSON. Throws Error: json, utf8, duplicate, limit, range.
inline JsonDocument parse_json_line(std::string_view text, std::string_view where) {
  const JsonLimits limits{.max_bytes = TextLines::kMaxLineBytes, .max_depth = 32};
  return JsonDocument::parse(text, limits, where);
}

// The first member that has one of the names. Throws Error(missing) naming the first of them.
inline JsonValue member_called(JsonValue object, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (const auto member = object.find(name)) return *member;
  }
  fail(ErrorClass::missing, object.source(), ": ", *names.begin(), " is missing");
}

// An id as text. Throws Error(schema) unless it is a string that is not empty, or an integer.
inline std::string id_text(JsonValue id) {
  if (id.type() == JsonType::integer) return id.describe();
  std::string text(id.as_string(id.key()));
  check(!text.empty(), ErrorClass::schema, id.source(), ": ", id.key(), " is empty");
  return text;
}

// A string, or a list of strings.
inline std::vector<std::string> texts_of(JsonValue value) {
  if (value.is_string()) return {std::string(value.as_string(value.key()))};
  std::vector<std::string> texts;
  for (const JsonValue text : value.as_array(value.key())) {
    texts.emplace_back(text.as_string(value.key()));
  }
  return texts;
}

}  // namespace detail

// The document or query of a line, which `where` names in messages. Throws Error: json, utf8,
// schema, missing (no id, no text).
inline TextRecord parse_text_record(std::string_view line, std::string_view where) {
  const JsonDocument document = detail::parse_json_line(line, where);
  const JsonValue root = document.root().as_object("the line");
  TextRecord record{detail::id_text(detail::member_called(root, {"_id", "id"})),
                    std::string(detail::member_called(root, {"text"}).as_string("text"))};
  const auto title = root.find("title");
  if (title && !title->is_null()) record.text = join_title(title->as_string("title"), record.text);
  return record;
}

// The reranking list of a line; FlagEmbedding's training files call the parts pos and neg. Throws
// Error: json, utf8, schema, missing.
inline RerankingList parse_reranking_list(std::string_view line, std::string_view where) {
  const JsonDocument document = detail::parse_json_line(line, where);
  const JsonValue root = document.root().as_object("the line");
  return {detail::texts_of(detail::member_called(root, {"query"})),
          detail::texts_of(detail::member_called(root, {"positive", "pos"})),
          detail::texts_of(detail::member_called(root, {"negative", "neg"}))};
}

// Calls visit(TextRecord&&) for every line. Throws what parse_text_record does, and what visit
// does.
template <class Visit>
void for_each_text(TextLines& lines, Visit&& visit) {
  while (lines.next()) visit(parse_text_record(lines.text(), lines.where()));
}

// All texts of a file that has each id once. Throws also Error: duplicate, missing (no line).
inline std::vector<TextRecord> read_texts(TextLines& lines) {
  std::vector<TextRecord> records;
  TextSet ids;
  for_each_text(lines, [&](TextRecord&& record) {
    check(ids.insert(record.id).second, ErrorClass::duplicate, lines.where(), ": id ",
          quote(record.id), " given again");
    records.push_back(std::move(record));
  });
  check(!records.empty(), ErrorClass::missing, lines.name(), ": holds no text");
  return records;
}

}  // namespace terse
