// Embedders on the BERT and XLM-R encoder: bge-*-v1.5, llm-embedder, any sentence-transformers
// folder with cls or mean pooling, and bge-m3 with its sparse and multi-vector heads. Source of the
// heads: FlagEmbedding 1.4.0, FlagEmbedding/inference/embedder/encoder_only/m3.py.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "terse/models/bert.h"
#include "terse/models/input.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/models/sentence_transformers.h"
#include "terse/view.h"

namespace terse {

class BertEmbedder : public EmbedModel {
 public:
  BertEmbedder(const ModelFolder& folder, const BertConfig& config)
      : tokenizer_(folder.tokenizer),
        settings_(read_sentence_transformers(folder.files, Pooling::cls)),
        bert_(config, encoder_scope(config, folder.checkpoint->root()), folder.loader()),
        info_(bert_info(folder, config)) {
    folder.check_vocabulary(config.vocab_size);
    info_.role = ModelRole::embedder;
    info_.architecture += " embedder";
    load_m3_heads(folder, config);
  }

  const ModelInfo& info() const override { return info_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }

  Input encode(std::string_view text, TextKind kind, const EmbedOptions& options) const override {
    const auto least = static_cast<std::int64_t>(tokenizer_->num_special_tokens(false));
    const std::int64_t length =
        max_length(options.max_length,
                   std::min(settings_.max_length.value_or(kDefaultMaxLength), kDefaultMaxLength),
                   least, bert_.config().max_tokens());
    if (kind == TextKind::passage) return single_input(*tokenizer_, text, length);
    return single_input(*tokenizer_, with_instruction(options.query_instruction, "", text), length);
  }

  void check_options(const EmbedOptions& options) const override {
    check(info_.multi_vector || (!options.sparse && !options.colbert), ErrorClass::unsupported,
          "sparse and colbert outputs are those of bge-m3; a ", info_.architecture, " has none");
    check(options.truncate_dim >= 0, ErrorClass::range, "truncate_dim ", options.truncate_dim,
          ", expected 0 (all) or a number of columns");
  }

  void forward(Context& context, std::span<const Input* const> inputs, const EmbedOptions& options,
               std::span<Vectors> out, Tracer* tracer) const override {
    const Batch& batch = bert_.pack(context, inputs);
    const Pooling pooling =
        options.pooling == Pooling::automatic ? settings_.pooling : options.pooling;
    const bool all_rows =
        options.sparse || options.colbert || pooling == Pooling::mean || tracer != nullptr;
    RowSelection& pooled = context.selection;
    if (pooling == Pooling::last) {
      select_last(batch, &pooled);
    } else {
      select_first(batch, &pooled);
    }
    const Bert::Output x = bert_.forward(context, batch, all_rows ? nullptr : &pooled, tracer);
    if (options.dense) {
      Residual one_row_each = x.rows;
      if (all_rows) {
        one_row_each = x.spare;
        if (pooling == Pooling::mean) {
          fill_sequence_spans(batch, &context.spans);
        } else {
          fill_spans(pooled, &context.spans);
        }
        context.backend->mean_rows(context, x.rows, view(context.spans), one_row_each);
      }
      dense(context, one_row_each, options, out);
    }
    if (options.sparse) sparse(context, batch, x.rows, out);
    if (options.colbert) colbert(context, batch, x.rows, options, out);
  }

 private:
  // The files beside the weights that make a folder bge-m3; `.pt` is what is published.
  void load_m3_heads(const ModelFolder& folder, const BertConfig& config) {
    for (const std::string name : {"sparse_linear", "colbert_linear"}) {
      if (folder.files.packed() != nullptr) break;  // they are among its tensors
      if (std::filesystem::exists(folder.path / (name + ".safetensors"))) {
        folder.checkpoint->add_file((folder.path / (name + ".safetensors")).string(), "");
      } else if (std::filesystem::exists(folder.path / (name + ".pt"))) {
        folder.checkpoint->add_file((folder.path / (name + ".pt")).string(), name);
      }
    }
    const Weights root = folder.checkpoint->root();
    info_.multi_vector = root.has("sparse_linear.weight") || root.has("colbert_linear.weight");
    if (!info_.multi_vector) return;
    info_.architecture = "bge-m3 embedder";
    const Backend& backend = *folder.backend;
    const Weights colbert = root.scope("colbert_linear");
    const TensorView weight = colbert.get_any("weight");
    check(weight.shape.size() == 2, ErrorClass::shape_mismatch, "colbert_linear.weight: shape ",
          shape_text(weight.shape), ", expected (columns, ", config.hidden_size, ")");
    sparse_ = load_linear(backend, root.scope("sparse_linear"), 1, config.hidden_size,
                          Bias::required, backend.sensitive, LinearKind::head);
    colbert_ = load_linear(backend, colbert, weight.shape[0], config.hidden_size, Bias::required,
                           backend.sensitive, LinearKind::head);
  }

  // pooled: one row a sequence.
  static void dense(Context& context, const Residual& pooled, const EmbedOptions& options,
                    std::span<Vectors> out) {
    const HeadSpec head{.truncate = options.truncate_dim, .l2_normalize = options.normalize};
    const std::vector<float> values = run_head(context, pooled, head);
    const std::size_t width = values.size() / out.size();
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto first = values.begin() + static_cast<std::ptrdiff_t>(i * width);
      out[i].dense.assign(first, first + static_cast<std::ptrdiff_t>(width));
    }
  }

  void sparse(Context& context, const Batch& batch, const Residual& x,
              std::span<Vectors> out) const {
    const HeadSpec head{.out = &sparse_, .out_activation = Activation::relu};
    const std::vector<float> weights = run_head(context, x, head);
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i].weights.assign(weights.begin() + batch.cu_seqlens[i],
                            weights.begin() + batch.cu_seqlens[i + 1]);
    }
  }

  // The first token has no vector, the closing one has.
  void colbert(Context& context, const Batch& batch, const Residual& x, const EmbedOptions& options,
               std::span<Vectors> out) const {
    const HeadSpec head{.out = &colbert_, .truncate = options.truncate_dim, .l2_normalize = true};
    const std::vector<float> values = run_head(context, x, head);
    const std::int64_t width = head_columns(head, x.width);
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i].colbert.assign(values.begin() + (batch.cu_seqlens[i] + 1) * width,
                            values.begin() + batch.cu_seqlens[i + 1] * width);
    }
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  SentenceTransformers settings_;
  Bert bert_;
  ModelInfo info_;
  Linear sparse_;
  Linear colbert_;
};

}  // namespace terse
