// Packing rows for a causal model: what the rows of one query have in common at their start (bos,
// query, separator) is computed once. Nothing after it can change it, so each row finds the keys
// and values that it would have computed itself.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
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

// Packs rows of inputs in order; keeps the memory of its lists for the next batch.
class RowPacker {
 public:
  // share = false: every input is one whole sequence, which still says how many of its tokens
  // another batch might have shared, so that a fast attention cuts its blocks of keys at the same
  // place.
  void pack(std::span<const Input* const> inputs, bool share, PackedRows* packed) {
    packed->batch.clear();
    packed->segments.clear();
    find_leaders(inputs, share);
    sequences_.assign(inputs.size(), kNone);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Input& input = *inputs[i];
      const std::span<const TokenId> ids = view(input.token_ids);
      if (leaders_[i] == kNone) {
        append(ids, 0, -1, input.shareable, {input.query_length, input.prompt_length}, packed);
        continue;
      }
      const std::int32_t shared = input.shareable;
      const auto length = static_cast<std::size_t>(shared);
      std::int32_t& sequence = sequences_[static_cast<std::size_t>(leaders_[i])];
      if (sequence == kNone) {
        sequence = static_cast<std::int32_t>(packed->batch.size());
        append(ids.first(length), 0, -1, 0, {shared, 0}, packed);
      }
      append(ids.subspan(length), shared, sequence, 0,
             {input.query_length - shared, input.prompt_length}, packed);
    }
  }

 private:
  static constexpr std::int32_t kNone = -1;

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

  // Of each input the first of those with the same opening, or none if no other has it.
  void find_leaders(std::span<const Input* const> inputs, bool share) {
    const auto opening_of = [&](std::int32_t i) {
      return opening(*inputs[static_cast<std::size_t>(i)]);
    };
    leaders_.assign(inputs.size(), kNone);
    order_.clear();
    for (std::size_t i = 0; share && i < inputs.size(); ++i) {
      if (can_share(*inputs[i])) order_.push_back(static_cast<std::int32_t>(i));
    }
    std::sort(order_.begin(), order_.end(), [&](std::int32_t a, std::int32_t b) {
      const int compared = opening_of(a).compare(opening_of(b));
      return compared != 0 ? compared < 0 : a < b;
    });
    for (std::size_t first = 0, end = 0; first < order_.size(); first = end) {
      const std::int32_t leader = order_[first];
      while (end < order_.size() && opening_of(order_[end]) == opening_of(leader)) ++end;
      if (end - first < 2) continue;
      for (std::size_t i = first; i < end; ++i) {
        leaders_[static_cast<std::size_t>(order_[i])] = leader;
      }
    }
  }

  static void append(std::span<const TokenId> ids, std::int32_t first_position, std::int32_t prefix,
                     std::int32_t shareable, Segments segments, PackedRows* packed) {
    Batch& batch = packed->batch;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      batch.positions.push_back(first_position + static_cast<std::int32_t>(i));
    }
    batch.token_ids.insert(batch.token_ids.end(), ids.begin(), ids.end());
    batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.token_ids.size()));
    batch.prefix.push_back(prefix);
    batch.shareable.push_back(shareable);
    packed->segments.push_back(segments);
  }

  std::vector<std::int32_t> order_;      // inputs that can share, by opening
  std::vector<std::int32_t> leaders_;    // (inputs)
  std::vector<std::int32_t> sequences_;  // (inputs): of a leader, where its opening is
};

}  // namespace terse
