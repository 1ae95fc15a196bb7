// terse score: a score for every (query, passage) pair, in the order of the input.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "cascade_bounds.h"
#include "commands.h"
#include "model_options.h"
#include "pair_lines.h"

namespace terse_tools {

namespace {

class ScoreCommand {
 public:
  void add_options(CLI::App& app) {
    model_.add(app);
    app.add_option("pairs", input_, "Pairs to score, - for standard input [-]");
    add_choice(app, "--input-format", input_format_, kPairFormats, "Form of the input [jsonl]");
    output_.add(app);
    output_.add_format(app);
    app.add_flag("--ids", with_ids_, "Print the token ids that the model was given");
    visit_fields(options_, CommandLineFields(app));
    auto* cascade = app.add_option(
        "--cascade", bounds_path_,
        "Find the best passages of each line only: drop those on the way that cannot be among them "
        "by the bounds in this file (sweep --bounds), which also names the cut-off layers");
    app.add_option("--top-k", top_k_, "Passages of a line that a cascade is to find [10]")
        ->check(CLI::PositiveNumber)
        ->needs(cascade);
    app.add_option("--risk", risk_,
                   "Share of scores that may lie outside a cascade's bounds [0: only proven drops]")
        ->check(CLI::Range(0.0, 0.999))
        ->needs(cascade);
  }

  int run() {
    if (!bounds_path_.empty()) read_cascade();
    LineReader reader(input_);
    const terse::Reranker reranker = model_.load_reranker();
    Output output(output_.path);
    RecordWriter writer(output_.resolved_format(), {{"id", 12, false},
                                                    {"index", 6, true},
                                                    {"score", 14, true},
                                                    {"scores", 0, false},
                                                    {"layer", 6, true},
                                                    {"dropped", 8, false},
                                                    {"tokens", 7, true},
                                                    {"truncated", 9, false},
                                                    {"error", 0, false}});
    Progress progress(output_.progress, "pairs");
    while (true) {
      PairChunk<terse::ScoreOptions> chunk(input_format_, options_, reader.name());
      if (!fill_chunk(reader, chunk)) break;
      output.write(cascade_ ? answer_cascade(reranker, chunk.items(), writer)
                            : answer(reranker, chunk.items(), reader, writer, progress));
      output.flush();
    }
    output.finish();
    if (token_layers_ > 0) {
      print_message("note", "cascade: " + number_text(run_token_layers_) + " of " +
                                number_text(token_layers_) + " token-layers were run");
    }
    return any_failed_ ? kLinesFailed : kSuccess;
  }

 private:
  using Item = PairItem<terse::ScoreOptions>;

  void read_cascade() {
    if (!options_.cutoff_layers.empty()) {
      throw CLI::ValidationError("--cutoff-layers", "are those of the bounds in a cascade");
    }
    if (with_ids_) throw CLI::ValidationError("--ids", "does not go with --cascade");
    cascade_ = read_bounds(bounds_path_, options_, risk_);
    cascade_->top_k = top_k_;
  }

  // Passages of one line race against each other; each gets the score of the last exit it reached.
  std::string answer_cascade(const terse::Reranker& reranker, const std::vector<Item>& items,
                             RecordWriter& writer) {
    std::string lines;
    for (std::size_t begin = 0, end = 0; begin < items.size(); begin = end) {
      do {
        ++end;
      } while (end < items.size() && items[end].index.value_or(0) > 0);
      const std::span<const Item> line(items.data() + begin, end - begin);
      std::vector<Record> records;
      for (const Item& item : line) records.push_back(item.record());
      try {
        add_cascade(reranker, line, records);
      } catch (const terse::Error& error) {
        if (error.error_class() == terse::ErrorClass::cancelled) throw;
        any_failed_ = true;
        for (Record& record : records) record.add_error(error);
      }
      for (const Record& record : records) lines += writer.text(record);
    }
    return lines;
  }

  void add_cascade(const terse::Reranker& reranker, std::span<const Item> line,
                   std::vector<Record>& records) {
    if (line.front().error) throw *line.front().error;
    terse::check(line.front().options == nullptr, terse::ErrorClass::unsupported,
                 "options of a line do not go with bounds for all lines");
    std::vector<std::string> passages;
    for (const Item& item : line) passages.push_back(item.passage);
    const auto result = reranker.cascade(line.front().query, passages, *cascade_, options_,
                                         {{}, [] { return noted_signal() != 0; }});
    for (std::size_t i = 0; i < records.size(); ++i) {
      const std::size_t reached = result.exits_reached[i];
      records[i]
          .add_number("score", static_cast<double>(result.scores[i]))
          .add_integer("layer", cascade_->exits[reached - 1])
          .add_boolean("dropped", reached < cascade_->exits.size())
          .add_text("dtype", products_name(reranker.info().dtype));
    }
    run_token_layers_ += static_cast<double>(result.token_layers);
    token_layers_ += static_cast<double>(result.full_token_layers);
  }

  std::string answer(const terse::Reranker& reranker, std::vector<Item>& items,
                     const LineReader& reader, RecordWriter& writer, Progress& progress) {
    std::vector<terse::Pair> pairs;
    for (Item& item : items) {
      if (!item.error) {
        pairs.push_back({std::move(item.query), std::move(item.passage), item.options});
      }
    }
    const terse::CallOptions call{[&](std::size_t done, std::size_t) {
                                    progress.update(done_ + done, tokens_, reader.fraction_done());
                                  },
                                  [] { return noted_signal() != 0; }};
    const auto results = reranker.score_each(pairs, options_, call);
    progress.clear();
    std::string lines;
    auto result = results.begin();
    for (const Item& item : items) {
      Record record = item.record();
      if (item.error) {
        record.add_error(*item.error);
      } else {
        add_result(reranker, *result++, record);
      }
      any_failed_ = any_failed_ || record.members().back().first == "error";
      lines += writer.text(record);
    }
    done_ += pairs.size();
    return lines;
  }

  void add_result(const terse::Reranker& reranker, const terse::ScoreResult& result,
                  Record& record) {
    if (result.error) {
      record.add_error(*result.error);
      return;
    }
    if (result.scores.size() == 1) {
      record.add_number("score", result.scores.front());
    } else {
      Record scores;
      for (std::size_t exit = 0; exit < result.exits.size(); ++exit) {
        scores.add_number(std::to_string(result.exits[exit]), result.scores[exit]);
      }
      record.add("scores", scores.json());
    }
    record.add_integer("tokens", result.tokens).add_boolean("truncated", result.truncated);
    if (result.chunks > 1) record.add_integer("chunks", result.chunks);
    record.add_text("dtype", products_name(reranker.info().dtype));
    if (with_ids_) {
      record.add("input_ids", json_integers(std::span<const std::int32_t>(result.input_ids)));
    }
    tokens_ += static_cast<std::uint64_t>(result.tokens);
    for (const std::string& warning : result.warnings) {
      if (warned_.insert(warning).second) print_message("warning", warning);
    }
  }

  ModelOptions model_;
  std::string input_;
  PairFormat input_format_ = PairFormat::jsonl;
  OutputOptions output_;
  terse::ScoreOptions options_;
  bool with_ids_ = false;
  std::string bounds_path_;
  std::size_t top_k_ = 10;
  double risk_ = 0;

  std::optional<terse::CascadeOptions> cascade_;
  double token_layers_ = 0;  // of all lines, had nothing been dropped
  double run_token_layers_ = 0;
  std::uint64_t done_ = 0;
  std::uint64_t tokens_ = 0;
  bool any_failed_ = false;
  std::set<std::string> warned_;  // each warning is given once
};

}  // namespace

void add_score_command(CLI::App& app, Action& action) {
  add_command<ScoreCommand>(app, action, "score", "Score (query, passage) pairs with a reranker");
}

}  // namespace terse_tools
