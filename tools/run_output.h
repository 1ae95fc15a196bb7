// Runs written as TREC files.
#pragma once

#include <cstddef>
#include <string>

#include "output.h"
#include "terse/evaluate/run.h"

namespace terse_tools {

// Writes each query's entries in their order, ranks counted from 1. Throws Error: io, cancelled,
// schema (a name that a run cannot hold).
inline void write_run(const terse::Run& run, const std::string& tag, Output& output) {
  for (const terse::RunQuery& query : run) {
    std::size_t rank = 0;
    for (const terse::RunEntry& entry : query.entries) {
      output.write(terse::run_line(query.id, entry.document, ++rank, entry.score, tag));
    }
  }
  output.finish();
}

}  // namespace terse_tools
