#include <doctest/doctest.h>

#include <chrono>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support.h"
#include "terse/tokenizer/added_tokens.h"

using namespace terse;
using terse_test::error_class_of;

namespace {

// A definition as tokenizer.json writes it; flags holds the names of those that are true.
std::string token_json(int id, const std::string& content, const std::string& flags = "") {
  std::string json = R"({"id":)" + std::to_string(id) + R"(,"content":")" + content + '"';
  for (const std::string name : {"single_word", "lstrip", "rstrip", "normalized", "special"}) {
    const bool set = (" " + flags + " ").find(" " + name + " ") != std::string::npos;
    json += ",\"" + name + "\":" + (set ? "true" : "false");
  }
  return json + "}";
}

std::string lowercase(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return text;
}

// A model of ten pieces that knows "known" as 7 and lower-cases.
AddedTokens added_tokens(const std::vector<std::string>& definitions) {
  std::string json = "[";
  for (const std::string& definition : definitions) {
    if (json.size() > 1) json += ',';
    json += definition;
  }
  const JsonDocument document = JsonDocument::parse(json + "]", {}, "test");
  AddedTokens::Context context;
  context.model_id = [](std::string_view content) {
    return content == "known" ? std::optional<TokenId>(7) : std::nullopt;
  };
  context.model_size = 10;
  context.normalize = [](std::string& text) { text = lowercase(text); };
  return AddedTokens::from_json(document.root(), context);
}

// The pieces as text, added tokens in brackets.
std::string shown(const std::string& text, const std::vector<TextPiece>& pieces) {
  std::string line;
  for (const TextPiece& piece : pieces) {
    const std::string part = text.substr(piece.begin, piece.end - piece.begin);
    line += piece.token != nullptr ? "[" + part + "]" : part;
    line += '|';
  }
  return line;
}

std::string split(const AddedTokens& tokens, const std::string& text,
                  SpecialText special_text = SpecialText::match) {
  return shown(text, tokens.split_raw(text, special_text));
}

std::vector<std::pair<std::size_t, std::size_t>> naive_matches(
    const std::vector<std::string>& patterns, std::string_view text) {
  std::vector<std::pair<std::size_t, std::size_t>> matches;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t best = 0;
    for (const std::string& pattern : patterns) {
      if (pattern.size() > best && text.substr(i).starts_with(pattern)) best = pattern.size();
    }
    if (best > 0) matches.emplace_back(i, i + best);
    i += best > 0 ? best : 1;
  }
  return matches;
}

}  // namespace

TEST_CASE("the matcher finds what a search at every place finds") {
  std::mt19937 random(1);
  const auto random_text = [&](std::size_t length) {
    std::string text;
    for (std::size_t i = 0; i < length; ++i) text += static_cast<char>('a' + random() % 3);
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> patterns;
    for (std::size_t i = random() % 8; i > 0; --i)
      patterns.push_back(random_text(1 + random() % 6));
    const StringMatcher matcher(patterns);
    const std::string text = random_text(random() % 60);
    std::vector<std::pair<std::size_t, std::size_t>> found;
    for (const auto& match : matcher.leftmost_longest(text)) {
      const std::string& pattern = patterns[match.pattern];
      CHECK(matcher.length(match) == pattern.size());
      CHECK(text.compare(match.begin, pattern.size(), pattern) == 0);
      found.emplace_back(match.begin, match.begin + pattern.size());
    }
    CHECK(found == naive_matches(patterns, text));
  }
}

TEST_CASE("of equal patterns the first is reported") {
  const std::vector<std::string> patterns = {"x", "ab", "ab"};
  const auto matches = StringMatcher(patterns).leftmost_longest("ab");
  REQUIRE(matches.size() == 1);
  CHECK(matches[0].pattern == 1);
}

TEST_CASE("matching is linear where short matches begin long candidates") {
  // A forward automaton walks 60,000 bytes ahead for every one of a million matches.
  const std::vector<std::string> patterns = {"a", std::string(60000, 'a') + "b"};
  const StringMatcher matcher(patterns);
  const std::string text(1000000, 'a');
  const auto start = std::chrono::steady_clock::now();
  CHECK(matcher.leftmost_longest(text).size() == 1000000);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  CHECK(taken.count() < 2.0);
}

TEST_CASE("text without tokens stays one piece and empty text has none") {
  CHECK(split(AddedTokens(), "some text") == "some text|");
  CHECK(split(AddedTokens(), "") == "");
  CHECK(split(added_tokens({token_json(10, "<s>")}), "<s") == "<s|");
}

TEST_CASE("leftmost and longest token wins, case and bytes exactly") {
  const auto tokens = added_tokens({token_json(10, "<s>"), token_json(11, "<s><s>")});
  CHECK(split(tokens, "a<s><s><s>b<S>") == "a|[<s><s>]|[<s>]|b<S>|");
}

TEST_CASE("lstrip and rstrip swallow white space of any kind") {
  const auto tokens =
      added_tokens({token_json(10, "<l>", "lstrip"), token_json(11, "<r>", "rstrip")});
  CHECK(split(tokens, "x \u3000\u0085<l> y") == "x|[ \u3000\u0085<l>]| y|");
  CHECK(split(tokens, "x <r> \n\u00a0y") == "x |[<r> \n\u00a0]|y|");
  CHECK(split(tokens, "<r> <l>") == "[<r> ]|[<l>]|");  // what the first took is gone
  CHECK(split(tokens, "x\u200b<l>") == "x\u200b|[<l>]|");
}

TEST_CASE("single_word needs no word character on either side") {
  const auto tokens =
      added_tokens({token_json(10, "the", "single_word"), token_json(11, "he", "single_word")});
  CHECK(split(tokens, "the") == "[the]|");
  CHECK(split(tokens, "(the)") == "(|[the]|)|");
  CHECK(split(tokens, "the_the then bathe \u00e9the the\u0301") ==
        "the_the then bathe \u00e9the the\u0301|");
  // A refused match is not searched again for a shorter one.
  CHECK(split(tokens, "bthe he") == "bthe |[he]|");
}

TEST_CASE("special tokens are plain text on request, others are not") {
  const auto tokens = added_tokens({token_json(10, "<s>", "special"), token_json(11, "<t>")});
  CHECK(split(tokens, "<s><t>") == "[<s>]|[<t>]|");
  CHECK(split(tokens, "<s><t>", SpecialText::plain) == "<s>|[<t>]|");
}

TEST_CASE("normalized tokens match their normalised content in normalised text") {
  const auto tokens = added_tokens({token_json(10, "Python", "normalized"), token_json(11, "Raw")});
  CHECK(split(tokens, "PYTHON Raw raw") == "PYTHON |[Raw]| raw|");
  const std::string text = "python raw";
  CHECK(shown(text, tokens.split_normalized(text, SpecialText::match)) == "[python]| raw|");
}

TEST_CASE("white-space tokens with rstrip take linear time") {
  const auto tokens = added_tokens({token_json(10, " ", "rstrip")});
  const std::string text(300000, ' ');
  const auto start = std::chrono::steady_clock::now();
  const auto pieces = tokens.split_raw(text, SpecialText::match);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  CHECK(pieces.size() == text.size());
  CHECK(pieces[17].end == text.size());
  CHECK(taken.count() < 1.0);
}

TEST_CASE("ids come from the model, else follow its last one") {
  const auto tokens = added_tokens(
      {token_json(10, "new"), token_json(7, "known"), token_json(11, "newer"), token_json(12, "")});
  REQUIRE(tokens.tokens().size() == 3);  // one without content is none
  CHECK(tokens.find("new")->id == 10);
  CHECK(tokens.find("known")->id == 7);
  CHECK(tokens.find("newer")->id == 11);
  CHECK(tokens.find(11)->content == "newer");
  CHECK(tokens.find("absent") == nullptr);
  CHECK(tokens.find(12) == nullptr);
}

TEST_CASE("a content given again keeps its id and takes the new flags") {
  const auto tokens = added_tokens({token_json(10, "x"), token_json(10, "x", "lstrip special")});
  REQUIRE(tokens.tokens().size() == 1);
  CHECK(tokens.find(10)->special);
  CHECK(split(tokens, "a x") == "a|[ x]|");
}

TEST_CASE("malformed definitions are refused") {
  const auto refused = [](const std::string& definition) {
    return error_class_of([&] { added_tokens({definition}); });
  };
  CHECK(refused("5") == "schema");
  CHECK(refused(R"({"id":10})") == "schema");
  CHECK(refused(R"({"id":10,"content":"x"})") == "schema");
  CHECK(refused(token_json(-1, "x")) == "schema");
  CHECK(refused(token_json(1 << 24, "x")) == "range");
  CHECK(refused(token_json(10, std::string(70000, 'x'))) == "limit");
  const JsonDocument map = JsonDocument::parse("{}", {}, "test");
  CHECK(error_class_of([&] { AddedTokens::from_json(map.root(), {}); }) == "schema");
  const std::vector<std::string> many(kMaxAddedTokens + 1, token_json(1, ""));
  CHECK(error_class_of([&] { added_tokens(many); }) == "limit");
}

TEST_CASE("a token that normalisation erases is refused") {
  AddedTokens::Context context;
  context.model_id = [](std::string_view) { return std::nullopt; };
  context.normalize = [](std::string& text) { text.clear(); };
  const JsonDocument document =
      JsonDocument::parse("[" + token_json(0, "x", "normalized") + "]", {}, "test");
  CHECK(error_class_of([&] { AddedTokens::from_json(document.root(), context); }) == "tokenizer");
}
