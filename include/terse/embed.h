// Embedding: vectors of texts, and the scores that pairs of them give.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/model_info.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/models/registry.h"
#include "terse/models/trace.h"
#include "terse/options.h"
#include "terse/rerank.h"
#include "terse/schedule.h"
#include "terse/view.h"

namespace terse {

// A text to embed. Of its own options (those of the call, if null) max_length and query_instruction
// count; what the outputs are is one choice for the whole call.
struct Text {
  std::string text;
  TextKind kind = TextKind::passage;
  const EmbedOptions* options = nullptr;
};

struct EmbedResult {
  std::vector<float> dense;                            // (width)
  std::vector<std::pair<std::int32_t, float>> sparse;  // weight of each token id, by id
  std::vector<float> colbert;                          // (colbert_rows, width)
  std::int64_t colbert_rows = 0;
  std::int64_t tokens = 0;
  bool truncated = false;
  std::vector<std::int32_t> input_ids;
  std::optional<Error> error = {};  // why this text has no vectors; others are not affected
};

// Summed in double, in order. Both must have the same length.
inline float dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return static_cast<float>(sum);
}

// The five scores of bge-m3's compute_score.
struct M3Scores {
  float dense = 0;
  float sparse = 0;
  float colbert = 0;
  float sparse_dense = 0;
  float colbert_sparse_dense = 0;
};

// dense: dot product. sparse: sum over shared token ids of the products of their weights. colbert:
// mean over query vectors of their best dot product with a passage vector. The mixed ones are means
// weighted in the order dense, sparse, colbert. Throws Error(range) if weights sum to 0.
// Source: FlagEmbedding 1.4.0, m3.py, compute_score, on unpadded texts.
inline M3Scores m3_scores(const EmbedResult& query, const EmbedResult& passage,
                          const std::array<double, 3>& weights = {1, 1, 1}) {
  const double dense = static_cast<double>(dot(view(query.dense), view(passage.dense)));
  double sparse = 0;
  for (auto q = query.sparse.begin(), p = passage.sparse.begin();
       q != query.sparse.end() && p != passage.sparse.end();) {
    if (q->first == p->first) {
      sparse += static_cast<double>(q++->second) * static_cast<double>(p++->second);
    } else {
      ++(q->first < p->first ? q : p);
    }
  }
  double colbert = 0;
  const std::size_t width =
      query.colbert_rows == 0 ? 0
                              : query.colbert.size() / static_cast<std::size_t>(query.colbert_rows);
  const auto row = [&](const std::vector<float>& rows, std::int64_t index) {
    return view(rows).subspan(static_cast<std::size_t>(index) * width, width);
  };
  for (std::int64_t i = 0; i < query.colbert_rows; ++i) {
    double best = -2;  // below any product of unit vectors
    for (std::int64_t j = 0; j < passage.colbert_rows; ++j) {
      best =
          std::max(best, static_cast<double>(dot(row(query.colbert, i), row(passage.colbert, j))));
    }
    colbert += passage.colbert_rows == 0 ? 0 : best;
  }
  if (query.colbert_rows > 0) colbert /= static_cast<double>(query.colbert_rows);

  const auto [w_dense, w_sparse, w_colbert] = weights;
  check(w_dense + w_sparse != 0 && w_dense + w_sparse + w_colbert != 0, ErrorClass::range,
        "weights of the bge-m3 scores sum to 0");
  const double two = (w_sparse * sparse + w_dense * dense) / (w_dense + w_sparse);
  const double three = (w_colbert * colbert + w_sparse * sparse + w_dense * dense) /
                       (w_dense + w_sparse + w_colbert);
  return {static_cast<float>(dense), static_cast<float>(sparse), static_cast<float>(colbert),
          static_cast<float>(two), static_cast<float>(three)};
}

// A loaded embedder. Embedding is const and may be called from any number of threads at once; a
// vector has the same bits whatever it is batched with.
//
// Use it by the name Embedder, below. A template for the reason that Reranker is one.
template <class = void>
class BasicEmbedder {
 public:
  // Opens a folder as published or a file made by pack_model() of pack.h. Throws Error naming the
  // file and what is wrong with it.
  static BasicEmbedder load(const std::filesystem::path& folder, const LoadOptions& options = {}) {
    const ModelFolder opened = ModelFolder::open(folder, options);
    return BasicEmbedder(load_embedder(opened), opened, options);
  }

  // The vectors of each text, in order; what is wrong with one text is in its result. Throws Error:
  // unsupported (outputs the model does not have), cancelled, memory, device.
  std::vector<EmbedResult> embed(std::span<const Text> texts, const EmbedOptions& options = {},
                                 const CallOptions& call = {}) const {
    auto begin = std::chrono::steady_clock::now();
    model_->check_options(options);
    Call work{texts, options, std::vector<Input>(texts.size()),
              std::vector<EmbedResult>(texts.size())};
    const std::vector<std::size_t> ends =
        slice_ends(texts.size(), contexts_->backend().lanes, batch_tokens_,
                   [&](std::size_t i) { return texts[i].text.size(); });
    if (!ends.empty()) {
      parallel_for(threads_, static_cast<std::int64_t>(ends.front()),
                   [&](std::int64_t i) { encode(work, static_cast<std::size_t>(i)); });
    }
    std::size_t first = 0, rows_before = 0;
    for (std::size_t slice = 0; slice < ends.size(); ++slice) {
      const std::size_t end = ends[slice];
      std::vector<std::size_t> rows;  // texts of the slice without an error
      std::vector<ScheduledRow> schedule;
      for (std::size_t i = first; i < end; ++i) {
        if (work.results[i].error) continue;
        rows.push_back(i);
        schedule.push_back({work.results[i].tokens, 0});
      }
      count_tokens(call, view(schedule), begin);
      const std::size_t next = slice + 1 < ends.size() ? ends[slice + 1] : end;
      run_slice(work, view(rows), view(schedule), slice_options(call, rows_before),
                rows_before + rows.size() + texts.size() - end,
                {static_cast<std::int64_t>(next - end),
                 [&](std::int64_t i) { encode(work, end + static_cast<std::size_t>(i)); }});
      rows_before += rows.size();
      first = end;
      begin = std::chrono::steady_clock::now();
    }
    return std::move(work.results);
  }

  // Documents by descending dot product of dense vectors with the query's. Throws the first Error.
  std::vector<Ranked> rank(std::string_view query, std::span<const std::string> documents,
                           const EmbedOptions& options = {}, const CallOptions& call = {}) const {
    std::vector<Text> texts = {{std::string(query), TextKind::query}};
    for (const std::string& document : documents) texts.push_back({document});
    const std::vector<EmbedResult> vectors = embed(view(texts), options, call);
    std::vector<float> scores;
    for (const EmbedResult& result : vectors) {
      if (result.error) throw *result.error;
      scores.push_back(dot(view(vectors.front().dense), view(result.dense)));
    }
    return rank_scores(view(scores).subspan(1));
  }

  // Every intermediate tensor of one text's forward pass. Throws Error.
  std::vector<TraceTensor> trace(const Text& text, const EmbedOptions& options = {}) const {
    model_->check_options(options);
    const EmbedOptions& own = text.options != nullptr ? *text.options : options;
    const Input input = model_->encode(text.text, text.kind, own);
    CollectingTracer tracer;
    run_one(input, options, tracer);
    return std::move(tracer.tensors);
  }

  const ModelInfo& info() const { return model_->info(); }
  const Tokenizer& tokenizer() const { return model_->tokenizer(); }

 private:
  struct Call {
    std::span<const Text> texts;
    const EmbedOptions& options;
    std::vector<Input> inputs;         // (texts)
    std::vector<EmbedResult> results;  // (texts)
  };

  BasicEmbedder(std::unique_ptr<EmbedModel> model, const ModelFolder& folder,
                const LoadOptions& options)
      : model_(std::move(model)), threads_(folder.threads), batch_tokens_(options.batch_tokens) {
    check(batch_tokens_ >= 0, ErrorClass::range, "batch_tokens ", batch_tokens_,
          ", expected 0 (automatic) or a number of tokens");
    if (batch_tokens_ == 0) batch_tokens_ = folder.backend->group_tokens;
    contexts_ = std::make_unique<ContextPool>(*folder.backend, batch_tokens_);
    // Tokens whose weights never count: they stand in every text, or for no text.
    for (const char* token : {"<s>", "</s>", "<pad>", "<unk>"}) {
      if (const auto id = model_->tokenizer().token_to_id(token)) unweighted_.push_back(*id);
    }
  }

  void encode(Call& work, std::size_t index) const {
    const Text& text = work.texts[index];
    EmbedResult& result = work.results[index];
    try {
      Input& input = work.inputs[index];
      input = model_->encode(text.text, text.kind,
                             text.options != nullptr ? *text.options : work.options);
      check(!input.token_ids.empty(), ErrorClass::range, "the text has no token");
      result.tokens = static_cast<std::int64_t>(input.token_ids.size());
      result.truncated = input.truncated;
      result.input_ids = input.token_ids;
    } catch (const Error& error) {
      result.error = error;
    }
  }

  // Computes the texts `rows`, scheduled in that order, with other work beside them.
  void run_slice(Call& work, std::span<const std::size_t> rows,
                 std::span<const ScheduledRow> schedule, const CallOptions& call,
                 std::size_t all_rows, const AsideWork& aside) const {
    const CallPlan plan = plan_call(contexts_->backend(), model_->info().hidden_size, batch_tokens_,
                                    schedule, threads_);
    run_groups(
        plan, threads_, *contexts_, call, all_rows,
        [&](Context& context, std::span<const std::size_t> group) {
          std::vector<std::size_t> members;
          for (const std::size_t row : group) members.push_back(rows[row]);
          forward(context, work, view(members));
        },
        aside);
  }

  void forward(Context& context, Call& work, std::span<const std::size_t> members) const {
    std::vector<const Input*> rows;
    for (const std::size_t member : members) rows.push_back(&work.inputs[member]);
    std::vector<Vectors> vectors(members.size());
    model_->forward(context, view(rows), work.options, writable(vectors), nullptr);
    for (std::size_t i = 0; i < members.size(); ++i) {
      const std::size_t member = members[i];
      finish(std::move(vectors[i]), work.inputs[member], work.options, work.results[member]);
    }
  }

  void finish(Vectors&& vectors, const Input& input, const EmbedOptions& options,
              EmbedResult& result) const {
    const auto finite = [](const std::vector<float>& values) {
      return std::all_of(values.begin(), values.end(),
                         [](float value) { return is_finite(static_cast<double>(value)); });
    };
    if (!finite(vectors.dense) || !finite(vectors.weights) || !finite(vectors.colbert)) {
      result.error = explain_nonfinite(input, options);
      return;
    }
    result.dense = std::move(vectors.dense);
    if (options.colbert) {
      result.colbert = std::move(vectors.colbert);
      result.colbert_rows = static_cast<std::int64_t>(input.token_ids.size()) - 1;
    }
    std::map<std::int32_t, float> weights;
    for (std::size_t token = 0; token < vectors.weights.size(); ++token) {
      const std::int32_t id = input.token_ids[token];
      const bool counts =
          std::find(unweighted_.begin(), unweighted_.end(), id) == unweighted_.end();
      if (!counts || !(vectors.weights[token] > 0)) continue;
      float& weight = weights[id];
      weight = std::max(weight, vectors.weights[token]);
    }
    result.sparse.assign(weights.begin(), weights.end());
  }

  void run_one(const Input& input, const EmbedOptions& options, Tracer& tracer) const {
    const ComputeScope environment;
    std::unique_ptr<Context> context = contexts_->take(threads_);
    const Input* row = &input;
    Vectors vectors;
    model_->forward(*context, {&row, 1}, options, {&vectors, 1}, &tracer);
    contexts_->give_back(std::move(context));
  }

  Error explain_nonfinite(const Input& input, const EmbedOptions& options) const {
    FiniteTracer tracer;
    run_one(input, options, tracer);
    const std::string where = tracer.first_bad.empty() ? "the pooling" : tracer.first_bad;
    return Error(ErrorClass::nonfinite, "a vector is not finite; the first tensor that is not is " +
                                            where + " (a weight is NaN or infinite, or too large)");
  }

  std::unique_ptr<EmbedModel> model_;
  std::unique_ptr<ContextPool> contexts_;
  std::vector<TokenId> unweighted_;
  int threads_ = 1;
  std::int64_t batch_tokens_ = 0;
};

using Embedder = BasicEmbedder<>;

}  // namespace terse
