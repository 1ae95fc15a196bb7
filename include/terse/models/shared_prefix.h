// Packing rows for a causal model: what the rows of one query have in common at their start (bos,
// query, separator) is computed once. Nothing after it can change it, so each row finds the keys
// and values that it would have computed itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "terse/batch.h"
#include "terse/layers/token_compression.h"
#include "terse/models/model.h"
#include "terse/tokenizer/token.h"
#include "terse/view.h"

namespace terse {

// Inputs packed one after another, each after its prefix if it is the first to need it.
struct PackedRows {
  Batch batch;
  std::vector<Segments> segments;  // (batch size)
};

// The openings of inputs, which outlive it, and how many inputs start with each.
class SharedOpenings {
 public:
  explicit SharedOpenings(std::span<const Input* const> inputs) {
    for (const Input* input : inputs) {
      if (can_share(*input)) ++openings_[opening(*input)].uses;
    }
  }

  // Where the sequence of an opening that several inputs share is kept, else nullptr. It holds -1
  // until somebody writes the number of the sequence there.
  std::int32_t* sequence_of(const Input& input) {
    if (!can_share(input)) return nullptr;
    Opening& shared = openings_[opening(input)];
    return shared.uses < 2 ? nullptr : &shared.sequence;
  }

 private:
  // A row has to keep a token of its own.
  static bool can_share(const Input& input) {
    return input.shareable > 0 &&
           static_cast<std::size_t>(input.shareable) < input.token_ids.size();
  }
  // Its ids as bytes.
  static std::string_view opening(const Input& input) {
    return {reinterpret_cast<const char*>(input.token_ids.data()),
            static_cast<std::size_t>(input.shareable) * sizeof(TokenId)};
  }

  struct Opening {
    int uses = 0;
    std::int32_t sequence = -1;
  };
  std::map<std::string_view, Opening> openings_;
};

// Rows of inputs in order. share = false: every input is one whole sequence, which still says how
// many of its tokens another batch might have shared, so that a fast attention cuts its blocks of
// keys at the same place.
inline PackedRows pack_rows(std::span<const Input* const> inputs, bool share) {
  PackedRows packed;
  Batch& batch = packed.batch;
  batch.cu_seqlens.push_back(0);
  const auto append = [&](std::span<const TokenId> ids, std::int32_t first_position,
                          std::int32_t prefix, std::int32_t shareable, Segments segments) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      batch.positions.push_back(first_position + static_cast<std::int32_t>(i));
    }
    batch.token_ids.insert(batch.token_ids.end(), ids.begin(), ids.end());
    batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.token_ids.size()));
    batch.prefix.push_back(prefix);
    batch.shareable.push_back(shareable);
    packed.segments.push_back(segments);
  };
  SharedOpenings openings(inputs);
  for (const Input* input : inputs) {
    const std::span<const TokenId> ids = view(input->token_ids);
    std::int32_t* sequence = share ? openings.sequence_of(*input) : nullptr;
    if (sequence == nullptr) {
      append(ids, 0, -1, input->shareable, {input->query_length, input->prompt_length});
      continue;
    }
    const std::int32_t shared = input->shareable;
    const auto length = static_cast<std::size_t>(shared);
    if (*sequence < 0) {
      *sequence = static_cast<std::int32_t>(batch.size());
      append(ids.first(length), 0, -1, 0, {shared, 0});
    }
    append(ids.subspan(length), shared, *sequence, 0,
           {input->query_length - shared, input->prompt_length});
  }
  return packed;
}

}  // namespace terse
