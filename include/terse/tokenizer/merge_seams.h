// Where a text can be cut before BPE without changing the result.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "terse/tokenizer/prebuilt.h"
#include "terse/utf8.h"

namespace terse {

// Which characters may ever meet inside a merged token, as a bit per hash of the pair (left,
// right). Where the bit is clear no merge can cross, so the parts on both sides are merged on their
// own, in cache. A collision sets a bit too many, which only makes parts longer.
class MergeSeams {
 public:
  MergeSeams() : bits_(kBits / 64, 0) {}

  // The seams that save() stored. Throws Error: missing, schema, tokenizer.
  explicit MergeSeams(const PrebuiltArrays& arrays) {
    const auto bits = arrays.get<std::uint64_t>("merges/seams");
    arrays.require(bits.size() == kBits / 64, "merges/seams");
    bits_.assign(bits.begin(), bits.end());
  }
  void save(PrebuiltArrays& arrays) const {
    arrays.add("merges/seams", bits_.data(), bits_.size());
  }

  // Some merge joins a left side that ends in `left` to a right side that begins with `right`.
  void add(char32_t left, char32_t right) {
    bits_[hash(left, right) / 64] |= std::uint64_t{1} << (hash(left, right) % 64);
  }
  // Some token may come about by any of the cuts inside it.
  void add_inside(std::string_view token) {
    std::size_t index = 0;
    char32_t left = utf8_next(token, &index);
    while (index < token.size()) {
      const char32_t right = utf8_next(token, &index);
      add(left, right);
      left = right;
    }
  }
  // Nothing is known about the merges.
  void add_all() { std::fill(bits_.begin(), bits_.end(), ~std::uint64_t{0}); }

  bool may_join(char32_t left, char32_t right) const {
    return (bits_[hash(left, right) / 64] >> (hash(left, right) % 64) & 1) != 0;
  }

 private:
  static constexpr std::size_t kBits = std::size_t{1} << 20;

  // Pairs that share their left side and have right sides close together share a cache line.
  static std::size_t hash(char32_t left, char32_t right) {
    return (left * std::size_t{0x9e3779b1} + right) & (kBits - 1);
  }

  std::vector<std::uint64_t> bits_;
};

// The outermost characters of a token, which is valid UTF-8 and not empty.
inline char32_t first_character(std::string_view token) {
  std::size_t index = 0;
  return utf8_next(token, &index);
}
inline char32_t last_character(std::string_view token) {
  std::size_t index = token.size() - 1;
  while ((token[index] & 0xc0) == 0x80) --index;
  return utf8_next(token, &index);
}

}  // namespace terse
