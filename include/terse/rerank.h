// Reranking: load a model folder once, then score pairs of query and passage, or rank documents.
//
//   const auto reranker = terse::Reranker::load("bge-reranker-v2-m3");
//   const std::vector<std::string> documents = {"hi", "The giant panda is a bear species."};
//   for (const auto& [index, score] : reranker.rank("what is panda?", documents)) {
//     std::cout << score << "  " << documents[index] << "\n";
//   }
#pragma once

#include <algorithm>
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

#include "terse/cascade.h"
#include "terse/error.h"
#include "terse/model_info.h"
#include "terse/models/loading.h"
#include "terse/models/model.h"
#include "terse/models/paused_pass.h"
#include "terse/models/registry.h"
#include "terse/models/trace.h"
#include "terse/options.h"
#include "terse/schedule.h"
#include "terse/view.h"

namespace terse {

// A query and a passage, with options of their own or those of the call.
struct Pair {
  std::string query;
  std::string passage;
  const ScoreOptions* options = nullptr;
};

struct ScoreResult {
  std::vector<std::int64_t> exits;         // layers scored after, rising; empty without exits
  std::vector<float> scores;               // one per exit; one in all without exits
  std::int64_t tokens = 0;                 // of all rows the pair became
  std::int64_t chunks = 1;                 // rows; more than 1 only with Truncation::chunk
  bool truncated = false;                  // whether tokens of the texts were cut away
  std::vector<std::int32_t> input_ids;     // of the first row
  std::vector<std::string> warnings = {};  // parts of the options that had no effect
  std::optional<Error> error = {};         // why this pair has no score; others are not affected

  // The score after the deepest exit. Throws the pair's error, if it has one.
  float score() const {
    if (error) throw *error;
    return scores.back();
  }
};

// A document's place in the input and its score.
struct Ranked {
  std::size_t index = 0;
  float score = 0;
};

// Indices of scores, best first; equal scores keep their order.
inline std::vector<Ranked> rank_scores(std::span<const float> scores) {
  std::vector<double> falling;
  for (const float score : scores) falling.push_back(-static_cast<double>(score));
  std::vector<std::size_t> order = first_indices(scores.size());
  sort_by(view(falling), order);
  std::vector<Ranked> ranking;
  for (const std::size_t index : order) ranking.push_back({index, scores[index]});
  return ranking;
}

// What a cascade found: the best documents, and for each document how far it came.
struct CascadeResult {
  std::vector<Ranked> ranking;             // at most top_k, best first, with their final scores
  std::vector<std::size_t> exits_reached;  // (documents): exits at which it was scored, 1 ..
  std::vector<float> scores;               // (documents): at the last of them
  std::uint64_t token_layers = 0;          // rows times blocks that were run
  std::uint64_t full_token_layers = 0;     // the same if nothing had been dropped
};

// A loaded reranker. Scoring is const and may be called from any number of threads at once. A score
// is a pure function of model, pair and options: the same bits alone, in any batch, order and
// number of threads.
//
// Use it by the name Reranker, below. It is a template, though it needs no parameter, so that a
// file compiles what it calls of it: see ops/tables.h.
template <class = void>
class BasicReranker {
 public:
  // Opens a folder as published (config.json, tokenizer.json, *.safetensors) or a file made by
  // pack_model() of pack.h. Throws Error naming the file and what is wrong with it.
  static BasicReranker load(const std::filesystem::path& folder, const LoadOptions& options = {}) {
    const ModelFolder opened = ModelFolder::open(folder, options);
    return BasicReranker(load_reranker(opened), opened, options);
  }

  // One score a pair, in order: the logit, or with normalize its sigmoid. Throws the first Error.
  std::vector<float> score(std::span<const Pair> pairs, const ScoreOptions& options = {},
                           const CallOptions& call = {}) const {
    std::vector<float> scores;
    for (const ScoreResult& result : score_each(pairs, options, call)) {
      scores.push_back(result.score());
    }
    return scores;
  }

  // Everything known of each pair, in order. What is wrong with one pair (its text, its options, a
  // score that is not finite) is in its result; only faults of the whole call are thrown:
  // cancelled, memory, device.
  std::vector<ScoreResult> score_each(std::span<const Pair> pairs, const ScoreOptions& options = {},
                                      const CallOptions& call = {}) const {
    auto begin = std::chrono::steady_clock::now();
    Call work(pairs, options);
    const std::vector<std::size_t> ends = slice_ends(
        pairs.size(), contexts_->backend().lanes, batch_tokens_,
        [&](std::size_t pair) { return pairs[pair].query.size() + pairs[pair].passage.size(); });
    std::size_t first = 0;
    if (!ends.empty()) tokenize(work, 0, work.end_side(ends.front()));
    for (std::size_t slice = 0; slice < ends.size(); ++slice) {
      const std::size_t first_row = work.rows.size();
      assemble(work, first, ends[slice]);
      count_tokens(call, view(work.schedule).subspan(first_row), begin);
      const std::size_t tokenized = work.end_side(ends[slice]);
      const std::size_t next = slice + 1 < ends.size() ? work.end_side(ends[slice + 1]) : tokenized;
      run_slice(work, call, tokenized, next);
      first = ends[slice];
      begin = std::chrono::steady_clock::now();
    }
    for (std::size_t pair = 0; pair < pairs.size(); ++pair) finish(work, pair);
    return std::move(work.results);
  }

  // Documents by descending score, equal ones in their order. Throws the first Error.
  std::vector<Ranked> rank(std::string_view query, std::span<const std::string> documents,
                           const ScoreOptions& options = {}, const CallOptions& call = {}) const {
    std::vector<Pair> pairs;
    pairs.reserve(documents.size());
    for (const std::string& document : documents) pairs.push_back({std::string(query), document});
    return rank_scores(view(score(view(pairs), options, call)));
  }

  // The best documents for a query, by a layer-wise model that drops those on the way which cannot
  // reach the best k any more. What is kept has the scores of score_each() with the same exits, bit
  // for bit; with bounds that hold, the ranking is the same. Throws the first Error; unsupported:
  // a model without exits, truncation in chunks, normalize (bounds are of logits).
  CascadeResult cascade(std::string_view query, std::span<const std::string> documents,
                        const CascadeOptions& cascade, const ScoreOptions& options = {},
                        const CallOptions& call = {}) const {
    cascade.validate();
    check(!options.normalize, ErrorClass::unsupported,
          "a cascade compares logits: normalize is set");
    ScoreOptions shared = options;
    shared.cutoff_layers = cascade.exits;
    std::vector<Pair> pairs;
    for (const std::string& document : documents) pairs.push_back({std::string(query), document});
    Call work(view(pairs), shared);
    tokenize(work, 0, work.sides.size());
    assemble(work, 0, pairs.size());
    for (const ScoreResult& result : work.results) {
      if (result.error) throw *result.error;
    }
    check(work.rows.size() == pairs.size(), ErrorClass::unsupported,
          "a cascade scores each passage as one row, not in chunks");
    if (pairs.empty()) return {};
    check(work.classes.front().exits == cascade.exits, ErrorClass::range,
          "cascade: a bound is of a layer that is no exit of this model");
    std::vector<CascadeGroup> groups = cascade_groups(work);
    CascadeResult result{
        {}, std::vector<std::size_t>(pairs.size()), std::vector<float>(pairs.size())};
    for (std::size_t exit = 0; exit < cascade.exits.size(); ++exit) {
      run_to_next_exit(work, groups, call, result);
      if (exit < cascade.drifts.size()) drop(groups, cascade.drifts[exit], cascade.top_k, result);
    }
    finish_cascade(work, cascade, result);
    return result;
  }

  // The rows of tokens that the model is given for a pair: one, or one per chunk. Throws Error.
  std::vector<Input> rows(const Pair& pair, const ScoreOptions& options = {}) const {
    const ScoreOptions& own = pair.options != nullptr ? *pair.options : options;
    const std::vector<TokenId> query = model_->tokenize_query(pair.query, own);
    const std::vector<TokenId> passage = model_->tokenize_passage(pair.passage, own);
    return model_->assemble({view(query), view(passage), pair.passage.empty()}, own);
  }

  // Every intermediate tensor of one pair's forward pass, under the checkpoint's module names.
  // Parts of the options without effect are said in `warnings`. Throws Error, and limit if the pair
  // becomes several chunks.
  std::vector<TraceTensor> trace(const Pair& pair, const ScoreOptions& options = {},
                                 std::vector<std::string>* warnings = nullptr) const {
    Call work({&pair, 1}, options);
    tokenize(work, 0, work.sides.size());
    assemble(work, 0, 1);
    if (work.results[0].error) throw *work.results[0].error;
    check(work.rows.size() == 1, ErrorClass::limit, "a trace is of one row, the pair became ",
          work.rows.size());
    if (warnings != nullptr) *warnings = std::move(work.results[0].warnings);
    CollectingTracer tracer;
    run_one(work, 0, tracer);
    return std::move(tracer.tensors);
  }

  const ModelInfo& info() const { return model_->info(); }
  const Tokenizer& tokenizer() const { return model_->tokenizer(); }

 private:
  // A row of the forward pass: a pair, or one chunk of it.
  struct Row {
    Input input;
    std::size_t pair = 0;
    std::vector<double> scores;
  };

  // A side of pairs, tokenized once however many pairs share it.
  struct Side {
    std::string_view text;
    const ScoreOptions* options;
    bool is_query;
    std::vector<TokenId> ids = {};
    std::optional<Error> error = {};
  };

  struct Query {
    std::string_view text;
    const ScoreOptions* options;

    bool operator<(const Query& other) const {
      return text != other.text ? text < other.text : options < other.options;
    }
  };

  struct Call {
    Call(std::span<const Pair> pairs_, const ScoreOptions& shared)
        : pairs(pairs_), results(pairs_.size()), first_row(pairs_.size()) {
      std::map<Query, std::size_t> queries;
      for (const Pair& pair : pairs) {
        const ScoreOptions* own = pair.options != nullptr ? pair.options : &shared;
        const auto [at, added] = queries.try_emplace({pair.query, own}, sides.size());
        if (added) sides.push_back({pair.query, own, true});
        query_of.push_back(at->second);
        passage_of.push_back(sides.size());
        sides.push_back({pair.passage, own, false});
        options.push_back(own);
      }
    }

    // Sides before this one are all that the pairs before end_pair need.
    std::size_t end_side(std::size_t end_pair) const { return passage_of[end_pair - 1] + 1; }

    std::span<const Pair> pairs;
    std::vector<const ScoreOptions*> options;  // (pairs)
    std::vector<ScoreResult> results;          // (pairs)
    std::vector<Side> sides;
    std::vector<std::size_t> query_of;    // (pairs), into sides
    std::vector<std::size_t> passage_of;  // (pairs), into sides
    std::vector<RunOptions> classes;      // distinct forward passes
    std::vector<std::size_t> first_row;   // (pairs), into rows
    std::vector<Row> rows;
    std::vector<ScheduledRow> schedule;  // (rows)
    std::size_t assembled_pairs = 0;
    std::size_t sliced_rows = 0;  // of the slices before
  };

  // Documents whose passes are paused and resumed together.
  struct CascadeGroup {
    std::vector<std::size_t> documents;  // those still in the race
    PausedPass pass;
  };

  BasicReranker(std::unique_ptr<RerankModel> model, const ModelFolder& folder,
                const LoadOptions& options)
      : model_(std::move(model)),
        threads_(folder.threads),
        batch_tokens_(options.batch_tokens),
        share_prefix_(options.savings.share_prefix) {
    check(batch_tokens_ >= 0, ErrorClass::range, "batch_tokens ", batch_tokens_,
          ", expected 0 (automatic) or a number of tokens");
    if (batch_tokens_ == 0) batch_tokens_ = folder.backend->group_tokens;
    contexts_ = std::make_unique<ContextPool>(*folder.backend, batch_tokens_);
  }

  void tokenize_side(Side& side) const {
    try {
      side.ids = side.is_query ? model_->tokenize_query(side.text, *side.options)
                               : model_->tokenize_passage(side.text, *side.options);
    } catch (const Error& error) {
      side.error = error;
    }
  }

  void tokenize(Call& work, std::size_t begin, std::size_t end) const {
    parallel_for(threads_, static_cast<std::int64_t>(end - begin), [&](std::int64_t i) {
      tokenize_side(work.sides[begin + static_cast<std::size_t>(i)]);
    });
  }

  // Computes the rows assembled since the last slice, and meanwhile tokenizes sides [tokenized,
  // next).
  void run_slice(Call& work, const CallOptions& call, std::size_t tokenized,
                 std::size_t next) const {
    const std::size_t first = std::exchange(work.sliced_rows, work.rows.size());
    const auto schedule = view(work.schedule).subspan(first);
    CallPlan plan = this->plan(schedule);
    for (std::vector<std::size_t>& group : plan.groups) {
      for (std::size_t& row : group) row += first;
    }
    const AsideWork aside{static_cast<std::int64_t>(next - tokenized), [&](std::int64_t i) {
                            tokenize_side(work.sides[tokenized + static_cast<std::size_t>(i)]);
                          }};
    const std::size_t left = work.pairs.size() - work.assembled_pairs;
    run_groups(
        plan, threads_, *contexts_, slice_options(call, first), work.rows.size() + left,
        [&](Context& context, std::span<const std::size_t> group) {
          forward(context, work, group);
        },
        aside);
  }

  // Rows of pairs [begin, end), or their errors.
  void assemble(Call& work, std::size_t begin, std::size_t end) const {
    work.assembled_pairs = end;
    for (std::size_t pair = begin; pair < end; ++pair) {
      const Side& query = work.sides[work.query_of[pair]];
      const Side& passage = work.sides[work.passage_of[pair]];
      ScoreResult& result = work.results[pair];
      result.error = query.error ? query.error : passage.error;
      if (result.error) continue;
      try {
        const ScoreOptions& options = *work.options[pair];
        const std::size_t group_class =
            class_of(work, model_->run_options(options, result.warnings));
        std::vector<Input> inputs =
            model_->assemble({view(query.ids), view(passage.ids), passage.text.empty()}, options);
        work.first_row[pair] = work.rows.size();
        result.chunks = static_cast<std::int64_t>(inputs.size());
        result.input_ids = inputs.front().token_ids;
        for (Input& input : inputs) {
          const auto tokens = static_cast<std::int64_t>(input.token_ids.size());
          result.tokens += tokens;
          result.truncated = result.truncated || input.truncated;
          const std::int64_t opening = share_prefix_ ? input.shareable : 0;
          const std::size_t together = opening > 0 ? work.query_of[pair] : 0;
          work.schedule.push_back({tokens, group_class, together, opening});
          work.rows.push_back({std::move(input), pair, {}});
        }
      } catch (const Error& error) {
        result.error = error;
      }
    }
  }

  static std::size_t class_of(Call& work, RunOptions&& options) {
    const auto at = std::find(work.classes.begin(), work.classes.end(), options);
    if (at != work.classes.end()) return static_cast<std::size_t>(at - work.classes.begin());
    work.classes.push_back(std::move(options));
    return work.classes.size() - 1;
  }

  void forward(Context& context, Call& work, std::span<const std::size_t> group) const {
    const RunOptions& options = work.classes[work.schedule[group.front()].group_class];
    const std::size_t exits = std::max<std::size_t>(options.exits.size(), 1);
    std::vector<const Input*> inputs;
    for (const std::size_t row : group) inputs.push_back(&work.rows[row].input);
    std::vector<double> scores(group.size() * exits);
    model_->forward(context, view(inputs), options, writable(scores), nullptr);
    for (std::size_t i = 0; i < group.size(); ++i) {
      const auto first = scores.begin() + static_cast<std::ptrdiff_t>(i * exits);
      work.rows[group[i]].scores.assign(first, first + static_cast<std::ptrdiff_t>(exits));
    }
  }

  CallPlan plan(std::span<const ScheduledRow> rows) const {
    return plan_call(contexts_->backend(), model_->info().hidden_size, batch_tokens_, rows,
                     threads_);
  }

  std::vector<CascadeGroup> cascade_groups(const Call& work) const {
    std::vector<CascadeGroup> groups;
    for (auto& rows : plan(view(work.schedule)).groups) {
      std::vector<const Input*> inputs;
      for (const std::size_t row : rows) inputs.push_back(&work.rows[row].input);
      groups.push_back({std::move(rows), PausedPass(view(inputs), share_prefix_)});
    }
    return groups;
  }

  void run_to_next_exit(const Call& work, std::vector<CascadeGroup>& groups,
                        const CallOptions& call, CascadeResult& result) const {
    CallPlan tasks;
    std::vector<std::vector<std::size_t>> documents;
    for (std::size_t group = 0; group < groups.size(); ++group) {
      tasks.groups.push_back({group});
      documents.push_back(groups[group].documents);
    }
    tasks.together = work_together(contexts_->backend(), documents, view(work.schedule), threads_);
    run_groups(tasks, threads_, *contexts_, {{}, call.cancel}, groups.size(),
               [&](Context& context, std::span<const std::size_t> task) {
                 CascadeGroup& group = groups[task.front()];
                 std::vector<double> scores(group.documents.size());
                 model_->resume(context, group.pass, work.classes.front(), writable(scores));
                 for (std::size_t i = 0; i < scores.size(); ++i) {
                   const std::size_t document = group.documents[i];
                   check(is_finite(scores[i]), ErrorClass::nonfinite, "document ", document,
                         ": its score at an exit is not finite");
                   result.scores[document] = static_cast<float>(scores[i]);
                   ++result.exits_reached[document];
                 }
               });
  }

  // Takes the documents out that cannot reach the best k, and groups that have none left.
  static void drop(std::vector<CascadeGroup>& groups, const DriftInterval& drift, std::size_t top_k,
                   const CascadeResult& result) {
    std::vector<float> scores;
    for (const CascadeGroup& group : groups) {
      for (const std::size_t document : group.documents) scores.push_back(result.scores[document]);
    }
    std::vector<char> stays(scores.size(), 0);
    for (const std::size_t i : cascade_survivors(view(scores), drift, top_k)) stays[i] = 1;
    std::size_t first = 0;
    for (CascadeGroup& group : groups) {
      const auto kept = view(stays).subspan(first, group.documents.size());
      first += kept.size();
      std::vector<std::size_t> left;
      for (std::size_t i = 0; i < kept.size(); ++i) {
        if (kept[i] != 0) left.push_back(group.documents[i]);
      }
      if (!left.empty() && left.size() < kept.size()) group.pass.keep(kept);
      group.documents = std::move(left);
    }
    std::erase_if(groups, [](const CascadeGroup& group) { return group.documents.empty(); });
  }

  static void finish_cascade(const Call& work, const CascadeOptions& cascade,
                             CascadeResult& result) {
    std::vector<std::size_t> finalists;
    std::vector<float> scores;  // of the finalists
    for (std::size_t document = 0; document < result.scores.size(); ++document) {
      const std::size_t reached = result.exits_reached[document];
      const Input& input = work.rows[document].input;
      const RunOptions& run = work.classes.front();
      result.token_layers += token_layers(input, run, cascade.exits[reached - 1]);
      result.full_token_layers += token_layers(input, run, cascade.exits.back());
      if (reached < cascade.exits.size()) continue;
      finalists.push_back(document);
      scores.push_back(result.scores[document]);
    }
    for (const auto& [index, score] : rank_scores(view(scores))) {
      if (result.ranking.size() == cascade.top_k) break;
      result.ranking.push_back({finalists[index], score});
    }
  }

  void run_one(Call& work, std::size_t row, Tracer& tracer) const {
    const ComputeScope environment;
    std::unique_ptr<Context> context = contexts_->take(threads_);
    const RunOptions& options = work.classes[work.schedule[row].group_class];
    std::vector<double> scores(std::max<std::size_t>(options.exits.size(), 1));
    const Input* input = &work.rows[row].input;
    model_->forward(*context, {&input, 1}, options, writable(scores), &tracer);
    contexts_->give_back(std::move(context));
  }

  // The scores of a pair from those of its rows: the best chunk counts.
  void finish(Call& work, std::size_t pair) const {
    ScoreResult& result = work.results[pair];
    if (result.error) return;
    const std::size_t first = work.first_row[pair];
    const auto last = first + static_cast<std::size_t>(result.chunks);
    result.exits = work.classes[work.schedule[first].group_class].exits;
    std::vector<double> best = work.rows[first].scores;
    for (std::size_t row = first; row < last; ++row) {
      for (std::size_t exit = 0; exit < best.size(); ++exit) {
        const double score = work.rows[row].scores[exit];
        if (!is_finite(score)) {
          result.error = explain_nonfinite(work, row);
          return;
        }
        best[exit] = std::max(best[exit], score);
      }
    }
    for (const double score : best) {
      const auto logit = static_cast<float>(score);
      const double squashed = 1 / (1 + std::exp(-static_cast<double>(logit)));
      result.scores.push_back(work.options[pair]->normalize ? static_cast<float>(squashed) : logit);
    }
  }

  // Runs the row once more, looking at every tensor.
  Error explain_nonfinite(Call& work, std::size_t row) const {
    FiniteTracer tracer;
    run_one(work, row, tracer);
    const std::string where = tracer.first_bad.empty() ? "the score head" : tracer.first_bad;
    return Error(ErrorClass::nonfinite,
                 "the score is not finite; the first tensor that is not is " + where +
                     " (a weight is NaN or infinite, or too large)");
  }

  std::unique_ptr<RerankModel> model_;
  std::unique_ptr<ContextPool> contexts_;
  int threads_ = 1;
  std::int64_t batch_tokens_ = 0;
  bool share_prefix_ = true;
};

using Reranker = BasicReranker<>;

}  // namespace terse
