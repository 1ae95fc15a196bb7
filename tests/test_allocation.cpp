// A forward pass allocates nothing once its buffers have the size: every call of malloc and its
// kin is counted.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support.h"
#include "terse/models/loading.h"
#include "terse/models/registry.h"
#include "terse/published.h"
#include "terse/rerank.h"
#include "terse/synth.h"

// Sanitizers have allocators of their own.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if defined(__has_feature)
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
#define TERSE_COUNT_ALLOCATIONS
#endif
#else
#define TERSE_COUNT_ALLOCATIONS
#endif
#endif

#ifdef TERSE_COUNT_ALLOCATIONS

namespace {
std::atomic<int> allocations{0};
}

// Operator new and aligned_alloc end in these.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  ++allocations;
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, std::size_t bytes) {
  ++allocations;
  return __libc_realloc(memory, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  ++allocations;
  return __libc_memalign(alignment, bytes);
}
}

namespace {

// Allocations of the second pass over the same rows.
int allocations_of_second_pass(const std::filesystem::path& path, int threads,
                               const terse::ScoreOptions& options = {}) {
  terse::LoadOptions load;
  load.threads = threads;
  const terse::ModelFolder folder = terse::ModelFolder::open(path, load);
  const auto model = terse::load_reranker(folder);
  const auto query = model->tokenize_query("what is panda?", options);
  std::vector<terse::Input> rows;
  for (const char* text : {"hi", "The giant panda is a bear species endemic to China.", "panda"}) {
    const auto passage = model->tokenize_passage(text, options);
    for (terse::Input& row : model->assemble({query, passage}, options)) {
      rows.push_back(std::move(row));
    }
  }
  std::vector<const terse::Input*> inputs;
  for (const terse::Input& row : rows) inputs.push_back(&row);
  std::vector<std::string> warnings;
  const terse::RunOptions run = model->run_options(options, warnings);
  terse::Context context;
  context.backend = folder.backend;
  context.threads = threads;
  std::vector<double> scores(inputs.size() * std::max<std::size_t>(1, run.exits.size()));
  model->forward(context, inputs, run, scores, nullptr);
  const std::vector<double> first = scores;
  const int before = allocations;
  model->forward(context, inputs, run, scores, nullptr);
  const int counted = allocations - before;
  CHECK(first == scores);
  return counted;
}

TEST_CASE("the counter counts") {
  const int before = allocations;
  std::vector<int> numbers(100);
  CHECK(allocations == before + 1);
  terse::AlignedBuffer buffer(100);
  CHECK(allocations == before + 2);
}

// Twelve layers: what a layer allocated would show.
TEST_CASE("an encoder's forward pass allocates nothing") {
  const terse_test::TemporaryFolder folder;
  auto config = nlohmann::json::parse(
      terse::published_config(terse::published_model("bge-reranker-base"), 12));
  config.update({{"hidden_size", 64},
                 {"num_attention_heads", 4},
                 {"intermediate_size", 96},
                 {"vocab_size", 600},
                 {"max_position_embeddings", 514}});
  terse::write_synthetic_model(folder.path() / "model", config.dump(), {});
  for (const int threads : {1, 2}) {
    CAPTURE(threads);
    CHECK(allocations_of_second_pass(folder.path() / "model", threads) == 0);
  }
}

// The opening that the rows share, exits on the way, two compressions, scored rows at the end.
TEST_CASE("a decoder's forward pass allocates nothing") {
  const terse_test::TemporaryFolder folder;
  terse::ScoreOptions exits;
  exits.cutoff_layers = {2, 4};
  terse::ScoreOptions compressed = exits;
  compressed.compress_ratio = 2;
  compressed.compress_layers = {1, 3};
  struct Model {
    const char* name;
    terse::ScoreOptions options;
  };
  for (const Model& model :
       {Model{"bge-reranker-v2-gemma", {}}, Model{"bge-reranker-v2-minicpm-layerwise", exits},
        Model{"bge-reranker-v2.5-gemma2-lightweight", compressed}}) {
    CAPTURE(std::string(model.name));
    const auto path = folder.path() / model.name;
    auto config =
        nlohmann::json::parse(terse::published_config(terse::published_model(model.name), 5));
    config.update({{"hidden_size", 64},
                   {"num_attention_heads", 2},
                   {"num_key_value_heads", 1},
                   {"head_dim", 32},
                   {"intermediate_size", 96},
                   {"vocab_size", 600}});
    if (config.contains("start_layer")) config["start_layer"] = 1;
    terse::write_synthetic_model(path, config.dump(), {});
    for (const int threads : {1, 2}) {
      CAPTURE(threads);
      CHECK(allocations_of_second_pass(path, threads, model.options) == 0);
    }
  }
}

}  // namespace

#endif
