// The Unigram model of tokenizer.json (XLM-R, bge-m3, bge-reranker-base/large/v2-m3).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/tokenizer/best_path.h"
#include "terse/tokenizer/component.h"
#include "terse/tokenizer/prebuilt.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/token_model.h"
#include "terse/tokenizer/trie.h"
#include "terse/tokenizer/vocabulary.h"

namespace terse {

// Splits a pre-token into the pieces with the greatest sum of scores. Immutable; encode() may be
// called from several threads.
class Unigram : public TokenModel {
 public:
  static constexpr std::string_view kType = "Unigram";
  std::string_view type() const override { return kType; }

  // Reads {"unk_id": id or null, "byte_fallback": bool, "vocab": [[piece, score], ...]}.
  // Throws Error: schema (wrong kinds), tokenizer (no pieces, an empty one), range (unk_id outside
  // the list), limit.
  static Unigram from_json(JsonValue model);

  // The same from the arrays that save() stored; `model` is without its vocab. Throws Error: those,
  // and missing, schema, tokenizer (arrays that contradict each other).
  static Unigram from_prebuilt(JsonValue model, const PrebuiltArrays& arrays);
  bool save(PrebuiltArrays& arrays) const override {
    vocabulary_.save(arrays);
    arrays.add("scores", scores_);
    trie_.save(arrays, "trie");
    return true;
  }

  // Appends the ids of pre_token, which is valid UTF-8. Throws Error(tokenizer) if a character is
  // unknown and the model has no unk_id.
  // Source: huggingface/tokenizers models/unigram/model.rs (sums in 64 bits, unlike SentencePiece).
  inline void encode(std::string_view pre_token, std::vector<TokenId>* ids) const override;

  std::optional<TokenId> token_to_id(std::string_view text) const override {
    const TokenId id = trie_.find(text);
    return id >= 0 ? std::optional(id) : std::nullopt;
  }
  std::string_view id_to_token(TokenId id) const override { return vocabulary_[id]; }
  std::size_t vocab_size() const override { return vocabulary_.size(); }

  std::string describe() const override {
    return "Unigram: " + std::to_string(vocab_size()) + " pieces, " +
           (unk_id_ >= 0 ? "unk id " + std::to_string(unk_id_) : "no unk id") +
           (byte_fallback_ ? ", byte fallback" : "");
  }

 private:
  // What an unknown character costs below the worst piece.
  static constexpr double kUnkPenalty = 10.0;

  void read_vocab(JsonValue model);
  void read_unk_id(JsonValue model);
  void finish(JsonValue model);
  void append_unknown(std::string_view text, std::vector<TokenId>* ids) const;

  Vocabulary vocabulary_;
  FlatArray<double> scores_;  // by id
  Trie trie_;
  std::array<TokenId, 256> byte_ids_;  // of "<0x00>" to "<0xFF>"; -1 if absent
  double unk_score_ = 0;
  TokenId unk_id_ = -1;
  bool byte_fallback_ = false;
};

inline Unigram Unigram::from_json(JsonValue model) {
  Unigram unigram;
  unigram.read_vocab(model);
  unigram.finish(model);
  return unigram;
}

inline Unigram Unigram::from_prebuilt(JsonValue model, const PrebuiltArrays& arrays) {
  Unigram unigram;
  unigram.vocabulary_ = Vocabulary(arrays);
  unigram.scores_ = arrays.get<double>("scores");
  arrays.require(unigram.scores_.size() == unigram.vocab_size(), "scores");
  unigram.trie_ = Trie(arrays, "trie", unigram.vocab_size());
  unigram.finish(model);
  return unigram;
}

// What follows from the vocabulary and the rest of the model.
inline void Unigram::finish(JsonValue model) {
  unk_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnkPenalty;
  read_unk_id(model);
  byte_fallback_ = flag_field(model, "byte_fallback", false);
  for (std::size_t byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = trie_.find(byte_piece(static_cast<unsigned char>(byte)));
  }
}

inline void Unigram::read_vocab(JsonValue model) {
  const auto vocab = model.find("vocab");
  check(vocab && vocab->is_array(), ErrorClass::schema, model.source(), ": model.vocab is ",
        vocab ? vocab->describe() : "missing", ", expected a list of [piece, score]");
  check(vocab->size() > 0, ErrorClass::tokenizer, model.source(), ": model.vocab is empty");
  std::vector<Trie::Entry> entries;
  std::vector<double> scores;
  entries.reserve(vocab->size());
  scores.reserve(vocab->size());
  std::size_t bytes = 0;
  for (const JsonValue entry : *vocab) {
    const bool is_pair = entry.is_array() && entry.size() == 2;
    const auto piece = entry.begin();
    auto score = piece;
    if (is_pair) ++score;
    check(is_pair && (*piece).is_string() && (*score).is_number(), ErrorClass::schema,
          model.source(), ": model.vocab entry ", entries.size(), " is not [piece, score]");
    const std::string_view text = (*piece).as_string("piece");
    entries.push_back({text, static_cast<TokenId>(entries.size())});
    scores.push_back((*score).as_number("score"));
    bytes += text.size();
  }
  vocabulary_.reserve(entries.size(), bytes);
  for (const Trie::Entry& entry : entries) vocabulary_.add(entry.value, entry.key, model.source());
  vocabulary_.finish();
  trie_ = Trie(entries);
  scores_ = FlatArray(std::move(scores));
}

inline void Unigram::read_unk_id(JsonValue model) {
  const auto member = model.find("unk_id");
  if (!member || member->is_null()) return;
  std::uint64_t id = 0;
  check(member->get_unsigned(&id), ErrorClass::schema, model.source(), ": model.unk_id is ",
        member->describe(), ", expected a token id");
  check(id < vocab_size(), ErrorClass::range, model.source(), ": model.unk_id is ", id,
        ", expected an id below ", vocab_size());
  unk_id_ = static_cast<TokenId>(id);
}

inline void Unigram::encode(std::string_view pre_token, std::vector<TokenId>* ids) const {
  if (pre_token.empty()) return;
  const PathNodes<double> scratch(pre_token.size() + 1);
  const auto nodes = scratch.span();
  const auto score_of = [&](TokenId id, std::size_t) {
    return scores_[static_cast<std::size_t>(id)];
  };
  find_best_path(pre_token, trie_, score_of, unk_score_, unk_id_, nodes);

  // Walk back; a run of unknown characters becomes one piece.
  const std::size_t first = ids->size();
  std::vector<TokenId> unknown;
  for (std::size_t end = pre_token.size(); end > 0;) {
    std::size_t begin = nodes[end].begin;
    if (nodes[end].id != unk_id_) {
      ids->push_back(nodes[end].id);
    } else {
      while (begin > 0 && nodes[begin].id == unk_id_) begin = nodes[begin].begin;
      unknown.clear();
      append_unknown(pre_token.substr(begin, end - begin), &unknown);
      for (std::size_t i = unknown.size(); i-- > 0;) ids->push_back(unknown[i]);
    }
    end = begin;
  }
  std::reverse(ids->begin() + static_cast<std::ptrdiff_t>(first), ids->end());
}

// A fused run is looked up once more, as the reference does: "<unk>" itself ends here, and the
// whole of a run may be a piece where none of its characters is.
inline void Unigram::append_unknown(std::string_view text, std::vector<TokenId>* ids) const {
  const auto id_of_byte = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (const TokenId id = trie_.find(text); id >= 0) {
    ids->push_back(id);
  } else if (byte_fallback_ && std::all_of(text.begin(), text.end(),
                                           [&](char byte) { return id_of_byte(byte) >= 0; })) {
    for (const char byte : text) ids->push_back(id_of_byte(byte));
  } else {
    check(unk_id_ >= 0, ErrorClass::tokenizer, "Unigram model without unk_id: ", quote(text),
          " is not in the vocabulary");
    ids->push_back(unk_id_);
  }
}

}  // namespace terse
