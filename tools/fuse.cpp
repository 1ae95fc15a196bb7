// terse fuse: one run made of several, by reciprocal ranks or weighted scores.
#include <string>
#include <vector>

#include "commands.h"
#include "evaluation_files.h"
#include "run_output.h"
#include "terse/evaluate/fusion.h"

namespace terse_tools {

namespace {

constexpr Choice<terse::Fusion> kFusions[] = {{"rrf", terse::Fusion::reciprocal_rank},
                                              {"sum", terse::Fusion::sum}};
constexpr Choice<terse::ScoreScale> kScales[] = {{"none", terse::ScoreScale::none},
                                                 {"min-max", terse::ScoreScale::min_max},
                                                 {"z-score", terse::ScoreScale::z_score}};

class FuseCommand {
 public:
  void add_options(CLI::App& app) {
    app.add_option("runs", paths_, "TREC runs to fuse")->required()->expected(2, 1000);
    add_choice(app, "--method", options_.fusion, kFusions,
               "Sum reciprocal ranks or weighted scores [rrf]");
    add_choice(app, "--scale", options_.scale, kScales,
               "How sum makes the scores of runs comparable [min-max]");
    app.add_option_function<std::string>(
           "--weights",
           [this](const std::string& text) {
             for (const std::string& part : split_list(text)) {
               options_.weights.push_back(parse_number<double>(part, "--weights"));
             }
           },
           "Weight of each run [1 each]")
        ->type_name("W,W,...");
    app.add_option("--rank-constant", options_.rank_constant, "rrf adds 1 / (this + rank) [60]");
    app.add_option("--top-k", options_.top_k, "Documents of each query to keep [1000]")
        ->check(CLI::PositiveNumber);
    app.add_option("--tag", tag_, "Last column of the run [fused]");
    output_.add(app);
  }

  int run() {
    std::vector<terse::Run> runs;
    for (const std::string& path : paths_) runs.push_back(read_run_file(path));
    const terse::Run fused = terse::fuse(runs, options_);
    Output output(output_.path);
    write_run(fused, tag_, output);
    return kSuccess;
  }

 private:
  std::vector<std::string> paths_;
  terse::FusionOptions options_;
  std::string tag_ = "fused";
  OutputOptions output_;
};

}  // namespace

void add_fuse_command(CLI::App& app, Action& action) {
  add_command<FuseCommand>(app, action, "fuse", "Make one run of several");
}

}  // namespace terse_tools
