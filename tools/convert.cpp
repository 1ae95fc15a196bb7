// terse convert: reranking lists (MTEB's, FlagEmbedding's training files) as a collection in the
// form that the other evaluation commands read.
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "commands.h"
#include "evaluation_files.h"
#include "json_lines.h"

namespace terse_tools {

namespace {

// The four files of a collection; they appear together, when all are complete.
class CollectionWriter {
 public:
  explicit CollectionWriter(const std::filesystem::path& folder)
      : corpus_((folder / "corpus.jsonl").string()),
        queries_((folder / "queries.jsonl").string()),
        qrels_((folder / "qrels.tsv").string()),
        run_((folder / "candidates.trec").string()) {
    qrels_.write("query-id\tcorpus-id\tscore\n");
  }

  void add_query(const std::string& id, std::string_view text) {
    queries_.write(Record().add_text("_id", id).add_text("text", text).json() + "\n");
  }

  // A candidate of a query. Passages of the same text are one document.
  void add_candidate(const std::string& query, std::string_view text, bool relevant,
                     std::size_t rank, std::size_t last_rank) {
    auto at = documents_.find(text);
    if (at == documents_.end()) {
      const std::string id = "d" + std::to_string(documents_.size());
      at = documents_.emplace(std::string(text), id).first;
      corpus_.write(Record().add_text("_id", id).add_text("text", text).json() + "\n");
    }
    qrels_.write(query + "\t" + at->second + (relevant ? "\t1\n" : "\t0\n"));
    const auto score = static_cast<double>(last_rank + 1 - rank);
    run_.write(terse::run_line(query, at->second, rank, score, "list"));
  }

  std::size_t num_documents() const { return documents_.size(); }

  void finish() {
    for (Output* file : {&corpus_, &queries_, &qrels_, &run_}) file->finish();
  }

 private:
  Output corpus_;
  Output queries_;
  Output qrels_;
  Output run_;
  terse::TextMap<std::string> documents_;  // id by text
};

class ConvertCommand {
 public:
  void add_options(CLI::App& app) {
    app.add_option("lists", input_,
                   "JSON Lines with query, positive, negative (or pos, neg), - for standard "
                   "input")
        ->required();
    app.add_option("--out", folder_,
                   "Folder for corpus.jsonl, queries.jsonl, qrels.tsv, candidates.trec")
        ->required();
  }

  int run() {
    terse::TextLines lines = open_input(input_);
    std::error_code error;
    std::filesystem::create_directories(folder_, error);
    terse::check(!error, terse::ErrorClass::io, terse::path_text(folder_),
                 ": could not make the folder: ", error.message());
    CollectionWriter writer(folder_);
    std::size_t used = 0;
    std::size_t skipped = 0;
    for (std::size_t number = 0; lines.next(); ++number) {
      const auto list = terse::parse_reranking_list(lines.text(), lines.where());
      // As MTEB does: where all candidates are of one kind there is nothing to rank.
      const bool usable = !list.positives.empty() && !list.negatives.empty();
      ++(usable ? used : skipped);
      if (usable) add(list, "q" + std::to_string(number), writer);
    }
    terse::check(used > 0, terse::ErrorClass::missing, lines.name(),
                 ": holds no list with positive and negative passages");
    writer.finish();
    print_message("note", std::to_string(used) + " lists, " +
                              std::to_string(writer.num_documents()) + " documents; " +
                              std::to_string(skipped) +
                              " lists without one of both kinds left out");
    return kSuccess;
  }

 private:
  // Each wording of the query becomes a query of its own.
  static void add(const terse::RerankingList& list, const std::string& id,
                  CollectionWriter& writer) {
    const std::size_t last = list.positives.size() + list.negatives.size();
    for (std::size_t wording = 0; wording < list.queries.size(); ++wording) {
      const std::string query = list.queries.size() == 1 ? id : id + "-" + std::to_string(wording);
      writer.add_query(query, list.queries[wording]);
      terse::TextSet seen;  // a passage listed twice counts once, relevant if it is ever
      std::size_t rank = 0;
      for (const auto* passages : {&list.positives, &list.negatives}) {
        for (const std::string& passage : *passages) {
          if (!seen.insert(passage).second) continue;
          writer.add_candidate(query, passage, passages == &list.positives, ++rank, last);
        }
      }
    }
  }

  std::string input_;
  std::string folder_;
};

}  // namespace

void add_convert_command(CLI::App& app, Action& action) {
  add_command<ConvertCommand>(app, action, "convert",
                              "Make a collection of reranking lists (MTEB, FlagEmbedding)");
}

}  // namespace terse_tools
