// The whole tokenizer: its interface on small definitions written out here, and, where the shared
// reference data is there, every golden file and every hostile file.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "support.h"
#include "terse/tokenizer/tokenizer.h"

using namespace terse;
using terse_test::error_class_of;
using terse_test::read_file;
using terse_test::shared_folder;

namespace {

using Ids = std::vector<TokenId>;

// A Unigram tokenizer in the manner of XLM-R: template, <mask> with lstrip, every piece prefixed.
const std::string kUnigram = R"({"version":"1.0","truncation":null,"padding":null,
"added_tokens":[
 {"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
 {"id":1,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
 {"id":12,"content":"<mask>","single_word":false,"lstrip":true,"rstrip":false,"normalized":false,"special":true},
 {"id":13,"content":"Panda","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,"special":false}],
"normalizer":{"type":"Lowercase"},
"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always"},
"post_processor":{"type":"TemplateProcessing",
 "single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}}],
 "pair":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}},{"Sequence":{"id":"B","type_id":1}},{"SpecialToken":{"id":"</s>","type_id":1}}],
 "special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]},"</s>":{"id":"</s>","ids":[1],"tokens":["</s>"]}}},
"decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always"},
"model":{"type":"Unigram","unk_id":2,"vocab":[["<s>",0],["</s>",0],["<unk>",0],["▁",-2],["▁a",-2.5],["▁b",-2.5],["a",-3],["b",-3],["c",-3],["d",-3],["▁what",-4],["▁is",-4]]}})";

const Tokenizer& unigram() {
  static const Tokenizer tokenizer = Tokenizer::from_json(kUnigram, "test");
  return tokenizer;
}

// kUnigram with one part of its text replaced.
std::string unigram_with(const std::string& from, const std::string& to) {
  std::string json = kUnigram;
  const std::size_t at = json.find(from);
  REQUIRE(at != std::string::npos);
  return json.replace(at, from.size(), to);
}

double seconds_of(const auto& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// What the command writes to its standard output.
std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  REQUIRE(pipe);
  std::string output;
  std::array<char, 65536> block{};
  for (std::size_t got = 0; (got = fread(block.data(), 1, block.size(), pipe.get())) > 0;) {
    output.append(block.data(), got);
  }
  return output;
}

std::string read_maybe_compressed(const std::filesystem::path& path) {
  return path.extension() == ".xz" ? output_of("xz -dc '" + path.string() + "'") : read_file(path);
}

std::vector<JsonDocument> read_lines(const std::filesystem::path& path) {
  std::vector<JsonDocument> lines;
  const std::string content = read_file(path);
  for (std::size_t begin = 0; begin < content.size();) {
    const std::size_t end = std::min(content.find('\n', begin), content.size());
    if (end > begin) {
      lines.push_back(JsonDocument::parse(content.substr(begin, end - begin), {}, "golden"));
    }
    begin = end + 1;
  }
  return lines;
}

JsonValue field(const JsonDocument& line, std::string_view name) {
  return required_field(line.root(), name, "golden line");
}

Ids ids_of(JsonValue list) {
  Ids ids;
  for (const JsonValue id : list) ids.push_back(read_token_id(id, "id", kMaxVocabulary));
  return ids;
}

std::string shown(const Ids& ids) {
  std::string text;
  for (const TokenId id : ids) text += std::to_string(id) + " ";
  return text;
}

// Counts lines that disagree, and shows the first few.
class Tally {
 public:
  explicit Tally(std::string name) : name_(std::move(name)) {}
  void compare(std::string_view text, const Ids& got, const Ids& expected) {
    ++lines_;
    if (got == expected) return;
    if (++wrong_ > 3) return;
    MESSAGE(name_ << ": " << quote(text, 300) << "\n  got      " << shown(got) << "\n  expected "
                  << shown(expected));
  }
  ~Tally() {
    MESSAGE(name_ << ": " << lines_ - wrong_ << " of " << lines_ << " lines agree");
    CHECK(wrong_ == 0);
    CHECK(lines_ > 0);
  }
  Tally(const Tally&) = delete;
  Tally& operator=(const Tally&) = delete;

 private:
  std::string name_;
  std::size_t lines_ = 0;
  std::size_t wrong_ = 0;
};

EncodeOptions options_of(const JsonDocument& line) {
  EncodeOptions options;
  const JsonValue max_length = field(line, "max_length");
  if (max_length.is_null()) return options;
  options.max_length = static_cast<std::size_t>(max_length.as_integer("max_length", 1, 1 << 20));
  options.strategy = field(line, "strategy").as_string("strategy") == "only_second"
                         ? TruncationStrategy::only_second
                         : TruncationStrategy::longest_first;
  return options;
}

void check_goldens(const Tokenizer& tokenizer, const std::filesystem::path& file) {
  Tally with_special(file.stem().string());
  Tally plain(file.stem().string() + " without special tokens");
  for (const JsonDocument& line : read_lines(file)) {
    const std::string_view text = field(line, "text").as_string("text");
    with_special.compare(text, tokenizer.encode(text, EncodeOptions{}).ids,
                         ids_of(field(line, "ids")));
    plain.compare(text, tokenizer.encode(text), ids_of(field(line, "ids_no_special")));
  }
}

void check_pairs(const Tokenizer& tokenizer, const std::filesystem::path& file) {
  Tally ids(file.stem().string());
  Tally types(file.stem().string() + " type ids");
  for (const JsonDocument& line : read_lines(file)) {
    const std::string_view text = field(line, "text").as_string("text");
    const std::string_view pair = field(line, "pair").as_string("pair");
    const EncodeOptions options = options_of(line);
    if (line.root().find("error")) {
      CHECK(error_class_of([&] { tokenizer.encode_pair(text, pair, options); }) == "limit");
      continue;
    }
    const Encoding encoding = tokenizer.encode_pair(text, pair, options);
    ids.compare(text, encoding.ids, ids_of(field(line, "ids")));
    types.compare(text, encoding.type_ids, ids_of(field(line, "type_ids")));
    CHECK(encoding.special_mask.size() == encoding.ids.size());
  }
}

struct NamedFile {
  const char* name;
  const char* file;
};

constexpr std::array<NamedFile, 15> kTokenizers = {{
    {"bge-m3", "xlm-roberta/bge-m3.tokenizer.json.xz"},
    {"bge-reranker-v2-m3", "xlm-roberta/bge-reranker-v2-m3.tokenizer.json.xz"},
    {"xlm-roberta-base", "xlm-roberta/xlm-roberta-base.tokenizer.json.xz"},
    {"gemma2", "gemma2/tokenizer.json.xz"},
    {"gemma1", "gemma/tokenizer.json.xz"},
    {"minicpm-2b", "minicpm-2b/tokenizer.json.xz"},
    {"mistral-7b-v0.1", "mistral-7b-v0.1/tokenizer.json"},
    {"llama2", "llama2/tokenizer.json"},
    {"bge-en-v1.5", "bge-en-v1.5/tokenizer.json"},
    {"bge-zh-v1.5", "bge-zh-v1.5/tokenizer.json"},
    {"feat-bpe-metaspace-first", "features/bpe-metaspace-first.json"},
    {"feat-bpe-never-ignoremerges", "features/bpe-never-ignoremerges.json"},
    {"feat-bytelevel-roberta", "features/bytelevel-roberta.json"},
    {"feat-unigram-bytefallback", "features/unigram-bytefallback.json"},
    {"feat-unigram-first-nosplit", "features/unigram-first-nosplit.json"},
}};

constexpr std::array<NamedFile, 9> kSentencePieceModels = {{
    {"spm-xlm-roberta", "xlm-roberta/sentencepiece-rebuilt.model.xz"},
    {"spm-llama2", "llama2/tokenizer.model"},
    {"spm-mistral-7b-v0.1", "mistral-7b-v0.1/tokenizer.model"},
    {"spm-uni-nmt-bf", "spm-trained/uni-nmt-bf.model"},
    {"spm-bpe-nmt-bf", "spm-trained/bpe-nmt-bf.model"},
    {"spm-uni-nmt-nobf", "spm-trained/uni-nmt-nobf.model"},
    {"spm-bpe-ident-bf", "spm-trained/bpe-ident-bf.model"},
    {"spm-uni-cf-nodummy", "spm-trained/uni-cf-nodummy.model"},
    {"spm-bpe-nfkc-suffix", "spm-trained/bpe-nfkc-suffix.model"},
}};

std::string bytes_of_hex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

// Whether a manifest's class, "a" or "a|b", allows this one.
bool allows(std::string_view allowed, std::string_view found) {
  return ("|" + std::string(allowed) + "|").find("|" + std::string(found) + "|") !=
         std::string::npos;
}

std::string string_field(const JsonDocument& line, std::string_view name) {
  const auto member = line.root().find(name);
  return member ? std::string(member->as_string(name)) : std::string();
}

}  // namespace

TEST_CASE("encode passes every stage") {
  const Tokenizer& tokenizer = unigram();
  CHECK(tokenizer.encode("what is a") == Ids{10, 11, 4});
  CHECK(tokenizer.encode("WHAT panda x") == Ids{10, 3, 13, 3, 2});
  CHECK(tokenizer.encode("").empty());
  CHECK(tokenizer.encode("a", EncodeOptions{}).ids == Ids{0, 4, 1});
  EncodeOptions plain;
  plain.add_special_tokens = false;
  CHECK(tokenizer.encode("a", plain).ids == Ids{4});
}

TEST_CASE("encode_pair lays out the template") {
  const Encoding encoding = unigram().encode_pair("a", "b c", {});
  CHECK(encoding.ids == Ids{0, 4, 1, 1, 5, 3, 8, 1});
  CHECK(encoding.type_ids == Ids{0, 0, 0, 0, 1, 1, 1, 1});
  CHECK(encoding.special_mask == std::vector<std::uint8_t>{1, 0, 1, 1, 0, 0, 0, 1});
  CHECK(!encoding.truncated);
}

TEST_CASE("added tokens in the text are reported with their bytes") {
  const Encoding encoding = unigram().encode_pair("a <mask>b", "x PANDA</s>", {});
  CHECK(encoding.ids == Ids{0, 4, 12, 5, 1, 1, 3, 2, 3, 13, 1, 1});
  REQUIRE(encoding.matches.size() == 3);
  CHECK(encoding.matches[0].index == 2);
  CHECK(encoding.matches[0].begin == 1);  // lstrip took the space
  CHECK(encoding.matches[0].end == 8);
  CHECK(encoding.matches[0].sequence == 0);
  CHECK(encoding.matches[1].index == 9);
  CHECK(encoding.matches[1].begin == 0);  // matched after normalisation: its stretch of text
  CHECK(encoding.matches[1].end == 7);
  CHECK(encoding.matches[1].sequence == 1);
  CHECK(encoding.matches[2].index == 10);
  CHECK(encoding.matches[2].begin == 7);
}

TEST_CASE("special tokens can be plain text") {
  CHECK(unigram().encode("a</s>") == Ids{4, 1});
  const Ids plain = unigram().encode("ac</s>", SpecialText::plain);
  // The model's own "</s>" piece still wins: only added tokens are switched off.
  CHECK(plain == Ids{4, 8, 1});
  CHECK(unigram().tokenize("ac</s>", SpecialText::plain).matches.empty());
}

TEST_CASE("truncation keeps special tokens and says so") {
  EncodeOptions options;
  options.max_length = 6;
  Encoding encoding = unigram().encode_pair("a a a", "b b b", options);
  CHECK(encoding.ids == Ids{0, 4, 1, 1, 5, 1});
  CHECK(encoding.truncated);
  options.side = TruncationSide::left;
  CHECK(unigram().encode_pair("a a d", "b b", options).ids == Ids{0, 9, 1, 1, 5, 1});
  options = {};
  options.max_length = 8;
  options.strategy = TruncationStrategy::only_second;
  encoding = unigram().encode_pair("a a a", "b b b", options);
  CHECK(encoding.ids == Ids{0, 4, 4, 4, 1, 1, 5, 1});
  options.max_length = 7;
  CHECK(error_class_of([&] { unigram().encode_pair("a a a", "b b b", options); }) == "limit");
  for (const std::size_t max_length : {std::size_t{0}, std::size_t{1}, std::size_t{3}}) {
    options.max_length = max_length;
    CHECK(error_class_of([&] { unigram().encode_pair("a", "b", options); }) == "range");
  }
  options = {};
  options.add_special_tokens = false;
  options.max_length = 0;
  CHECK(error_class_of([&] { unigram().encode("a", options); }) == "range");
  options.max_length = 1;
  CHECK(unigram().encode("a a", options).ids == Ids{4});
}

TEST_CASE("a query can be cut on its own before the pair is assembled") {
  TokenSequence query = unigram().tokenize("a a a a");
  const TokenSequence passage = unigram().tokenize("b b b b");
  truncate(&query, 2, TruncationSide::right);
  EncodeOptions options;
  options.max_length = 8;
  options.strategy = TruncationStrategy::only_second;
  CHECK(unigram().assemble(query, &passage, options).ids == Ids{0, 4, 4, 1, 1, 5, 5, 1});
}

TEST_CASE("decode goes back to text") {
  const Tokenizer& tokenizer = unigram();
  const Ids ids = {0, 10, 11, 4, 1, 99, -1};
  CHECK(tokenizer.decode(ids, true) == "what is a");
  CHECK(tokenizer.decode(ids, false) == "<s> what is a</s>");
  CHECK(tokenizer.decode({}, false).empty());
}

TEST_CASE("ids and tokens") {
  const Tokenizer& tokenizer = unigram();
  CHECK(tokenizer.token_to_id("▁what") == 10);
  CHECK(tokenizer.token_to_id("<mask>") == 12);
  CHECK(!tokenizer.token_to_id("nothing"));
  CHECK(tokenizer.id_to_token(10) == "▁what");
  CHECK(tokenizer.id_to_token(13) == "Panda");
  CHECK(tokenizer.id_to_token(14).empty());
  CHECK(tokenizer.id_to_token(-1).empty());
  CHECK(tokenizer.vocab_size() == 14);
  CHECK(tokenizer.max_id() == 13);
  CHECK(tokenizer.is_special(12));
  CHECK(!tokenizer.is_special(13));
  CHECK(!tokenizer.is_special(4));
  CHECK(tokenizer.num_special_tokens(true) == 4);
  CHECK(tokenizer.describe().size() == 7);
}

TEST_CASE("text that cannot be encoded is refused") {
  const auto refused = [](std::string_view text) {
    return error_class_of([&] { unigram().encode(text); });
  };
  CHECK(refused("\xff") == "utf8");
  CHECK(refused("ab\xc3") == "utf8");
  CHECK(refused(std::string(kMaxTextBytes + 1, 'a')) == "limit");
  try {
    unigram().encode("abc\xed\xa0\x80");
    FAIL("expected an error");
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find("byte 3") != std::string::npos);
  }
}

TEST_CASE("definitions without parts, or with parts that contradict") {
  const auto refused = [](const std::string& json) {
    return error_class_of([&] { Tokenizer::from_json(json, "test"); });
  };
  CHECK(refused("{}") == "schema");
  CHECK(refused("[]") == "schema");
  CHECK(refused("") == "json");
  CHECK(refused(R"({"model":null})") == "schema");
  CHECK(refused(R"({"model":{}})") == "schema");
  CHECK(refused(R"({"model":{"type":"WordLevel","vocab":{"a":0}}})") == "unsupported");
  CHECK(refused(R"({"version":"2.0","model":{"vocab":[["a",0]]}})") == "unsupported");
  CHECK(refused(R"({"version":1,"model":{"vocab":[["a",0]]}})") == "schema");
  CHECK(refused(R"({"model":{"vocab":[["a",0]]}})") == "none");
  CHECK(refused(unigram_with(R"("ids":[1])", R"("ids":[14])")) == "range");
  CHECK(refused(unigram_with(R"("padding":null)", R"("padding":7)")) == "schema");
  CHECK(refused(unigram_with("Lowercase", "Uppercase")) == "unsupported");
}

TEST_CASE("old files leave the model's type out") {
  const auto described = [](const std::string& model) {
    return Tokenizer::from_json(R"({"model":)" + model + "}", "test").describe()[0];
  };
  CHECK(described(R"({"vocab":[["a",0]]})").starts_with("model: Unigram"));
  CHECK(described(R"({"vocab":{"a":0},"merges":[]})").starts_with("model: BPE"));
  CHECK(described(R"({"vocab":{"[UNK]":0},"unk_token":"[UNK]","max_input_chars_per_word":100,)"
                  R"("continuing_subword_prefix":"##"})")
            .starts_with("model: WordPiece"));
}

TEST_CASE("the file's own truncation and padding are shown, not applied") {
  const Tokenizer tokenizer = Tokenizer::from_json(
      unigram_with(
          R"("truncation":null)",
          R"("truncation":{"direction":"Right","max_length":3,"strategy":"LongestFirst","stride":0})"),
      "test");
  REQUIRE(tokenizer.file_truncation());
  CHECK(tokenizer.file_truncation()->max_length == 3);
  CHECK(!tokenizer.file_padding());
  CHECK(tokenizer.encode("a a a a", EncodeOptions{}).ids.size() == 6);
}

TEST_CASE("load tells the kinds of files apart") {
  const terse_test::TemporaryFolder folder;
  const auto loaded = [&](const std::string& name, const std::string& content) {
    terse_test::write_file(folder.path() / name, content);
    return error_class_of([&] { Tokenizer::load(folder.path() / name); });
  };
  CHECK(loaded("tokenizer.json", kUnigram) == "none");
  CHECK(loaded("no-extension", "\n " + kUnigram) == "none");
  CHECK(loaded("empty.json", "") == "json");
  CHECK(loaded("empty.model", "") == "tokenizer");
  CHECK(loaded("really-json.model", kUnigram) == "protobuf");
  CHECK(error_class_of([&] { Tokenizer::load(folder.path() / "absent.json"); }) == "io");
  CHECK(error_class_of([&] { Tokenizer::load(folder.path()); }) == "io");
}

TEST_CASE("what hostile definitions can make of a text is bounded") {
  const auto with_normalizer = [](const std::string& step, std::size_t times) {
    std::string steps;
    for (std::size_t i = 0; i < times; ++i) steps += (i > 0 ? "," : "") + step;
    return unigram_with(R"({"type":"Lowercase"})",
                        R"({"type":"Sequence","normalizers":[)" + steps + "]}");
  };
  const std::string doubling = R"({"type":"Replace","pattern":{"String":"q"},"content":"qq"})";
  const Tokenizer growing = Tokenizer::from_json(with_normalizer(doubling, 40), "test");
  CHECK(error_class_of([&] { growing.encode("q"); }) == "limit");
  CHECK(growing.encode("b") == Ids{5});
  const auto refused = [](const std::string& json) {
    return error_class_of([&] { Tokenizer::from_json(json, "test"); });
  };
  CHECK(refused(with_normalizer(doubling, 65)) == "limit");
  CHECK(refused(with_normalizer(
            R"({"type":"Prepend","prepend":")" + std::string(257, 'a') + R"("})", 1)) == "limit");
}

TEST_CASE("FixedLength cuts by characters") {
  const auto ids = [](const std::string& length, const std::string& text) {
    return Tokenizer::from_json(R"({"pre_tokenizer":{"type":"FixedLength","length":)" + length +
                                    R"(},"model":{"unk_id":0,"vocab":[["?",-9],["a",-2],["aa",-1],)"
                                    R"(["é",-2],["éa",-1],["aé",-1]]}})",
                                "test")
        .encode(text);
  };
  CHECK(ids("1", "aéa") == Ids{1, 3, 1});
  CHECK(ids("2", "aéa") == Ids{5, 1});
  CHECK(ids("99", "aaa") == Ids{1, 2});
  CHECK(error_class_of([&] { ids("0", "a"); }) == "range");
  CHECK(error_class_of([&] { ids("-1", "a"); }) == "schema");
}

TEST_CASE("a SentencePiece file: no added tokens, control pieces skipped by decode") {
  // Pieces <unk> (unknown), <s> (control), U+2581 a, U+2581, a, b; each a submessage of field 1.
  const auto piece = [](const std::string& text, char type) {
    const std::string body = "\x0a" + std::string(1, static_cast<char>(text.size())) + text +
                             std::string("\x15\x00\x00\x80\xbf", 5) + "\x18" + type;
    return "\x0a" + std::string(1, static_cast<char>(body.size())) + body;
  };
  const std::string model = piece("<unk>", 2) + piece("<s>", 3) + piece("▁a", 1) + piece("▁", 1) +
                            piece("a", 1) + piece("b", 1);
  const Tokenizer tokenizer = Tokenizer::from_sentencepiece(model, "test");
  CHECK(tokenizer.encode("a b") == Ids{2, 3, 5});
  CHECK(tokenizer.encode("<s>") == Ids{3, 0});
  CHECK(tokenizer.encode_pair("a", "b", {}).ids == Ids{2, 3, 5});
  CHECK(error_class_of([&] { tokenizer.encode("\xff"); }) == "utf8");
  CHECK(tokenizer.is_special(1));
  CHECK(!tokenizer.is_special(2));
  CHECK(!tokenizer.is_special(99));
  CHECK(tokenizer.decode(Ids{1, 2, 3, 5}, true) == "a b");
  CHECK(tokenizer.decode(Ids{1, 2}, false) == "<s> a");
  CHECK(tokenizer.vocab_size() == 6);
  CHECK(tokenizer.token_to_id("b") == 5);
  const terse_test::TemporaryFolder folder;
  terse_test::write_file(folder.path() / "tokenizer.model", model);
  terse_test::write_file(folder.path() / "no-extension", model);
  CHECK(Tokenizer::load(folder.path() / "tokenizer.model").vocab_size() == 6);
  CHECK(Tokenizer::load(folder.path() / "no-extension").vocab_size() == 6);
}

TEST_CASE("long inputs take linear time") {
  const auto repeated = [](const std::string& unit, std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text += unit;
    return text;
  };
  for (const std::string unit : {"a", "<s>", "<", " <mask>", "PANDA", "\n", "▁", "中"}) {
    INFO(unit);
    const std::string text = repeated(unit, 1000000);
    CHECK(seconds_of([&] { unigram().encode(text); }) < 5.0);  // 0.1 s, a sanitizer 1 s
  }
  CHECK(unigram().encode(repeated("<s>", 1000000)).size() == 1000000);
}

TEST_CASE("one tokenizer serves many threads") {
  const Tokenizer& tokenizer = unigram();
  const Ids expected = tokenizer.encode("what is <mask> a b c d unknown");
  std::vector<std::thread> threads;
  std::array<bool, 4> agreed{};
  for (std::size_t thread = 0; thread < agreed.size(); ++thread) {
    threads.emplace_back([&, thread] {
      agreed[thread] = true;
      for (int round = 0; round < 200; ++round) {
        agreed[thread] =
            agreed[thread] && tokenizer.encode("what is <mask> a b c d unknown") == expected;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(std::count(agreed.begin(), agreed.end(), true) == 4);
}

TEST_CASE("goldens of every tokenizer.json") {
  const auto shared = shared_folder();
  if (!shared) return;
  const auto goldens = *shared / "tokenizers" / "goldens";
  for (const auto& [name, file] : kTokenizers) {
    const Tokenizer tokenizer =
        Tokenizer::from_json(read_maybe_compressed(*shared / "tokenizers" / file), name);
    check_goldens(tokenizer, goldens / (std::string(name) + ".jsonl"));
    check_pairs(tokenizer, goldens / (std::string(name) + ".pairs.jsonl"));
  }
}

TEST_CASE("goldens of every SentencePiece model") {
  const auto shared = shared_folder();
  if (!shared) return;
  const auto goldens = *shared / "tokenizers" / "goldens";
  for (const auto& [name, file] : kSentencePieceModels) {
    const std::string bytes = read_maybe_compressed(*shared / "tokenizers" / file);
    const Tokenizer tokenizer = Tokenizer::from_sentencepiece(bytes, name);
    Tally tally(name);
    for (const JsonDocument& line : read_lines(goldens / (std::string(name) + ".jsonl"))) {
      const std::string_view text = field(line, "text").as_string("text");
      tally.compare(text, tokenizer.encode(text), ids_of(field(line, "ids")));
    }
    const auto malformed = goldens / (std::string(name) + ".invalid-utf8.jsonl");
    if (!std::filesystem::exists(malformed)) continue;
    const SentencePiece model = SentencePiece::from_bytes(bytes, name);
    Tally malformed_tally(std::string(name) + " on malformed UTF-8");
    for (const JsonDocument& line : read_lines(malformed)) {
      const std::string raw = bytes_of_hex(field(line, "bytes_hex").as_string("bytes_hex"));
      Ids ids;
      model.encode(raw, &ids);
      malformed_tally.compare(raw, ids, ids_of(field(line, "ids")));
      CHECK(error_class_of([&] { tokenizer.encode(raw); }) == "utf8");
    }
  }
}

TEST_CASE("hostile tokenizer files are refused with the right class") {
  const auto shared = shared_folder();
  if (!shared) return;
  std::size_t cases = 0;
  for (const JsonDocument& line : read_lines(*shared / "hostile" / "manifest.jsonl")) {
    const std::string kind = string_field(line, "kind");
    if (kind != "tokenizer.json" && kind != "spm") continue;
    ++cases;
    std::filesystem::path file = *shared / "hostile" / string_field(line, "file");
    if (std::filesystem::is_directory(file)) file /= "tokenizer.json";
    INFO(file.filename().string() << ": " << string_field(line, "why"));
    std::string found;
    const double seconds = seconds_of([&] {
      found = error_class_of([&] {
        const Tokenizer tokenizer = Tokenizer::load(file);
        tokenizer.encode_pair("what is a panda? \u4e2d\u56fd", "the <mask> <s> \u00e9", {});
      });
    });
    if (string_field(line, "expect") == "ok") {
      CHECK(found == "none");
    } else {
      CHECK_MESSAGE(allows(string_field(line, "class"), found), "found ", found, ", expected ",
                    string_field(line, "class"));
    }
    CHECK(seconds < 1.0);
  }
  CHECK(cases > 0);
}

TEST_CASE("hostile texts are encoded in time or refused") {
  const auto shared = shared_folder();
  if (!shared) return;
  std::vector<Tokenizer> tokenizers;
  for (const auto& [name, file] : kTokenizers) {
    tokenizers.push_back(
        Tokenizer::from_json(read_maybe_compressed(*shared / "tokenizers" / file), name));
  }
  for (const auto& [name, file] : kSentencePieceModels) {
    tokenizers.push_back(
        Tokenizer::from_sentencepiece(read_maybe_compressed(*shared / "tokenizers" / file), name));
  }
  std::size_t cases = 0;
  for (const JsonDocument& line : read_lines(*shared / "hostile" / "manifest.jsonl")) {
    if (string_field(line, "kind") != "text") continue;
    ++cases;
    INFO(string_field(line, "file") << ": " << string_field(line, "why"));
    const std::string text = read_file(*shared / "hostile" / string_field(line, "file"));
    const std::string expected =
        string_field(line, "expect") == "ok" ? "none" : string_field(line, "class");
    for (const Tokenizer& tokenizer : tokenizers) {
      Ids ids;
      std::string found;
      const double seconds =
          seconds_of([&] { found = error_class_of([&] { ids = tokenizer.encode(text); }); });
      CHECK(found == expected);
      CHECK(seconds < 1.0);
      CHECK(std::all_of(ids.begin(), ids.end(),
                        [&](TokenId id) { return id >= 0 && id <= tokenizer.max_id(); }));
    }
  }
  CHECK(cases > 0);
}
