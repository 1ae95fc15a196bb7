#include <doctest/doctest.h>
#include <zlib.h>

#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "support.h"
#include "terse/error.h"
#include "terse/evaluate/corpus.h"
#include "terse/evaluate/fusion.h"
#include "terse/evaluate/gzip.h"
#include "terse/evaluate/lines.h"
#include "terse/evaluate/qrels.h"
#include "terse/evaluate/run.h"

using namespace terse;
using terse_test::error_class_of;

namespace {

// Bytes in memory, handed out a few at a time.
class Pieces : public ByteSource {
 public:
  Pieces(std::string bytes, std::size_t piece) : bytes_(std::move(bytes)), piece_(piece) {}
  std::size_t read(std::span<char> buffer) override {
    const std::size_t count = std::min({piece_, buffer.size(), bytes_.size() - taken_});
    bytes_.copy(buffer.data(), count, taken_);
    taken_ += count;
    return count;
  }
  const std::string& name() const override { return name_; }

 private:
  std::string name_ = "file";
  std::string bytes_;
  std::size_t piece_;
  std::size_t taken_ = 0;
};

TextLines lines_of(const std::string& bytes, std::size_t piece = 1 << 20) {
  return TextLines(std::make_unique<Pieces>(bytes, piece));
}

Run run_of(const std::string& bytes) {
  TextLines lines = lines_of(bytes);
  return read_run(lines);
}

Qrels qrels_of(const std::string& bytes) {
  TextLines lines = lines_of(bytes);
  return read_qrels(lines);
}

std::string message_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing thrown";
}

std::string gzip(const std::string& bytes) {
  std::string out(bytes.size() + 1000, '\0');
  z_stream stream = {};
  REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string input = bytes;
  stream.next_in = reinterpret_cast<Bytef*>(input.data());
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string unzipped(const std::string& bytes, std::size_t piece) {
  GzipSource source(std::make_unique<Pieces>(bytes, piece));
  std::string out;
  char buffer[100];
  while (const std::size_t got = source.read(buffer)) out.append(buffer, got);
  return out;
}

}  // namespace

TEST_CASE("lines, their numbers and places") {
  for (const std::size_t piece : {1U, 2U, 3U, 1000U}) {
    TextLines lines = lines_of(
        "\xEF\xBB\xBF"
        "one\r\n\n  \ntwo words\nlast",
        piece);
    REQUIRE(lines.next());
    CHECK(lines.text() == "one");
    CHECK(lines.offset() == 3);
    CHECK(lines.where() == "file:1");
    REQUIRE(lines.next());
    CHECK(lines.text() == "two words");
    CHECK(lines.number() == 4);
    CHECK(lines.offset() == 12);
    CHECK(lines.end_offset() == 22);
    REQUIRE(lines.next());
    CHECK(lines.text() == "last");
    CHECK(lines.end_offset() == 26);
    CHECK_FALSE(lines.next());
    CHECK_FALSE(lines.next());
  }
}

TEST_CASE("lines longer than the buffer") {
  const std::string longest(1'000'000, 'x');
  TextLines lines = lines_of("a\n" + longest + "\nb\n", 70'000);
  REQUIRE(lines.next());
  REQUIRE(lines.next());
  CHECK(lines.text() == longest);
  REQUIRE(lines.next());
  CHECK(lines.text() == "b");
  CHECK(lines.offset() == 1'000'003);
  CHECK_FALSE(lines.next());
  TextLines endless = lines_of(std::string(TextLines::kMaxLineBytes + 2, 'x'));
  CHECK(error_class_of([&] { endless.next(); }) == "limit");
}

TEST_CASE("files that are none") {
  const terse_test::TemporaryFolder folder;
  CHECK(error_class_of([&] { TextLines((folder.path() / "absent").string()); }) == "io");
  CHECK(error_class_of([&] { TextLines(folder.path().string()); }) == "io");
  CHECK(error_class_of([&] { TextLines(std::string("a\0b", 3)); }) == "path");
}

TEST_CASE("gzip files are read as if they were not") {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "line " + std::to_string(i * 7919 % 1000) + "\n";
  for (const std::size_t piece : {1U, 17U, 100'000U}) {
    CHECK(unzipped(gzip(text), piece) == text);
    CHECK(unzipped(gzip(text) + gzip("second member\n"), piece) == text + "second member\n");
    CHECK(unzipped(text, piece) == text);
    CHECK(unzipped("\x1f", piece) == "\x1f");
    CHECK(unzipped("", piece).empty());
    CHECK(unzipped(gzip(""), piece).empty());
  }
  const std::string packed = gzip(text);
  CHECK(error_class_of([&] { unzipped(packed.substr(0, packed.size() / 2), 64); }) == "truncated");
  CHECK(error_class_of([&] { unzipped(packed.substr(0, packed.size() - 1), 64); }) == "truncated");
  CHECK(error_class_of([&] { unzipped("\x1f\x8b garbage that is no member", 64); }) == "schema");
  CHECK(error_class_of([&] { unzipped(packed + "trailing garbage", 64); }) == "schema");
  std::string damaged = packed;
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 0x55);
  CHECK(error_class_of([&] { unzipped(damaged, 64); }) == "schema");
}

TEST_CASE("a run") {
  const Run run = run_of("q1 Q0 d1 1 1e3 t\nq2\tQ0\td9\t1\t-.5\tt\r\n\nq1  Q0 d2 7 +1E-3   t");
  REQUIRE(run.size() == 2);
  CHECK(run[0].id == "q1");
  REQUIRE(run[0].entries.size() == 2);
  CHECK(run[0].entries[0].document == "d1");
  CHECK(run[0].entries[0].score == 1000);
  CHECK(run[0].entries[1].score == 0.001);
  CHECK(run[1].entries[0].score == -0.5);
}

TEST_CASE("scores of any notation and size") {
  const auto score = [](const std::string& text) {
    return run_of("q Q0 d 1 " + text + " t").at(0).entries.at(0).score;
  };
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(score("1e999") == infinity);
  CHECK(score("-1e999") == -infinity);
  CHECK(score("1e-999") == 0);
  CHECK(score("inf") == infinity);
  CHECK(score("-Infinity") == -infinity);
  CHECK(score("0.1") == 0.1);
  for (const char* bad : {"abc", "1.0x", "0x10", "--1", "+", "1,5"}) {
    CHECK(error_class_of([&] { score(bad); }) == "schema");
  }
  CHECK(error_class_of([&] { score("nan"); }) == "nonfinite");
}

TEST_CASE("a bad line of a run is named") {
  const std::string good = "q1 Q0 d1 1 1.0 tag\n";
  CHECK(message_of([&] { run_of(good + "q1 Q0 d2 2"); }) ==
        "schema: file:2: 4 columns, expected 6: qid Q0 docid rank score tag");
  CHECK(message_of([&] { run_of(good + "\nq1 Q0 d2 2 x tag\n"); }) ==
        "schema: file:3: score is \"x\", expected a number");
  CHECK(message_of([&] { run_of(good + "q1 Q0 d2 1 nan tag\n"); }) ==
        "nonfinite: file:2: score is NaN, which cannot be ordered");
  CHECK(message_of([&] { run_of(good + "q2 Q0 d1 1 1 t\nq1 Q0 d1 2 1 t"); }) ==
        "duplicate: file:3: document \"d1\" given again for query \"q1\", first on line 1");
  CHECK(error_class_of([&] { run_of(good + std::string("q1 Q0 d\0 1 1 t\n", 15)); }) == "schema");
  CHECK(error_class_of([] { run_of(""); }) == "missing");
  CHECK(error_class_of([] { run_of("\n \n"); }) == "missing");
}

TEST_CASE("a line of a run is written with digits that give the float back") {
  CHECK(run_line("q", "d", 3, static_cast<double>(0.1F), "tag") == "q Q0 d 3 0.100000001 tag\n");
  CHECK(error_class_of([] { run_line("a b", "d", 1, 1, "t"); }) == "schema");
  CHECK(error_class_of([] { run_line("q", "", 1, 1, "t"); }) == "schema");
  CHECK(error_class_of([] { run_line("q", "d", 1, 1, "t\n"); }) == "schema");
}

TEST_CASE("judgements in three forms") {
  for (const std::string text : {"q1 0 d1 2\nq1 0 d2 -1\nq2 0 d1 0\n",
                                 "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t-1\nq2\td1\t0\n",
                                 "q1\td1\t2\nq1\td2\t-1\nq2\td1\t0\n",
                                 "{\"qid\": \"q1\", \"docid\": \"d1\", \"relevance\": 2}\n"
                                 "{\"query-id\": \"q1\", \"corpus-id\": \"d2\", \"score\": -1}\n"
                                 "{\"qid\": \"q2\", \"docid\": \"d1\", \"relevance\": 0}\n"}) {
    const Qrels qrels = qrels_of(text);
    CHECK(qrels.queries() == std::vector<std::string>{"q1", "q2"});
    REQUIRE(qrels.find("q1") != nullptr);
    CHECK(*qrels.find("q1") == Grades{{"d1", 2}, {"d2", -1}});
    CHECK(qrels.find("q3") == nullptr);
  }
  // Ids between tabs may hold blanks; ids of JSON may be numbers.
  CHECK(qrels_of("q 1\td 1\t1\n").find("q 1")->count("d 1") == 1);
  CHECK(qrels_of("{\"qid\": 7, \"docid\": 8, \"relevance\": 1}").find("7")->count("8") == 1);
}

TEST_CASE("bad judgements are named") {
  CHECK(message_of([] { qrels_of("q1 0 d1 1\nq1 0 d2 1.5\n"); }) ==
        "schema: file:2: grade is \"1.5\", expected an integer from -1000000000 to 1000000000");
  CHECK(message_of([] { qrels_of("q1 0 d1 1\nq1 0 d1 0\n"); }) ==
        "duplicate: file:2: document \"d1\" judged again for query \"q1\"");
  for (const char* bad : {"q1 0 d1", "q1 0 d1 yes", "q1 0 d1 99999999999999999999",
                          "q1 0 d1 1 extra", "q1\t\t1", "\td\t1"}) {
    CHECK(error_class_of([&] { qrels_of(bad); }) == "schema");
  }
  CHECK(error_class_of([] { qrels_of(""); }) == "missing");
  CHECK(error_class_of([] { qrels_of("query-id\tcorpus-id\tscore\n"); }) == "missing");
  CHECK(error_class_of([] { qrels_of("{\"qid\": \"q\", \"docid\": \"d\"}"); }) == "missing");
  CHECK(error_class_of([] { qrels_of("{\"qid\": \"q\""); }) == "json");
}

TEST_CASE("documents and queries") {
  TextLines lines = lines_of(
      "{\"_id\": \"a\", \"title\": \"Title\", \"text\": \" text \"}\n"
      "{\"id\": 5, \"title\": \"\", \"text\": \"alone\", \"metadata\": {}}\n"
      "{\"_id\": \"q\", \"text\": \"a query\"}\n");
  const auto records = read_texts(lines);
  REQUIRE(records.size() == 3);
  CHECK(records[0].text == "Title  text");
  CHECK(records[1].id == "5");
  CHECK(records[1].text == "alone");
  CHECK(records[2].text == "a query");
  const auto refused = [](const std::string& text) {
    TextLines bad = lines_of(text);
    return message_of([&] { read_texts(bad); });
  };
  CHECK(refused("{\"_id\": \"a\", \"text\": \"\"}\n{\"_id\": \"a\", \"text\": \"\"}") ==
        "duplicate: file:2: id \"a\" given again");
  CHECK(refused("{\"text\": \"\"}") == "missing: file:1: _id is missing");
  CHECK(refused("{\"_id\": \"a\"}") == "missing: file:1: text is missing");
  CHECK(refused("{\"_id\": \"\", \"text\": \"\"}") == "schema: file:1: _id is empty");
  CHECK(refused("[]") == "schema: file:1: the line is a list, expected an object");
  CHECK(refused("") == "missing: file: holds no text");
}

TEST_CASE("reranking lists") {
  const auto list = parse_reranking_list(
      "{\"query\": \"q\", \"positive\": [\"a\", \"b\"], \"negative\": [\"c\"]}", "file:1");
  CHECK(list.queries == std::vector<std::string>{"q"});
  CHECK(list.positives == std::vector<std::string>{"a", "b"});
  CHECK(list.negatives == std::vector<std::string>{"c"});
  CHECK(parse_reranking_list("{\"query\": [\"q\", \"r\"], \"pos\": [], \"neg\": []}", "x")
            .queries.size() == 2);
  CHECK(error_class_of([] { parse_reranking_list("{\"query\": \"q\"}", "x"); }) == "missing");
  CHECK(error_class_of([] {
          parse_reranking_list("{\"query\": 1, \"pos\": [], \"neg\": []}", "x");
        }) == "schema");
}

TEST_CASE("malformed reference files are refused or read as stated") {
  const auto shared = terse_test::shared_folder();
  if (!shared) return;
  const auto root = *shared / "collections" / "metric-edge-cases";
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root / "malformed-runs")) {
    INFO(entry.path().string());
    TextLines lines(entry.path().string());
    const bool read = entry.path().filename() == "bom.trec";  // a byte order mark is skipped
    CHECK((error_class_of([&] { read_run(lines); }) == "none") == read);
    ++files;
  }
  for (const auto& entry : std::filesystem::directory_iterator(root / "malformed-qrels")) {
    INFO(entry.path().string());
    TextLines lines(entry.path().string());
    const bool read = entry.path().filename() == "tsv-no-header.txt";
    CHECK((error_class_of([&] { read_qrels(lines); }) == "none") == read);
    ++files;
  }
  CHECK(files == 18);
}

namespace {

double fused_score(const Run& run, const std::string& document) {
  for (const RunEntry& entry : run.at(0).entries) {
    if (entry.document == document) return entry.score;
  }
  return -1;
}

const std::vector<Run> kRuns = {{{"q", {{"a", 10}, {"b", 6}, {"c", 2}}}},
                                {{"q", {{"c", 0.9}, {"a", 0.5}}}, {"r", {{"z", 1}}}}};

}  // namespace

TEST_CASE("reciprocal rank fusion") {
  const Run fused = fuse(kRuns);
  REQUIRE(fused.size() == 2);
  CHECK(fused_score(fused, "a") == doctest::Approx(1 / 61.0 + 1 / 62.0));
  CHECK(fused_score(fused, "b") == doctest::Approx(1 / 62.0));
  CHECK(fused_score(fused, "c") == doctest::Approx(1 / 63.0 + 1 / 61.0));
  CHECK(fused[0].entries[0].document == "a");
  CHECK(fused[1].id == "r");
  CHECK(fuse(kRuns, {.top_k = 1})[0].entries.size() == 1);
}

TEST_CASE("weighted sums of scores") {
  FusionOptions options{.fusion = Fusion::sum, .scale = ScoreScale::none, .weights = {1, 10}};
  CHECK(fused_score(fuse(kRuns, options), "a") == doctest::Approx(15));
  CHECK(fused_score(fuse(kRuns, options), "b") == doctest::Approx(6));
  options.scale = ScoreScale::min_max;
  CHECK(fused_score(fuse(kRuns, options), "a") == doctest::Approx(1));
  CHECK(fused_score(fuse(kRuns, options), "b") == doctest::Approx(0.5));
  CHECK(fused_score(fuse(kRuns, options), "c") == doctest::Approx(10));
  options.scale = ScoreScale::z_score;
  // First run: mean 6, deviation sqrt(32 / 3); second: c 1, a -1, and what it lacks -1.
  const double deviation = std::sqrt(32 / 3.0);
  CHECK(fused_score(fuse(kRuns, options), "a") == doctest::Approx(4 / deviation - 10));
  CHECK(fused_score(fuse(kRuns, options), "b") == doctest::Approx(-10));
  CHECK(fused_score(fuse(kRuns, options), "c") == doctest::Approx(-4 / deviation + 10));
}

TEST_CASE("fusions that make no sense are refused") {
  CHECK(error_class_of([] { fuse({}); }) == "range");
  CHECK(error_class_of([] { fuse(kRuns, {.weights = {1}}); }) == "range");
  const std::vector<Run> infinite = {{{"q", {{"a", std::numeric_limits<double>::infinity()}}}}};
  CHECK(error_class_of([&] { fuse(infinite, {.fusion = Fusion::sum}); }) == "nonfinite");
  CHECK(error_class_of([&] { fuse(infinite); }) == "none");
}
