// Texts to rows of tokens: instructions, lengths, truncation and the layout of a cross-encoder
// pair. Source: FlagEmbedding 1.4.0, FlagEmbedding/inference/reranker/encoder_only/base.py and abc;
// chunks: modeling_xlm_roberta.py of jina-reranker-v2-base-multilingual.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terse/error.h"
#include "terse/models/model.h"
#include "terse/options.h"
#include "terse/tokenizer/tokenizer.h"

namespace terse {

inline constexpr std::int64_t kDefaultMaxLength = 512;

// Throws Error(unsupported) if options ask an encoder for what only decoder rerankers have.
inline void refuse_decoder_options(const ScoreOptions& options, std::string_view architecture) {
  const auto refuse = [&](bool set, std::string_view name) {
    check(!set, ErrorClass::unsupported, name, " is set, but a ", architecture,
          " has no such choice");
  };
  refuse(options.prompt.has_value(), "prompt");
  refuse(!options.cutoff_layers.empty(), "cutoff_layers");
  refuse(options.compress_layers.has_value(), "compress_layers");
  refuse(options.compress_ratio.has_value(), "compress_ratio");
  refuse(options.heads.has_value(), "heads");
  refuse(options.attention_softcap != Switch::automatic, "attention_softcap");
  refuse(options.gelu != Gelu::automatic, "gelu");
}

// format with its first two "{}" replaced by instruction and text; a literal backslash-n becomes a
// newline, as the reference does. Throws Error(schema) unless there are exactly two "{}".
inline std::string format_instruction(std::string format, std::string_view instruction,
                                      std::string_view text) {
  for (std::size_t at = 0; (at = format.find("\\n", at)) != std::string::npos; ++at) {
    format.replace(at, 2, "\n");
  }
  const std::size_t first = format.find("{}");
  const std::size_t second = first == std::string::npos ? first : format.find("{}", first + 2);
  check(second != std::string::npos && format.find("{}", second + 2) == std::string::npos,
        ErrorClass::schema, "instruction format ", quote(format), ", expected two {}");
  std::string out = format.substr(0, first);
  out += instruction;
  out += std::string_view(format).substr(first + 2, second - first - 2);
  out += text;
  out += std::string_view(format).substr(second + 2);
  return out;
}

// text with the instruction applied; `fallback` is the model's default, empty for none.
inline std::string with_instruction(const Instruction& instruction, std::string_view fallback,
                                    std::string_view text) {
  if (instruction.state == Instruction::State::given) {
    return format_instruction(instruction.format, instruction.text, text);
  }
  if (instruction.state == Instruction::State::none || fallback.empty()) return std::string(text);
  return format_instruction(instruction.format, fallback, text);
}

// The row length of a call: as asked, inside what the model allows, by default 512 or the most it
// allows. Throws Error(range).
inline std::int64_t max_length(const std::optional<std::int64_t>& asked,
                               std::int64_t default_length, std::int64_t least, std::int64_t most) {
  if (!asked) return std::min(default_length, most);
  check(*asked >= least && *asked <= most, ErrorClass::range, "max_length ", *asked, ", expected ",
        least, " to ", most, " for this model");
  return *asked;
}

inline std::int64_t query_max_length(const ScoreOptions& options, std::int64_t max_length) {
  const std::int64_t length = options.query_max_length.value_or(max_length * 3 / 4);
  check(length >= 1, ErrorClass::range, "query_max_length ", length, ", expected at least 1");
  return length;
}

// Throws Error(unsupported) if options name a query_max_length where rows are cut in another way.
inline void refuse_query_max_length(const ScoreOptions& options) {
  check(!options.query_max_length, ErrorClass::unsupported,
        "query_max_length is set, but this way of truncation does not cut the query on its own");
}

// Cuts the second of two lengths so that both fit the budget. The reference leaves both as they are
// when the excess is not smaller than the second, and so does this: what then happens with the
// over-long row is the model's affair.
inline std::int64_t cut_second(std::int64_t first, std::int64_t second, std::int64_t budget) {
  const std::int64_t excess = first + second - budget;
  return excess <= 0 || excess >= second ? second : second - excess;
}

// Rows of query and passage for a cross-encoder, special tokens by the tokenizer's own template.
class CrossEncoderLayout {
 public:
  // max_tokens: the longest row the model has positions for.
  CrossEncoderLayout(const Tokenizer& tokenizer, std::int64_t max_tokens)
      : tokenizer_(&tokenizer),
        max_tokens_(max_tokens),
        specials_(static_cast<std::int64_t>(tokenizer.num_special_tokens(true))) {}

  // One row, or one per chunk. Throws Error: range (lengths), limit (Truncation::error and too
  // long, or a row longer than the model's positions).
  std::vector<Input> assemble(const PairTokens& pair, const ScoreOptions& options) const {
    const auto [query, passage, empty_passage] = pair;
    const std::int64_t length =
        max_length(options.max_length, kDefaultMaxLength, specials_, max_tokens_);
    if (options.truncation != Truncation::passage) refuse_query_max_length(options);
    switch (options.truncation) {
      case Truncation::passage:
        return {cut_passage(query, passage, length, query_max_length(options, length))};
      case Truncation::longest_first:
        return {empty_passage ? query_alone(query, length) : cut_longest(query, passage, length)};
      case Truncation::error:
        check(size(query) + size(passage) + specials_ <= length, ErrorClass::limit, "a pair of ",
              size(query) + size(passage) + specials_, " tokens, max_length is ", length);
        return {row(query, passage, false)};
      case Truncation::chunk:
        break;
    }
    return chunks(query, passage, length);
  }

 private:
  using Ids = std::span<const TokenId>;

  static std::int64_t size(Ids ids) { return static_cast<std::int64_t>(ids.size()); }
  static Ids first(Ids ids, std::int64_t count) {
    return ids.first(static_cast<std::size_t>(std::min(count, size(ids))));
  }

  Input row(Ids query, Ids passage, bool truncated) const {
    check(size(query) + size(passage) + specials_ <= max_tokens_, ErrorClass::limit, "a pair of ",
          size(query) + size(passage) + specials_, " tokens, the model has positions for ",
          max_tokens_);
    const TokenSequence second{{passage.begin(), passage.end()}, {}};
    Encoding encoding =
        tokenizer_->assemble({{query.begin(), query.end()}, {}}, &second, EncodeOptions{});
    return {std::move(encoding.ids), std::move(encoding.type_ids), truncated};
  }

  Input cut_passage(Ids query, Ids passage, std::int64_t length, std::int64_t query_length) const {
    const Ids q = first(query, query_length);
    Ids p = first(passage, length);
    p = first(p, cut_second(size(q), size(p), length - specials_));
    return row(q, p, q.size() < query.size() || p.size() < passage.size());
  }

  Input cut_longest(Ids query, Ids passage, std::int64_t length) const {
    const SequenceLengths kept = truncated_lengths({query.size(), passage.size()},
                                                   static_cast<std::size_t>(length - specials_),
                                                   TruncationStrategy::longest_first);
    return row(query.first(kept.first), passage.first(kept.second),
               kept.first < query.size() || kept.second < passage.size());
  }

  // The tokenizer call of transformers takes an empty second text for none at all.
  Input query_alone(Ids query, std::int64_t length) const {
    EncodeOptions options;
    options.max_length = static_cast<std::size_t>(length);
    Encoding encoding = tokenizer_->assemble({{query.begin(), query.end()}, {}}, nullptr, options);
    return {std::move(encoding.ids), std::move(encoding.type_ids), encoding.truncated};
  }

  // Passages that do not fit are read in windows of `room` tokens that overlap by min(80, room /
  // 4), the last one moved back so that it is full. Half of the special tokens of a pair belong to
  // the query's own encoding, which is cut to 512.
  std::vector<Input> chunks(Ids query, Ids passage, std::int64_t length) const {
    constexpr std::int64_t kQueryTokens = 512;
    constexpr std::int64_t kOverlap = 80;
    const auto alone = static_cast<std::int64_t>(tokenizer_->num_special_tokens(false));
    const Ids q = first(query, kQueryTokens - alone);
    const std::int64_t room = length - size(q) - specials_;
    check(room >= 1, ErrorClass::limit, "a query of ", size(q), " tokens leaves no room for a ",
          "passage, max_length is ", length);
    const bool cut = q.size() < query.size();
    if (size(passage) <= room) return {row(q, passage, cut)};
    std::vector<Input> rows;
    const std::int64_t step = room - std::min(kOverlap, room / 4);
    for (std::int64_t begin = 0;; begin += step) {
      const bool last = begin + room >= size(passage);
      const std::int64_t from = last ? size(passage) - room : begin;
      rows.push_back(row(
          q, passage.subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(room)), cut));
      if (last) return rows;
    }
  }

  const Tokenizer* tokenizer_;
  std::int64_t max_tokens_;
  std::int64_t specials_;
};

// The row of one text for an embedder: the tokenizer's template around it, its end cut.
inline Input single_input(const Tokenizer& tokenizer, std::string_view text, std::int64_t length) {
  EncodeOptions options;
  options.max_length = static_cast<std::size_t>(length);
  Encoding encoding = tokenizer.encode(text, options);
  return {std::move(encoding.ids), std::move(encoding.type_ids), encoding.truncated};
}

}  // namespace terse
