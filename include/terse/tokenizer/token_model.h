// What every model of a tokenizer offers: pre-tokens to ids.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "terse/tokenizer/prebuilt.h"
#include "terse/tokenizer/token.h"

namespace terse {

// Immutable; encode() may be called from several threads. A model whose encode() is defined outside
// its class declares it inline inside: else every file that includes the model would compile all of
// its virtual functions.
class TokenModel {
 public:
  virtual ~TokenModel() = default;

  // "Unigram", "WordPiece", "BPE" or "SentencePiece".
  virtual std::string_view type() const = 0;

  // Appends the ids of pre_token, which is valid UTF-8. Throws Error(tokenizer) if it has a
  // character that the model cannot express.
  virtual void encode(std::string_view pre_token, std::vector<TokenId>* ids) const = 0;

  virtual std::optional<TokenId> token_to_id(std::string_view text) const = 0;
  // Empty if the id has no token.
  virtual std::string_view id_to_token(TokenId id) const = 0;
  // The largest id + 1.
  virtual std::size_t vocab_size() const = 0;
  // Whether the id, which is below vocab_size(), stands for no text.
  virtual bool is_control(TokenId) const { return false; }

  // Hands out the model's large arrays, which stay this object's. Returns false if it has none.
  virtual bool save(PrebuiltArrays&) const { return false; }

  // One line, for a person.
  virtual std::string describe() const = 0;
};

}  // namespace terse
