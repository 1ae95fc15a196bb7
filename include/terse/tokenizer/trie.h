// A static trie over byte strings: which vocabulary entries are prefixes of a text? Unigram,
// WordPiece and SentencePiece models all ask this at almost every character.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/tokenizer/prebuilt.h"
#include "terse/tokenizer/token.h"

namespace terse {

// Double array (Aoe 1989) with XOR offsets as in Darts-clone: the child of node n under byte b is
// unit base(n) ^ b, and it is real if its parent field says n. Where only one key is left, the rest
// of it is kept as a string (the minimal-prefix form), which halves the number of units.
class Trie {
 public:
  struct Entry {
    std::string_view key;  // not empty
    TokenId value;         // not negative
  };
  struct Match {
    std::size_t length = 0;  // bytes; 0 if nothing matched
    TokenId value = -1;
  };

  Trie() : Trie(std::vector<Entry>()) {}

  // The keys are copied. Of equal keys the last one counts. Memory is O(bytes of all keys), time
  // that of sorting them. Throws Error(limit) past 2^31 nodes.
  explicit Trie(const std::vector<Entry>& entries);

  // The trie that save() stored as arrays called `name`/..., with values below max_value. Walks
  // stay inside them whatever they hold. Throws Error: missing, schema, tokenizer.
  Trie(const PrebuiltArrays& arrays, const std::string& name, std::size_t max_value);
  void save(PrebuiltArrays& arrays, const std::string& name) const {
    arrays.add(name + "/units", units_);
    arrays.add(name + "/tails", tails_);
    arrays.add(name + "/tail_bytes", tail_bytes_);
  }

  // Calls on_match(length, value) for every key that is a prefix of text, shortest first. No key is
  // longer than kMaxPieceBytes.
  template <class OnMatch>
  void for_each_prefix(std::string_view text, OnMatch&& on_match) const {
    const std::size_t most = std::min(text.size(), kMaxPieceBytes);
    std::uint32_t node = 0;
    for (std::size_t depth = 0;; ++depth) {
      const Unit& unit = units_[node];
      if ((unit.base & kLeaf) != 0) {
        const std::string_view tail = tail_of(unit);
        if (text.substr(depth).starts_with(tail)) on_match(depth + tail.size(), unit.value);
        return;
      }
      if (unit.value >= 0) on_match(depth, unit.value);
      if (depth == most) return;
      const std::uint32_t child = unit.base ^ static_cast<unsigned char>(text[depth]);
      if (units_[child].parent != node) return;
      node = child;
    }
  }

  // The longest key that is a prefix of text.
  Match longest_prefix(std::string_view text) const {
    Match longest;
    for_each_prefix(text, [&](std::size_t length, TokenId value) { longest = {length, value}; });
    return longest;
  }

  // The value of key, or -1.
  TokenId find(std::string_view key) const {
    const Match longest = longest_prefix(key);
    return longest.length == key.size() ? longest.value : -1;
  }

 private:
  static constexpr std::uint32_t kLeaf = std::uint32_t{1} << 31;
  static constexpr std::uint32_t kFree = ~std::uint32_t{0};
  static constexpr std::uint32_t kNoParent = kFree - 1;  // of the root, unit 0
  static constexpr std::uint32_t kBlock = 256;

  // A free unit has parent kFree and links the free list: base is the next, value the previous one.
  struct Unit {
    std::uint32_t base = 0;  // of a leaf: kLeaf | index into tails_
    std::uint32_t parent = kFree;
    TokenId value = -1;
  };
  struct Tail {
    std::uint32_t begin = 0;
    std::uint32_t size = 0;
  };
  class Builder;

  std::string_view tail_of(const Unit& leaf) const {
    const Tail& tail = tails_[leaf.base & ~kLeaf];
    return {tail_bytes_.data() + tail.begin, tail.size};
  }

  FlatArray<Unit> units_;  // whole blocks, so that base ^ byte never leaves the array
  FlatArray<Tail> tails_;  // the first one is empty
  FlatArray<char> tail_bytes_;
};

// Sorts the keys, then lays out one node at a time from a stack of key ranges.
class Trie::Builder {
 public:
  explicit Builder(const std::vector<Entry>& entries) : keys_(sorted(entries)) {}

  void build(Trie* trie) {
    tails_.emplace_back();
    grow();
    take(0, kNoParent);
    std::vector<Range> open;
    if (!keys_.empty()) open.push_back({0, 0, static_cast<std::uint32_t>(keys_.size()), 0});
    while (!open.empty()) {
      const Range range = open.back();
      open.pop_back();
      if (range.end - range.begin == 1) {
        place_leaf(range);
      } else {
        place_children(range, open);
      }
    }
    for (Unit& unit : units_) {
      if (unit.parent == kFree) unit = Unit();
    }
    units_.shrink_to_fit();
    trie->units_ = FlatArray(std::move(units_));
    trie->tails_ = FlatArray(std::move(tails_));
    trie->tail_bytes_ = FlatArray(std::move(tail_bytes_));
  }

 private:
  // Keys [begin, end), in order, share their first `depth` bytes, and node stands for those.
  struct Range {
    std::uint32_t node;
    std::uint32_t begin;
    std::uint32_t end;
    std::uint32_t depth;
  };

  // The first eight bytes decide most comparisons without touching the key itself.
  struct SortKey {
    std::uint64_t head;
    std::uint32_t index;
  };

  static std::uint64_t head_of(std::string_view key) {
    std::uint64_t head = 0;
    for (std::size_t k = 0; k < 8; ++k) {
      head = head << 8 | (k < key.size() ? static_cast<unsigned char>(key[k]) : 0U);
    }
    return head;
  }

  static std::vector<Entry> sorted(const std::vector<Entry>& entries) {
    std::vector<SortKey> order;
    order.reserve(entries.size());
    for (std::size_t index = 0; index < entries.size(); ++index) {
      order.push_back({head_of(entries[index].key), static_cast<std::uint32_t>(index)});
    }
    std::sort(order.begin(), order.end(), [&](const SortKey& a, const SortKey& b) {
      if (a.head != b.head) return a.head < b.head;
      const int rest = entries[a.index].key.compare(entries[b.index].key);
      return rest != 0 ? rest < 0 : a.index < b.index;
    });
    std::vector<Entry> keys;
    keys.reserve(order.size());
    for (const SortKey& key : order) {
      const Entry& entry = entries[key.index];
      if (!keys.empty() && keys.back().key == entry.key) keys.pop_back();
      keys.push_back(entry);
    }
    return keys;
  }

  void place_leaf(const Range& range) {
    const Entry& entry = keys_[range.begin];
    const std::string_view rest = entry.key.substr(range.depth);
    std::uint32_t tail = 0;
    if (!rest.empty()) {
      tail = static_cast<std::uint32_t>(tails_.size());
      tails_.push_back({static_cast<std::uint32_t>(tail_bytes_.size()),
                        static_cast<std::uint32_t>(rest.size())});
      tail_bytes_.insert(tail_bytes_.end(), rest.begin(), rest.end());
    }
    units_[range.node].base = kLeaf | tail;
    units_[range.node].value = entry.value;
  }

  void place_children(const Range& range, std::vector<Range>& open) {
    std::uint32_t begin = range.begin;
    if (keys_[begin].key.size() == range.depth) {  // sorts before its continuations
      units_[range.node].value = keys_[begin].value;
      ++begin;
    }
    labels_.clear();
    const std::size_t first_child = open.size();
    for (std::uint32_t key = begin; key < range.end; ++key) {
      const auto label = static_cast<unsigned char>(keys_[key].key[range.depth]);
      if (labels_.empty() || labels_.back() != label) {
        labels_.push_back(label);
        open.push_back({0, key, 0, range.depth + 1});
      }
      open.back().end = key + 1;
    }
    const std::uint32_t base = find_base();
    units_[range.node].base = base;
    for (std::size_t child = 0; child < labels_.size(); ++child) {
      open[first_child + child].node = base ^ labels_[child];
      take(base ^ labels_[child], range.node);
    }
  }

  // A base under which every label's unit is free. A single label takes the oldest free unit, which
  // fills the gaps; several look at the newest ones, where room is likely, and soon give up.
  std::uint32_t find_base() {
    static constexpr int kMaxAttempts = 64;
    if (free_head_ == kFree) grow();
    if (labels_.size() == 1) return free_head_ ^ labels_[0];
    std::uint32_t unit = free_tail_;
    for (int attempt = 0; attempt < kMaxAttempts && unit != kFree; ++attempt) {
      const std::uint32_t base = unit ^ labels_[0];
      const auto is_free = [&](unsigned char label) {
        return units_[base ^ label].parent == kFree;
      };
      if (std::all_of(labels_.begin(), labels_.end(), is_free)) return base;
      unit = static_cast<std::uint32_t>(units_[unit].value);
    }
    return grow() ^ labels_[0];
  }

  // Appends a block of free units and returns its first unit.
  std::uint32_t grow() {
    const std::size_t size = units_.size();
    check(size + kBlock < kLeaf, ErrorClass::limit, "trie: more than 2^31 nodes");
    const auto first = static_cast<std::uint32_t>(size);
    units_.resize(size + kBlock);
    for (std::uint32_t unit = first; unit < first + kBlock; ++unit) {
      units_[unit].base = unit + 1 < first + kBlock ? unit + 1 : kFree;
      units_[unit].value = static_cast<TokenId>(unit > first ? unit - 1 : free_tail_);
    }
    if (free_tail_ == kFree) {
      free_head_ = first;
    } else {
      units_[free_tail_].base = first;
    }
    free_tail_ = first + kBlock - 1;
    return first;
  }

  // Removes a unit from the free list and makes it a childless node.
  void take(std::uint32_t index, std::uint32_t parent) {
    Unit& unit = units_[index];
    const std::uint32_t next = unit.base;
    const auto previous = static_cast<std::uint32_t>(unit.value);
    (previous == kFree ? free_head_ : units_[previous].base) = next;
    if (next == kFree) {
      free_tail_ = previous;
    } else {
      units_[next].value = static_cast<TokenId>(previous);
    }
    unit = {0, parent, -1};
  }

  std::vector<Unit> units_;
  std::vector<Tail> tails_;
  std::vector<char> tail_bytes_;
  std::vector<Entry> keys_;
  std::vector<unsigned char> labels_;
  std::uint32_t free_head_ = kFree;
  std::uint32_t free_tail_ = kFree;
};

inline Trie::Trie(const std::vector<Entry>& entries) { Builder(entries).build(this); }

inline Trie::Trie(const PrebuiltArrays& arrays, const std::string& name, std::size_t max_value)
    : units_(arrays.get<Unit>(name + "/units")),
      tails_(arrays.get<Tail>(name + "/tails")),
      tail_bytes_(arrays.get<char>(name + "/tail_bytes")) {
  arrays.require(!units_.empty() && units_.size() % kBlock == 0 && units_.size() < kLeaf,
                 name + "/units");
  // Without branches: a vocabulary of a quarter of a million pieces has a million units.
  const auto limit = static_cast<std::int64_t>(max_value);
  bool ok = true;
  for (const Unit& unit : units_) {
    const bool leaf = (unit.base & kLeaf) != 0;
    ok &= leaf ? (unit.base & ~kLeaf) < tails_.size() : unit.base < units_.size();
    ok &= unit.value >= (leaf ? 0 : -1) && unit.value < limit;
  }
  arrays.require(ok, name + "/units");
  for (const Tail& tail : tails_) {
    ok &= std::uint64_t{tail.begin} + tail.size <= tail_bytes_.size();
  }
  arrays.require(ok, name + "/tails");
}

}  // namespace terse
