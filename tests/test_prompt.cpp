// How a decoder reranker lays out a pair: every piece by itself, where it is cut, what is
// compressed.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support.h"
#include "terse/models/prompt.h"
#include "terse/models/shared_prefix.h"
#include "tiny_decoder.h"

namespace {

using terse::Input;
using terse::PromptBos;
using terse::PromptLayout;
using terse::ScoreOptions;
using terse::TokenId;
using terse::Truncation;

// Characters as ids: what the tokenizer makes of a text.
std::vector<TokenId> ids(const std::string& text) {
  std::vector<TokenId> out;
  for (const char c : text) out.push_back(c == '\n' ? 4 : c - ' ' + 5);
  return out;
}

struct Layout {
  terse::Tokenizer tokenizer =
      terse::Tokenizer::from_json(terse_test::TinyDecoder::tokenizer().dump(), "tiny");
  PromptLayout layout;

  explicit Layout(PromptBos bos = PromptBos::always,
                  terse::SpecialTokens specials = {2, 1, 0, {}, {}})
      : layout(tokenizer, specials, bos, "yes?") {}

  std::vector<Input> rows(const std::string& query, const std::string& passage,
                          const ScoreOptions& options) const {
    return layout.assemble(tokenizer.encode(query), tokenizer.encode(passage), options);
  }
  Input row(const std::string& query, const std::string& passage,
            const ScoreOptions& options = {}) const {
    const auto all = rows(query, passage, options);
    REQUIRE(all.size() == 1);
    return all[0];
  }
};

std::vector<TokenId> with_bos(const std::string& text) {
  std::vector<TokenId> out = ids(text);
  out.insert(out.begin(), 2);
  return out;
}

ScoreOptions lengths(std::int64_t max_length, std::int64_t query_max_length = 0) {
  ScoreOptions options;
  options.max_length = max_length;
  if (query_max_length > 0) options.query_max_length = query_max_length;
  return options;
}

}  // namespace

TEST_CASE("bos, query, separator, passage, separator, prompt") {
  const Layout layout;
  const Input row = layout.row("what", "panda");
  CHECK(row.token_ids == with_bos("what\npanda\nyes?"));
  CHECK_FALSE(row.truncated);
  CHECK(row.query_length == 6);
  CHECK(row.prompt_length == 5);
  CHECK(row.shareable == 6);
  CHECK(layout.row("", "").token_ids == with_bos("\n\nyes?"));
}

TEST_CASE("a prompt of one's own, also an empty one") {
  ScoreOptions options;
  options.prompt = "so";
  CHECK(Layout().row("q", "p", options).token_ids == with_bos("q\np\nso"));
  options.prompt = "";
  const Input row = Layout().row("q", "p", options);
  CHECK(row.token_ids == with_bos("q\np\n"));
  CHECK(row.prompt_length == 1);
}

TEST_CASE("bos stands in front unless the class asks and it is the padding") {
  const terse::SpecialTokens same{0, 1, 0, {}, {}};
  CHECK(Layout(PromptBos::unless_padding, same).row("q", "p").token_ids == ids("q\np\nyes?"));
  CHECK(Layout(PromptBos::always, same).row("q", "p").token_ids.front() == 0);
  CHECK(Layout(PromptBos::unless_padding, {}).row("q", "p").query_length == 2);
  CHECK(terse_test::error_class_of([] { Layout(PromptBos::always, {}); }) == "tokenizer");
}

TEST_CASE("the query is cut first, then the passage, then the end of the passage") {
  const Layout layout;
  // The query to three quarters of max_length, the passage to max_length; together with bos and
  // separator they may take max_length + separator + prompt = 8 + 1 + 4.
  const Input row = layout.row("abcdefghij", "0123456789", lengths(8));
  CHECK(row.token_ids == with_bos("abcdef\n01234\nyes?"));
  CHECK(row.truncated);
  CHECK(row.query_length == 8);
  CHECK(layout.row("ab", "0123456789", lengths(8)).token_ids == with_bos("ab\n01234567\nyes?"));
  CHECK(layout.row("abcdefgh", "01", lengths(8, 3)).token_ids == with_bos("abc\n01\nyes?"));
}

TEST_CASE("nothing is cut where all of the passage would have to go") {
  const Layout layout;
  // 13 tokens of room: bos, 12 of the query, then separator and passage (3): all would have to go.
  CHECK(layout.row("abcdefghijkl", "01", lengths(8, 20)).token_ids ==
        with_bos("abcdefghijkl\n01\nyes?"));
  // One token less of the query: two go, the separator stays.
  const Input row = layout.row("abcdefghijk", "01", lengths(8, 20));
  CHECK(row.token_ids == with_bos("abcdefghijk\n\nyes?"));
  CHECK(row.query_length == 13);
}

TEST_CASE("the longer text is cut first, if asked") {
  ScoreOptions options = lengths(8);
  options.truncation = Truncation::longest_first;
  CHECK(Layout().row("abc", "0123456789", options).token_ids == with_bos("abc\n01234567\nyes?"));
  CHECK(Layout().row("abcdefghij", "01234", options).token_ids == with_bos("abcdef\n01234\nyes?"));
}

TEST_CASE("too long is an error, if asked") {
  ScoreOptions options = lengths(8);
  options.truncation = Truncation::error;
  CHECK(Layout().row("abcde", "012345", options).token_ids == with_bos("abcde\n012345\nyes?"));
  CHECK(terse_test::error_class_of([&] { Layout().row("abcde", "0123456", options); }) == "limit");
}

TEST_CASE("chunks cover a long passage and share their opening") {
  ScoreOptions options = lengths(8);
  options.truncation = Truncation::chunk;
  const auto rows = Layout().rows("abc", "0123456789ABCDEF", options);  // windows of 8, steps of 6
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].token_ids == with_bos("abc\n01234567\nyes?"));
  CHECK(rows[1].token_ids == with_bos("abc\n6789ABCD\nyes?"));
  CHECK(rows[2].token_ids == with_bos("abc\n89ABCDEF\nyes?"));
  CHECK(rows[2].shareable == 5);
  CHECK(Layout().rows("abc", "01234567", options).size() == 1);
}

TEST_CASE("lengths out of range are refused") {
  for (const std::int64_t length : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1} << 40}) {
    CHECK(terse_test::error_class_of([&] { Layout().row("q", "p", lengths(length)); }) == "range");
  }
  CHECK(terse_test::error_class_of([] { Layout().row("q", "p", lengths(1)); }) == "range");
  CHECK(Layout().row("q", "p", lengths(1, 1)).token_ids.size() > 0);
}

TEST_CASE("rows of a query share their opening in a packed batch") {
  const Layout layout;
  const std::vector<Input> inputs = {layout.row("ab", "01"), layout.row("cd", "2"),
                                     layout.row("ab", "3")};
  const std::vector<const Input*> rows = {&inputs[0], &inputs[1], &inputs[2]};
  terse::RowPacker packer;
  terse::PackedRows shared, whole;
  packer.pack(rows, true, &shared);
  CHECK(shared.batch.prefix == std::vector<std::int32_t>{-1, 0, -1, 0});
  CHECK(shared.batch.cu_seqlens == std::vector<std::int32_t>{0, 4, 11, 21, 27});
  CHECK(shared.batch.shareable == std::vector<std::int32_t>{0, 0, 4, 0});
  CHECK(shared.batch.positions[4] == 4);
  CHECK(shared.batch.positions[11] == 0);
  CHECK(shared.segments[0].query == 4);
  CHECK(shared.segments[1].query == 0);
  CHECK(shared.segments[1].prompt == 5);

  packer.pack(rows, false, &whole);
  CHECK(whole.batch.prefix == std::vector<std::int32_t>{-1, -1, -1});
  CHECK(whole.batch.shareable == std::vector<std::int32_t>{4, 4, 4});
  CHECK(whole.batch.cu_seqlens == std::vector<std::int32_t>{0, 11, 21, 31});
}
