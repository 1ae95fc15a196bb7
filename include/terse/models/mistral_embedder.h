// Embedders on the Mistral trunk: e5-mistral-7b-instruct and bge-en-icl, whose instructions and
// few-shot examples are the caller's format; and LLARA on Llama 2 (Li et al. 2023,
// arXiv:2312.15503), which lets the model predict eight words for a text and takes their mean.
// Source of LLARA's prompt: FlagEmbedding, research/LLARA, README.md.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terse/models/decoder_embedder.h"
#include "terse/models/input.h"
#include "terse/models/loading.h"
#include "terse/models/mistral.h"
#include "terse/models/special_tokens.h"
#include "terse/view.h"

namespace terse {

class MistralEmbedder : public DecoderEmbedder<Mistral, MistralConfig> {
 public:
  MistralEmbedder(const ModelFolder& folder, const MistralConfig& config)
      : DecoderEmbedder(folder, config, config.model_type == "llama" ? "Llama" : "Mistral", {}) {}
};

class LlaraEmbedder : public DecoderEmbedder<Mistral, MistralConfig> {
 public:
  LlaraEmbedder(const ModelFolder& folder, const MistralConfig& config)
      : DecoderEmbedder(folder, config, "LLARA", {}), opening_(folder.tokenizer->encode("\"")) {
    if (const auto bos = read_special_tokens(folder).bos) opening_.insert(opening_.begin(), *bos);
    suffix_of_passage_ = folder.tokenizer->encode(
        "\", summarize the above passage within eight words: <s1><s2><s3><s4><s5><s6><s7><s8>");
    suffix_of_query_ = folder.tokenizer->encode(
        "\", predict the following passage within eight words: "
        "<s9><s10><s11><s12><s13><s14><s15><s16>");
  }

  // Whether a tokenizer has the sixteen words that LLARA predicts.
  static bool recognizes(const Tokenizer& tokenizer) {
    return tokenizer.token_to_id("<s1>") && tokenizer.token_to_id("<s16>");
  }

  // bos, a quotation mark, the text cut to max_length tokens, the suffix of its kind.
  Input encode(std::string_view text, TextKind kind, const EmbedOptions& options) const override {
    const bool query = kind == TextKind::query;
    std::vector<TokenId> ids = tokenizer().encode(
        query ? with_instruction(options.query_instruction, "", text) : std::string(text));
    Input input;
    const auto length = static_cast<std::size_t>(text_length(options));
    input.truncated = ids.size() > length;
    if (input.truncated) ids.resize(length);
    using Ids = std::span<const TokenId>;
    for (const Ids part :
         {view(opening_), view(ids), view(query ? suffix_of_query_ : suffix_of_passage_)}) {
      input.token_ids.insert(input.token_ids.end(), part.begin(), part.end());
    }
    return input;
  }

  void forward(Context& context, std::span<const Input* const> inputs, const EmbedOptions& options,
               std::span<Vectors> out, Tracer* tracer) const override {
    check(options.pooling == Pooling::automatic, ErrorClass::unsupported,
          "pooling is set, but LLARA has one of its own");
    pool(context, inputs, options, kWords, kAllRows, out, tracer);
  }

 private:
  static constexpr std::int32_t kWords = 8;

  std::vector<TokenId> opening_;
  std::vector<TokenId> suffix_of_passage_;
  std::vector<TokenId> suffix_of_query_;
};

}  // namespace terse
