// Reading config.json: every field a model uses is fetched through here, with its type and its
// range checked, before anything is sized by it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "terse/error.h"
#include "terse/file.h"
#include "terse/json.h"
#include "terse/ops/backend.h"

namespace terse {

// Upper bounds of what a config may ask for, far above any published model.
struct ConfigLimits {
  static constexpr std::int64_t kWidth = std::int64_t{1} << 20;  // hidden_size, intermediate_size
  static constexpr std::int64_t kLayers = 1024;
  static constexpr std::int64_t kHeads = 1024;
  static constexpr std::int64_t kVocabulary = std::int64_t{1} << 24;
  static constexpr std::int64_t kPositions = std::int64_t{1} << 20;
  static constexpr std::size_t kBytes = std::size_t{4} << 20;
};

// A config.json in memory. Every accessor throws Error naming the file and the key: type (another
// JSON type), range, missing (absent without a default), unsupported.
class Config {
 public:
  static Config load(const std::filesystem::path& file) {
    return parse(read_text_file(file, ConfigLimits::kBytes), file.string());
  }

  static Config parse(std::string_view text, std::string_view source) {
    const JsonLimits limits{ConfigLimits::kBytes, 64};
    Config config(JsonDocument::parse(text, limits, source));
    config.document_.root().as_object("the config");
    return config;
  }

  const std::string& source() const { return document_.source(); }
  JsonValue root() const { return document_.root(); }

  bool has(std::string_view key) const {
    const auto value = root().find(key);
    return value && !value->is_null();
  }

  // An integer field inside [min, max].
  std::int64_t integer(std::string_view key, std::int64_t min, std::int64_t max) const {
    const auto value = root().find(key);
    check(static_cast<bool>(value), ErrorClass::missing, source(), ": ", key, " is missing");
    check(value->is_integer(), ErrorClass::type, source(), ": ", key, " is ", value->describe(),
          ", expected an integer");
    return value->as_integer(key, min, max);
  }
  std::int64_t integer_or(std::string_view key, std::int64_t fallback, std::int64_t min,
                          std::int64_t max) const {
    return root().find(key) ? integer(key, min, max) : fallback;
  }
  // As integer_or, but null counts as absent.
  std::optional<std::int64_t> optional_integer(std::string_view key, std::int64_t min,
                                               std::int64_t max) const {
    if (!has(key)) return std::nullopt;
    return integer(key, min, max);
  }

  // A finite number field inside [min, max].
  double number(std::string_view key, double min, double max) const {
    const auto value = root().find(key);
    check(static_cast<bool>(value), ErrorClass::missing, source(), ": ", key, " is missing");
    check(value->is_number(), ErrorClass::type, source(), ": ", key, " is ", value->describe(),
          ", expected a number");
    const double result = value->as_number(key);
    check(result >= min && result <= max, ErrorClass::range, source(), ": ", key, " is ",
          value->describe(), ", expected ", min, " to ", max);
    return result;
  }
  double number_or(std::string_view key, double fallback, double min, double max) const {
    return root().find(key) ? number(key, min, max) : fallback;
  }

  bool boolean_or(std::string_view key, bool fallback) const {
    if (!has(key)) return fallback;
    const JsonValue value = *root().find(key);
    check(value.is_boolean(), ErrorClass::type, source(), ": ", key, " is ", value.describe(),
          ", expected true or false");
    return value.as_boolean(key);
  }

  std::string string_or(std::string_view key, std::string_view fallback) const {
    if (!has(key)) return std::string(fallback);
    const JsonValue value = *root().find(key);
    check(value.is_string(), ErrorClass::type, source(), ": ", key, " is ", value.describe(),
          ", expected a string");
    return std::string(value.as_string(key));
  }

  // The first entry of `architectures`, or nothing.
  std::string architecture() const {
    const auto list = root().find("architectures");
    if (!list || list->is_null()) return {};
    check(list->is_array(), ErrorClass::type, source(), ": architectures is ", list->describe(),
          ", expected a list of strings");
    for (const JsonValue name : *list) {
      check(name.is_string(), ErrorClass::type, source(), ": architectures holds ", name.describe(),
            ", expected strings");
      return std::string(name.as_string("architectures"));
    }
    return {};
  }

  // Refuses a field whose effect is not implemented unless it has the one value that asks for none.
  void require(std::string_view key, std::string_view only) const {
    const std::string value = string_or(key, only);
    check(value == only, ErrorClass::unsupported, source(), ": ", key, " ", quote(value),
          " is not implemented, only ", quote(only));
  }
  void refuse(std::string_view key) const {
    check(!has(key), ErrorClass::unsupported, source(), ": ", key,
          " is set, which is not implemented");
  }

  // The activation that the Hugging Face name of a field stands for.
  Activation activation(std::string_view key, std::string_view fallback) const {
    const std::string name = string_or(key, fallback);
    if (name == "gelu") return Activation::gelu_erf;
    if (name == "gelu_pytorch_tanh" || name == "gelu_new") return Activation::gelu_tanh;
    if (name == "silu" || name == "swish") return Activation::silu;
    if (name == "relu") return Activation::relu;
    fail(ErrorClass::unsupported, source(), ": ", key, " ", quote(name),
         " is not implemented, only gelu, gelu_pytorch_tanh, silu, relu");
  }

 private:
  explicit Config(JsonDocument document) : document_(std::move(document)) {}
  JsonDocument document_;
};

}  // namespace terse
