#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support.h"
#include "terse/tokenizer/decode.h"

using namespace terse;
using terse_test::error_class_of;

namespace {

using Tokens = std::vector<std::string>;

std::string decoded(const std::string& json, Tokens tokens) {
  const JsonDocument document = JsonDocument::parse(json, {}, "test");
  return Decoder::from_json(document.root()).apply(std::move(tokens));
}

}  // namespace

TEST_CASE("no decoder joins with spaces") {
  CHECK(decoded("null", {"a", "b"}) == "a b");
  CHECK(decoded("null", {}) == "");
}

TEST_CASE("Metaspace") {
  const Tokens tokens = {"▁Hey▁", "▁friend", "s"};
  CHECK(decoded(R"({"type":"Metaspace","replacement":"▁"})", tokens) == "Hey friends");
  CHECK(decoded(R"({"type":"Metaspace","replacement":"▁","add_prefix_space":true})", tokens) ==
        "Hey friends");
  CHECK(decoded(R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"never"})", tokens) ==
        " Hey  friends");
  CHECK(error_class_of([] { decoded(R"({"type":"Metaspace","replacement":"ab"})", {}); }) ==
        "schema");
  CHECK(error_class_of([] { decoded(R"({"type":"Metaspace","replacement":""})", {}); }) ==
        "schema");
}

TEST_CASE("WordPiece") {
  const std::string plain = R"({"type":"WordPiece","prefix":"##","cleanup":false})";
  CHECK(decoded(plain, {"##uelo", "Ara", "##új", "##o", "No", "##guera"}) ==
        "##uelo Araújo Noguera");
  const std::string clean = R"({"type":"WordPiece","prefix":"##","cleanup":true})";
  CHECK(decoded(clean, {"it", "'s", "here", "!", "##s"}) == "it's here!s");
  CHECK(decoded(plain, {"it", "'s", "here", "!"}) == "it 's here !");
}

TEST_CASE("ByteFallback spells bytes out or replaces each") {
  const std::string json = R"({"type":"ByteFallback"})";
  CHECK(decoded(json, {"<0xE5>", "<0x8f>", "<0xab>", "a"}) == "叫a");
  CHECK(decoded(json, {"<0xE5>", "<0x8f>", "a", "<0x61>"}) == "\uFFFD\uFFFDaa");
  CHECK(decoded(json, {"<0x+f>", "<0xGG>", "<0x1>"}) == "<0x+f><0xGG><0x1>");
}

TEST_CASE("Fuse, Strip, Replace and Sequence, as Llama's file chains them") {
  const std::string llama =
      R"({"type":"Sequence","decoders":[)"
      R"({"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},)"
      R"({"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]})";
  CHECK(decoded(llama, {"▁", "▁what", "<0x0A>", "▁is"}) == " what\n is");
  CHECK(decoded(llama, {}) == "");
  const std::string strip = R"({"type":"Strip","content":"H","start":1,"stop":2})";
  CHECK(decoded(strip, {"Hey", "HHHxHHH", "H", "HH"}) == "eyHHxH");
}

TEST_CASE("BPEDecoder") {
  CHECK(decoded(R"({"type":"BPEDecoder","suffix":"</w>"})", {"a", "b</w>", "c</w>"}) == "ab c");
  CHECK(error_class_of([] { decoded(R"({"type":"BPEDecoder","suffix":""})", {}); }) == "schema");
}

TEST_CASE("ByteLevel") {
  const std::string json = R"({"type":"ByteLevel"})";
  CHECK(decoded(json, {"Hello", "Ġmy", "Ġfriend"}) == "Hello my friend");
  CHECK(decoded(json, {"å", "ı«"}) == "叫");
  CHECK(decoded(json, {"ı", "a"}) == "\uFFFDa");
  CHECK(decoded(json, {"中"}) == "中");  // stands for no byte
}

TEST_CASE("faulty bytes are replaced one U+FFFD for each maximal start of a sequence") {
  CHECK(decoders::repaired_utf8("a\xe5\x8f"
                                "b\xff\xf0\x90\x80"
                                "c\xed\xa0\x80") == "a\uFFFDb\uFFFD\uFFFDc\uFFFD\uFFFD\uFFFD");
  CHECK(decoders::repaired_utf8("\xf0\x90") == "\uFFFD");
  CHECK(decoders::repaired_utf8("\xc3") == "\uFFFD");
}

TEST_CASE("SentencePiece files") {
  CHECK(Decoder::sentencepiece(true).apply({"▁a", "▁b", "<0xE5>", "<0x8F>", "<0xAB>"}) == "a b叫");
  CHECK(Decoder::sentencepiece(false).apply({"a", "▁b"}) == "a b");
}

TEST_CASE("unknown decoders are refused") {
  CHECK(error_class_of([] { decoded(R"({"type":"CTC"})", {}); }) == "unsupported");
  CHECK(error_class_of([] { decoded(R"({"type":"Strip"})", {}); }) == "schema");
  CHECK(error_class_of([] { decoded("7", {}); }) == "schema");
}
