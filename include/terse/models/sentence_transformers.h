// What a sentence-transformers folder says beside the config: modules.json names its steps,
// 1_Pooling/config.json how token vectors become one, sentence_bert_config.json how long a row may
// be.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "terse/models/config.h"
#include "terse/models/model_files.h"
#include "terse/options.h"

namespace terse {

struct SentenceTransformers {
  Pooling pooling = Pooling::cls;
  std::optional<std::int64_t> max_length;  // max_seq_length, if given
};

// The pooling that one of the pooling_mode_* flags of a pooling config names. Throws Error: schema,
// unsupported (another mode, or several at once).
inline Pooling read_pooling(const Config& config) {
  std::optional<Pooling> pooling;
  for (const JsonValue member : config.root()) {
    if (!member.key().starts_with("pooling_mode_")) continue;
    if (!config.boolean_or(member.key(), false)) continue;
    check(!pooling, ErrorClass::unsupported, config.source(),
          ": several pooling modes at once are not implemented");
    if (member.key() == "pooling_mode_cls_token") {
      pooling = Pooling::cls;
    } else if (member.key() == "pooling_mode_mean_tokens") {
      pooling = Pooling::mean;
    } else if (member.key() == "pooling_mode_lasttoken") {
      pooling = Pooling::last;
    } else {
      fail(ErrorClass::unsupported, config.source(), ": ", member.key(),
           " is not implemented, only cls, mean and last token");
    }
  }
  check(pooling.has_value(), ErrorClass::schema, config.source(), ": no pooling mode is set");
  return *pooling;
}

// Reads whichever of the three files a folder has; `pooling` holds where it names none. Throws
// Error: json, schema, unsupported (a module other than Transformer, Pooling, Normalize).
inline SentenceTransformers read_sentence_transformers(const ModelFiles& files, Pooling pooling) {
  SentenceTransformers settings;
  settings.pooling = pooling;
  if (files.has("modules.json")) {
    const std::string modules = files.source("modules.json");
    const std::string text = files.text("modules.json", ConfigLimits::kBytes);
    const JsonDocument document = JsonDocument::parse(text, {}, modules);
    for (const JsonValue module : document.root().as_array("the list of modules")) {
      const auto type = module.as_object("a module").find("type");
      check(static_cast<bool>(type), ErrorClass::schema, modules, ": a module without type");
      const std::string_view name = type->as_string("type");
      check(name.ends_with(".Transformer") || name.ends_with(".Pooling") ||
                name.ends_with(".Normalize"),
            ErrorClass::unsupported, modules, ": module ", quote(name),
            " is not implemented, only Transformer, Pooling, Normalize");
    }
  }
  if (files.has("1_Pooling/config.json")) {
    settings.pooling = read_pooling(files.config("1_Pooling/config.json"));
  }
  if (files.has("sentence_bert_config.json")) {
    settings.max_length = files.config("sentence_bert_config.json")
                              .optional_integer("max_seq_length", 1, ConfigLimits::kPositions);
  }
  return settings;
}

}  // namespace terse
