// The texts of a model's tokens by id, and the reading of "piece": id maps from tokenizer.json.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/tokenizer/prebuilt.h"
#include "terse/tokenizer/token.h"

namespace terse {

// Token texts by id. Ids may have holes, and an id may be given twice (the last text counts); the
// memory depends on the texts alone, never on how large an id is.
class Vocabulary {
 public:
  Vocabulary() = default;

  // The vocabulary that save() stored. Throws Error: missing, schema, tokenizer.
  explicit Vocabulary(const PrebuiltArrays& arrays)
      : entries_(arrays.get<Entry>("vocabulary/entries")),
        characters_(arrays.get<char>("vocabulary/characters")) {
    std::int64_t before = -1;
    bool ok = !entries_.empty() && entries_.size() <= kMaxVocabulary;
    for (const Entry& entry : entries_) {
      ok &= entry.id > before && entry.begin <= characters_.size() &&
            entry.size <= characters_.size() - entry.begin;
      before = entry.id;
    }
    arrays.require(ok && before < static_cast<std::int64_t>(kMaxVocabulary), "vocabulary/entries");
  }
  void save(PrebuiltArrays& arrays) const {
    arrays.add("vocabulary/entries", entries_);
    arrays.add("vocabulary/characters", characters_);
  }

  void reserve(std::size_t pieces, std::size_t bytes) {
    added_.reserve(pieces);
    added_characters_.reserve(bytes);
  }

  // Throws Error: tokenizer (empty text), limit (piece too long, too many pieces). `source` leads
  // the message.
  void add(TokenId id, std::string_view text, std::string_view source) {
    check(!text.empty(), ErrorClass::tokenizer, source, ": piece ", id, " is empty");
    check(text.size() < kMaxPieceBytes, ErrorClass::limit, source, ": piece ", id, " has ",
          text.size(), " bytes, expected fewer than ", kMaxPieceBytes);
    check(added_.size() < kMaxVocabulary, ErrorClass::limit, source, ": more than ", kMaxVocabulary,
          " pieces");
    added_.push_back({added_characters_.size(), static_cast<std::uint32_t>(text.size()), id});
    added_characters_.insert(added_characters_.end(), text.begin(), text.end());
  }

  // Makes what was added usable; call it once after the last add().
  void finish() {
    const auto before = [](const Entry& a, const Entry& b) {
      return a.id != b.id ? a.id < b.id : a.begin < b.begin;  // those of one id as they were added
    };
    if (!std::is_sorted(added_.begin(), added_.end(), before)) {
      std::sort(added_.begin(), added_.end(), before);
    }
    std::size_t kept = 0;
    for (const Entry& entry : added_) {
      if (kept > 0 && added_[kept - 1].id == entry.id) --kept;
      added_[kept++] = entry;
    }
    has_shared_ids_ = kept < added_.size();
    added_.resize(kept);
    entries_ = FlatArray(std::move(added_));
    characters_ = FlatArray(std::move(added_characters_));
  }

  // The text of an id; empty if it has none.
  std::string_view operator[](TokenId id) const {
    const auto index = static_cast<std::size_t>(id);
    if (index < entries_.size() && entries_[index].id == id) return text_of(entries_[index]);
    const auto found = std::lower_bound(entries_.begin(), entries_.end(), id,
                                        [](const Entry& e, TokenId value) { return e.id < value; });
    return found != entries_.end() && found->id == id ? text_of(*found) : std::string_view();
  }

  // The largest id + 1.
  std::size_t size() const {
    return entries_.empty() ? 0 : static_cast<std::size_t>(entries_.end()[-1].id) + 1;
  }
  // Number of ids that have a text.
  std::size_t num_pieces() const { return entries_.size(); }
  // Whether two texts that were added have one id.
  bool has_shared_ids() const { return has_shared_ids_; }

 private:
  struct Entry {
    std::uint64_t begin;
    std::uint32_t size;
    TokenId id;
  };

  std::string_view text_of(const Entry& entry) const {
    return {characters_.data() + entry.begin, entry.size};
  }

  std::vector<Entry> added_;
  std::vector<char> added_characters_;
  FlatArray<Entry> entries_;  // by rising id
  FlatArray<char> characters_;
  bool has_shared_ids_ = false;
};

// Calls on_piece(text, id) for every member of model.vocab, {"piece": id, ...}, in file order.
// Throws Error: schema (no map, or an id of the wrong kind), range (an id too large), tokenizer (no
// pieces).
template <class OnPiece>
void for_each_vocab_member(JsonValue model, OnPiece&& on_piece) {
  const auto vocab = model.find("vocab");
  check(vocab && vocab->is_object(), ErrorClass::schema, model.source(), ": model.vocab is ",
        vocab ? vocab->describe() : "missing", ", expected a map of pieces to ids");
  check(vocab->size() > 0, ErrorClass::tokenizer, model.source(), ": model.vocab is empty");
  for (const JsonValue member : *vocab) {
    on_piece(member.key(), read_token_id(member, "an id in model.vocab", kMaxVocabulary));
  }
}

// The piece that stands for a byte under byte fallback, "<0x0A>" for 10.
inline std::string byte_piece(unsigned char byte) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  return {'<', '0', 'x', kHex[byte >> 4], kHex[byte & 15], '>'};
}

// The byte that a piece written exactly like that stands for; -1 for any other text.
inline int byte_of_piece(std::string_view piece) {
  const auto digit_of = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>') return -1;
  const int high = digit_of(piece[3]);
  const int low = digit_of(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace terse
