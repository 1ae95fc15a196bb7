// What has to be the same for a sweep to give the same table: digests of everything it reads, and
// its settings.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler_name.h"
#include "fields.h"
#include "json_lines.h"
#include "model_options.h"
#include "output.h"
#include "terse/cpu.h"
#include "terse/error.h"
#include "terse/evaluate/sha256.h"
#include "terse/evaluate/sweep_grid.h"
#include "terse/model_info.h"

namespace terse_tools {

// Writes the fields of options that are set into a record; a visitor of visit_fields().
class RecordFields {
 public:
  explicit RecordFields(Record& record) : record_(record) {}

  template <class Field>
  void integer(std::string_view name, const Field& field, std::int64_t, const char*) {
    if (field) record_.add_integer(name, static_cast<std::int64_t>(*field));
  }
  template <class Field>
  void integers(std::string_view, const Field&, std::int64_t, const char*) {}  // the grid's
  template <class Field, class Choices>
  void choice(std::string_view name, const Field& field, const Choices& choices, const char*) {
    for (const auto& choice : choices) {
      if (field == choice.value) record_.add_text(name, choice.name);
    }
  }
  void flag(std::string_view name, bool field, const char*) { record_.add_boolean(name, field); }
  void text(std::string_view name, const std::optional<std::string>& field, const char*) {
    if (field) record_.add_text(name, *field);
  }
  void instruction(std::string_view name, const terse::Instruction& field, const char*) {
    if (field.state == terse::Instruction::State::given) {
      record_.add_text(name, field.text).add_text(std::string(name) + "_format", field.format);
    } else if (field.state == terse::Instruction::State::none) {
      record_.add(name, "null");
    }
  }

 private:
  Record& record_;
};

// {"config.json": "sha256...", ...} of the files of a folder, or of one file.
inline std::string digests_json(const std::filesystem::path& path) {
  std::vector<std::filesystem::path> files = {path};
  if (std::filesystem::is_directory(path)) {
    files.clear();
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  Record record;
  for (const auto& file : files) {
    record.add_text(file.filename().string(), terse::sha256_of_file(file.string()));
    check_interrupted();
  }
  return record.json();
}

// The machine and program that scores depend on.
inline std::string program_json(const terse::ModelInfo& model) {
  return Record()
      .add_text("version", TERSE_VERSION)
      .add_text("compiler", compiler_name())
      .add_text("cpu", terse::cpu_name())
      .add_text("isa", terse::isa_name(model.isa))
      .add_text("dtype", products_name(model.dtype))
      .json();
}

// The command line of this process, its arguments as JSON strings; empty where the system does not
// say.
inline std::string command_json() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::string list;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\0'), rest.size());
    list += (list.empty() ? "" : ", ") + json_string(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return "[" + list + "]";
}

// Writes the manifest, unless `resumed`: then the one that is there must agree in everything that
// scores depend on. Throws Error: path, io, schema (of another sweep).
inline void settle_manifest(const std::string& path, const Record& reproduces, int threads,
                            bool resumed) {
  constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
  if (resumed) {
    const auto found =
        nlohmann::json::parse(terse::read_text_file(path, kMaxBytes), nullptr, false);
    const auto wanted = nlohmann::json::parse(reproduces.json());
    const bool same =
        found.is_object() && found.contains("reproduces") && found["reproduces"] == wanted;
    terse::check(same, terse::ErrorClass::schema, terse::path_text(path),
                 ": the rows that are there come from other files, settings or machine; choose "
                 "another output, or remove them");
    return;
  }
  std::string text = "{\n";
  for (const auto& [name, value] : reproduces.members()) {
    text +=
        (text.size() == 2 ? " \"reproduces\": {\n  " : ",\n  ") + json_string(name) + ": " + value;
  }
  text += "\n },\n \"command\": " + command_json() + ",\n \"threads\": " + std::to_string(threads) +
          "\n}\n";
  write_whole_file(path, text);
}

}  // namespace terse_tools
