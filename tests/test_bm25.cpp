#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "support.h"
#include "terse/evaluate/bm25.h"
#include "terse/evaluate/corpus.h"
#include "terse/evaluate/evaluation.h"
#include "terse/evaluate/lines.h"

using namespace terse;
using terse_test::error_class_of;

namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for_each_word(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("words of a text") {
  CHECK(words_of("Hello, WORLD_2 3.5!") == Words{"hello", "world_2", "3", "5"});
  CHECK(words_of("").empty());
  CHECK(words_of(" ... ").empty());
  CHECK(words_of("Straße ÄÖ Привет") == Words{"straße", "äö", "привет"});
  // Marks belong to their letter.
  CHECK(words_of("e\xCC\x81t\xC3\xA9 हिन्दी") == Words{"e\xCC\x81t\xC3\xA9", "हिन्दी"});
}

TEST_CASE("pairs of characters where there are no blanks") {
  CHECK(words_of("大熊猫") == Words{"大熊", "熊猫"});
  CHECK(words_of("熊") == Words{"熊"});
  CHECK(words_of("大熊猫 panda猫x 熊。猫咪") ==
        Words{"大熊", "熊猫", "panda", "猫", "x", "熊", "猫咪"});
  CHECK(words_of("ラーメン") == Words{"ラー", "ーメ", "メン"});
}

TEST_CASE("English stems") {
  // Pairs of word and stem from the sample vocabulary of the algorithm's page.
  const std::map<std::string, std::string> stems = {{"consign", "consign"},
                                                    {"consigned", "consign"},
                                                    {"consignment", "consign"},
                                                    {"consistency", "consist"},
                                                    {"consolation", "consol"},
                                                    {"consolatory", "consolatori"},
                                                    {"consolingly", "consol"},
                                                    {"conspiracies", "conspiraci"},
                                                    {"constancy", "constanc"},
                                                    {"knackeries", "knackeri"},
                                                    {"knaves", "knave"},
                                                    {"knavish", "knavish"},
                                                    {"kneaded", "knead"},
                                                    {"kneeled", "kneel"},
                                                    {"knightly", "knight"},
                                                    {"knives", "knive"},
                                                    {"knotted", "knot"},
                                                    {"knowledge", "knowledg"},
                                                    {"skies", "sky"},
                                                    {"dying", "die"},
                                                    {"news", "news"},
                                                    {"hopping", "hop"},
                                                    {"hoping", "hope"},
                                                    {"luxuriated", "luxuri"},
                                                    {"gas", "gas"},
                                                    {"gaps", "gap"},
                                                    {"kiwis", "kiwi"},
                                                    {"cries", "cri"},
                                                    {"ties", "tie"},
                                                    {"generate", "generat"},
                                                    {"general", "general"},
                                                    {"communication", "communic"},
                                                    {"relational", "relat"},
                                                    {"rationalization", "ration"},
                                                    {"hopefulness", "hope"},
                                                    {"say", "say"},
                                                    {"by", "by"},
                                                    {"cry", "cri"},
                                                    {"proceed", "proceed"},
                                                    {"proceeding", "proceed"},
                                                    {"agreed", "agre"},
                                                    {"feed", "feed"},
                                                    {"youth", "youth"},
                                                    {"boyish", "boyish"},
                                                    {"controlled", "control"},
                                                    {"rate", "rate"},
                                                    {"adoption", "adopt"},
                                                    {"a", "a"}};
  for (const auto& [word, stem] : stems) {
    INFO(word);
    CHECK(stem_english(word) == stem);
  }
}

TEST_CASE("English stop words") {
  for (const char* word : {"a", "into", "the", "with", "of", "if"})
    CHECK(is_english_stop_word(word));
  for (const char* word : {"", "panda", "zebra", "an1"}) CHECK_FALSE(is_english_stop_word(word));
}

TEST_CASE("scores of a small corpus, computed by hand") {
  Bm25Index index({.k1 = 1.2, .b = 0.75});
  index.add("d1", "panda bear");
  index.add("d2", "panda panda cat dog");
  index.add("d3", "cat");
  index.add("d4", "");
  const auto entries = index.search("Panda unknown cat", 10);
  const double panda = std::log(1 + 2.5 / 2.5);
  const double cat = std::log(1 + 2.5 / 2.5);
  const auto part = [](double idf, double tf, double length) {
    return idf * tf / (tf + 1.2 * (0.25 + 0.75 * length / (7 / 4.0)));
  };
  REQUIRE(entries.size() == 3);
  CHECK(entries[0].document == "d2");
  CHECK(entries[0].score == doctest::Approx(part(panda, 2, 4) + part(cat, 1, 4)));
  CHECK(entries[1].document == "d3");
  CHECK(entries[1].score == doctest::Approx(part(cat, 1, 1)));
  CHECK(entries[2].document == "d1");
  CHECK(entries[2].score == doctest::Approx(part(panda, 1, 2)));
  CHECK(index.search("panda panda", 10)[0].score == doctest::Approx(2 * part(panda, 2, 4)));
  CHECK(index.search("unknown", 10).empty());
  CHECK(index.search("panda cat", 1).size() == 1);
  CHECK(index.search("panda cat", 0).empty());
}

TEST_CASE("equal scores are ordered by descending id") {
  Bm25Index index;
  for (const char* id : {"2", "10", "9", "1"}) index.add(id, "same words");
  const auto entries = index.search("same", 3);
  REQUIRE(entries.size() == 3);
  CHECK(entries[0].document == "9");
  CHECK(entries[1].document == "2");
  CHECK(entries[2].document == "10");
}

TEST_CASE("what an index refuses") {
  CHECK(error_class_of([] { Bm25Index({.k1 = -1}); }) == "range");
  CHECK(error_class_of([] { Bm25Index({.b = 1.5}); }) == "range");
  Bm25Index index;
  CHECK(error_class_of([&] { index.add("d", "\xFF"); }) == "utf8");
  CHECK(index.size() == 0);
}

namespace {

Run search_collection(const std::filesystem::path& folder, const Bm25Options& options,
                      std::size_t k) {
  Bm25Index index(options);
  TextLines corpus((folder / "corpus.jsonl").string());
  for_each_text(corpus, [&](TextRecord&& record) { index.add(record.id, record.text); });
  TextLines queries((folder / "queries.jsonl").string());
  Run run;
  for (const TextRecord& query : read_texts(queries)) {
    run.push_back({query.id, index.search(query.text, k)});
  }
  return run;
}

}  // namespace

TEST_CASE("Chinese and Thai runs agree with the reference's") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  for (const char* language : {"zh", "th"}) {
    const auto folder = *shared / "collections" / "xquad" / language;
    TextLines lines((folder / "runs" / "bm25.trec").string());
    const Run reference = read_run(lines);
    const Run run = search_collection(folder, {}, 30);
    REQUIRE(run.size() == reference.size());
    std::size_t differences = 0;
    for (std::size_t query = 0; query < run.size(); ++query) {
      REQUIRE(run[query].entries.size() == reference[query].entries.size());
      for (std::size_t rank = 0; rank < run[query].entries.size(); ++rank) {
        const RunEntry& ours = run[query].entries[rank];
        const RunEntry& theirs = reference[query].entries[rank];
        // The reference sums float32 contributions.
        CHECK(ours.score == doctest::Approx(theirs.score).epsilon(2e-6));
        if (ours.document != theirs.document) ++differences;
      }
    }
    CHECK(differences < 10);  // neighbours that tie but for rounding
  }
}

TEST_CASE("English retrieval is as good as the reference's") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const auto folder = *shared / "collections" / "scifact";
  TextLines lines((folder / "qrels.trec").string());
  const std::vector<Metric> metrics = {parse_metric("ndcg@10"), parse_metric("recall@100")};
  const Run run = search_collection(folder, {.words = WordForms::english}, 100);
  const Evaluation evaluation = evaluate(run, read_qrels(lines), metrics);
  // The reference stems by a later edition of the algorithm: 0.6804 and 0.9220.
  CHECK(evaluation.means[0] == doctest::Approx(0.6804).epsilon(0.003));
  CHECK(evaluation.means[1] == doctest::Approx(0.9220).epsilon(0.003));
}
