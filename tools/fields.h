// The choices of a call (ScoreOptions, EmbedOptions) listed once, for the command line and for the
// "options" object of an input line: max_length is --max-length there and "max_length" here.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "command.h"
#include "terse/error.h"
#include "terse/json.h"
#include "terse/options.h"

namespace terse_tools {

inline constexpr std::int64_t kMaxCount = std::int64_t{1} << 31;

inline constexpr Choice<terse::Truncation> kTruncations[] = {
    {"passage", terse::Truncation::passage},
    {"longest-first", terse::Truncation::longest_first},
    {"error", terse::Truncation::error},
    {"chunk", terse::Truncation::chunk}};
inline constexpr Choice<terse::Heads> kHeads[] = {{"ordinal", terse::Heads::ordinal},
                                                  {"own", terse::Heads::own}};
inline constexpr Choice<terse::Switch> kSwitches[] = {
    {"auto", terse::Switch::automatic}, {"on", terse::Switch::on}, {"off", terse::Switch::off}};
inline constexpr Choice<terse::Gelu> kGelus[] = {
    {"auto", terse::Gelu::automatic}, {"tanh", terse::Gelu::tanh}, {"erf", terse::Gelu::erf}};
inline constexpr Choice<terse::Pooling> kPoolings[] = {{"auto", terse::Pooling::automatic},
                                                       {"cls", terse::Pooling::cls},
                                                       {"mean", terse::Pooling::mean},
                                                       {"last", terse::Pooling::last}};

// Calls visitor once for every field that may differ from line to line: visitor.integer(name,
// field, least, help) and so on.
template <class Visitor>
void visit_fields(terse::ScoreOptions& options, Visitor&& visitor) {
  visitor.integer("max_length", options.max_length, 1, "Tokens of a pair, at most [512]");
  visitor.integer("query_max_length", options.query_max_length, 1,
                  "Tokens of a query, at most [3/4 of max-length]");
  visitor.choice("truncation", options.truncation, kTruncations,
                 "How a pair that is too long is cut [passage]");
  visitor.flag("normalize", options.normalize, "Print the sigmoid of the score");
  visitor.instruction("query_instruction", options.query_instruction, "the query");
  visitor.instruction("passage_instruction", options.passage_instruction, "the passage");
  visitor.text("prompt", options.prompt, "Prompt of a decoder reranker");
  visitor.integers("cutoff_layers", options.cutoff_layers, 0,
                   "Layers to read scores after (layer-wise models)");
  visitor.integers("compress_layers", options.compress_layers, 0,
                   "Layers before which the passage is compressed (lightweight model) [8]");
  visitor.integer("compress_ratio", options.compress_ratio, 1,
                  "Passage tokens that become one [1: none]");
  visitor.choice("heads", options.heads, kHeads, "Score heads of the lightweight model [ordinal]");
  visitor.choice("attention_softcap", options.attention_softcap, kSwitches,
                 "Soft-capping of attention logits (Gemma 2) [auto]");
  visitor.choice("gelu", options.gelu, kGelus, "Form of GELU (Gemma 1) [auto]");
}

template <class Visitor>
void visit_fields(terse::EmbedOptions& options, Visitor&& visitor) {
  visitor.integer("max_length", options.max_length, 1, "Tokens of a text, at most [the model's]");
  visitor.instruction("query_instruction", options.query_instruction, "texts of kind query");
}

// The fields that hold for a whole call.
template <class Visitor>
void visit_call_fields(terse::EmbedOptions& options, Visitor&& visitor) {
  visitor.choice("pooling", options.pooling, kPoolings,
                 "How token vectors become one [auto: as the model folder says]");
  visitor.flag("normalize", options.normalize, "Scale vectors to length 1 [on]");
  visitor.integer("truncate_dim", options.truncate_dim, 0, "Keep only the first columns [0: all]");
}

// --weights of bge-m3's mixed scores: dense, sparse, colbert.
inline CLI::Option* add_m3_weights(CLI::App& app, std::array<double, 3>& weights) {
  return app
      .add_option_function<std::string>(
          "--weights",
          [&weights](const std::string& text) {
            const std::vector<std::string> parts = split_list(text);
            terse::check(parts.size() == weights.size(), terse::ErrorClass::range, "--weights has ",
                         parts.size(), " numbers, expected 3");
            for (std::size_t part = 0; part < parts.size(); ++part) {
              weights[part] = parse_number<double>(parts[part], "--weights");
            }
          },
          "Weights of dense, sparse and colbert in the mixed scores of bge-m3 [1,1,1]")
      ->type_name("W,W,W");
}

// Adds each field as an option of a subcommand. A value outside its range throws Error(range).
class CommandLineFields {
 public:
  explicit CommandLineFields(CLI::App& app) : app_(app) {}

  template <class Field>
  void integer(std::string_view name, Field& field, std::int64_t least, const char* help) {
    const std::string option = option_name(name);
    add(option, help, "N", [option, &field, least](const std::string& text) {
      field = parse_integer(text, least, option);
    });
  }

  template <class Field>
  void integers(std::string_view name, Field& field, std::int64_t least, const char* help) {
    const std::string option = option_name(name);
    add(option, help, "N,N,...", [option, &field, least](const std::string& text) {
      std::vector<std::int64_t> values;
      for (const std::string& part : split_list(text)) {
        values.push_back(parse_integer(part, least, option));
      }
      field = std::move(values);
    });
  }

  template <class Field, class Choices>
  void choice(std::string_view name, Field& field, const Choices& choices, const char* help) {
    add_choice(app_, option_name(name), field, choices, help);
  }

  void flag(std::string_view name, bool& field, const char* help) {
    const std::string option = option_name(name);
    app_.add_flag(option + ",!--no-" + option.substr(2), field, help);
  }

  void text(std::string_view name, std::optional<std::string>& field, const char* help) {
    add(option_name(name), help, "TEXT", [&field](const std::string& text) { field = text; });
  }

  void instruction(std::string_view name, terse::Instruction& field, const std::string& subject) {
    const std::string option = option_name(name);
    add(option, "Instruction put before " + subject, "TEXT", [&field](const std::string& text) {
      field.state = terse::Instruction::State::given;
      field.text = text;
    });
    add(option + "-format", "Where instruction and text go [{}{}]", "TEXT",
        [&field](const std::string& text) { field.format = text; });
  }

 private:
  static std::string option_name(std::string_view name) {
    std::string option = "--" + std::string(name);
    std::replace(option.begin(), option.end(), '_', '-');
    return option;
  }

  static std::int64_t parse_integer(std::string_view text, std::int64_t least,
                                    const std::string& option) {
    const auto value = parse_number<std::int64_t>(text, option);
    terse::check(value >= least && value <= kMaxCount, terse::ErrorClass::range, option, " is ",
                 value, ", expected ", least, " to ", kMaxCount);
    return value;
  }

  template <class Set>
  void add(const std::string& option, const std::string& help, const char* value_name, Set&& set) {
    app_.add_option_function<std::string>(option, set, help)->type_name(value_name);
  }

  CLI::App& app_;
};

// Reads the fields that the "options" object of an input line has; null counts as absent, except
// that it takes an instruction away. Throws Error: schema (a value of the wrong kind), range.
class LineFields {
 public:
  explicit LineFields(terse::JsonValue options) : options_(options) {
    options_.as_object("options");
  }

  // To be called when all fields have been visited. Throws Error(schema) for a name that is none.
  void refuse_unknown() const {
    for (const terse::JsonValue member : options_) {
      terse::check(std::find(known_.begin(), known_.end(), member.key()) != known_.end(),
                   terse::ErrorClass::schema, options_.source(), ": no option is called ",
                   terse::quote(member.key()));
    }
  }

  template <class Field>
  void integer(std::string_view name, Field& field, std::int64_t least, const char*) {
    if (const auto value = find(name)) field = value->as_integer(name, least, kMaxCount);
  }

  template <class Field>
  void integers(std::string_view name, Field& field, std::int64_t least, const char*) {
    const auto list = find(name);
    if (!list) return;
    std::vector<std::int64_t> values;
    for (const terse::JsonValue value : list->as_array(name)) {
      values.push_back(value.as_integer(name, least, kMaxCount));
    }
    field = std::move(values);
  }

  template <class Field, class Choices>
  void choice(std::string_view name, Field& field, const Choices& choices, const char*) {
    if (const auto value = find(name)) field = choose(value->as_string(name), choices, name);
  }

  void flag(std::string_view name, bool& field, const char*) {
    if (const auto value = find(name)) field = value->as_boolean(name);
  }

  void text(std::string_view name, std::optional<std::string>& field, const char*) {
    if (const auto value = find(name)) field = std::string(value->as_string(name));
  }

  void instruction(std::string_view name, terse::Instruction& field, const char*) {
    const auto given = options_.find(name);
    if (given && given->is_null()) field.state = terse::Instruction::State::none;
    if (const auto value = find(name)) {
      field.state = terse::Instruction::State::given;
      field.text = value->as_string(name);
    }
    const std::string format_name = std::string(name) + "_format";
    if (const auto value = find(format_name)) field.format = value->as_string(format_name);
  }

 private:
  std::optional<terse::JsonValue> find(std::string_view name) {
    known_.emplace_back(name);
    return optional_member(options_, name);
  }

  terse::JsonValue options_;
  std::vector<std::string> known_;
};

// The options of a line: those of the command line, with what its "options" object says instead.
// Throws Error: schema, range.
template <class Options>
Options line_options(const Options& defaults, terse::JsonValue object) {
  Options options = defaults;
  LineFields fields(object);
  visit_fields(options, fields);
  fields.refuse_unknown();
  return options;
}

}  // namespace terse_tools
