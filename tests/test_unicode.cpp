// Code point properties, grapheme clusters and normal forms, against a few cases of Unicode's own
// test files; against all of them where Debian's package unicode-data is installed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iostream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "terse/tokenizer/grapheme.h"
#include "terse/tokenizer/normal_form.h"
#include "terse/tokenizer/unicode.h"

namespace {

using Codes = std::initializer_list<char32_t>;

const std::filesystem::path kDatabase = "/usr/share/unicode";

std::string utf8(const std::u32string& codes) {
  std::string text;
  for (const char32_t code : codes) terse::utf8_append(text, code);
  return text;
}

// "0061 0301" -> U+0061 U+0301
std::u32string code_points(const std::string& hexadecimal) {
  std::istringstream words(hexadecimal);
  std::u32string codes;
  for (std::string word; words >> word;) {
    codes += static_cast<char32_t>(std::stoul(word, nullptr, 16));
  }
  return codes;
}

std::string normal_form(std::string text, terse::NormalForm form) {
  terse::to_normal_form(text, form);
  return text;
}

std::vector<std::size_t> boundaries(const std::string& text) {
  std::vector<std::size_t> found = {0};
  while (found.back() < text.size()) found.push_back(terse::grapheme_end(text, found.back()));
  return found;
}

// A line of GraphemeBreakTest.txt: "÷ 0061 × 0301 ÷".
void check_break_line(const std::string& line) {
  std::istringstream words(line);
  std::string text;
  std::vector<std::size_t> expected;
  for (std::string word; words >> word;) {
    if (word == "÷") {
      expected.push_back(text.size());
    } else if (word != "×") {
      text += utf8(code_points(word));
    }
  }
  CAPTURE(line);
  CHECK(boundaries(text) == expected);
}

// A line of NormalizationTest.txt: source; NFC; NFD; NFKC; NFKD.
void check_normal_form_line(const std::string& line) {
  std::istringstream fields(line);
  std::vector<std::string> column;
  for (std::string field; column.size() < 5 && std::getline(fields, field, ';');) {
    column.push_back(utf8(code_points(field)));
  }
  REQUIRE(column.size() == 5);
  CAPTURE(line);
  for (std::size_t k = 0; k < 5; ++k) {
    const bool compatibility = k >= 3;
    CHECK(normal_form(column[k], terse::NormalForm::nfc) == column[compatibility ? 3 : 1]);
    CHECK(normal_form(column[k], terse::NormalForm::nfd) == column[compatibility ? 4 : 2]);
    CHECK(normal_form(column[k], terse::NormalForm::nfkc) == column[3]);
    CHECK(normal_form(column[k], terse::NormalForm::nfkd) == column[4]);
  }
}

// The code points that Unicode 9.0 did not have yet.
std::set<char32_t> younger_than_9() {
  std::ifstream file(kDatabase / "DerivedAge.txt");
  std::set<char32_t> younger;
  for (std::string line; std::getline(file, line);) {
    unsigned first = 0;
    unsigned last = 0;
    unsigned major = 0;
    if (std::sscanf(line.c_str(), "%x..%x ; %u.", &first, &last, &major) != 3) {
      if (std::sscanf(line.c_str(), "%x ; %u.", &first, &major) != 2) continue;
      last = first;
    }
    for (unsigned code = first; major > 9 && code <= last; ++code) younger.insert(code);
  }
  return younger;
}

}  // namespace

TEST_CASE("properties") {
  using namespace terse;
  for (const char32_t code :
       Codes{0x09, 0x0A, 0x0D, 0x20, 0x85, 0xA0, 0x1680, 0x2009, 0x2028, 0x3000}) {
    CAPTURE(static_cast<unsigned>(code));
    CHECK(is_white_space(code));
  }
  for (const char32_t code : Codes{0x61, 0x1C, 0x200B, 0x2581, 0xFEFF, 0x180E}) {
    CAPTURE(static_cast<unsigned>(code));
    CHECK_FALSE(is_white_space(code));
  }
  CHECK(is_letter(U'é'));
  CHECK(is_letter(0x4E00));
  CHECK_FALSE(is_letter(U'1'));
  CHECK(is_number(0x0967));
  CHECK(is_number(0x2460));
  CHECK_FALSE(is_number(U'a'));
  for (const char32_t code : Codes{0x5F, 0x61, 0x301, 0x967, 0x200D, 0x203F, 0x24B6}) {
    CAPTURE(static_cast<unsigned>(code));
    CHECK(is_word_char(code));
  }
  for (const char32_t code : Codes{0x2D, 0x20, 0x2460, 0x20AC, 0x2581}) {
    CAPTURE(static_cast<unsigned>(code));
    CHECK_FALSE(is_word_char(code));
  }
}

TEST_CASE("properties of the older Unicode versions that the reference library has") {
  using namespace terse;
  CHECK(is_mark(0x093F));             // Mc
  CHECK(is_mark(0x20DD));             // Me
  CHECK_FALSE(is_bert_mark(0x093F));  // Mc
  CHECK(is_bert_mark(0x0301));        // Mn
  CHECK(is_bert_mark(0x1734));        // Mn until Unicode 13
  CHECK_FALSE(is_bert_mark(0x1DF6));  // since Unicode 10
  CHECK(is_bert_punctuation(U'$'));
  CHECK(is_bert_punctuation(U'`'));
  CHECK(is_bert_punctuation(0x3001));
  CHECK(is_bert_punctuation(0x166D));        // Po until Unicode 11
  CHECK_FALSE(is_bert_punctuation(0x20AC));  // a symbol outside ASCII
  CHECK_FALSE(is_bert_punctuation(0x2E52));  // since Unicode 14
  for (const char32_t code :
       Codes{0x00, 0x1F, 0x7F, 0xAD, 0x200B, 0xE000, 0xFEFF, 0xFFFD, 0x10FFFD}) {
    CAPTURE(static_cast<unsigned>(code));
    CHECK(is_bert_control(code));
  }
  for (const char32_t code : Codes{0x09, 0x0A, 0x0D, 0x20, 0x61, 0x0378, 0xFFFF, 0x10FFFF}) {
    CAPTURE(static_cast<unsigned>(code));
    CHECK_FALSE(is_bert_control(code));
  }
}

TEST_CASE("lower case") {
  const auto lowercase = [](char32_t code) {
    std::string out;
    terse::append_lowercase(out, code, utf8({code}));
    return out;
  };
  CHECK(lowercase(U'A') == "a");
  CHECK(lowercase(U'1') == "1");
  CHECK(lowercase(0x03A3) == "σ");
  CHECK(lowercase(0x1E9E) == "ß");
  CHECK(lowercase(0x0130) == "i\u0307");
  CHECK(lowercase(0x10400) == utf8({0x10428}));
  CHECK(lowercase(0x2126) == "ω");
}

TEST_CASE("grapheme clusters: a case for each rule") {
  for (const char* line : {
           "÷ 0061 ÷ 0062 ÷",                                   // GB999
           "÷ 000D × 000A ÷ 000A ÷",                            // GB3
           "÷ 0061 ÷ 000A ÷ 0308 ÷",                            // GB4, GB5
           "÷ 1100 × 1161 × 11A8 ÷ 1100 ÷",                     // GB6 to GB8
           "÷ AC00 × 11A8 × 11A8 ÷ 1161 ÷",                     // GB7, GB8
           "÷ AC01 × 11A8 ÷ 1160 × 11A7 ÷",                     // GB8
           "÷ 0061 × 0308 × 200D ÷ 0062 ÷",                     // GB9
           "÷ 0915 × 093F ÷ 0061 × 0903 ÷",                     // GB9a
           "÷ 0600 × 0061 ÷ 0600 ÷ 000A ÷",                     // GB9b
           "÷ 0915 × 094D × 0937 ÷ 0915 ÷",                     // GB9c
           "÷ 0915 × 093C × 200D × 094D × 0924 ÷",              // GB9c
           "÷ 0915 × 094D × 200C ÷ 0924 ÷",                     // GB9c: stopped by a non-joiner
           "÷ 0061 × 094D ÷ 0924 ÷",                            // GB9c: no consonant before
           "÷ 1F468 × 200D × 1F469 × 200D × 1F467 ÷ 1F467 ÷",   // GB11
           "÷ 1F476 × 1F3FF × 0308 × 200D × 1F476 × 1F3FF ÷",   // GB11
           "÷ 1F468 × 200D × 200D ÷ 1F469 ÷",                   // GB11: one joiner only
           "÷ 0061 × 200D ÷ 1F6D1 ÷",                           // GB11: no pictograph before
           "÷ 1F1E6 × 1F1E7 ÷ 1F1E8 × 1F1E9 ÷ 1F1EA ÷ 0062 ÷",  // GB12
           "÷ 0061 ÷ 1F1E6 × 200D ÷ 1F1E7 × 1F1E8 ÷",           // GB13
       }) {
    check_break_line(line);
  }
}

TEST_CASE("grapheme clusters: all of GraphemeBreakTest.txt") {
  std::ifstream file(kDatabase / "auxiliary" / "GraphemeBreakTest.txt");
  if (!file) {
    std::cerr << "skipped: no GraphemeBreakTest.txt\n";
    return;
  }
  int num_lines = 0;
  for (std::string line; std::getline(file, line);) {
    line.resize(std::min(line.size(), line.find('#')));
    if (line.empty()) continue;
    check_break_line(line);
    ++num_lines;
  }
  CHECK(num_lines > 500);
}

TEST_CASE("normal forms: some lines of NormalizationTest.txt") {
  for (
      const char* line : {
          "1E0A;1E0A;0044 0307;1E0A;0044 0307;",
          "1E0A 0323;1E0C 0307;0044 0323 0307;1E0C 0307;0044 0323 0307;",
          "00A8;00A8;00A8;0020 0308;0020 0308;",
          "0958;0915 093C;0915 093C;0915 093C;0915 093C;",  // excluded
          "0344;0308 0301;0308 0301;0308 0301;0308 0301;",  // non-starter
          "212B;00C5;0041 030A;00C5;0041 030A;",            // singleton
          "FB01;FB01;FB01;0066 0069;0066 0069;",
          "AC01;AC01;1100 1161 11A8;AC01;1100 1161 11A8;",
          "1100 AC00 11A8;1100 AC01;1100 1100 1161 11A8;1100 AC01;1100 1100 1161 11A8;",
          "0061 0315 0300 05AE 0300 0062;00E0 05AE 0300 0315 0062;"
          "0061 05AE 0300 0300 0315 0062;00E0 05AE 0300 0315 0062;0061 05AE 0300 0300 0315 0062;",
          "0B47 0300 0B3E;0B47 0300 0B3E;0B47 0300 0B3E;0B47 0300 0B3E;0B47 0300 0B3E;",  // blocked
          "11099 110BA;1109A;11099 110BA;1109A;11099 110BA;",
          "2F8CE;3B19;3B19;3B19;3B19;",
      }) {
    check_normal_form_line(line);
  }
}

TEST_CASE("normal forms: characters younger than Unicode 9.0 stay") {
  using enum terse::NormalForm;
  CHECK(normal_form("\u32FF", nfkc) == "\u32FF");                             // 12.1: 令和
  CHECK(normal_form("\U00011935\U00011930", nfc) == "\U00011935\U00011930");  // 13.0: a composite
}

TEST_CASE("normal forms: all of NormalizationTest.txt that Unicode 9.0 has") {
  const auto path = kDatabase / "NormalizationTest.txt.bz2";
  if (!std::filesystem::exists(path)) {
    std::cerr << "skipped: no NormalizationTest.txt.bz2\n";
    return;
  }
  const std::string command = "bzcat " + path.string();
  std::FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  const std::set<char32_t> younger = younger_than_9();
  REQUIRE(younger.size() > 1000);
  int num_lines = 0;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) {
    std::string line = buffer;
    line.resize(std::min(line.size(), line.find('#')));
    if (line.empty() || line[0] == '@') continue;
    bool is_young = false;
    for (const char32_t code : code_points(line.substr(0, line.find(';')))) {
      is_young = is_young || younger.contains(code);
    }
    if (is_young) continue;
    check_normal_form_line(line);
    ++num_lines;
  }
  CHECK(pclose(pipe) == 0);
  CHECK(num_lines > 18000);
}

TEST_CASE("normal forms leave their own results alone, whatever surrounds them") {
  using enum terse::NormalForm;
  const std::string text = "Ångström 한국어 ﬁx \u1EA1\u0301 Z\u0323\u0301 plain text, 12345678";
  for (const auto form : {nfc, nfd, nfkc, nfkd}) {
    const std::string once = normal_form(text, form);
    CHECK(normal_form(once, form) == once);
    // The same marks at every distance from the start: no run length is special.
    for (std::size_t prefix = 0; prefix < 20; ++prefix) {
      const std::string padding(prefix, 'x');
      CHECK(normal_form(padding + text, form) == padding + once);
    }
  }
  CHECK(normal_form("", nfkc).empty());
}

TEST_CASE("normal forms: long runs of marks and large expansions") {
  using enum terse::NormalForm;
  // Marks of two classes in alternation: all of the lower class must come first.
  std::string marks = "a";
  std::string sorted = "a";
  constexpr int kNumPairs = 20000;
  for (int k = 0; k < kNumPairs; ++k) marks += "\u0301\u0316";
  for (int k = 0; k < kNumPairs; ++k) sorted += "\u0316";
  for (int k = 0; k < kNumPairs; ++k) sorted += "\u0301";
  CHECK(normal_form(marks, nfd) == sorted);
  sorted.erase(sorted.size() - 2);  // one of the acutes joins the letter
  CHECK(normal_form(marks, nfc) == "á" + sorted.substr(1));

  std::string ligatures;
  for (int k = 0; k < 15000; ++k) ligatures += "\uFDFA";
  const std::string expanded = normal_form(ligatures, nfkc);
  CHECK(expanded.size() == 15000 * normal_form("\uFDFA", nfkc).size());
  CHECK(expanded.starts_with("صلى الله عليه وسلم"));
}

TEST_CASE("grapheme clusters of two megabytes") {
  std::string text = "a";
  for (int k = 0; k < 1'000'000; ++k) text += "\u0301";
  CHECK(terse::grapheme_end(text, 0) == text.size());
  std::string flags;
  for (int k = 0; k < 100'001; ++k) flags += "\U0001F1E6";
  CHECK(boundaries(flags).size() == 50'002);
}
