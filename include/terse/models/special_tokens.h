// The special tokens that a folder's tokenizer files name: what transformers' tokenizer classes
// take from tokenizer_config.json and special_tokens_map.json, and config.json where those say
// nothing.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "terse/error.h"
#include "terse/json.h"
#include "terse/models/config.h"
#include "terse/models/loading.h"
#include "terse/tokenizer/token.h"

namespace terse {

struct SpecialTokens {
  std::optional<TokenId> bos;
  std::optional<TokenId> eos;
  std::optional<TokenId> pad;
  // Whether a text alone gets bos and eos. Set for the classes that build their template from
  // add_bos_token and add_eos_token whatever tokenizer.json says; unset: the template holds.
  std::optional<bool> add_bos;
  std::optional<bool> add_eos;
};

namespace detail {

// The text of "bos_token" and the like: a string, or an object with a content. Empty: not given.
inline std::string token_text(const Config& config, std::string_view key) {
  const auto value = config.root().find(key);
  if (!value || value->is_null()) return {};
  if (value->is_string()) return std::string(value->as_string(key));
  const auto content = value->as_object(key).find("content");
  check(bool{content}, ErrorClass::schema, config.source(), ": ", key, " has no content");
  return std::string(content->as_string(key));
}

}  // namespace detail

// Throws Error: json, schema (a token that is neither a string nor an object).
inline SpecialTokens read_special_tokens(const ModelFolder& folder) {
  std::vector<Config> files;
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    if (folder.files.has(name)) files.push_back(folder.files.config(name));
  }
  const auto find = [&](const std::string& key) -> std::optional<TokenId> {
    for (const Config& file : files) {
      const std::string text = detail::token_text(file, key);
      // A token that the vocabulary lacks cannot stand in any row.
      const auto id = folder.tokenizer->token_to_id(text);
      if (!text.empty() && id) return id;
    }
    const auto id = folder.config.optional_integer(key + "_id", -1, folder.tokenizer->max_id());
    return id && *id >= 0 ? std::optional(static_cast<TokenId>(*id)) : std::nullopt;
  };
  SpecialTokens tokens{find("bos_token"), find("eos_token"), find("pad_token"), {}, {}};

  constexpr std::array<std::string_view, 4> kTemplateBuilders = {
      "LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast"};
  for (const Config& file : files) {
    const std::string name = file.string_or("tokenizer_class", "");
    if (std::find(kTemplateBuilders.begin(), kTemplateBuilders.end(), name) ==
        kTemplateBuilders.end()) {
      continue;
    }
    tokens.add_bos = file.boolean_or("add_bos_token", true);
    tokens.add_eos = file.boolean_or("add_eos_token", false);
  }
  return tokens;
}

}  // namespace terse
