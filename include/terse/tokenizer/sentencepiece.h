// Tokenizing with a SentencePiece .model file as the SentencePiece library does, which differs in
// details from the tokenizer.json made of the same file.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/tokenizer/best_path.h"
#include "terse/tokenizer/sentencepiece_bpe.h"
#include "terse/tokenizer/sentencepiece_normalizer.h"
#include "terse/tokenizer/sentencepiece_proto.h"
#include "terse/tokenizer/sentencepiece_table.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/token_model.h"
#include "terse/tokenizer/trie.h"
#include "terse/utf8.h"

namespace terse {

// A unigram or BPE model with its own normalizer. Immutable; encode() may be called from several
// threads.
class SentencePiece : public TokenModel {
 public:
  static constexpr std::string_view kType = "SentencePiece";
  std::string_view type() const override { return kType; }

  // Reads a ModelProto; `source` leads every message. Throws Error: limit, truncated, protobuf,
  // utf8, range, tokenizer (pieces or charsmap that contradict themselves), unsupported (word and
  // character models).
  static SentencePiece from_bytes(std::string_view bytes, std::string_view source) {
    return SentencePiece(SentencePieceProto::parse(bytes, source), std::string(source));
  }

  // Appends the ids of any bytes: malformed UTF-8 counts as U+FFFD, byte by byte.
  // Source: google/sentencepiece 0.1.97, src/sentencepiece_processor.cc.
  inline void encode(std::string_view text, std::vector<TokenId>* ids) const override;

  std::optional<TokenId> token_to_id(std::string_view text) const override {
    const TokenId id = table_.find(text);
    return id >= 0 ? std::optional(id) : std::nullopt;
  }
  std::string_view id_to_token(TokenId id) const override { return table_.text(id); }
  std::size_t vocab_size() const override { return table_.size(); }
  bool is_control(TokenId id) const override { return piece_type(id) == PieceType::control; }
  // The type of the piece with this id, which must be below vocab_size().
  PieceType piece_type(TokenId id) const { return table_.type(id); }
  // Whether encoding puts a space in front, which decoding has to take away.
  bool add_dummy_prefix() const { return normalizer_.add_dummy_prefix(); }

  std::string describe() const override {
    return std::string("SentencePiece ") + (is_bpe_ ? "BPE: " : "unigram: ") +
           std::to_string(vocab_size()) + " pieces, unk id " + std::to_string(table_.unk_id()) +
           (byte_fallback_ ? ", byte fallback" : "");
  }

 private:
  class Output;

  SentencePiece(const SentencePieceProto& proto, const std::string& source)
      : table_(proto, source),
        normalizer_(proto, user_defined_trie(proto), source),
        is_bpe_(proto.model_type == SentencePieceProto::ModelType::bpe),
        byte_fallback_(proto.byte_fallback) {}

  static Trie user_defined_trie(const SentencePieceProto& proto);
  void encode_unigram(std::string_view normalized, Output* output) const;
  void encode_bpe(std::string_view normalized, Output* output) const;

  SentencePieceTable table_;
  SentencePieceNormalizer normalizer_;
  bool is_bpe_;
  bool byte_fallback_;
};

// Receives the pieces of a text in order. Unknown ones become bytes, or else a run of them one id.
class SentencePiece::Output {
 public:
  Output(const SentencePiece& model, std::vector<TokenId>* ids) : model_(model), ids_(ids) {}

  void add(std::string_view piece, TokenId id) {
    const bool is_unknown = id < 0 || id == model_.table_.unk_id();
    if (is_unknown && model_.byte_fallback_) {
      for (const char byte : piece) ids_->push_back(model_.table_.byte_id(byte));
    } else if (!is_unknown || !after_unknown_) {
      ids_->push_back(is_unknown ? model_.table_.unk_id() : id);
    }
    after_unknown_ = is_unknown;
  }

 private:
  const SentencePiece& model_;
  std::vector<TokenId>* ids_;
  bool after_unknown_ = false;
};

inline Trie SentencePiece::user_defined_trie(const SentencePieceProto& proto) {
  std::vector<Trie::Entry> entries;
  for (std::size_t index = 0; index < proto.pieces.size(); ++index) {
    if (proto.pieces[index].type != PieceType::user_defined) continue;
    entries.push_back({proto.pieces[index].text, static_cast<TokenId>(index)});
  }
  return Trie(entries);
}

inline void SentencePiece::encode(std::string_view text, std::vector<TokenId>* ids) const {
  const std::string normalized = normalizer_.apply(text);
  Output output(*this, ids);
  if (is_bpe_) {
    encode_bpe(normalized, &output);
  } else {
    encode_unigram(normalized, &output);
  }
}

// The roundings are the reference's: sums are stored as f32, but a candidate is compared as the f64
// sum of its f32 parts, except for an unknown character's, which is f32 throughout.
inline void SentencePiece::encode_unigram(std::string_view normalized, Output* output) const {
  static constexpr float kUnkPenalty = 10.0F;
  if (normalized.empty()) return;
  const PathNodes<float> scratch(normalized.size() + 1);
  const auto nodes = scratch.span();
  const auto score_of = [&](TokenId id, std::size_t length) -> double {
    if (table_.type(id) != PieceType::user_defined) return table_.score(id);
    // So that a user-defined piece beats every other way to cover its text.
    return static_cast<double>(static_cast<float>(length) * table_.max_score()) - 0.1;
  };
  find_best_path(normalized, table_.matchable(), score_of, table_.min_score() - kUnkPenalty,
                 table_.unk_id(), nodes);

  std::vector<std::size_t> ends;
  for (std::size_t end = normalized.size(); end > 0; end = nodes[end].begin) ends.push_back(end);
  for (std::size_t i = ends.size(); i-- > 0;) {
    const auto& node = nodes[ends[i]];
    output->add(normalized.substr(node.begin, ends[i] - node.begin), node.id);
  }
}

inline void SentencePiece::encode_bpe(std::string_view normalized, Output* output) const {
  SentencePieceMerger merger(table_, normalized,
                             [&](std::string_view piece, TokenId id) { output->add(piece, id); });
  for (std::size_t begin = 0; begin < normalized.size();) {
    const std::size_t piece = normalizer_.user_defined_prefix(normalized.substr(begin)).length;
    const std::size_t size = piece > 0 ? piece : utf8_length(normalized[begin]);
    merger.add(size, piece > 0);
    begin += size;
  }
  merger.finish();
}

}  // namespace terse
