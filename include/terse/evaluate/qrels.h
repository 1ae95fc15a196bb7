// Relevance judgements, in the three forms they come in:
//   TREC            qid 0 docid grade                          columns between blanks or tabs
//   BEIR            query-id TAB corpus-id TAB score           with or without this line of names
//   FlagEmbedding   {"qid": ..., "docid": ..., "relevance": ...}   JSON Lines
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "terse/error.h"
#include "terse/evaluate/corpus.h"
#include "terse/evaluate/lines.h"
#include "terse/evaluate/text_map.h"
#include "terse/json.h"

namespace terse {

// Grades by document id. A grade above 0 means relevant; one of 0 or less, like none, not relevant.
using Grades = TextMap<std::int64_t>;

// The judgements of each query, queries in the order in which they first appear.
class Qrels {
 public:
  static constexpr std::int64_t kMaxGrade = 1'000'000'000;

  // False if the document is judged already.
  bool add(std::string_view query, std::string_view document, std::int64_t grade) {
    auto at = grades_.find(query);
    if (at == grades_.end()) {
      at = grades_.emplace(std::string(query), Grades{}).first;
      queries_.emplace_back(query);
    }
    return at->second.emplace(std::string(document), grade).second;
  }

  const std::vector<std::string>& queries() const { return queries_; }
  // Nothing for a query without judgements.
  const Grades* find(std::string_view query) const {
    const auto at = grades_.find(query);
    return at == grades_.end() ? nullptr : &at->second;
  }

 private:
  std::vector<std::string> queries_;
  TextMap<Grades> grades_;
};

namespace detail {

enum class QrelsForm { trec, beir, jsonl };

struct QrelsLine {
  std::string query;
  std::string document;
  std::int64_t grade = 0;
};

inline bool is_beir_heading(std::string_view text) {
  std::string_view columns[3];
  return split_columns(text, columns) == 3 && columns[0] == "query-id" &&
         columns[1] == "corpus-id" && columns[2] == "score";
}

inline QrelsForm qrels_form(std::string_view first_line) {
  if (first_line[first_line.find_first_not_of(" \t")] == '{') return QrelsForm::jsonl;
  std::string_view columns[4];
  return split_columns(first_line, columns) == 4 ? QrelsForm::trec : QrelsForm::beir;
}

inline std::int64_t parse_grade(std::string_view text, const TextLines& lines) {
  if (text.starts_with('+')) text.remove_prefix(1);
  std::int64_t grade = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), grade);
  const bool fits = error == std::errc() && end == text.data() + text.size();
  if (!fits || grade > Qrels::kMaxGrade || grade < -Qrels::kMaxGrade) {
    fail(ErrorClass::schema, lines.where(), ": grade is ", quote(text),
         ", expected an integer from -", Qrels::kMaxGrade, " to ", Qrels::kMaxGrade);
  }
  return grade;
}

inline QrelsLine read_trec_judgement(const TextLines& lines) {
  std::string_view columns[4];
  const std::size_t count = split_columns(lines.text(), columns);
  if (count != 4) {
    fail(ErrorClass::schema, lines.where(), ": ", count, " columns, expected 4: qid 0 docid grade");
  }
  return {std::string(columns[0]), std::string(columns[2]), parse_grade(columns[3], lines)};
}

// Columns between tabs, so that ids may hold blanks.
inline QrelsLine read_beir_judgement(const TextLines& lines) {
  const std::string_view text = lines.text();
  const std::size_t first = text.find('\t');
  const std::size_t second = text.find('\t', first + 1);
  const bool three = first != std::string_view::npos && second != std::string_view::npos &&
                     text.find('\t', second + 1) == std::string_view::npos;
  if (!three || first == 0 || second == first + 1) {
    fail(ErrorClass::schema, lines.where(),
         ": expected qid 0 docid grade, or three columns between tabs: query-id corpus-id score");
  }
  return {std::string(text.substr(0, first)),
          std::string(text.substr(first + 1, second - first - 1)),
          parse_grade(text.substr(second + 1), lines)};
}

inline QrelsLine read_json_judgement(const TextLines& lines) {
  const JsonDocument document = parse_json_line(lines.text(), lines.where());
  const JsonValue root = document.root().as_object("the line");
  const JsonValue grade = member_called(root, {"relevance", "score"});
  return {id_text(member_called(root, {"qid", "query-id", "query_id"})),
          id_text(member_called(root, {"docid", "corpus-id", "corpus_id"})),
          grade.as_integer(grade.key(), -Qrels::kMaxGrade, Qrels::kMaxGrade)};
}

inline QrelsLine read_judgement(QrelsForm form, const TextLines& lines) {
  switch (form) {
    case QrelsForm::trec:
      return read_trec_judgement(lines);
    case QrelsForm::beir:
      return read_beir_judgement(lines);
    default:
      return read_json_judgement(lines);
  }
}

}  // namespace detail

// Judgements in whichever form the first line has. Throws Error naming file and line: io, schema (a
// line of another form, a grade that is no integer), duplicate (a document judged twice for one
// query), missing (no judgement at all), and for JSON Lines: json, utf8, range.
inline Qrels read_qrels(TextLines& lines) {
  Qrels qrels;
  bool more = lines.next();
  if (more && detail::is_beir_heading(lines.text())) more = lines.next();
  check(more, ErrorClass::missing, lines.name(), ": holds no judgement");
  const detail::QrelsForm form = detail::qrels_form(lines.text());
  for (; more; more = lines.next()) {
    const detail::QrelsLine line = detail::read_judgement(form, lines);
    if (!qrels.add(line.query, line.document, line.grade)) {
      fail(ErrorClass::duplicate, lines.where(), ": document ", quote(line.document),
           " judged again for query ", quote(line.query));
    }
  }
  return qrels;
}

}  // namespace terse
