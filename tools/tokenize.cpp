// terse tokenize: the ids that a tokenizer gives texts, or that a reranker is given for pairs.
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "json_lines.h"
#include "terse/models/loading.h"
#include "terse/rerank.h"
#include "terse/tokenizer/tokenizer.h"

namespace terse_tools {

namespace {

enum class TokenizeFormat { jsonl, text, whole };
constexpr Choice<TokenizeFormat> kTokenizeFormats[] = {{"jsonl", TokenizeFormat::jsonl},
                                                       {"text", TokenizeFormat::text},
                                                       {"whole", TokenizeFormat::whole}};
constexpr Choice<terse::TruncationStrategy> kStrategies[] = {
    {"longest-first", terse::TruncationStrategy::longest_first},
    {"only-first", terse::TruncationStrategy::only_first},
    {"only-second", terse::TruncationStrategy::only_second}};

class TokenizeCommand {
 public:
  void add_options(CLI::App& app) {
    app.add_option("-m,--model", model_, "Model folder, tokenizer.json or SentencePiece .model")
        ->required();
    app.add_option("texts", input_, "Texts to tokenize, - for standard input [-]");
    add_choice(app, "--input-format", input_format_, kTokenizeFormats,
               "Form of the input; text: one a line; whole: one text in all [jsonl]");
    output_.add(app);
    output_.add_format(app);
    app.add_flag("--no-special", no_special_, "Add no special tokens");
    app.add_flag("--special-as-text", special_as_text_,
                 "Treat special tokens written in a text as any other text");
  }

  int run() {
    LineReader reader(input_);
    const auto loaded = terse::load_tokenizer(model_);
    const terse::Tokenizer& tokenizer = *loaded;
    note_signals();
    Output output(output_.path);
    RecordWriter writer(
        output_.resolved_format(),
        {{"id", 12, false}, {"ids", 40, false}, {"tokens", 0, false}, {"error", 0, false}});
    bool any_failed = false;
    const auto answer = [&](std::string id, auto&& encode) {
      Record record;
      record.add("id", std::move(id));
      try {
        add_encoding(tokenizer, encode(), record);
      } catch (const terse::Error& error) {
        record.add_error(error);
        any_failed = true;
      }
      output.write(writer.text(record));
    };
    if (input_format_ == TokenizeFormat::whole) {
      const std::string text = reader.read_all(terse::kMaxTextBytes);
      answer("0", [&] { return tokenizer.encode(text, encode_options()); });
    } else {
      answer_lines(tokenizer, reader, output, answer);
    }
    output.finish();
    return any_failed ? kLinesFailed : kSuccess;
  }

 private:
  template <class Answer>
  void answer_lines(const terse::Tokenizer& tokenizer, LineReader& reader, Output& output,
                    Answer&& answer) {
    while (const auto line = reader.next()) {
      if (input_format_ == TokenizeFormat::text) {
        answer(std::to_string(line->number), [&] {
          return tokenizer.encode(plain_text(*line, reader.name()), encode_options());
        });
      } else if (line->too_long || !is_blank(line->text)) {
        const LineObject object = read_object(*line, reader.name());
        answer(object.id, [&] {
          if (object.error) throw *object.error;
          return encode_object(tokenizer, object.document->root());
        });
      }
      if (!reader.ready()) output.flush();
    }
  }

  terse::EncodeOptions encode_options() const {
    terse::EncodeOptions options;
    options.add_special_tokens = !no_special_;
    if (special_as_text_) options.special_text = terse::SpecialText::plain;
    return options;
  }

  // {"text", "pair"?, "max_length"?, "strategy"?} by the tokenizer's own post-processor, or
  // {"query", "passage"} as the model lays out a pair.
  terse::Encoding encode_object(const terse::Tokenizer& tokenizer, terse::JsonValue root) {
    if (root.find("query")) return encode_pair(root);
    const std::string text = required_text(root, "text");
    terse::EncodeOptions options = encode_options();
    if (const auto length = optional_member(root, "max_length")) {
      options.max_length =
          static_cast<std::size_t>(length->as_integer("max_length", 1, std::int64_t{1} << 31));
    }
    if (const auto strategy = optional_member(root, "strategy")) {
      options.strategy = choose(strategy->as_string("strategy"), kStrategies, "strategy");
    }
    const auto pair = optional_member(root, "pair");
    if (!pair) return tokenizer.encode(text, options);
    return tokenizer.encode_pair(text, pair->as_string("pair"), options);
  }

  terse::Encoding encode_pair(terse::JsonValue root) {
    terse::check(std::filesystem::is_directory(model_) || terse::PackedFile::recognizes(model_),
                 terse::ErrorClass::unsupported, root.source(),
                 ": query and passage need a model, not a tokenizer alone");
    terse::check(!no_special_ && !special_as_text_, terse::ErrorClass::unsupported, root.source(),
                 ": --no-special and --special-as-text do not go with query and passage, whose "
                 "tokens are the model's own");
    // Loaded when first needed: most uses are of the tokenizer alone.
    if (!reranker_) reranker_ = terse::Reranker::load(model_);
    const terse::Pair pair{required_text(root, "query"), required_text(root, "passage")};
    const auto rows = reranker_->rows(pair);
    terse::Encoding encoding;
    encoding.ids = rows.front().token_ids;
    encoding.type_ids = rows.front().type_ids;
    encoding.type_ids.resize(encoding.ids.size(), 0);
    return encoding;
  }

  static void add_encoding(const terse::Tokenizer& tokenizer, const terse::Encoding& encoding,
                           Record& record) {
    std::string tokens = "[";
    for (const terse::TokenId id : encoding.ids) {
      if (tokens.size() > 1) tokens += ", ";
      tokens += json_string(tokenizer.id_to_token(id));
    }
    record.add("ids", json_integers(std::span<const terse::TokenId>(encoding.ids)))
        .add("tokens", tokens + "]")
        .add("type_ids", json_integers(std::span<const terse::TokenId>(encoding.type_ids)));
  }

  std::string model_;
  std::string input_;
  TokenizeFormat input_format_ = TokenizeFormat::jsonl;
  OutputOptions output_;
  bool no_special_ = false;
  bool special_as_text_ = false;
  std::optional<terse::Reranker> reranker_;
};

}  // namespace

void add_tokenize_command(CLI::App& app, Action& action) {
  add_command<TokenizeCommand>(app, action, "tokenize", "Print the token ids of texts");
}

}  // namespace terse_tools
