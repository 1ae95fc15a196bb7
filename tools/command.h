// What every subcommand shares: how it is registered, the options of model, input and output, and
// messages on standard error.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "output.h"
#include "progress.h"
#include "table.h"
#include "terse/error.h"
#include "terse/options.h"

namespace terse_tools {

// Exit codes of the command.
enum ExitCode : int {
  kSuccess = 0,
  kLinesFailed = 1,
  kWrongUsage = 2,
  kRefused = 3,  // the model, the tokenizer or a whole file
  kNoMemory = 4,
  kNoDevice = 5,
};

// What the subcommand on the command line will do; returns an exit code.
using Action = std::function<int()>;

// Registers a subcommand: `Command` has add_options(CLI::App&) and run().
template <class Command>
void add_command(CLI::App& app, Action& action, const char* name, const char* summary) {
  CLI::App* subcommand = app.add_subcommand(name, summary);
  auto command = std::make_shared<Command>();
  command->add_options(*subcommand);
  subcommand->callback([command, &action] { action = [command] { return command->run(); }; });
}

// A name on the command line or on an input line, and what it stands for.
template <class T>
struct Choice {
  const char* name;
  T value;
};

// The value called name, in which "_" and "-" are the same. Throws Error(range) listing the names.
template <class Choices>
auto choose(std::string_view name, const Choices& choices, std::string_view what) {
  std::string dashed(name);
  for (char& c : dashed) c = c == '_' ? '-' : c;
  std::string names;
  for (const auto& choice : choices) {
    if (dashed == choice.name) return choice.value;
    names += (names.empty() ? "" : ", ") + std::string(choice.name);
  }
  terse::fail(terse::ErrorClass::range, what, " is ", terse::quote(name), ", expected one of ",
              names);
}

template <class Choices>
std::string choice_names(const Choices& choices) {
  std::string names;
  for (const auto& choice : choices) names += (names.empty() ? "" : "|") + std::string(choice.name);
  return names;
}

// An option whose value is one of a few names.
template <class T, class Choices>
CLI::Option* add_choice(CLI::App& app, const std::string& option, T& field, const Choices& choices,
                        const std::string& help) {
  return app
      .add_option_function<std::string>(
          option,
          [option, &field, &choices](const std::string& name) {
            field = choose(name, choices, option);
          },
          help)
      ->type_name(choice_names(choices));
}

// "8,16,25" cut at its commas.
inline std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t comma = text.find(',');
    parts.emplace_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

// text as a number of type T, all of it. Throws Error(range).
template <class T>
T parse_number(std::string_view text, std::string_view what) {
  T value = {};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  terse::check(error == std::errc() && end == text.data() + text.size(), terse::ErrorClass::range,
               what, " is ", terse::quote(text), ", expected a number");
  return value;
}

// A message for people; results never go there.
inline void print_message(std::string_view kind, std::string_view text) {
  const std::string line = "terse: " + std::string(kind) + ": " + std::string(text) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

// The warnings of results, each printed once.
class Warnings {
 public:
  void print(const std::vector<std::string>& warnings) {
    for (const std::string& warning : warnings) {
      if (printed_.insert(warning).second) print_message("warning", warning);
    }
  }

 private:
  std::set<std::string> printed_;
};

inline constexpr Choice<Format> kRecordFormats[] = {
    {"table", Format::table}, {"jsonl", Format::jsonl}, {"tsv", Format::tsv}};
inline constexpr Choice<ProgressMode> kProgressModes[] = {{"auto", ProgressMode::automatic},
                                                          {"always", ProgressMode::always},
                                                          {"never", ProgressMode::never}};

// Where results go and in which form.
struct OutputOptions {
  std::string path;
  Format format = Format::automatic;
  ProgressMode progress = ProgressMode::automatic;

  void add(CLI::App& app) {
    app.add_option("-o,--output", path,
                   "File for the results, replaced when it is complete [standard output]");
    add_choice(app, "--progress", progress, kProgressModes,
               "Draw progress on standard error [auto: if it is a terminal]");
  }
  // Beside add(), where records can be printed in several forms.
  void add_format(CLI::App& app) {
    add_choice(app, "--format", format, kRecordFormats,
               "Form of the results [table on a terminal, else jsonl]");
  }
  Format resolved_format() const { return resolve_format(format, path); }
};

}  // namespace terse_tools
