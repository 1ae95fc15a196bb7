// Tokenizer: text to token ids and back, as the model's own tokenizer.json or SentencePiece file
// defines it.
//
// Text passes through: added tokens cut out of the raw text, normalizer, added tokens cut out of
// the normalised text, pre-tokenizer, model; then truncation and the post-processor's template.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/file.h"
#include "terse/json.h"
#include "terse/tokenizer/added_tokens.h"
#include "terse/tokenizer/bpe.h"
#include "terse/tokenizer/component.h"
#include "terse/tokenizer/decode.h"
#include "terse/tokenizer/encoding.h"
#include "terse/tokenizer/length_options.h"
#include "terse/tokenizer/normalize.h"
#include "terse/tokenizer/post_process.h"
#include "terse/tokenizer/pre_tokenize.h"
#include "terse/tokenizer/prebuilt.h"
#include "terse/tokenizer/sentencepiece.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/token_model.h"
#include "terse/tokenizer/truncate.h"
#include "terse/tokenizer/unigram.h"
#include "terse/tokenizer/wordpiece.h"
#include "terse/utf8.h"

namespace terse {

struct EncodeOptions {
  bool add_special_tokens = true;
  std::optional<std::size_t> max_length = {};  // tokens, special ones included
  TruncationStrategy strategy = TruncationStrategy::longest_first;
  TruncationSide side = TruncationSide::right;
  SpecialText special_text = SpecialText::match;
};

// Immutable after loading: any number of threads may use one object.
class Tokenizer {
 public:
  // Reads a tokenizer.json or a SentencePiece .model: by the file name's extension, where it has
  // neither by content. Throws Error: io, path, limit, and what from_json or from_sentencepiece
  // throws.
  static Tokenizer load(const std::filesystem::path& file);

  // Reads the text of a tokenizer.json; `source`, a file name, leads every message.
  // Throws Error: json, utf8, duplicate, limit, schema, range, tokenizer, unsupported.
  static Tokenizer from_json(std::string_view text, std::string_view source);

  // The same with the model's vocabulary and merges as arrays that save() stored: `text` is the
  // tokenizer.json without them. Throws Error: those, and missing (an array), schema, tokenizer.
  static Tokenizer from_prebuilt(std::string_view text, std::string_view source,
                                 const PrebuiltArrays& arrays);

  // Hands out the arrays of the model, which stay this object's. Returns false if it has none (a
  // SentencePiece file is its own compact form).
  bool save(PrebuiltArrays& arrays) const { return model_->save(arrays); }

  // Reads the bytes of a SentencePiece model. Such a file defines no added tokens and no template.
  // Throws Error: protobuf, truncated, limit, range, tokenizer, unsupported.
  static Tokenizer from_sentencepiece(std::string_view bytes, std::string_view source);

  // The ids of a text without the post-processor's special tokens, and where added tokens were
  // found. Throws Error: utf8 (with the byte offset), limit (the text or its normalised form is too
  // long), tokenizer (a character that a model without unknown token cannot express).
  TokenSequence tokenize(std::string_view text,
                         SpecialText special_text = SpecialText::match) const;

  // Truncates one or two (second may be null) tokenized texts and puts special tokens around them.
  // Throws Error: range (max_length is 0 or below the number of special tokens), limit (only_first
  // or only_second cannot cut as much as needed).
  Encoding assemble(TokenSequence first, const TokenSequence* second,
                    const EncodeOptions& options) const;

  std::vector<TokenId> encode(std::string_view text,
                              SpecialText special_text = SpecialText::match) const {
    return tokenize(text, special_text).ids;
  }
  Encoding encode(std::string_view text, const EncodeOptions& options) const {
    return assemble(tokenize(text, options.special_text), nullptr, options);
  }
  Encoding encode_pair(std::string_view text, std::string_view pair,
                       const EncodeOptions& options) const {
    const TokenSequence second = tokenize(pair, options.special_text);
    return assemble(tokenize(text, options.special_text), &second, options);
  }

  // The text that ids stand for; ids without a token are skipped.
  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const;

  std::optional<TokenId> token_to_id(std::string_view token) const;
  // Empty if the id has no token.
  std::string id_to_token(TokenId id) const;
  // The largest id + 1; ids below may have holes.
  std::size_t vocab_size() const { return vocab_size_; }
  TokenId max_id() const { return static_cast<TokenId>(vocab_size_) - 1; }
  // Whether the id is that of a special added token, or of a control piece of a SentencePiece file.
  bool is_special(TokenId id) const;

  std::size_t num_special_tokens(bool has_pair) const {
    return post_processor_.num_special_tokens(has_pair);
  }
  const std::vector<AddedToken>& added_tokens() const { return added_tokens_.tokens(); }
  // What the file wishes; encoding does not apply it.
  const std::optional<FileTruncation>& file_truncation() const { return truncation_; }
  const std::optional<FilePadding>& file_padding() const { return padding_; }

  // "Unigram", "WordPiece", "BPE" or "SentencePiece".
  std::string_view type() const { return model_->type(); }
  // One line for each stage.
  std::vector<std::string> describe() const;

 private:
  using Model = std::unique_ptr<const TokenModel>;

  explicit Tokenizer(Model model) : model_(std::move(model)) { count_ids(); }

  static Tokenizer read(std::string_view text, std::string_view source,
                        const PrebuiltArrays* arrays);
  static Model read_model(JsonValue model, const PrebuiltArrays* arrays);
  static std::string_view model_type(JsonValue model);
  void read_added_tokens(JsonValue root);
  void count_ids();

  void append_piece(std::string_view text, const TextPiece& piece, SpecialText special_text,
                    TokenSequence* sequence) const;
  void append_part(std::string part, bool at_text_start, std::vector<TokenId>* ids) const;

  Model model_;
  AddedTokens added_tokens_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  PostProcessor post_processor_;
  Decoder decoder_;
  std::optional<FileTruncation> truncation_;
  std::optional<FilePadding> padding_;
  std::size_t vocab_size_ = 0;
};

inline Tokenizer Tokenizer::load(const std::filesystem::path& file) {
  const std::string content = read_text_file(file.string(), kMaxTokenizerBytes);
  const std::string source = path_text(file.string());
  const std::size_t first = content.find_first_not_of(" \t\r\n");
  const bool is_object = first != std::string::npos && content[first] == '{';
  const bool is_json = file.extension() == ".json" || (file.extension() != ".model" && is_object);
  return is_json ? from_json(content, source) : from_sentencepiece(content, source);
}

inline Tokenizer Tokenizer::from_json(std::string_view text, std::string_view source) {
  return read(text, source, nullptr);
}

inline Tokenizer Tokenizer::from_prebuilt(std::string_view text, std::string_view source,
                                          const PrebuiltArrays& arrays) {
  return read(text, source, &arrays);
}

inline Tokenizer Tokenizer::read(std::string_view text, std::string_view source,
                                 const PrebuiltArrays* arrays) {
  const auto document = JsonDocument::parse(text, {.max_bytes = kMaxTokenizerBytes}, source);
  const JsonValue root = document.root().as_object("the tokenizer");
  if (const auto version = root.find("version")) {
    check(version->as_string("version") == "1.0", ErrorClass::unsupported, source, ": version is ",
          version->describe(), ", expected \"1.0\"");
  }
  Tokenizer tokenizer(read_model(required_field(root, "model", "the tokenizer"), arrays));
  // A component that is absent is one that is null.
  const auto each = [&](std::string_view name, auto&& read) {
    if (const auto member = root.find(name); member && !member->is_null()) read(*member);
  };
  each("normalizer", [&](auto value) { tokenizer.normalizer_ = Normalizer::from_json(value); });
  each("pre_tokenizer",
       [&](auto value) { tokenizer.pre_tokenizer_ = PreTokenizer::from_json(value); });
  each("added_tokens", [&](auto value) { tokenizer.read_added_tokens(value); });
  each("post_processor", [&](auto value) {
    tokenizer.post_processor_ = PostProcessor::from_json(value, tokenizer.vocab_size_);
  });
  each("decoder", [&](auto value) { tokenizer.decoder_ = Decoder::from_json(value); });
  each("truncation", [&](auto value) { tokenizer.truncation_ = read_truncation(value); });
  each("padding", [&](auto value) { tokenizer.padding_ = read_padding(value); });
  return tokenizer;
}

inline Tokenizer Tokenizer::from_sentencepiece(std::string_view bytes, std::string_view source) {
  check(bytes.size() <= kMaxTokenizerBytes, ErrorClass::limit, source, ": ", bytes.size(),
        " bytes, at most ", kMaxTokenizerBytes, " are read");
  const auto* model = new SentencePiece(SentencePiece::from_bytes(bytes, source));
  Tokenizer tokenizer{Model(model)};
  tokenizer.decoder_ = Decoder::sentencepiece(model->add_dummy_prefix());
  return tokenizer;
}

// Files of the library's first versions leave the type out; it shows in what else is there.
inline std::string_view Tokenizer::model_type(JsonValue model) {
  const auto has = [&](std::string_view name) {
    const auto member = model.find(name);
    return member && !member->is_null();
  };
  if (model.find("type")) return type_field(model, "model");
  if (const auto vocab = model.find("vocab"); vocab && vocab->is_array()) return "Unigram";
  if (has("merges")) return "BPE";
  check(has("max_input_chars_per_word") || has("continuing_subword_prefix"), ErrorClass::schema,
        model.source(), ": model has no type and looks like none that is known");
  return "WordPiece";
}

inline Tokenizer::Model Tokenizer::read_model(JsonValue model, const PrebuiltArrays* arrays) {
  const std::string_view type = model_type(model.as_object("model"));
  const auto read_as = [&]<class T>(std::type_identity<T>) -> Model {
    return Model(new T(arrays == nullptr ? T::from_json(model) : T::from_prebuilt(model, *arrays)));
  };
  if (type == Unigram::kType) return read_as(std::type_identity<Unigram>());
  if (type == WordPiece::kType) return read_as(std::type_identity<WordPiece>());
  check(type == Bpe::kType, ErrorClass::unsupported, model.source(), ": model type ", quote(type),
        ", expected Unigram, WordPiece or BPE");
  return read_as(std::type_identity<Bpe>());
}

inline void Tokenizer::read_added_tokens(JsonValue list) {
  AddedTokens::Context context;
  context.model_id = [&](std::string_view content) { return model_->token_to_id(content); };
  context.model_size = vocab_size_;
  context.normalize = [&](std::string& content) { normalizer_.apply(content); };
  added_tokens_ = AddedTokens::from_json(list, context);
  count_ids();
}

inline void Tokenizer::count_ids() {
  vocab_size_ = model_->vocab_size();
  for (const AddedToken& token : added_tokens_.tokens()) {
    vocab_size_ = std::max(vocab_size_, static_cast<std::size_t>(token.id) + 1);
  }
}

inline TokenSequence Tokenizer::tokenize(std::string_view text, SpecialText special_text) const {
  check(text.size() <= kMaxTextBytes, ErrorClass::limit, "text: ", text.size(), " bytes, at most ",
        kMaxTextBytes, " are encoded");
  check_utf8(text, "text");
  TokenSequence sequence;
  for (const TextPiece& piece : added_tokens_.split_raw(text, special_text)) {
    if (piece.token == nullptr) {
      append_piece(text, piece, special_text, &sequence);
    } else {
      sequence.matches.push_back({sequence.ids.size(), piece.begin, piece.end});
      sequence.ids.push_back(piece.token->id);
    }
  }
  return sequence;
}

// Appends the ids of a stretch of raw text without raw added tokens.
inline void Tokenizer::append_piece(std::string_view text, const TextPiece& piece,
                                    SpecialText special_text, TokenSequence* sequence) const {
  std::string normalized(text.substr(piece.begin, piece.end - piece.begin));
  normalizer_.apply(normalized);
  for (const TextPiece& part : added_tokens_.split_normalized(normalized, special_text)) {
    if (part.token != nullptr) {
      sequence->matches.push_back({sequence->ids.size(), piece.begin, piece.end});
      sequence->ids.push_back(part.token->id);
      continue;
    }
    append_part(normalized.substr(part.begin, part.end - part.begin),
                piece.begin == 0 && part.begin == 0, &sequence->ids);
  }
}

// Appends the ids of a stretch of normalised text without added tokens.
inline void Tokenizer::append_part(std::string part, bool at_text_start,
                                   std::vector<TokenId>* ids) const {
  const PreTokens pre_tokens = pre_tokenizer_.apply(std::move(part), at_text_start);
  const std::string_view text = pre_tokens.text;
  for (const Span& span : pre_tokens.spans) {
    model_->encode(text.substr(span.begin, span.end - span.begin), ids);
  }
}

inline Encoding Tokenizer::assemble(TokenSequence first, const TokenSequence* second,
                                    const EncodeOptions& options) const {
  if (!options.max_length) return post_processor_.apply(first, second, options.add_special_tokens);
  const std::size_t num_special =
      options.add_special_tokens ? num_special_tokens(second != nullptr) : 0;
  check(*options.max_length > 0 && *options.max_length >= num_special, ErrorClass::range,
        "max_length is ", *options.max_length, ", expected at least ",
        std::max<std::size_t>(num_special, 1));
  const SequenceLengths lengths{first.ids.size(), second != nullptr ? second->ids.size() : 0};
  const SequenceLengths kept =
      truncated_lengths(lengths, *options.max_length - num_special, options.strategy);
  truncate(&first, kept.first, options.side);
  if (second == nullptr || kept.second == lengths.second) {
    Encoding encoding = post_processor_.apply(first, second, options.add_special_tokens);
    encoding.truncated = kept.first < lengths.first;
    return encoding;
  }
  TokenSequence cut = *second;
  truncate(&cut, kept.second, options.side);
  Encoding encoding = post_processor_.apply(first, &cut, options.add_special_tokens);
  encoding.truncated = true;
  return encoding;
}

inline std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  for (const TokenId id : ids) {
    if (skip_special_tokens && is_special(id)) continue;
    std::string token = id_to_token(id);
    if (!token.empty()) tokens.push_back(std::move(token));
  }
  return decoder_.apply(std::move(tokens));
}

inline bool Tokenizer::is_special(TokenId id) const {
  if (const AddedToken* token = added_tokens_.find(id)) return token->special;
  return id >= 0 && static_cast<std::size_t>(id) < model_->vocab_size() && model_->is_control(id);
}

inline std::optional<TokenId> Tokenizer::token_to_id(std::string_view token) const {
  if (const AddedToken* added = added_tokens_.find(token)) return added->id;
  return model_->token_to_id(token);
}

inline std::string Tokenizer::id_to_token(TokenId id) const {
  if (const AddedToken* added = added_tokens_.find(id)) return added->content;
  return std::string(model_->id_to_token(id));
}

inline std::vector<std::string> Tokenizer::describe() const {
  std::vector<std::string> lines;
  const std::size_t num_added = added_tokens_.tokens().size();
  lines.push_back("model: " + model_->describe());
  lines.push_back("vocabulary size: " + std::to_string(vocab_size_));
  lines.push_back("added tokens: " + std::to_string(num_added));
  lines.push_back("normalizer: " + normalizer_.describe());
  lines.push_back("pre-tokenizer: " + pre_tokenizer_.describe());
  lines.push_back("post-processor: " + post_processor_.describe());
  lines.push_back("decoder: " + decoder_.describe());
  return lines;
}

}  // namespace terse
