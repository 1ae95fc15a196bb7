// What a decoder reranker is spared, and what that is worth: the operations that are left (counted
// at the op table) beside the time that is left, settings taking turns.
//
//   bench_savings MODEL [ROUNDS [PASSAGES WORDS [THREADS]]]     [5 24 200 2]
//
// One query with PASSAGES passages of WORDS words in bf16. Of a layer-wise model that compresses
// also: ratio 2 before the layer at 8 / 25 of the deepest exit.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "terse/ops/op_counter.h"
#include "terse/rerank.h"

namespace {

// A reranker and how it is asked.
struct Contender {
  Contender(const std::string& model, const terse::Savings& savings, int threads)
      : reranker(terse::Reranker::load(model, options(savings, threads, counter))) {}

  static terse::LoadOptions options(const terse::Savings& savings, int threads,
                                    terse::OpCounter& counter) {
    terse::LoadOptions options;
    options.dtype = terse::DType::bf16;
    options.threads = threads;
    options.savings = savings;
    options.op_counter = &counter;
    return options;
  }

  // Seconds of one pass over the pairs.
  double run(const std::vector<terse::Pair>& pairs, const terse::ScoreOptions& options) {
    counter.reset();
    const auto begin = std::chrono::steady_clock::now();
    reranker.score(pairs, options);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    const terse::OpCounts counts = counter.counts();
    operations = static_cast<double>(counts.linear_flops + counts.attention_flops_causal);
    return seconds.count();
  }

  terse::OpCounter counter;
  terse::Reranker reranker;
  double operations = 0;  // of the last pass
};

std::string words(std::mt19937& generator, int count) {
  std::string text;
  for (int word = 0; word < count; ++word) {
    text += word == 0 ? "" : " ";
    for (auto left = 2 + generator() % 6; left > 0; --left) {
      text += static_cast<char>('a' + generator() % 26);
    }
  }
  return text;
}

// Calls with() and without() in turn, which return seconds and operations; prints what is left of
// either.
struct Pass {
  double seconds;
  double operations;
};
template <class With, class Without>
void compare(const char* name, int rounds, const With& with, const Without& without) {
  with();  // converts the weights
  without();
  double work = 0;
  std::vector<double> shares;
  for (int round = 0; round < rounds; ++round) {
    const Pass whole = without();
    const Pass spared = with();
    shares.push_back(spared.seconds / whole.seconds);
    work = spared.operations / whole.operations;
  }
  std::sort(shares.begin(), shares.end());
  const double share = shares[shares.size() / 2];
  std::printf("| %-28s | %5.1f %% | %5.1f %% (%.1f-%.1f) | %.3f |\n", name, 100 * work, 100 * share,
              100 * shares.front(), 100 * shares.back(), work / share);
}

int run(int argc, char** argv) {
  const auto argument = [&](int index, int otherwise) {
    return argc > index ? std::max(1, std::atoi(argv[index])) : otherwise;
  };
  const std::string model = argv[1];
  const int rounds = argument(2, 5);
  const int passages = argument(3, 24);
  const int words_each = argument(4, 200);
  const int threads = argument(5, 2);
  std::mt19937 generator(1);
  const std::string query = words(generator, 16);
  std::vector<terse::Pair> pairs;
  for (int i = 0; i < passages; ++i) pairs.push_back({query, words(generator, words_each)});

  std::printf("| saving | work left | time left | speed-up / ratio of work |\n|---|---|---|---|\n");
  Contender all(model, {}, threads);
  const auto pass = [&](Contender& contender, const terse::ScoreOptions& options) {
    const double seconds = contender.run(pairs, options);
    return Pass{seconds, contender.operations};
  };
  if (all.reranker.info().compression) {
    const std::int64_t depth = all.reranker.info().num_hidden_layers;
    terse::ScoreOptions compressed;
    compressed.cutoff_layers = {depth};
    compressed.compress_layers = {std::max<std::int64_t>(1, (8 * depth + 12) / 25)};
    compressed.compress_ratio = 2;
    compare(
        "passages compressed 2-fold", rounds, [&] { return pass(all, compressed); },
        [&] { return pass(all, {}); });
  }
  struct Saving {
    const char* name;
    terse::Savings without;
  };
  for (const Saving& saving : {Saving{"shared prefix", {.share_prefix = false}},
                               Saving{"last layer: scored rows only", {.last_row_only = false}}}) {
    Contender less(model, saving.without, threads);
    compare(
        saving.name, rounds, [&] { return pass(all, {}); }, [&] { return pass(less, {}); });
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 6) {
    std::fprintf(stderr, "usage: bench_savings MODEL [ROUNDS [PASSAGES WORDS [THREADS]]]\n");
    return 2;
  }
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_savings: %s\n", error.what());
    return 1;
  }
}
