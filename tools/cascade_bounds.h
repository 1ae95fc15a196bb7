// The file of bounds that a sweep writes and a cascade reads: for each cell, how far the score at
// an exit lay from the final one, at several risks.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "command.h"
#include "json_lines.h"
#include "terse/cascade.h"
#include "terse/error.h"
#include "terse/evaluate/sweep.h"
#include "terse/file.h"
#include "terse/json.h"
#include "terse/options.h"

namespace terse_tools {

inline constexpr std::array<double, 6> kRisks = {0, 0.001, 0.01, 0.05, 0.1, 0.2};

// What a cascade needs of one cell of a sweep.
struct CascadeBounds {
  std::int64_t ratio = 1;
  std::vector<std::int64_t> compress_layers;
  terse::Heads heads = terse::Heads::ordinal;
  std::vector<std::int64_t> exits;                        // rising; the last is the final one
  std::size_t pairs = 0;                                  // that were measured
  std::vector<std::vector<terse::DriftInterval>> drifts;  // [exit but the last][risk of kRisks]
};

inline CascadeBounds measure_bounds(const terse::SweepCell& cell, terse::Heads heads,
                                    const terse::CellScores& scores) {
  CascadeBounds bounds{cell.ratio, cell.compress_layers, heads, cell.exits, 0, {}};
  for (const auto& query : scores) bounds.pairs += query.front().size();
  for (std::size_t exit = 0; exit + 1 < cell.exits.size(); ++exit) {
    auto& of_exit = bounds.drifts.emplace_back();
    for (const double risk : kRisks) {
      of_exit.push_back(terse::SweepMeasures::drift(scores, exit, cell.exits.size() - 1, risk));
    }
  }
  return bounds;
}

inline std::string bounds_json(const CascadeBounds& bounds) {
  std::string exits;
  for (std::size_t exit = 0; exit < bounds.drifts.size(); ++exit) {
    std::string intervals;
    for (const terse::DriftInterval& drift : bounds.drifts[exit]) {
      intervals += (intervals.empty() ? "[" : ", [") + number_text(drift.low) + ", " +
                   number_text(drift.high) + "]";
    }
    exits += (exit == 0 ? "" : ", ") + Record()
                                           .add_integer("layer", bounds.exits[exit])
                                           .add("drifts", "[" + intervals + "]")
                                           .json();
  }
  return Record()
      .add_integer("compress_ratio", bounds.ratio)
      .add("compress_layers", json_integers(std::span<const std::int64_t>(bounds.compress_layers)))
      .add_text("heads", bounds.heads == terse::Heads::own ? "own" : "ordinal")
      .add_integer("final_layer", bounds.exits.back())
      .add_integer("pairs", static_cast<std::int64_t>(bounds.pairs))
      .add("exits", "[" + exits + "]")
      .json();
}

// The whole file: {"risks": [...], "cells": [...]}.
inline std::string bounds_file(std::span<const CascadeBounds> cells) {
  std::string risks;
  for (const double risk : kRisks) risks += (risks.empty() ? "" : ", ") + number_text(risk);
  std::string text = "{\"risks\": [" + risks + "],\n \"cells\": [";
  for (const CascadeBounds& cell : cells) {
    text += (&cell == cells.data() ? "\n  " : ",\n  ") + bounds_json(cell);
  }
  return text + "\n]}\n";
}

namespace detail {

inline std::vector<std::int64_t> integers_of(terse::JsonValue list) {
  std::vector<std::int64_t> numbers;
  for (const terse::JsonValue value : list.as_array(list.key())) {
    numbers.push_back(value.as_integer(list.key(), 0, 1 << 20));
  }
  return numbers;
}

inline terse::DriftInterval interval_of(terse::JsonValue drifts, std::size_t risk) {
  std::size_t index = 0;
  for (const terse::JsonValue interval : drifts.as_array("drifts")) {
    if (index++ != risk) continue;
    std::vector<double> ends;
    for (const terse::JsonValue end : interval.as_array("an interval")) {
      ends.push_back(end.as_number("the end of an interval"));
    }
    terse::check(ends.size() == 2, terse::ErrorClass::schema, drifts.source(), ": an interval of ",
                 ends.size(), " numbers");
    return {ends[0], ends[1]};
  }
  terse::fail(terse::ErrorClass::schema, drifts.source(), ": ", index,
              " intervals, one for each risk expected");
}

// Whether a cell of the file was measured with these options.
inline bool is_cell_of(terse::JsonValue cell, const terse::ScoreOptions& options) {
  const std::int64_t ratio = options.compress_ratio.value_or(1);
  std::vector<std::int64_t> layers;
  if (ratio > 1) layers = options.compress_layers.value_or(std::vector<std::int64_t>{8});
  std::sort(layers.begin(), layers.end());
  const bool own = options.heads.value_or(terse::Heads::ordinal) == terse::Heads::own;
  return required_member(cell, "compress_ratio").as_integer("compress_ratio", 1, 1 << 20) ==
             ratio &&
         integers_of(required_member(cell, "compress_layers")) == layers &&
         required_text(cell, "heads") == (own ? "own" : "ordinal");
}

}  // namespace detail

// The cascade that a file of bounds describes for these options, at the largest risk of the file
// that is not above `risk`. Throws Error: path, io, json, schema, missing (no cell with the
// options' compression and heads), range.
inline terse::CascadeOptions read_bounds(const std::string& path,
                                         const terse::ScoreOptions& options, double risk) {
  constexpr std::size_t kMaxBytes = std::size_t{64} << 20;
  const std::string text = terse::read_text_file(path, kMaxBytes);
  const terse::JsonLimits limits{.max_bytes = kMaxBytes, .max_depth = 32};
  const auto document = terse::JsonDocument::parse(text, limits, terse::path_text(path));
  const terse::JsonValue root = document.root().as_object("the file");
  std::size_t count = 0;
  for (const terse::JsonValue value : required_member(root, "risks").as_array("risks")) {
    if (value.as_number("a risk") <= risk) ++count;
  }
  terse::check(count > 0, terse::ErrorClass::range, terse::path_text(path),
               ": holds no bounds for risk ", risk);
  for (const terse::JsonValue cell : required_member(root, "cells").as_array("cells")) {
    if (!detail::is_cell_of(cell, options)) continue;
    terse::CascadeOptions cascade;
    for (const terse::JsonValue exit : required_member(cell, "exits").as_array("exits")) {
      cascade.exits.push_back(required_member(exit, "layer").as_integer("layer", 0, 1 << 20));
      cascade.drifts.push_back(detail::interval_of(required_member(exit, "drifts"), count - 1));
    }
    cascade.exits.push_back(
        required_member(cell, "final_layer").as_integer("final_layer", 0, 1 << 20));
    cascade.validate();
    return cascade;
  }
  terse::fail(terse::ErrorClass::missing, terse::path_text(path),
              ": no cell was measured with this compression and these heads");
}

}  // namespace terse_tools
