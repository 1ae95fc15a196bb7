// Writes a cross-encoder of two layers and a few words: arbitrary weights, the published layout.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "terse/safetensors.h"

class TinyModel {
 public:
  // Throws terse::Error if the folder cannot be written.
  static void write(const std::filesystem::path& folder) {
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "config.json") << R"({
      "architectures": ["BertForSequenceClassification"], "model_type": "bert",
      "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
      "vocab_size": 8, "max_position_embeddings": 64, "type_vocab_size": 2, "pad_token_id": 0,
      "layer_norm_eps": 1e-12, "hidden_act": "gelu", "id2label": {"0": "LABEL_0"}})";
    std::ofstream(folder / "tokenizer.json") << R"({
      "added_tokens": [
        {"id": 0, "content": "[PAD]", "special": true, "single_word": false, "lstrip": false,
         "rstrip": false, "normalized": false},
        {"id": 1, "content": "[UNK]", "special": true, "single_word": false, "lstrip": false,
         "rstrip": false, "normalized": false},
        {"id": 2, "content": "[CLS]", "special": true, "single_word": false, "lstrip": false,
         "rstrip": false, "normalized": false},
        {"id": 3, "content": "[SEP]", "special": true, "single_word": false, "lstrip": false,
         "rstrip": false, "normalized": false}],
      "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                     "strip_accents": null, "lowercase": true},
      "pre_tokenizer": {"type": "BertPreTokenizer"},
      "post_processor": {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
        "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                 {"Sequence": {"id": "B", "type_id": 1}},
                 {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                           "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
      "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
      "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3,
        "panda": 4, "bear": 5, "eats": 6, "bamboo": 7}}})";
    TinyModel model;
    model.add_tensors();
    model.save(folder / "model.safetensors");
  }

 private:
  void add_tensors() {
    const std::string bert = "bert.";
    add(bert + "embeddings.word_embeddings.weight", {8, 8});
    add(bert + "embeddings.position_embeddings.weight", {64, 8});
    add(bert + "embeddings.token_type_embeddings.weight", {2, 8});
    add_pair(bert + "embeddings.LayerNorm", {8});
    for (const std::string layer : {"0", "1"}) {
      const std::string at = bert + "encoder.layer." + layer + ".";
      for (const char* name : {"query", "key", "value"}) {
        add_pair(at + "attention.self." + name, {8, 8});
      }
      add_pair(at + "attention.output.dense", {8, 8});
      add_pair(at + "attention.output.LayerNorm", {8});
      add_pair(at + "intermediate.dense", {16, 8});
      add_pair(at + "output.dense", {8, 16});
      add_pair(at + "output.LayerNorm", {8});
    }
    add_pair(bert + "pooler.dense", {8, 8});
    add_pair("classifier", {1, 8});
  }

  void add_pair(const std::string& module, const terse::Shape& weight) {
    add(module + ".weight", weight);
    add(module + ".bias", {weight.front()});
  }

  void add(const std::string& name, const terse::Shape& shape) {
    std::vector<float>& values = values_.emplace_back(terse::element_count(shape));
    for (float& value : values) value = next();
    names_.emplace_back(name, shape);
  }

  // Between -1 and 1, from a linear congruential generator.
  float next() {
    state_ = state_ * 1664525u + 1013904223u;
    return static_cast<float>(state_ >> 8) / 8388608.0f - 1.0f;
  }

  void save(const std::filesystem::path& path) const {
    std::vector<terse::NamedTensor> entries;
    for (std::size_t tensor = 0; tensor < names_.size(); ++tensor) {
      const auto& [name, shape] = names_[tensor];
      entries.push_back({name, {values_[tensor].data(), terse::DType::f32, shape}});
    }
    terse::write_safetensors(path.string(), entries);
  }

  std::vector<std::pair<std::string, terse::Shape>> names_;
  std::vector<std::vector<float>> values_;
  std::uint32_t state_ = 7;
};
