#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "support.h"
#include "terse/json.h"
#include "terse/tokenizer/unigram.h"

namespace {

using Ids = std::vector<terse::TokenId>;

terse::Unigram load(const std::string& json) {
  const auto document = terse::JsonDocument::parse(json, {}, "model");
  return terse::Unigram::from_json(document.root());
}

Ids encode(const terse::Unigram& model, std::string_view text) {
  Ids ids;
  model.encode(text, &ids);
  return ids;
}

std::string error_of(const std::string& json) {
  return terse_test::error_class_of([&] { load(json); });
}

// The definition, without trie or back pointers: the best sum over all ways to split text.
double best_score(const std::map<std::string, double>& pieces, double unk_score,
                  const std::string& text) {
  std::vector<double> best(text.size() + 1, -std::numeric_limits<double>::infinity());
  best[0] = 0;
  for (std::size_t end = 1; end <= text.size(); ++end) {
    for (std::size_t begin = 0; begin < end; ++begin) {
      const auto piece = pieces.find(text.substr(begin, end - begin));
      if (piece != pieces.end()) best[end] = std::max(best[end], best[begin] + piece->second);
    }
    if (!pieces.contains(text.substr(end - 1, 1))) {
      best[end] = std::max(best[end], best[end - 1] + unk_score);
    }
  }
  return best[text.size()];
}

}  // namespace

TEST_CASE("Unigram takes the split with the greatest sum") {
  const auto model = load(R"({"type": "Unigram", "unk_id": 0, "vocab":
      [["<unk>", 0], ["a", -1], ["b", -1.5], ["ab", -2], ["abc", -9], ["c", -3], ["é", -4]]})");
  CHECK(encode(model, "ab") == Ids{3});
  CHECK(encode(model, "abc") == Ids{3, 5});
  CHECK(encode(model, "ba") == Ids{2, 1});
  CHECK(encode(model, "éa") == Ids{6, 1});
  CHECK(encode(model, "") == Ids{});
}

TEST_CASE("Unigram gives ties to the piece that starts first") {
  // "aaa" as a|aa or aa|a: both sum to -3.
  const auto model = load(R"({"unk_id": 0, "vocab": [["<unk>", 0], ["a", -1], ["aa", -2]]})");
  CHECK(encode(model, "aa") == Ids{2});
  CHECK(encode(model, "aaa") == Ids{1, 2});
}

TEST_CASE("Unigram fuses unknown characters") {
  const auto model =
      load(R"({"unk_id": 1, "vocab": [["a", -1], ["<unk>", 0], ["xyz", -40], ["中文", -2]]})");
  CHECK(encode(model, "xy") == Ids{1});
  CHECK(encode(model, "aéüaü") == Ids{0, 1, 0, 1});
  CHECK(encode(model, "中") == Ids{1});
  CHECK(encode(model, "中文") == Ids{3});
  // The unk piece itself is text like any other, and does not extend a run across known pieces.
  CHECK(encode(model, "<unk>a") == Ids{1, 0});
  // Three unknown characters cost 3 * -50, the piece 40.
  CHECK(encode(model, "xyz") == Ids{2});
}

TEST_CASE("Unigram looks a fused run up again") {
  // Two unknown characters (2 * (min - 10) = 2 * 90) beat the piece they spell, yet it wins.
  const auto model = load(R"({"unk_id": 0, "vocab": [["<unk>", 100], ["xy", 100], ["a", 101]]})");
  CHECK(encode(model, "xy") == Ids{1});
}

TEST_CASE("Unigram falls back to bytes if it has them all") {
  std::string json = R"({"unk_id": 0, "byte_fallback": true, "vocab": [["<unk>", 0], ["a", -1])";
  for (int byte = 0; byte < 256; ++byte) {
    json += ", [\"" + terse::byte_piece(static_cast<unsigned char>(byte)) + "\", -5]";
  }
  const auto model = load(json + "]}");
  CHECK(encode(model, "aéa") == Ids{1, 2 + 0xc3, 2 + 0xa9, 1});
  CHECK(encode(model, "éb") == Ids{2 + 0xc3, 2 + 0xa9, 2 + 'b'});

  const auto some = load(R"({"unk_id": 0, "byte_fallback": true,
      "vocab": [["<unk>", 0], ["a", -1], ["<0xC3>", -5], ["<0xA9>", -5]]})");
  CHECK(encode(some, "é") == Ids{2, 3});
  CHECK(encode(some, "éb") == Ids{0});  // one byte of the run is missing
}

TEST_CASE("Unigram without unk_id refuses unknown characters only") {
  const auto model = load(R"({"unk_id": null, "vocab": [["a", -1]]})");
  CHECK(encode(model, "aa") == Ids{0, 0});
  CHECK(terse_test::error_class_of([&] { encode(model, "ab"); }) == "tokenizer");
}

TEST_CASE("Unigram: the last of two equal pieces counts, id and score") {
  const auto model = load(
      R"({"unk_id": 0, "vocab": [["<unk>", 0], ["ab", -100], ["a", -1], ["b", -1], ["ab", -1]]})");
  CHECK(encode(model, "ab") == Ids{4});
  CHECK(model.token_to_id("ab") == 4);
  CHECK(model.id_to_token(1) == "ab");
  CHECK(model.vocab_size() == 5);
}

TEST_CASE("Unigram sums in 64 bits") {
  // In f32 the sum over the eights would already have lost the difference that decides here.
  const auto model = load(R"({"unk_id": 0, "vocab": [["<unk>", 0], ["x", -1000000.0],
      ["a", -1.0], ["b", -1.0], ["ab", -2.00000001]]})");
  CHECK(encode(model, "xab") == Ids{1, 2, 3});
}

TEST_CASE("Unigram agrees with the definition on random models") {
  std::mt19937 random(7);
  for (int trial = 0; trial < 300; ++trial) {
    std::map<std::string, double> pieces = {{"a", -3}};
    for (int piece = 0; piece < 12; ++piece) {
      std::string text;
      const std::size_t size = 1 + random() % 4;
      while (text.size() < size) text += static_cast<char>('a' + random() % 3);
      pieces[text] = -static_cast<double>(random() % 1000) / 64;
    }
    std::string json = R"({"unk_id": 0, "vocab": [["?", -1])";
    double min_score = -1;
    for (const auto& [text, score] : pieces) {
      json += ", [\"" + text + "\", " + std::to_string(score) + "]";
      min_score = std::min(min_score, score);
    }
    const auto model = load(json + "]}");
    std::string text;
    while (text.size() < 100) text += static_cast<char>('a' + random() % 3);
    // Sums of multiples of 1/64 are exact; unk runs are fused, so count their characters.
    double sum = 0;
    std::size_t covered = 0;
    for (const terse::TokenId id : encode(model, text)) {
      if (id == 0) continue;
      const std::string piece(model.id_to_token(id));
      sum += pieces.at(piece);
      covered += piece.size();
    }
    sum += static_cast<double>(text.size() - covered) * (min_score - 10);
    REQUIRE(sum == best_score(pieces, min_score - 10, text));
  }
}

TEST_CASE("Unigram refuses contradictory definitions") {
  CHECK(error_of(R"({"unk_id": 0})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": null})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": "x"})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": {"a": 0}})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": []})") == "tokenizer");
  CHECK(error_of(R"({"unk_id": 0, "vocab": [["", 0]]})") == "tokenizer");
  CHECK(error_of(R"({"unk_id": 0, "vocab": [["a"]]})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": [["a", 0, 1]]})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": [["a", "0"]]})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": [["a", null]]})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": [[0, "a"]]})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": [null]})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": ["a"]})") == "schema");
  CHECK(error_of(R"({"unk_id": 1, "vocab": [["a", 0]]})") == "range");
  CHECK(error_of(R"({"unk_id": 9223372036854775808, "vocab": [["a", 0]]})") == "range");
  CHECK(error_of(R"({"unk_id": -1, "vocab": [["a", 0]]})") == "schema");
  CHECK(error_of(R"({"unk_id": "0", "vocab": [["a", 0]]})") == "schema");
  CHECK(error_of(R"({"unk_id": 0, "vocab": [["a", 0]], "byte_fallback": 1})") == "schema");
}

TEST_CASE("Unigram takes a megabyte in one word") {
  const auto model = load(R"({"unk_id": 0, "vocab": [["<unk>", 0], ["a", -3], ["aaaa", -4]]})");
  CHECK(encode(model, std::string(1000000, 'a')).size() == 250000);
  CHECK(encode(model, std::string(1000000, 'b')) == Ids{0});
}

TEST_CASE("Unigram survives sums that overflow") {
  const auto model = load(
      R"({"unk_id": 0, "vocab": [["<unk>", 0], ["a", -1e308], ["b", 1e308], ["ab", -1e308]]})");
  CHECK(encode(model, "aaaabbbbaaaa").size() > 0);
  CHECK(encode(model, "bbbbaaaa").size() > 0);
}
