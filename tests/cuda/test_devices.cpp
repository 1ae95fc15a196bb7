// Devices that are several, missing, full or lost, and what a pass may allocate. Emulation alone
// can be asked for them.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "../support.h"
#include "../tiny_decoder.h"
#include "emu.h"
#include "terse/embed.h"
#include "terse/models/paused_pass.h"
#include "terse/ops/cuda_backend.h"
#include "terse/rerank.h"

namespace {

using terse::Device;
using terse_test::error_class_of;
using terse_test::TemporaryFolder;
using terse_test::TinyDecoder;

terse::LoadOptions on(Device device) {
  terse::LoadOptions options;
  options.device = device;
  options.threads = 2;
  options.batch_tokens = 64;  // many groups
  return options;
}

std::vector<terse::Pair> make_pairs(int count = 12) {
  std::vector<terse::Pair> pairs;
  for (int i = 0; i < count; ++i) {
    pairs.push_back({"what is panda?", std::string(static_cast<std::size_t>(3 + 5 * i), 'a')});
  }
  return pairs;
}

emu::Options two_devices() {
  emu::Options options = emu::options();
  options.device_count = 2;
  return options;
}

// A model with the rows of some pairs, to run pass by pass.
struct Passes {
  explicit Passes(const std::filesystem::path& path, terse::ScoreOptions options = {})
      : folder(terse::ModelFolder::open(path, on(Device::cuda))),
        model(terse::load_reranker(folder)),
        run(model->run_options(options, warnings)) {}

  // Rows of a query with a passage of so many characters each.
  std::vector<terse::Input> rows(const std::vector<std::size_t>& lengths) const {
    std::vector<terse::Input> inputs;
    for (const std::size_t length : lengths) {
      const auto query = model->tokenize_query("what?", {});
      const auto passage = model->tokenize_passage(std::string(length, 'b'), {});
      inputs.push_back(model->assemble({query, passage, length == 0}, {}).front());
    }
    return inputs;
  }
  static std::vector<const terse::Input*> pointers(const std::vector<terse::Input>& inputs) {
    std::vector<const terse::Input*> rows;
    for (const terse::Input& input : inputs) rows.push_back(&input);
    return rows;
  }
  std::vector<double> forward(terse::Context& context,
                              const std::vector<terse::Input>& inputs) const {
    std::vector<double> scores(inputs.size() * std::max<std::size_t>(run.exits.size(), 1));
    model->forward(context, pointers(inputs), run, scores, nullptr);
    return scores;
  }

  std::vector<std::string> warnings;
  terse::ModelFolder folder;
  std::unique_ptr<terse::RerankModel> model;
  terse::RunOptions run;
};

}  // namespace

// First in the program: what is found once is kept.
TEST_CASE("without a driver or a device there is an Error, and automatic is the CPU") {
  const TemporaryFolder temporary;
  TinyDecoder("gemma").write(temporary.path());
  for (const bool driver : {false, true}) {
    CAPTURE(driver);
    emu::Options options = emu::options();
    options.driver = driver;
    options.device_count = driver ? 0 : 1;
    const emu::ScopedOptions scoped(options);
    CHECK(error_class_of([&] { terse::Reranker::load(temporary.path(), on(Device::cuda)); }) ==
          "device");
    const auto reranker = terse::Reranker::load(temporary.path(), on(Device::automatic));
    CHECK(reranker.info().device == Device::cpu);
    CHECK(reranker.info().device_note.starts_with("device: no CUDA device"));
    CHECK(reranker.score(make_pairs()).size() == 12);
  }
}

TEST_CASE("an older device is refused") {
  emu::Options options = emu::options();
  options.compute_capability = 75;
  const emu::ScopedOptions scoped(options);
  CHECK(error_class_of([] { terse::cuda::find_devices(); }) == "device");
}

TEST_CASE("pairs are spread over two devices and come back in order") {
  const emu::ScopedOptions devices(two_devices());
  const TemporaryFolder temporary;
  TinyDecoder("minicpm").write(temporary.path());
  terse::LoadOptions load = on(Device::automatic);
  load.batch_tokens = 8;  // so few that texts are tokenized beside the passes too
  const auto reranker = terse::Reranker::load(temporary.path(), load);
  CHECK(reranker.info().device == Device::cuda);
  CHECK(terse::cuda::devices().size() == 2);
  const auto pairs = make_pairs();
  const auto scores = reranker.score(pairs);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    CHECK(reranker.score({&pairs[i], 1})[0] == scores[i]);
  }
}

TEST_CASE("several exits and a cascade on two devices: the order and the bits of a pair alone") {
  const emu::ScopedOptions devices(two_devices());
  const TemporaryFolder temporary;
  TinyDecoder("minicpm").write(temporary.path());
  const auto reranker = terse::Reranker::load(temporary.path(), on(Device::cuda));
  terse::ScoreOptions exits;
  exits.cutoff_layers = {2, 3, 5};
  const auto pairs = make_pairs(8);
  const auto together = reranker.score_each(pairs, exits);
  std::vector<std::string> documents;
  for (const terse::Pair& pair : pairs) documents.push_back(pair.passage);
  const terse::CascadeOptions cascade{2, {2, 3, 5}, {{-0.01, 0.01}, {-0.01, 0.01}}};
  const auto found = reranker.cascade(pairs.front().query, documents, cascade);
  std::size_t dropped = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto alone = reranker.score_each({&pairs[i], 1}, exits)[0];
    CHECK(together[i].scores == alone.scores);
    REQUIRE(found.exits_reached[i] >= 1);
    CHECK(found.scores[i] == alone.scores[found.exits_reached[i] - 1]);
    if (found.exits_reached[i] < 3) ++dropped;
  }
  CHECK(dropped > 0);
  CHECK(found.ranking.size() == 2);
  CHECK(found.ranking[0].score >= found.ranking[1].score);
}

TEST_CASE("a pass that paused on one device goes on on the other") {
  const emu::ScopedOptions devices(two_devices());
  const TemporaryFolder temporary;
  TinyDecoder("minicpm").write(temporary.path());
  terse::ScoreOptions options;
  options.cutoff_layers = {2, 3, 5};
  const Passes passes(temporary.path(), options);
  const auto inputs = passes.rows({3, 30, 11});
  terse::ContextPool pool(*passes.folder.backend, 256);
  std::vector<double> want;
  {
    auto context = pool.take(1, 0);
    want = passes.forward(*context, inputs);
    pool.give_back(std::move(context), 0);
  }
  terse::PausedPass pass(Passes::pointers(inputs), true);
  for (int exit = 0; exit < 3; ++exit) {
    auto context = pool.take(1, exit % 2);  // lanes take devices in turn
    std::vector<double> scores(inputs.size());
    passes.model->resume(*context, pass, passes.run, scores);
    pool.give_back(std::move(context), exit % 2);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      CHECK(scores[i] == want[i * 3 + static_cast<std::size_t>(exit)]);
    }
  }
}

TEST_CASE("an embedder tokenizes beside its passes, on two devices, in order") {
  const emu::ScopedOptions devices(two_devices());
  const TemporaryFolder temporary;
  TinyDecoder("mistral").write(temporary.path());
  terse::LoadOptions load = on(Device::cuda);
  load.batch_tokens = 8;
  const auto embedder = terse::Embedder::load(temporary.path(), load);
  std::vector<terse::Text> texts;
  std::size_t bytes = 0;
  for (std::size_t i = 0; bytes < 3 * 3 * 4 * 4 * 8; ++i) {  // three slices and more
    texts.push_back({std::string(3 + 7 * (i % 9), static_cast<char>('a' + i % 7))});
    bytes += texts.back().text.size();
  }
  texts[5].text = std::string(1, '\xff');  // no UTF-8: an error of its own
  std::size_t done = 0, all = 0;
  terse::CallCounters counters;
  terse::CallOptions call;
  call.counters = &counters;
  call.progress = [&](std::size_t now, std::size_t most) {
    CHECK(now >= done);
    CHECK(now <= most);
    done = now;
    all = most;
  };
  const auto results = embedder.embed(texts, {}, call);
  std::uint64_t tokens = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    CAPTURE(i);
    CHECK(results[i].error.has_value() == (i == 5));
    tokens += static_cast<std::uint64_t>(results[i].tokens);
    if (i % 11 == 0) {
      CHECK(embedder.embed({&texts[i], 1})[0].dense == results[i].dense);
    }
  }
  CHECK(counters.tokens == tokens);
  CHECK(all == texts.size() - 1);
}

TEST_CASE("after its first pass a lane allocates nothing, whatever comes within the budget") {
  const emu::ScopedOptions devices(two_devices());
  const TemporaryFolder temporary;
  for (const std::string type : {"minicpm", "cost_wise_gemma"}) {
    CAPTURE(type);
    TinyDecoder(type).write(temporary.path() / type);
    terse::ScoreOptions options;
    options.cutoff_layers = {2, 3};
    if (type == "cost_wise_gemma") {
      options.compress_layers = {1, 2};
      options.compress_ratio = 2;
    }
    const Passes passes(temporary.path() / type, options);
    std::vector<std::vector<terse::Input>> batches;
    std::int64_t budget = 0;
    for (const std::vector<std::size_t>& lengths :
         std::vector<std::vector<std::size_t>>{{0}, {3, 40}, {0, 0, 0, 0}, {9}, {3, 40}}) {
      batches.push_back(passes.rows(lengths));
      std::int64_t tokens = 0;
      for (const terse::Input& input : batches.back()) {
        tokens += static_cast<std::int64_t>(input.token_ids.size());
      }
      budget = std::max(budget, tokens);
    }
    terse::ContextPool pool(*passes.folder.backend, budget);
    const auto context = pool.take(1);
    const auto run = [&](const std::vector<terse::Input>& inputs) {
      passes.forward(*context, inputs);
      context->backend->finish(*context);
    };
    run(batches.front());
    const long allocations = emu::counters().allocations;
    const std::size_t bytes = emu::live_bytes();
    for (const std::vector<terse::Input>& inputs : batches) {
      run(inputs);
      CHECK(emu::counters().allocations == allocations);
      CHECK(emu::live_bytes() == bytes);
    }
    // A row longer than the budget stands alone and makes the memory grow, once.
    const auto longer = passes.rows({static_cast<std::size_t>(budget)});
    run(longer);
    const long grown = emu::counters().allocations;
    CHECK(grown > allocations);
    run(longer);
    CHECK(emu::counters().allocations == grown);
  }
}

TEST_CASE("a device without memory gives an Error and can be used again") {
  const emu::ScopedOptions devices(two_devices());
  const TemporaryFolder temporary;
  TinyDecoder("gemma").write(temporary.path());
  const auto reranker = terse::Reranker::load(temporary.path(), on(Device::cuda));
  const auto pairs = make_pairs();
  {
    emu::Options options = two_devices();
    options.memory_bytes = 1 << 12;
    const emu::ScopedOptions full(options);
    CHECK(error_class_of([&] { reranker.score(pairs); }) == "device");
    CHECK(error_class_of([&] { terse::Reranker::load(temporary.path(), on(Device::cuda)); }) ==
          "device");
  }
  CHECK(reranker.score(pairs).size() == pairs.size());
}

TEST_CASE("whichever allocation fails: an Error, nothing leaked, and the next call is served") {
  const emu::ScopedOptions devices(two_devices());
  const TemporaryFolder temporary;
  TinyDecoder("minicpm").write(temporary.path());
  terse::ScoreOptions first_exit;
  first_exit.cutoff_layers = {2};
  const std::vector<terse::Pair> pairs = {{"what?", "panda"}};
  const auto load = [&] { return terse::Reranker::load(temporary.path(), on(Device::cuda)); };
  const std::size_t before = emu::live_allocations();
  const long start = emu::counters().allocations;
  CHECK(load().score(pairs, first_exit).size() == 1);
  const long count = emu::counters().allocations - start;
  CHECK(emu::live_allocations() == before);
  CHECK(count > 40);  // weights, a queue's workspace, staging, arena, scratch, results
  for (long allocation = 0; allocation < count; allocation += 3) {
    CAPTURE(allocation);
    emu::fail_allocation(allocation);
    std::unique_ptr<terse::Reranker> reranker;
    const std::string failed = error_class_of([&] {
      reranker = std::make_unique<terse::Reranker>(load());
      reranker->score(pairs, first_exit);
    });
    CHECK(failed == "device");
    if (reranker != nullptr && allocation % 2 == 0) {
      CHECK(reranker->score(pairs, first_exit).size() == 1);
    }
    reranker = nullptr;
    CHECK(emu::live_allocations() == before);
  }
}

TEST_CASE("a device lost in the middle of a pass: an Error each time, nothing leaked, no crash") {
  const emu::ScopedOptions devices(two_devices());
  const TemporaryFolder temporary;
  TinyDecoder("minicpm").write(temporary.path());
  terse::ScoreOptions first_exit;
  first_exit.cutoff_layers = {2};
  const std::vector<terse::Pair> pairs = {{"what?", "panda"}};
  const std::size_t before = emu::live_allocations();
  const auto load = [&] { return terse::Reranker::load(temporary.path(), on(Device::cuda)); };
  const auto lose = [](cudaError_t error, long calls) {
    for (const int device : {0, 1}) emu::lose_device(device, error, calls);
  };
  const auto restore = [] {
    for (const int device : {0, 1}) emu::restore_device(device);
  };
  {
    const terse::Reranker reranker = load();
    const auto want = reranker.score(pairs, first_exit);
    const auto score = [&] { reranker.score(pairs, first_exit); };
    struct Loss {
      cudaError_t error;
      long calls;
    };
    for (const auto& [error, calls] :
         {Loss{cudaErrorIllegalAddress, 0}, Loss{cudaErrorLaunchFailure, 1},
          Loss{cudaErrorECCUncorrectable, 9}, Loss{cudaErrorDevicesUnavailable, 20},
          Loss{cudaErrorIllegalAddress, 35}}) {
      CAPTURE(error);
      CAPTURE(calls);
      score();  // captured and replayed by now
      lose(error, calls);
      // A replayed pass is few calls, on whichever device takes it: a later one meets the error.
      std::string lost = "none";
      for (long pass = 0; lost == "none" && pass <= 2 * calls; ++pass) lost = error_class_of(score);
      CHECK(lost == "device");
      lose(error, 0);  // the other device too, which may take the next call
      // Such an error stays: every later call meets it too, and makes what it lost anew in vain.
      CHECK(error_class_of(score) == "device");
      CHECK(error_class_of(load) == "device");
      restore();
      CHECK(reranker.score(pairs, first_exit) == want);
    }
    // In a lane's first pass too, launch by launch.
    for (const long calls : {3, 12, 30, 60}) {
      const terse::Reranker fresh = load();
      lose(cudaErrorIllegalAddress, calls);
      CHECK(error_class_of([&] { fresh.score(pairs, first_exit); }) == "device");
      restore();
      CHECK(fresh.score(pairs, first_exit) == want);
    }
    lose(cudaErrorIllegalAddress, 0);
  }
  // Dropped while lost: the host's part of everything was given back.
  CHECK(emu::live_allocations() == before);
  restore();
}
