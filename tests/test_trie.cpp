#include <doctest/doctest.h>

#include <cstddef>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support.h"
#include "terse/tokenizer/trie.h"

namespace {

using Matches = std::vector<std::pair<std::size_t, terse::TokenId>>;

Matches matches_of(const terse::Trie& trie, std::string_view text) {
  Matches matches;
  trie.for_each_prefix(
      text, [&](std::size_t length, terse::TokenId value) { matches.emplace_back(length, value); });
  return matches;
}

// Strings over few letters, so that prefixes are shared and keys repeat.
std::string random_string(std::mt19937& random, std::size_t max_size) {
  static constexpr std::string_view kAlphabet("\0ab\x80\xff", 5);
  std::string text;
  const std::size_t size = 1 + random() % max_size;
  while (text.size() < size) text += kAlphabet[random() % kAlphabet.size()];
  return text;
}

}  // namespace

TEST_CASE("An empty trie matches nothing") {
  const terse::Trie trie;
  CHECK(matches_of(trie, "").empty());
  CHECK(matches_of(trie, std::string_view("\0\0", 2)).empty());
  CHECK(trie.find("a") == -1);
  CHECK(trie.longest_prefix("abc").length == 0);
}

TEST_CASE("A trie finds every prefix, shortest first") {
  const terse::Trie trie({{"a", 0}, {"abc", 1}, {"ab", 2}, {"abcdefgh", 3}, {"b", 4}});
  CHECK(matches_of(trie, "abcd") == Matches{{1, 0}, {2, 2}, {3, 1}});
  CHECK(matches_of(trie, "abcdefghi") == Matches{{1, 0}, {2, 2}, {3, 1}, {8, 3}});
  CHECK(matches_of(trie, "bc") == Matches{{1, 4}});
  CHECK(matches_of(trie, "c").empty());
  CHECK(matches_of(trie, "").empty());
  CHECK(trie.longest_prefix("abx").length == 2);
  CHECK(trie.longest_prefix("abx").value == 2);
  CHECK(trie.find("abcdefgh") == 3);
  CHECK(trie.find("abcdefg") == -1);
  CHECK(trie.find("abcdefghi") == -1);
}

TEST_CASE("Of equal keys the last one counts") {
  const terse::Trie trie({{"x", 0}, {"xy", 1}, {"x", 2}, {"xy", 3}, {"x", 4}});
  CHECK(matches_of(trie, "xyz") == Matches{{1, 4}, {2, 3}});
}

TEST_CASE("Keys may hold any bytes, NUL included") {
  const std::string nul(1, '\0');
  const terse::Trie trie({{nul, 7}, {"a", 1}, {"a" + nul, 2}, {"a" + nul + nul, 3}});
  CHECK(trie.find(nul) == 7);
  CHECK(trie.find("a" + nul) == 2);
  CHECK(trie.find(nul + nul) == -1);
  CHECK(matches_of(trie, "a" + nul + nul + nul) == Matches{{1, 1}, {2, 2}, {3, 3}});
}

TEST_CASE("A key of 64 KiB is one tail, and a chain where two keys share it") {
  const std::string long_key(65535, 'a');
  CHECK(terse::Trie({{long_key, 5}}).find(long_key) == 5);
  const terse::Trie trie({{long_key, 5}, {long_key + "b", 6}, {long_key + "c", 7}});
  CHECK(trie.find(long_key) == 5);
  CHECK(matches_of(trie, long_key + "c") == Matches{{65535, 5}, {65536, 7}});
  CHECK(trie.find(long_key.substr(1)) == -1);
}

TEST_CASE("A trie agrees with a map on random keys") {
  std::mt19937 random(20240611);
  for (const std::size_t num_keys : std::vector<std::size_t>{1, 2, 10, 300, 5000}) {
    std::vector<std::string> keys;
    for (std::size_t key = 0; key < num_keys; ++key) keys.push_back(random_string(random, 12));
    std::vector<terse::Trie::Entry> entries;
    std::map<std::string, terse::TokenId> expected;
    for (std::size_t key = 0; key < num_keys; ++key) {
      entries.push_back({keys[key], static_cast<terse::TokenId>(key)});
      expected[keys[key]] = static_cast<terse::TokenId>(key);
    }
    const terse::Trie trie(entries);
    for (int trial = 0; trial < 2000; ++trial) {
      const std::string text = random_string(random, 16);
      Matches wanted;
      for (std::size_t length = 1; length <= text.size(); ++length) {
        const auto found = expected.find(text.substr(0, length));
        if (found != expected.end()) wanted.emplace_back(length, found->second);
      }
      REQUIRE(matches_of(trie, text) == wanted);
    }
  }
}

TEST_CASE("A node with all 256 children") {
  std::vector<std::string> keys;
  for (int byte = 0; byte < 256; ++byte) {
    keys.push_back(std::string(1, static_cast<char>(byte)));
    keys.push_back("k" + keys[static_cast<std::size_t>(2 * byte)]);
  }
  std::vector<terse::Trie::Entry> entries;
  for (std::size_t key = 0; key < keys.size(); ++key) {
    entries.push_back({keys[key], static_cast<terse::TokenId>(key)});
  }
  const terse::Trie trie(entries);
  for (std::size_t key = 0; key < keys.size(); ++key) {
    CHECK(trie.find(keys[key]) == static_cast<terse::TokenId>(key));
  }
}
