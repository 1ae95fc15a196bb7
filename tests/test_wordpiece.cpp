#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

#include "support.h"
#include "terse/json.h"
#include "terse/tokenizer/wordpiece.h"

namespace {

using Ids = std::vector<terse::TokenId>;

terse::WordPiece load(const std::string& json) {
  const auto document = terse::JsonDocument::parse(json, {}, "model");
  return terse::WordPiece::from_json(document.root());
}

Ids encode(const terse::WordPiece& model, std::string_view word) {
  Ids ids;
  model.encode(word, &ids);
  return ids;
}

const std::string kModel = R"({"type": "WordPiece", "unk_token": "[UNK]",
  "continuing_subword_prefix": "##", "max_input_chars_per_word": 8,
  "vocab": {"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "aff": 4, "##a": 5, "a": 6, "##": 7,
            "##é": 8, "é": 9, "#": 10, "###": 11, "unaffa": 20}})";

}  // namespace

TEST_CASE("WordPiece takes the longest piece from the left") {
  const auto model = load(kModel);
  CHECK(encode(model, "unaff") == Ids{1, 2});
  CHECK(encode(model, "unaffa") == Ids{20});
  CHECK(encode(model, "affable") == Ids{4, 3});
  CHECK(encode(model, "aaa") == Ids{6, 5, 5});
  CHECK(encode(model, "aéé") == Ids{6, 8, 8});
  CHECK(encode(model, "") == Ids{});
}

TEST_CASE("WordPiece gives one unk for a word that does not split or is too long") {
  const auto model = load(kModel);
  CHECK(encode(model, "unxaff") == Ids{0});
  CHECK(encode(model, "unaffx") == Ids{0});
  CHECK(encode(model, "unaffabl") == Ids{0});  // greedy: never goes back to "un"
  CHECK(encode(model, "aaaaaaaa") == Ids{6, 5, 5, 5, 5, 5, 5, 5});
  CHECK(encode(model, "aaaaaaaaa") == Ids{0});
  CHECK(encode(model, "éééééééé").size() == 8);  // characters are counted, not bytes
}

TEST_CASE("WordPiece treats its prefix in the text as text") {
  const auto model = load(kModel);
  CHECK(encode(model, "##a") == Ids{5});
  CHECK(encode(model, "##") == Ids{7});
  CHECK(encode(model, "#") == Ids{10});
  CHECK(encode(model, "a#") == Ids{6, 11});
}

TEST_CASE("WordPiece maps ids and texts, holes included") {
  const auto model = load(kModel);
  CHECK(model.vocab_size() == 21);
  CHECK(model.token_to_id("##able") == 3);
  CHECK_FALSE(model.token_to_id("able").has_value());
  CHECK(model.id_to_token(20) == "unaffa");
  CHECK(model.id_to_token(15).empty());
  CHECK(model.id_to_token(-1).empty());
  CHECK(model.id_to_token(1000).empty());
}

TEST_CASE("WordPiece has defaults for what a file leaves out") {
  const auto model = load(R"({"vocab": {"[UNK]": 0, "a": 1, "##a": 2}})");
  CHECK(encode(model, std::string(100, 'a')).size() == 100);
  CHECK(encode(model, std::string(101, 'a')) == Ids{0});
}

TEST_CASE("WordPiece refuses contradictory definitions") {
  const auto error_of = [](const std::string& json) {
    return terse_test::error_class_of([&] { load(json); });
  };
  CHECK(error_of(R"({})") == "schema");
  CHECK(error_of(R"({"vocab": ["a"]})") == "schema");
  CHECK(error_of(R"({"vocab": null})") == "schema");
  CHECK(error_of(R"({"vocab": {}})") == "tokenizer");
  CHECK(error_of(R"({"vocab": {"a": 0}, "unk_token": "[UNK]"})") == "tokenizer");
  CHECK(error_of(R"({"vocab": {"[UNK]": 0, "": 1}})") == "tokenizer");
  CHECK(error_of(R"({"vocab": {"[UNK]": 2147483648}})") == "range");
  CHECK(error_of(R"({"vocab": {"[UNK]": 4294967296}})") == "schema");
  CHECK(error_of(R"({"vocab": {"[UNK]": -1}})") == "schema");
  CHECK(error_of(R"({"vocab": {"[UNK]": 0.5}})") == "schema");
  CHECK(error_of(R"({"vocab": {"[UNK]": null}})") == "schema");
  CHECK(error_of(R"({"vocab": {"[UNK]": 0}, "unk_token": 3})") == "schema");
  CHECK(error_of(R"({"vocab": {"[UNK]": 0}, "max_input_chars_per_word": -1})") == "schema");
  const std::string huge = "{\"vocab\": {\"[UNK]\": 0, \"" + std::string(70000, 'x') + "\": 1}}";
  CHECK(error_of(huge) == "limit");
}

TEST_CASE("WordPiece stays linear without a limit on the length of words") {
  const auto model = load(R"({"vocab": {"[UNK]": 0, "a": 1, "##a": 2, "##aaaa": 3},
                              "max_input_chars_per_word": 1000000000000000000})");
  const std::string word(4000001, 'a');
  CHECK(encode(model, word).size() == 1000001);
}

TEST_CASE("bge-en splits plain words as the reference does") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const auto path = *shared / "tokenizers/bge-en-v1.5/tokenizer.json";
  const auto text = terse_test::read_file(path);
  const auto document =
      terse::JsonDocument::parse(text, {.max_bytes = terse::kMaxTokenizerBytes}, path.string());
  const auto model = terse::WordPiece::from_json(*document.root().find("model"));
  CHECK(model.vocab_size() == 30522);
  CHECK(encode(model, "hello") == Ids{7592});
  CHECK(encode(model, "tokenization") == Ids{19204, 3989});
}
