// terse rerank: documents in the order of their scores for a query, or a TREC run scored anew.
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "document_scorer.h"
#include "documents.h"
#include "fields.h"
#include "ranking_writer.h"
#include "rerank_run.h"

namespace terse_tools {

namespace {

constexpr Choice<Format> kRankingFormats[] = {{"table", Format::table},
                                              {"jsonl", Format::jsonl},
                                              {"tsv", Format::tsv},
                                              {"trec", Format::trec}};

class RerankCommand {
 public:
  void add_options(CLI::App& app) {
    model_.add(app);
    app.add_option("documents", input_, "Documents to rank, - for standard input [-]");
    auto* query = app.add_option("-q,--query", query_, "The query");
    auto* queries = app.add_option("--queries", queries_path_,
                                   "File of queries: one a line, or JSON Lines with text and id");
    query->excludes(queries);
    add_choice(app, "--input-format", input_format_, kDocumentFormats,
               "Form of the documents [auto: JSON Lines if the first starts with a brace]");
    output_.add(app);
    add_choice(app, "--format", output_.format, kRankingFormats,
               "Form of the results [table on a terminal, else jsonl; trec with --run]");
    app.add_option("--top-n", ranking_.top_n, "Print only the best N of each query [all]")
        ->check(CLI::PositiveNumber);
    app.add_flag("!--no-text", ranking_.with_text, "Do not print the texts");
    auto* run = app.add_option("--run", run_.run, "TREC run to rerank");
    run->needs(queries);
    run->needs(
        app.add_option("--corpus", run_.corpus, "Its documents: JSON Lines with _id")->needs(run));
    app.add_option("--top-k", run_.top_k, "Documents of each query to rerank [100]")
        ->check(CLI::PositiveNumber)
        ->needs(run);
    tag_ = app.add_option("--tag", ranking_.tag, "Last column of the run that is written [terse]");
    app.add_option("--resume", run_.resume,
                   "File that the new run is written to; queries that it has are skipped")
        ->needs(run);
    visit_fields(options_, CommandLineFields(app));
  }

  int run() {
    if (query_.empty() && queries_path_.empty()) throw CLI::RequiredError("--query or --queries");
    if (!run_.run.empty() && output_.format == Format::automatic) output_.format = Format::trec;
    if (tag_->count() > 0 && output_.format != Format::trec) {
      throw CLI::ValidationError("--tag", "stands in a TREC run only: --format trec");
    }
    if (!run_.run.empty()) return rerank_run();
    return rank_documents();
  }

 private:
  int rerank_run() {
    if (!run_.resume.empty() && output_.format != Format::trec) {
      throw CLI::ValidationError("--resume", "writes a TREC run, not another format");
    }
    if (!run_.resume.empty() && !output_.path.empty()) {
      throw CLI::ValidationError("--output", "does not go with --resume, which names the file");
    }
    if (!input_.empty() || input_format_ != DocumentFormat::automatic) {
      throw CLI::ValidationError("documents", "are those of --corpus where --run names them");
    }
    run_.queries = queries_path_;
    ranking_.format = output_.format;
    ranking_.with_query = true;
    run_.output = output_.path;
    Progress progress(output_.progress, "pairs");
    return rerank_trec_run(run_, ranking_, model_, options_, progress);
  }

  int rank_documents() {
    std::vector<Document> queries = {{"0", query_}};
    if (!queries_path_.empty()) queries = read_sound_documents(queries_path_);
    LineReader reader(input_);
    std::vector<Document> documents;
    for_each_document(reader, input_format_,
                      [&](Document&& document) { documents.push_back(std::move(document)); });
    std::vector<std::string> texts;
    for (const Document& document : documents) texts.push_back(document.text);
    DocumentScorer scorer(model_, options_, std::move(texts));
    Output output(output_.path);
    ranking_.format = output_.resolved_format();
    ranking_.with_query = !queries_path_.empty();
    RankingWriter writer(ranking_);
    Progress progress(output_.progress, "documents");
    bool any_failed = false;
    for (std::size_t query = 0; query < queries.size(); ++query) {
      const auto scores =
          rank(scorer, queries[query], documents, progress, query * documents.size(),
               static_cast<double>(queries.size() * documents.size()));
      any_failed = any_failed || (!scores.empty() && scores.back().error);
      progress.clear();
      output.write(writer.text(queries[query], scores, documents));
      output.flush();
    }
    output.finish();
    return any_failed ? kLinesFailed : kSuccess;
  }

  static std::vector<DocumentScore> rank(DocumentScorer& scorer, const Document& query,
                                         const std::vector<Document>& documents, Progress& progress,
                                         std::size_t before, double total) {
    std::vector<std::size_t> sound;
    std::vector<DocumentScore> failed;
    for (std::size_t i = 0; i < documents.size(); ++i) {
      if (documents[i].error) {
        failed.push_back({i, 0, documents[i].error});
      } else {
        sound.push_back(i);
      }
    }
    const terse::CallOptions call{[&](std::size_t done, std::size_t) {
                                    const std::size_t all = before + done;
                                    progress.update(all, 0, static_cast<double>(all) / total);
                                  },
                                  [] { return noted_signal() != 0; }};
    auto scores = scorer.score(query.text, sound, call);
    scores.insert(scores.end(), failed.begin(), failed.end());
    sort_scores(scores);
    return scores;
  }

  ModelOptions model_;
  std::string input_;
  std::string query_;
  std::string queries_path_;
  DocumentFormat input_format_ = DocumentFormat::automatic;
  OutputOptions output_;
  RankingOptions ranking_;
  CLI::Option* tag_ = nullptr;
  RunFiles run_;
  terse::ScoreOptions options_;
};

}  // namespace

void add_rerank_command(CLI::App& app, Action& action) {
  add_command<RerankCommand>(app, action, "rerank",
                             "Rank documents for a query, with a reranker or an embedder");
}

}  // namespace terse_tools
