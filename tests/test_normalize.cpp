// Normalizers, each by what the reference library does, and charsmaps: the two ways to look things
// up, and every way in which one can be broken.
#include <doctest/doctest.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "support.h"
#include "terse/json.h"
#include "terse/tokenizer/charsmap.h"
#include "terse/tokenizer/normalize.h"

using namespace std::string_literals;
using namespace terse;
using terse_test::error_class_of;

namespace {

Normalizer read_normalizer(const std::string& json) {
  return Normalizer::from_json(JsonDocument::parse(json, {}, "test").root());
}

std::string normalized(const std::string& json, std::string text) {
  read_normalizer(json).apply(text);
  return text;
}

std::string repeated(std::string_view text, std::size_t count) {
  std::string result;
  for (std::size_t k = 0; k < count; ++k) result += text;
  return result;
}

// The binary form of a charsmap, built the simplest way: every trie node owns a block of 256 units.
class CharsmapBuilder {
 public:
  explicit CharsmapBuilder(const std::map<std::string, std::string>& replacements) {
    add_node();
    units[0] = 256U << 10;  // the root's children
    for (const auto& [key, replacement] : replacements) {
      std::uint32_t node = 256;
      std::uint32_t place = 0;
      for (const char c : key) {
        const std::uint32_t byte = static_cast<unsigned char>(c);
        place = node ^ byte;
        if (units[place] == 0) units[place] = (place ^ add_node()) << 10 | byte;
        node = place ^ units[place] >> 10;
      }
      units[place] |= 1U << 8;
      units[node] = 1U << 31 | static_cast<std::uint32_t>(strings.size());
      strings += replacement + '\0';
    }
  }

  std::string bytes() const {
    std::string result = word(static_cast<std::uint32_t>(4 * units.size()));
    for (const std::uint32_t unit : units) result += word(unit);
    return result + strings;
  }

  static std::string word(std::uint32_t value) {
    std::string result;
    for (int k = 0; k < 4; ++k) result += static_cast<char>(value >> 8 * k & 0xFF);
    return result;
  }

  std::vector<std::uint32_t> units = std::vector<std::uint32_t>(256);
  std::string strings;

 private:
  std::uint32_t add_node() {
    units.resize(units.size() + 256);
    return static_cast<std::uint32_t>(units.size() - 256);
  }
};

Charsmap charsmap(const std::map<std::string, std::string>& replacements) {
  return Charsmap::from_bytes(CharsmapBuilder(replacements).bytes(), "test");
}

std::string by_grapheme(const Charsmap& map, std::string text) {
  map.normalize_graphemes(text);
  return text;
}

}  // namespace

TEST_CASE("no normalizer, and a sequence in a sequence") {
  CHECK(normalized("null", " A\t") == " A\t");
  CHECK(read_normalizer("null").describe() == "none");
  const std::string json =
      R"({"type":"Sequence","normalizers":[{"type":"Lowercase"},{"type":"Sequence","normalizers":[)"
      R"({"type":"Replace","pattern":{"String":"a"},"content":"B"},{"type":"NFD"}]},)"
      R"({"type":"Prepend","prepend":"_"}]})";
  CHECK(normalized(json, "Aé") == "_Be\u0301");
  CHECK(read_normalizer(json).describe() == R"(Lowercase, Replace("a" by "B"), NFD, Prepend("_"))");
}

TEST_CASE("Prepend, Strip") {
  CHECK(normalized(R"({"type":"Prepend","prepend":"▁"})", "x") == "▁x");
  CHECK(normalized(R"({"type":"Prepend","prepend":"▁"})", "") == "");
  const auto strip = [](const char* left, const char* right, const char* text) {
    return normalized(
        std::string(R"({"type":"Strip","strip_left":)") + left + R"(,"strip_right":)" + right + "}",
        text);
  };
  CHECK(strip("true", "true", " \t\u3000a b\u00A0\n") == "a b");
  CHECK(strip("false", "true", " a\u0085\u2003") == " a");
  CHECK(strip("true", "false", "\u2028 a ") == "a ");
  CHECK(strip("true", "true", " \u200B ") == "\u200B");  // not White_Space
  CHECK(strip("true", "true", " \u3000 ") == "");
  CHECK(strip("true", "true", "") == "");
}

TEST_CASE("Replace: literal text and the expressions that have a scanner") {
  const auto replace = [](const std::string& pattern, const char* content, const char* text) {
    return normalized(
        R"({"type":"Replace","pattern":)" + pattern + R"(,"content":")" + content + "\"}", text);
  };
  CHECK(replace(R"({"String":" "})", "▁", " a  b") == "▁a▁▁b");
  CHECK(replace(R"({"String":"aa"})", "b", "aaaaa") == "bba");
  CHECK(replace(R"({"String":"("})", "", "(a)(") == "a)");
  CHECK(replace(R"({"Regex":" {2,}"})", "▁", "a  b c    d ") == "a▁b c▁d ");
  CHECK(replace(R"({"Regex":" {2,}"})", " ", "   ") == " ");
  CHECK(replace(R"({"Regex":" +"})", "_", "a   b c") == "a_b_c");
  CHECK(replace(R"({"Regex":"。{2}"})", ".", "。。。。。") == "..。");
  CHECK(replace(R"({"Regex":"x{2,3}"})", "y", "x xx xxx xxxx xxxxx") == "x y y yx yy");
  CHECK(replace(R"({"Regex":"\\.\\."})", "…", "a.. .") == "a… .");
  CHECK(replace(R"({"Regex":"``"})", "\\\"", "``a``") == "\"a\"");
}

TEST_CASE("Replace: refused patterns") {
  const auto error_of = [](const std::string& pattern) {
    return error_class_of([&] {
      read_normalizer(R"({"type":"Replace","pattern":)" + pattern + R"(,"content":""})");
    });
  };
  for (const std::string regex : {"a|b",      "(a)",
                                  "[ab]",     "a*",
                                  "a?",       ".",
                                  "^a",       "a$",
                                  "ab+",      "a++",
                                  "a{0,}",    "a{,2}",
                                  "a{3,2}",   "a{",
                                  "a{2",      "a{}",
                                  "a{x}",     "a{99999}",
                                  "{2}",      "+",
                                  "\\\\s+",   "\\\\",
                                  "(?<=a*)b", "(",
                                  "*a",       "(?:(?:a{1,1000}){1,1000}){1,1000}",
                                  "(a)\\\\1"}) {
    CAPTURE(regex);
    CHECK(error_of(std::string(R"({"Regex":")") + regex + "\"}") == "unsupported");
  }
  for (const char* pattern : {"null", "\" \"", "{}", R"({"String":""})", R"({"Regex":""})",
                              R"({"String":1})", R"({"String":"a","Regex":"a"})"}) {
    CAPTURE(pattern);
    CHECK(error_of(pattern) == "schema");
  }
  CHECK(error_of(R"({"String":")" + std::string(257, 'a') + "\"}") == "limit");
  CHECK(error_of(R"({"String":")" + std::string(256, 'a') + "\"}") == "none");
}

TEST_CASE("Lowercase, StripAccents, Nmt, normal forms") {
  CHECK(normalized(R"({"type":"Lowercase"})", "ABCXYZ[@`{ ΑΣ İ ẞ Ⓐ") ==
        "abcxyz[@`{ ασ i\u0307 ß ⓐ");
  CHECK(normalized(R"({"type":"StripAccents"})", "e\u0301 é \u0915\u093F \u2460\u20DD \u200D") ==
        "e é \u0915 \u2460 \u200D");
  CHECK(normalized(R"({"type":"Nmt"})", "a\u0001\t\u2581\uFFFD\u007F\u0085b") == "a   \u0085b");
  CHECK(normalized(R"({"type":"NFC"})", "e\u0301ﬁ") == "éﬁ");
  CHECK(normalized(R"({"type":"NFD"})", "éﬁ") == "e\u0301ﬁ");
  CHECK(normalized(R"({"type":"NFKC"})", "e\u0301ﬁ") == "éfi");
  CHECK(normalized(R"({"type":"NFKD"})", "éﬁ") == "e\u0301fi");
}

TEST_CASE("BertNormalizer") {
  const auto bert = [](const char* strip_accents, const char* lowercase, std::string text) {
    return normalized(
        std::string(R"({"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,)") +
            R"("strip_accents":)" + strip_accents + R"(,"lowercase":)" + lowercase + "}",
        std::move(text));
  };
  CHECK(bert("null", "true", "Héllo, WORLD") == "hello, world");
  CHECK(bert("null", "false", "Héllo") == "Héllo");
  CHECK(bert("true", "false", "Héllo") == "Hello");
  CHECK(bert("false", "true", "HÉLLO") == "héllo");
  CHECK(bert("null", "true", "a\0b\u200Bc\uFFFD\td\r\n\u00A0e"s) == "abc d   e");
  CHECK(bert("null", "true", "\u0378") == "\u0378");  // unassigned
  CHECK(bert("null", "true", "a中文b") == "a 中  文 b");
  CHECK(bert("null", "true", "\U0002B820\U0002B920") == "\U0002B820 \U0002B920 ");
  CHECK(bert("null", "true", "한") == "\u1112\u1161\u11AB");
  CHECK(bert("null", "true", "\u0130\u03A3\u1E9E") == "iσß");
  CHECK(bert("null", "true", "कि") == "कि");  // spacing marks stay
  CHECK(read_normalizer(R"({"type":"BertNormalizer"})").describe() ==
        "BertNormalizer(clean_text handle_chinese_chars strip_accents lowercase)");
}

TEST_CASE("refused normalizers") {
  const auto error_of = [](const std::string& json) {
    return error_class_of([&] { read_normalizer(json); });
  };
  CHECK(error_of(R"({"type":"Nonsense"})") == "unsupported");
  CHECK(error_of("[]") == "schema");
  CHECK(error_of("{}") == "schema");
  CHECK(error_of(R"({"type":1})") == "schema");
  CHECK(error_of(R"({"type":"Sequence"})") == "schema");
  CHECK(error_of(R"({"type":"Sequence","normalizers":[null]})") == "schema");
  CHECK(error_of(R"({"type":"Strip","strip_left":true})") == "schema");
  CHECK(error_of(R"({"type":"Prepend","prepend":1})") == "schema");
  CHECK(error_of(R"({"type":"BertNormalizer","lowercase":"yes"})") == "schema");
  CHECK(error_of(R"({"type":"Precompiled","precompiled_charsmap":1})") == "schema");
  CHECK(error_of(R"({"type":"Precompiled","precompiled_charsmap":"AAA"})") == "tokenizer");
  CHECK(error_of(repeated(R"({"type":"Sequence","normalizers":[)", 1200) + repeated("]}", 1200)) ==
        "limit");
}

TEST_CASE("base64") {
  CHECK(decode_base64("", "test") == "");
  CHECK(decode_base64("Zg==", "test") == "f");
  CHECK(decode_base64("Zm8=", "test") == "fo");
  CHECK(decode_base64("Zm9v", "test") == "foo");
  CHECK(decode_base64("AP/+/w==", "test") == "\0\xFF\xFE\xFF"s);
  for (const char* text :
       {"Zg=", "Zg", "Z", "Z===", "====", "Zg==Zg==", "Zm9v\n", "Zm 9v===", "Zm9-"}) {
    CAPTURE(text);
    CHECK(error_class_of([&] { decode_base64(text, "test"); }) == "tokenizer");
  }
}

TEST_CASE("charsmap: longest match") {
  const Charsmap map = charsmap({{"a", "1"}, {"abc", "3"}, {"é", ""}});
  const auto match = [&](std::string_view text) {
    std::string_view replacement = "none";
    const std::size_t length = map.longest_match(text, &replacement);
    return std::to_string(length) + " " + std::string(replacement);
  };
  CHECK(match("ab") == "1 1");
  CHECK(match("abcd") == "3 3");
  CHECK(match("éx") == "2 ");
  CHECK(match("b") == "0 none");
  CHECK(match("") == "0 none");
  CHECK(match(std::string_view("\0a", 2)) == "0 none");
}

TEST_CASE("charsmap: by grapheme cluster") {
  const Charsmap map = charsmap({{"ﬁ", "fi"},
                                 {"à", "A"},
                                 {"a\u0300\u0316", "never"},
                                 {"a\u0300", "X"},
                                 {"a\u0323", "ạ"},
                                 {"\r", "R"},
                                 {"\n", ""},
                                 {"\u1100", "G"},
                                 {"\u3000", " "}});
  CHECK(by_grapheme(map, "") == "");
  CHECK(by_grapheme(map, "plain text of more than eight bytes") ==
        "plain text of more than eight bytes");
  CHECK(by_grapheme(map, "a ﬁn\u3000à") == "a fin A");
  // A cluster of 5 bytes: the shortest key wins, the rest is lost.
  CHECK(by_grapheme(map, "ﬁ\u0301n") == "fin");
  CHECK(by_grapheme(map, "a\u0300\u0316") == "X");
  CHECK(by_grapheme(map, "a\u0323\u0301") == "ạ");
  // 6 bytes or more: character by character.
  CHECK(by_grapheme(map, "ﬁ\u0301\u0301") == "fi\u0301\u0301");
  CHECK(by_grapheme(map, "\u1100\u1161\u11A8") == "G\u1161\u11A8");
  // No key is a prefix of the cluster: its characters are looked up alone.
  CHECK(by_grapheme(map, "b\u0300") == "b\u0300");
  CHECK(by_grapheme(map, "x\r\ny\n\r") == "xRyR");
  CHECK(by_grapheme(map, "\0a\0"s) == "\0a\0"s);
  // The character before a mark is part of its cluster, wherever runs of eight bytes end.
  for (std::size_t prefix = 0; prefix < 20; ++prefix) {
    const std::string padding(prefix, 'x');
    CHECK(by_grapheme(map, padding + "a\u0300b" + padding) == padding + "Xb" + padding);
  }
}

TEST_CASE("charsmap: printable ASCII can be mapped too") {
  const Charsmap map = charsmap({{"A", "a"}, {" ", "▁"}});
  CHECK(by_grapheme(map, "BANANA A") == "BaNaNa▁a");
}

TEST_CASE("charsmap: one cluster of two megabytes") {
  const Charsmap map = charsmap({{"a", "1"}, {"\u0301", ""}});
  CHECK(by_grapheme(map, "a" + repeated("\u0301", 1'000'000)) == "1");
}

TEST_CASE("charsmap: what is refused") {
  const CharsmapBuilder good({{"a", "1"}, {"ab", "ü"}});
  const auto error_of = [](const std::string& bytes) {
    return error_class_of([&] { Charsmap::from_bytes(bytes, "test"); });
  };
  const auto error_of_units = [&](auto change) {
    CharsmapBuilder builder = good;
    change(builder);
    return error_of(builder.bytes());
  };
  const std::uint32_t a = 256 ^ 'a';  // the place of "a"
  REQUIRE(error_of(good.bytes()) == "none");

  CHECK(error_of("") == "tokenizer");
  CHECK(error_of("\1\1") == "tokenizer");
  CHECK(error_of(CharsmapBuilder::word(0) + std::string(1, '\0')) == "tokenizer");
  CHECK(error_of(CharsmapBuilder::word(3) + std::string(8, '\0')) == "tokenizer");
  CHECK(error_of(CharsmapBuilder::word(8) + std::string(7, '\0')) == "tokenizer");
  CHECK(error_of(CharsmapBuilder::word(0xFFFFFFFF) + std::string(8, '\0')) == "tokenizer");

  CHECK(error_of_units([](auto& b) { b.units[0] = 1U << 30; }) == "tokenizer");
  CHECK(error_of_units([](auto& b) { b.units[0] = 0xFFFFFE00; }) == "tokenizer");
  CHECK(error_of_units([&](auto& b) { b.units[a] |= 1U << 29; }) == "tokenizer");
  CHECK(error_of_units([](auto& b) { b.strings.pop_back(); }) == "tokenizer");
  CHECK(error_of_units([](auto& b) { b.strings[0] = '\xFF'; }) == "tokenizer");
  // The value of "a" lies with the children of "a", at 512.
  REQUIRE(good.units[512] == (1U << 31 | 0));
  CHECK(error_of_units([](auto& b) { b.units[512] = 1U << 31 | 99; }) == "tokenizer");
  CHECK(error_of_units([](auto& b) { b.units[512] = 1U << 31 | 3; }) == "tokenizer");
  // A node whose child it is itself.
  CHECK(error_of_units([&](auto& b) { b.units[a] = (a ^ 256) << 10 | 'a'; }) == "tokenizer");
  // What no lookup can reach may be anything.
  CHECK(error_of_units([](auto& b) { b.units[1] = 0xFFFFFFFF; }) == "none");
}

TEST_CASE("charsmap: keys have a limit") {
  const auto error_of = [](std::size_t length) {
    return error_class_of([&] { charsmap({{std::string(length, 'k'), "v"}}); });
  };
  CHECK(error_of(1024) == "none");
  CHECK(error_of(1025) == "limit");
}

TEST_CASE("the charsmap of XLM-RoBERTa") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const auto path = *shared / "tokenizers" / "features" / "unigram-bytefallback.json";
  const auto document =
      JsonDocument::parse(terse_test::read_file(path), {std::size_t{1} << 24, 64}, "test");
  const auto normalizers = (*document.root().find("normalizer")).find("normalizers");
  std::string text = "ﬁ\u0301n a\u0323\u0301 ﾊﾞ\tx\u200By\u3000z\u0085 ① ＡＢＣ\u00A0한 가\r\n.";
  Normalizer::from_json(*normalizers->begin()).apply(text);
  CHECK(text == "fin ạ ハ\u3099 x y z\u0085 1 ABC 한 가 .");
}
