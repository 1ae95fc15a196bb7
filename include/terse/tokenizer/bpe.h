// The BPE model of tokenizer.json (Gemma, Llama, Mistral, MiniCPM; byte-level RoBERTa and GPT-2).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/tokenizer/component.h"
#include "terse/tokenizer/merge_queue.h"
#include "terse/tokenizer/merge_seams.h"
#include "terse/tokenizer/merge_table.h"
#include "terse/tokenizer/prebuilt.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/token_model.h"
#include "terse/tokenizer/trie.h"
#include "terse/tokenizer/vocabulary.h"
#include "terse/utf8.h"

namespace terse {

// Splits a pre-token into characters and merges adjacent pairs, lowest rank first and leftmost
// among equals, until no rule applies (Sennrich et al. 2016, arXiv:1508.07909). Immutable; encode()
// may be called from several threads.
class Bpe : public TokenModel {
 public:
  static constexpr std::string_view kType = "BPE";
  std::string_view type() const override { return kType; }

  // Reads {"vocab": {piece: id}, "merges": ["a b" or [a, b], ...], "unk_token", "fuse_unk",
  // "byte_fallback", "ignore_merges", "continuing_subword_prefix", "end_of_word_suffix",
  // "dropout"}. Throws Error: schema (wrong kinds), tokenizer (no pieces; a merge of or into
  // something that is no piece), range (an id too large, dropout not in [0, 1]), unsupported
  // (dropout above 0: ids would not be repeatable), limit.
  static Bpe from_json(JsonValue model) { return from(model, nullptr); }

  // The same from the arrays that save() stored; `model` is without its vocab and merges. Throws
  // Error: those, and missing, schema, tokenizer (arrays that contradict each other).
  static Bpe from_prebuilt(JsonValue model, const PrebuiltArrays& arrays) {
    return from(model, &arrays);
  }
  bool save(PrebuiltArrays& arrays) const override {
    vocabulary_.save(arrays);
    trie_.save(arrays, "trie");
    merges_.save(arrays);
    seams_.save(arrays);
    return true;
  }

  // Appends the ids of pre_token, which is valid UTF-8, in O(n log n) whatever its length. Throws
  // Error(tokenizer) if an unknown character needs an unk_token that is not in the vocabulary.
  // Source: huggingface/tokenizers models/bpe/model.rs and word.rs.
  inline void encode(std::string_view pre_token, std::vector<TokenId>* ids) const override;

  std::optional<TokenId> token_to_id(std::string_view text) const override {
    const TokenId id = trie_.find(text);
    return id >= 0 ? std::optional(id) : std::nullopt;
  }
  std::string_view id_to_token(TokenId id) const override { return vocabulary_[id]; }
  std::size_t vocab_size() const override { return vocabulary_.size(); }

  std::string describe() const override {
    return "BPE: " + std::to_string(vocabulary_.num_pieces()) + " pieces, " +
           std::to_string(merges_.num_rules()) + " merges" +
           (unk_token_ ? ", unk token " + quote(*unk_token_) : "") +
           (fuse_unk_ ? ", fused unk" : "") + (byte_fallback_ ? ", byte fallback" : "") +
           (ignore_merges_ ? ", whole words first" : "");
  }

 private:
  class Word;

  static Bpe from(JsonValue model, const PrebuiltArrays* arrays);
  void read_dropout(JsonValue model) const;
  void read_vocab(JsonValue model);
  void read_merges(JsonValue model);
  void find_seams(const std::vector<MergeTable::Rule>& rules);
  bool add_bytes(std::string_view symbol, Word* word) const;
  TokenId unk_id(std::string_view symbol) const;

  Vocabulary vocabulary_;
  Trie trie_;
  MergeTable merges_;
  MergeSeams seams_;
  std::array<TokenId, 256> byte_ids_;  // of "<0x00>" to "<0xFF>"; -1 if absent
  std::optional<std::string> unk_token_;
  std::string prefix_;  // of every symbol but a word's first
  std::string suffix_;  // of a word's last symbol
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

// The part of a pre-token since the last seam: its symbols, and the merging of them.
class Bpe::Word {
 public:
  Word(const Bpe& model, std::vector<TokenId>* ids)
      : model_(model), ids_(ids), queue_(model.merges_.num_rules()) {}

  // Appends a symbol whose text is that of token id.
  void add(TokenId id, char32_t first, char32_t last) {
    if (!symbols_.empty() && !model_.seams_.may_join(last_character_, first)) finish();
    const auto position = static_cast<std::uint32_t>(symbols_.size());
    symbols_.push_back({id, position - 1, position + 1});
    last_character_ = last;
  }

  // Merges the symbols, appends what is left of them to the ids and starts anew.
  void finish() {
    if (symbols_.size() > 1) merge();
    for (const Symbol& symbol : symbols_) {
      if (symbol.id != kGone) ids_->push_back(symbol.id);
    }
    symbols_.clear();
  }

 private:
  static constexpr TokenId kGone = -1;

  struct Symbol {
    TokenId id;
    std::uint32_t previous;  // of the first one: 2^32 - 1
    std::uint32_t next;      // of the last one: number of symbols
  };

  // Queues the merge of a symbol with its right neighbour if there is a rule for it.
  void propose(std::uint32_t left) {
    const std::uint32_t right = symbols_[left].next;
    const std::uint32_t rank = model_.merges_.rank_of(symbols_[left].id, symbols_[right].id);
    if (rank != MergeTable::kNoRank) queue_.push({rank, left});
  }

  void merge();

  const Bpe& model_;
  std::vector<TokenId>* ids_;
  std::vector<Symbol> symbols_;
  MergeQueue queue_;
  char32_t last_character_ = 0;
};

inline void Bpe::Word::merge() {
  const auto end = static_cast<std::uint32_t>(symbols_.size());
  for (std::uint32_t left = 0; left + 1 < end; ++left) propose(left);
  MergeQueue::Entry entry;
  while (queue_.pop(&entry)) {
    const std::uint32_t position = entry.position;
    Symbol& left = symbols_[position];
    if (left.id == kGone || left.next == end) continue;
    Symbol& right = symbols_[left.next];
    // Other merges may have changed the pair since; the reference asks only whether the result is
    // still the same.
    const std::uint32_t rank_now = model_.merges_.rank_of(left.id, right.id);
    const TokenId merged = model_.merges_.merged(entry.rank);
    if (rank_now == MergeTable::kNoRank || model_.merges_.merged(rank_now) != merged) continue;
    left.id = merged;
    left.next = right.next;
    right.id = kGone;
    if (left.next != end) symbols_[left.next].previous = position;
    if (position != 0) propose(left.previous);
    if (left.next != end) propose(position);
  }
}

inline Bpe Bpe::from(JsonValue model, const PrebuiltArrays* arrays) {
  Bpe bpe;
  bpe.read_dropout(model);
  if (const auto unk = model.find("unk_token"); unk && !unk->is_null()) {
    bpe.unk_token_ = unk->as_string("model.unk_token");
  }
  if (const auto prefix = model.find("continuing_subword_prefix"); prefix && !prefix->is_null()) {
    bpe.prefix_ = prefix->as_string("model.continuing_subword_prefix");
  }
  if (const auto suffix = model.find("end_of_word_suffix"); suffix && !suffix->is_null()) {
    bpe.suffix_ = suffix->as_string("model.end_of_word_suffix");
  }
  bpe.fuse_unk_ = flag_field(model, "fuse_unk", false);
  bpe.byte_fallback_ = flag_field(model, "byte_fallback", false);
  bpe.ignore_merges_ = flag_field(model, "ignore_merges", false);
  if (arrays == nullptr) {
    bpe.read_vocab(model);
    bpe.read_merges(model);
  } else {
    bpe.vocabulary_ = Vocabulary(*arrays);
    bpe.trie_ = Trie(*arrays, "trie", bpe.vocab_size());
    bpe.merges_ = MergeTable(*arrays, bpe.vocab_size());
    bpe.seams_ = MergeSeams(*arrays);
  }
  for (std::size_t byte = 0; byte < 256; ++byte) {
    bpe.byte_ids_[byte] = bpe.trie_.find(byte_piece(static_cast<unsigned char>(byte)));
  }
  return bpe;
}

inline void Bpe::read_dropout(JsonValue model) const {
  const auto dropout = model.find("dropout");
  if (!dropout || dropout->is_null()) return;
  const double value = dropout->as_number("model.dropout");
  check(value >= 0 && value <= 1, ErrorClass::range, model.source(), ": model.dropout is ", value,
        ", expected 0 to 1");
  check(value == 0, ErrorClass::unsupported, model.source(), ": model.dropout is ", value,
        ", expected none: ids would be random");
}

inline void Bpe::read_vocab(JsonValue model) {
  std::vector<Trie::Entry> entries;
  std::size_t bytes = 0;
  for_each_vocab_member(model, [&](std::string_view piece, TokenId id) {
    entries.push_back({piece, id});
    bytes += piece.size();
  });
  vocabulary_.reserve(entries.size(), bytes);
  for (const Trie::Entry& entry : entries) vocabulary_.add(entry.value, entry.key, model.source());
  vocabulary_.finish();
  trie_ = Trie(entries);
}

// The two sides of an entry of model.merges, "a b" or ["a", "b"]; an empty left side if it is
// neither.
struct BpeMergeSides {
  std::string_view left;
  std::string_view right;

  static BpeMergeSides of(JsonValue entry) {
    if (entry.is_array() && entry.size() == 2) {
      auto side = entry.begin();
      const JsonValue left = *side;
      ++side;
      if (!left.is_string() || !(*side).is_string()) return {};
      return {left.as_string("a merge"), (*side).as_string("a merge")};
    }
    if (!entry.is_string()) return {};
    const std::string_view text = entry.as_string("a merge");
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      return {};
    }
    return {text.substr(0, space), text.substr(space + 1)};
  }
};

inline void Bpe::read_merges(JsonValue model) {
  const auto merges = model.find("merges");
  check(merges && merges->is_array(), ErrorClass::schema, model.source(), ": model.merges is ",
        merges ? merges->describe() : "missing", ", expected a list");
  std::vector<MergeTable::Rule> rules;
  rules.reserve(merges->size());
  std::string merged;
  const auto id_of = [&](std::string_view text) {
    const TokenId id = trie_.find(text);
    if (id < 0) {
      fail(ErrorClass::tokenizer, model.source(), ": model.merges entry ", rules.size(), " needs ",
           quote(text), ", which is not in the vocabulary");
    }
    return id;
  };
  for (const JsonValue entry : *merges) {
    // The first line of a merges.txt, copied along by old converters.
    if (entry.is_string() && entry.as_string("a merge").starts_with("#version")) continue;
    const BpeMergeSides sides = BpeMergeSides::of(entry);
    check(!sides.left.empty(), ErrorClass::schema, model.source(), ": model.merges entry ",
          rules.size(), " is not \"left right\" or [left, right]");
    check(sides.right.size() >= prefix_.size(), ErrorClass::tokenizer, model.source(),
          ": model.merges entry ", rules.size(),
          ": its right side is shorter than continuing_subword_prefix");
    merged.assign(sides.left).append(sides.right.substr(prefix_.size()));
    rules.push_back({id_of(sides.left), id_of(sides.right), id_of(merged)});
  }
  merges_ = MergeTable(rules);
  find_seams(rules);
}

inline void Bpe::find_seams(const std::vector<MergeTable::Rule>& rules) {
  // The text of a token must be that of its characters, and an id must have one text.
  if (!prefix_.empty() || !suffix_.empty() || vocabulary_.has_shared_ids()) {
    seams_.add_all();
    return;
  }
  for (const MergeTable::Rule& rule : rules) {
    seams_.add(last_character(vocabulary_[rule.left]), first_character(vocabulary_[rule.right]));
  }
}

inline void Bpe::encode(std::string_view pre_token, std::vector<TokenId>* ids) const {
  if (pre_token.empty()) return;
  if (ignore_merges_) {
    if (const TokenId id = trie_.find(pre_token); id >= 0) {
      ids->push_back(id);
      return;
    }
  }
  Word word(*this, ids);
  TokenId pending_unk = -1;
  const auto add_pending_unk = [&] {
    if (pending_unk < 0) return;
    word.add(pending_unk, first_character(*unk_token_), last_character(*unk_token_));
    pending_unk = -1;
  };
  std::string decorated;
  for (std::size_t begin = 0; begin < pre_token.size();) {
    std::size_t end = begin;
    const char32_t character = utf8_next(pre_token, &end);
    std::string_view symbol = pre_token.substr(begin, end - begin);
    if ((begin > 0 && !prefix_.empty()) || (end == pre_token.size() && !suffix_.empty())) {
      decorated.assign(begin > 0 ? prefix_ : "").append(symbol);
      symbol = decorated.append(end == pre_token.size() ? suffix_ : "");
    }
    if (const TokenId id = trie_.find(symbol); id >= 0) {
      add_pending_unk();
      word.add(id, character, character);
    } else if (!add_bytes(symbol, &word) && unk_token_) {
      // As in the reference, bytes overtake an unk that is still pending.
      if (!fuse_unk_) add_pending_unk();
      pending_unk = unk_id(symbol);
    }
    begin = end;
  }
  add_pending_unk();
  word.finish();
}

// Adds the byte tokens of a symbol; returns false if byte fallback is off or one is missing.
inline bool Bpe::add_bytes(std::string_view symbol, Word* word) const {
  const auto id_of = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (!byte_fallback_ ||
      !std::all_of(symbol.begin(), symbol.end(), [&](char byte) { return id_of(byte) >= 0; })) {
    return false;
  }
  for (const char byte : symbol) word->add(id_of(byte), U'<', U'>');
  return true;
}

inline TokenId Bpe::unk_id(std::string_view symbol) const {
  const TokenId id = trie_.find(*unk_token_);
  if (id < 0) {
    fail(ErrorClass::tokenizer, "BPE model: ", quote(symbol),
         " is not in the vocabulary, and neither is unk_token ", quote(*unk_token_));
  }
  return id;
}

}  // namespace terse
