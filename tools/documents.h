// Documents, corpora and queries: a text a line, or JSON Lines with title, text and an id.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "command.h"
#include "json_lines.h"
#include "line_reader.h"
#include "terse/error.h"
#include "terse/evaluate/corpus.h"

namespace terse_tools {

enum class DocumentFormat { automatic, text, jsonl };
inline constexpr Choice<DocumentFormat> kDocumentFormats[] = {{"auto", DocumentFormat::automatic},
                                                              {"text", DocumentFormat::text},
                                                              {"jsonl", DocumentFormat::jsonl}};

// A document or query, or what is wrong with its line.
struct Document {
  std::string id;  // JSON: id or _id of the line, else the line's number
  std::string text = {};
  std::optional<terse::Error> error = {};
};

// The document of a line of JSON. Never throws Error.
inline Document read_json_document(const Line& line, const std::string& name) {
  static constexpr std::string_view kIds[] = {"_id", "id"};
  LineObject object = read_object(line, name, kIds);
  Document document{std::move(object.id), {}, std::move(object.error)};
  if (document.error) return document;
  try {
    const terse::JsonValue root = object.document->root();
    document.text = required_text(root, "text");
    if (const auto title = optional_member(root, "title")) {
      document.text = terse::join_title(title->as_string("title"), document.text);
    }
  } catch (const terse::Error& error) {
    document.error = error;
  }
  return document;
}

// Calls visit(Document&&) for every line that is not blank. automatic: JSON if the first of them
// starts with a brace. Throws Error: io, cancelled.
template <class Visit>
void for_each_document(LineReader& reader, DocumentFormat format, Visit&& visit) {
  while (const auto line = reader.next()) {
    if (!line->too_long && is_blank(line->text)) continue;
    if (format == DocumentFormat::automatic) {
      const std::size_t first = line->text.find_first_not_of(" \t");
      const bool brace = first != std::string_view::npos && line->text[first] == '{';
      format = brace ? DocumentFormat::jsonl : DocumentFormat::text;
    }
    if (format == DocumentFormat::jsonl) {
      visit(read_json_document(*line, reader.name()));
      continue;
    }
    Document document{std::to_string(line->number)};
    try {
      document.text = plain_text(*line, reader.name());
    } catch (const terse::Error& error) {
      document.error = error;
    }
    visit(std::move(document));
  }
}

// All documents of a file that must be without fault. Throws Error of the first bad line.
inline std::vector<Document> read_sound_documents(const std::string& path) {
  LineReader reader(path);
  std::vector<Document> documents;
  for_each_document(reader, DocumentFormat::automatic, [&](Document&& document) {
    if (document.error) throw *document.error;
    documents.push_back(std::move(document));
  });
  return documents;
}

}  // namespace terse_tools
