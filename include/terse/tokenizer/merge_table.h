// The merge rules of a BPE model: pair of token ids -> rank and merged id.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/tokenizer/prebuilt.h"
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

  // The table that save() stored, of ids below max_id. Throws Error: missing, schema, tokenizer.
  MergeTable(const PrebuiltArrays& arrays, std::size_t max_id);
  void save(PrebuiltArrays& arrays) const {
    arrays.add("merges/slots", slots_);
    arrays.add("merges/merged", merged_);
    arrays.add("merges/multiplier", &multiplier_, 1);
  }

  static constexpr std::uint32_t kNoRank = ~std::uint32_t{0};

  // The rank of the rule for a pair; kNoRank if there is none.
  std::uint32_t rank_of(TokenId left, TokenId right) const {
    const std::uint64_t pair = pair_of(left, right);
    std::size_t slot = slot_of(pair);
    for (int probes = 0; probes <= kMaxProbes; ++probes, slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot].rank == kNoRank || slots_[slot].pair == pair) return slots_[slot].rank;
    }
    return kNoRank;  // of a table that is not of our making
  }

  // The id that the rule of this rank merges its pair into.
  TokenId merged(std::uint32_t rank) const { return merged_[rank]; }

  std::size_t num_rules() const { return merged_.size(); }

 private:
  struct Slot {
    std::uint64_t pair = 0;
    std::uint32_t rank = kNoRank;  // kNoRank marks an empty slot
    std::uint32_t unused = 0;      // no padding: slots are stored as they are
  };
  // Farther from its slot than this chance brings no pair at half load.
  static constexpr int kMaxProbes = 512;

  static std::size_t slots_for(std::size_t rules) { return std::bit_ceil(2 * rules + 2); }

  static std::uint64_t pair_of(TokenId left, TokenId right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t slot_of(std::uint64_t pair) const {
    return static_cast<std::size_t>((pair ^ pair >> 29) * multiplier_ >> shift_);
  }
  bool insert_all(const std::vector<Rule>& rules, std::vector<Slot>* slots) const;

  FlatArray<Slot> slots_;  // a power of two, at most half full
  FlatArray<TokenId> merged_;
  std::uint64_t multiplier_ = 0x9e3779b97f4a7c15U;
  int shift_ = 0;
};

inline MergeTable::MergeTable(const std::vector<Rule>& rules) {
  static constexpr int kAttempts = 8;
  check(rules.size() < kNoRank, ErrorClass::limit, "BPE model: too many merges");
  const std::size_t num_slots = slots_for(rules.size());
  shift_ = 64 - std::countr_zero(num_slots);
  std::vector<TokenId> merged;
  merged.reserve(rules.size());
  for (const Rule& rule : rules) merged.push_back(rule.merged);
  merged_ = FlatArray(std::move(merged));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::vector<Slot> slots(num_slots);
    if (insert_all(rules, &slots)) {
      slots_ = FlatArray(std::move(slots));
      return;
    }
    multiplier_ = multiplier_ * 0xd1342543de82ef95U | 1;  // another odd number
  }
  fail(ErrorClass::limit, "BPE model: its merges are made to collide in a hash table");
}

inline MergeTable::MergeTable(const PrebuiltArrays& arrays, std::size_t max_id)
    : slots_(arrays.get<Slot>("merges/slots")), merged_(arrays.get<TokenId>("merges/merged")) {
  const auto multiplier = arrays.get<std::uint64_t>("merges/multiplier");
  arrays.require(multiplier.size() == 1, "merges/multiplier");
  multiplier_ = multiplier[0];
  arrays.require(merged_.size() < kNoRank && slots_.size() == slots_for(merged_.size()),
                 "merges/slots");
  shift_ = 64 - std::countr_zero(slots_.size());
  bool ok = true;
  for (const Slot& slot : slots_) ok &= slot.rank < merged_.size() || slot.rank == kNoRank;
  arrays.require(ok, "merges/slots");
  for (const TokenId id : merged_) ok &= id >= 0 && static_cast<std::size_t>(id) < max_id;
  arrays.require(ok, "merges/merged");
}

// Returns false if some pair ends up too far from its slot.
inline bool MergeTable::insert_all(const std::vector<Rule>& rules, std::vector<Slot>* slots) const {
  const std::size_t mask = slots->size() - 1;
  for (std::size_t rank = 0; rank < rules.size(); ++rank) {
    const std::uint64_t pair = pair_of(rules[rank].left, rules[rank].right);
    std::size_t slot = slot_of(pair);
    int probes = 0;
    while ((*slots)[slot].rank != kNoRank && (*slots)[slot].pair != pair) {
      if (++probes > kMaxProbes) return false;
      slot = (slot + 1) & mask;
    }
    (*slots)[slot] = {pair, static_cast<std::uint32_t>(rank)};
  }
  return true;
}

}  // namespace terse
