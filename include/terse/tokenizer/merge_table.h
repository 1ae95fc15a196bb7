// The merge rules of a BPE model: pair of token ids -> rank and merged id.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "terse/error.h"
#include "terse/tokenizer/token.h"

namespace terse {

// An open-addressing hash table that is filled once. Multiplicative hashing is fast but can be
// attacked with chosen ids, so a table with long probe sequences is rebuilt with another
// multiplier.
class MergeTable {
 public:
  struct Rule {
    TokenId left;
    TokenId right;
    TokenId merged;
  };

  MergeTable() : MergeTable(std::vector<Rule>()) {}

  // The rank of a rule is its index; of rules for the same pair the last one counts.
  // Throws Error(limit) if the pairs collide beyond chance.
  explicit MergeTable(const std::vector<Rule>& rules);

  static constexpr std::uint32_t kNoRank = ~std::uint32_t{0};

  // The rank of the rule for a pair; kNoRank if there is none.
  std::uint32_t rank_of(TokenId left, TokenId right) const {
    const std::uint64_t pair = pair_of(left, right);
    for (std::size_t slot = slot_of(pair);; slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot].rank == kNoRank || slots_[slot].pair == pair) return slots_[slot].rank;
    }
  }

  // The id that the rule of this rank merges its pair into.
  TokenId merged(std::uint32_t rank) const { return merged_[rank]; }

  std::size_t num_rules() const { return merged_.size(); }

 private:
  struct Slot {
    std::uint64_t pair = 0;
    std::uint32_t rank = kNoRank;  // kNoRank marks an empty slot
  };

  static std::uint64_t pair_of(TokenId left, TokenId right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t slot_of(std::uint64_t pair) const {
    return static_cast<std::size_t>((pair ^ pair >> 29) * multiplier_ >> shift_);
  }
  bool insert_all(const std::vector<Rule>& rules);

  std::vector<Slot> slots_;  // a power of two, at most half full
  std::vector<TokenId> merged_;
  std::uint64_t multiplier_ = 0x9e3779b97f4a7c15U;
  int shift_ = 0;
};

inline MergeTable::MergeTable(const std::vector<Rule>& rules) {
  static constexpr int kAttempts = 8;
  check(rules.size() < kNoRank, ErrorClass::limit, "BPE model: too many merges");
  const std::size_t num_slots = std::bit_ceil(2 * rules.size() + 2);
  shift_ = 64 - std::countr_zero(num_slots);
  merged_.reserve(rules.size());
  for (const Rule& rule : rules) merged_.push_back(rule.merged);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    slots_.assign(num_slots, Slot());
    if (insert_all(rules)) return;
    multiplier_ = multiplier_ * 0xd1342543de82ef95U | 1;  // another odd number
  }
  fail(ErrorClass::limit, "BPE model: its merges are made to collide in a hash table");
}

// Returns false if some pair ends up far from its slot, as chance never brings about at half load.
inline bool MergeTable::insert_all(const std::vector<Rule>& rules) {
  static constexpr int kMaxProbes = 512;
  for (std::size_t rank = 0; rank < rules.size(); ++rank) {
    const std::uint64_t pair = pair_of(rules[rank].left, rules[rank].right);
    std::size_t slot = slot_of(pair);
    int probes = 0;
    while (slots_[slot].rank != kNoRank && slots_[slot].pair != pair) {
      if (++probes > kMaxProbes) return false;
      slot = (slot + 1) & (slots_.size() - 1);
    }
    slots_[slot] = {pair, static_cast<std::uint32_t>(rank)};
  }
  return true;
}

}  // namespace terse
