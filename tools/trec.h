// TREC runs: "qid Q0 docid rank score tag" a line. Only the score orders a run; the rank column is
// ignored, as trec_eval does.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "command.h"
#include "json_lines.h"
#include "line_reader.h"
#include "terse/error.h"

namespace terse_tools {

struct RunEntry {
  std::string document;
  double score = 0;
};

struct RunQuery {
  std::string id;
  std::vector<RunEntry> entries;
};

// The columns of a line, between spaces and tabs.
inline std::vector<std::string_view> split_columns(std::string_view text) {
  std::vector<std::string_view> columns;
  while (true) {
    const std::size_t begin = text.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) return columns;
    text.remove_prefix(begin);
    const std::size_t end = std::min(text.find_first_of(" \t\r"), text.size());
    columns.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

// The queries of a run in the order in which they first appear, each with its documents by
// descending score, equal ones by descending id: trec_eval's order. Throws Error: io, schema (a
// line without six columns), range (a score that is no number), duplicate (a document twice).
inline std::vector<RunQuery> read_run(const std::string& path) {
  LineReader reader(path);
  std::vector<RunQuery> run;
  std::unordered_map<std::string, std::size_t> index;
  while (const auto line = reader.next()) {
    if (!line->too_long && is_blank(line->text)) continue;
    const std::string source = line_source(reader.name(), *line);
    const auto columns = split_columns(line->text);
    terse::check(columns.size() == 6, terse::ErrorClass::schema, source, ": ", columns.size(),
                 " columns, expected qid Q0 docid rank score tag");
    const auto score = parse_number<double>(columns[4], source + ": score");
    terse::check(!std::isnan(score), terse::ErrorClass::range, source, ": the score is NaN");
    const std::string query(columns[0]);
    const auto [at, added] = index.try_emplace(query, run.size());
    if (added) run.push_back({query, {}});
    run[at->second].entries.push_back({std::string(columns[2]), score});
  }
  for (RunQuery& query : run) {
    std::unordered_set<std::string_view> seen;
    for (const RunEntry& entry : query.entries) {
      terse::check(seen.insert(entry.document).second, terse::ErrorClass::duplicate, reader.name(),
                   ": document ", terse::quote(entry.document), " twice for query ",
                   terse::quote(query.id));
    }
    std::sort(query.entries.begin(), query.entries.end(), [](const auto& a, const auto& b) {
      return a.score != b.score ? a.score > b.score : a.document > b.document;
    });
  }
  return run;
}

// A line of a run. Throws Error(schema) for an id that is empty or holds white space.
inline std::string run_line(std::string_view query, std::string_view document, std::size_t rank,
                            double score, std::string_view tag) {
  for (const std::string_view column : {query, document, tag}) {
    terse::check(!column.empty() && column.find_first_of(" \t\r\n") == std::string_view::npos,
                 terse::ErrorClass::schema, "a TREC run cannot hold the name ",
                 terse::quote(column));
  }
  return std::string(query) + " Q0 " + std::string(document) + " " + std::to_string(rank) + " " +
         number_text(score) + " " + std::string(tag) + "\n";
}

}  // namespace terse_tools
