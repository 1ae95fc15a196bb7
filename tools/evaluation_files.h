// The files that the evaluation commands read: runs, judgements, corpora and queries, compressed by
// gzip or not, "-" being standard input.
#pragma once

#include <string>
#include <vector>

#include "terse/evaluate/corpus.h"
#include "terse/evaluate/gzip.h"
#include "terse/evaluate/qrels.h"
#include "terse/evaluate/run.h"

namespace terse_tools {

inline terse::TextLines open_input(const std::string& path) {
  return terse::open_lines(path == "-" ? "/dev/stdin" : path);
}

inline terse::Run read_run_file(const std::string& path) {
  terse::TextLines lines = open_input(path);
  return terse::read_run(lines);
}

inline terse::Qrels read_qrels_file(const std::string& path) {
  terse::TextLines lines = open_input(path);
  return terse::read_qrels(lines);
}

inline std::vector<terse::TextRecord> read_queries_file(const std::string& path) {
  terse::TextLines lines = open_input(path);
  return terse::read_texts(lines);
}

}  // namespace terse_tools
