// TREC runs: "qid Q0 docid rank score tag" a line. Only the score orders a run; the rank column is
// ignored, as trec_eval does.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/evaluate/lines.h"

namespace terse {

struct RunEntry {
  std::string document;
  double score = 0;
  std::uint64_t line = 0;  // of the file it was read from, counted from 1; 0: of none
};

// A query and its documents, in the order of the file.
struct RunQuery {
  std::string id;
  std::vector<RunEntry> entries;
};

// Queries in the order in which they first appear.
using Run = std::vector<RunQuery>;

// trec_eval's order of a run: descending score, compared as float32; among equal scores descending
// document id, compared as bytes. Source: the NIST trec_eval distribution's behaviour, README.
inline bool trec_before(const RunEntry& a, const RunEntry& b) {
  const auto score_a = static_cast<float>(a.score);
  const auto score_b = static_cast<float>(b.score);
  return score_a != score_b ? score_a > score_b : a.document > b.document;
}

namespace detail {

// A score in decimal or scientific notation, "inf" and "nan" included; beyond the range of doubles
// it is infinite or 0. False if text is not all of a number.
inline bool parse_score(std::string_view text, double* score) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *score);
  if (error == std::errc::result_out_of_range) {
    const bool tiny =
        text.find("e-") != std::string_view::npos || text.find("E-") != std::string_view::npos;
    const double size = tiny ? 0 : std::numeric_limits<double>::infinity();
    *score = text.starts_with('-') ? -size : size;
  }
  return error != std::errc::invalid_argument && end == text.data() + text.size();
}

// Builds a Run line by line.
class RunBuilder {
 public:
  explicit RunBuilder(const TextLines& lines) : lines_(lines) {}

  void add(std::string_view query, std::string_view document, double score) {
    if (run_.empty() || run_[current_].id != query) {
      current_ = index_.try_emplace(std::string(query), run_.size()).first->second;
      if (current_ == run_.size()) {
        run_.push_back({std::string(query), {}});
      }
    }
    run_[current_].entries.push_back({std::string(document), score, lines_.number()});
  }

  // Throws Error: duplicate, missing (no line at all).
  Run finish() {
    check(!run_.empty(), ErrorClass::missing, lines_.name(), ": holds no line of a run");
    for (std::size_t query = 0; query < run_.size(); ++query) refuse_duplicates(query);
    return std::move(run_);
  }

 private:
  // Names the first line that repeats a document. Equal ids have equal hashes: only those are
  // compared as text.
  void refuse_duplicates(std::size_t query) const {
    const auto& [id, entries] = run_[query];
    std::vector<std::pair<std::size_t, std::size_t>> order;  // hash of the id, entry
    order.reserve(entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
      order.emplace_back(std::hash<std::string>{}(entries[i].document), i);
    }
    std::sort(order.begin(), order.end());
    std::pair<std::size_t, std::size_t> repeated = {entries.size(), 0};  // entry, the one before
    for (std::size_t i = 1; i < order.size(); ++i) {
      for (std::size_t j = i; j-- > 0 && order[j].first == order[i].first;) {
        if (entries[order[j].second].document != entries[order[i].second].document) continue;
        repeated = std::min(repeated, {order[i].second, order[j].second});
        break;  // one before is enough, and a thousand copies would be compared pair by pair
      }
    }
    if (repeated.first == entries.size()) return;
    const RunEntry& again = entries[repeated.first];
    fail(ErrorClass::duplicate, lines_.where(again.line), ": document ", quote(again.document),
         " given again for query ", quote(id), ", first on line ", entries[repeated.second].line);
  }

  const TextLines& lines_;
  Run run_;
  std::unordered_map<std::string, std::size_t> index_;
  std::size_t current_ = 0;
};

}  // namespace detail

// Throws Error naming file and line: io, schema (not six columns, a score that is no number),
// nonfinite (a NaN, which has no place in an order), duplicate (a document twice for one query),
// missing (no line at all).
inline Run read_run(TextLines& lines) {
  detail::RunBuilder builder(lines);
  std::string_view columns[6];
  while (lines.next()) {
    const std::size_t count = split_columns(lines.text(), columns);
    if (count != 6) {
      fail(ErrorClass::schema, lines.where(), ": ", count,
           " columns, expected 6: qid Q0 docid rank score tag");
    }
    double score = 0;
    if (!detail::parse_score(columns[4], &score)) {
      fail(ErrorClass::schema, lines.where(), ": score is ", quote(columns[4]),
           ", expected a number");
    }
    if (std::isnan(score)) {
      fail(ErrorClass::nonfinite, lines.where(), ": score is NaN, which cannot be ordered");
    }
    builder.add(columns[0], columns[2], score);
  }
  return builder.finish();
}

// A name that a line of a run can hold. Throws Error(schema) for one that is empty or holds white
// space.
inline void check_run_name(std::string_view name) {
  check(!name.empty() && name.find_first_of(" \t\r\n\v\f") == std::string_view::npos,
        ErrorClass::schema, "a TREC run cannot hold the name ", quote(name));
}

// A line of a run; the score with 9 significant digits, which give a float back exactly. Throws
// Error(schema) for a name that a run cannot hold.
inline std::string run_line(std::string_view query, std::string_view document, std::size_t rank,
                            double score, std::string_view tag) {
  for (const std::string_view name : {query, document, tag}) check_run_name(name);
  char digits[32];
  const auto end =
      std::to_chars(digits, digits + sizeof(digits), score, std::chars_format::general, 9);
  std::string line(query);
  line += " Q0 ";
  line += document;
  line += " " + std::to_string(rank) + " ";
  line.append(digits, end.ptr);
  line += ' ';
  line += tag;
  return line + "\n";
}

}  // namespace terse
