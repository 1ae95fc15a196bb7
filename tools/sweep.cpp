// terse sweep: quality and cost of a reranker over compression ratios, compress layers and exits.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "commands.h"
#include "fields.h"
#include "sweep_runner.h"

namespace terse_tools {

namespace {

// Adds the options of a call but for those that the grid sets and the sigmoid, which would only
// blur scores.
class SweepFields {
 public:
  explicit SweepFields(CLI::App& app) : fields_(app) {}

  template <class Field>
  void integer(std::string_view name, Field& field, std::int64_t least, const char* help) {
    if (name != "compress_ratio") fields_.integer(name, field, least, help);
  }
  template <class Field>
  void integers(std::string_view, Field&, std::int64_t, const char*) {}
  template <class Field, class Choices>
  void choice(std::string_view name, Field& field, const Choices& choices, const char* help) {
    fields_.choice(name, field, choices, help);
  }
  void flag(std::string_view, bool&, const char*) {}
  void text(std::string_view name, std::optional<std::string>& field, const char* help) {
    fields_.text(name, field, help);
  }
  void instruction(std::string_view name, terse::Instruction& field, const char* help) {
    fields_.instruction(name, field, help);
  }

 private:
  CommandLineFields fields_;
};

class SweepCommand {
 public:
  void add_options(CLI::App& app) {
    model_.add(app);
    add_files(app);
    add_grid(app);
    app.add_option_function<std::string>(
           "--metrics", [this](const std::string& names) { choose_metrics(names); },
           "As in eval; slices show the first one [ndcg@10,map,mrr@10,recall@100]")
        ->type_name("NAME,NAME,...");
    app.add_option("--top-k", settings_.top_k, "Candidates of each query [100]")
        ->check(CLI::PositiveNumber);
    app.add_option("--max-queries", settings_.max_queries, "Only the first N queries of the run");
    app.add_option("--latency-queries", settings_.latency_queries,
                   "Queries timed for each row; 0: none [16]");
    app.add_option("--seed", settings_.seed, "Seed of the bootstrap intervals [1]");
    app.add_option("--risk", settings_.risk,
                   "Share of scores outside the bounds of the cascade columns with risk [0.01]")
        ->check(CLI::Range(0.0, 0.999));
    add_choice(app, "--progress", progress_, kProgressModes,
               "Draw progress on standard error [auto: if it is a terminal]");
    terse_tools::visit_fields(settings_.options, SweepFields(app));
  }

  int run() {
    if (settings_.metrics.empty()) choose_metrics("ndcg@10,map,mrr@10,recall@100");
    if (files_.scores.empty()) files_.scores = files_.output + ".scores";
    terse::check(settings_.options.truncation != terse::Truncation::chunk,
                 terse::ErrorClass::unsupported,
                 "a sweep scores each passage as one row, not in chunks");
    Progress progress(progress_, "pairs");
    run_sweep(files_, settings_, model_, progress);
    return kSuccess;
  }

 private:
  void add_files(CLI::App& app) {
    app.add_option("--corpus", files_.corpus, "Documents: JSON Lines with _id, title, text")
        ->required();
    app.add_option("--queries", files_.queries, "Queries: JSON Lines with _id, text")->required();
    app.add_option("--qrels", files_.qrels, "Judgements: TREC, BEIR or JSON Lines")->required();
    app.add_option("--run", files_.run, "TREC run with the candidates of each query")->required();
    app.add_option("-o,--output", files_.output,
                   "Table of the sweep; rows that it has already are kept. A manifest is written "
                   "beside it [sweep.csv]");
    app.add_option("--scores", files_.scores,
                   "Folder for every score, one file a cell [the table's name and .scores]");
    app.add_flag("--plain-scores", settings_.plain_scores, "Do not compress the scores");
    app.add_option(
        "--plot", files_.plot,
        "Picture of the Pareto front, SVG; beside it, under the same name with -latency, "
        "-layers, -trajectories and -lengths, the other pictures");
    app.add_option("--plot-query", settings_.plot_query,
                   "Query whose scores are drawn layer by layer [the first judged one]");
    app.add_option("--report", files_.report, "HTML page with pictures, table and manifest");
    app.add_option("--bounds", files_.bounds, "Also write bounds for score --cascade to this file");
  }

  void add_grid(CLI::App& app) {
    app.add_option("--ratios", settings_.grid.ratios, "Compression ratios: 1,2,4,8 [1]")
        ->delimiter(',');
    app.add_option_function<std::string>(
           "--compress-layers",
           [this](const std::string& sets) {
             settings_.grid.compress_layers = terse::parse_layer_sets(sets);
           },
           "Sets of layers before which passages are compressed: \"8;16;8,16\" [8]")
        ->type_name("SET;SET;...");
    app.add_option("--cutoff-layers", settings_.grid.exits,
                   "Layers to read scores after, all from one pass: 8,16,25,42 [the last]")
        ->delimiter(',');
  }

  void choose_metrics(const std::string& names) {
    settings_.metrics.clear();
    for (const std::string& name : split_list(names)) {
      settings_.metrics.push_back(terse::parse_metric(name));
    }
  }

  ModelOptions model_;
  SweepFiles files_;
  SweepSettings settings_;
  ProgressMode progress_ = ProgressMode::automatic;
};

}  // namespace

void add_sweep_command(CLI::App& app, Action& action) {
  add_command<SweepCommand>(app, action, "sweep",
                            "Measure quality and cost over compression ratios and cut-off layers");
}

}  // namespace terse_tools
