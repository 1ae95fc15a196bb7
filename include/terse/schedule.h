// How a call's rows become packed groups and how groups share the cores. Two ways, same bits: a
// worker takes a group through all layers alone (many rows), or all workers share one group (few
// rows, or rows that do not share out evenly).
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "terse/error.h"
#include "terse/ops/backend.h"
#include "terse/ops/compute_scope.h"
#include "terse/options.h"
#include "terse/parallel.h"
#include "terse/view.h"

namespace terse {

// Tokens of a group where nobody says: enough rows to multiply at full speed, few enough that a
// layer's activations stay in a core's cache.
inline constexpr std::int64_t kGroupTokens = 2048;

// The same for a backend and a model of rows that are hidden_size wide.
inline std::int64_t even_tokens(const Backend& backend, std::int64_t hidden_size) {
  return hidden_size <= 1024 ? backend.even_tokens : kGroupTokens;
}

// Contexts for forward passes, kept between calls so that their memory is.
class ContextPool {
 public:
  // max_tokens: of a group on a device, whose memory is made once for that many rows.
  explicit ContextPool(const Backend& backend, std::int64_t max_tokens = 0)
      : backend_(&backend), max_rows_(backend.device == Device::cpu ? 0 : max_tokens) {}

  const Backend& backend() const { return *backend_; }

  std::unique_ptr<Context> take(int threads, int lane = 0) {
    std::unique_ptr<Context> context;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      std::vector<std::unique_ptr<Context>>& free = free_of(lane);
      if (!free.empty()) {
        context = std::move(free.back());
        free.pop_back();
      }
    }
    if (context == nullptr) {
      context = std::make_unique<Context>();
      context->max_rows = max_rows_;
      if (backend_->make_state != nullptr) context->state = backend_->make_state(lane, max_rows_);
      context->arena.allocate_by(backend_->allocate, context->state.get());
    }
    context->backend = backend_;
    context->threads = threads;
    return context;
  }

  // After a pass that went well; a context whose pass has failed is destroyed instead.
  void give_back(std::unique_ptr<Context> context, int lane = 0) {
    if (backend_->finish != nullptr) backend_->finish(*context);
    const std::lock_guard<std::mutex> lock(mutex_);
    free_of(lane).push_back(std::move(context));
  }

 private:
  std::vector<std::unique_ptr<Context>>& free_of(int lane) {
    const auto index = static_cast<std::size_t>(lane);
    if (index >= free_.size()) free_.resize(index + 1);
    return free_[index];
  }

  const Backend* backend_;
  std::int64_t max_rows_;
  std::mutex mutex_;
  std::vector<std::vector<std::unique_ptr<Context>>> free_;  // by lane
};

// A row to schedule: its length; a class of rows that may share a group (rows of different classes
// never do); and the opening that rows of one query have in common, which a group computes once.
struct ScheduledRow {
  std::int64_t tokens = 0;
  std::size_t group_class = 0;
  std::size_t query = 0;     // rows of one class and query stand together
  std::int64_t opening = 0;  // leading tokens that rows of the query share; 0: none

  // What the row costs, in tokens of a short one: attention takes as long as all else at about
  // 2,048 tokens (in encoders 768 wide, bf16; measured).
  std::int64_t cost() const { return tokens + tokens * tokens / 2048; }
};

// How large a group may become: so many tokens, or so much cost.
struct GroupBudget {
  std::int64_t most = 0;
  bool of_cost = false;

  std::int64_t measure(const ScheduledRow& row) const { return of_cost ? row.cost() : row.tokens; }
};

inline bool of_one_query(const ScheduledRow& a, const ScheduledRow& b) {
  return a.group_class == b.group_class && a.query == b.query;
}

// Sorts indices into keys by them, the lowest key first; equal ones keep their order. One sort for
// all that is ordered here and in rerank.h: compilers take long over each type of them.
inline void sort_by(std::span<const double> keys, std::vector<std::size_t>& indices) {
  std::stable_sort(indices.begin(), indices.end(),
                   [&](std::size_t a, std::size_t b) { return keys[a] < keys[b]; });
}

// 0 .. count - 1.
inline std::vector<std::size_t> first_indices(std::size_t count) {
  std::vector<std::size_t> indices(count);
  for (std::size_t i = 0; i < count; ++i) indices[i] = i;
  return indices;
}

// Rows in the order in which groups are cut from them: class by class; in a class the query with
// the longest row first, its rows together; of a query the longest row first.
inline std::vector<std::size_t> order_rows(std::span<const ScheduledRow> rows) {
  std::vector<double> classes, queries, falling_tokens;
  for (const ScheduledRow& row : rows) {
    classes.push_back(static_cast<double>(row.group_class));
    queries.push_back(static_cast<double>(row.query));
    falling_tokens.push_back(-static_cast<double>(row.tokens));
  }
  std::vector<std::size_t> order = first_indices(rows.size());
  // From the key that counts least to the one that counts most.
  sort_by(view(falling_tokens), order);
  sort_by(view(queries), order);
  sort_by(view(classes), order);
  // A query's rows stand together, the longest first: its place among the queries is theirs.
  std::vector<double> longest = falling_tokens;
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (of_one_query(rows[order[i - 1]], rows[order[i]])) {
      longest[order[i]] = longest[order[i - 1]];
    }
  }
  sort_by(view(longest), order);
  sort_by(view(classes), order);
  return order;
}

// Indices of rows, group by group: in the order above, each within the budget (a longer row stands
// alone), an opening counted once. The largest groups come first, so that the last ones to finish
// are small.
inline std::vector<std::vector<std::size_t>> plan_groups(std::span<const ScheduledRow> rows,
                                                         const GroupBudget& budget) {
  std::vector<std::vector<std::size_t>> groups;
  std::vector<std::int64_t> sizes;
  for (const std::size_t row : order_rows(rows)) {
    const ScheduledRow* before = groups.empty() ? nullptr : &rows[groups.back().back()];
    const bool same_class = before != nullptr && before->group_class == rows[row].group_class;
    const bool same_query = before != nullptr && of_one_query(*before, rows[row]);
    const std::int64_t size = budget.measure(rows[row]);
    const std::int64_t added = size - (same_query ? rows[row].opening : 0);
    if (same_class && sizes.back() + added <= budget.most) {
      groups.back().push_back(row);
      sizes.back() += added;
    } else {
      groups.push_back({row});
      sizes.push_back(size);
    }
  }
  std::vector<double> falling_sizes;
  for (const std::int64_t size : sizes) falling_sizes.push_back(-static_cast<double>(size));
  std::vector<std::size_t> by_size = first_indices(groups.size());
  sort_by(view(falling_sizes), by_size);
  std::vector<std::vector<std::size_t>> sorted;
  sorted.reserve(groups.size());
  for (const std::size_t group : by_size) sorted.push_back(std::move(groups[group]));
  return sorted;
}

// The budget for a call: the tokens that were asked for, else one that cuts the call into groups of
// about equal cost, on average at most `even` tokens besides openings, as many for every worker. A
// call that fits one group and shares openings stays one: cutting it would compute them twice.
inline GroupBudget group_budget(std::int64_t asked, std::span<const ScheduledRow> rows, int threads,
                                std::int64_t even = kGroupTokens) {
  if (asked > 0) return {asked};
  std::int64_t work = 0;  // tokens, without openings
  std::int64_t cost = 0;
  std::int64_t opening = 0;
  for (const ScheduledRow& row : rows) {
    work += row.tokens - row.opening;
    cost += row.cost();
    opening = std::max(opening, row.opening);
  }
  if (work == 0) return {even};
  if (opening > 0 && work <= even) {
    const std::vector<std::size_t> order = order_rows(rows);
    for (std::size_t i = 0; i < order.size(); ++i) {
      const ScheduledRow& row = rows[order[i]];
      if (i == 0 || !of_one_query(rows[order[i - 1]], row)) work += row.opening;
    }
    return {std::max(even, work)};
  }
  const std::int64_t rounds = (work + threads * even - 1) / (threads * even);
  const std::int64_t groups = rounds * threads;
  // Openings are tokens and nothing else; decoders, which share them, are wide and attention is
  // little of their work.
  const bool of_cost = opening == 0;
  const std::int64_t size = of_cost ? cost : work;
  // Rows are not cut, so a group that is filled in order of length ends about half a row short.
  const std::int64_t half_row = size / static_cast<std::int64_t>(rows.size()) / 2;
  return {(size + groups - 1) / groups + half_row + opening, of_cost};
}

// The groups of a call, and whether all threads work on one after the other or each on its own.
struct CallPlan {
  std::vector<std::vector<std::size_t>> groups;
  bool together = false;
};

// The share of their time that `threads` workers have work if each takes the next group when it is
// free, by what rows cost.
inline double share_at_work(const std::vector<std::vector<std::size_t>>& groups,
                            std::span<const ScheduledRow> rows, int threads) {
  std::vector<std::int64_t> loads(static_cast<std::size_t>(threads), 0);
  std::int64_t all = 0;
  for (const std::vector<std::size_t>& group : groups) {
    std::int64_t cost = 0;
    for (const std::size_t row : group) cost += rows[row].cost();
    *std::min_element(loads.begin(), loads.end()) += cost;
    all += cost;
  }
  const std::int64_t longest = *std::max_element(loads.begin(), loads.end());
  return longest == 0 ? 1 : static_cast<double>(all) / static_cast<double>(longest * threads);
}

// Whether all threads had better share the rows of one group after the other. On the CPU a group
// for every worker does without waiting between ops, which takes 1 to 2 % of the time (two workers,
// measured); but rows are not cut, so that a few long ones may leave workers idle.
inline bool work_together(const Backend& backend,
                          const std::vector<std::vector<std::size_t>>& groups,
                          std::span<const ScheduledRow> rows, int threads) {
  constexpr double kLeastAtWork = 0.95;
  if (backend.lanes > 0) return false;
  return groups.size() < static_cast<std::size_t>(threads) ||
         share_at_work(groups, rows, threads) < kLeastAtWork;
}

// Plans a call of rows that are hidden_size wide; asked: tokens of a group, 0 for the budget above.
inline CallPlan plan_call(const Backend& backend, std::int64_t hidden_size, std::int64_t asked,
                          std::span<const ScheduledRow> rows, int threads) {
  const std::int64_t even = even_tokens(backend, hidden_size);
  CallPlan plan{plan_groups(rows, group_budget(asked, rows, threads, even))};
  plan.together = work_together(backend, plan.groups, rows, threads);
  if (plan.together && asked == 0 && plan.groups.size() >= static_cast<std::size_t>(threads)) {
    plan.groups = plan_groups(rows, {even * threads});
  }
  return plan;
}

inline double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Says in the caller's counters how many tokens its rows have and how long it took to find them.
inline void count_tokens(const CallOptions& call, std::span<const ScheduledRow> rows,
                         std::chrono::steady_clock::time_point begin) {
  if (call.counters == nullptr) return;
  for (const ScheduledRow& row : rows) {
    call.counters->tokens += static_cast<std::uint64_t>(row.tokens);
  }
  call.counters->tokenize_seconds += seconds_since(begin);
}

// Items of a call before each end are computed together. On a device a call is cut into slices, so
// that the texts of one are tokenized while another is computed; the CPU's cores are busy anyway.
// bytes_of(item): of its texts; group_tokens: of a packed group.
template <class BytesOf>
std::vector<std::size_t> slice_ends(std::size_t count, int lanes, std::int64_t group_tokens,
                                    BytesOf&& bytes_of) {
  constexpr std::size_t kBytesPerToken = 3;  // about, of English in the vocabularies here
  constexpr std::size_t kGroupsPerLane = 4;
  const std::size_t most = kBytesPerToken * kGroupsPerLane * static_cast<std::size_t>(lanes) *
                           static_cast<std::size_t>(group_tokens);
  std::vector<std::size_t> ends;
  std::size_t bytes = 0;
  for (std::size_t item = 0; item + 1 < count && lanes > 0; ++item) {
    bytes += bytes_of(item);
    if (bytes < most) continue;
    ends.push_back(item + 1);
    bytes = 0;
  }
  if (count > 0) ends.push_back(count);
  return ends;
}

// The call's options for one of its slices: progress goes on from the rows done before.
inline CallOptions slice_options(const CallOptions& call, std::size_t rows_before) {
  CallOptions options = call;
  if (call.progress) {
    options.progress = [&call, rows_before](std::size_t done, std::size_t all) {
      call.progress(rows_before + done, all);
    };
  }
  return options;
}

// Other work for the host's cores while a device computes, index by index.
struct AsideWork {
  std::int64_t count = 0;
  std::function<void(std::int64_t)> run = {};  // must not throw
};

// Calls forward(context, rows of a group) for every group of a plan, on a device in its lanes and
// with other work beside them. Exceptions of forward end the call and are rethrown; so does the
// caller's cancel, with Error(cancelled).
template <class Forward>
void run_groups(const CallPlan& plan, int threads, ContextPool& pool, const CallOptions& call,
                std::size_t num_rows, Forward&& forward, const AsideWork& aside = {}) {
  const std::vector<std::vector<std::size_t>>& groups = plan.groups;
  const auto begin = std::chrono::steady_clock::now();
  std::atomic<std::size_t> done{0};
  std::atomic<std::uint64_t> computed{0};
  std::atomic<bool> cancelled{false};
  const auto run = [&](std::size_t group, int team, int lane, bool callers_thread) {
    if (callers_thread && call.cancel && call.cancel()) cancelled = true;
    if (cancelled) return;
    const ComputeScope environment;
    std::unique_ptr<Context> context = pool.take(team, lane);
    context->rows = 0;
    forward(*context, view(groups[group]));
    computed += context->rows;
    pool.give_back(std::move(context), lane);
    done += groups[group].size();
    if (callers_thread && call.progress) call.progress(done, num_rows);
  };
  const int lanes = pool.backend().lanes;
  const auto count = static_cast<std::int64_t>(groups.size());
  if (lanes > 0) {
    std::atomic<std::int64_t> next_group{0}, next_aside{0};
    const int workers = lanes + (aside.count > 0 ? threads : 0);
    parallel_for(workers, workers, [&](std::int64_t worker) {
      for (std::int64_t group; worker < lanes && (group = next_group++) < count;) {
        try {
          run(static_cast<std::size_t>(group), 1, static_cast<int>(worker), worker == 0);
        } catch (...) {
          next_group = count;  // the call has failed: no other lane starts a group
          throw;
        }
      }
      for (std::int64_t index; (index = next_aside++) < aside.count;) aside.run(index);
    });
  } else if (plan.together) {
    for (std::size_t group = 0; group < groups.size(); ++group) run(group, threads, 0, true);
  } else {
    parallel_dynamic(threads, count, [&](std::int64_t group, int worker) {
      run(static_cast<std::size_t>(group), 1, 0, worker == 0);
    });
  }
  check(!cancelled, ErrorClass::cancelled, "the caller asked to stop");
  if (call.counters == nullptr) return;
  call.counters->rows += computed;
  call.counters->forward_seconds += seconds_since(begin);
}

}  // namespace terse
