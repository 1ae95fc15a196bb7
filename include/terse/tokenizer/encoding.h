// What encoding a text gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "terse/tokenizer/token.h"

namespace terse {

// An added token found in a text: where its id stands, and which bytes became it.
struct AddedTokenMatch {
  std::size_t index = 0;  // in the ids
  std::size_t begin = 0;  // bytes of the text, with the white space that lstrip and rstrip swallow;
  std::size_t end = 0;    //   for a token matched after normalisation, of the stretch it lies in
  std::size_t sequence = 0;  // 0 in the text, 1 in the pair
};

// The ids of one text, before truncation and special tokens.
struct TokenSequence {
  std::vector<TokenId> ids;
  std::vector<AddedTokenMatch> matches;  // by index
};

// The ids of a text or a pair, ready for a model.
struct Encoding {
  std::vector<TokenId> ids;                // (tokens)
  std::vector<TokenId> type_ids;           // (tokens)
  std::vector<std::uint8_t> special_mask;  // (tokens) 1 for tokens the post-processor inserted
  std::vector<AddedTokenMatch> matches;    // added tokens written in the text itself, by index
  bool truncated = false;                  // whether any token of the text was cut
};

}  // namespace terse
