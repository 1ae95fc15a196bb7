// terse synth: a model folder of a published shape with random weights, for measuring speed and
// memory where the real weights are not at hand.
#include "terse/synth.h"

#include <cstdint>
#include <string>

#include "commands.h"
#include "interrupt.h"
#include "terse/published.h"

namespace terse_tools {

namespace {

constexpr Choice<terse::DType> kWeightTypes[] = {
    {"f32", terse::DType::f32}, {"f16", terse::DType::f16}, {"bf16", terse::DType::bf16}};

class SynthCommand {
 public:
  void add_options(CLI::App& app) {
    std::string names;
    for (const terse::PublishedModel& model : terse::kPublishedModels) {
      names += (names.empty() ? "" : "|") + std::string(model.name);
    }
    app.add_option("--like", like_, "Published model whose shape to take")
        ->required()
        ->type_name(names);
    app.add_option("--layers", layers_, "Blocks, at most those of the model [0: all]");
    app.add_option("--seed", options_.seed, "Seed of the weights [0]");
    add_choice(app, "--dtype", options_.dtype, kWeightTypes, "Type of the stored weights [f32]");
    app.add_option(
        "--tokenizer", tokenizer_,
        "tokenizer.json or SentencePiece .model to copy [a made-up one: a token a byte]");
    app.add_option("--out", out_, "Folder to make")->required();
    app.add_option("--threads", options_.threads, "Threads [0: all cores this process may use]")
        ->check(CLI::Range(0, 1024));
    add_choice(app, "--progress", progress_, kProgressModes,
               "Draw progress on standard error [auto: if it is a terminal]");
  }

  int run() {
    note_signals();
    const auto [model, config] = plan();
    options_.tokenizer = tokenizer_;
    options_.multi_vector_heads = model.family == terse::Family::bge_m3;
    Progress progress(progress_, "MB");
    std::uint64_t bytes = 0;
    options_.progress = [&](std::uint64_t done, std::uint64_t all) {
      bytes = done;
      progress.update(done / kMegabyte, 0, static_cast<double>(done) / static_cast<double>(all));
    };
    options_.cancel = [] { return noted_signal() != 0; };
    terse::write_synthetic_model(out_, config, options_);
    progress.clear();
    print_message("synth", out_ + ": " + std::to_string(bytes) + " bytes of weights");
    return kSuccess;
  }

 private:
  static constexpr std::uint64_t kMegabyte = 1'000'000;

  struct Plan {
    const terse::PublishedModel& model;
    std::string config;
  };

  // A name or a depth that there is not is wrong usage, not a refused file.
  Plan plan() const {
    try {
      const terse::PublishedModel& model = terse::published_model(like_);
      return {model, terse::published_config(model, layers_, options_.dtype)};
    } catch (const terse::Error& error) {
      throw CLI::ValidationError(std::string(error.message()));
    }
  }

  std::string like_;
  std::int64_t layers_ = 0;
  std::string tokenizer_;
  std::string out_;
  ProgressMode progress_ = ProgressMode::automatic;
  terse::SynthOptions options_;
};

}  // namespace

void add_synth_command(CLI::App& app, Action& action) {
  add_command<SynthCommand>(app, action, "synth",
                            "Make a model folder of a published shape with random weights");
}

}  // namespace terse_tools
