// terse embed: vectors of texts, in the order of the input.
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "fields.h"
#include "model_options.h"
#include "npy.h"
#include "pair_lines.h"

namespace terse_tools {

namespace {

enum class TextFormat { jsonl, text };
constexpr Choice<TextFormat> kTextFormats[] = {{"jsonl", TextFormat::jsonl},
                                               {"text", TextFormat::text}};
constexpr Choice<terse::TextKind> kKinds[] = {{"passage", terse::TextKind::passage},
                                              {"query", terse::TextKind::query}};

struct TextItem {
  std::string id;  // JSON
  terse::Text text = {};
  std::optional<terse::Error> error = {};
};

// Consecutive lines of input as texts, in order.
class TextChunk {
 public:
  TextChunk(TextFormat format, terse::TextKind kind, const terse::EmbedOptions& defaults,
            std::string name)
      : format_(format), kind_(kind), defaults_(&defaults), name_(std::move(name)) {}

  // Appends the text of a line, or its error. A blank line of JSON Lines is skipped.
  void add(const Line& line) {
    bytes_ += line.text.size();
    if (format_ == TextFormat::jsonl) return add_object(line);
    TextItem item{.id = std::to_string(line.number)};
    try {
      item.text = {plain_text(line, name_), kind_, nullptr};
    } catch (const terse::Error& error) {
      item.error = error;
    }
    items_.push_back(std::move(item));
  }

  bool full() const { return items_.size() >= kChunkItems || bytes_ >= kChunkBytes; }
  bool empty() const { return items_.empty(); }
  std::vector<TextItem>& items() { return items_; }

 private:
  void add_object(const Line& line) {
    if (is_blank(line.text) && !line.too_long) return;
    LineObject object = read_object(line, name_);
    TextItem item{.id = std::move(object.id), .text = {}, .error = object.error};
    try {
      if (!item.error) item.text = read_text(object.document->root());
    } catch (const terse::Error& error) {
      item.error = error;
    }
    items_.push_back(std::move(item));
  }

  terse::Text read_text(terse::JsonValue root) {
    terse::Text text{required_text(root, "text"), kind_, nullptr};
    if (const auto kind = optional_member(root, "kind")) {
      text.kind = choose(kind->as_string("kind"), kKinds, "kind");
    }
    if (const auto own = optional_member(root, "options")) {
      text.options = &options_.emplace_back(line_options(*defaults_, *own));
    }
    return text;
  }

  TextFormat format_;
  terse::TextKind kind_;
  const terse::EmbedOptions* defaults_;
  std::string name_;
  std::vector<TextItem> items_;
  std::deque<terse::EmbedOptions> options_;  // a deque: items point into it
  std::size_t bytes_ = 0;
};

class EmbedCommand {
 public:
  void add_options(CLI::App& app) {
    model_.add(app);
    app.add_option("texts", input_, "Texts to embed, - for standard input [-]");
    add_choice(app, "--input-format", input_format_, kTextFormats,
               "Form of the input; text: one a line [jsonl]");
    add_choice(app, "--kind", kind_, kKinds, "Kind of texts that do not say it [passage]");
    app.add_option_function<std::string>(
           "--outputs", [this](const std::string& names) { choose_outputs(names); },
           "What to print; sparse and colbert: bge-m3 [dense]")
        ->type_name("dense,sparse,colbert");
    output_.add(app);
    app.add_option("--npy", npy_path_,
                   "Write dense vectors to a NumPy file instead, NaN for failed lines");
    app.add_flag("--ids", with_ids_, "Print the token ids that the model was given");
    visit_fields(options_, CommandLineFields(app));
    visit_call_fields(options_, CommandLineFields(app));
  }

  int run() {
    LineReader reader(input_);
    const terse::Embedder embedder = model_.load_embedder();
    Output output(output_.path);
    if (!npy_path_.empty()) npy_ = std::make_unique<NpyWriter>(npy_path_, width(embedder));
    Progress progress(output_.progress, "texts");
    while (true) {
      TextChunk chunk(input_format_, kind_, options_, reader.name());
      if (!fill_chunk(reader, chunk)) break;
      answer(embedder, chunk.items(), reader, output, progress);
      output.flush();
    }
    if (npy_ != nullptr) npy_->finish();
    output.finish();
    return any_failed_ ? kLinesFailed : kSuccess;
  }

 private:
  std::size_t width(const terse::Embedder& embedder) const {
    const std::int64_t hidden_size = embedder.info().hidden_size;
    const bool cut = options_.truncate_dim > 0 && options_.truncate_dim < hidden_size;
    return static_cast<std::size_t>(cut ? options_.truncate_dim : hidden_size);
  }

  void choose_outputs(const std::string& names) {
    options_.dense = options_.sparse = options_.colbert = false;
    static constexpr Choice<bool terse::EmbedOptions::*> kOutputs[] = {
        {"dense", &terse::EmbedOptions::dense},
        {"sparse", &terse::EmbedOptions::sparse},
        {"colbert", &terse::EmbedOptions::colbert}};
    for (const std::string& name : split_list(names)) {
      options_.*choose(name, kOutputs, "--outputs") = true;
    }
  }

  void answer(const terse::Embedder& embedder, std::vector<TextItem>& items,
              const LineReader& reader, Output& output, Progress& progress) {
    std::vector<terse::Text> texts;
    for (TextItem& item : items) {
      if (!item.error) texts.push_back(std::move(item.text));
    }
    const terse::CallOptions call{[&](std::size_t done, std::size_t) {
                                    progress.update(done_ + done, tokens_, reader.fraction_done());
                                  },
                                  [] { return noted_signal() != 0; }};
    const auto results = embedder.embed(texts, options_, call);
    progress.clear();
    auto result = results.begin();
    for (const TextItem& item : items) {
      const terse::EmbedResult* embedded = item.error ? nullptr : &*result++;
      const auto& error = embedded != nullptr ? embedded->error : item.error;
      Record record;
      record.add("id", item.id);
      if (error) {
        record.add_error(*error);
        any_failed_ = true;
      } else {
        add_vectors(embedder, *embedded, record);
      }
      if (npy_ != nullptr) npy_->add_row(error ? std::span<const float>() : embedded->dense);
      if (npy_ == nullptr || error) output.write(record.json() + "\n");
    }
    done_ += texts.size();
  }

  void add_vectors(const terse::Embedder& embedder, const terse::EmbedResult& result,
                   Record& record) {
    tokens_ += static_cast<std::uint64_t>(result.tokens);
    if (npy_ != nullptr) return;
    if (options_.dense) record.add("dense", json_list(result.dense));
    if (options_.sparse) {
      Record weights;
      for (const auto& [id, weight] : result.sparse) {
        weights.add_number(std::to_string(id), weight);
      }
      record.add("sparse", weights.json());
    }
    if (options_.colbert) record.add("colbert", rows_text(result));
    record.add_integer("tokens", result.tokens).add_boolean("truncated", result.truncated);
    record.add_text("dtype", products_name(embedder.info().dtype));
    if (with_ids_) {
      record.add("input_ids", json_integers(std::span<const std::int32_t>(result.input_ids)));
    }
  }

  static std::string rows_text(const terse::EmbedResult& result) {
    std::string rows = "[";
    const auto count = static_cast<std::size_t>(result.colbert_rows);
    const std::size_t width = count == 0 ? 0 : result.colbert.size() / count;
    for (std::size_t row = 0; row < count; ++row) {
      if (row > 0) rows += ", ";
      rows += json_list(std::span<const float>(result.colbert).subspan(row * width, width));
    }
    return rows + "]";
  }

  ModelOptions model_;
  std::string input_;
  TextFormat input_format_ = TextFormat::jsonl;
  terse::TextKind kind_ = terse::TextKind::passage;
  OutputOptions output_;
  std::string npy_path_;
  terse::EmbedOptions options_;
  bool with_ids_ = false;

  std::unique_ptr<NpyWriter> npy_;
  std::uint64_t done_ = 0;
  std::uint64_t tokens_ = 0;
  bool any_failed_ = false;
};

}  // namespace

void add_embed_command(CLI::App& app, Action& action) {
  add_command<EmbedCommand>(app, action, "embed", "Turn texts into vectors with an embedder");
}

}  // namespace terse_tools
