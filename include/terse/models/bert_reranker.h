// Cross-encoders on the BERT and XLM-R encoder: bge-reranker-base, -large and -v2-m3,
// jina-reranker-v2 and any other one-label sequence classifier.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "terse/models/bert.h"
#include "terse/models/input.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/view.h"

namespace terse {

class BertReranker : public RerankModel {
 public:
  // Throws Error: config.h, weights.h; unsupported (more than one label).
  BertReranker(const ModelFolder& folder, const BertConfig& config)
      : tokenizer_(folder.tokenizer),
        bert_(config, encoder_scope(config, folder.checkpoint->root()), folder.loader()),
        layout_(*tokenizer_, config.max_tokens()),
        info_(describe(folder, config)) {
    folder.check_vocabulary(config.vocab_size);
    load_head(folder, config);
    check(config.num_labels == 1, ErrorClass::unsupported, folder.config.source(), ": ",
          config.num_labels, " labels, only rerankers with one are implemented");
  }

  const ModelInfo& info() const override { return info_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }

  std::vector<TokenId> tokenize_query(std::string_view text,
                                      const ScoreOptions& options) const override {
    return tokenizer_->encode(with_instruction(options.query_instruction, "", text));
  }
  std::vector<TokenId> tokenize_passage(std::string_view text,
                                        const ScoreOptions& options) const override {
    return tokenizer_->encode(with_instruction(options.passage_instruction, "", text));
  }

  std::vector<Input> assemble(const PairTokens& pair, const ScoreOptions& options) const override {
    return layout_.assemble(pair, options);
  }

  RunOptions run_options(const ScoreOptions& options, std::vector<std::string>&) const override {
    refuse_decoder_options(options, info_.architecture);
    return {};
  }

  void forward(Context& context, std::span<const Input* const> inputs, const RunOptions&,
               std::span<double> scores, Tracer* tracer) const override {
    const Batch& batch = bert_.pack(context, inputs);
    const RowSelection& first = context.selection;
    select_first(batch, &context.selection);
    // A trace shows every row, so that only then the scored ones are picked at the end.
    Bert::Output x = bert_.forward(context, batch, tracer == nullptr ? &first : nullptr, tracer);
    Residual scored = x.rows;  // (batch, hidden_size)
    if (tracer != nullptr) {
      scored = x.spare;
      fill_spans(first, &context.spans);
      context.backend->mean_rows(context, x.rows, view(context.spans), scored);
    }
    const HeadSpec head{.dense = &dense_, .dense_activation = Activation::tanh, .out = &out_};
    context.backend->head(context, scored, head, scores);
  }

 private:
  static ModelInfo describe(const ModelFolder& folder, const BertConfig& config) {
    ModelInfo info = bert_info(folder, config);
    info.role = ModelRole::reranker;
    info.architecture += " reranker";
    return info;
  }

  // s = out_proj(tanh(dense(x_0))): `classifier.dense` and `classifier.out_proj` in XLM-R, the
  // pooler and `classifier` in BERT.
  void load_head(const ModelFolder& folder, const BertConfig& config) {
    const Backend& backend = *folder.backend;
    const Weights root = folder.checkpoint->root();
    const Weights classifier = root.scope("classifier");
    const Weights dense = config.xlm_roberta
                              ? classifier.scope("dense")
                              : encoder_scope(config, root).scope("pooler").scope("dense");
    const Weights out = config.xlm_roberta ? classifier.scope("out_proj") : classifier;
    dense_ = load_linear(backend, dense, config.hidden_size, config.hidden_size, Bias::required,
                         backend.sensitive, LinearKind::head);
    out_ = load_linear(backend, out, config.num_labels, config.hidden_size, Bias::required,
                       backend.sensitive, LinearKind::head);
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  Bert bert_;
  CrossEncoderLayout layout_;
  ModelInfo info_;
  Linear dense_;
  Linear out_;
};

}  // namespace terse
