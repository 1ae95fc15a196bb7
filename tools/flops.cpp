// terse flops: what one pair costs a model, from its config.json alone: operations, weights
// touched, memory planned. No weights are needed.
#include "terse/flops.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "commands.h"
#include "fields.h"
#include "model_options.h"
#include "terse/ops/backends.h"
#include "terse/parallel.h"
#include "terse/schedule.h"
#include "terse/weights.h"

namespace terse_tools {

namespace {

constexpr Choice<std::optional<terse::DType>> kStoredTypes[] = {{"auto", std::nullopt},
                                                                {"f32", terse::DType::f32},
                                                                {"f16", terse::DType::f16},
                                                                {"bf16", terse::DType::bf16}};

class FlopsCommand {
 public:
  void add_options(CLI::App& app) {
    model_.add(app);
    app.add_option("--query-tokens", query_tokens_,
                   "Tokens before the passage: bos, query, separator")
        ->required();
    app.add_option("--passage-tokens", passage_tokens_,
                   "Tokens from the passage to the end of the row, prompt included")
        ->required();
    app.add_option("--prompt-tokens", prompt_tokens_,
                   "How many of these are separator and prompt, which are never compressed [12 for "
                   "models that compress, else 0]");
    add_choice(app, "--weights", stored_, kStoredTypes,
               "Type of the stored weights [auto: as in the files, else as config.json says]");
    app.add_flag("--json", json_, "Print one JSON object");
    app.footer("--model may name a config.json alone: weights and tokenizer are not needed.");
    CommandLineFields fields(app);
    fields.integers("cutoff_layers", options_.cutoff_layers, 0, "Layers to read scores after");
    fields.integers("compress_layers", options_.compress_layers, 0,
                    "Layers before which the passage is compressed [8]");
    fields.integer("compress_ratio", options_.compress_ratio, 1,
                   "Passage tokens that become one [1: none]");
  }

  int run() {
    const std::filesystem::path path = model_.path;
    const bool folder = std::filesystem::is_directory(path);
    const auto config = terse::Config::load(folder ? path / "config.json" : path);
    const terse::ModelShape shape = terse::read_model_shape(config);
    const terse::PassRequest request = plan(shape);
    Record record = describe(shape, request);
    add_weights(shape, request, stored_type(config, path), record);
    add_memory(shape, request, record);
    print(record);
    return kSuccess;
  }

 private:
  // The default prompt of the lightweight reranker and its separator are 12 tokens of Gemma's.
  terse::PassRequest plan(const terse::ModelShape& shape) const {
    constexpr std::int64_t kDefaultPrompt = 12;
    const std::int64_t prompt =
        prompt_tokens_.value_or(shape.compression ? std::min(kDefaultPrompt, passage_tokens_) : 0);
    terse::check(prompt <= passage_tokens_, terse::ErrorClass::range, "--prompt-tokens is ", prompt,
                 ", expected at most the ", passage_tokens_, " of --passage-tokens");
    std::vector<std::string> warnings;
    auto request = terse::plan_pass(shape, query_tokens_, passage_tokens_ - prompt, prompt,
                                    options_, warnings);
    for (const std::string& warning : warnings) print_message("warning", warning);
    return request;
  }

  static Record cost_record(const terse::PassCost& cost, const terse::PassCost& whole) {
    const auto saved = [](std::uint64_t less, std::uint64_t all) {
      return 1 - static_cast<double>(less) / static_cast<double>(all);
    };
    return Record()
        .add_integer("token_layers", static_cast<std::int64_t>(cost.token_layers))
        .add_integer("flops_dense", static_cast<std::int64_t>(cost.dense_flops()))
        .add_integer("flops_causal", static_cast<std::int64_t>(cost.causal_flops()))
        .add_number("saved_dense", saved(cost.dense_flops(), whole.dense_flops()))
        .add_number("saved_causal", saved(cost.causal_flops(), whole.causal_flops()));
  }

  // The request beside the whole model, and beside what this program saves on top of it.
  static Record describe(const terse::ModelShape& shape, const terse::PassRequest& request) {
    terse::PassRequest all_layers = request;
    all_layers.run = {};
    all_layers.run.exits = {shape.num_hidden_layers};
    const terse::PassCost whole = terse::pass_cost(shape, all_layers);
    const terse::PassCost cost = terse::pass_cost(shape, request);
    Record record;
    record.add_text("model_type", shape.model_type)
        .add_integer("tokens", request.tokens())
        .add_integer("query_tokens", request.query_tokens)
        .add_integer("passage_tokens", request.passage_tokens)
        .add_integer("prompt_tokens", request.prompt_tokens)
        .add("exits", json_integers(std::span<const std::int64_t>(request.run.exits)))
        .add("compress_layers",
             json_integers(std::span<const std::int64_t>(request.run.compress_layers)))
        .add_integer("compress_ratio", request.run.compress_ratio);
    const Record figures = cost_record(cost, whole);
    for (const auto& [name, value] : figures.members()) record.add(name, value);
    record.add("whole_model", cost_record(whole, whole).json());
    const auto with = [&](bool last_row_only, bool share_prefix) {
      const terse::Savings savings{.last_row_only = last_row_only, .share_prefix = share_prefix};
      return cost_record(terse::pass_cost(shape, request, savings), whole).json();
    };
    record.add("last_row_only", with(true, false));
    if (shape.causal) {
      record.add("next_passage_of_query", with(false, true));
      record.add("next_passage_last_row_only", with(true, true));
    }
    return record;
  }

  // The type that most stored parameters have, where there are weights.
  terse::DType stored_type(const terse::Config& config, const std::filesystem::path& path) const {
    if (stored_) return *stored_;
    const bool weights = std::filesystem::exists(path / "model.safetensors") ||
                         std::filesystem::exists(path / "model.safetensors.index.json");
    if (weights) {
      const auto usage = terse::Checkpoint::open(path.string())->usage();
      return std::max_element(
                 usage.begin(), usage.end(),
                 [](const auto& a, const auto& b) { return a.second.elements < b.second.elements; })
          ->first;
    }
    const std::string name = config.string_or("torch_dtype", config.string_or("dtype", "float32"));
    return name == "bfloat16"  ? terse::DType::bf16
           : name == "float16" ? terse::DType::f16
                               : terse::DType::f32;
  }

  static void add_weights(const terse::ModelShape& shape, const terse::PassRequest& request,
                          terse::DType stored, Record& record) {
    const terse::TouchedWeights touched = terse::touched_weights(shape, request);
    const auto bytes = [&](std::uint64_t parameters) {
      return static_cast<std::int64_t>(parameters * terse::dtype_size(stored));
    };
    const std::uint64_t all = terse::num_parameters(terse::checkpoint_layout(shape));
    record.add("weights_touched",
               Record()
                   .add_text("dtype", terse::dtype_name(stored))
                   .add_integer("parameters", static_cast<std::int64_t>(touched.total()))
                   .add_integer("bytes", bytes(touched.total()))
                   .add_integer("layer_bytes", bytes(touched.layers))
                   .add_integer("embedding_row_bytes", bytes(touched.embedding_rows))
                   .add_integer("head_bytes", bytes(touched.heads))
                   .add_integer("model_bytes", bytes(all))
                   .json());
  }

  void add_memory(const terse::ModelShape& shape, const terse::PassRequest& request,
                  Record& record) const {
    const terse::Backend& backend = terse::choose_backend(model_.load.isa, model_.load.dtype);
    const std::int64_t group_tokens =
        model_.load.batch_tokens > 0 ? model_.load.batch_tokens : terse::kGroupTokens;
    const auto plan = terse::plan_memory(backend, shape, request, group_tokens,
                                         terse::thread_count(model_.load.threads));
    record.add(
        "memory_planned",
        Record()
            .add_text("dtype", products_name(backend.compute))
            .add_integer("bytes", static_cast<std::int64_t>(plan.total_bytes()))
            .add_integer("weight_bytes", static_cast<std::int64_t>(plan.weight_bytes))
            .add_integer("activation_bytes", static_cast<std::int64_t>(plan.activation_bytes))
            .add_integer("groups", plan.groups)
            .json());
  }

  void print(const Record& record) const {
    constexpr std::size_t kNameWidth = 26;
    Output output("");
    if (json_) {
      output.write(record.json() + "\n");
    } else {
      for (const auto& [name, value] : record.members()) {
        output.write(pad(name, kNameWidth, false) + "  " + plain_value(value) + "\n");
      }
    }
    output.finish();
  }

  ModelOptions model_;
  std::int64_t query_tokens_ = 0;
  std::int64_t passage_tokens_ = 0;
  std::optional<std::int64_t> prompt_tokens_;
  std::optional<terse::DType> stored_;
  terse::ScoreOptions options_;
  bool json_ = false;
};

}  // namespace

void add_flops_command(CLI::App& app, Action& action) {
  add_command<FlopsCommand>(app, action, "flops",
                            "Count operations, weights touched and memory of one pair");
}

}  // namespace terse_tools
