#include "rerank_run.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "corpus_store.h"
#include "evaluation_files.h"
#include "interrupt.h"
#include "output.h"
#include "resumable_run.h"
#include "run_scorer.h"

namespace terse_tools {

namespace {

class RunReranker {
 public:
  RunReranker(const RunFiles& files, const RankingOptions& ranking, Progress& progress)
      : files_(files), writer_(ranking), progress_(progress) {}

  int run(const ModelOptions& model, const terse::ScoreOptions& options) {
    read_run();
    RunScorer scorer(model, options);
    corpus_.read(files_.corpus);
    if (files_.resume.empty()) {
      Output output(files_.output);
      rerank_all(scorer, [&](std::string&& lines) {
        output.write(lines);
        output.flush();
      });
      output.finish();
    } else {
      ResumableRun result(files_.resume);
      skip_finished(result);
      rerank_all(scorer, [&](std::string&& lines) { result.append(lines); });
      result.finish();
    }
    report_missing();
    return any_failed_ ? kLinesFailed : kSuccess;
  }

 private:
  // The candidates of each query, best first, and the queries' texts.
  void read_run() {
    run_ = read_run_file(files_.run);
    for (terse::RunQuery& query : run_) {
      const std::size_t kept = std::min(files_.top_k, query.entries.size());
      const auto end = query.entries.begin() + static_cast<std::ptrdiff_t>(kept);
      std::partial_sort(query.entries.begin(), end, query.entries.end(), terse::trec_before);
      query.entries.erase(end, query.entries.end());
      query.entries.shrink_to_fit();
      for (const terse::RunEntry& entry : query.entries) corpus_.want(entry.document);
    }
    for (terse::TextRecord& query : read_queries_file(files_.queries)) {
      queries_.emplace(std::move(query.id), std::move(query.text));
    }
  }

  void skip_finished(ResumableRun& result) {
    std::unordered_map<std::string_view, const terse::RunQuery*> by_id;
    for (const terse::RunQuery& query : run_) by_id.emplace(query.id, &query);
    const auto belongs = [&](std::string_view query, std::string_view document) {
      const auto at = by_id.find(query);
      if (at == by_id.end()) return false;
      const auto& entries = at->second->entries;
      return std::any_of(entries.begin(), entries.end(),
                         [&](const terse::RunEntry& entry) { return entry.document == document; });
    };
    const auto is_complete = [&](std::string_view query, std::size_t lines) {
      return lines == writer_.num_shown(candidates(*by_id.at(query)).size());
    };
    result.read(belongs, is_complete);
    std::erase_if(run_, [&](const terse::RunQuery& query) { return result.has(query.id); });
  }

  template <class Write>
  void rerank_all(RunScorer& scorer, const Write& write) {
    for (const terse::RunQuery& query : run_) total_ += query.entries.size();
    for (const terse::RunQuery& query : run_) {
      std::string lines = rerank(scorer, query);
      progress_.clear();
      if (!lines.empty()) write(std::move(lines));
      done_ += query.entries.size();
    }
  }

  // The lines of one query's new ranking; none for a query without text or candidates.
  std::string rerank(RunScorer& scorer, const terse::RunQuery& query) {
    check_interrupted();
    const auto text = queries_.find(query.id);
    if (text == queries_.end()) {
      miss(query.entries.front(),
           "query " + terse::quote(query.id) + " is not in " + terse::path_text(files_.queries));
      return {};
    }
    const std::vector<Document> documents = candidates(query);
    if (documents.size() < query.entries.size()) miss_documents(query);
    const terse::CallOptions call{[&](std::size_t done, std::size_t) { draw(scorer, done); },
                                  [] { return noted_signal() != 0; }};
    auto scores = scorer.score(text->second, documents, call);
    draw(scorer, documents.size());
    sort_scores(scores);
    any_failed_ = any_failed_ || (!scores.empty() && scores.back().error);
    return writer_.text({json_string(query.id), text->second}, scores, documents);
  }

  std::vector<Document> candidates(const terse::RunQuery& query) const {
    std::vector<Document> documents;
    for (const terse::RunEntry& entry : query.entries) {
      if (auto text = corpus_.text(entry.document)) {
        documents.push_back({json_string(entry.document), std::move(*text)});
      }
    }
    return documents;
  }

  void miss_documents(const terse::RunQuery& query) {
    std::vector<const terse::RunEntry*> missing;
    for (const terse::RunEntry& entry : query.entries) {
      if (!corpus_.has(entry.document)) missing.push_back(&entry);
    }
    const terse::RunEntry& first =
        **std::min_element(missing.begin(), missing.end(),
                           [](const auto* a, const auto* b) { return a->line < b->line; });
    const std::size_t others = missing.size() - 1;
    miss(first, "document " + terse::quote(first.document) +
                    (others > 0 ? " and " + std::to_string(others) + " more" : "") + " of query " +
                    terse::quote(query.id) + ": not in " + terse::path_text(files_.corpus));
  }

  void draw(const RunScorer& scorer, std::size_t done) {
    const std::size_t pairs = done_ + done;
    progress_.update(pairs, scorer.tokens(),
                     static_cast<double>(pairs) / static_cast<double>(total_));
  }

  // Says what is missing and where in the run it is asked for, but not a thousand times.
  void miss(const terse::RunEntry& entry, const std::string& text) {
    constexpr std::size_t kMaxMessages = 5;
    any_failed_ = true;
    if (++missing_ > kMaxMessages) return;
    progress_.clear();
    print_message("warning",
                  terse::path_text(files_.run) + ":" + std::to_string(entry.line) + ": " + text);
  }

  void report_missing() const {
    if (missing_ > 0) {
      print_message("warning", std::to_string(missing_) +
                                   " queries are incomplete: their text or documents are missing");
    }
  }

  const RunFiles& files_;
  RankingWriter writer_;
  Progress& progress_;
  terse::Run run_;
  terse::TextMap<std::string> queries_;
  CorpusStore corpus_;
  std::size_t done_ = 0;   // candidates of the run
  std::size_t total_ = 0;  // those to do in this call
  std::size_t missing_ = 0;
  bool any_failed_ = false;
};

}  // namespace

int rerank_trec_run(const RunFiles& files, const RankingOptions& ranking, const ModelOptions& model,
                    const terse::ScoreOptions& options, Progress& progress) {
  return RunReranker(files, ranking, progress).run(model, options);
}

}  // namespace terse_tools
