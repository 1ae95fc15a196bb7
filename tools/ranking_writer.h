// Rankings printed: one JSON line a document, a table with bars, tab-separated values, a TREC run.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "document_scorer.h"
#include "documents.h"
#include "table.h"
#include "terse/evaluate/run.h"

namespace terse_tools {

struct RankingOptions {
  Format format = Format::jsonl;
  std::size_t top_n = 0;  // 0: all
  bool with_text = true;
  bool with_query = false;    // several queries: say whose ranking it is
  std::string tag = "terse";  // last column of a TREC run
};

// Sorts scores best first, equal ones in their order, failed ones last.
inline void sort_scores(std::vector<DocumentScore>& scores) {
  std::stable_sort(scores.begin(), scores.end(), [](const auto& a, const auto& b) {
    if (a.error || b.error) return !a.error && b.error;
    return a.score > b.score;
  });
}

class RankingWriter {
 public:
  explicit RankingWriter(RankingOptions options)
      : options_(std::move(options)),
        rows_(options_.format, {{"query_id", 0, false},
                                {"rank", 0, true},
                                {"id", 0, false},
                                {"index", 0, true},
                                {"score", 0, true},
                                {"text", 0, false}}) {}

  // How many of the documents of a query are printed.
  std::size_t num_shown(std::size_t ranked) const {
    return options_.top_n == 0 ? ranked : std::min(options_.top_n, ranked);
  }

  // The lines to print for one query: `scores` as sort_scores leaves them, their documents looked
  // up in `documents`. Failed documents come after the ranked ones.
  std::string text(const Document& query, std::span<const DocumentScore> scores,
                   std::span<const Document> documents) {
    const auto failed = std::find_if(scores.begin(), scores.end(),
                                     [](const DocumentScore& score) { return bool(score.error); });
    const auto ranked = scores.first(static_cast<std::size_t>(failed - scores.begin()));
    const std::size_t shown = num_shown(ranked.size());
    std::string lines;
    if (options_.format == Format::table && options_.with_query) {
      lines = fit(plain_value(query.id) + ": " + query.text, terminal_width()) + "\n";
    }
    for (std::size_t rank = 0; rank < shown; ++rank) {
      lines += ranked_text(query, rank + 1, ranked[rank], ranked, documents[ranked[rank].document]);
    }
    for (const DocumentScore& score : scores.subspan(ranked.size())) {
      lines += failed_text(query, score, documents[score.document]);
    }
    return lines;
  }

 private:
  std::string ranked_text(const Document& query, std::size_t rank, const DocumentScore& score,
                          std::span<const DocumentScore> ranked, const Document& document) {
    if (options_.format == Format::table) {
      return table_row(rank, score.score, ranked, document.text);
    }
    if (options_.format == Format::trec) {
      return terse::run_line(plain_value(query.id), plain_value(document.id), rank,
                             static_cast<double>(score.score), options_.tag);
    }
    Record record = start(query);
    record.add_integer("rank", static_cast<std::int64_t>(rank))
        .add("id", document.id)
        .add_integer("index", static_cast<std::int64_t>(score.document))
        .add_number("score", static_cast<double>(score.score));
    if (options_.with_text) record.add_text("text", document.text);
    return rows_.text(record);
  }

  // Only JSON Lines have a place for errors; elsewhere they go to standard error.
  std::string failed_text(const Document& query, const DocumentScore& score,
                          const Document& document) {
    if (options_.format != Format::jsonl) {
      print_message("warning", "document " + plain_value(document.id) + ": " + score.error->what());
      return {};
    }
    Record record = start(query);
    record.add("id", document.id).add_integer("index", static_cast<std::int64_t>(score.document));
    return rows_.text(record.add_error(*score.error));
  }

  Record start(const Document& query) const {
    Record record;
    if (options_.with_query) record.add("query_id", query.id);
    return record;
  }

  // Rank, score, a bar from the worst to the best score, and the text as far as it fits.
  std::string table_row(std::size_t rank, float score, std::span<const DocumentScore> ranked,
                        const std::string& text) const {
    constexpr std::size_t kBarWidth = 12;
    const double best = static_cast<double>(ranked.front().score);
    const double worst = static_cast<double>(ranked.back().score);
    const double share = best > worst ? (static_cast<double>(score) - worst) / (best - worst) : 1;
    char digits[64];
    const auto end = std::to_chars(digits, digits + sizeof(digits), static_cast<double>(score),
                                   std::chars_format::fixed, 4);
    std::string row =
        pad(std::to_string(rank), 4, true) + "  " +
        pad(std::string_view(digits, static_cast<std::size_t>(end.ptr - digits)), 9, true) + "  " +
        bar(share, kBarWidth);
    const std::size_t used = 4 + 2 + 9 + 2 + kBarWidth + 2;
    const std::size_t width = std::max<std::size_t>(terminal_width(), used + 20) - used;
    if (options_.with_text) row += "  " + fit(text, width);
    return row + "\n";
  }

  RankingOptions options_;
  RecordWriter rows_;
};

}  // namespace terse_tools
