// A TREC run scored anew by a model, query by query; resumable.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "document_scorer.h"
#include "documents.h"
#include "output.h"
#include "progress.h"
#include "ranking_writer.h"
#include "trec.h"

namespace terse_tools {

struct RunFiles {
  std::string run;
  std::string corpus;
  std::string queries;
  std::string resume;  // empty: results go to the command's output
  std::size_t top_k = 100;
};

class RunReranker {
 public:
  RunReranker(RunFiles files, const RankingOptions& ranking, std::string output_path)
      : files_(std::move(files)), writer_(ranking), output_path_(std::move(output_path)) {}

  // Returns an exit code: queries and documents of the run that are not in their files are left out
  // and reported on standard error. Throws Error.
  int run(const ModelOptions& model, const terse::ScoreOptions& options, Progress& progress) {
    read_files();
    std::vector<std::string> texts;
    for (const Document& document : documents_) texts.push_back(document.text);
    DocumentScorer scorer(model, options, std::move(texts));
    if (!files_.resume.empty()) return run_resumable(scorer, progress);
    Output output(output_path_);
    for (std::size_t query = 0; query < run_.size(); ++query) {
      progress.update(query, 0, share(query));
      output.write(rerank(scorer, run_[query]));
      output.flush();
    }
    output.finish();
    return any_failed_ ? kLinesFailed : kSuccess;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kMissing = static_cast<std::size_t>(-1);

  double share(std::size_t query) const {
    return static_cast<double>(query) / static_cast<double>(run_.size());
  }

  // The run, its queries, and those documents of the corpus that it names.
  void read_files() {
    run_ = read_run(files_.run);
    for (RunQuery& query : run_) {
      if (query.entries.size() > files_.top_k) query.entries.resize(files_.top_k);
      for (const RunEntry& entry : query.entries) index_.try_emplace(entry.document, kMissing);
    }
    for (Document& query : read_sound_documents(files_.queries)) {
      const std::string id = plain_value(query.id);
      queries_.try_emplace(id, std::move(query));
    }
    LineReader reader(files_.corpus);
    for_each_document(reader, DocumentFormat::automatic, [&](Document&& document) {
      if (document.error) throw *document.error;
      const auto at = index_.find(plain_value(document.id));
      if (at == index_.end()) return;
      at->second = documents_.size();
      documents_.push_back(std::move(document));
    });
  }

  // The lines of one query's new ranking.
  std::string rerank(DocumentScorer& scorer, const RunQuery& query) {
    const auto at = queries_.find(query.id);
    if (at == queries_.end()) {
      warn("query " + terse::quote(query.id) + " is not in " + files_.queries);
      return {};
    }
    std::vector<std::size_t> candidates;
    for (const RunEntry& entry : query.entries) {
      const std::size_t document = index_.at(entry.document);
      if (document != kMissing) {
        candidates.push_back(document);
      } else {
        warn("document " + terse::quote(entry.document) + " is not in " + files_.corpus);
      }
    }
    const terse::CallOptions call{{}, [] { return noted_signal() != 0; }};
    auto scores = scorer.score(at->second.text, candidates, call);
    sort_scores(scores);
    any_failed_ = any_failed_ || (!scores.empty() && scores.back().error);
    return writer_.text(at->second, scores, documents_);
  }

  // Writes the run to files_.resume whenever ten seconds have passed and when work ends, for
  // whatever reason; it always holds whole queries.
  int run_resumable(DocumentScorer& scorer, Progress& progress) {
    std::vector<std::string> blocks = finished_blocks();
    const auto save = [&] {
      std::string text;
      for (const std::string& block : blocks) text += block;
      write_whole_file(files_.resume, text);
    };
    try {
      auto saved = Clock::now();
      for (std::size_t query = 0; query < run_.size(); ++query) {
        progress.update(query, 0, share(query));
        if (blocks[query].empty()) blocks[query] = rerank(scorer, run_[query]);
        if (Clock::now() - saved < std::chrono::seconds(10)) continue;
        save();
        saved = Clock::now();
      }
    } catch (const terse::Error&) {
      save();
      throw;
    }
    save();
    return any_failed_ ? kLinesFailed : kSuccess;
  }

  // For each query of the run its lines in files_.resume, or none if they are not all there.
  std::vector<std::string> finished_blocks() const {
    std::vector<std::string> blocks(run_.size());
    if (!std::filesystem::exists(files_.resume)) return blocks;
    struct Block {
      std::string lines;
      std::size_t count = 0;
    };
    std::unordered_map<std::string, Block> found;
    LineReader reader(files_.resume);
    while (const auto line = reader.next()) {
      const auto columns = split_columns(line->text);
      terse::check(columns.size() == 6, terse::ErrorClass::schema,
                   line_source(reader.name(), *line), ": expected qid Q0 docid rank score tag");
      Block& block = found[std::string(columns[0])];
      block.lines += std::string(line->text) + "\n";
      ++block.count;
    }
    for (std::size_t query = 0; query < run_.size(); ++query) {
      const Block& block = found[run_[query].id];
      if (block.count == writer_.num_shown(run_[query].entries.size())) {
        blocks[query] = block.lines;
      }
    }
    return blocks;
  }

  void warn(const std::string& text) {
    print_message("warning", text);
    any_failed_ = true;
  }

  RunFiles files_;
  RankingWriter writer_;
  std::string output_path_;
  std::vector<RunQuery> run_;
  std::unordered_map<std::string, Document> queries_;
  std::unordered_map<std::string, std::size_t> index_;  // of the run's documents, into documents_
  std::vector<Document> documents_;
  bool any_failed_ = false;
};

}  // namespace terse_tools
