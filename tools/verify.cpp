// terse verify: proves a published model on this machine. The sample pairs of its card are scored
// and held to the scores that the card prints; where it prints none, they are shown as they are.
#include <array>
#include <cmath>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "commands.h"
#include "model_options.h"
#include "terse/evaluate/sha256.h"
#include "terse/published.h"

namespace terse_tools {

namespace {

class VerifyCommand {
 public:
  void add_options(CLI::App& app) {
    model_.add(app);
    output_.add(app);
    output_.add_format(app);
    app.footer("Exit code: 0 all scores agree, 1 some do not, 2 no published scores are known.");
  }

  int run() {
    const std::filesystem::path folder = model_.path;
    const auto config = terse::ModelFiles::open(folder).config("config.json");
    const terse::PublishedModel* published = terse::recognize(terse::read_model_shape(config));
    if (published != nullptr) {
      print_message("verify", "recognised as " + std::string(published->name) + " by its shape; " +
                                  tokenizer_verdict(*published, folder));
    } else {
      print_message("verify", "no published model that is known here has this shape");
    }
    const bool known = published != nullptr && !published->scores.empty();
    const std::span<const terse::PublishedScore> samples =
        known ? published->scores : std::span(terse::kUnscoredPairs);
    const std::vector<float> scores =
        model_.is_embedder() ? embedder_scores(samples) : reranker_scores(samples);
    const int disagreeing = report(samples, scores, known ? published : nullptr);
    return conclude(disagreeing, known ? published : nullptr);
  }

 private:
  // Models trained further often keep the shape, and some the tokenizer.
  static std::string tokenizer_verdict(const terse::PublishedModel& model,
                                       const std::filesystem::path& folder) {
    const std::filesystem::path file = folder / "tokenizer.json";
    if (model.tokenizer_sha256.empty()) return "no digest of its tokenizer is known";
    if (!std::filesystem::exists(file)) return "there is no tokenizer.json to compare";
    const bool same = terse::sha256_of_file(file.string()) == model.tokenizer_sha256;
    return same ? "tokenizer.json is the published file"
                : "tokenizer.json is NOT the published file";
  }

  std::vector<float> reranker_scores(std::span<const terse::PublishedScore> samples) const {
    std::vector<terse::Pair> pairs;
    for (const terse::PublishedScore& sample : samples) {
      pairs.push_back({std::string(sample.query), std::string(sample.passage)});
    }
    return model_.load_reranker().score(pairs);
  }

  // Cosines, or for bge-m3 the score of each sample's mode.
  std::vector<float> embedder_scores(std::span<const terse::PublishedScore> samples) const {
    const terse::Embedder embedder = model_.load_embedder();
    terse::EmbedOptions options;
    options.sparse = options.colbert = embedder.info().multi_vector;
    std::vector<float> scores;
    for (const terse::PublishedScore& sample : samples) {
      const terse::Text texts[] = {{std::string(sample.query), terse::TextKind::query},
                                   {std::string(sample.passage)}};
      const auto results = embedder.embed(texts, options);
      for (const terse::EmbedResult& result : results) {
        if (result.error) throw *result.error;
      }
      const terse::M3Scores modes = terse::m3_scores(results[0], results[1]);
      scores.push_back(sample.mode == "sparse"    ? modes.sparse
                       : sample.mode == "colbert" ? modes.colbert
                                                  : modes.dense);
    }
    return scores;
  }

  // Prints every sample; the number of those that do not agree.
  int report(std::span<const terse::PublishedScore> samples, const std::vector<float>& scores,
             const terse::PublishedModel* published) const {
    Output output(output_.path);
    RecordWriter writer(output_.resolved_format(), {{"mode", 8, false},
                                                    {"score", 14, true},
                                                    {"published", 14, true},
                                                    {"difference", 14, true},
                                                    {"agrees", 6, false},
                                                    {"query", 20, false},
                                                    {"passage", 40, false}});
    int disagreeing = 0;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      Record record;
      record.add_text("query", samples[i].query)
          .add_text("passage", samples[i].passage)
          .add_text("mode", samples[i].mode)
          .add_number("score", scores[i]);
      if (published != nullptr) {
        const double difference = static_cast<double>(scores[i]) - samples[i].value;
        const bool agrees = std::abs(difference) <= published->score_bound;
        disagreeing += agrees ? 0 : 1;
        record.add_number("published", samples[i].value)
            .add_number("difference", difference)
            .add_number("bound", published->score_bound)
            .add_boolean("agrees", agrees);
      }
      output.write(writer.text(record));
    }
    output.finish();
    return disagreeing;
  }

  static int conclude(int disagreeing, const terse::PublishedModel* published) {
    constexpr int kNoneKnown = 2;
    if (published == nullptr) {
      print_message("verify", "no published scores are known: those above prove nothing");
      return kNoneKnown;
    }
    const std::string of = std::to_string(published->scores.size());
    const std::string bound = number_text(published->score_bound);
    if (disagreeing == 0) {
      print_message("verify",
                    "all " + of + " scores are within " + bound + " of the published ones");
      return kSuccess;
    }
    print_message("verify", std::to_string(disagreeing) + " of " + of + " scores are more than " +
                                bound + " away from the published ones");
    return kLinesFailed;
  }

  ModelOptions model_;
  OutputOptions output_;
};

}  // namespace

void add_verify_command(CLI::App& app, Action& action) {
  add_command<VerifyCommand>(app, action, "verify",
                             "Hold a published model to the scores its card prints");
}

}  // namespace terse_tools
