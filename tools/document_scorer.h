// Documents scored against queries by whichever kind of model is at hand: a reranker reads each
// pair, an embedder compares vectors, of which each document's is made once.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "command.h"
#include "model_options.h"
#include "pair_lines.h"
#include "terse/error.h"
#include "terse/models/input.h"

namespace terse_tools {

struct DocumentScore {
  std::size_t document = 0;  // its index
  float score = 0;
  std::optional<terse::Error> error = {};
};

// Throws Error(unsupported) naming an option of rerankers that has no effect on an embedder, which
// messages call `user`.
inline void refuse_reranker_options(const terse::ScoreOptions& options, std::string_view user) {
  terse::refuse_decoder_options(options, user);
  const auto refuse = [&](bool set, std::string_view name) {
    terse::check(!set, terse::ErrorClass::unsupported, name, " is set, but a ", user,
                 " has no such choice");
  };
  refuse(options.query_max_length.has_value(), "query_max_length");
  refuse(options.truncation != terse::Truncation::passage, "truncation");
  refuse(options.normalize, "normalize");
}

class DocumentScorer {
 public:
  // options: for an embedder max_length and the instructions. Throws Error: what loading throws;
  // unsupported (options that an embedder does not have).
  DocumentScorer(const ModelOptions& model, const terse::ScoreOptions& options,
                 std::vector<std::string> documents)
      : options_(options), documents_(std::move(documents)), vectors_(documents_.size()) {
    if (model.is_embedder()) {
      refuse_reranker_options(options, "ranking embedder");
      model_.emplace<terse::Embedder>(model.load_embedder());
    } else {
      model_.emplace<terse::Reranker>(model.load_reranker());
    }
  }

  // Scores of the documents with these indices, in their order. Throws Error: cancelled, memory,
  // device.
  std::vector<DocumentScore> score(const std::string& query, std::span<const std::size_t> documents,
                                   const terse::CallOptions& call) {
    std::vector<DocumentScore> scores;
    for (const std::size_t document : documents) scores.push_back({document});
    if (const auto* reranker = std::get_if<terse::Reranker>(&model_)) {
      rerank(*reranker, query, scores, call);
    } else {
      compare(std::get<terse::Embedder>(model_), query, scores, call);
    }
    return scores;
  }

 private:
  struct Vector {
    std::vector<float> values;  // empty: not made yet
    std::optional<terse::Error> error;
  };

  void rerank(const terse::Reranker& reranker, const std::string& query,
              std::span<DocumentScore> scores, const terse::CallOptions& call) {
    for (std::size_t begin = 0; begin < scores.size(); begin += kChunkItems) {
      const auto chunk = scores.subspan(begin, std::min(kChunkItems, scores.size() - begin));
      std::vector<terse::Pair> pairs;
      for (const DocumentScore& score : chunk) {
        pairs.push_back({query, documents_[score.document]});
      }
      const auto results = reranker.score_each(pairs, options_, call);
      for (std::size_t i = 0; i < chunk.size(); ++i) {
        chunk[i].error = results[i].error;
        if (!results[i].error) chunk[i].score = results[i].score();
        warnings_.print(results[i].warnings);
      }
    }
  }

  void compare(const terse::Embedder& embedder, const std::string& query,
               std::span<DocumentScore> scores, const terse::CallOptions& call) {
    std::vector<std::size_t> missing;
    for (const DocumentScore& score : scores) {
      const Vector& vector = vectors_[score.document];
      if (vector.values.empty() && !vector.error) missing.push_back(score.document);
    }
    for (std::size_t begin = 0; begin < missing.size(); begin += kChunkItems) {
      embed(embedder,
            std::span<const std::size_t>(missing).subspan(
                begin, std::min(kChunkItems, missing.size() - begin)),
            call);
    }
    const terse::Text text{query, terse::TextKind::query, nullptr};
    const auto found = embedder.embed({&text, 1}, embed_options(options_.query_instruction), call);
    for (DocumentScore& score : scores) {
      const Vector& vector = vectors_[score.document];
      score.error = found[0].error ? found[0].error : vector.error;
      if (!score.error) score.score = terse::dot(found[0].dense, vector.values);
    }
  }

  void embed(const terse::Embedder& embedder, std::span<const std::size_t> documents,
             const terse::CallOptions& call) {
    // An embedder puts instructions before texts of kind query only.
    const bool instructed = options_.passage_instruction.state == terse::Instruction::State::given;
    const auto kind = instructed ? terse::TextKind::query : terse::TextKind::passage;
    std::vector<terse::Text> texts;
    for (const std::size_t document : documents) {
      texts.push_back({documents_[document], kind, nullptr});
    }
    auto results = embedder.embed(texts, embed_options(options_.passage_instruction), call);
    for (std::size_t i = 0; i < documents.size(); ++i) {
      vectors_[documents[i]] = {std::move(results[i].dense), results[i].error};
    }
  }

  terse::EmbedOptions embed_options(const terse::Instruction& instruction) const {
    terse::EmbedOptions options;
    options.max_length = options_.max_length;
    options.query_instruction = instruction;
    return options;
  }

  terse::ScoreOptions options_;
  std::vector<std::string> documents_;
  std::vector<Vector> vectors_;  // of documents, embedders only
  std::variant<std::monostate, terse::Reranker, terse::Embedder> model_;
  Warnings warnings_;
};

}  // namespace terse_tools
