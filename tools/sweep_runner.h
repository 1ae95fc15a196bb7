// A sweep: every cell's forward passes, its rows in the table, its scores in a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "model_options.h"
#include "progress.h"
#include "terse/evaluate/metrics.h"
#include "terse/evaluate/sweep_grid.h"
#include "terse/options.h"

namespace terse_tools {

struct SweepFiles {
  std::string corpus;
  std::string queries;
  std::string qrels;
  std::string run;
  std::string output = "sweep.csv";  // the table
  std::string scores;                // folder of score files
  std::string bounds;                // for cascades; empty: none
  std::string plot;                  // the first picture, the others lie beside it; empty: none
  std::string report;                // HTML page; empty: none
};

struct SweepSettings {
  terse::SweepGrid grid;
  terse::ScoreOptions options;
  std::vector<terse::Metric> metrics;
  std::size_t top_k = 100;
  std::size_t max_queries = 0;       // 0: all
  std::size_t latency_queries = 16;  // timed for each row; 0: none
  std::uint64_t seed = 1;            // of the bootstrap
  double risk = 0.01;                // of the second cascade
  bool plain_scores = false;
  std::string plot_query;  // whose scores are drawn layer by layer; empty: the first judged one
};

// Does what is missing of a sweep: rows that the table has already are kept. Throws Error: what
// loading and scoring throw, and those of the files.
void run_sweep(const SweepFiles& files, const SweepSettings& settings, const ModelOptions& model,
               Progress& progress);

}  // namespace terse_tools
