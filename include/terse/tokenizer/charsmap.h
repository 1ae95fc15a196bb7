// SentencePiece's compiled normalization rules: a double-array trie from byte strings to their
// replacements, as found in .model files and, in base64, in tokenizer.json ("Precompiled").
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
#include "terse/tokenizer/ascii.h"
#include "terse/tokenizer/grapheme.h"
#include "terse/tokenizer/token.h"
#include "terse/utf8.h"

namespace terse {

// Decodes base64 (RFC 4648, padded, no white space). Throws Error(tokenizer) naming `what`.
inline std::string decode_base64(std::string_view encoded, std::string_view what) {
  static constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<std::int8_t, 256> digits;
  digits.fill(-1);
  for (std::size_t k = 0; k < kAlphabet.size(); ++k) {
    digits[static_cast<unsigned char>(kAlphabet[k])] = static_cast<std::int8_t>(k);
  }
  check(encoded.size() % 4 == 0, ErrorClass::tokenizer, what, ": ", encoded.size(),
        " characters, expected base64, whose length is a multiple of 4");
  std::size_t padding = 0;
  while (padding < 2 && encoded.ends_with('=')) {
    encoded.remove_suffix(1);
    ++padding;
  }
  std::string bytes;
  bytes.reserve(encoded.size() / 4 * 3 + 2);
  std::uint32_t bits = 0;
  for (std::size_t k = 0; k < encoded.size(); ++k) {
    const auto digit = digits[static_cast<unsigned char>(encoded[k])];
    check(digit >= 0, ErrorClass::tokenizer, what, ": not base64 at character ", k);
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    // Of every four digits, the last three complete a byte.
    if (k % 4 != 0) bytes += static_cast<char>(bits >> (6 - k % 4 * 2) & 0xFF);
  }
  return bytes;
}

// Layout: u32 trie size in bytes, the trie's units (u32, all little-endian), then the replacements,
// each ended by a NUL and addressed by byte offset. A unit holds the label by which its parent
// finds it (low byte, bit 31 clear), whether a key ends at it (bit 8) and the offset of its
// children (bits 10 to 31, times 256 if bit 9 is set); the unit at offset 0 from the children of a
// key's last unit holds the replacement's offset in its low 31 bits. Source: darts-clone,
// SentencePiece's normalizer.cc; lookups as in Hugging Face's spm_precompiled.
class Charsmap {
 public:
  // Keys are at most this long (the longest in use has 18 bytes), so a lookup takes bounded time.
  static constexpr std::size_t kMaxKeyBytes = 1024;

  // `what` names the map in messages. Throws Error: tokenizer if the bytes contradict the layout
  // anywhere in reach of a lookup, limit for a key that is too long.
  static Charsmap from_bytes(std::string_view bytes, std::string_view what) {
    Charsmap map;
    map.read(bytes, what);
    map.check_trie(what);
    map.find_plain_ascii();
    return map;
  }
  static Charsmap from_base64(std::string_view encoded, std::string_view what) {
    return from_bytes(decode_base64(encoded, what), what);
  }

  // SentencePiece's rule: the length of the longest key that text begins with, and its replacement.
  // 0 if there is none; *replacement is then left alone. Linear in the match.
  std::size_t longest_match(std::string_view text, std::string_view* replacement) const {
    std::size_t longest = 0;
    std::uint32_t value = 0;
    walk(text, [&](std::size_t length, std::uint32_t found) {
      longest = length;
      value = found;
      return true;
    });
    if (longest > 0) *replacement = replacement_at(value);
    return longest;
  }

  // The reference library's rule, which differs from SentencePiece's. A grapheme cluster of less
  // than 6 bytes that begins with a key becomes the replacement of the SHORTEST such key, the rest
  // of the cluster is lost; any other cluster is treated so character by character. text must be
  // valid UTF-8. Linear. Throws Error(limit) past kMaxNormalizedBytes. Source: Hugging Face
  // tokenizers 0.23, normalizers/precompiled.rs.
  void normalize_graphemes(std::string& text) const {
    std::size_t begin = plain_prefix(text, 0);
    if (begin == text.size()) return;
    std::string out;
    out.reserve(text.size() + text.size() / 4);
    out.append(text, 0, begin);
    while (begin < text.size()) {
      const std::size_t end = grapheme_end(text, begin);
      append_cluster(std::string_view(text).substr(begin, end - begin), &out);
      check_normalized_size(out.size());
      const std::size_t plain_end = plain_prefix(text, end);
      out.append(text, end, plain_end - end);
      begin = plain_end;
    }
    text = std::move(out);
  }

  std::size_t num_units() const { return units_.size(); }

 private:
  static constexpr std::size_t kBlock = 256;  // units: the reach of one label
  static constexpr std::size_t kShortCluster = 6;

  static constexpr bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
  static constexpr std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FF; }
  static constexpr std::uint32_t value(std::uint32_t unit) { return unit & 0x7FFFFFFF; }
  static constexpr std::uint32_t offset(std::uint32_t unit) {
    return (unit >> 10) << ((unit & 0x200) >> 6);
  }

  static std::uint32_t read_u32(std::string_view bytes, std::size_t begin) {
    std::uint32_t result = 0;
    for (std::size_t k = 4; k-- > 0;) {
      result = result << 8 | static_cast<unsigned char>(bytes[begin + k]);
    }
    return result;
  }

  void read(std::string_view bytes, std::string_view what) {
    check(bytes.size() >= 4, ErrorClass::tokenizer, what, ": ", bytes.size(),
          " bytes, expected a length word");
    const std::size_t trie_bytes = read_u32(bytes, 0);
    check(trie_bytes > 0 && trie_bytes % 4 == 0 && trie_bytes <= bytes.size() - 4,
          ErrorClass::tokenizer, what, ": trie of ", trie_bytes,
          " bytes, expected a positive multiple of 4 up to ", bytes.size() - 4);
    // Whole blocks, so that any child of a node in range is in range.
    units_.assign((trie_bytes / 4 + kBlock - 1) / kBlock * kBlock, 0);
    for (std::size_t k = 0; k < trie_bytes / 4; ++k) units_[k] = read_u32(bytes, 4 + 4 * k);
    replacements_ = bytes.substr(4 + trie_bytes);
    check(replacements_.ends_with('\0'), ErrorClass::tokenizer, what,
          ": the last replacement has no closing NUL");
    const std::size_t valid = utf8_valid_prefix(replacements_);
    check(valid == replacements_.size(), ErrorClass::tokenizer, what, ": invalid UTF-8 at byte ",
          valid, " of the replacements");
  }

  // One node on the path from the root: where its children lie, the next of them to visit (of its
  // family), the length of the longest key below it.
  struct Visit {
    std::uint32_t children;
    std::uint32_t next;
    std::uint32_t height;
  };

  // The units that lookups find from each place: children[first[b]] .. children[first[b + 1] - 1]
  // are those at b ^ label. Sorted out in one pass, since trying all labels at each node takes as
  // long as everything else about loading a packed tokenizer.
  struct Families {
    std::vector<std::uint32_t> first;
    std::vector<std::uint32_t> children;
  };
  Families find_families() const {
    const auto size = static_cast<std::uint32_t>(units_.size());
    // A label is a byte or, of a unit that is none's child, above; NUL matches nothing.
    const auto is_child = [&](std::uint32_t unit) {
      return label(units_[unit]) > 0 && label(units_[unit]) < kBlock;
    };
    Families families{std::vector<std::uint32_t>(units_.size() + 1, 0), {}};
    for (std::uint32_t unit = 0; unit < size; ++unit) {
      if (is_child(unit)) ++families.first[(unit ^ label(units_[unit])) + 1];
    }
    for (std::size_t place = 0; place < units_.size(); ++place) {
      families.first[place + 1] += families.first[place];
    }
    families.children.resize(families.first.back());
    std::vector<std::uint32_t> next(families.first.begin(), families.first.end() - 1);
    for (std::uint32_t unit = 0; unit < size; ++unit) {
      if (is_child(unit)) families.children[next[unit ^ label(units_[unit])]++] = unit;
    }
    return families;
  }

  // Visits every node in reach of a lookup once (nodes may be shared) and checks all it refers to.
  void check_trie(std::string_view what) const {
    static constexpr std::uint32_t kUnknown = 0xFFFFFFFF;
    static constexpr std::uint32_t kOnPath = 0xFFFFFFFE;
    const Families families = find_families();
    std::vector<std::uint32_t> heights(units_.size(), kUnknown);
    std::vector<Visit> path;
    const auto enter = [&](std::uint32_t children) {
      heights[children] = kOnPath;
      path.push_back({children, families.first[children], 0});
    };
    enter(children_of(0, what));
    while (true) {
      Visit& node = path.back();
      if (node.next == families.first[node.children + 1]) {
        const std::uint32_t height = heights[node.children] = node.height;
        path.pop_back();
        if (path.empty()) return;
        path.back().height = std::max(path.back().height, height + 1);
        continue;
      }
      const std::uint32_t place = families.children[node.next++];
      const std::uint32_t children = children_of(place, what);
      if (has_leaf(units_[place])) check_value(value(units_[children]), what);
      check(heights[children] != kOnPath, ErrorClass::tokenizer, what, ": the trie has a cycle");
      const std::uint32_t below = heights[children] == kUnknown ? 0 : heights[children];
      check(path.size() + below <= kMaxKeyBytes, ErrorClass::limit, what, ": a key has more than ",
            kMaxKeyBytes, " bytes");
      node.height = std::max(node.height, below + 1);
      if (heights[children] == kUnknown) enter(children);
    }
  }

  // Where the children of the node at `place` lie.
  std::uint32_t children_of(std::uint32_t place, std::string_view what) const {
    const std::uint32_t children = place ^ offset(units_[place]);
    check(children < units_.size(), ErrorClass::tokenizer, what, ": the children of node ", place,
          " lie at ", children, ", expected less than ", units_.size());
    return children;
  }

  void check_value(std::uint32_t begin, std::string_view what) const {
    check(begin < replacements_.size(), ErrorClass::tokenizer, what, ": a replacement at ", begin,
          ", expected less than ", replacements_.size());
    check((replacements_[begin] & 0xC0) != 0x80, ErrorClass::tokenizer, what,
          ": a replacement begins inside a UTF-8 sequence, at byte ", begin);
  }

  // Calls on_match(length, value) for every key that text begins with, shortest first, while it
  // returns true. A NUL byte matches nothing. In range without checks: see check_trie.
  template <class OnMatch>
  void walk(std::string_view text, OnMatch on_match) const {
    std::uint32_t node = offset(units_[0]);
    for (std::size_t k = 0; k < text.size() && text[k] != '\0'; ++k) {
      const std::uint32_t byte = static_cast<unsigned char>(text[k]);
      const std::uint32_t unit = units_[node ^ byte];
      if (label(unit) != byte) return;
      node ^= byte ^ offset(unit);
      if (has_leaf(unit) && !on_match(k + 1, value(units_[node]))) return;
    }
  }

  std::optional<std::string_view> shortest_match(std::string_view text) const {
    std::optional<std::string_view> replacement;
    walk(text, [&](std::size_t, std::uint32_t found) {
      replacement = replacement_at(found);
      return false;
    });
    return replacement;
  }

  std::string_view replacement_at(std::uint32_t begin) const {
    return std::string_view(replacements_.data() + begin);  // up to the NUL, which read() checked
  }

  void append_cluster(std::string_view cluster, std::string* out) const {
    if (cluster.size() < kShortCluster) {
      if (const auto replacement = shortest_match(cluster)) {
        *out += *replacement;
        return;
      }
    }
    for (std::size_t begin = 0; begin < cluster.size();) {
      const std::string_view character = cluster.substr(begin, utf8_length(cluster[begin]));
      *out += shortest_match(character).value_or(character);
      begin += character.size();
    }
  }

  // Whether printable ASCII characters are no keys, as in every map in use.
  void find_plain_ascii() {
    ascii_is_plain_ = true;
    for (char c = 0x20; c < 0x7F; ++c) {
      if (shortest_match({&c, 1})) ascii_is_plain_ = false;
    }
  }

  // End of the run of characters from `begin`, a cluster boundary, that normalize_graphemes copies.
  // The last printable character before any other is left out: a mark may follow it.
  std::size_t plain_prefix(std::string_view text, std::size_t begin) const {
    if (!ascii_is_plain_) return begin;
    const std::size_t end = printable_ascii_end(text, begin);
    return end == begin || end == text.size() ? end : end - 1;
  }

  std::vector<std::uint32_t> units_ = {};
  std::string replacements_ = {};
  bool ascii_is_plain_ = false;
};

}  // namespace terse
