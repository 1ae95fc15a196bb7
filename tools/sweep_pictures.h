// The pictures of a sweep, each one SVG of README width.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "svg.h"
#include "terse/evaluate/agreement.h"
#include "terse/evaluate/pareto.h"
#include "terse/evaluate/sweep_table.h"

namespace terse_tools {

inline constexpr int kPictureWidth = 800;

// What a point of a sweep is called: "ratio 2 before 8;16".
inline std::string cell_label(const terse::SweepTable& table, std::size_t row) {
  const std::string& layers = table.text(row, "compress_layers");
  if (layers.empty()) return "no compression";
  return "ratio " + table.text(row, "ratio") + " before " + layers;
}

// Cells in the order of the table.
inline std::vector<std::string> cell_labels(const terse::SweepTable& table) {
  std::vector<std::string> labels;
  for (std::size_t row = 0; row < table.size(); ++row) {
    const std::string label = cell_label(table, row);
    if (std::find(labels.begin(), labels.end(), label) == labels.end()) labels.push_back(label);
  }
  return labels;
}

// Writes the exits of the front over its points, but for those that would lie on the one before.
template <class Place>
void name_exits(Svg& svg, const terse::SweepTable& table, std::span<const std::size_t> rows,
                std::span<const std::size_t> front, const Place& place) {
  constexpr double kRoom = 14;
  Svg::Point last{-kRoom, 0};
  for (const std::size_t i : front) {
    const Svg::Point at = place(i);
    if (at.x - last.x < kRoom && std::abs(at.y - last.y) < kRoom) continue;
    svg.label(at.x, at.y - 10, table.text(rows[i], "cutoff_layer"), "ink small halo", "middle");
    last = at;
  }
}

// Rows of a sweep as points; those without that cost are left out.
struct SweepPoints {
  std::vector<terse::Tradeoff> points;
  std::vector<std::size_t> rows;  // (points)

  SweepPoints(const terse::SweepTable& table, std::string_view metric, std::string_view cost_column,
              double unit) {
    for (std::size_t row = 0; row < table.size(); ++row) {
      const double cost = table.number(row, cost_column) / unit;
      if (std::isnan(cost)) continue;
      points.push_back({cost, table.number(row, metric)});
      rows.push_back(row);
    }
  }

  Axis axis(double terse::Tradeoff::*value, double begin, double end, int wanted) const {
    const auto [least, most] =
        std::minmax_element(points.begin(), points.end(),
                            [&](const auto& a, const auto& b) { return a.*value < b.*value; });
    return Axis::around((*least).*value, (*most).*value, begin, end, wanted);
  }
};

// A marker and a name for each cell, three in a line.
inline void draw_legend(Svg& svg, const std::vector<std::string>& labels, double top) {
  for (std::size_t label = 0; label < labels.size(); ++label) {
    const double x = 76 + 240 * static_cast<double>(label % 3);
    const double y = top + 20 * static_cast<double>(label / 3);
    svg.marker({x, y - 4}, label, 5, labels[label]);
    svg.label(x + 12, y, labels[label], "ink small", "start");
  }
}

// The points of each cell, joined.
template <class Place>
void draw_cells(Svg& svg, const terse::SweepTable& table, const SweepPoints& of,
                const std::vector<std::string>& labels, std::string_view metric,
                const Place& place) {
  for (std::size_t label = 0; label < labels.size(); ++label) {
    std::vector<Svg::Point> path;
    for (std::size_t i = 0; i < of.rows.size(); ++i) {
      if (cell_label(table, of.rows[i]) == labels[label]) path.push_back(place(i));
    }
    svg.path(path, "s" + std::to_string(label % kNumSeries), 1);
  }
  for (std::size_t i = 0; i < of.rows.size(); ++i) {
    const std::string cell = cell_label(table, of.rows[i]);
    const auto series =
        static_cast<std::size_t>(std::find(labels.begin(), labels.end(), cell) - labels.begin());
    svg.marker(place(i), series, 5,
               cell + ", layer " + table.text(of.rows[i], "cutoff_layer") + ": " +
                   table.text(of.rows[i], metric));
  }
}

// Quality against a cost column, points of a cell joined, the Pareto front drawn over them and its
// points named by their exits. An empty text if no row has that cost.
inline std::string pareto_picture(const terse::SweepTable& table, std::string_view metric,
                                  std::string_view cost_column, double unit,
                                  std::string_view cost_name) {
  const SweepPoints of(table, metric, cost_column, unit);
  if (of.points.empty()) return {};
  const std::vector<std::string> labels = cell_labels(table);
  const int height = 420 + 20 * static_cast<int>((labels.size() + 2) / 3);
  Svg svg(kPictureWidth, height, std::string(metric) + " against " + std::string(cost_name),
          "Each point is a cut-off layer of a compression setting; the thick line joins the "
          "points that no other point beats.");
  const Axis x = of.axis(&terse::Tradeoff::cost, 76, kPictureWidth - 24, 7);
  const Axis y = of.axis(&terse::Tradeoff::quality, 350, 44, 6);
  draw_axes(svg, x, y, cost_name, metric);
  const auto place = [&](std::size_t i) {
    return Svg::Point{x.place(of.points[i].cost), y.place(of.points[i].quality)};
  };
  const std::vector<std::size_t> front = terse::pareto_front(of.points);
  std::vector<Svg::Point> steps;
  for (const std::size_t i : front) {
    if (!steps.empty()) steps.push_back({place(i).x, steps.back().y});
    steps.push_back(place(i));
  }
  svg.path(steps, "s5 faint", 6);
  draw_cells(svg, table, of, labels, metric, place);
  draw_legend(svg, labels, 412);
  name_exits(svg, table, of.rows, front, place);
  return svg.finish();
}

// Quality of each cell at each cut-off layer.
inline std::string heat_map_picture(const terse::SweepTable& table, std::string_view metric) {
  const std::vector<std::string> labels = cell_labels(table);
  std::set<double> exits;
  double least = table.number(0, metric);
  double most = least;
  for (std::size_t row = 0; row < table.size(); ++row) {
    exits.insert(table.number(row, "cutoff_layer"));
    least = std::min(least, table.number(row, metric));
    most = std::max(most, table.number(row, metric));
  }
  const double left = 190;
  const double top = 72;
  const double tall = 34;
  const double wide = (kPictureWidth - left - 24) / static_cast<double>(exits.size());
  Svg svg(kPictureWidth, static_cast<int>(top + tall * static_cast<double>(labels.size()) + 24),
          std::string(metric) + " by compression and cut-off layer",
          "A stronger colour is a better value.");
  double x = left;
  for (const double exit : exits) {
    svg.label(x + wide / 2, top - 10, fixed_number(exit, 0), "soft small", "middle");
    x += wide;
  }
  svg.label(left - 10, top - 10, "cut-off layer", "soft small", "end");
  for (std::size_t label = 0; label < labels.size(); ++label) {
    const double y = top + tall * static_cast<double>(label);
    svg.label(left - 10, y + 22, labels[label], "ink small", "end");
    for (std::size_t row = 0; row < table.size(); ++row) {
      if (cell_label(table, row) != labels[label]) continue;
      const double exit = table.number(row, "cutoff_layer");
      const auto column = static_cast<double>(std::distance(exits.begin(), exits.find(exit)));
      const double value = table.number(row, metric);
      const double share = most > least ? (value - least) / (most - least) : 1;
      svg.box(left + wide * column + 1, y + 1, wide - 2, tall - 2, "ramp", 0.06 + 0.44 * share,
              labels[label] + ", layer " + fixed_number(exit, 0));
      svg.label(left + wide * (column + 0.5), y + 22, fixed_number(value, wide < 44 ? 2 : 3),
                "ink small", "middle");
    }
  }
  return svg.finish();
}

// Lengths of all pairs in tokens.
inline std::string length_picture(std::span<const terse::SweepQuery> queries) {
  constexpr std::size_t kBins = 40;
  std::vector<double> tokens;
  for (const terse::SweepQuery& query : queries) {
    for (const terse::PairLength& length : query.lengths) {
      tokens.push_back(static_cast<double>(length.tokens()));
    }
  }
  std::sort(tokens.begin(), tokens.end());
  const double width = std::max(std::ceil((tokens.back() + 1) / kBins), 1.0);
  std::vector<double> counts(kBins);
  for (const double count : tokens) ++counts[static_cast<std::size_t>(count / width)];
  const double most = *std::max_element(counts.begin(), counts.end());
  const double median = tokens[tokens.size() / 2];
  Svg svg(kPictureWidth, 300, "Tokens of a pair", "How many pairs have how many tokens.");
  Axis x = Axis::around(0, width * kBins, 76, kPictureWidth - 24, 8);
  x.low = 0;
  Axis y = Axis::around(0, most, 240, 44, 4);
  y.low = 0;
  draw_axes(svg, x, y, "tokens", "pairs");
  for (std::size_t bin = 0; bin < kBins; ++bin) {
    const double from = width * static_cast<double>(bin);
    const double height = y.place(0) - y.place(counts[bin]);
    if (height > 0) {
      svg.box(x.place(from) + 0.5, y.place(counts[bin]), x.place(from + width) - x.place(from) - 1,
              height, "bar", 1,
              fixed_number(from, 0) + " to " + fixed_number(from + width - 1, 0) +
                  " tokens: " + fixed_number(counts[bin], 0) + " pairs");
    }
  }
  svg.line(x.place(median), y.begin, x.place(median), y.end, "line");
  const bool right = x.place(median) > (x.begin + x.end) / 2;  // no room behind the line there
  svg.label(x.place(median) + (right ? -6 : 6), y.end + 10, "median " + fixed_number(median, 0),
            "ink small", right ? "end" : "start");
  return svg.finish();
}

// One query's passages on their way through the exits.
struct Trajectories {
  std::string query;
  std::vector<std::int64_t> exits;
  std::vector<std::vector<float>> scores;  // [exit][document]
  std::vector<char> relevant;              // (documents)
};

// One line a passage, those of interest over the others, and a legend above.
inline void draw_passages(Svg& svg, const Trajectories& of, const Axis& x, const Axis& y,
                          std::size_t top) {
  constexpr std::string_view kStyles[] = {"s5 faint", "s0", "s1"};
  constexpr std::string_view kNames[] = {"other", "best 10 at the end", "relevant"};
  constexpr double kLeft[] = {76, 186, 346};
  std::vector<std::size_t> rank(of.relevant.size());
  const std::vector<std::size_t> order = terse::score_order(of.scores.back());
  for (std::size_t i = 0; i < order.size(); ++i) rank[order[i]] = i;
  for (std::size_t style = 0; style < 3; ++style) {
    svg.path({{kLeft[style], 46}, {kLeft[style] + 22, 46}}, kStyles[style], 3);
    svg.label(kLeft[style] + 30, 50, kNames[style], "ink small", "start");
    for (std::size_t document = 0; document < rank.size(); ++document) {
      const std::size_t own = of.relevant[document] != 0 ? 2 : rank[document] < top ? 1 : 0;
      if (own != style) continue;
      std::vector<Svg::Point> path;
      for (std::size_t exit = 0; exit < of.exits.size(); ++exit) {
        path.push_back({x.place(static_cast<double>(of.exits[exit])),
                        y.place(static_cast<double>(of.scores[exit][document]))});
      }
      svg.path(path, kStyles[style], style == 0 ? 1 : 2);
    }
  }
}

// Scores of all passages after each exit above, agreement with the last exit below: where does the
// ranking settle?
inline std::string trajectory_picture(const Trajectories& of) {
  constexpr std::size_t kTop = 10;
  Svg svg(kPictureWidth, 520, "Scores of the passages of query " + of.query + " by layer",
          "One line a passage; below, how much of the best 10 after the last layer is already "
          "there.");
  double least = of.scores.front().front();
  double most = least;
  for (const auto& scores : of.scores) {
    for (const float score : scores) {
      least = std::min(least, static_cast<double>(score));
      most = std::max(most, static_cast<double>(score));
    }
  }
  const Axis x =
      Axis::around_integers(static_cast<double>(of.exits.front()),
                            static_cast<double>(of.exits.back()), 76, kPictureWidth - 24, 10);
  const Axis y = Axis::around(least, most, 318, 64, 5);
  const Axis overlap = Axis::around(0, 1, 470, 378, 2);
  draw_axes(svg, x, y, "", "score");
  draw_axes(svg, x, overlap, "layer", "overlap");
  draw_passages(svg, of, x, y, kTop);
  std::vector<Svg::Point> path;
  for (std::size_t exit = 0; exit < of.exits.size(); ++exit) {
    path.push_back({x.place(static_cast<double>(of.exits[exit])),
                    overlap.place(terse::top_overlap(of.scores[exit], of.scores.back(), kTop))});
  }
  svg.path(path, "s0", 2);
  for (const Svg::Point& point : path) svg.marker(point, 0, 4, "overlap of the best 10");
  return svg.finish();
}

}  // namespace terse_tools
