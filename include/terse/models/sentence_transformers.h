// What a sentence-transformers folder says beside the config: modules.json names its steps,
// 1_Pooling/config.json how token vectors become one, sentence_bert_config.json how long a row may
// be.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "terse/models/config.h"
#include "terse/options.h"

namespace terse {

struct SentenceTransformers {
  Pooling pooling = Pooling::cls;
  std::optional<std::int64_t> max_length;  // max_seq_length, if given
};

// The pooling that one of the pooling_mode_* flags of a pooling config names. Throws Error: schema,
// unsupported (another mode, or several at once).
inline Pooling read_pooling(const std::filesystem::path& file) {
  const Config config = Config::load(file);
  std::optional<Pooling> pooling;
  for (const JsonValue member : config.root()) {
    if (!member.key().starts_with("pooling_mode_")) continue;
    if (!config.boolean_or(member.key(), false)) continue;
    check(!pooling, ErrorClass::unsupported, file.string(),
          ": several pooling modes at once are not implemented");
    if (member.key() == "pooling_mode_cls_token") {
      pooling = Pooling::cls;
    } else if (member.key() == "pooling_mode_mean_tokens") {
      pooling = Pooling::mean;
    } else if (member.key() == "pooling_mode_lasttoken") {
      pooling = Pooling::last;
    } else {
      fail(ErrorClass::unsupported, file.string(), ": ", member.key(),
           " is not implemented, only cls, mean and last token");
    }
  }
  check(pooling.has_value(), ErrorClass::schema, file.string(), ": no pooling mode is set");
  return *pooling;
}

// Reads whichever of the three files a folder has; `pooling` holds where it names none. Throws
// Error: json, schema, unsupported (a module other than Transformer, Pooling, Normalize).
inline SentenceTransformers read_sentence_transformers(const std::filesystem::path& folder,
                                                       Pooling pooling) {
  SentenceTransformers settings;
  settings.pooling = pooling;
  const std::filesystem::path modules = folder / "modules.json";
  if (std::filesystem::exists(modules)) {
    const std::string text = read_text_file(modules.string(), ConfigLimits::kBytes);
    const JsonDocument document = JsonDocument::parse(text, {}, modules.string());
    for (const JsonValue module : document.root().as_array("the list of modules")) {
      const auto type = module.as_object("a module").find("type");
      check(static_cast<bool>(type), ErrorClass::schema, modules.string(),
            ": a module without type");
      const std::string_view name = type->as_string("type");
      check(name.ends_with(".Transformer") || name.ends_with(".Pooling") ||
                name.ends_with(".Normalize"),
            ErrorClass::unsupported, modules.string(), ": module ", quote(name),
            " is not implemented, only Transformer, Pooling, Normalize");
    }
  }
  const std::filesystem::path pooling_file = folder / "1_Pooling" / "config.json";
  if (std::filesystem::exists(pooling_file)) settings.pooling = read_pooling(pooling_file);
  const std::filesystem::path lengths = folder / "sentence_bert_config.json";
  if (std::filesystem::exists(lengths)) {
    settings.max_length =
        Config::load(lengths).optional_integer("max_seq_length", 1, ConfigLimits::kPositions);
  }
  return settings;
}

}  // namespace terse
