// The pieces of a SentencePiece file: text, score and type by id, and the ways to find them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/tokenizer/merge_seams.h"
#include "terse/tokenizer/sentencepiece_proto.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/trie.h"
#include "terse/tokenizer/vocabulary.h"

namespace terse {

class SentencePieceTable {
 public:
  // Throws Error(tokenizer) if two pieces have the same text.
  SentencePieceTable(const SentencePieceProto& proto, std::string_view source);

  // The pieces that segmentation may use: normal and user-defined ones, and for BPE, which takes
  // them apart again, the unused ones.
  const Trie& matchable() const { return matchable_; }

  // Where a BPE model cannot merge across.
  const MergeSeams& seams() const { return seams_; }

  // The id of a piece of any type; -1 if there is none.
  TokenId find(std::string_view text) const {
    const TokenId id = reserved_.find(text);
    return id >= 0 ? id : matchable_.find(text);
  }
  std::string_view text(TokenId id) const { return texts_[id]; }
  std::size_t size() const { return types_.size(); }
  PieceType type(TokenId id) const { return types_[static_cast<std::size_t>(id)]; }
  float score(TokenId id) const { return scores_[static_cast<std::size_t>(id)]; }
  // BPE only: the place of a piece's score among all scores, from the highest on; equal scores have
  // one rank.
  std::uint32_t rank(TokenId id) const { return ranks_[static_cast<std::size_t>(id)]; }
  TokenId unk_id() const { return unk_id_; }
  TokenId byte_id(char byte) const { return byte_ids_[static_cast<unsigned char>(byte)]; }

  // Extremes over the normal pieces, with the reference's starting values, FLT_MAX and FLT_MIN: the
  // maximum is never below the smallest positive float.
  float min_score() const { return min_score_; }
  float max_score() const { return max_score_; }

 private:
  void add(TokenId id, const SentencePieceProto::Piece& piece);
  void rank_scores();
  void check_unique(std::string_view source) const;

  Vocabulary texts_;
  std::vector<float> scores_;
  std::vector<std::uint32_t> ranks_;
  std::vector<PieceType> types_;
  Trie matchable_;
  Trie reserved_;  // all others
  MergeSeams seams_;
  std::array<TokenId, 256> byte_ids_{};
  TokenId unk_id_ = -1;
  float min_score_ = std::numeric_limits<float>::max();
  float max_score_ = std::numeric_limits<float>::min();
};

inline SentencePieceTable::SentencePieceTable(const SentencePieceProto& proto,
                                              std::string_view source) {
  const bool is_bpe = proto.model_type == SentencePieceProto::ModelType::bpe;
  std::vector<Trie::Entry> matchable;
  std::vector<Trie::Entry> reserved;
  std::size_t bytes = 0;
  for (const auto& piece : proto.pieces) bytes += piece.text.size();
  texts_.reserve(proto.pieces.size(), bytes);
  scores_.reserve(proto.pieces.size());
  types_.reserve(proto.pieces.size());
  for (const auto& piece : proto.pieces) {
    const auto id = static_cast<TokenId>(size());
    const bool is_matchable = piece.type == PieceType::normal ||
                              piece.type == PieceType::user_defined ||
                              (piece.type == PieceType::unused && is_bpe);
    (is_matchable ? matchable : reserved).push_back({piece.text, id});
    if (is_matchable && is_bpe) seams_.add_inside(piece.text);
    texts_.add(id, piece.text, source);
    add(id, piece);
  }
  texts_.finish();
  matchable_ = Trie(matchable);
  reserved_ = Trie(reserved);
  check_unique(source);
  if (is_bpe) rank_scores();
}

inline void SentencePieceTable::rank_scores() {
  std::vector<float> falling = scores_;
  std::sort(falling.begin(), falling.end(), std::greater<>());
  falling.erase(std::unique(falling.begin(), falling.end()), falling.end());
  ranks_.reserve(scores_.size());
  for (const float score : scores_) {
    const auto at = std::lower_bound(falling.begin(), falling.end(), score, std::greater<>());
    ranks_.push_back(static_cast<std::uint32_t>(at - falling.begin()));
  }
}

inline void SentencePieceTable::add(TokenId id, const SentencePieceProto::Piece& piece) {
  scores_.push_back(piece.score);
  types_.push_back(piece.type);
  if (piece.type == PieceType::normal) {
    min_score_ = std::min(min_score_, piece.score);
    max_score_ = std::max(max_score_, piece.score);
  } else if (piece.type == PieceType::unknown) {
    unk_id_ = id;
  } else if (piece.type == PieceType::byte) {
    byte_ids_[static_cast<std::size_t>(byte_of_piece(piece.text))] = id;
  }
}

inline void SentencePieceTable::check_unique(std::string_view source) const {
  for (std::size_t index = 0; index < size(); ++index) {
    const auto id = static_cast<TokenId>(index);
    const std::string_view piece = text(id);
    const bool is_unique = (reserved_.find(piece) < 0) != (matchable_.find(piece) < 0);
    if (find(piece) != id || !is_unique) {
      fail(ErrorClass::tokenizer, source, ": piece ", quote(piece), " is given twice");
    }
  }
}

}  // namespace terse
