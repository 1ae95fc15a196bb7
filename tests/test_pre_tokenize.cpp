// Pre-tokenizers, each by what the reference library does.
#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

#include "support.h"
#include "terse/json.h"
#include "terse/tokenizer/pre_tokenize.h"

using namespace terse;
using terse_test::error_class_of;

namespace {

using Words = std::vector<std::string>;

PreTokenizer read_pre_tokenizer(const std::string& json) {
  return PreTokenizer::from_json(JsonDocument::parse(json, {}, "test").root());
}

Words words(const std::string& json, std::string text, bool at_text_start = true) {
  const PreTokens tokens = read_pre_tokenizer(json).apply(std::move(text), at_text_start);
  Words result;
  std::size_t end = 0;
  for (const Span span : tokens.spans) {
    REQUIRE(span.begin >= end);
    REQUIRE(span.begin < span.end);
    end = span.end;
    result.push_back(tokens.text.substr(span.begin, span.end - span.begin));
  }
  CHECK(end <= tokens.text.size());
  return result;
}

std::string metaspace(const std::string& fields) {
  return R"({"type":"Metaspace","replacement":"▁")" + fields + "}";
}

std::string split(const std::string& pattern, const std::string& behavior, bool invert = false) {
  return R"({"type":"Split","pattern":)" + pattern + R"(,"behavior":")" + behavior +
         R"(","invert":)" + (invert ? "true}" : "false}");
}

const std::string kWhitespaceSplit = R"({"type":"WhitespaceSplit"})";
const std::string kBert = R"({"type":"BertPreTokenizer"})";
const std::string kByteLevel =
    R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";

}  // namespace

TEST_CASE("no pre-tokenizer: the text is one word") {
  CHECK(words("null", "a b") == Words{"a b"});
  CHECK(words("null", "").empty());
  CHECK(read_pre_tokenizer("null").describe() == "none");
}

TEST_CASE("WhitespaceSplit") {
  CHECK(words(kWhitespaceSplit, " a\tbc\u0085d\u3000\u3000e\u200Bf ") ==
        Words{"a", "bc", "d", "e\u200Bf"});
  CHECK(words(kWhitespaceSplit, "abc") == Words{"abc"});
  CHECK(words(kWhitespaceSplit, " \n ").empty());
  CHECK(words(kWhitespaceSplit, "").empty());
}

TEST_CASE("BertPreTokenizer") {
  CHECK(words(kBert, "Hey friend!     How are you?!?") ==
        Words{"Hey", "friend", "!", "How", "are", "you", "?", "!", "?"});
  CHECK(words(kBert, "don't $5.00 a_b `x`") ==
        Words{"don", "'", "t", "$", "5", ".", "00", "a", "_", "b", "`", "x", "`"});
  CHECK(words(kBert, "野口里佳、Noguchi。") == Words{"野口里佳", "、", "Noguchi", "。"});
  CHECK(words(kBert, "a€b©c´d\U0001F600e") == Words{"a€b©c´d\U0001F600e"});
  CHECK(words(kBert, "«a»").size() == 3);
}

TEST_CASE("Metaspace") {
  CHECK(words(metaspace(""), "Hey friend") == Words{"▁Hey", "▁friend"});
  CHECK(words(metaspace(""), " Hey  friend ") == Words{"▁Hey", "▁", "▁friend", "▁"});
  CHECK(words(metaspace(""), "▁Hey▁▁friend") == Words{"▁Hey", "▁", "▁friend"});
  CHECK(words(metaspace(""), "a\u2580b “c”\td") == Words{"▁a\u2580b", "▁“c”\td"});
  CHECK(words(metaspace(""), " ") == Words{"▁"});
  CHECK(words(metaspace(""), "").empty());
  CHECK(words(metaspace(R"(,"split":false)"), "a b") == Words{"▁a▁b"});
  CHECK(words(metaspace(R"(,"split":false)"), "▁a b ▁") == Words{"▁a▁b▁▁"});
  CHECK(words(R"({"type":"Metaspace","replacement":"_"})", "a_b c") == Words{"_a", "_b", "_c"});
}

TEST_CASE("Metaspace: where it prepends") {
  const std::string first = metaspace(R"(,"prepend_scheme":"first")");
  CHECK(words(first, "a b", true) == Words{"▁a", "▁b"});
  CHECK(words(first, "a b", false) == Words{"a", "▁b"});
  CHECK(words(metaspace(R"(,"prepend_scheme":"never")"), "a b") == Words{"a", "▁b"});
  CHECK(words(metaspace(R"(,"prepend_scheme":"always")"), "a b", false) == Words{"▁a", "▁b"});
  CHECK(words(metaspace(R"(,"add_prefix_space":true)"), "a") == Words{"▁a"});
  CHECK(words(metaspace(R"(,"add_prefix_space":false)"), "a") == Words{"a"});
  CHECK(words(metaspace(R"(,"add_prefix_space":true,"prepend_scheme":"first","str_rep":"x")"), "a",
              false) == Words{"a"});
  // Behind another pre-tokenizer every word is a piece of its own.
  const auto behind_split = [](const std::string& scheme) {
    return R"({"type":"Sequence","pretokenizers":[)" + kWhitespaceSplit + "," + scheme + "]}";
  };
  CHECK(words(behind_split(metaspace("")), "a b") == Words{"▁a", "▁b"});
  CHECK(words(behind_split(first), "a b") == Words{"▁a", "b"});
  CHECK(words(behind_split(first), " a b") == Words{"a", "b"});
}

TEST_CASE("ByteLevel") {
  CHECK(words(kByteLevel, "How's it goin'? I'll say: it's  2024!") ==
        Words{"How", "'s", "Ġit", "Ġgoin", "'?", "ĠI", "'ll", "Ġsay", ":", "Ġit", "'s", "Ġ",
              "Ġ2024", "!"});
  CHECK(words(kByteLevel, "a\n\nb") == Words{"a", "Ċ", "Ċ", "b"});
  CHECK(words(kByteLevel, "a \t b  ") == Words{"a", "Ġĉ", "Ġb", "ĠĠ"});
  CHECK(words(kByteLevel, "   ") == Words{"ĠĠĠ"});
  CHECK(words(kByteLevel, "WE'RE 'S '") == Words{"WE", "'", "RE", "Ġ'", "S", "Ġ'"});
  CHECK(words(kByteLevel, "é²½x中") == Words{"Ã©", "Â²Â½", "xä¸Ń"});
  CHECK(words(kByteLevel, "").empty());
  const std::string whole =
      R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":false})";
  CHECK(words(whole, "a b") == Words{"ĠaĠb"});
  CHECK(words(whole, " a b") == Words{"ĠaĠb"});
  CHECK(words(R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true})", "a b") ==
        Words{"Ġa", "Ġb"});
}

TEST_CASE("bytes and the characters that stand for them") {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  std::string characters;
  append_byte_level(characters, all);
  CHECK(characters.starts_with("ĀāĂ"));
  std::string back;
  for (std::size_t index = 0; index < characters.size();) {
    const auto byte = byte_level_byte(utf8_next(characters, &index));
    REQUIRE(byte.has_value());
    back += *byte;
  }
  CHECK(back == all);
  CHECK_FALSE(byte_level_byte(U' ').has_value());
  CHECK_FALSE(byte_level_byte(0xAD).has_value());
  CHECK_FALSE(byte_level_byte(0x144).has_value());
  CHECK_FALSE(byte_level_byte(0x10FFFF).has_value());
}

TEST_CASE("Split") {
  const std::string dash = R"({"String":"-"})";
  const std::string text = "The-final--countdown";
  CHECK(words(split(dash, "Removed"), text) == Words{"The", "final", "countdown"});
  CHECK(words(split(dash, "Isolated"), text) == Words{"The", "-", "final", "-", "-", "countdown"});
  CHECK(words(split(dash, "MergedWithPrevious"), text) ==
        Words{"The-", "final-", "-", "countdown"});
  CHECK(words(split(dash, "MergedWithNext"), text) == Words{"The", "-final", "-", "-countdown"});
  CHECK(words(split(dash, "Contiguous"), text) == Words{"The", "-", "final", "--", "countdown"});

  CHECK(words(split(dash, "MergedWithPrevious"), "-a-") == Words{"-", "a-"});
  CHECK(words(split(dash, "MergedWithNext"), "-a-") == Words{"-a", "-"});
  CHECK(words(split(dash, "Removed"), "--").empty());
  CHECK(words(split(dash, "Contiguous"), "--a") == Words{"--", "a"});

  CHECK(words(split(dash, "Removed", true), text) == Words{"-", "-", "-"});
  CHECK(words(split(dash, "Isolated", true), text) ==
        Words{"The", "-", "final", "-", "-", "countdown"});
  CHECK(words(split(dash, "MergedWithPrevious", true), "-a-b") == Words{"-a", "-b"});
  CHECK(words(split(dash, "MergedWithNext", true), "a-b-") == Words{"a-", "b-"});
}

TEST_CASE("Split by an expression, and after another split") {
  CHECK(words(split(R"({"Regex":" {2,}"})", "Isolated"), "a b  c") == Words{"a b", "  ", "c"});
  std::string gpt2;
  for (const char c : kGpt2Regex) gpt2 += c == '\\' ? "\\\\" : std::string(1, c);
  CHECK(words(split(R"({"Regex":")" + gpt2 + "\"}", "Isolated"), "it's  2 é") ==
        Words{"it", "'s", " ", " 2", " é"});
  CHECK(words(R"({"type":"Sequence","pretokenizers":[)" + kWhitespaceSplit + "," +
                  split(R"({"String":"b"})", "MergedWithPrevious") + "]}",
              "abc b cb") == Words{"ab", "c", "b", "cb"});
}

TEST_CASE("refused pre-tokenizers") {
  const auto error_of = [](const std::string& json) {
    return error_class_of([&] { read_pre_tokenizer(json); });
  };
  CHECK(error_of(R"({"type":"Nonsense"})") == "unsupported");
  CHECK(error_of(R"({"type":"Sequence","normalizers":[]})") == "schema");
  CHECK(error_of(R"({"type":"Metaspace"})") == "schema");
  CHECK(error_of(R"({"type":"Metaspace","replacement":""})") == "schema");
  CHECK(error_of(R"({"type":"Metaspace","replacement":"▁▁"})") == "schema");
  CHECK(error_of(metaspace(R"(,"prepend_scheme":"sometimes")")) == "schema");
  CHECK(error_of(metaspace(R"(,"add_prefix_space":false,"prepend_scheme":"first")")) ==
        "tokenizer");
  CHECK(error_of(metaspace(R"(,"add_prefix_space":false,"prepend_scheme":"never")")) == "none");
  CHECK(error_of(split(R"({"String":"-"})", "Sideways")) == "schema");
  CHECK(error_of(R"({"type":"Split","pattern":{"String":"a"}})") == "schema");
  CHECK(error_of(split(R"({"Regex":"\\w+"})", "Isolated")) == "unsupported");
  CHECK(error_of(R"({"type":"ByteLevel","add_prefix_space":1})") == "schema");
}

TEST_CASE("descriptions") {
  CHECK(read_pre_tokenizer(R"({"type":"Sequence","pretokenizers":[)" + kWhitespaceSplit + "," +
                           R"({"type":"Metaspace","replacement":"_","split":false},)" + kByteLevel +
                           "," + split(R"({"String":"-"})", "Removed", true) + "]}")
            .describe() ==
        R"(WhitespaceSplit, Metaspace("_" prepend always no split), ByteLevel(use_regex), )"
        R"(Split("-" Removed inverted))");
}

TEST_CASE("one word of a megabyte, a million spaces, a million marks") {
  const std::size_t size = 1'000'000;
  for (const std::string& json : {kWhitespaceSplit, kBert, kByteLevel, metaspace(""),
                                  split(R"({"String":" "})", "Isolated")}) {
    CAPTURE(json);
    CHECK(words(json, std::string(size, 'a')).size() == 1);
    const std::size_t num_spaces = words(json, std::string(size, ' ')).size();
    CHECK((num_spaces == 0 || num_spaces == 1 || num_spaces == size));
    const std::size_t num_dots = words(json, std::string(size, '.')).size();
    CHECK((num_dots == 1 || num_dots == size));
  }
}
