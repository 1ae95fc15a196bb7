// The WordPiece model of tokenizer.json (BERT, bge-*-en-v1.5, bge-*-zh-v1.5).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/tokenizer/prebuilt.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/token_model.h"
#include "terse/tokenizer/trie.h"
#include "terse/tokenizer/vocabulary.h"

namespace terse {

// Splits a word greedily into its longest pieces from the left; every piece but the first carries
// the continuing_subword_prefix. Immutable; encode() may be called from several threads.
class WordPiece : public TokenModel {
 public:
  static constexpr std::string_view kType = "WordPiece";
  std::string_view type() const override { return kType; }

  // Reads {"vocab": {piece: id}, "unk_token", "continuing_subword_prefix" = "##",
  // "max_input_chars_per_word" = 100}. Throws Error: schema (wrong kinds), tokenizer (no pieces, no
  // unk_token among them), range (an id too large), limit.
  static WordPiece from_json(JsonValue model) { return from(model, nullptr); }

  // The same from the arrays that save() stored; `model` is without its vocab. Throws Error: those,
  // and missing, schema, tokenizer (arrays that contradict each other).
  static WordPiece from_prebuilt(JsonValue model, const PrebuiltArrays& arrays) {
    return from(model, &arrays);
  }
  bool save(PrebuiltArrays& arrays) const override {
    vocabulary_.save(arrays);
    initial_.save(arrays, "initial");
    continuation_.save(arrays, "continuation");
    return true;
  }

  // Appends the ids of word, which is valid UTF-8; the whole word is one unk if it is too long or
  // some part of it is no piece. Source: huggingface/tokenizers models/wordpiece/mod.rs.
  inline void encode(std::string_view word, std::vector<TokenId>* ids) const override;

  std::optional<TokenId> token_to_id(std::string_view text) const override {
    const TokenId id = initial_.find(text);
    return id >= 0 ? std::optional(id) : std::nullopt;
  }
  std::string_view id_to_token(TokenId id) const override { return vocabulary_[id]; }
  std::size_t vocab_size() const override { return vocabulary_.size(); }

  std::string describe() const override {
    return "WordPiece: " + std::to_string(vocabulary_.num_pieces()) + " pieces, prefix " +
           quote(prefix_) + ", unk id " + std::to_string(unk_id_) + ", words of at most " +
           std::to_string(max_input_chars_per_word_) + " characters";
  }

 private:
  static WordPiece from(JsonValue model, const PrebuiltArrays* arrays);
  void read_vocab(JsonValue model);

  Vocabulary vocabulary_;
  Trie initial_;       // all pieces, as they begin a word
  Trie continuation_;  // those with the prefix, without it
  std::string prefix_ = "##";
  std::uint64_t max_input_chars_per_word_ = 100;
  TokenId unk_id_ = -1;
};

inline WordPiece WordPiece::from(JsonValue model, const PrebuiltArrays* arrays) {
  WordPiece word_piece;
  if (const auto prefix = model.find("continuing_subword_prefix"); prefix && !prefix->is_null()) {
    word_piece.prefix_ = prefix->as_string("model.continuing_subword_prefix");
  }
  if (const auto max = model.find("max_input_chars_per_word"); max && !max->is_null()) {
    check(max->get_unsigned(&word_piece.max_input_chars_per_word_), ErrorClass::schema,
          model.source(), ": model.max_input_chars_per_word is ", max->describe(),
          ", expected a count");
  }
  if (arrays == nullptr) {
    word_piece.read_vocab(model);
  } else {
    word_piece.vocabulary_ = Vocabulary(*arrays);
    word_piece.initial_ = Trie(*arrays, "initial", word_piece.vocab_size());
    word_piece.continuation_ = Trie(*arrays, "continuation", word_piece.vocab_size());
  }
  const auto unk_token = model.find("unk_token");
  const std::string_view unk =
      unk_token ? unk_token->as_string("model.unk_token") : std::string_view("[UNK]");
  word_piece.unk_id_ = word_piece.initial_.find(unk);
  check(word_piece.unk_id_ >= 0, ErrorClass::tokenizer, model.source(), ": model.unk_token ",
        quote(unk), " is not in the vocabulary");
  return word_piece;
}

inline void WordPiece::read_vocab(JsonValue model) {
  std::vector<Trie::Entry> initial;
  std::vector<Trie::Entry> continuation;
  for_each_vocab_member(model, [&](std::string_view piece, TokenId id) {
    vocabulary_.add(id, piece, model.source());
    initial.push_back({piece, id});
    if (piece.starts_with(prefix_) && piece.size() > prefix_.size()) {
      continuation.push_back({piece.substr(prefix_.size()), id});
    }
  });
  vocabulary_.finish();
  initial_ = Trie(initial);
  continuation_ = Trie(continuation);
}

inline void WordPiece::encode(std::string_view word, std::vector<TokenId>* ids) const {
  if (word.empty()) return;
  const auto num_chars = static_cast<std::uint64_t>(
      std::count_if(word.begin(), word.end(), [](char byte) { return (byte & 0xc0) != 0x80; }));
  const std::size_t first = ids->size();
  bool known = num_chars <= max_input_chars_per_word_;
  for (std::size_t begin = 0; known && begin < word.size();) {
    const Trie& pieces = begin == 0 ? initial_ : continuation_;
    const Trie::Match piece = pieces.longest_prefix(word.substr(begin));
    known = piece.length > 0;
    ids->push_back(piece.value);
    begin += piece.length;
  }
  if (!known) {
    ids->resize(first);
    ids->push_back(unk_id_);
  }
}

}  // namespace terse
