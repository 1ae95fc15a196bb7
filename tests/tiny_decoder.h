// Writes small decoders in the published folder form: random weights, every character a token. What
// they score means nothing; that it is always the same does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "terse/safetensors.h"

namespace terse_test {

class TinyDecoder {
 public:
  static constexpr std::int64_t kLayers = 5;
  static constexpr std::int64_t kWidth = 24;
  static constexpr std::int64_t kHeads = 4;
  static constexpr std::int64_t kKeyHeads = 2;
  static constexpr std::int64_t kHeadDim = 10;  // heads * head_dim is not the width
  static constexpr std::int64_t kWide = 40;
  static constexpr std::int64_t kStartLayer = 2;
  static constexpr std::int64_t kBos = 2;

  struct Weight {
    terse::Shape shape;
    std::vector<double> values;
  };

  nlohmann::json config;
  std::map<std::string, Weight> weights;

  explicit TinyDecoder(const std::string& model_type) : random_(7) {
    const std::int64_t vocabulary = static_cast<std::int64_t>(tokenizer()["model"]["vocab"].size());
    config = {{"model_type", model_type},
              {"architectures", {"TinyDecoder"}},
              {"vocab_size", vocabulary},
              {"hidden_size", kWidth},
              {"num_hidden_layers", kLayers},
              {"num_attention_heads", kHeads},
              {"num_key_value_heads", kKeyHeads},
              {"head_dim", kHeadDim},
              {"intermediate_size", kWide},
              {"max_position_embeddings", 512},
              {"rope_theta", 10000.0},
              {"rms_norm_eps", 1e-6}};
    const bool gemma2 = model_type == "gemma2" || model_type == "cost_wise_gemma";
    const bool exits = model_type == "minicpm" || model_type.starts_with("cost_wise");
    if (gemma2) {
      config.update({{"query_pre_attn_scalar", 9},
                     {"sliding_window", 11},
                     {"attn_logit_softcapping", 5.0},
                     {"final_logit_softcapping", 8.0}});
    }
    if (model_type == "minicpm") config.update({{"scale_emb", 3}, {"scale_depth", 1.4}});
    if (model_type.ends_with("mistral")) config["sliding_window"] = 13;
    if (exits) config.update({{"start_layer", kStartLayer}, {"layer_sep", 1}});
    if (model_type.starts_with("cost_wise")) config["layer_wise"] = true;
    add_weights(vocabulary, gemma2, exits);
  }

  // config.json, tokenizer.json, tokenizer_config.json and weights of type `dtype`.
  void write(const std::filesystem::path& folder, terse::DType dtype = terse::DType::f32) const {
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "config.json") << config.dump();
    std::ofstream(folder / "tokenizer.json") << tokenizer().dump();
    std::ofstream(folder / "tokenizer_config.json")
        << R"({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"})";
    write_weights(folder / "model.safetensors", weights, dtype);
  }

  static void write_weights(const std::filesystem::path& file,
                            const std::map<std::string, Weight>& weights, terse::DType dtype) {
    std::vector<terse::NamedTensor> entries;
    std::vector<terse::Tensor> tensors;
    for (const auto& [name, weight] : weights) {
      tensors.emplace_back(dtype, weight.shape);
      for (std::size_t i = 0; i < weight.values.size(); ++i) {
        if (dtype == terse::DType::f64) {
          tensors.back().data<double>()[i] = weight.values[i];
        } else if (dtype == terse::DType::bf16) {
          tensors.back().data<terse::bf16>()[i] =
              terse::to_bf16(static_cast<float>(weight.values[i]));
        } else {
          tensors.back().data<float>()[i] = static_cast<float>(weight.values[i]);
        }
      }
      entries.push_back({name, tensors.back().view()});
    }
    terse::write_safetensors(file.string(), entries);
  }

  Weight random_weight(const terse::Shape& shape, double mean, double deviation) {
    Weight weight{shape, {}};
    std::normal_distribution<double> normal(mean, deviation);
    for (std::uint64_t i = 0; i < terse::element_count(shape); ++i) {
      weight.values.push_back(normal(random_));
    }
    return weight;
  }

  // Four special tokens, newline, then the printable characters of ASCII.
  static nlohmann::json tokenizer() {
    nlohmann::json vocabulary = {{"<pad>", 0}, {"<eos>", 1}, {"<bos>", 2}, {"<unk>", 3}, {"\n", 4}};
    nlohmann::json added = nlohmann::json::array();
    for (const char* token : {"<pad>", "<eos>", "<bos>", "<unk>"}) {
      added.push_back({{"id", added.size()},
                       {"content", token},
                       {"special", true},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false}});
    }
    for (char character = ' '; character <= '~'; ++character) {
      vocabulary[std::string(1, character)] = character - ' ' + 5;
    }
    return {{"version", "1.0"},
            {"added_tokens", added},
            {"model",
             {{"type", "BPE"},
              {"vocab", vocabulary},
              {"merges", nlohmann::json::array()},
              {"unk_token", "<unk>"}}}};
  }

 private:
  void add(const std::string& name, const terse::Shape& shape, double mean, double deviation) {
    weights[name] = random_weight(shape, mean, deviation);
  }

  void add_weights(std::int64_t vocabulary, bool gemma2, bool exits) {
    const double norm_mean = gemma2 || config["model_type"] == "gemma" ? 0.0 : 1.0;
    add("model.embed_tokens.weight", {vocabulary, kWidth}, 0, 1);
    add("model.norm.weight", {kWidth}, norm_mean, 0.2);
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
      const std::string name = "model.layers." + std::to_string(layer) + ".";
      for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
        add(name + norm + ".weight", {kWidth}, norm_mean, 0.2);
      }
      for (const char* norm : {"pre_feedforward_layernorm", "post_feedforward_layernorm"}) {
        if (gemma2) add(name + norm + ".weight", {kWidth}, norm_mean, 0.2);
      }
      const std::string attention = name + "self_attn.";
      add(attention + "q_proj.weight", {kHeads * kHeadDim, kWidth}, 0, 0.3);
      add(attention + "k_proj.weight", {kKeyHeads * kHeadDim, kWidth}, 0, 0.3);
      add(attention + "v_proj.weight", {kKeyHeads * kHeadDim, kWidth}, 0, 0.3);
      add(attention + "o_proj.weight", {kWidth, kHeads * kHeadDim}, 0, 0.2);
      add(name + "mlp.gate_proj.weight", {kWide, kWidth}, 0, 0.2);
      add(name + "mlp.up_proj.weight", {kWide, kWidth}, 0, 0.2);
      add(name + "mlp.down_proj.weight", {kWidth, kWide}, 0, 0.2);
    }
    for (std::int64_t head = 0; exits && head <= kLayers - kStartLayer; ++head) {
      add("lm_head." + std::to_string(head) + ".linear_head.weight", {1, kWidth}, 0, 0.3);
    }
  }

  std::mt19937_64 random_;
};

}  // namespace terse_test
