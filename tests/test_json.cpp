#include <doctest/doctest.h>

#include <clocale>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "support.h"
#include "terse/json.h"

using terse::JsonDocument;
using terse::JsonLimits;
using terse::JsonType;
using terse::JsonValue;
using terse_test::error_class_of;

namespace {

JsonDocument parse(std::string_view text, const JsonLimits& limits = {}) {
  return JsonDocument::parse(text, limits, "test.json");
}
std::string class_of(std::string_view text, const JsonLimits& limits = {}) {
  return error_class_of([&] { parse(text, limits); });
}

}  // namespace

TEST_CASE("values come out as they are written") {
  const JsonDocument document =
      parse(R"({"text":"a\u00e9\n","list":[1,-2,3.5,true,false,null],"map":{"x":{}},"big":1e3})");
  const JsonValue root = document.root();
  CHECK(root.is_object());
  CHECK(root.size() == 4);
  CHECK(root.find("text")->as_string("text") == "a\u00e9\n");
  const JsonValue list = *root.find("list");
  CHECK(list.size() == 6);
  std::vector<JsonType> types;
  for (const JsonValue item : list) types.push_back(item.type());
  CHECK(types == std::vector<JsonType>{JsonType::integer, JsonType::integer, JsonType::floating,
                                       JsonType::boolean, JsonType::boolean, JsonType::null});
  auto item = list.begin();
  CHECK((*item).as_integer("first", 0, 10) == 1);
  ++item;
  CHECK((*item).as_integer("second", -2, 10) == -2);
  CHECK((*item).as_number("second") == -2.0);
  ++item;
  CHECK((*item).as_number("third") == 3.5);
  ++item;
  CHECK((*item).as_boolean("fourth"));
  CHECK(root.find("big")->as_number("big") == 1000.0);
  CHECK(root.find("map")->find("x").found);
  CHECK(!root.find("absent"));
  std::vector<std::string_view> keys;
  for (const JsonValue member : root) keys.push_back(member.key());
  CHECK(keys == std::vector<std::string_view>{"text", "list", "map", "big"});
}

TEST_CASE("an object with many members and a document that was moved stay readable") {
  std::string text = "{";
  for (int i = 0; i < 5000; ++i) {
    text += "\"k" + std::to_string(i) + "\":[" + std::to_string(i) + "],";
  }
  text.back() = '}';
  JsonDocument first = parse(text);
  const JsonDocument document = std::move(first);
  const JsonValue found = *document.root().find("k4999");
  CHECK((*found.begin()).as_integer("k4999", 0, 5000) == 4999);
}

TEST_CASE("integers keep their value to the ends of 64 bits, and say when they do not fit") {
  const JsonDocument document = parse(
      "[9223372036854775807,-9223372036854775808,18446744073709551615,18446744073709551616,"
      "-9223372036854775809,0,-0]");
  std::vector<JsonValue> values;
  for (const JsonValue value : document.root()) values.push_back(value);
  REQUIRE(values.size() == 7);
  std::uint64_t unsigned_value = 0;
  CHECK(values[0].get_unsigned(&unsigned_value));
  CHECK(unsigned_value == INT64_MAX);
  CHECK(!values[1].get_unsigned(&unsigned_value));
  CHECK(values[1].as_integer("min", INT64_MIN, 0) == INT64_MIN);
  CHECK(values[1].as_number("min") == -0x1p63);
  CHECK(values[2].get_unsigned(&unsigned_value));
  CHECK(unsigned_value == UINT64_MAX);
  CHECK(values[3].type() == JsonType::big);
  CHECK(values[3].is_integer());
  CHECK(!values[3].get_unsigned(&unsigned_value));
  CHECK(values[3].as_number("big") == 0x1p64);
  CHECK(values[4].type() == JsonType::big);
  for (const std::size_t i : {2UL, 3UL, 4UL}) {
    CHECK(error_class_of([&] { values[i].as_integer("x", -10, 10); }) == "range");
  }
  CHECK(values[5].as_integer("zero", 0, 0) == 0);
  CHECK(values[6].as_number("zero") == 0.0);
}

TEST_CASE("accessors refuse other kinds, and say what was found and expected") {
  const JsonDocument document = parse(R"({"a":"8","b":8.5,"c":true,"d":null,"e":[8],"f":8})");
  const JsonValue root = document.root();
  for (const char* name : {"a", "b", "c", "d", "e"}) {
    CHECK(error_class_of([&] { root.find(name)->as_integer(name, 0, 9); }) == "schema");
  }
  CHECK(root.find("f")->as_integer("f", 8, 8) == 8);
  CHECK(error_class_of([&] { root.find("f")->as_integer("f", 9, 10); }) == "range");
  CHECK(error_class_of([&] { root.find("f")->as_string("f"); }) == "schema");
  CHECK(error_class_of([&] { root.find("f")->as_boolean("f"); }) == "schema");
  CHECK(error_class_of([&] { root.find("f")->as_array("f"); }) == "schema");
  CHECK(error_class_of([&] { root.find("f")->as_object("f"); }) == "schema");
  CHECK(error_class_of([&] { root.find("a")->as_number("a"); }) == "schema");
  try {
    root.find("a")->as_integer("hidden_size", 1, 9);
  } catch (const terse::Error& error) {
    CHECK(error.message() == R"(test.json: hidden_size is "8", expected an integer)");
  }
}

TEST_CASE("texts that are not JSON are refused with their class") {
  const std::map<std::string, std::vector<std::string>> texts = {
      {"none", {"0", "\"x\"", " [] ", "\t\r\n{}\n", "-0.0e-0", R"("\ud83d\ude00")", "[[],{}]"}},
      {"json",
       {"",
        " ",
        "{",
        "[",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\"}",
        "{1:2}",
        "{'a':1}",
        "[1 2]",
        "1 2",
        "{}{}",
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "-",
        "0x10",
        "NaN",
        "Infinity",
        "-Infinity",
        "nul",
        "True",
        "// x\n1",
        "/**/1",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\n\"",
        "\"\t\"",
        R"("\ud800")",
        R"("\udc00\ud800")",
        R"("\ud800x")",
        "\xEF\xBB\xBF{}",
        "]",
        "a",
        "[1]x",
        "---\na: 1"}},
      {"utf8",
       {"\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", std::string("\xff\xfe{\0}\0", 6),
        "\"\xf4\x90\x80\x80\""}},
      {"range", {"1e999", "-1e999", "[1e400]"}},
      {"duplicate", {R"({"a":1,"a":1})", R"({"a":1,"\u0061":2})", R"([{"x":{"":0,"":0}}])"}},
  };
  for (const auto& [expected, list] : texts) {
    for (const std::string& text : list) CHECK_MESSAGE(class_of(text) == expected, text);
  }
  using std::string_view_literals::operator""sv;
  CHECK(class_of("{}\0"sv) == "json");
  CHECK(class_of("{\"a\":1}\0{}"sv) == "json");
  CHECK(class_of("{\0}"sv) == "json");
  CHECK(class_of("\"\0\""sv) == "json");
  CHECK(class_of("[1e-999]") == "none");
  CHECK(class_of(R"(["\u0000"])") == "none");
}

TEST_CASE("depth and size are bounded, without recursion") {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  CHECK(class_of(nested(64)) == "none");
  CHECK(class_of(nested(65)) == "limit");
  CHECK(class_of(nested(16), {.max_depth = 16}) == "none");
  CHECK(class_of(nested(17), {.max_depth = 16}) == "limit");
  CHECK(class_of(std::string(1000000, '[')) == "limit");
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  CHECK(class_of(objects) == "limit");
  CHECK(class_of("[1,2]", {.max_bytes = 5}) == "none");
  CHECK(class_of("[1,2]", {.max_bytes = 4}) == "limit");
}

TEST_CASE("messages name the file, and what it probably is") {
  const auto message_of = [](std::string_view text) -> std::string {
    try {
      parse(text);
    } catch (const terse::Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message_of("{").starts_with("json: test.json: "));
  CHECK(message_of("version https://git-lfs.github.com/spec/v1").find("Git LFS") !=
        std::string::npos);
  CHECK(message_of("<!DOCTYPE html>").find("HTML") != std::string::npos);
}

TEST_CASE("every prefix and every changed byte of a document is read or refused") {
  const std::string text =
      R"({"a":[1,-2.5e3,"x\u00e9\\\"",true,null,{"b":{}}],"c":"é中","d":18446744073709551616})";
  for (std::size_t size = 0; size < text.size(); ++size) {
    CHECK(class_of(std::string_view(text).substr(0, size)) != "none");
  }
  std::map<std::string, int> classes;
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (int value = 0; value < 256; ++value) {
      std::string mutant = text;
      mutant[i] = static_cast<char>(value);
      ++classes[class_of(mutant)];
    }
  }
  for (const char* reached : {"none", "json", "utf8"}) CHECK(classes[reached] > 0);
}

TEST_CASE("the locale does not matter to numbers") {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  for (const char* locale : {"de_DE.UTF-8", "tr_TR.UTF-8", "C"}) {
    if (std::setlocale(LC_ALL, locale) == nullptr) continue;
    CHECK(parse("1.5").root().as_number("x") == 1.5);
  }
  CHECK(std::setlocale(LC_ALL, before.c_str()) != nullptr);
}
