// A user's program of two source files: scores pairs with a small model that it writes itself into
// the folder named by its argument, and exits 0 if both files see the same library.
#include "everything.h"
#include "tiny_model.h"

namespace {

int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  ++failures;
  std::cerr << "consumer: " << what << "\n";
}

void score(const std::filesystem::path& folder) {
  const auto reranker = terse::Reranker::load(folder);
#ifdef TERSE_WITH_CUDA
  // Without a device this says so, or the driver does; with one it scores.
  try {
    terse::LoadOptions options;
    options.device = terse::Device::cuda;
    expect(terse::Reranker::load(folder, options).info().device == terse::Device::cuda, "a device");
  } catch (const terse::Error& error) {
    expect(error.error_class() == terse::ErrorClass::device, error.what());
    expect(std::string(error.what()).find("built without") == std::string::npos, error.what());
  }
#endif
  const std::vector<terse::Pair> pairs = {{"panda", "panda eats bamboo"}, {"panda", "bear bear"}};
  const std::vector<float> scores = reranker.score(pairs);
  expect(scores.size() == 2 && std::isfinite(scores[0]), "two finite scores");
  expect(scores[0] != scores[1], "different passages have different scores");
  expect(score_elsewhere(reranker, pairs[0]) == scores[0], "both files give the same bits");
  const std::vector<std::string> passages = {pairs[0].passage, pairs[1].passage};
  const auto ranking = reranker.rank("panda", passages);
  expect(ranking[0].score >= ranking[1].score, "a ranking falls");
  expect(ranking[0].score == std::max(scores[0], scores[1]), "a ranking keeps the scores");
}

void refuse(const std::filesystem::path& folder) {
  try {
    terse::Reranker::load(folder / "absent");
    expect(false, "an absent folder is refused");
  } catch (const terse::Error& error) {
    expect(error.error_class() == terse::ErrorClass::io, error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    TinyModel::write(argv[1]);
    score(argv[1]);
    refuse(argv[1]);
  } catch (const std::exception& error) {
    expect(false, error.what());
  }
  std::cout << (failures == 0 ? "consumer: all is well\n" : "") << std::flush;
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
