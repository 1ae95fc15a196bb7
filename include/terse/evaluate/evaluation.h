// A whole run against a file of judgements: every metric for every query, and the means.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "terse/error.h"
#include "terse/evaluate/metrics.h"
#include "terse/evaluate/qrels.h"
#include "terse/evaluate/run.h"

namespace terse {

struct EvaluationOptions {
  TieRule ties = TieRule::trec;
  bool complete = false;      // a judged query that the run lacks counts as 0 (trec_eval -c)
  bool drop_same_id = false;  // documents with the query's id are dropped, as BEIR does
};

struct QueryEvaluation {
  std::string query;
  std::vector<double> values;     // (metrics)
  std::vector<std::size_t> tied;  // (metrics), documents that tie across the cut-off
};

struct Evaluation {
  std::vector<Metric> metrics;
  std::vector<QueryEvaluation> queries;  // in the order of the judgements
  std::vector<double> means;             // (metrics), over queries
  std::size_t judged_only = 0;           // judged queries that the run lacks
  std::size_t run_only = 0;              // queries of the run without judgements
};

namespace detail {

inline QueryEvaluation evaluate_query(const std::string& query, std::span<const RunEntry> entries,
                                      const Grades& grades, std::span<const Metric> metrics,
                                      const EvaluationOptions& options) {
  std::vector<RunEntry> kept;
  if (options.drop_same_id) {
    std::copy_if(entries.begin(), entries.end(), std::back_inserter(kept),
                 [&](const RunEntry& entry) { return entry.document != query; });
    entries = kept;
  }
  const JudgedRanking ranking = judge(entries, grades, options.ties);
  QueryEvaluation result{query, {}, {}};
  for (const Metric& metric : metrics) {
    result.values.push_back(measure(metric, ranking));
    result.tied.push_back(ranking.tied_at(metric.cutoff));
  }
  return result;
}

}  // namespace detail

// Every metric for every query that has judgements and a run, and the means. Throws Error(missing)
// if no query has both.
inline Evaluation evaluate(const Run& run, const Qrels& qrels, std::span<const Metric> metrics,
                           const EvaluationOptions& options = {}) {
  Evaluation evaluation{{metrics.begin(), metrics.end()}, {}, {}, 0, 0};
  std::unordered_map<std::string_view, const RunQuery*> queries;
  for (const RunQuery& query : run) {
    queries.emplace(query.id, &query);
    if (qrels.find(query.id) == nullptr) ++evaluation.run_only;
  }
  check(evaluation.run_only < run.size(), ErrorClass::missing,
        "no query of the run has judgements, the first is ",
        run.empty() ? "absent" : quote(run.front().id));
  for (const std::string& id : qrels.queries()) {
    const auto at = queries.find(id);
    const bool in_run = at != queries.end();
    if (!in_run) ++evaluation.judged_only;
    if (!in_run && !options.complete) continue;
    const std::span<const RunEntry> entries =
        in_run ? std::span<const RunEntry>(at->second->entries) : std::span<const RunEntry>();
    evaluation.queries.push_back(
        detail::evaluate_query(id, entries, *qrels.find(id), metrics, options));
  }
  for (std::size_t metric = 0; metric < metrics.size(); ++metric) {
    double sum = 0;
    for (const QueryEvaluation& query : evaluation.queries) sum += query.values[metric];
    evaluation.means.push_back(sum / static_cast<double>(evaluation.queries.size()));
  }
  return evaluation;
}

}  // namespace terse
