// terse pack: a model folder as one file that is used where it is mapped.
#include "terse/pack.h"

#include <cstdint>
#include <string>

#include "commands.h"
#include "interrupt.h"
#include "model_options.h"
#include "progress.h"

namespace terse_tools {

namespace {

class PackCommand {
 public:
  void add_options(CLI::App& app) {
    model_.add(app);
    app.add_option("--out", out_, "File to write")->required();
    add_choice(app, "--progress", progress_, kProgressModes,
               "Draw progress on standard error [auto: if it is a terminal]");
    app.footer(
        "Weights are stored in the order in which products of --dtype read them, for every\n"
        "instruction set. The file is mapped read-only and shared by all processes that use it.\n"
        "Every command takes it as --model; terse inspect --check-weights verifies its digests.");
  }

  int run() {
    terse::check(model_.load.device != terse::Device::cuda, terse::ErrorClass::unsupported,
                 "a packed file holds weights in the order of the CPU's products, not of cuda");
    note_signals();
    Progress progress(progress_, "MB");
    terse::PackOptions options;
    options.load = model_.load;
    options.load.device = terse::Device::cpu;
    options.made_by = std::string("terse ") + TERSE_VERSION;
    std::uint64_t bytes = 0;
    options.progress = [&](std::uint64_t done, std::uint64_t all) {
      bytes = done;
      progress.update(done / kMegabyte, 0, static_cast<double>(done) / static_cast<double>(all));
    };
    options.cancel = [] { return noted_signal() != 0; };
    terse::pack_model(model_.path, out_, options);
    progress.clear();
    print_message("pack", out_ + ": " + std::to_string(bytes) + " bytes");
    return kSuccess;
  }

 private:
  static constexpr std::uint64_t kMegabyte = 1'000'000;

  ModelOptions model_;
  std::string out_;
  ProgressMode progress_ = ProgressMode::automatic;
};

}  // namespace

void add_pack_command(CLI::App& app, Action& action) {
  add_command<PackCommand>(app, action, "pack",
                           "Make one mappable file of a model folder, for fast starts");
}

}  // namespace terse_tools
