// terse eval: measures of a run against judgements, and of one run against another.
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "evaluation_files.h"
#include "json_lines.h"
#include "terse/evaluate/evaluation.h"
#include "terse/evaluate/significance.h"

namespace terse_tools {

namespace {

constexpr Choice<terse::TieRule> kTieRules[] = {{"trec", terse::TieRule::trec},
                                                {"input", terse::TieRule::input},
                                                {"average", terse::TieRule::average}};

class EvalCommand {
 public:
  void add_options(CLI::App& app) {
    app.add_option("--qrels", qrels_path_, "Judgements: TREC, BEIR or JSON Lines")->required();
    app.add_option("--run", run_path_, "TREC run to evaluate, - for standard input")->required();
    app.add_option_function<std::string>(
           "--metrics", [this](const std::string& names) { choose_metrics(names); },
           "ndcg, map, mrr, recall with or without @k; p@k, success@k; rprec, bpref "
           "[ndcg@10,map,mrr@10,recall@100]")
        ->type_name("NAME,NAME,...");
    add_choice(app, "--ties", options_.ties, kTieRules,
               "Order of equal scores: by document id as trec_eval, as in the file, or the mean "
               "over all orders [trec]");
    app.add_flag("--per-query", per_query_, "Print also the figures of each query");
    app.add_flag("--complete", options_.complete,
                 "Count a judged query that the run lacks as 0 [left out]");
    app.add_flag("--drop-same-id", options_.drop_same_id,
                 "Drop documents that have the query's id, as BEIR does");
    auto* compare = app.add_option("--compare", compare_path_, "Another run, to be compared with");
    app.add_option("--seed", significance_.seed, "Seed of the random tests [1]")->needs(compare);
    app.add_option("--permutations", significance_.permutations,
                   "Swaps that the randomisation test draws [100000]")
        ->needs(compare)
        ->check(CLI::PositiveNumber);
    app.add_option("--resamples", significance_.resamples,
                   "Samples that the bootstrap interval draws [10000]")
        ->needs(compare)
        ->check(CLI::PositiveNumber);
    output_.add(app);
    output_.add_format(app);
  }

  int run() {
    if (metrics_.empty()) choose_metrics("ndcg@10,map,mrr@10,recall@100");
    format_ = output_.resolved_format();
    const terse::Qrels qrels = read_qrels_file(qrels_path_);
    const terse::Evaluation evaluation = evaluate(run_path_, qrels);
    std::optional<terse::Evaluation> other;
    std::vector<terse::Comparison> comparisons;
    if (!compare_path_.empty()) {
      other = evaluate(compare_path_, qrels);
      comparisons = terse::compare(evaluation, *other, significance_);
    }
    Output output(output_.path);
    RecordWriter writer(format_, columns());
    if (per_query_) print_queries(evaluation, other, writer, output);
    Record all = total(evaluation);
    if (!comparisons.empty()) all.add("compare", comparisons_json(comparisons));
    output.write(writer.text(all));
    if (format_ != Format::jsonl && !comparisons.empty()) print_table(comparisons, output);
    output.finish();
    return kSuccess;
  }

 private:
  void choose_metrics(const std::string& names) {
    metrics_.clear();
    for (const std::string& name : split_list(names)) metrics_.push_back(terse::parse_metric(name));
  }

  terse::Evaluation evaluate(const std::string& path, const terse::Qrels& qrels) const {
    const auto evaluation = terse::evaluate(read_run_file(path), qrels, metrics_, options_);
    if (evaluation.judged_only > 0) {
      print_message("note", terse::path_text(path) + ": " + std::to_string(evaluation.judged_only) +
                                " judged queries are not in the run, " +
                                (options_.complete ? "counted as 0" : "left out of the means"));
    }
    if (evaluation.run_only > 0) {
      print_message("note", terse::path_text(path) + ": " + std::to_string(evaluation.run_only) +
                                " queries have no judgements, left out");
    }
    return evaluation;
  }

  std::vector<Column> columns() const {
    std::vector<Column> columns = {{"qid", 12, false}};
    for (const terse::Metric& metric : metrics_) columns.push_back({metric.name.c_str(), 12, true});
    return columns;
  }

  // Documents that tie across each cut-off: how many of a query, or how many queries have any.
  void add_ties(Record& record, const std::vector<std::size_t>& tied) const {
    std::map<std::size_t, std::size_t> by_cutoff;
    for (std::size_t i = 0; i < metrics_.size(); ++i) {
      if (metrics_[i].cutoff != terse::Metric::kAllRanks) by_cutoff[metrics_[i].cutoff] = tied[i];
    }
    for (const auto& [cutoff, count] : by_cutoff) {
      record.add_integer("ties@" + std::to_string(cutoff), static_cast<std::int64_t>(count));
    }
  }

  void add_values(Record& record, const std::vector<double>& values) const {
    for (std::size_t i = 0; i < metrics_.size(); ++i) {
      add_figure(record, metrics_[i].name, values[i]);
    }
  }

  // All digits for programs, four decimals, as trec_eval prints them, for people.
  void add_figure(Record& record, std::string_view name, double value) const {
    if (format_ != Format::table) {
      record.add_number(name, value);
      return;
    }
    char digits[32];
    const auto end =
        std::to_chars(digits, digits + sizeof(digits), value, std::chars_format::fixed, 4);
    record.add(name, std::string(digits, end.ptr));
  }

  void print_queries(const terse::Evaluation& evaluation,
                     const std::optional<terse::Evaluation>& other, RecordWriter& writer,
                     Output& output) const {
    std::map<std::string_view, const terse::QueryEvaluation*> others;
    if (other) {
      for (const auto& query : other->queries) others.emplace(query.query, &query);
    }
    for (const terse::QueryEvaluation& query : evaluation.queries) {
      Record record;
      record.add_text("qid", query.query);
      add_values(record, query.values);
      add_ties(record, query.tied);
      if (const auto at = others.find(query.query); at != others.end()) {
        Record compared;
        add_values(compared, at->second->values);
        record.add("compare", compared.json());
      }
      output.write(writer.text(record));
    }
  }

  Record total(const terse::Evaluation& evaluation) const {
    Record record;
    record.add_text("qid", "all");
    add_values(record, evaluation.means);
    record.add_integer("queries", static_cast<std::int64_t>(evaluation.queries.size()));
    std::vector<std::size_t> with_ties(metrics_.size());
    for (const terse::QueryEvaluation& query : evaluation.queries) {
      for (std::size_t i = 0; i < metrics_.size(); ++i) {
        if (query.tied[i] > 0) ++with_ties[i];
      }
    }
    add_ties(record, with_ties);
    return record;
  }

  static std::string differences_json(const std::vector<terse::QueryDifference>& queries) {
    std::string out = "[";
    for (const terse::QueryDifference& query : queries) {
      if (out.size() > 1) out += ", ";
      out += Record()
                 .add_text("qid", query.query)
                 .add_number("value", query.value)
                 .add_number("compared", query.other)
                 .json();
    }
    return out + "]";
  }

  static std::string comparisons_json(const std::vector<terse::Comparison>& comparisons) {
    Record record;
    for (const terse::Comparison& comparison : comparisons) {
      record.add(comparison.metric,
                 Record()
                     .add_integer("queries", static_cast<std::int64_t>(comparison.queries))
                     .add_number("value", comparison.mean)
                     .add_number("compared", comparison.other_mean)
                     .add_number("difference", comparison.mean - comparison.other_mean)
                     .add_number("low", comparison.difference.low)
                     .add_number("high", comparison.difference.high)
                     .add_number("p", comparison.p_value)
                     .add("gained", differences_json(comparison.gained))
                     .add("lost", differences_json(comparison.lost))
                     .json());
    }
    return record.json();
  }

  void print_table(const std::vector<terse::Comparison>& comparisons, Output& output) const {
    RecordWriter writer(format_, {{"metric", 12, false},
                                  {"value", 12, true},
                                  {"compared", 12, true},
                                  {"difference", 12, true},
                                  {"low", 12, true},
                                  {"high", 12, true},
                                  {"p", 12, true},
                                  {"gained", 7, true},
                                  {"lost", 7, true}});
    output.write("\n");
    for (const terse::Comparison& comparison : comparisons) {
      Record record;
      record.add_text("metric", comparison.metric);
      add_figure(record, "value", comparison.mean);
      add_figure(record, "compared", comparison.other_mean);
      add_figure(record, "difference", comparison.mean - comparison.other_mean);
      add_figure(record, "low", comparison.difference.low);
      add_figure(record, "high", comparison.difference.high);
      add_figure(record, "p", comparison.p_value);
      record.add_integer("gained", static_cast<std::int64_t>(comparison.gained.size()))
          .add_integer("lost", static_cast<std::int64_t>(comparison.lost.size()));
      output.write(writer.text(record));
    }
  }

  std::string qrels_path_;
  std::string run_path_;
  std::string compare_path_;
  std::vector<terse::Metric> metrics_;
  terse::EvaluationOptions options_;
  terse::SignificanceOptions significance_;
  bool per_query_ = false;
  OutputOptions output_;
  Format format_ = Format::automatic;
};

}  // namespace

void add_eval_command(CLI::App& app, Action& action) {
  add_command<EvalCommand>(app, action, "eval", "Measure a run against relevance judgements");
}

}  // namespace terse_tools
