// terse inspect: what a model folder or one of its files is, after every check that scoring does.
#include "terse/inspect.h"

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "model_options.h"

namespace terse_tools {

namespace {

std::string json_strings(const std::vector<std::string>& texts) {
  std::string list = "[";
  for (const std::string& text : texts) list += (list.size() > 1 ? ", " : "") + json_string(text);
  return list + "]";
}

void add_model(const terse::ModelInfo& model, Record& record) {
  record.add_text("architecture", model.architecture)
      .add_integer("num_hidden_layers", model.num_hidden_layers)
      .add_integer("hidden_size", model.hidden_size)
      .add_integer("intermediate_size", model.intermediate_size)
      .add_integer("num_attention_heads", model.num_attention_heads)
      .add_integer("num_key_value_heads", model.num_key_value_heads)
      .add_integer("head_dim", model.head_dim)
      .add_integer("vocab_size", model.vocab_size)
      .add_integer("max_tokens", model.max_tokens)
      .add("exits", json_integers(std::span<const std::int64_t>(model.exits)))
      .add_text("dtype", products_name(model.dtype))
      .add_text("isa", terse::isa_name(model.isa))
      .add_integer("threads", model.threads);
}

void add_tensors(const terse::Inspection& inspection, Record& record) {
  record.add_integer("tensors", static_cast<std::int64_t>(inspection.num_tensors()))
      .add_integer("parameters", static_cast<std::int64_t>(inspection.num_parameters()))
      .add_integer("bytes", static_cast<std::int64_t>(inspection.size_bytes()));
  Record dtypes;
  for (const auto& [dtype, usage] : inspection.tensors) {
    dtypes.add(terse::dtype_name(dtype),
               Record()
                   .add_integer("tensors", static_cast<std::int64_t>(usage.tensors))
                   .add_integer("parameters", static_cast<std::int64_t>(usage.elements))
                   .add_integer("bytes", static_cast<std::int64_t>(usage.bytes))
                   .json());
  }
  record.add("dtypes", dtypes.json());
}

Record describe(const std::string& path, const terse::Inspection& inspection) {
  Record record;
  record.add_text("path", path).add_text("kind", terse::artifact_kind_name(inspection.kind));
  if (!inspection.model_type.empty()) record.add_text("model_type", inspection.model_type);
  if (inspection.role) {
    const bool reranker = inspection.role == terse::ModelRole::reranker;
    record.add_text("role", reranker ? "reranker" : "embedder");
  }
  if (inspection.model) add_model(*inspection.model, record);
  if (!inspection.tensors.empty()) add_tensors(inspection, record);
  if (inspection.kind == terse::ArtifactKind::folder) {
    record.add("unread", json_strings(inspection.unread));
  }
  if (!inspection.head_cosines.empty()) {
    std::string rows;
    for (const auto& row : inspection.head_cosines) {
      const std::vector<float> rounded(row.begin(), row.end());
      rows += (rows.empty() ? "" : ", ") + json_list(rounded);
    }
    record.add("head_cosines", "[" + rows + "]");
  }
  if (!inspection.tokenizer.empty()) {
    record.add("tokenizer", json_strings(inspection.tokenizer));
  }
  return record;
}

// "name  value" lines; of lists each element on a line of its own.
std::string human_text(const Record& record) {
  constexpr std::size_t kNameWidth = 20;
  std::string out;
  for (const auto& [name, json] : record.members()) {
    const auto value = nlohmann::ordered_json::parse(json);
    std::vector<std::string> lines;
    if (value.is_structured() && !value.empty() && !value.begin()->is_number()) {
      for (const auto& [key, member] : value.items()) {
        const std::string text = plain_value(member.dump());
        lines.push_back(value.is_object() ? key + ": " + text : text);
      }
    } else {
      lines.push_back(value.empty() ? "none" : plain_value(json));
    }
    for (std::size_t line = 0; line < lines.size(); ++line) {
      out += pad(line == 0 ? name : "", kNameWidth, false) + "  " + lines[line] + "\n";
    }
  }
  return out;
}

class InspectCommand {
 public:
  void add_options(CLI::App& app) {
    app.add_option("paths", paths_, "Model folder, .safetensors, index, config or tokenizer")
        ->required();
    app.add_flag("--check-weights", options_.check_weights, "Look for NaN and infinity in weights");
    app.add_flag("--json", json_, "Print one JSON object a path");
  }

  int run() {
    Output output("");
    int code = kSuccess;
    for (const std::string& path : paths_) {
      try {
        const Record record = describe(path, terse::inspect(path, options_));
        if (!json_ && &path != &paths_.front()) output.write("\n");
        output.write(json_ ? record.json() + "\n" : human_text(record));
      } catch (const terse::Error& error) {
        if (paths_.size() == 1) throw;
        print_message("error", error.what());
        code = kRefused;
      }
    }
    output.finish();
    return code;
  }

 private:
  std::vector<std::string> paths_;
  terse::InspectOptions options_;
  bool json_ = false;
};

}  // namespace

void add_inspect_command(CLI::App& app, Action& action) {
  add_command<InspectCommand>(app, action, "inspect",
                              "Check a model folder or one of its files and say what it is");
}

}  // namespace terse_tools
