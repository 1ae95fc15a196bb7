// Post-processors, truncation, and the file's wishes about lengths.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support.h"
#include "terse/tokenizer/length_options.h"
#include "terse/tokenizer/post_process.h"
#include "terse/tokenizer/truncate.h"

using namespace terse;
using terse_test::error_class_of;

namespace {

using Ids = std::vector<TokenId>;

PostProcessor post_processor(const std::string& json) {
  return PostProcessor::from_json(JsonDocument::parse(json, {}, "test").root(), 100);
}

std::string template_json(const std::string& single, const std::string& pair,
                          const std::string& special_tokens) {
  return R"({"type":"TemplateProcessing","single":)" + single + R"(,"pair":)" + pair +
         R"(,"special_tokens":)" + special_tokens + "}";
}

const std::string kA = R"({"Sequence":{"id":"A","type_id":0}})";
const std::string kB = R"({"Sequence":{"id":"B","type_id":1}})";
const std::string kSep = R"({"SpecialToken":{"id":"sep","type_id":3}})";
const std::string kSepIds = R"({"sep":{"id":"sep","ids":[8,9],"tokens":["x","y"]}})";

const TokenSequence kFirst{{10, 11}, {}};
const TokenSequence kSecond{{20, 21, 22}, {}};

}  // namespace

TEST_CASE("without a post-processor the pair follows the text with type 1") {
  for (const char* json :
       {"null", R"({"type":"ByteLevel"})", R"({"type":"Sequence","processors":[]})"}) {
    const PostProcessor processor = post_processor(json);
    CHECK(processor.num_special_tokens(true) == 0);
    const Encoding encoding = processor.apply(kFirst, &kSecond, true);
    CHECK(encoding.ids == Ids{10, 11, 20, 21, 22});
    CHECK(encoding.type_ids == Ids{0, 0, 1, 1, 1});
    CHECK(encoding.special_mask == std::vector<std::uint8_t>(5, 0));
  }
}

TEST_CASE("BertProcessing and RobertaProcessing") {
  const PostProcessor bert =
      post_processor(R"({"type":"BertProcessing","sep":["s",2],"cls":["c",1]})");
  CHECK(bert.num_special_tokens(false) == 2);
  CHECK(bert.num_special_tokens(true) == 3);
  CHECK(bert.apply(kFirst, nullptr, true).ids == Ids{1, 10, 11, 2});
  const Encoding bert_pair = bert.apply(kFirst, &kSecond, true);
  CHECK(bert_pair.ids == Ids{1, 10, 11, 2, 20, 21, 22, 2});
  CHECK(bert_pair.type_ids == Ids{0, 0, 0, 0, 1, 1, 1, 1});
  CHECK(bert_pair.special_mask == std::vector<std::uint8_t>{1, 0, 0, 1, 0, 0, 0, 1});
  CHECK(bert.apply(kFirst, &kSecond, false).type_ids == Ids{0, 0, 1, 1, 1});

  const PostProcessor roberta = post_processor(
      R"({"type":"RobertaProcessing","sep":["s",2],"cls":["c",1],"trim_offsets":true})");
  CHECK(roberta.num_special_tokens(true) == 4);
  const Encoding roberta_pair = roberta.apply(kFirst, &kSecond, true);
  CHECK(roberta_pair.ids == Ids{1, 10, 11, 2, 2, 20, 21, 22, 2});
  CHECK(roberta_pair.type_ids == Ids(9, 0));
  CHECK(roberta.apply(kFirst, &kSecond, false).type_ids == Ids(5, 0));
}

TEST_CASE("templates give order, type ids and special tokens of several ids") {
  const PostProcessor processor = post_processor(
      template_json("[" + kA + "," + kSep + "]", "[" + kB + "," + kSep + "," + kA + "]", kSepIds));
  CHECK(processor.num_special_tokens(false) == 2);
  const Encoding single = processor.apply(kFirst, nullptr, true);
  CHECK(single.ids == Ids{10, 11, 8, 9});
  CHECK(single.type_ids == Ids{0, 0, 3, 3});
  const Encoding pair = processor.apply(kFirst, &kSecond, true);
  CHECK(pair.ids == Ids{20, 21, 22, 8, 9, 10, 11});
  CHECK(pair.type_ids == Ids{1, 1, 1, 3, 3, 0, 0});
  CHECK(processor.apply(kFirst, &kSecond, false).ids == Ids{20, 21, 22, 10, 11});
  CHECK(processor.describe() == "A [8 9] / B [8 9] A");
}

TEST_CASE("matches move with their sequence") {
  const PostProcessor processor =
      post_processor(R"({"type":"BertProcessing","sep":["s",2],"cls":["c",1]})");
  const TokenSequence first{{10, 11}, {{1, 5, 8}}};
  const TokenSequence second{{20, 21, 22}, {{0, 0, 3}}};
  const Encoding encoding = processor.apply(first, &second, true);
  REQUIRE(encoding.matches.size() == 2);
  CHECK(encoding.matches[0].index == 2);
  CHECK(encoding.matches[0].begin == 5);
  CHECK(encoding.matches[0].sequence == 0);
  CHECK(encoding.matches[1].index == 4);
  CHECK(encoding.matches[1].sequence == 1);
}

TEST_CASE("a Sequence may hold one processor that inserts tokens") {
  const std::string bert = R"({"type":"BertProcessing","sep":["s",2],"cls":["c",1]})";
  const std::string nested = R"({"type":"Sequence","processors":[{"type":"ByteLevel"},)"
                             R"({"type":"Sequence","processors":[)" +
                             bert + "]}]}";
  CHECK(post_processor(nested).num_special_tokens(true) == 3);
  const auto twice = R"({"type":"Sequence","processors":[)" + bert + "," + bert + "]}";
  CHECK(error_class_of([&] { post_processor(twice); }) == "unsupported");
}

TEST_CASE("contradictory post-processors are refused") {
  const auto refused = [](const std::string& json) {
    return error_class_of([&] { post_processor(json); });
  };
  const std::string ok = "[" + kA + "]";
  const std::string both = "[" + kA + "," + kB + "]";
  CHECK(refused(template_json(ok, both, "{}")) == "none");
  CHECK(refused("[]") == "schema");
  CHECK(refused("{}") == "schema");
  CHECK(refused(R"({"type":"Mystery"})") == "unsupported");
  CHECK(refused(R"({"type":"BertProcessing","sep":["s",2]})") == "schema");
  CHECK(refused(R"({"type":"BertProcessing","sep":["s",2],"cls":["c"]})") == "schema");
  CHECK(refused(R"({"type":"BertProcessing","sep":["s",2],"cls":["c",100]})") == "range");
  CHECK(refused(R"({"type":"BertProcessing","sep":["s",2],"cls":["c",-1]})") == "schema");
  CHECK(refused(template_json("{}", both, "{}")) == "schema");
  CHECK(refused(template_json("[5]", both, "{}")) == "schema");
  CHECK(refused(template_json(R"([{"Other":{"id":"A","type_id":0}}])", both, "{}")) == "schema");
  CHECK(refused(template_json(R"([{"Sequence":{"id":"C","type_id":0}}])", both, "{}")) == "schema");
  CHECK(refused(template_json(R"([{"Sequence":{"id":"A","type_id":-1}}])", both, "{}")) ==
        "schema");
  CHECK(refused(template_json("[" + kA + "," + kSep + "]", both, "{}")) == "tokenizer");
  CHECK(refused(template_json(both, both, "{}")) == "tokenizer");
  CHECK(refused(template_json("[]", both, "{}")) == "tokenizer");
  CHECK(refused(template_json(ok, "[" + kA + "," + kA + "," + kB + "]", "{}")) == "tokenizer");
  CHECK(refused(template_json(ok, both, R"({"x":{"ids":[100]}})")) == "range");
  CHECK(refused(template_json(ok, both, R"({"x":{"ids":["1"]}})")) == "schema");
  CHECK(refused(template_json(ok, both, R"({"x":{}})")) == "schema");
}

TEST_CASE("a template that inserts very many tokens is refused before it is built") {
  std::string ids = "1";
  for (int i = 0; i < 999; ++i) ids += ",1";
  std::string items = kA;
  for (int i = 0; i < 100; ++i) items += "," + kSep;
  const std::string json = template_json("[" + items + "]", "[" + kA + "," + kB + "]",
                                         R"({"sep":{"ids":[)" + ids + "]}}");
  CHECK(error_class_of([&] { post_processor(json); }) == "limit");
}

TEST_CASE("longest_first shares the budget as the reference does") {
  const auto lengths = [](std::size_t first, std::size_t second, std::size_t budget) {
    const auto kept = truncated_lengths({first, second}, budget, TruncationStrategy::longest_first);
    return std::pair(kept.first, kept.second);
  };
  using Pair = std::pair<std::size_t, std::size_t>;
  // The cases of the reference's own test: lengths 0, 2, 4 and 8 against 7 tokens.
  CHECK(lengths(0, 8, 7) == Pair(0, 7));
  CHECK(lengths(2, 4, 7) == Pair(2, 4));
  CHECK(lengths(2, 8, 7) == Pair(2, 5));
  CHECK(lengths(4, 4, 7) == Pair(3, 4));
  CHECK(lengths(4, 8, 7) == Pair(3, 4));
  CHECK(lengths(8, 0, 7) == Pair(7, 0));
  CHECK(lengths(8, 2, 7) == Pair(5, 2));
  CHECK(lengths(8, 4, 7) == Pair(4, 3));
  CHECK(lengths(8, 8, 7) == Pair(3, 4));
  CHECK(lengths(8, 0, 0) == Pair(0, 0));
  for (std::size_t first = 0; first < 12; ++first) {
    for (std::size_t second = 0; second < 12; ++second) {
      for (std::size_t budget = 0; budget < 26; ++budget) {
        const auto [a, b] = lengths(first, second, budget);
        CHECK(a + b == std::min(budget, first + second));
        CHECK(a <= first);
        CHECK(b <= second);
      }
    }
  }
}

TEST_CASE("only_first and only_second leave something or fail") {
  const auto second = [](std::size_t first, std::size_t length, std::size_t budget) {
    return truncated_lengths({first, length}, budget, TruncationStrategy::only_second).second;
  };
  CHECK(second(5, 10, 15) == 10);
  CHECK(second(5, 10, 6) == 1);
  CHECK(error_class_of([&] { second(5, 10, 5); }) == "limit");
  CHECK(error_class_of([&] { second(5, 10, 0); }) == "limit");
  const auto first = truncated_lengths({5, 10}, 11, TruncationStrategy::only_first);
  CHECK(first.first == 1);
  CHECK(first.second == 10);
}

TEST_CASE("truncation keeps either end and the matches inside") {
  const TokenSequence sequence{{1, 2, 3, 4, 5}, {{0, 0, 1}, {2, 4, 5}, {4, 8, 9}}};
  TokenSequence head = sequence;
  truncate(&head, 3, TruncationSide::right);
  CHECK(head.ids == Ids{1, 2, 3});
  REQUIRE(head.matches.size() == 2);
  CHECK(head.matches[1].index == 2);
  TokenSequence tail = sequence;
  truncate(&tail, 3, TruncationSide::left);
  CHECK(tail.ids == Ids{3, 4, 5});
  REQUIRE(tail.matches.size() == 2);
  CHECK(tail.matches[0].index == 0);
  CHECK(tail.matches[0].begin == 4);
  TokenSequence all = sequence;
  truncate(&all, 5, TruncationSide::left);
  CHECK(all.ids == sequence.ids);
}

TEST_CASE("the file's truncation and padding are read and checked") {
  const auto truncation = [](const std::string& json) {
    return read_truncation(JsonDocument::parse(json, {}, "test").root());
  };
  CHECK(!truncation("null"));
  const auto read =
      truncation(R"({"direction":"Left","max_length":512,"strategy":"OnlySecond","stride":128})");
  REQUIRE(read);
  CHECK(read->max_length == 512);
  CHECK(read->stride == 128);
  CHECK(read->strategy == TruncationStrategy::only_second);
  CHECK(read->side == TruncationSide::left);
  const auto refused = [&](const std::string& json) {
    return error_class_of([&] { truncation(json); });
  };
  CHECK(refused(R"({"max_length":4,"strategy":"LongestFirst","stride":4})") == "range");
  CHECK(refused(R"({"max_length":-4,"strategy":"LongestFirst","stride":0})") == "schema");
  CHECK(refused(R"({"max_length":4,"strategy":"Longest","stride":0})") == "schema");
  CHECK(refused("{}") == "schema");
  CHECK(refused("5") == "schema");
}

TEST_CASE("the file's padding") {
  const auto padding = [](const std::string& strategy, const std::string& id) {
    return read_padding(JsonDocument::parse(R"({"strategy":)" + strategy +
                                                R"(,"direction":"Left","pad_to_multiple_of":8,)"
                                                R"("pad_id":)" +
                                                id + R"(,"pad_type_id":0,"pad_token":"<pad>"})",
                                            {}, "test")
                            .root());
  };
  const auto fixed = padding(R"({"Fixed":64})", "1");
  REQUIRE(fixed);
  CHECK(fixed->fixed_length == 64);
  CHECK(fixed->multiple_of == 8);
  CHECK(fixed->side == TruncationSide::left);
  CHECK(fixed->pad_id == 1);
  CHECK(fixed->pad_token == "<pad>");
  CHECK(!padding(R"("BatchLongest")", "1")->fixed_length);
  CHECK(error_class_of([&] { padding(R"({"Fixed":1000000000000000000})", "1"); }) == "limit");
  CHECK(error_class_of([&] { padding(R"("Longest")", "1"); }) == "schema");
  CHECK(error_class_of([&] { padding(R"("BatchLongest")", "-1"); }) == "schema");
}
