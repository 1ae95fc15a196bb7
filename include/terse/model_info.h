// What a loaded model is: for results, for `inspect`, for people.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "terse/cpu.h"
#include "terse/device.h"
#include "terse/dtype.h"

namespace terse {

enum class ModelRole : std::uint8_t { reranker, embedder };

struct ModelInfo {
  std::string architecture;  // "XLM-R reranker"
  std::string model_type;    // as in config.json
  ModelRole role = ModelRole::reranker;
  bool layer_wise = false;    // has exits
  bool compression = false;   // can compress passage tokens
  bool multi_vector = false;  // bge-m3: sparse and colbert outputs
  bool causal = false;
  std::int64_t num_hidden_layers = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_tokens = 0;      // longest row the positions allow
  std::vector<std::int64_t> exits;  // layers a score can be read after
  DType dtype = DType::f32;         // of the products
  Isa isa = Isa::reference;
  int threads = 1;
  Device device = Device::cpu;
  std::string device_note = {};  // why an automatic choice did not fall on an accelerator
};

}  // namespace terse
