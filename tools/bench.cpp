// terse bench: how fast a model is on this machine, as a share of what the machine can do.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "commands.h"
#include "interrupt.h"
#include "json_lines.h"
#include "line_reader.h"
#include "machine_probe.h"
#include "model_options.h"
#include "output.h"
#include "pair_lines.h"
#include "terse/flops.h"
#include "terse/models/model_files.h"
#include "terse/ops/backends.h"
#include "terse/ops/panels.h"
#include "terse/ops/probe.h"
#ifdef TERSE_WITH_CUDA
#include "terse/ops/cuda_probe.h"
#endif
#include "workload.h"

namespace terse_tools {

namespace {

// Processor time of all threads of this process.
double process_seconds() {
  struct timespec time = {};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// The value with a share p of the others below it, of sorted values.
double percentile(const std::vector<double>& sorted, double p) {
  const double place = p * static_cast<double>(sorted.size() - 1);
  return sorted[static_cast<std::size_t>(std::llround(place))];
}

// What the machine can do where a model computes: on the cores, or on the devices.
struct Peak {
  std::string name;
  std::function<double()> measure;  // operations per second
};

Peak find_peak(const terse::ModelInfo& info) {
#ifdef TERSE_WITH_CUDA
  if (info.device == terse::Device::cuda) {
    const auto probe = std::make_shared<terse::cuda::ProductProbe>(info.dtype);
    return {probe->name(), [probe] { return probe->measure(); }};
  }
#endif
  const terse::Probe probe = terse::find_probe(info.dtype, info.isa);
  return {std::string(probe.name),
          [probe, &info] { return terse::measure_probe(probe, info.threads); }};
}

// "cpu", or the devices' number and name.
std::string device_description(const terse::ModelInfo& info) {
#ifdef TERSE_WITH_CUDA
  if (info.device == terse::Device::cuda) {
    const auto& devices = terse::cuda::devices();
    return std::to_string(devices.size()) + " x " + devices.front().name;
  }
#endif
  return terse::device_name(info.device);
}

// One model, reranker or embedder, as the benchmark needs it.
class Subject {
 public:
  explicit Subject(const ModelOptions& model) {
    if (model.is_embedder()) {
      embedder_ = model.load_embedder();
    } else {
      reranker_ = model.load_reranker();
    }
  }

  const terse::ModelInfo& info() const { return reranker_ ? reranker_->info() : embedder_->info(); }

  // Tokens of a row before anything is cut.
  std::int64_t row_tokens(const terse::Pair& pair, const terse::ScoreOptions& options) const {
    if (reranker_) {
      return static_cast<std::int64_t>(reranker_->rows(pair, options).front().token_ids.size());
    }
    return static_cast<std::int64_t>(embedder_->tokenizer().encode(pair.passage).size()) + 2;
  }

  // The rows as the operation count wants them.
  terse::PassRequest request(const terse::Pair& pair, const terse::ModelShape& shape,
                             const terse::ScoreOptions& options) const {
    std::vector<std::string> warnings;
    if (!reranker_) {
      const std::int64_t tokens = std::min<std::int64_t>(row_tokens(pair, options), 512);
      return terse::plan_pass(shape, 0, tokens, 0, {}, warnings);
    }
    const terse::Input row = reranker_->rows(pair, options).front();
    const auto tokens = static_cast<std::int64_t>(row.token_ids.size());
    return terse::plan_pass(shape, row.query_length, tokens - row.query_length - row.prompt_length,
                            row.prompt_length, {}, warnings);
  }

  // Scores or embeds everything once. Throws the first Error.
  terse::CallCounters run(std::span<const terse::Pair> pairs, const terse::ScoreOptions& options) {
    terse::CallCounters counters;
    const terse::CallOptions call{{}, [] { return noted_signal() != 0; }, &counters};
    if (reranker_) {
      for (const terse::ScoreResult& result : reranker_->score_each(pairs, options, call)) {
        result.score();
      }
      return counters;
    }
    std::vector<terse::Text> texts;
    for (const terse::Pair& pair : pairs) texts.push_back({pair.passage});
    for (const terse::EmbedResult& result : embedder_->embed(texts, {}, call)) {
      if (result.error) throw *result.error;
    }
    return counters;
  }

 private:
  std::optional<terse::Reranker> reranker_;
  std::optional<terse::Embedder> embedder_;
};

class BenchCommand {
 public:
  void add_options(CLI::App& app) {
    model_.add(app);
    app.add_option("--workload", workload_,
                   "W1 100 passages, median 130 tokens; W2 32 of 512; W3 one of 128; W4 1000; W5 8 "
                   "of 2k to 8k; or a file of pairs as for score [W1]");
    app.add_option("--rounds", rounds_, "Passes that are timed, after one that is not [5]")
        ->check(CLI::Range(1, 100000));
    app.add_flag("--json", json_, "Print one JSON object");
    app.footer(
        "Every pass stands between two probes of the machine's peak; shares are of the better of\n"
        "the two. Useful operations are those of real tokens, the last layer's for scored rows\n"
        "alone, without the keys and values that those do without. A pass whose probes differ by\n"
        "more than 5 % was disturbed: see \"clean\". On a busy machine look at\n"
        "share_of_processor_time, the best pass by the time the cores spent on it.");
  }

  int run() {
    const auto begin = std::chrono::steady_clock::now();
    Subject subject(model_);
    const double load_seconds = terse::seconds_since(begin);
    const terse::ModelInfo& info = subject.info();
    const std::vector<terse::Pair> pairs = read_pairs(subject);
    terse::check(!pairs.empty(), terse::ErrorClass::range, workload_, ": no pairs");
    const double operations = useful_operations(subject, pairs);

    const Peak peak = find_peak(info);
    // Converts weights, fills caches and pools. Each lane of a device captures its graphs when it
    // sees a program for the second time, and which lane takes which group is chance.
    const int warm_ups = info.device == terse::Device::cuda ? 5 : 1;
    for (int pass = 0; pass < warm_ups; ++pass) subject.run(pairs, options_);
    reset_peak_rss();
    std::vector<Pass> passes;
    double before = peak.measure();
    for (int round = 0; round < rounds_; ++round) {
      const auto start = std::chrono::steady_clock::now();
      const double processor = process_seconds();
      Pass pass;
      pass.counters = subject.run(pairs, options_);
      pass.seconds = terse::seconds_since(start);
      pass.processor_seconds = process_seconds() - processor;
      const double after = peak.measure();
      pass.probe = std::max(before, after);
      pass.clean = std::abs(before - after) <= 0.05 * pass.probe;
      before = after;
      passes.push_back(pass);
    }
    print(describe(info, peak, pairs, operations, load_seconds, passes));
    return kSuccess;
  }

 private:
  struct Pass {
    terse::CallCounters counters;
    double seconds = 0;
    double processor_seconds = 0;
    double probe = 0;  // operations per second, all threads
    bool clean = false;
  };

  std::vector<terse::Pair> read_pairs(const Subject& subject) {
    if (std::ifstream(workload_).good()) return read_file();
    std::vector<std::int64_t> lengths = workload_lengths(workload_);
    const std::int64_t most = *std::max_element(lengths.begin(), lengths.end());
    options_.max_length = std::min(std::max<std::int64_t>(most, 512), subject.info().max_tokens);
    for (std::int64_t& length : lengths) length = std::min(length, *options_.max_length);
    terse::ScoreOptions uncut = options_;
    uncut.max_length = subject.info().max_tokens;
    return make_workload(lengths, [&](const std::string& query, const std::string& passage) {
      return subject.row_tokens({query, passage}, uncut);
    });
  }

  std::vector<terse::Pair> read_file() const {
    LineReader reader(workload_);
    PairChunk<terse::ScoreOptions> chunk(PairFormat::jsonl, options_, workload_);
    std::vector<terse::Pair> pairs;
    while (const auto line = reader.next()) {
      chunk.add(*line);
    }
    for (const auto& item : chunk.items()) {
      if (item.error) throw *item.error;
      pairs.push_back({item.query, item.passage});
    }
    return pairs;
  }

  double useful_operations(const Subject& subject, const std::vector<terse::Pair>& pairs) const {
    const terse::ModelShape shape =
        terse::read_model_shape(terse::ModelFiles::open(model_.path).config("config.json"));
    constexpr terse::Savings kPruned = {.last_row_only = true, .share_prefix = false};
    const terse::ModelInfo& info = subject.info();
    const bool absorbs = info.device == terse::Device::cpu &&
                         terse::attends_selected(terse::choose_backend(info.isa, info.dtype),
                                                 terse::attention_shape(shape));
    double operations = 0;
    for (const terse::Pair& pair : pairs) {
      const auto cost =
          terse::pass_cost(shape, subject.request(pair, shape, options_), kPruned, absorbs);
      operations += static_cast<double>(shape.causal ? cost.causal_flops() : cost.dense_flops());
    }
    return operations;
  }

  Record describe(const terse::ModelInfo& info, const Peak& peak,
                  const std::vector<terse::Pair>& pairs, double operations, double load_seconds,
                  const std::vector<Pass>& passes) const {
    std::vector<double> seconds;
    std::vector<double> shares;
    std::int64_t clean = 0;
    double tokenize = 0;
    double forward = 0;
    double processor_share = 0;
    for (const Pass& pass : passes) {
      seconds.push_back(pass.seconds);
      shares.push_back(operations / pass.seconds / pass.probe);
      processor_share = std::max(processor_share,
                                 operations / pass.processor_seconds / (pass.probe / info.threads));
      clean += pass.clean ? 1 : 0;
      tokenize += pass.counters.tokenize_seconds / static_cast<double>(passes.size());
      forward += pass.counters.forward_seconds / static_cast<double>(passes.size());
    }
    std::sort(seconds.begin(), seconds.end());
    std::sort(shares.begin(), shares.end());
    const double median = percentile(seconds, 0.5);
    const terse::CallCounters& counters = passes.front().counters;
    const auto tokens = static_cast<double>(counters.tokens);
    Record record;
    record.add_text("model", model_.path)
        .add_text("architecture", info.architecture)
        .add_text("device", device_description(info))
        .add_text("cpu", terse::cpu_name())
        .add_text("isa", terse::isa_name(info.isa))
        .add_text("dtype", terse::dtype_name(info.dtype))
        .add_integer("threads", info.threads)
        .add_text("workload", workload_)
        .add_integer("pairs", static_cast<std::int64_t>(pairs.size()))
        .add_integer("tokens", static_cast<std::int64_t>(counters.tokens))
        .add_number("computed_per_token", static_cast<double>(counters.rows) / tokens)
        .add_integer("rounds", static_cast<std::int64_t>(passes.size()))
        .add_integer("clean", clean)
        .add_number("pairs_per_s", static_cast<double>(pairs.size()) / median)
        .add_number("pairs_per_s_best", static_cast<double>(pairs.size()) / seconds.front())
        .add_number("tokens_per_s", tokens / median)
        .add_number("useful_gflop_per_s", operations / median * 1e-9)
        .add_text("probe", peak.name)
        .add_number("probe_gflop_per_s", passes.front().probe * 1e-9)
        .add_number("share_of_probe", percentile(shares, 0.5))
        .add_number("share_of_probe_best", shares.back());
    // A device's passes take hardly any of the processor's time.
    if (info.device == terse::Device::cpu) {
      record.add_number("share_of_processor_time", processor_share);
    }
    return record.add_number("latency_p50_ms", median * 1e3)
        .add_number("latency_p95_ms", percentile(seconds, 0.95) * 1e3)
        .add_number("load_ms", load_seconds * 1e3)
        .add_number("tokenize_ms", tokenize * 1e3)
        .add_number("forward_ms", forward * 1e3)
        .add_number("peak_rss_mb", peak_rss_mb());
  }

  void print(const Record& record) const {
    constexpr std::size_t kNameWidth = 23;
    Output output("");
    if (json_) {
      output.write(record.json() + "\n");
    } else {
      for (const auto& [name, value] : record.members()) {
        output.write(pad(name, kNameWidth, false) + "  " + plain_value(value) + "\n");
      }
    }
    output.finish();
  }

  ModelOptions model_;
  std::string workload_ = "W1";
  int rounds_ = 5;
  bool json_ = false;
  terse::ScoreOptions options_;
};

}  // namespace

void add_bench_command(CLI::App& app, Action& action) {
  add_command<BenchCommand>(app, action, "bench",
                            "Measure speed on a workload, beside what the machine can do");
}

}  // namespace terse_tools
