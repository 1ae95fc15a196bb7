// Exhaustive retrieval by an embedder: every document of a corpus, however large, is compared with
// every query. Queries' vectors and the best k documents of each are in memory, documents are not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "terse/checked.h"
#include "terse/embed.h"
#include "terse/error.h"
#include "terse/evaluate/corpus.h"
#include "terse/evaluate/run.h"
#include "terse/evaluate/top_k.h"
#include "terse/options.h"
#include "terse/parallel.h"

namespace terse {

// Which of an embedder's scores ranks; all but dense need bge-m3's outputs.
enum class VectorScore : std::uint8_t {
  dense,
  sparse,
  colbert,
  sparse_dense,
  colbert_sparse_dense
};

struct VectorSearchOptions {
  VectorScore score = VectorScore::dense;
  std::array<double, 3> weights = {1, 1, 1};  // dense, sparse, colbert in the mixed scores
  std::size_t top_k = 100;
  std::optional<std::int64_t> max_length = {};
  Instruction query_instruction = {};
  Instruction passage_instruction = {};
  int threads = 0;  // for comparing; 0: all available
};

class VectorSearch {
 public:
  // Embeds the queries. `embedder` must outlive this. Throws Error: range, unsupported (a score the
  // embedder does not have), cancelled, and that of the first query without vectors.
  VectorSearch(const Embedder& embedder, std::vector<TextRecord> queries,
               const VectorSearchOptions& options = {}, const CallOptions& call = {})
      : embedder_(embedder),
        options_(options),
        threads_(thread_count(options.threads)),
        queries_(std::move(queries)),
        best_(queries_.size(), TopK(options.top_k, ids_)) {
    std::vector<Text> texts;
    for (const TextRecord& query : queries_)
      texts.push_back({query.text, TextKind::query, nullptr});
    query_vectors_ = embedder_.embed(texts, embed_options(options_.query_instruction), call);
    for (std::size_t i = 0; i < queries_.size(); ++i) refuse_error(queries_[i], query_vectors_[i]);
  }

  VectorSearch(const VectorSearch&) = delete;  // best_ points into ids_
  VectorSearch& operator=(const VectorSearch&) = delete;

  // Compares documents, best some hundreds at a time, with all queries. Throws Error: cancelled,
  // overflow (2^32 documents), and that of the first document without vectors.
  void add(std::span<const TextRecord> documents, const CallOptions& call = {}) {
    // An embedder puts instructions before texts of kind query only.
    const bool instructed = options_.passage_instruction.state == Instruction::State::given;
    std::vector<Text> texts;
    for (const TextRecord& document : documents) {
      texts.push_back({document.text, instructed ? TextKind::query : TextKind::passage, nullptr});
    }
    const std::vector<EmbedResult> vectors =
        embedder_.embed(texts, embed_options(options_.passage_instruction), call);
    const std::size_t first = ids_.size();
    narrow<std::uint32_t>(first + documents.size(), "number of documents");
    for (std::size_t i = 0; i < documents.size(); ++i) {
      refuse_error(documents[i], vectors[i]);
      tokens_ += vectors[i].tokens;
      ids_.push_back(documents[i].id);
    }
    parallel_for(threads_, static_cast<std::int64_t>(queries_.size()), [&](std::int64_t index) {
      const auto query = static_cast<std::size_t>(index);
      for (std::size_t i = 0; i < vectors.size(); ++i) {
        best_[query].add({static_cast<std::uint32_t>(first + i), score(query, vectors[i])});
      }
    });
  }

  std::size_t size() const { return ids_.size(); }
  // That the documents had.
  std::int64_t tokens() const { return tokens_; }

  // The best documents of each query, in the order of the queries.
  Run take() {
    Run run;
    for (std::size_t i = 0; i < queries_.size(); ++i) {
      run.push_back({queries_[i].id, best_[i].take()});
    }
    return run;
  }

 private:
  static void refuse_error(const TextRecord& record, const EmbedResult& result) {
    if (!result.error) return;
    fail(result.error->error_class(), "text ", quote(record.id), ": ", result.error->message());
  }

  EmbedOptions embed_options(const Instruction& instruction) const {
    EmbedOptions options;
    options.max_length = options_.max_length;
    options.query_instruction = instruction;
    const VectorScore wanted = options_.score;
    options.dense = wanted != VectorScore::sparse && wanted != VectorScore::colbert;
    options.sparse = wanted != VectorScore::dense && wanted != VectorScore::colbert;
    options.colbert = wanted == VectorScore::colbert || wanted == VectorScore::colbert_sparse_dense;
    return options;
  }

  float score(std::size_t query, const EmbedResult& document) const {
    const M3Scores scores = m3_scores(query_vectors_[query], document, options_.weights);
    switch (options_.score) {
      case VectorScore::dense:
        return scores.dense;
      case VectorScore::sparse:
        return scores.sparse;
      case VectorScore::colbert:
        return scores.colbert;
      case VectorScore::sparse_dense:
        return scores.sparse_dense;
      default:
        return scores.colbert_sparse_dense;
    }
  }

  const Embedder& embedder_;
  VectorSearchOptions options_;
  int threads_;
  std::vector<TextRecord> queries_;
  std::vector<EmbedResult> query_vectors_;
  std::vector<std::string> ids_;  // of the documents
  std::vector<TopK> best_;        // (queries)
  std::int64_t tokens_ = 0;
};

}  // namespace terse
