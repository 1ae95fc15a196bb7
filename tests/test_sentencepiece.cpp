#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support.h"
#include "terse/json.h"
#include "terse/tokenizer/sentencepiece.h"

namespace {

using Ids = std::vector<terse::TokenId>;
using terse::PieceType;

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7f) | 0x80);
  return bytes + static_cast<char>(value);
}
std::string number_field(std::uint32_t number, std::uint64_t value) {
  return varint(std::uint64_t{number} << 3) + varint(value);
}
std::string bytes_field(std::uint32_t number, std::string_view bytes) {
  return varint(std::uint64_t{number} << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}
std::string float_field(std::uint32_t number, float value) {
  std::string bytes = varint(std::uint64_t{number} << 3 | 5);
  const auto bits = std::bit_cast<std::uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift & 0xff);
  return bytes;
}

std::string piece(std::string_view text, float score, PieceType type = PieceType::normal) {
  return bytes_field(1, bytes_field(1, text) + float_field(2, score) +
                            number_field(3, static_cast<std::uint64_t>(type)));
}
const std::string kUnknown = piece("<unk>", 0, PieceType::unknown);
const std::string kBpe = bytes_field(2, number_field(3, 2));
// No dummy prefix, no trimming: the text reaches the model as it is, but for its spaces.
const std::string kPlain = bytes_field(3, number_field(3, 0) + number_field(4, 0));

terse::SentencePiece load(const std::string& file) {
  return terse::SentencePiece::from_bytes(file, "test.model");
}
Ids encode(const terse::SentencePiece& model, std::string_view text) {
  Ids ids;
  model.encode(text, &ids);
  return ids;
}
std::string error_of(const std::string& file) {
  return terse_test::error_class_of([&] { load(file); });
}

std::string byte_pieces(int count) {
  std::string pieces;
  for (int byte = 0; byte < count; ++byte) {
    pieces += piece(terse::byte_piece(static_cast<unsigned char>(byte)), 0, PieceType::byte);
  }
  return pieces;
}

}  // namespace

TEST_CASE("SentencePiece trims, collapses and marks spaces") {
  const std::string pieces = kUnknown + piece("\u2581", -1) + piece("a", -1);
  const auto model = load(pieces);  // all defaults
  CHECK(encode(model, "a") == Ids{1, 2});
  CHECK(encode(model, "  a   a  ") == Ids{1, 2, 1, 2});
  CHECK(encode(model, "   ") == Ids{});
  CHECK(encode(model, "") == Ids{});
  CHECK(model.add_dummy_prefix());

  const auto kept = load(pieces + bytes_field(3, number_field(4, 0)));
  CHECK(encode(kept, " a  a ") == Ids{1, 1, 2, 1, 1, 2, 1});
  const auto suffix = load(pieces + bytes_field(2, number_field(24, 1)));
  CHECK(encode(suffix, " a a ") == Ids{2, 1, 2, 1});
  const auto no_dummy = load(pieces + bytes_field(3, number_field(3, 0)));
  CHECK(encode(no_dummy, " a a ") == Ids{2, 1, 2});
  CHECK_FALSE(no_dummy.add_dummy_prefix());
  const auto unescaped =
      load(kUnknown + piece(" ", -1) + piece("a", -1) + bytes_field(3, number_field(5, 0)));
  CHECK(encode(unescaped, "a a") == Ids{1, 2, 1, 2});
}

TEST_CASE("SentencePiece replaces malformed UTF-8 byte by byte") {
  const auto model = load(kUnknown + piece("\uFFFD", -1) + piece("a", -1) + kPlain);
  CHECK(encode(model,
               "a\xff\xfe"
               "a") == Ids{2, 1, 1, 2});
  CHECK(encode(model, "\xe2\x82") == Ids{1, 1});         // cut off
  CHECK(encode(model, "\xed\xa0\x80") == Ids{1, 1, 1});  // a surrogate
  CHECK(encode(model,
               "\xc0\x80"
               "a") == Ids{1, 1, 2});  // overlong
}

TEST_CASE("SentencePiece unknown characters: one id for a run, or bytes") {
  const auto model = load(kUnknown + piece("a", -1) + kPlain);
  CHECK(encode(model, "xyaz") == Ids{0, 1, 0});
  const auto bytes = load(kUnknown + byte_pieces(256) + piece("a", -1) + kPlain +
                          bytes_field(2, number_field(35, 1)));
  CHECK(encode(bytes,
               "é"
               "a") == Ids{1 + 0xc3, 1 + 0xa9, 257});
  CHECK(encode(bytes, "<unk>") == Ids{1 + '<', 1 + 'u', 1 + 'n', 1 + 'k', 1 + '>'});
}

TEST_CASE("SentencePiece unigram: which pieces can match") {
  const auto model =
      load(kUnknown + piece("<s>", 0, PieceType::control) + piece("a", -1) + piece("b", -2) +
           piece("ab", -1, PieceType::unused) + piece("aab", 0, PieceType::user_defined) + kPlain);
  CHECK(encode(model, "ab") == Ids{2, 3});
  CHECK(encode(model, "aab") == Ids{5});
  CHECK(encode(model, "<s>") == Ids{0});
  CHECK(model.token_to_id("<s>") == 1);
  CHECK(model.token_to_id("ab") == 4);
  CHECK_FALSE(model.token_to_id("x").has_value());
  CHECK(model.piece_type(1) == PieceType::control);
  CHECK(model.id_to_token(5) == "aab");
  CHECK(model.vocab_size() == 6);
}

TEST_CASE("SentencePiece BPE merges the best scored pair first, leftmost among equals") {
  const std::string letters = kUnknown + piece("a", -9) + piece("b", -9) + piece("c", -9);
  const auto model = load(letters + piece("ab", -2) + piece("bc", -1) + kBpe + kPlain);
  CHECK(encode(model, "abc") == Ids{1, 5});
  CHECK(encode(model, "abab") == Ids{4, 4});
  const auto equal = load(letters + piece("ab", -1) + piece("bc", -1) + kBpe + kPlain);
  CHECK(encode(equal, "abc") == Ids{4, 3});
  const auto positive = load(letters + piece("ab", 0.5F) + piece("bc", 2.5F) + kBpe + kPlain);
  CHECK(encode(positive, "abc") == Ids{1, 5});
  const auto zero = load(letters + piece("ab", -0.0F) + piece("bc", 0.0F) + kBpe + kPlain);
  CHECK(encode(zero, "abc") == Ids{4, 3});
  // Neither letter is a piece, but together they are.
  const auto only_pair = load(kUnknown + piece("xy", -1) + kBpe + kPlain);
  CHECK(encode(only_pair, "xyx") == Ids{1, 0});
}

TEST_CASE("SentencePiece BPE keeps user-defined pieces and takes unused ones apart") {
  const std::string pieces = kUnknown + piece("a", -9) + piece("b", -9) + piece("c", -9);
  const auto frozen =
      load(pieces + piece("ab", -5, PieceType::user_defined) + piece("abc", -1) + kBpe + kPlain);
  CHECK(encode(frozen, "abc") == Ids{4, 3});
  const auto unused = load(pieces + piece("ab", -1, PieceType::unused) + piece("abc", -2) +
                           piece("abcab", -3, PieceType::unused) + kBpe + kPlain);
  CHECK(encode(unused, "ab") == Ids{1, 2});
  CHECK(encode(unused, "abc") == Ids{5});
  CHECK(encode(unused, "abcab") == Ids{5, 1, 2});
}

TEST_CASE("SentencePiece refuses pieces that contradict themselves") {
  CHECK(error_of("") == "tokenizer");
  CHECK(error_of(kPlain) == "tokenizer");
  CHECK(error_of(piece("a", 0)) == "tokenizer");
  CHECK(error_of(kUnknown + piece("?", 0, PieceType::unknown)) == "tokenizer");
  CHECK(error_of(kUnknown + piece("", 0)) == "tokenizer");
  CHECK(error_of(kUnknown + bytes_field(1, float_field(2, 0))) == "tokenizer");
  CHECK(error_of(kUnknown + piece("a", 0) + piece("a", 1)) == "tokenizer");
  CHECK(error_of(kUnknown + piece("a", 0, PieceType::control) + piece("a", 1)) == "tokenizer");
  CHECK(error_of(kUnknown + piece("\xff", 0)) == "utf8");
  CHECK(error_of(kUnknown + piece(std::string(65536, 'x'), 0)) == "limit");
  CHECK(error_of(kUnknown + piece(std::string(6000, 'x'), 0)) == "none");
  CHECK(error_of(kUnknown + piece(std::string(1, '\0'), 0)) == "none");
  CHECK(error_of(kUnknown + piece("a", std::numeric_limits<float>::infinity())) == "range");
  CHECK(error_of(kUnknown + piece("a", std::numeric_limits<float>::quiet_NaN())) == "range");
  CHECK(error_of(kUnknown + bytes_field(2, number_field(3, 3))) == "unsupported");

  const std::string fallback = bytes_field(2, number_field(35, 1));
  CHECK(error_of(kUnknown + fallback) == "tokenizer");
  CHECK(error_of(kUnknown + byte_pieces(255) + fallback) == "tokenizer");
  CHECK(error_of(kUnknown + byte_pieces(256) + fallback) == "none");
  CHECK(error_of(kUnknown + byte_pieces(256)) == "tokenizer");
  for (const char* bad : {"<0x-1>", "<0xGG>", "<0x100>", "<0x>", "<0x0a>"}) {
    CHECK(error_of(kUnknown + byte_pieces(256) + piece(bad, 0, PieceType::byte) + fallback) ==
          "tokenizer");
  }
  CHECK(error_of(kUnknown + bytes_field(3, bytes_field(2, "xy"))) == "tokenizer");
}

TEST_CASE("SentencePiece reads any well-formed protobuf") {
  const std::string base = kUnknown + piece("a", -1);
  CHECK(error_of(base + number_field(900, 1) + bytes_field(901, "x") + float_field(902, 1)) ==
        "none");
  CHECK(error_of(base + varint(903 << 3 | 1) + std::string(8, 'x')) == "none");
  // A group with a nested one and a field inside.
  const std::string group = varint(904 << 3 | 3) + varint(905 << 3 | 3) + number_field(1, 2) +
                            varint(905 << 3 | 4) + varint(904 << 3 | 4);
  CHECK(error_of(base + group) == "none");
  // A length padded to three bytes, minus one in ten bytes, a score given twice, specs first and
  // in parts, an unknown enum value.
  CHECK(error_of(base + "\x0a\x83\x80" + std::string(1, '\0') + bytes_field(1, "b")) == "none");
  CHECK(error_of(base + bytes_field(2, number_field(43, ~std::uint64_t{0}))) == "none");
  const auto twice = load(kPlain + kBpe + kUnknown + piece("a", -1) + piece("b", -1) +
                          piece("ab", -1) + piece("c", -1) +
                          bytes_field(1, bytes_field(1, "bc") + float_field(2, -9) +
                                             float_field(2, 1) + number_field(3, 99)) +
                          bytes_field(2, number_field(24, 0)));
  CHECK(encode(twice, "abc") == Ids{1, 5});
}

TEST_CASE("SentencePiece refuses malformed protobuf") {
  const std::string base = kUnknown + piece("a", -1);
  CHECK(error_of(std::string(512, '\0')) == "protobuf");
  CHECK(error_of("{\"version\": \"1.0\"}") == "protobuf");
  CHECK(error_of("<!DOCTYPE html>") == "protobuf");
  CHECK(error_of("version https://git-lfs.github.com/spec/v1\n") == "protobuf");
  CHECK(error_of(base + "\x0e") == "protobuf");                            // wire type 6
  CHECK(error_of(base + "\x0f") == "protobuf");                            // wire type 7
  CHECK(error_of(base + "\x0c") == "protobuf");                            // group end
  CHECK(error_of(base + "\x0b") == "protobuf");                            // group start
  CHECK(error_of(base + "\x0b\x14") == "protobuf");                        // another's end
  CHECK(error_of(base + "\x08" + std::string(11, '\xff')) == "protobuf");  // long varint
  CHECK(error_of(base + "\x08" + std::string(9, '\xff') + "\x02") == "protobuf");
  CHECK(error_of(base + "\x08\x80") == "protobuf");  // open varint
  CHECK(error_of(base + "\x0a" + varint(std::uint64_t{1} << 31)) == "protobuf");
  CHECK(error_of(base + "\x0a" + varint(std::uint64_t{1} << 63)) == "protobuf");
  CHECK(error_of(base + "\x0a" + varint(~std::uint64_t{0})) == "protobuf");
  CHECK(error_of(base + bytes_field(1,
                                    "\x0a\x05"
                                    "ab")) == "protobuf");  // too long inside
  CHECK(error_of(base + "\x0a\x05"
                        "ab") == "truncated");
  CHECK(error_of(base + "\x09"
                        "abc") == "truncated");
  CHECK(error_of(base + "\x0a") == "truncated");
  std::string nested;
  for (int depth = 0; depth < 10000; ++depth) nested += '\x0b';
  CHECK(error_of(base + nested) == "limit");
  const std::string whole = base + kPlain;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string error = error_of(whole.substr(0, size));
    const bool at_seam = size == base.size();
    CHECK((at_seam ? error == "none" : error != "none" || size == kUnknown.size()));
  }
}

TEST_CASE("SentencePiece takes a megabyte in one word") {
  const std::string pieces = kUnknown + piece("a", -9) + piece("aa", -1) + piece("aaaa", -2);
  CHECK(encode(load(pieces + kBpe + kPlain), std::string(1 << 20, 'a')).size() == 1 << 18);
  CHECK(encode(load(pieces + kPlain), std::string(1 << 20, 'a')).size() > 0);
  CHECK(encode(load(pieces + kPlain), std::string(1 << 20, '\xff')) == Ids{0});
  CHECK(encode(load(pieces), std::string(1 << 20, ' ')) == Ids{});
}

// --- the shared reference data ---

namespace {

std::string from_hex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string bytes;
  for (std::size_t k = 0; k + 1 < hex.size(); k += 2) {
    bytes += static_cast<char>(digit(hex[k]) * 16 + digit(hex[k + 1]));
  }
  return bytes;
}

// Calls on_line(object) for every line of a JSON lines file.
template <class OnLine>
void for_each_line(const std::filesystem::path& path, OnLine&& on_line) {
  const std::string text = terse_test::read_file(path);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const auto document =
        terse::JsonDocument::parse(text.substr(begin, end - begin), {}, path.string());
    on_line(document.root());
    begin = end + 1;
  }
}

std::size_t count_matches(const terse::SentencePiece& model, const std::filesystem::path& goldens) {
  std::size_t num_lines = 0;
  for_each_line(goldens, [&](terse::JsonValue line) {
    const auto text = line.find("text");
    const std::string input = text ? std::string(text->as_string("text"))
                                   : from_hex((*line.find("bytes_hex")).as_string("bytes_hex"));
    Ids expected;
    const terse::JsonValue ids = *line.find("ids");
    for (const auto id : ids) {
      expected.push_back(terse::read_token_id(id, "id", terse::kMaxVocabulary));
    }
    CHECK_MESSAGE(encode(model, input) == expected, goldens.filename().string(), ": ", input);
    ++num_lines;
  });
  return num_lines;
}

}  // namespace

TEST_CASE("SentencePiece gives the golden ids, malformed UTF-8 included") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const auto tokenizers = *shared / "tokenizers";
  const std::map<std::string, std::string> models = {
      {"llama2", "llama2/tokenizer.model"},
      {"mistral-7b-v0.1", "mistral-7b-v0.1/tokenizer.model"},
      {"uni-nmt-bf", "spm-trained/uni-nmt-bf.model"},
      {"bpe-nmt-bf", "spm-trained/bpe-nmt-bf.model"},
      {"uni-nmt-nobf", "spm-trained/uni-nmt-nobf.model"},
      {"bpe-ident-bf", "spm-trained/bpe-ident-bf.model"},
      {"uni-cf-nodummy", "spm-trained/uni-cf-nodummy.model"},
      {"bpe-nfkc-suffix", "spm-trained/bpe-nfkc-suffix.model"}};
  for (const auto& [name, file] : models) {
    const auto model =
        terse::SentencePiece::from_bytes(terse_test::read_file(tokenizers / file), file);
    const auto goldens = tokenizers / "goldens";
    CHECK(count_matches(model, goldens / ("spm-" + name + ".jsonl")) > 500);
    const auto invalid = goldens / ("spm-" + name + ".invalid-utf8.jsonl");
    if (std::filesystem::exists(invalid)) CHECK(count_matches(model, invalid) > 30);
  }
}

TEST_CASE("SentencePiece judges the hostile files as expected") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  std::size_t num_files = 0;
  for_each_line(*shared / "hostile/manifest.jsonl", [&](terse::JsonValue line) {
    if ((*line.find("kind")).as_string("kind") != "spm") return;
    const std::string file((*line.find("file")).as_string("file"));
    const auto error_class = line.find("class");
    const std::string expected =
        error_class ? std::string(error_class->as_string("class")) : "none";
    CHECK_MESSAGE(error_of(terse_test::read_file(*shared / "hostile" / file)) == expected, file);
    ++num_files;
  });
  CHECK(num_files > 50);
}
