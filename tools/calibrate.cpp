// terse calibrate: what a reranker's scores mean, from examples whose relevance is known.
#include "terse/evaluate/calibrate.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "calibration_picture.h"
#include "commands.h"
#include "evaluation_files.h"
#include "fields.h"
#include "interrupt.h"
#include "json_lines.h"
#include "model_options.h"
#include "pair_lines.h"
#include "table.h"

namespace terse_tools {

namespace {

// Whether a label says relevant: true, or a grade above 0. Throws Error(schema).
bool is_relevant(terse::JsonValue label) {
  return label.is_boolean() ? label.as_boolean("label") : label.as_number("label") > 0;
}

class CalibrateCommand {
 public:
  void add_options(CLI::App& app) {
    app.add_option("examples", input_,
                   "JSON Lines with label and score, or with --model label, query and passage; - "
                   "for standard input [-]");
    model_.add(app);
    app.get_option("--model")->required(false);
    auto* run = app.add_option("--run", run_, "Take the scores of a TREC run instead");
    auto* qrels =
        app.add_option("--qrels", qrels_, "Its judgements; what is not judged is left out");
    run->needs(qrels);
    qrels->needs(run);
    run->excludes("--model");
    app.add_option("--bins", bins_, "Bars of the reliability diagram [10]")
        ->check(CLI::Range(std::size_t{1}, std::size_t{1000}));
    app.add_option("--plot", plot_, "Picture of the reliability diagram, SVG");
    output_.add(app);
    output_.add_format(app);
    visit_fields(options_, CommandLineFields(app));
  }

  int run() {
    if (!run_.empty()) {
      read_judged_run();
    } else if (!model_.path.empty()) {
      score_pairs();
    } else {
      read_scores();
    }
    const terse::Calibration calibration = terse::calibrate(examples_, bins_);
    Output output(output_.path);
    const Format format = output_.resolved_format();
    output.write(format == Format::jsonl ? record(calibration).json() + "\n"
                                         : text(calibration, format));
    output.finish();
    if (!plot_.empty()) write_whole_file(plot_, reliability_picture(calibration));
    return kSuccess;
  }

 private:
  void read_judged_run() {
    const terse::Qrels qrels = read_qrels_file(qrels_);
    for (const terse::RunQuery& query : read_run_file(run_)) {
      const terse::Grades* grades = qrels.find(query.id);
      if (grades == nullptr) continue;
      for (const terse::RunEntry& entry : query.entries) {
        const auto grade = grades->find(entry.document);
        if (grade != grades->end()) examples_.push_back({entry.score, grade->second > 0});
      }
    }
  }

  // Calls visit(object) for each line.
  template <class Visit>
  void for_each_example(const Visit& visit) const {
    terse::TextLines lines = open_input(input_);
    while (lines.next()) {
      const auto document = terse::detail::parse_json_line(lines.text(), lines.where());
      visit(document.root().as_object("the line"));
    }
  }

  void read_scores() {
    for_each_example([&](terse::JsonValue example) {
      examples_.push_back({required_member(example, "score").as_number("score"),
                           is_relevant(required_member(example, "label"))});
    });
  }

  void score_pairs() {
    const terse::Reranker reranker = model_.load_reranker();
    Progress progress(output_.progress, "pairs");
    std::vector<terse::Pair> pairs;
    std::vector<bool> labels;
    const auto score = [&] {
      const terse::CallOptions call{{}, [] { return noted_signal() != 0; }};
      const std::vector<float> scores = reranker.score(pairs, options_, call);
      for (std::size_t i = 0; i < scores.size(); ++i) {
        examples_.push_back({static_cast<double>(scores[i]), labels[i]});
      }
      pairs.clear();
      labels.clear();
      progress.update(examples_.size(), 0, std::nullopt);
    };
    for_each_example([&](terse::JsonValue example) {
      pairs.push_back({required_text(example, "query"), required_text(example, "passage")});
      labels.push_back(is_relevant(required_member(example, "label")));
      if (pairs.size() == kChunkItems) score();
    });
    score();
  }

  static Record record(const terse::Calibration& calibration) {
    std::string bins = "[";
    for (const terse::ReliabilityBin& bin : calibration.bins) {
      if (bins.size() > 1) bins += ", ";
      bins += bin_record(bin).json();
    }
    return Record()
        .add_integer("count", static_cast<std::int64_t>(calibration.count))
        .add_integer("relevant", static_cast<std::int64_t>(calibration.relevant))
        .add_number("slope", calibration.sigmoid.slope)
        .add_number("intercept", calibration.sigmoid.intercept)
        .add_number("threshold", calibration.best.threshold)
        .add_number("probability", calibration.sigmoid(calibration.best.threshold))
        .add_number("f1", calibration.best.f1)
        .add_number("precision", calibration.best.precision)
        .add_number("recall", calibration.best.recall)
        .add_number("calibration_error", calibration.calibration_error)
        .add_number("brier_score", calibration.brier_score)
        .add("bins", bins + "]");
  }

  static Record bin_record(const terse::ReliabilityBin& bin) {
    return Record()
        .add_number("low", bin.low)
        .add_number("high", bin.high)
        .add_integer("count", static_cast<std::int64_t>(bin.count))
        .add_number("predicted", bin.predicted)
        .add_number("observed", bin.observed);
  }

  // The figures one a line, then the bars of the reliability diagram.
  static std::string text(const terse::Calibration& calibration, Format format) {
    const Record figures = record(calibration);
    std::string out;
    for (const auto& [name, value] : figures.members()) {
      if (name != "bins") out += name + "\t" + value + "\n";
    }
    out += "\n";
    RecordWriter writer(format, {{"low", 6, true},
                                 {"high", 6, true},
                                 {"count", 8, true},
                                 {"predicted", 12, true},
                                 {"observed", 12, true},
                                 {"bar", 0, false}});
    for (const terse::ReliabilityBin& bin : calibration.bins) {
      Record row = bin_record(bin);
      row.add_text("bar", format == Format::table ? bar(bin.observed, 30) : "");
      out += writer.text(row);
    }
    return out;
  }

  std::string input_ = "-";
  ModelOptions model_;
  std::string run_;
  std::string qrels_;
  std::size_t bins_ = 10;
  std::string plot_;
  OutputOptions output_;
  terse::ScoreOptions options_;
  std::vector<terse::LabelledScore> examples_;
};

}  // namespace

void add_calibrate_command(CLI::App& app, Action& action) {
  add_command<CalibrateCommand>(app, action, "calibrate",
                                "Fit a threshold and a sigmoid to labelled scores");
}

}  // namespace terse_tools
