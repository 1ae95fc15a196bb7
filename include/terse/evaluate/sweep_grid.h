// The grid of a sweep: compression ratios x sets of compress layers x exits. A cell is one ratio
// with one set of layers: one forward pass scores all its exits.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/model_info.h"
#include "terse/options.h"

namespace terse {

struct SweepCell {
  std::int64_t ratio = 1;
  std::vector<std::int64_t> compress_layers = {};  // rising; empty with ratio 1
  std::vector<std::int64_t> exits = {};            // rising; empty for models without exits

  // The options of a call that scores the cell. Models are told only what they understand.
  ScoreOptions options(const ScoreOptions& shared, const ModelInfo& model) const {
    ScoreOptions own = shared;
    if (model.layer_wise) own.cutoff_layers = exits;
    if (model.compression) {
      own.compress_ratio = ratio;
      if (ratio > 1) own.compress_layers = compress_layers;
    }
    return own;
  }

  // "8;16", or nothing.
  std::string layers_text() const {
    std::string text;
    for (const std::int64_t layer : compress_layers) {
      text += (text.empty() ? "" : ";") + std::to_string(layer);
    }
    return text;
  }

  // For file names and pictures: "ratio-2-layers-8-16".
  std::string name() const {
    std::string text = "ratio-" + std::to_string(ratio);
    if (!compress_layers.empty()) text += "-layers";
    for (const std::int64_t layer : compress_layers) text += "-" + std::to_string(layer);
    return text;
  }
};

struct SweepGrid {
  std::vector<std::int64_t> ratios = {1};
  std::vector<std::vector<std::int64_t>> compress_layers = {{8}};
  std::vector<std::int64_t> exits = {};  // empty: the last layer
};

namespace detail {

inline std::vector<std::int64_t> rising(std::span<const std::int64_t> numbers) {
  const std::set<std::int64_t> sorted(numbers.begin(), numbers.end());
  return {sorted.begin(), sorted.end()};
}

inline std::int64_t parse_layer(std::string_view text, std::string_view whole) {
  std::int64_t layer = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  check(error == std::errc() && end == text.data() + text.size() && layer >= 1, ErrorClass::range,
        "compress layers ", quote(whole), ", expected sets of layers from 1 on, as in 8;16;8,16");
  return layer;
}

inline void check_exits(const SweepGrid& grid, const ModelInfo& model) {
  check(grid.exits.empty() || model.layer_wise, ErrorClass::unsupported, "cut-off layers for a ",
        model.architecture, ", which has no exits");
  for (const std::int64_t exit : grid.exits) {
    check(std::binary_search(model.exits.begin(), model.exits.end(), exit), ErrorClass::range,
          "cut-off layer ", exit, ", the exits of this model are ", model.exits.front(), " to ",
          model.exits.back());
  }
}

}  // namespace detail

// Sets of layers as the command line has them: "8;16;8,16". Throws Error(range).
inline std::vector<std::vector<std::int64_t>> parse_layer_sets(std::string_view text) {
  std::vector<std::vector<std::int64_t>> sets(1);
  std::string_view rest = text;
  while (true) {
    const std::size_t end = std::min(rest.find_first_of(",;"), rest.size());
    sets.back().push_back(detail::parse_layer(rest.substr(0, end), text));
    if (end == rest.size()) break;
    if (rest[end] == ';') sets.emplace_back();
    rest.remove_prefix(end + 1);
  }
  for (auto& set : sets) set = detail::rising(set);
  return sets;
}

// The cells of a grid in the order they are run. The first is the full model, ratio 1 with the last
// layer among its exits, whether asked for or not: the others are compared with it. Each cell comes
// once; compress layers from the last exit on are left out, since nothing runs there. Throws Error:
// unsupported (exits or compression for a model without), range (a layer that is no exit, a ratio
// below 1).
inline std::vector<SweepCell> plan_cells(const SweepGrid& grid, const ModelInfo& model) {
  detail::check_exits(grid, model);
  std::vector<std::int64_t> exits = detail::rising(grid.exits);
  if (model.layer_wise && exits.empty()) exits = {model.exits.back()};
  SweepCell full{1, {}, exits};
  const bool plain = std::find(grid.ratios.begin(), grid.ratios.end(), 1) != grid.ratios.end();
  if (model.layer_wise) {
    if (!plain) full.exits.clear();
    if (full.exits.empty() || full.exits.back() != model.exits.back()) {
      full.exits.push_back(model.exits.back());
    }
  }
  std::vector<SweepCell> cells = {full};
  std::set<std::pair<std::int64_t, std::vector<std::int64_t>>> seen;
  for (const std::int64_t ratio : detail::rising(grid.ratios)) {
    check(ratio >= 1, ErrorClass::range, "ratio ", ratio, ", expected at least 1");
    if (ratio == 1) continue;
    check(model.compression, ErrorClass::unsupported, "ratio ", ratio, " for a ",
          model.architecture, ", which cannot compress tokens");
    for (std::vector<std::int64_t> layers : grid.compress_layers) {
      std::erase_if(layers, [&](std::int64_t layer) { return layer >= exits.back(); });
      if (layers.empty() || !seen.emplace(ratio, layers).second) continue;
      cells.push_back({ratio, layers, exits});
    }
  }
  return cells;
}

}  // namespace terse
