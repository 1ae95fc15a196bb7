// The search that unigram models share: the segmentation of a text into pieces with the greatest
// sum of scores (Viterbi; Kudo 2018, arXiv:1804.10959).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "terse/tokenizer/token.h"
#include "terse/tokenizer/trie.h"
#include "terse/utf8.h"

namespace terse {

// The best way found to the end of a prefix of the text: its score, and the last piece of it.
template <class Sum>
struct PathNode {
  static constexpr std::uint32_t kUnreached = ~std::uint32_t{0};
  Sum score = 0;
  std::uint32_t begin = kUnreached;  // byte where the last piece starts
  TokenId id = -1;
};

// Scratch memory for the nodes of one text: on the stack for a word, on the heap for a page.
template <class Sum>
class PathNodes {
 public:
  explicit PathNodes(std::size_t count) {
    if (count > few_.size()) many_.resize(count);
    nodes_ = {many_.empty() ? few_.data() : many_.data(), count};
  }
  std::span<PathNode<Sum>> span() const { return nodes_; }

 private:
  std::array<PathNode<Sum>, 64> few_;
  std::vector<PathNode<Sum>> many_;
  std::span<PathNode<Sum>> nodes_;
};

// Fills nodes[0..text.size()] so that the best path ends in nodes[text.size()].
//   text       valid UTF-8, below 4 GiB
//   nodes      text.size() + 1 unreached nodes; sums are kept in Sum
//   score_of   (id, length in bytes) -> score; its type and Sum's decide how candidates are rounded
//   unk_score  of a single character that no piece covers exactly, which becomes unk_id
// Ties go to the piece that starts first: a later candidate must be strictly better.
template <class Sum, class ScoreOf>
void find_best_path(std::string_view text, const Trie& pieces, const ScoreOf& score_of,
                    Sum unk_score, TokenId unk_id, std::span<PathNode<Sum>> nodes) {
  const auto offer = [&](std::size_t begin, std::size_t end, auto score, TokenId id) {
    PathNode<Sum>& node = nodes[end];
    if (node.begin == PathNode<Sum>::kUnreached || score > node.score) {
      node = {static_cast<Sum>(score), static_cast<std::uint32_t>(begin), id};
    }
  };
  for (std::size_t begin = 0; begin < text.size();) {
    const Sum so_far = nodes[begin].score;
    const std::size_t character = utf8_length(text[begin]);
    bool covered = false;
    pieces.for_each_prefix(text.substr(begin), [&](std::size_t length, TokenId id) {
      offer(begin, begin + length, score_of(id, length) + so_far, id);
      covered |= length == character;
    });
    if (!covered) offer(begin, begin + character, unk_score + so_far, unk_id);
    begin += character;
  }
}

}  // namespace terse
