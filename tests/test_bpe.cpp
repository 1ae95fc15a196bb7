#include <doctest/doctest.h>

#include <cstddef>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support.h"
#include "terse/json.h"
#include "terse/tokenizer/bpe.h"

namespace {

using Ids = std::vector<terse::TokenId>;

terse::Bpe load(const std::string& json) {
  const auto document = terse::JsonDocument::parse(json, {}, "model");
  return terse::Bpe::from_json(document.root());
}

Ids encode(const terse::Bpe& model, std::string_view text) {
  Ids ids;
  model.encode(text, &ids);
  return ids;
}

std::string error_of(const std::string& json) {
  return terse_test::error_class_of([&] { load(json); });
}

// A small model with further members put in front.
std::string small_model(const std::string& members) {
  return "{" + members + R"( "vocab": {"<unk>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5,
      "abc": 6, "é": 7, "<0xC3>": 8, "<0xA8>": 9}, "merges": ["b c", ["a", "b"], "a bc"]})";
}

// The definition: merge the leftmost pair of lowest rank until there is none.
struct NaiveBpe {
  std::map<std::string, terse::TokenId> vocab;
  std::vector<std::pair<std::string, std::string>> merges;

  Ids encode(const std::string& text) const {
    std::vector<std::string> symbols;
    for (const char c : text) symbols.emplace_back(1, c);
    for (std::size_t rank = 0; rank < merges.size();) {
      bool merged = false;
      for (std::size_t left = 0; left + 1 < symbols.size() && !merged; ++left) {
        if (symbols[left] != merges[rank].first || symbols[left + 1] != merges[rank].second)
          continue;
        symbols[left] += symbols[left + 1];
        symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(left) + 1);
        merged = true;
      }
      rank = merged ? 0 : rank + 1;
    }
    Ids ids;
    for (const std::string& symbol : symbols) ids.push_back(vocab.at(symbol));
    return ids;
  }

  std::string json() const {
    std::string text = "{\"vocab\": {";
    for (const auto& [piece, id] : vocab) text += "\"" + piece + "\": " + std::to_string(id) + ",";
    text.back() = '}';
    text += ", \"merges\": [";
    for (const auto& [left, right] : merges) text += "\"" + left + " " + right + "\",";
    text.back() = ']';
    return text + "}";
  }
};

// Merges of random pairs, among them several splits of one piece.
NaiveBpe random_model(std::mt19937& random, int letters) {
  NaiveBpe model;
  std::vector<std::string> pieces;
  const auto add = [&](const std::string& piece) {
    if (model.vocab.emplace(piece, static_cast<terse::TokenId>(model.vocab.size())).second) {
      pieces.push_back(piece);
    }
  };
  for (int letter = 0; letter < letters; ++letter)
    add(std::string(1, static_cast<char>('a' + letter)));
  std::map<std::pair<std::string, std::string>, bool> used;
  while (model.merges.size() < 25) {
    const std::string left = pieces[random() % pieces.size()];
    const std::string right = pieces[random() % pieces.size()];
    if (left.size() + right.size() > 6 || !used.emplace(std::pair(left, right), true).second)
      continue;
    model.merges.emplace_back(left, right);
    add(left + right);
  }
  return model;
}

}  // namespace

TEST_CASE("BPE merges the lowest rank first, leftmost among equals") {
  const auto model = load(small_model(""));
  CHECK(encode(model, "abc") == Ids{6});
  CHECK(encode(model, "ab") == Ids{4});
  CHECK(encode(model, "abab") == Ids{4, 4});
  CHECK(encode(model, "aabcc") == Ids{1, 6, 3});
  CHECK(encode(model, "") == Ids{});
  const auto runs = load(R"({"vocab": {"a": 0, "aa": 1, "aaa": 2}, "merges": ["a a", "aa a"]})");
  CHECK(encode(runs, "aaa") == Ids{2});
  CHECK(encode(runs, "aaaa") == Ids{1, 1});
  CHECK(encode(runs, "aaaaa") == Ids{1, 2});
}

TEST_CASE("BPE agrees with the definition on random models") {
  std::mt19937 random(99);
  for (int trial = 0; trial < 150; ++trial) {
    const int letters = 2 + trial % 5;
    const NaiveBpe naive = random_model(random, letters);
    const auto model = load(naive.json());
    for (int text_index = 0; text_index < 10; ++text_index) {
      std::string text;
      const std::size_t size = 1 + random() % 60;
      while (text.size() < size) {
        text += static_cast<char>('a' + random() % static_cast<unsigned>(letters));
      }
      REQUIRE(encode(model, text) == naive.encode(text));
    }
  }
}

TEST_CASE("BPE: characters outside the vocabulary") {
  const auto none = load(small_model(""));
  CHECK(encode(none, "axb") == Ids{4});  // without unk_token they vanish, and the rest closes up
  const auto unk = load(small_model(R"("unk_token": "<unk>",)"));
  CHECK(encode(unk, "axyb") == Ids{1, 0, 0, 2});
  const auto fused = load(small_model(R"("unk_token": "<unk>", "fuse_unk": true,)"));
  CHECK(encode(fused, "axyb") == Ids{1, 0, 2});
  CHECK(encode(fused, "xayz") == Ids{0, 1, 0});
  const auto absent = load(small_model(R"("unk_token": "[UNK]",)"));
  CHECK(encode(absent, "ab") == Ids{4});
  CHECK(terse_test::error_class_of([&] { encode(absent, "ax"); }) == "tokenizer");
}

TEST_CASE("BPE byte fallback needs all bytes of a character, and overtakes a pending unk") {
  const auto model =
      load(small_model(R"("unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,)"));
  CHECK(encode(model, "é") == Ids{7});
  CHECK(encode(model, "è") == Ids{8, 9});
  CHECK(encode(model, "ê") == Ids{0});  // <0xAA> is missing
  CHECK(encode(model, "êè") == Ids{8, 9, 0});
  CHECK(encode(model, "êèa") == Ids{8, 9, 0, 1});
}

TEST_CASE("BPE may take a whole word before merging") {
  const std::string tail = R"("vocab": {"a": 0, "b": 1, "ab": 2}, "merges": []})";
  CHECK(encode(load("{\"ignore_merges\": true, " + tail), "ab") == Ids{2});
  CHECK(encode(load("{\"ignore_merges\": true, " + tail), "aba") == Ids{0, 1, 0});
  CHECK(encode(load("{" + tail), "ab") == Ids{0, 1});
}

TEST_CASE("BPE decorates symbols with its prefix and suffix") {
  const auto prefix = load(R"({"continuing_subword_prefix": "##", "unk_token": "u",
      "vocab": {"u": 0, "a": 1, "##b": 2, "ab": 3, "##c": 4, "abc": 5, "b": 6},
      "merges": ["a ##b", "ab ##c"]})");
  CHECK(encode(prefix, "abc") == Ids{5});
  CHECK(encode(prefix, "ba") == Ids{6, 0});
  const auto suffix = load(R"({"end_of_word_suffix": "</w>", "unk_token": "u",
      "vocab": {"u": 0, "a": 1, "a</w>": 2, "aa</w>": 3}, "merges": ["a a</w>"]})");
  CHECK(encode(suffix, "aaa") == Ids{1, 3});
  CHECK(encode(suffix, "a") == Ids{2});
}

TEST_CASE("BPE accepts two texts with one id, holes, and repeated merges") {
  const auto model = load(R"({"vocab": {"a": 0, "b": 1, "ab": 7, "ba": 7, "aab": 9},
      "merges": ["a b", "b a", "a b", "a ab"]})");
  CHECK(model.vocab_size() == 10);
  CHECK(encode(model, "ab") == Ids{7});
  CHECK(encode(model, "aab") == Ids{9});
  CHECK(encode(model, "ba") == Ids{7});
  CHECK(model.id_to_token(7) == "ba");
  CHECK(model.id_to_token(5).empty());
}

TEST_CASE("BPE reads merges of both forms and skips a version line") {
  const auto model = load(R"({"vocab": {"a": 0, "b": 1, "ab": 2, "abb": 3},
      "merges": ["#version: 0.2", "a b", ["ab", "b"]]})");
  CHECK(encode(model, "abb") == Ids{3});
  // Only the list form can say a space.
  const auto space = load(R"({"vocab": {"a": 0, " ": 1, "a ": 2}, "merges": [["a", " "]]})");
  CHECK(encode(space, "a ") == Ids{2});
}

TEST_CASE("BPE refuses contradictory definitions") {
  const auto with_merges = [](const std::string& merges) {
    return error_of(R"({"vocab": {"t": 0, "h": 1, "th": 2}, "merges": )" + merges + "}");
  };
  CHECK(with_merges(R"(["t h"])") == "none");
  CHECK(with_merges(R"("t h")") == "schema");
  CHECK(with_merges("null") == "schema");
  CHECK(with_merges(R"([""])") == "schema");
  CHECK(with_merges(R"(["th"])") == "schema");
  CHECK(with_merges(R"(["t h e"])") == "schema");
  CHECK(with_merges("[5]") == "schema");
  CHECK(with_merges(R"([["t"]])") == "schema");
  CHECK(with_merges(R"([["t", "h", "e"]])") == "schema");
  CHECK(with_merges(R"([["t", 1]])") == "schema");
  CHECK(with_merges(R"(["t x"])") == "tokenizer");
  CHECK(with_merges(R"(["x t"])") == "tokenizer");
  CHECK(with_merges(R"(["h t"])") == "tokenizer");
  CHECK(with_merges(R"(["t "])") == "tokenizer");
  CHECK(error_of(R"({"vocab": {"a": 0}})") == "schema");
  CHECK(error_of(R"({"merges": []})") == "schema");
  CHECK(error_of(R"({"vocab": {}, "merges": []})") == "tokenizer");
  CHECK(error_of(R"({"vocab": {"": 0}, "merges": []})") == "tokenizer");
  CHECK(error_of(R"({"vocab": {"a": 2147483648}, "merges": []})") == "range");
  CHECK(error_of(R"({"vocab": {"a": 2.5}, "merges": []})") == "schema");
  CHECK(error_of(R"({"vocab": {"a": 0, "##b": 1, "ab": 2}, "merges": ["a b"],
      "continuing_subword_prefix": "####"})") == "tokenizer");
  const auto with_dropout = [](const std::string& dropout) {
    return error_of(R"({"vocab": {"a": 0}, "merges": [], "dropout": )" + dropout + "}");
  };
  CHECK(with_dropout("null") == "none");
  CHECK(with_dropout("0.0") == "none");
  CHECK(with_dropout("0.1") == "unsupported");
  CHECK(with_dropout("2.0") == "range");
  CHECK(with_dropout("-1") == "range");
  CHECK(with_dropout("\"1\"") == "schema");
}

TEST_CASE("BPE takes a megabyte in one word") {
  const auto model = load(R"({"vocab": {"a": 0, "b": 1, "aa": 2, "aaaa": 3, "ab": 4, "abab": 5},
      "merges": ["a a", "aa aa", "a b", "ab ab"]})");
  CHECK(encode(model, std::string(1 << 20, 'a')).size() == 1 << 18);
  std::string alternating;
  while (alternating.size() < 1 << 20) alternating += "ab";
  CHECK(encode(model, alternating).size() == 1 << 18);
}

TEST_CASE("A merge table survives pairs chosen to share a slot") {
  // Multiples of a power of two collide under a hash that keeps low bits only.
  std::vector<terse::MergeTable::Rule> rules;
  for (terse::TokenId id = 0; id < 4096; ++id) rules.push_back({id << 12, 0, id});
  const terse::MergeTable table(rules);
  CHECK(table.num_rules() == 4096);
  for (terse::TokenId id = 0; id < 4096; ++id) {
    CHECK(table.rank_of(id << 12, 0) == static_cast<std::uint32_t>(id));
    CHECK(table.rank_of(id << 12, 1) == terse::MergeTable::kNoRank);
  }
}

TEST_CASE("Llama 2 encodes the golden texts without added tokens as the reference does") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const auto path = *shared / "tokenizers/llama2/tokenizer.json";
  const auto text = terse_test::read_file(path);
  const auto document =
      terse::JsonDocument::parse(text, {.max_bytes = terse::kMaxTokenizerBytes}, path.string());
  const auto model = terse::Bpe::from_json(*document.root().find("model"));
  const auto goldens = terse_test::read_file(*shared / "tokenizers/goldens/llama2.jsonl");
  std::size_t num_checked = 0;
  for (std::size_t begin = 0; begin < goldens.size();) {
    const std::size_t end = goldens.find('\n', begin);
    const auto line =
        terse::JsonDocument::parse(goldens.substr(begin, end - begin), {}, "llama2.jsonl");
    begin = end + 1;
    const std::string golden((*line.root().find("text")).as_string("text"));
    if (golden.empty() || golden.find('<') != std::string::npos) continue;
    // The file's normalizer: Prepend and Replace.
    std::string normalized = "\u2581";
    for (const char byte : golden) normalized += byte == ' ' ? "\u2581" : std::string(1, byte);
    Ids expected;
    const terse::JsonValue ids = *line.root().find("ids_no_special");
    for (const auto id : ids) {
      expected.push_back(terse::read_token_id(id, "id", terse::kMaxVocabulary));
    }
    CHECK(encode(model, normalized) == expected);
    ++num_checked;
  }
  CHECK(num_checked > 400);
}
