// Embedders on a decoder's trunk: a text's vector is its last token's final state. Source:
// FlagEmbedding 1.4.0, FlagEmbedding/inference/embedder/decoder_only/base.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/models/decoder.h"
#include "terse/models/input.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/models/sentence_transformers.h"
#include "terse/models/special_tokens.h"
#include "terse/tokenizer/tokenizer.h"
#include "terse/view.h"

namespace terse {

// A text's row: bos and eos as the tokenizer class adds them, its end cut. An eos that the class
// does not add is not added here either.
class DecoderTextLayout {
 public:
  explicit DecoderTextLayout(const ModelFolder& folder)
      : tokenizer_(folder.tokenizer.get()), specials_(read_special_tokens(folder)) {}

  // Throws Error(range) if max_length leaves no room beside bos and eos.
  Input row(std::string_view text, std::int64_t max_length) const {
    if (!specials_.add_bos) return single_input(*tokenizer_, text, max_length);
    std::vector<TokenId> ids = tokenizer_->encode(text);
    const bool bos = *specials_.add_bos && specials_.bos;
    const bool eos = *specials_.add_eos && specials_.eos;
    const std::int64_t room = max_length - (bos ? 1 : 0) - (eos ? 1 : 0);
    check(room >= 0, ErrorClass::range, "max_length ", max_length, " is too short for bos and eos");
    Input input;
    input.truncated = static_cast<std::int64_t>(ids.size()) > room;
    if (input.truncated) ids.resize(static_cast<std::size_t>(room));
    if (bos) input.token_ids.push_back(*specials_.bos);
    input.token_ids.insert(input.token_ids.end(), ids.begin(), ids.end());
    if (eos) input.token_ids.push_back(*specials_.eos);
    return input;
  }

 private:
  const Tokenizer* tokenizer_;
  SpecialTokens specials_;
};

// Trunk: Gemma2, Mistral; ModelConfig is what it is made from.
template <class Trunk, class ModelConfig>
class DecoderEmbedder : public EmbedModel {
 public:
  // run: what every pass of this model is run with, its exits left empty.
  DecoderEmbedder(const ModelFolder& folder, const ModelConfig& config, std::string_view name,
                  RunOptions run)
      : tokenizer_(folder.tokenizer),
        settings_(read_sentence_transformers(folder.files, Pooling::last)),
        layout_(folder),
        trunk_(config, trunk_scope(folder.checkpoint->root()), folder.loader(), folder.savings),
        info_(decoder_info(folder, config, name)),
        run_(std::move(run)) {
    folder.check_vocabulary(config.vocab_size);
    info_.role = ModelRole::embedder;
    info_.architecture += " embedder";
    run_.exits = {config.num_hidden_layers};
  }

  const ModelInfo& info() const override { return info_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }

  Input encode(std::string_view text, TextKind kind, const EmbedOptions& options) const override {
    const std::int64_t length = text_length(options);
    if (kind == TextKind::passage) return layout_.row(text, length);
    return layout_.row(with_instruction(options.query_instruction, "", text), length);
  }

  void check_options(const EmbedOptions& options) const override {
    check(!options.sparse && !options.colbert, ErrorClass::unsupported,
          "sparse and colbert outputs are those of bge-m3; a ", info_.architecture, " has none");
    check(options.truncate_dim >= 0, ErrorClass::range, "truncate_dim ", options.truncate_dim,
          ", expected 0 (all) or a number of columns");
  }

  void forward(Context& context, std::span<const Input* const> inputs, const EmbedOptions& options,
               std::span<Vectors> out, Tracer* tracer) const override {
    const Pooling pooling =
        options.pooling == Pooling::automatic ? settings_.pooling : options.pooling;
    pool(context, inputs, options, pooling == Pooling::last ? 1 : kAllRows,
         pooling == Pooling::cls ? 1 : kAllRows, out, tracer);
  }

 protected:
  // The most tokens of a text, special ones included.
  std::int64_t text_length(const EmbedOptions& options) const {
    return max_length(options.max_length,
                      std::min(settings_.max_length.value_or(kDefaultMaxLength), kDefaultMaxLength),
                      1, info_.max_tokens);
  }

  // Vectors: the mean of the first `leading` of the last `scored_rows` final states of every text,
  // in double; then truncated and normalized as options say.
  void pool(Context& context, std::span<const Input* const> inputs, const EmbedOptions& options,
            std::int32_t scored_rows, std::int32_t leading, std::span<Vectors> out,
            Tracer* tracer) const {
    const auto at_exit = [&](std::size_t, const Residual& rows) {
      const auto width = static_cast<std::size_t>(rows.width);
      std::vector<double> states(static_cast<std::size_t>(rows.rows) * width);
      context.backend->head(context, rows, {.norm = &trunk_.norm()}, writable(states));
      std::span<const double> rest = view(states);
      for (std::size_t i = 0; i < out.size(); ++i) {
        const std::size_t length = inputs[i]->token_ids.size();
        const std::size_t scored = std::min(length, static_cast<std::size_t>(scored_rows));
        const std::size_t pooled = std::min(scored, static_cast<std::size_t>(leading));
        out[i].dense = finished(rest.first(pooled * width), width, options);
        rest = rest.subspan(scored * width);
      }
    };
    trunk_.forward(context, inputs, run_, scored_rows, tracer, at_exit);
  }

 private:
  static std::vector<float> finished(std::span<const double> rows, std::size_t width,
                                     const EmbedOptions& options) {
    const auto columns = static_cast<std::size_t>(
        options.truncate_dim > 0 ? std::min(options.truncate_dim, static_cast<std::int64_t>(width))
                                 : static_cast<std::int64_t>(width));
    std::vector<double> mean(columns, 0.0);
    for (std::size_t row = 0; row < rows.size(); row += width) {
      for (std::size_t i = 0; i < columns; ++i) mean[i] += rows[row + i];
    }
    const std::size_t num_rows = rows.size() / width;
    auto divisor = static_cast<double>(num_rows);
    if (options.normalize) {
      double squares = 0;
      for (const double value : mean) squares += value / divisor * (value / divisor);
      divisor *= std::max(std::sqrt(squares), 1e-12);
    }
    std::vector<float> dense;
    for (const double value : mean) dense.push_back(static_cast<float>(value / divisor));
    return dense;
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  SentenceTransformers settings_;
  DecoderTextLayout layout_;
  Trunk trunk_;
  ModelInfo info_;
  RunOptions run_;
};

}  // namespace terse
