// A tokenizer for models that are made up: each byte of a text is one token, so that a text's
// length in bytes is its length in tokens, and ids are spread evenly over the vocabulary, so that
// embedding rows are gathered from all over the table. Special tokens and the layout of pairs are
// those of the model's family.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/model_shape.h"
#include "terse/models/config.h"
#include "terse/tokenizer/byte_level.h"
#include "terse/utf8.h"

namespace terse {

namespace detail {

using TokenizerJson = nlohmann::ordered_json;

struct SpecialToken {
  std::string text;
  std::int64_t id;
};

struct SpecialLayout {
  std::vector<SpecialToken> tokens;
  std::vector<std::string> single;  // "A" stands for the text
  std::vector<std::string> pair;    // "A" and "B"
};

inline SpecialLayout special_layout(const Config& config, const ModelShape& shape) {
  if (shape.model_type == "bert") {
    return {{{"[PAD]", 0}, {"[UNK]", 100}, {"[CLS]", 101}, {"[SEP]", 102}, {"[MASK]", 103}},
            {"[CLS]", "A", "[SEP]"},
            {"[CLS]", "A", "[SEP]", "B", "[SEP]"}};
  }
  if (shape.model_type == "xlm-roberta") {
    return {{{"<s>", 0}, {"<pad>", 1}, {"</s>", 2}, {"<unk>", 3}, {"<mask>", shape.vocab_size - 1}},
            {"<s>", "A", "</s>"},
            {"<s>", "A", "</s>", "</s>", "B", "</s>"}};
  }
  constexpr std::int64_t kFirstByte = 256;
  SpecialLayout layout{{}, {"<bos>", "A"}, {"<bos>", "A", "B"}};
  for (const auto& [key, text] :
       {std::pair("bos_token_id", "<bos>"), std::pair("eos_token_id", "<eos>"),
        std::pair("pad_token_id", "<pad>")}) {
    if (config.has(key)) layout.tokens.push_back({text, config.integer(key, 0, kFirstByte - 1)});
  }
  check(!layout.tokens.empty() && layout.tokens.front().text == "<bos>", ErrorClass::missing,
        config.source(), ": bos_token_id is missing");
  return layout;
}

inline TokenizerJson template_pieces(const std::vector<std::string>& pieces) {
  TokenizerJson list = TokenizerJson::array();
  for (const std::string& piece : pieces) {
    const bool text = piece == "A" || piece == "B";
    list.push_back({{text ? "Sequence" : "SpecialToken", {{"id", piece}, {"type_id", 0}}}});
  }
  return list;
}

}  // namespace detail

// The text of its tokenizer.json. Throws Error(range) if the vocabulary has no room for 256 bytes
// beside the special tokens, missing (a decoder whose config names no bos).
inline std::string synthetic_tokenizer(const Config& config, const ModelShape& shape) {
  constexpr std::int64_t kBytes = 256;
  constexpr std::int64_t kFirst = 256;  // special tokens have lower ids, or the very last
  check(shape.vocab_size > kFirst + kBytes, ErrorClass::range, config.source(), ": vocab_size ",
        shape.vocab_size, ", the made-up tokenizer needs more than ", kFirst + kBytes);
  const std::int64_t step = (shape.vocab_size - 1 - kFirst) / kBytes;
  const detail::SpecialLayout layout = detail::special_layout(config, shape);
  detail::TokenizerJson vocabulary;
  detail::TokenizerJson added = detail::TokenizerJson::array();
  detail::TokenizerJson special_ids;
  for (const auto& [text, id] : layout.tokens) {
    added.push_back({{"id", id},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    special_ids[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    vocabulary[text] = id;
  }
  for (std::int64_t byte = 0; byte < kBytes; ++byte) {
    std::string character;
    utf8_append(character, kByteLevelCharacters[static_cast<std::size_t>(byte)]);
    vocabulary[character] = kFirst + byte * step;
  }
  const detail::TokenizerJson byte_level = {{"type", "ByteLevel"},
                                            {"add_prefix_space", false},
                                            {"trim_offsets", true},
                                            {"use_regex", false}};
  const detail::TokenizerJson json = {{"version", "1.0"},
                                      {"truncation", nullptr},
                                      {"padding", nullptr},
                                      {"added_tokens", added},
                                      {"normalizer", nullptr},
                                      {"pre_tokenizer", byte_level},
                                      {"post_processor",
                                       {{"type", "TemplateProcessing"},
                                        {"single", detail::template_pieces(layout.single)},
                                        {"pair", detail::template_pieces(layout.pair)},
                                        {"special_tokens", special_ids}}},
                                      {"decoder", byte_level},
                                      {"model",
                                       {{"type", "BPE"},
                                        {"dropout", nullptr},
                                        {"unk_token", nullptr},
                                        {"continuing_subword_prefix", nullptr},
                                        {"end_of_word_suffix", nullptr},
                                        {"fuse_unk", false},
                                        {"byte_fallback", false},
                                        {"vocab", vocabulary},
                                        {"merges", detail::TokenizerJson::array()}}}};
  return json.dump(1) + "\n";
}

}  // namespace terse
