// LoRA adapters: merged weights against W + scale B A computed here in double, and what is refused.
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support.h"
#include "terse/embed.h"
#include "terse/rerank.h"
#include "tiny_decoder.h"

namespace {

using nlohmann::json;
using terse_test::TemporaryFolder;
using terse_test::TinyDecoder;

constexpr std::int64_t kRank = 3;

// An adapter of a model: changes of some modules, one head replaced.
struct Adapter {
  json config = {{"peft_type", "LORA"}, {"r", kRank}, {"lora_alpha", 6}, {"bias", "none"}};
  std::map<std::string, TinyDecoder::Weight> weights;

  void change(TinyDecoder& model, const std::string& module, std::int64_t rank = kRank) {
    const terse::Shape& shape = model.weights.at(module + ".weight").shape;
    const std::string name = "base_model.model." + module;
    weights[name + ".lora_A.weight"] = model.random_weight({rank, shape[1]}, 0, 0.3);
    weights[name + ".lora_B.weight"] = model.random_weight({shape[0], rank}, 0, 0.3);
  }

  void replace(TinyDecoder& model, const std::string& module) {
    weights["base_model.model." + module + ".weight"] =
        model.random_weight(model.weights.at(module + ".weight").shape, 0, 0.3);
  }

  void write(const std::filesystem::path& folder, terse::DType dtype) const {
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "adapter_config.json") << config.dump();
    TinyDecoder::write_weights(folder / "adapter_model.safetensors", weights, dtype);
  }

  // The model with the adapter merged, W + scale B A, in double.
  TinyDecoder merged(TinyDecoder model) const {
    for (auto& [name, weight] : model.weights) {
      const std::string stem =
          "base_model.model." + name.substr(0, name.size() - std::string(".weight").size());
      if (const auto whole = weights.find(stem + ".weight"); whole != weights.end()) {
        weight = whole->second;
      }
      const auto a = weights.find(stem + ".lora_A.weight");
      if (a == weights.end()) continue;
      const auto& b = weights.at(stem + ".lora_B.weight").values;
      const auto rank = static_cast<std::size_t>(a->second.shape[0]);
      const auto columns = static_cast<std::size_t>(weight.shape[1]);
      const double divisor = static_cast<double>(rank);
      const double scale = config["lora_alpha"].get<double>() /
                           (config.value("use_rslora", false) ? std::sqrt(divisor) : divisor);
      for (std::size_t i = 0; i < weight.values.size(); ++i) {
        for (std::size_t k = 0; k < rank; ++k) {
          weight.values[i] +=
              scale * b[i / columns * rank + k] * a->second.values[k * columns + i % columns];
        }
      }
    }
    return model;
  }
};

terse::LoadOptions f64_options() {
  terse::LoadOptions options;
  options.isa = terse::Isa::reference;
  options.dtype = terse::DType::f64;
  return options;
}

// Scores of one pair after every exit.
std::vector<float> scores(const std::filesystem::path& model,
                          const std::filesystem::path& adapter) {
  terse::LoadOptions options = f64_options();
  options.adapter = adapter;
  const auto reranker = terse::Reranker::load(model, options);
  terse::ScoreOptions all_exits;
  all_exits.cutoff_layers = reranker.info().exits;
  const std::vector<terse::Pair> pairs = {{"what is a panda?", "The panda is a bear."}};
  const auto result = reranker.score_each(pairs, all_exits)[0];
  REQUIRE_FALSE(result.error.has_value());
  return result.scores;
}

double worst_gap(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return worst;
}

// Every kind of change a decoder can have.
Adapter full_adapter(TinyDecoder& model) {
  Adapter adapter;
  for (const char* module : {"q_proj", "v_proj", "o_proj"}) {
    adapter.change(model, std::string("model.layers.1.self_attn.") + module);
  }
  for (const char* module : {"gate_proj", "up_proj", "down_proj"}) {
    adapter.change(model, std::string("model.layers.3.mlp.") + module);
  }
  return adapter;
}

}  // namespace

TEST_CASE("an adapter scores like the model with its changes made in double") {
  for (const std::string model_type :
       {"gemma", "minicpm", "cost_wise_gemma", "cost_wise_mistral"}) {
    for (const bool rslora : {false, true}) {
      CAPTURE(model_type);
      const TemporaryFolder folder;
      TinyDecoder model(model_type);
      Adapter adapter = full_adapter(model);
      if (rslora) adapter.config["use_rslora"] = true;
      if (model_type != "gemma") {
        adapter.change(model, "lm_head.1.linear_head");
        adapter.replace(model, "lm_head.2.linear_head");
      }
      model.write(folder.path() / "base", terse::DType::f64);
      adapter.write(folder.path() / "adapter", terse::DType::f64);
      adapter.merged(model).write(folder.path() / "merged", terse::DType::f64);
      const auto plain = scores(folder.path() / "base", "");
      const auto changed = scores(folder.path() / "base", folder.path() / "adapter");
      const auto golden = scores(folder.path() / "merged", "");
      // In double only the rounding of scores below 16 to f32 is left.
      CHECK(worst_gap(changed, golden) <= 16 * 0x1p-24);
      CHECK(worst_gap(changed, plain) > 1e-3);
    }
  }
}

TEST_CASE("weights of f32 are merged in f32") {
  const TemporaryFolder folder;
  TinyDecoder model("minicpm");
  const Adapter adapter = full_adapter(model);
  model.write(folder.path() / "base");
  adapter.write(folder.path() / "adapter", terse::DType::f32);
  adapter.merged(model).write(folder.path() / "merged", terse::DType::f64);
  const auto changed = scores(folder.path() / "base", folder.path() / "adapter");
  const auto golden = scores(folder.path() / "merged", "");
  // Weights and factors are rounded to 2^-24 of themselves; five layers carry that to the score.
  CHECK(worst_gap(changed, golden) <= 1e-4);
}

TEST_CASE("an embedder's adapter names modules without the model in front") {
  const TemporaryFolder folder;
  TinyDecoder model("mistral");
  Adapter adapter = full_adapter(model);
  model.write(folder.path() / "base", terse::DType::f64);
  adapter.merged(model).write(folder.path() / "merged", terse::DType::f64);
  std::map<std::string, TinyDecoder::Weight> short_names;
  for (const auto& [name, weight] : adapter.weights) {
    short_names["base_model." + name.substr(std::string("base_model.model.").size())] = weight;
  }
  adapter.weights = short_names;
  adapter.write(folder.path() / "adapter", terse::DType::f64);
  terse::LoadOptions options = f64_options();
  const std::vector<terse::Text> texts = {{"a bear"}};
  const auto golden = terse::Embedder::load(folder.path() / "merged", options).embed(texts);
  options.adapter = folder.path() / "adapter";
  const auto changed = terse::Embedder::load(folder.path() / "base", options).embed(texts);
  CHECK(worst_gap(changed[0].dense, golden[0].dense) <= 0x1p-24);
}

TEST_CASE("an adapter that would not do what it says is refused") {
  const TemporaryFolder folder;
  TinyDecoder model("minicpm");
  model.write(folder.path() / "base");
  const auto class_with = [&](const auto& spoil) {
    Adapter adapter = full_adapter(model);
    spoil(adapter);
    const auto at = folder.path() / "adapter";
    adapter.write(at, terse::DType::f32);
    terse::LoadOptions options = f64_options();
    options.adapter = at;
    return terse_test::error_class_of(
        [&] { terse::Reranker::load(folder.path() / "base", options); });
  };
  const std::string module = "base_model.model.model.layers.1.self_attn.q_proj";
  CHECK(class_with([](Adapter&) {}) == "none");
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias"}) {
    CHECK(class_with([&](Adapter& a) { a.config[key] = true; }) == "unsupported");
  }
  CHECK(class_with([](Adapter& a) { a.config["bias"] = "all"; }) == "unsupported");
  CHECK(class_with([](Adapter& a) { a.config["peft_type"] = "IA3"; }) == "unsupported");
  CHECK(class_with([](Adapter& a) {
          a.config["alpha_pattern"] = {{"q_proj", 4}};
        }) == "unsupported");
  CHECK(class_with([](Adapter& a) { a.config.erase("r"); }) == "missing");
  CHECK(class_with([](Adapter& a) { a.config["r"] = 0; }) == "range");
  CHECK(class_with([](Adapter& a) { a.config["r"] = 4; }) == "shape_mismatch");
  CHECK(class_with([&](Adapter& a) { a.weights.erase(module + ".lora_B.weight"); }) ==
        "missing_tensor");
  CHECK(class_with([&](Adapter& a) {
          a.weights[module + ".lora_A.weight"] = model.random_weight({kRank, 7}, 0, 1);
        }) == "shape_mismatch");
  CHECK(class_with([&](Adapter& a) {
          a.weights["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] =
              model.random_weight({kRank, TinyDecoder::kWidth}, 0, 1);
          a.weights["base_model.model.model.layers.9.mlp.up_proj.lora_B.weight"] =
              model.random_weight({TinyDecoder::kWide, kRank}, 0, 1);
        }) == "unsupported");
  CHECK(class_with([&](Adapter& a) { a.replace(model, "model.embed_tokens"); }) == "unsupported");
  CHECK(class_with([&](Adapter& a) {
          a.weights["base_model.model.model.embed_tokens.lora_embedding_A"] =
              model.random_weight({kRank, 9}, 0, 1);
        }) == "unsupported");
  CHECK(class_with([&](Adapter& a) {
          a.config["rank_pattern"] = {{"k_proj", 2}};
          a.change(model, "model.layers.0.self_attn.k_proj", 2);
        }) == "none");
}
