// How a decoder reranker reads a pair: bos, query, separator, passage, separator, prompt, each
// piece tokenized by itself. Source: FlagEmbedding 1.4.0,
// FlagEmbedding/inference/reranker/decoder_only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/models/input.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/models/special_tokens.h"
#include "terse/options.h"
#include "terse/tokenizer/tokenizer.h"
#include "terse/tokenizer/truncate.h"
#include "terse/view.h"

namespace terse {

// Which of FlagEmbedding's classes puts bos in front: the one for plain language models asks
// whether it is another token than the padding, the layer-wise ones do not ask.
enum class PromptBos : std::uint8_t { always, unless_padding };

inline constexpr std::string_view kYesNoPrompt =
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query "
    "by providing a prediction of either 'Yes' or 'No'.";
inline constexpr std::string_view kPredictPrompt =
    "Predict whether passage B contains an answer to query A.";

class PromptLayout {
 public:
  // Throws Error(tokenizer) if bos is always wanted and there is none.
  PromptLayout(const Tokenizer& tokenizer, const SpecialTokens& specials, PromptBos bos,
               std::string_view default_prompt)
      : tokenizer_(&tokenizer),
        separator_(tokenizer.encode("\n")),
        default_prompt_(tokenizer.encode(default_prompt)) {
    check(bos == PromptBos::unless_padding || specials.bos, ErrorClass::tokenizer,
          "the tokenizer names no bos token, which this model's rows start with");
    if (specials.bos && (bos == PromptBos::always || specials.bos != specials.pad)) {
      bos_.push_back(*specials.bos);
    }
  }

  // One row, or one per chunk. Throws Error: range (lengths), limit (Truncation::error and too
  // long, or no room for a chunk).
  std::vector<Input> assemble(std::span<const TokenId> query, std::span<const TokenId> passage,
                              const ScoreOptions& options) const {
    const std::vector<TokenId> own_prompt =
        options.prompt ? tokenizer_->encode(*options.prompt) : std::vector<TokenId>{};
    const Ids prompt = view(options.prompt ? own_prompt : default_prompt_);
    const std::int64_t length =
        max_length(options.max_length, kDefaultMaxLength, 1, ConfigLimits::kPositions);
    // What bos, query, separator and passage may take together.
    const std::int64_t room = length + size(separator_) + size(prompt);
    const std::int64_t texts = room - size(bos_) - size(separator_);
    if (options.truncation == Truncation::longest_first ||
        options.truncation == Truncation::error) {
      refuse_query_max_length(options);
    }
    switch (options.truncation) {
      case Truncation::passage:
        return {cut_passage(query, passage, prompt, length, query_max_length(options, length))};
      case Truncation::longest_first:
        return {cut_longest(query, passage, prompt, texts)};
      case Truncation::error:
        check(size(query) + size(passage) <= texts, ErrorClass::limit, "texts of ", size(query),
              " and ", size(passage), " tokens, max_length ", length, " leaves room for ", texts);
        return {row(query, passage, prompt, false)};
      case Truncation::chunk:
        break;
    }
    return chunks(query, passage, prompt, texts, query_max_length(options, length));
  }

 private:
  using Ids = std::span<const TokenId>;

  static std::int64_t size(Ids ids) { return static_cast<std::int64_t>(ids.size()); }
  static std::int64_t size(const std::vector<TokenId>& ids) { return size(view(ids)); }
  static Ids first(Ids ids, std::int64_t count) {
    return ids.first(static_cast<std::size_t>(std::min(count, size(ids))));
  }

  Input row(Ids query, Ids passage, Ids prompt, bool truncated) const {
    std::vector<TokenId> second = separator_;
    second.insert(second.end(), passage.begin(), passage.end());
    return row_of(query, view(second), prompt, truncated);
  }

  // The first separator counts as query, the second as prompt: neither is ever compressed.
  Input row_of(Ids query, Ids second, Ids prompt, bool truncated) const {
    Input input;
    for (const Ids part : {view(bos_), query, second, view(separator_), prompt}) {
      input.token_ids.insert(input.token_ids.end(), part.begin(), part.end());
    }
    input.truncated = truncated;
    const std::int64_t opening =
        size(bos_) + size(query) + std::min(size(separator_), size(second));
    input.shareable = input.query_length = static_cast<std::int32_t>(opening);
    input.prompt_length = static_cast<std::int32_t>(size(separator_) + size(prompt));
    return input;
  }

  // The query alone to query_length, the passage alone to length; then bos and query against
  // separator and passage, whose end is cut. The reference counts the separator into what may be
  // cut, and where it would have to cut all of it, it cuts nothing.
  Input cut_passage(Ids query, Ids passage, Ids prompt, std::int64_t length,
                    std::int64_t query_length) const {
    const Ids q = first(query, query_length);
    const Ids p = first(passage, length);
    const std::int64_t room = length + size(separator_) + size(prompt);
    const std::int64_t second = size(separator_) + size(p);
    const std::int64_t kept = cut_second(size(bos_) + size(q), second, room);
    std::vector<TokenId> ids = separator_;
    ids.insert(ids.end(), p.begin(), p.end());
    ids.resize(static_cast<std::size_t>(kept));
    return row_of(q, view(ids), prompt,
                  q.size() < query.size() || p.size() < passage.size() || kept < second);
  }

  Input cut_longest(Ids query, Ids passage, Ids prompt, std::int64_t texts) const {
    check(texts >= 1, ErrorClass::limit, "max_length leaves no room for query and passage");
    const SequenceLengths kept =
        truncated_lengths({query.size(), passage.size()}, static_cast<std::size_t>(texts),
                          TruncationStrategy::longest_first);
    return row(query.first(kept.first), passage.first(kept.second), prompt,
               kept.first < query.size() || kept.second < passage.size());
  }

  // Windows of the passage that overlap by min(80, window / 4), the last one moved back so that it
  // is full, as for cross-encoders (input.h).
  std::vector<Input> chunks(Ids query, Ids passage, Ids prompt, std::int64_t texts,
                            std::int64_t query_length) const {
    constexpr std::int64_t kOverlap = 80;
    const Ids q = first(query, query_length);
    const bool cut = q.size() < query.size();
    const std::int64_t window = texts - size(q);
    check(window >= 1, ErrorClass::limit, "a query of ", size(q),
          " tokens leaves no room for a passage");
    if (size(passage) <= window) return {row(q, passage, prompt, cut)};
    std::vector<Input> rows;
    const std::int64_t step = window - std::min(kOverlap, window / 4);
    for (std::int64_t begin = 0;; begin += step) {
      const bool last = begin + window >= size(passage);
      const std::int64_t from = last ? size(passage) - window : begin;
      const Ids part =
          passage.subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(window));
      rows.push_back(row(q, part, prompt, cut));
      if (last) return rows;
    }
  }

  const Tokenizer* tokenizer_;
  std::vector<TokenId> bos_;  // one token or none
  std::vector<TokenId> separator_;
  std::vector<TokenId> default_prompt_;
};

// The part of a decoder reranker that turns texts into rows.
class PromptReranker : public RerankModel {
 public:
  const ModelInfo& info() const override { return info_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }

  std::vector<TokenId> tokenize_query(std::string_view text,
                                      const ScoreOptions& options) const override {
    return tokenizer_->encode(with_instruction(options.query_instruction, "A: ", text));
  }
  std::vector<TokenId> tokenize_passage(std::string_view text,
                                        const ScoreOptions& options) const override {
    return tokenizer_->encode(with_instruction(options.passage_instruction, "B: ", text));
  }
  std::vector<Input> assemble(const PairTokens& pair, const ScoreOptions& options) const override {
    return layout_.assemble(pair.query, pair.passage, options);
  }

 protected:
  PromptReranker(const ModelFolder& folder, ModelInfo info, PromptBos bos,
                 std::string_view default_prompt)
      : tokenizer_(folder.tokenizer),
        layout_(*tokenizer_, read_special_tokens(folder), bos, default_prompt),
        info_(std::move(info)) {
    folder.check_vocabulary(info_.vocab_size);
    info_.role = ModelRole::reranker;
    info_.architecture += " reranker";
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  PromptLayout layout_;
  ModelInfo info_;
};

}  // namespace terse
