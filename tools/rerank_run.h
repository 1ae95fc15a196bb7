// A TREC run scored anew by a model, query by query, over a corpus that need not fit in memory.
#pragma once

#include <cstddef>
#include <string>

#include "model_options.h"
#include "progress.h"
#include "ranking_writer.h"
#include "terse/options.h"

namespace terse_tools {

struct RunFiles {
  std::string run;
  std::string corpus;
  std::string queries;
  std::string resume;  // empty: results go to `output`
  std::string output;
  std::size_t top_k = 100;
};

// Returns an exit code: queries and documents of the run that are not in their files are left out
// and reported on standard error. Throws Error.
int rerank_trec_run(const RunFiles& files, const RankingOptions& ranking, const ModelOptions& model,
                    const terse::ScoreOptions& options, Progress& progress);

}  // namespace terse_tools
