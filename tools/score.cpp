// terse score: a score for every (query, passage) pair, in the order of the input.
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

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
  }

  int run() {
    LineReader reader(input_);
    const terse::Reranker reranker = model_.load_reranker();
    Output output(output_.path);
    RecordWriter writer(output_.resolved_format(), {{"id", 12, false},
                                                    {"index", 6, true},
                                                    {"score", 14, true},
                                                    {"scores", 0, false},
                                                    {"tokens", 7, true},
                                                    {"truncated", 9, false},
                                                    {"error", 0, false}});
    Progress progress(output_.progress, "pairs");
    while (true) {
      PairChunk<terse::ScoreOptions> chunk(input_format_, options_, reader.name());
      if (!fill_chunk(reader, chunk)) break;
      output.write(answer(reranker, chunk.items(), reader, writer, progress));
      output.flush();
    }
    output.finish();
    return any_failed_ ? kLinesFailed : kSuccess;
  }

 private:
  using Item = PairItem<terse::ScoreOptions>;

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
    record.add_text("dtype", terse::dtype_name(reranker.info().dtype));
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
