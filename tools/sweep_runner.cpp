#include "sweep_runner.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "cascade_bounds.h"
#include "corpus_store.h"
#include "evaluation_files.h"
#include "interrupt.h"
#include "machine_probe.h"
#include "manifest.h"
#include "output.h"
#include "pair_lines.h"
#include "resumable_rows.h"
#include "score_dump.h"
#include "sweep_pictures.h"
#include "sweep_report.h"
#include "terse/evaluate/sweep_table.h"
#include "terse/model_shape.h"

namespace terse_tools {

namespace {

using Clock = std::chrono::steady_clock;

// The candidates of a sweep, and the texts of all documents.
class Candidates {
 public:
  // Throws Error: those of the files; missing (a query or document without text).
  Candidates(const SweepFiles& files, const SweepSettings& settings) {
    terse::Run run = read_run_file(files.run);
    if (settings.max_queries > 0 && settings.max_queries < run.size()) {
      run.resize(settings.max_queries);
    }
    terse::TextMap<std::string> texts;
    for (terse::TextRecord& query : read_queries_file(files.queries)) {
      texts.emplace(std::move(query.id), std::move(query.text));
    }
    for (terse::RunQuery& query : run) {
      const auto text = texts.find(query.id);
      terse::check(text != texts.end(), terse::ErrorClass::missing, terse::path_text(files.run),
                   ":", query.entries.front().line, ": query ", terse::quote(query.id),
                   " is not in ", terse::path_text(files.queries));
      std::sort(query.entries.begin(), query.entries.end(), terse::trec_before);
      if (query.entries.size() > settings.top_k) query.entries.resize(settings.top_k);
      for (const terse::RunEntry& entry : query.entries) corpus_.want(entry.document);
    }
    corpus_.read(files.corpus);
    for (const terse::RunQuery& query : run) {
      queries_.push_back({query.id, texts.find(query.id)->second, {}});
      for (const terse::RunEntry& entry : query.entries) {
        terse::check(corpus_.has(entry.document), terse::ErrorClass::missing,
                     terse::path_text(files.run), ":", entry.line, ": document ",
                     terse::quote(entry.document), " is not in ", terse::path_text(files.corpus));
        queries_.back().documents.push_back(entry.document);
      }
      num_pairs_ += query.entries.size();
    }
  }

  // To be moved away when their lengths are known.
  std::vector<terse::SweepQuery>& queries() { return queries_; }
  std::size_t num_pairs() const { return num_pairs_; }

  // Throws Error(io).
  void add_pairs(const terse::SweepQuery& query, std::vector<terse::Pair>& pairs) const {
    for (const std::string& document : query.documents) {
      pairs.push_back({query.text, corpus_.text(document).value()});
    }
  }

 private:
  std::vector<terse::SweepQuery> queries_;
  CorpusStore corpus_;
  std::size_t num_pairs_ = 0;
};

// One sweep with everything it has loaded.
class Sweep {
 public:
  Sweep(const SweepFiles& files, const SweepSettings& settings, const ModelOptions& model,
        Progress& progress)
      : files_(files),
        settings_(settings),
        model_(model),
        progress_(progress),
        reranker_(model.load_reranker(&op_counter_)),
        shape_(terse::read_model_shape(terse::ModelFiles::open(model.path).config("config.json"))),
        cells_(terse::plan_cells(settings.grid, reranker_.info())),
        qrels_(read_qrels_file(files.qrels)),
        candidates_(files, settings) {
    warn_of_heads();
    measure_lengths();
    measures_.emplace(std::move(candidates_.queries()), qrels_, settings.metrics, settings.seed,
                      settings.risk);
  }

  void run() {
    std::vector<std::string> keys;
    for (const terse::SweepCell& cell : cells_) {
      for (const std::int64_t exit : exits_of(cell)) {
        keys.push_back(terse::sweep_row_key(cell, exit));
      }
    }
    ResumableRows rows(files_.output, terse::sweep_heading(settings_.metrics), keys);
    settle_manifest(files_.output + ".json", reproduces(), reranker_.info().threads,
                    rows.num_kept() > 0);
    std::filesystem::create_directories(files_.scores);
    std::size_t row = 0;
    for (const terse::SweepCell& cell : cells_) {
      const std::size_t after = row + exits_of(cell).size();
      if (rows.num_kept() < after) run_cell(cell, row, rows);
      row = after;
      pairs_done_ += candidates_.num_pairs();
    }
    progress_.clear();
    if (!files_.bounds.empty()) write_bounds();
    if (!files_.plot.empty() || !files_.report.empty()) draw();
  }

 private:
  // Where scores of a cell are read: for models without exits, after the last layer.
  std::vector<std::int64_t> exits_of(const terse::SweepCell& cell) const {
    return cell.exits.empty() ? std::vector{shape_.num_hidden_layers} : cell.exits;
  }

  std::string dump_path(const terse::SweepCell& cell) const {
    return files_.scores + "/" + cell.name() + (settings_.plain_scores ? ".csv" : ".csv.gz");
  }

  // The reference pairs heads with exits by their order in a request: a list of exits then scores
  // otherwise than each of them alone.
  void warn_of_heads() const {
    const bool ordinal =
        settings_.options.heads.value_or(terse::Heads::ordinal) == terse::Heads::ordinal;
    if (reranker_.info().compression && ordinal && cells_.front().exits.size() > 1) {
      print_message("note",
                    "heads are ordinal: what a layer scores depends on which other cut-off "
                    "layers are swept; --heads own gives each layer its own head");
    }
  }

  void measure_lengths() {
    for (terse::SweepQuery& query : candidates_.queries()) {
      std::vector<terse::Pair> pairs;
      candidates_.add_pairs(query, pairs);
      const auto alone = reranker_.rows({query.text, ""}, settings_.options);
      const auto query_tokens = static_cast<std::int64_t>(alone.front().token_ids.size());
      for (const terse::Pair& pair : pairs) {
        const auto rows = reranker_.rows(pair, settings_.options);
        query.lengths.push_back(terse::pair_length(rows.front(), query_tokens));
      }
      check_interrupted();
    }
  }

  Record reproduces() const {
    Record settings;
    settings.add_text("ratios_and_layers", cell_names())
        .add("cutoff_layers", json_integers(std::span<const std::int64_t>(exits_of(cells_.back()))))
        .add_integer("top_k", static_cast<std::int64_t>(settings_.top_k))
        .add_integer("queries", static_cast<std::int64_t>(measures_->queries().size()))
        .add_integer("seed", static_cast<std::int64_t>(settings_.seed))
        .add_number("risk", settings_.risk);
    terse::ScoreOptions options = settings_.options;
    terse_tools::visit_fields(options, RecordFields(settings));
    Record record;
    record.add("program", program_json(reranker_.info()))
        .add("settings", settings.json())
        .add("model", digests_json(model_.path));
    for (const auto& [name, path] :
         {std::pair{"corpus", &files_.corpus}, std::pair{"queries", &files_.queries},
          std::pair{"qrels", &files_.qrels}, std::pair{"run", &files_.run}}) {
      record.add(name, digests_json(*path));
    }
    return record;
  }

  std::string cell_names() const {
    std::string names;
    for (const terse::SweepCell& cell : cells_) names += (names.empty() ? "" : " ") + cell.name();
    return names;
  }

  // first_row: of the cell, in the table.
  void run_cell(const terse::SweepCell& cell, std::size_t first_row, ResumableRows& rows) {
    reset_peak_rss();
    const std::vector<std::int64_t> exits = exits_of(cell);
    const terse::CellScores scores = score(cell, exits.size());
    write_dump(dump_path(cell), shape_, cell, exits, measures_->queries(), scores);
    if (full_.empty()) load_full(cell, scores);
    for (std::size_t exit = 0; exit < exits.size(); ++exit) {
      if (first_row + exit < rows.num_kept()) continue;
      std::vector<std::vector<terse::PairLength>> lengths;
      for (const auto& query : measures_->queries()) lengths.push_back(query.lengths);
      const auto cost = terse::summarize_cost(shape_, cell, exits[exit], lengths);
      const auto row = measures_->measure(shape_, cell, scores, exit, full_);
      rows.append(terse::sweep_row(cell, exits[exit], measures_->queries().size(),
                                   candidates_.num_pairs(), cost, row, time(cell, exits[exit])));
    }
  }

  // Scores of the full model, which the first cell has at its last exit.
  void load_full(const terse::SweepCell& cell, const terse::CellScores& scores) {
    const bool here = &cell == &cells_.front();
    const terse::CellScores read =
        here ? terse::CellScores()
             : read_dump(dump_path(cells_.front()), exits_of(cells_.front()), measures_->queries());
    for (const auto& query : here ? scores : read) full_.push_back(query.back());
  }

  // One forward pass of every pair, all exits at once; [query][exit][document].
  terse::CellScores score(const terse::SweepCell& cell, std::size_t num_exits) {
    const terse::ScoreOptions options = cell.options(settings_.options, reranker_.info());
    const auto& queries = measures_->queries();
    terse::CellScores scores(queries.size());
    std::vector<terse::Pair> pairs;
    std::size_t done = 0;
    for (std::size_t begin = 0, end = 0; begin < queries.size(); begin = end) {
      pairs.clear();
      while (end < queries.size() && (end == begin || pairs.size() < kChunkItems)) {
        candidates_.add_pairs(queries[end++], pairs);
      }
      const auto results = reranker_.score_each(pairs, options, call(done));
      auto result = results.begin();
      for (std::size_t q = begin; q < end; ++q) {
        scores[q].resize(num_exits);
        for (const std::string& document : queries[q].documents) {
          add_scores(queries[q].id, document, *result++, scores[q]);
        }
      }
      done += pairs.size();
    }
    return scores;
  }

  static void add_scores(const std::string& query, const std::string& document,
                         const terse::ScoreResult& result, std::vector<std::vector<float>>& out) {
    if (result.error) {
      terse::fail(result.error->error_class(), "query ", terse::quote(query), ", document ",
                  terse::quote(document), ": ", result.error->message());
    }
    for (std::size_t exit = 0; exit < out.size(); ++exit) out[exit].push_back(result.scores[exit]);
  }

  terse::CallOptions call(std::size_t done) {
    return {[this, done](std::size_t now, std::size_t) {
              const std::size_t pairs = pairs_done_ + done + now;
              const std::size_t all = cells_.size() * candidates_.num_pairs();
              progress_.update(pairs, 0, static_cast<double>(pairs) / static_cast<double>(all));
            },
            [] { return noted_signal() != 0; }};
  }

  // How long a query with all its candidates takes if only this exit is asked for: some queries,
  // one after the other, after a first one that does not count.
  terse::RowTiming time(const terse::SweepCell& cell, std::int64_t exit) {
    terse::RowTiming timing;
    const auto& queries = measures_->queries();
    const std::size_t count = std::min(settings_.latency_queries, queries.size());
    if (count > 0) {
      terse::SweepCell alone = cell;
      if (!alone.exits.empty()) alone.exits = {exit};
      const terse::ScoreOptions options = alone.options(settings_.options, reranker_.info());
      std::vector<double> milliseconds;
      std::size_t num_pairs = 0;
      timing.probe_before_gflops = probe_gflops();
      for (std::size_t i = 0; i <= count; ++i) {
        std::vector<terse::Pair> pairs;
        candidates_.add_pairs(queries[(i % count) * queries.size() / count], pairs);
        if (i == 1) op_counter_.reset();
        const auto start = Clock::now();
        reranker_.score_each(pairs, options, {{}, [] { return noted_signal() != 0; }});
        const std::chrono::duration<double, std::milli> spent = Clock::now() - start;
        if (i == 0) continue;
        milliseconds.push_back(spent.count());
        num_pairs += pairs.size();
      }
      timing.probe_after_gflops = probe_gflops();
      const terse::OpCounts counts = op_counter_.counts();
      timing.flops_run_per_pair =
          static_cast<double>(counts.linear_flops + counts.attention_flops_causal) /
          static_cast<double>(num_pairs);
      std::sort(milliseconds.begin(), milliseconds.end());
      timing.latency_median_ms = milliseconds[count / 2];
      timing.latency_p95_ms = milliseconds[(count * 95 + 99) / 100 - 1];
    }
    timing.peak_rss_mb = peak_rss_mb();
    return timing;
  }

  void write_bounds() {
    std::vector<CascadeBounds> bounds;
    for (const terse::SweepCell& cell : cells_) {
      if (cell.exits.size() < 2) continue;
      const auto scores = read_dump(dump_path(cell), cell.exits, measures_->queries());
      const auto heads = settings_.options.heads.value_or(terse::Heads::ordinal);
      bounds.push_back(measure_bounds(cell, heads, scores));
    }
    terse::check(!bounds.empty(), terse::ErrorClass::unsupported,
                 "bounds for a cascade need at least two cut-off layers");
    write_whole_file(files_.bounds, bounds_file(bounds));
  }

  // Pictures and report, from what the finished sweep has left on disk.
  void draw() const {
    constexpr std::size_t kMaxBytes = std::size_t{1} << 30;
    const terse::SweepTable table(terse::read_text_file(files_.output, kMaxBytes));
    const std::string& metric = settings_.metrics.front().name;
    const std::vector<std::pair<std::string, std::string>> pictures = {
        {"", pareto_picture(table, metric, "flops_dense_per_pair", 1e9, "GFLOP for a pair")},
        {"-latency", pareto_picture(table, metric, "latency_median_ms", 1,
                                    "milliseconds for a query (median)")},
        {"-layers", heat_map_picture(table, metric)},
        {"-trajectories", draw_trajectories()},
        {"-lengths", length_picture(measures_->queries())}};
    std::vector<std::string> drawn;
    for (const auto& [suffix, picture] : pictures) {
      if (picture.empty()) continue;
      drawn.push_back(picture);
      if (!files_.plot.empty()) write_whole_file(beside(files_.plot, suffix), picture);
    }
    if (files_.report.empty()) return;
    const std::string title = "Sweep of " + std::filesystem::path(model_.path).filename().string() +
                              " over " + std::filesystem::path(files_.run).filename().string();
    const std::string manifest = terse::read_text_file(files_.output + ".json", kMaxBytes);
    write_whole_file(files_.report, report_html(title, table, drawn, manifest));
  }

  // "plots/a.svg" and "-latency" to "plots/a-latency.svg".
  static std::string beside(const std::string& path, const std::string& suffix) {
    const std::filesystem::path whole(path);
    const std::string name = whole.stem().string() + suffix + whole.extension().string();
    return (whole.parent_path() / name).string();
  }

  // Of the full model, for models with exits.
  std::string draw_trajectories() const {
    const terse::SweepCell& cell = cells_.front();
    if (cell.exits.size() < 2) return {};
    const auto& queries = measures_->queries();
    const auto wanted = [&](const terse::SweepQuery& query) {
      return settings_.plot_query.empty() ? qrels_.find(query.id) != nullptr
                                          : query.id == settings_.plot_query;
    };
    const auto query = std::find_if(queries.begin(), queries.end(), wanted);
    terse::check(query != queries.end() && !query->documents.empty(), terse::ErrorClass::missing,
                 "no query ", terse::quote(settings_.plot_query), " with candidates to draw");
    const auto scores = read_dump(dump_path(cell), cell.exits, queries);
    Trajectories drawn{
        query->id, cell.exits, scores[static_cast<std::size_t>(query - queries.begin())], {}};
    const terse::Grades* grades = qrels_.find(query->id);
    for (const std::string& document : query->documents) {
      const auto grade =
          grades == nullptr ? terse::Grades::const_iterator() : grades->find(document);
      drawn.relevant.push_back(grades != nullptr && grade != grades->end() && grade->second > 0);
    }
    return trajectory_picture(drawn);
  }

  const SweepFiles& files_;
  const SweepSettings& settings_;
  const ModelOptions& model_;
  Progress& progress_;
  terse::OpCounter op_counter_;
  terse::Reranker reranker_;
  terse::ModelShape shape_;
  std::vector<terse::SweepCell> cells_;
  terse::Qrels qrels_;
  Candidates candidates_;
  std::optional<terse::SweepMeasures> measures_;
  std::vector<std::vector<float>> full_;  // [query][document]; empty: not needed yet
  std::size_t pairs_done_ = 0;
};

}  // namespace

void run_sweep(const SweepFiles& files, const SweepSettings& settings, const ModelOptions& model,
               Progress& progress) {
  Sweep(files, settings, model, progress).run();
}

}  // namespace terse_tools
