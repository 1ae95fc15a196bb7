// Candidates of one query scored by whichever kind of model is at hand; an embedder embeds each
// distinct text once, however many queries have it among their candidates.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "document_scorer.h"
#include "documents.h"
#include "model_options.h"
#include "terse/error.h"
#include "terse/evaluate/text_map.h"
#include "vector_cache.h"

namespace terse_tools {

class RunScorer {
 public:
  // options: for an embedder max_length and the instructions. Throws Error: what loading throws;
  // unsupported (options that an embedder does not have).
  RunScorer(const ModelOptions& model, const terse::ScoreOptions& options) : options_(options) {
    if (model.is_embedder()) {
      refuse_reranker_options(options, "ranking embedder");
      model_.emplace<terse::Embedder>(model.load_embedder());
    } else {
      model_.emplace<terse::Reranker>(model.load_reranker());
    }
  }

  // Scores of the documents, in their order. Throws Error: cancelled, memory, device, io.
  std::vector<DocumentScore> score(const std::string& query, std::span<const Document> documents,
                                   const terse::CallOptions& call) {
    if (const auto* reranker = std::get_if<terse::Reranker>(&model_)) {
      return rerank(*reranker, query, documents, call);
    }
    return compare(query, documents, call);
  }

  // Tokens that the model has read.
  std::uint64_t tokens() const { return tokens_; }

 private:
  // The vector of a text, or why it has none.
  struct Vector {
    std::vector<float> values;
    std::optional<terse::Error> error;
  };

  std::vector<DocumentScore> rerank(const terse::Reranker& reranker, const std::string& query,
                                    std::span<const Document> documents,
                                    const terse::CallOptions& call) {
    std::vector<DocumentScore> scores;
    for (std::size_t begin = 0; begin < documents.size(); begin += kChunkItems) {
      const auto chunk = documents.subspan(begin, std::min(kChunkItems, documents.size() - begin));
      std::vector<terse::Pair> pairs;
      for (const Document& document : chunk) pairs.push_back({query, document.text});
      for (const terse::ScoreResult& result : reranker.score_each(pairs, options_, call)) {
        tokens_ += static_cast<std::uint64_t>(result.tokens);
        warnings_.print(result.warnings);
        scores.push_back({scores.size(), result.error ? 0 : result.score(), result.error});
      }
    }
    return scores;
  }

  std::vector<DocumentScore> compare(const std::string& query, std::span<const Document> documents,
                                     const terse::CallOptions& call) {
    std::vector<std::string_view> texts;
    for (const Document& document : documents) texts.push_back(document.text);
    // An embedder puts instructions before texts of kind query only.
    const bool instructed = options_.passage_instruction.state == terse::Instruction::State::given;
    const auto passage_kind = instructed ? terse::TextKind::query : terse::TextKind::passage;
    const std::string_view query_text = query;
    const auto query_vector =
        embed({&query_text, 1}, terse::TextKind::query, options_.query_instruction, queries_, call);
    const auto vectors = embed(texts, passage_kind, options_.passage_instruction, passages_, call);
    std::vector<DocumentScore> scores;
    for (const Vector& vector : vectors) {
      DocumentScore score{scores.size()};
      score.error = query_vector[0].error ? query_vector[0].error : vector.error;
      if (!score.error) score.score = terse::dot(query_vector[0].values, vector.values);
      scores.push_back(std::move(score));
    }
    return scores;
  }

  // Vectors of texts, in their order: those that the cache lacks are made, and added to it.
  std::vector<Vector> embed(std::span<const std::string_view> texts, terse::TextKind kind,
                            const terse::Instruction& instruction, VectorCache& cache,
                            const terse::CallOptions& call) {
    std::vector<terse::Text> missing;
    terse::TextMap<Vector> made;
    for (const std::string_view text : texts) {
      if (made.find(text) != made.end()) continue;
      auto known = cache.find(text);
      if (!known) missing.push_back({std::string(text), kind, nullptr});
      made.emplace(std::string(text), Vector{std::move(known).value_or(std::vector<float>()), {}});
    }
    terse::EmbedOptions options;
    options.max_length = options_.max_length;
    options.query_instruction = instruction;
    auto results = std::get<terse::Embedder>(model_).embed(missing, options, call);
    for (std::size_t i = 0; i < missing.size(); ++i) {
      tokens_ += static_cast<std::uint64_t>(results[i].tokens);
      if (!results[i].error) cache.add(missing[i].text, results[i].dense);
      made.find(missing[i].text)->second = {std::move(results[i].dense), results[i].error};
    }
    std::vector<Vector> vectors;
    for (const std::string_view text : texts) vectors.push_back(made.find(text)->second);
    return vectors;
  }

  terse::ScoreOptions options_;
  std::variant<std::monostate, terse::Reranker, terse::Embedder> model_;
  VectorCache queries_;
  VectorCache passages_;
  std::uint64_t tokens_ = 0;
  Warnings warnings_;
};

}  // namespace terse_tools
