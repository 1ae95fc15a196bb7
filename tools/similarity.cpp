// terse similarity: what score is for rerankers, for embedders: dot products, or the five scores of
// bge-m3.
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "commands.h"
#include "model_options.h"
#include "pair_lines.h"

namespace terse_tools {

namespace {

// The options of a pair: those of its passage, and how its query differs.
struct SimilarityOptions {
  terse::EmbedOptions embed;
  std::optional<std::int64_t> query_max_length;
};

template <class Visitor>
void visit_fields(SimilarityOptions& options, Visitor&& visitor) {
  visit_fields(options.embed, visitor);
  visitor.integer("query_max_length", options.query_max_length, 1,
                  "Tokens of a query, at most [as max-length]");
}

class SimilarityCommand {
 public:
  void add_options(CLI::App& app) {
    model_.add(app);
    app.add_option("pairs", input_, "Pairs to compare, - for standard input [-]");
    add_choice(app, "--input-format", input_format_, kPairFormats, "Form of the input [jsonl]");
    app.add_option_function<std::string>(
           "--weights", [this](const std::string& text) { read_weights(text); },
           "Weights of dense, sparse and colbert in the mixed scores of bge-m3 [1,1,1]")
        ->type_name("W,W,W");
    output_.add(app);
    output_.add_format(app);
    visit_fields(options_, CommandLineFields(app));
    visit_call_fields(options_.embed, CommandLineFields(app));
  }

  int run() {
    LineReader reader(input_);
    const terse::Embedder embedder = model_.load_embedder();
    options_.embed.sparse = options_.embed.colbert = embedder.info().multi_vector;
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
      PairChunk<SimilarityOptions> chunk(input_format_, options_, reader.name());
      if (!fill_chunk(reader, chunk)) break;
      output.write(answer(embedder, chunk.items(), reader, writer, progress));
      output.flush();
    }
    output.finish();
    return any_failed_ ? kLinesFailed : kSuccess;
  }

 private:
  using Item = PairItem<SimilarityOptions>;

  // The texts of a chunk, and for each item where its two are: a query that several passages follow
  // is embedded once.
  struct Texts {
    std::vector<terse::Text> texts;
    std::vector<std::size_t> query_of;
    std::vector<std::size_t> passage_of;
    std::deque<terse::EmbedOptions> query_options;  // a deque: texts point into it
  };

  void read_weights(const std::string& text) {
    const std::vector<std::string> parts = split_list(text);
    terse::check(parts.size() == weights_.size(), terse::ErrorClass::range, "--weights has ",
                 parts.size(), " numbers, expected 3");
    for (std::size_t part = 0; part < parts.size(); ++part) {
      weights_[part] = parse_number<double>(parts[part], "--weights");
    }
  }

  Texts collect(const std::vector<Item>& items) const {
    Texts out;
    const Item* before = nullptr;
    for (const Item& item : items) {
      const bool same_query = before != nullptr && !before->error && !item.error &&
                              before->options == item.options && before->query == item.query;
      before = &item;
      if (item.error) {
        out.query_of.push_back(0);
        out.passage_of.push_back(0);
        continue;
      }
      const SimilarityOptions& options = item.options != nullptr ? *item.options : options_;
      if (!same_query) {
        terse::EmbedOptions& query_options = out.query_options.emplace_back(options.embed);
        if (options.query_max_length) query_options.max_length = options.query_max_length;
        out.query_of.push_back(out.texts.size());
        out.texts.push_back({item.query, terse::TextKind::query, &query_options});
      } else {
        out.query_of.push_back(out.query_of.back());
      }
      out.passage_of.push_back(out.texts.size());
      out.texts.push_back({item.passage, terse::TextKind::passage, &options.embed});
    }
    return out;
  }

  std::string answer(const terse::Embedder& embedder, const std::vector<Item>& items,
                     const LineReader& reader, RecordWriter& writer, Progress& progress) {
    const Texts texts = collect(items);
    const terse::CallOptions call{
        [&](std::size_t, std::size_t) { progress.update(done_, tokens_, reader.fraction_done()); },
        [] { return noted_signal() != 0; }};
    const auto vectors = embedder.embed(texts.texts, options_.embed, call);
    progress.clear();
    std::string lines;
    for (std::size_t i = 0; i < items.size(); ++i) {
      Record record = items[i].record();
      if (items[i].error) {
        record.add_error(*items[i].error);
      } else {
        add_result(embedder, vectors[texts.query_of[i]], vectors[texts.passage_of[i]], record);
      }
      any_failed_ = any_failed_ || record.members().back().first == "error";
      lines += writer.text(record);
    }
    done_ += items.size();
    return lines;
  }

  void add_result(const terse::Embedder& embedder, const terse::EmbedResult& query,
                  const terse::EmbedResult& passage, Record& record) {
    const auto& error = query.error ? query.error : passage.error;
    if (error) {
      record.add_error(*error);
      return;
    }
    if (embedder.info().multi_vector) {
      const terse::M3Scores scores = terse::m3_scores(query, passage, weights_);
      record.add("scores", Record()
                               .add_number("dense", scores.dense)
                               .add_number("sparse", scores.sparse)
                               .add_number("colbert", scores.colbert)
                               .add_number("sparse+dense", scores.sparse_dense)
                               .add_number("colbert+sparse+dense", scores.colbert_sparse_dense)
                               .json());
    } else {
      record.add_number("score", terse::dot(query.dense, passage.dense));
    }
    record.add_integer("tokens", query.tokens + passage.tokens)
        .add_boolean("truncated", query.truncated || passage.truncated)
        .add_text("dtype", products_name(embedder.info().dtype));
    tokens_ += static_cast<std::uint64_t>(query.tokens + passage.tokens);
  }

  ModelOptions model_;
  std::string input_;
  PairFormat input_format_ = PairFormat::jsonl;
  OutputOptions output_;
  SimilarityOptions options_;
  std::array<double, 3> weights_ = {1, 1, 1};

  std::uint64_t done_ = 0;
  std::uint64_t tokens_ = 0;
  bool any_failed_ = false;
};

}  // namespace

void add_similarity_command(CLI::App& app, Action& action) {
  add_command<SimilarityCommand>(app, action, "similarity",
                                 "Compare (query, passage) pairs with an embedder");
}

}  // namespace terse_tools
