// Made-up models: shards, element types, the made-up tokenizer, and what is left after a failure.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support.h"
#include "terse/embed.h"
#include "terse/published.h"
#include "terse/rerank.h"
#include "terse/synth.h"

namespace {

using nlohmann::json;
using terse_test::error_class_of;
using terse_test::TemporaryFolder;

// A published model made small enough for a test.
std::string small_config(const std::string& name) {
  json config = json::parse(terse::published_config(terse::published_model(name), 2));
  config.update({{"hidden_size", 32},
                 {"intermediate_size", 48},
                 {"num_attention_heads", 4},
                 {"vocab_size", 600}});
  if (config.contains("num_key_value_heads")) config["num_key_value_heads"] = 4;
  return config.dump();
}

std::vector<float> scores_of(const std::filesystem::path& folder) {
  const std::vector<terse::Pair> pairs = {{"what is panda?", "hi"}, {"", "大熊猫"}};
  return terse::Reranker::load(folder).score(pairs);
}

}  // namespace

TEST_CASE("shards hold the same model as one file, and decoders score it") {
  for (const char* name : {"bge-reranker-v2-gemma", "bge-reranker-v2-minicpm-layerwise",
                           "bge-reranker-v2.5-gemma2-lightweight", "bge-reranker-large"}) {
    CAPTURE(name);
    const TemporaryFolder temporary;
    terse::SynthOptions options;
    terse::write_synthetic_model(temporary.path() / "one", small_config(name), options);
    options.shard_bytes = 20'000;
    options.threads = 3;
    terse::write_synthetic_model(temporary.path() / "many", small_config(name), options);
    CHECK_FALSE(std::filesystem::exists(temporary.path() / "many" / "model.safetensors"));
    const auto index =
        json::parse(terse_test::read_file(temporary.path() / "many/model.safetensors.index.json"));
    CHECK(index["weight_map"].size() ==
          terse::Checkpoint::open((temporary.path() / "one").string())->size());
    const auto scores = scores_of(temporary.path() / "one");
    CHECK(scores == scores_of(temporary.path() / "many"));
    CHECK(scores[0] != scores[1]);
  }
}

TEST_CASE("a value is the same in every type, but for its rounding") {
  const TemporaryFolder temporary;
  const auto weight = [&](terse::DType dtype) {
    terse::SynthOptions options;
    options.dtype = dtype;
    const auto folder = temporary.path() / terse::dtype_name(dtype);
    terse::write_synthetic_model(folder, small_config("bge-reranker-base"), options);
    const auto checkpoint = terse::Checkpoint::open(folder.string());
    const terse::TensorView view =
        checkpoint->root().get_any("roberta.encoder.layer.1.output.dense.weight");
    CHECK(view.dtype == dtype);
    std::vector<float> values(static_cast<std::size_t>(view.size()));
    terse::convert_to(values.data(), view.data, view.dtype, values.size());
    return values;
  };
  const auto f32 = weight(terse::DType::f32);
  const auto f16 = weight(terse::DType::f16);
  const auto bf16 = weight(terse::DType::bf16);
  bool rounded = true;
  for (std::size_t i = 0; i < f32.size(); ++i) {
    rounded = rounded && f16[i] == terse::to_f32(terse::to_f16(f32[i])) &&
              bf16[i] == terse::to_f32(terse::to_bf16(f32[i]));
  }
  CHECK(rounded);
}

TEST_CASE("bge-m3 has its two more heads") {
  const TemporaryFolder temporary;
  terse::SynthOptions options;
  options.multi_vector_heads = true;
  terse::write_synthetic_model(temporary.path() / "m3", small_config("bge-m3"), options);
  const auto embedder = terse::Embedder::load(temporary.path() / "m3");
  CHECK(embedder.info().multi_vector);
  terse::EmbedOptions outputs;
  outputs.sparse = outputs.colbert = true;
  const std::vector<terse::Text> texts = {{"hello"}};
  const auto result = embedder.embed(texts, outputs)[0];
  CHECK(result.colbert_rows == 6);
  CHECK_FALSE(result.sparse.empty());
}

TEST_CASE("ids of the made-up tokenizer are bytes spread over the vocabulary") {
  const std::string text = terse::published_config(terse::published_model("bge-reranker-base"));
  const auto config = terse::Config::parse(text, "config");
  const TemporaryFolder temporary;
  const auto file = temporary.path() / "tokenizer.json";
  terse_test::write_file(file, terse::synthetic_tokenizer(config, terse::read_model_shape(config)));
  const auto tokenizer = terse::Tokenizer::load(file);
  const std::int32_t step = (250002 - 257) / 256;
  CHECK(tokenizer.encode(std::string("\x01~", 2)) ==
        std::vector<terse::TokenId>{256 + step, 256 + '~' * step});
  CHECK(tokenizer.max_id() == 250001);
}

TEST_CASE("a failure leaves nothing, and says why") {
  const TemporaryFolder temporary;
  const auto folder = temporary.path() / "model";
  const auto failure = [&](const std::string& config, const terse::SynthOptions& options) {
    const std::string name =
        error_class_of([&] { terse::write_synthetic_model(folder, config, options); });
    CHECK(std::filesystem::is_empty(temporary.path()));
    return name;
  };
  const std::string config = small_config("bge-reranker-base");
  terse::SynthOptions options;
  std::uint64_t seen = 0;
  options.progress = [&](std::uint64_t done, std::uint64_t) { seen = done; };
  options.cancel = [&] { return seen > 50'000; };
  CHECK(failure(config, options) == "cancelled");
  CHECK(seen > 50'000);
  options = {};
  options.dtype = terse::DType::f64;
  CHECK(failure(config, options) == "unsupported");
  options = {};
  options.tokenizer = temporary.path() / "absent.json";
  CHECK(failure(config, options) == "io");
  json small = json::parse(config);
  small["vocab_size"] = 512;
  CHECK(failure(small.dump(), {}) == "range");
  json huge = json::parse(config);
  huge.update({{"hidden_size", 1 << 20}, {"intermediate_size", 1 << 20}});
  CHECK(failure(huge.dump(), {}) == "io");  // more than any disk here holds
}
