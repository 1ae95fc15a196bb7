// terse retrieve: a first-stage run over a corpus, by BM25 or by the vectors of an embedder.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "evaluation_files.h"
#include "fields.h"
#include "interrupt.h"
#include "model_options.h"
#include "pair_lines.h"
#include "run_output.h"
#include "terse/evaluate/bm25.h"
#include "terse/evaluate/vector_search.h"

namespace terse_tools {

namespace {

enum class Method { bm25, dense, sparse, colbert, sparse_dense, colbert_sparse_dense };
constexpr Choice<Method> kMethods[] = {{"bm25", Method::bm25},
                                       {"dense", Method::dense},
                                       {"sparse", Method::sparse},
                                       {"colbert", Method::colbert},
                                       {"sparse+dense", Method::sparse_dense},
                                       {"colbert+sparse+dense", Method::colbert_sparse_dense}};
constexpr Choice<terse::WordForms> kWordForms[] = {{"plain", terse::WordForms::plain},
                                                   {"english", terse::WordForms::english}};

terse::VectorScore vector_score(Method method) {
  switch (method) {
    case Method::sparse:
      return terse::VectorScore::sparse;
    case Method::colbert:
      return terse::VectorScore::colbert;
    case Method::sparse_dense:
      return terse::VectorScore::sparse_dense;
    case Method::colbert_sparse_dense:
      return terse::VectorScore::colbert_sparse_dense;
    default:
      return terse::VectorScore::dense;
  }
}

class RetrieveCommand {
 public:
  void add_options(CLI::App& app) {
    app.add_option("--corpus", corpus_, "Documents: JSON Lines with _id, title, text")->required();
    app.add_option("--queries", queries_, "Queries: JSON Lines with _id, text")->required();
    app.add_option("--top-k", top_k_, "Documents of each query to keep [100]")
        ->check(CLI::PositiveNumber);
    method_option_ = add_choice(app, "--method", method_, kMethods,
                                "How documents are scored [bm25, with --model dense]");
    weights_option_ = add_m3_weights(app, weights_);
    bm25_options_ = {
        app.add_option("--k1", bm25_.k1, "BM25: how soon repetitions cease to count [0.9]"),
        app.add_option("--b", bm25_.b, "BM25: how much of a document's length counts [0.4]"),
        add_choice(app, "--words", bm25_.words, kWordForms,
                   "BM25: english drops stop words and stems the others [plain]")};
    model_.add(app);
    app.get_option("--model")->required(false);
    visit_fields(embedding_, CommandLineFields(app));
    CommandLineFields(app).instruction("passage_instruction", passage_instruction_,
                                       "the documents");
    for (const char* name : {"--max-length", "--query-instruction", "--query-instruction-format",
                             "--passage-instruction", "--passage-instruction-format"}) {
      vector_options_.push_back(app.get_option(name));
    }
    app.add_option("--tag", tag_, "Last column of the run [the method]");
    output_.add(app);
  }

  int run() {
    if (model_.path.empty() && method_ != Method::bm25) throw CLI::RequiredError("--model");
    if (!model_.path.empty() && method_option_->count() == 0) method_ = Method::dense;
    refuse_unread();
    if (tag_.empty()) tag_ = method_name();
    auto queries = read_queries_file(queries_);
    const terse::Run run = method_ == Method::bm25 ? retrieve_by_words(queries)
                                                   : retrieve_by_vectors(std::move(queries));
    Output output(output_.path);
    write_run(run, tag_, output);
    return kSuccess;
  }

 private:
  // Options that the method has no use for are wrong usage.
  void refuse_unread() const {
    const bool words = method_ == Method::bm25;
    const auto refuse = [&](const CLI::Option* option) {
      if (option->count() == 0) return;
      throw CLI::ValidationError(option->get_name(), "has no effect with method " + method_name());
    };
    for (const CLI::Option* option : words ? vector_options_ : bm25_options_) refuse(option);
    if (words && !model_.path.empty()) {
      throw CLI::ValidationError("--model", "has no effect with method bm25");
    }
    const bool mixed = method_ == Method::sparse_dense || method_ == Method::colbert_sparse_dense;
    if (!mixed) refuse(weights_option_);
  }

  std::string method_name() const {
    for (const auto& choice : kMethods) {
      if (choice.value == method_) return choice.name;
    }
    return "terse";
  }

  terse::Run retrieve_by_words(const std::vector<terse::TextRecord>& queries) const {
    terse::Bm25Index index(bm25_);
    Progress progress(output_.progress, "documents");
    terse::TextLines lines = open_input(corpus_);
    terse::TextSet ids;
    terse::for_each_text(lines, [&](terse::TextRecord&& record) {
      refuse_duplicate(ids, record, lines);
      index.add(record.id, record.text);
      progress.update(index.size(), 0, std::nullopt);
    });
    terse::Run run(queries.size());
    terse::parallel_for(
        terse::thread_count(model_.load.threads), static_cast<std::int64_t>(queries.size()),
        [&](std::int64_t i) {
          const terse::TextRecord& query = queries[static_cast<std::size_t>(i)];
          run[static_cast<std::size_t>(i)] = {query.id, index.search(query.text, top_k_)};
        });
    return run;
  }

  terse::Run retrieve_by_vectors(std::vector<terse::TextRecord>&& queries) const {
    const terse::Embedder embedder = model_.load_embedder();
    terse::VectorSearchOptions options;
    options.score = vector_score(method_);
    options.weights = weights_;
    options.top_k = top_k_;
    options.max_length = embedding_.max_length;
    options.query_instruction = embedding_.query_instruction;
    options.passage_instruction = passage_instruction_;
    options.threads = model_.load.threads;
    const terse::CallOptions call{{}, [] { return noted_signal() != 0; }};
    terse::VectorSearch search(embedder, std::move(queries), options, call);
    Progress progress(output_.progress, "documents");
    terse::TextLines lines = open_input(corpus_);
    terse::TextSet ids;
    std::vector<terse::TextRecord> chunk;
    std::size_t chunk_bytes = 0;
    const auto search_chunk = [&] {
      search.add(chunk, call);
      chunk.clear();
      chunk_bytes = 0;
      progress.update(search.size(), static_cast<std::uint64_t>(search.tokens()), std::nullopt);
    };
    terse::for_each_text(lines, [&](terse::TextRecord&& record) {
      refuse_duplicate(ids, record, lines);
      chunk_bytes += record.text.size();
      chunk.push_back(std::move(record));
      if (chunk.size() >= kChunkItems || chunk_bytes >= kChunkBytes) search_chunk();
    });
    search_chunk();
    return search.take();
  }

  static void refuse_duplicate(terse::TextSet& ids, const terse::TextRecord& record,
                               const terse::TextLines& lines) {
    terse::check_run_name(record.id);
    terse::check(ids.insert(record.id).second, terse::ErrorClass::duplicate, lines.where(), ": id ",
                 terse::quote(record.id), " given again");
  }

  ModelOptions model_;
  std::string corpus_;
  std::string queries_;
  std::size_t top_k_ = 100;
  Method method_ = Method::bm25;
  std::array<double, 3> weights_ = {1, 1, 1};
  terse::Bm25Options bm25_;
  terse::EmbedOptions embedding_;
  terse::Instruction passage_instruction_;
  std::string tag_;
  OutputOptions output_;
  CLI::Option* method_option_ = nullptr;
  CLI::Option* weights_option_ = nullptr;
  std::vector<CLI::Option*> bm25_options_;
  std::vector<CLI::Option*> vector_options_;
};

}  // namespace

void add_retrieve_command(CLI::App& app, Action& action) {
  add_command<RetrieveCommand>(app, action, "retrieve",
                               "Find the best documents of a corpus for each query");
}

}  // namespace terse_tools
