// Every score of a cell of a sweep in one file:
//   qid,docid,layer,ratio,compress_layers,logit,tokens_in,tokens_after
// Query by query, exit by exit, document by document in the order of the first-stage run.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "evaluation_files.h"
#include "gzip_writer.h"
#include "json_lines.h"
#include "terse/error.h"
#include "terse/evaluate/sweep.h"
#include "terse/evaluate/sweep_table.h"

namespace terse_tools {

inline constexpr std::string_view kDumpHeading =
    "qid,docid,layer,ratio,compress_layers,logit,tokens_in,tokens_after\n";

// exits: the layers of scores. Throws Error: path, io, memory.
inline void write_dump(const std::string& path, const terse::ModelShape& shape,
                       const terse::SweepCell& cell, std::span<const std::int64_t> exits,
                       std::span<const terse::SweepQuery> queries,
                       const terse::CellScores& scores) {
  GzipWriter file(path);
  file.write(kDumpHeading);
  for (std::size_t q = 0; q < queries.size(); ++q) {
    for (std::size_t exit = 0; exit < exits.size(); ++exit) {
      const terse::ExitCost cost(shape, cell, exits[exit]);
      const std::string middle = "," + std::to_string(exits[exit]) + "," +
                                 std::to_string(cell.ratio) + "," + cell.layers_text() + ",";
      for (std::size_t i = 0; i < queries[q].documents.size(); ++i) {
        const terse::PairLength& length = queries[q].lengths[i];
        file.write(terse::csv_field(queries[q].id) + "," +
                   terse::csv_field(queries[q].documents[i]) + middle +
                   number_text(static_cast<double>(scores[q][exit][i])) + "," +
                   std::to_string(length.tokens()) + "," +
                   std::to_string(cost.tokens_after(length)) + "\n");
      }
    }
  }
  file.commit();
}

// The scores that write_dump() wrote for these queries and exits. Throws Error: io, schema (lines
// of something else), truncated.
inline terse::CellScores read_dump(const std::string& path, std::span<const std::int64_t> exits,
                                   std::span<const terse::SweepQuery> queries) {
  terse::TextLines lines = terse::open_lines(path);
  const auto next = [&] {
    terse::check(lines.next(), terse::ErrorClass::truncated, lines.name(),
                 ": ends before all queries of the sweep");
  };
  next();
  terse::CellScores scores;
  for (const terse::SweepQuery& query : queries) {
    auto& of_query = scores.emplace_back();
    for (const std::int64_t exit : exits) {
      auto& of_exit = of_query.emplace_back();
      for (const std::string& document : query.documents) {
        next();
        const auto fields = terse::split_csv(lines.text());
        terse::check(fields.size() == 8 && fields[0] == query.id && fields[1] == document &&
                         fields[2] == std::to_string(exit),
                     terse::ErrorClass::schema, lines.where(),
                     ": is not of this sweep; remove the folder of scores");
        of_exit.push_back(parse_number<float>(fields[5], lines.where()));
      }
    }
  }
  return scores;
}

}  // namespace terse_tools
