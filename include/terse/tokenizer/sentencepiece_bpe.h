// The merging of SentencePiece's BPE models, which look for the best scored piece that two adjacent
// symbols spell, where tokenizer.json has a list of merges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "terse/tokenizer/merge_queue.h"
#include "terse/tokenizer/merge_seams.h"
#include "terse/tokenizer/sentencepiece_table.h"
#include "terse/tokenizer/token.h"

namespace terse {

// One text that is being merged: add() its symbols in order, then finish(). Every symbol that is
// left goes to on_piece(text, id) in order; id is -1 where the text is no piece. Unused pieces are
// taken apart again into what they were merged from. Time is O(n log n). Source:
// google/sentencepiece src/bpe_model.cc.
template <class OnPiece>
class SentencePieceMerger {
 public:
  // All outlive the merger; text has less than 4 GiB.
  SentencePieceMerger(const SentencePieceTable& table, std::string_view text, OnPiece on_piece)
      : table_(table), text_(text), on_piece_(std::move(on_piece)), queue_(table.size()) {}

  // Appends the next `size` bytes of the text as a symbol; a frozen one never merges.
  void add(std::size_t size, bool is_frozen) {
    const std::string_view symbol = text_.substr(end_, size);
    if (!symbols_.empty() && !table_.seams().may_join(last_character_, first_character(symbol))) {
      finish();
    }
    const auto position = static_cast<std::uint32_t>(symbols_.size());
    symbols_.push_back(
        {end_, static_cast<std::uint32_t>(size), position - 1, position + 1, kNoRank, is_frozen});
    end_ += static_cast<std::uint32_t>(size);
    last_character_ = last_character(symbol);
  }

  // Merges the symbols since the last seam, hands out what is left of them and starts anew.
  void finish() {
    if (symbols_.size() > 1) merge();
    for (const Symbol& symbol : symbols_) {
      if (symbol.size > 0) take_apart(text_.substr(symbol.begin, symbol.size));
    }
    symbols_.clear();
  }

 private:
  static constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();

  struct Symbol {
    std::uint32_t begin;
    std::uint32_t size;      // 0 once merged into its left neighbour
    std::uint32_t previous;  // of the first one: 2^32 - 1
    std::uint32_t next;      // of the last one: number of symbols
    std::uint32_t rank;      // of what it spells with the next one, if that is a piece
    bool is_frozen;
  };
  bool is_unused(TokenId id) const { return id >= 0 && table_.type(id) == PieceType::unused; }

  // Queues the merge of a symbol with its right neighbour if they spell a piece.
  void propose(std::uint32_t left) {
    Symbol& symbol = symbols_[left];
    const Symbol& right = symbols_[symbol.next];
    symbol.rank = kNoRank;
    if (symbol.is_frozen || right.is_frozen) return;
    const TokenId id =
        table_.matchable().find(text_.substr(symbol.begin, symbol.size + right.size));
    if (id < 0) return;
    symbol.rank = table_.rank(id);
    queue_.push({symbol.rank, left});
    if (is_unused(id)) left_sizes_[id] = symbol.size;
  }

  // Merges pairs, highest score first and leftmost among equals.
  void merge();

  void take_apart(std::string_view symbol) const {
    std::vector<std::string_view> parts = {symbol};
    while (!parts.empty()) {
      const std::string_view part = parts.back();
      parts.pop_back();
      const TokenId id = table_.find(part);
      const auto left_size = is_unused(id) ? left_sizes_.find(id) : left_sizes_.end();
      if (left_size == left_sizes_.end()) {
        on_piece_(part, id);
      } else {
        parts.push_back(part.substr(left_size->second));
        parts.push_back(part.substr(0, left_size->second));
      }
    }
  }

  const SentencePieceTable& table_;
  std::string_view text_;
  OnPiece on_piece_;
  std::uint32_t end_ = 0;        // of the symbols so far, in text_
  char32_t last_character_ = 0;  // of them
  std::vector<Symbol> symbols_;
  MergeQueue queue_;
  std::unordered_map<TokenId, std::uint32_t> left_sizes_;  // how unused pieces came about
};

template <class OnPiece>
void SentencePieceMerger<OnPiece>::merge() {
  const auto end = static_cast<std::uint32_t>(symbols_.size());
  for (std::uint32_t left = 0; left + 1 < end; ++left) propose(left);
  MergeQueue::Entry entry;
  while (queue_.pop(&entry)) {
    const std::uint32_t position = entry.position;
    Symbol& left = symbols_[position];
    // Out of date if the left symbol has been merged since, or has another right neighbour.
    if (left.size == 0 || left.rank != entry.rank) continue;
    Symbol& right = symbols_[left.next];
    left.size += right.size;
    left.next = right.next;
    left.rank = kNoRank;
    right.size = 0;
    if (left.next != end) symbols_[left.next].previous = position;
    if (position != 0) propose(left.previous);
    if (left.next != end) propose(position);
  }
}

}  // namespace terse
