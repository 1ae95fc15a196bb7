// The command `terse`: finds the subcommand, runs it, turns what goes wrong into an exit code and
// one line on standard error.
#include <cstdio>
#include <new>
#include <string>
#include <system_error>

#include "commands.h"
#include "interrupt.h"

namespace terse_tools {

namespace {

void add_all_commands(CLI::App& app, Action& action) {
  add_score_command(app, action);
  add_rerank_command(app, action);
  add_embed_command(app, action);
  add_similarity_command(app, action);
  add_tokenize_command(app, action);
  add_inspect_command(app, action);
  add_trace_command(app, action);
  add_retrieve_command(app, action);
  add_fuse_command(app, action);
  add_eval_command(app, action);
  add_calibrate_command(app, action);
  add_sweep_command(app, action);
  add_convert_command(app, action);
  add_flops_command(app, action);
  add_synth_command(app, action);
  add_pack_command(app, action);
  add_bench_command(app, action);
  add_verify_command(app, action);
  add_version_command(app, action);
}

int exit_code_of(terse::ErrorClass error_class) {
  switch (error_class) {
    case terse::ErrorClass::memory:
      return kNoMemory;
    case terse::ErrorClass::device:
      return kNoDevice;
    case terse::ErrorClass::cancelled:
      return noted_signal() != 0 ? 128 + noted_signal() : kRefused;
    default:
      return kRefused;
  }
}

// Runs the subcommand; whatever it throws ends as a message.
int run(const Action& action) {
  try {
    return action();
  } catch (const terse::Error& error) {
    print_message("error", error.what());
    return exit_code_of(error.error_class());
  } catch (const std::bad_alloc&) {
    print_message("error", "memory: could not allocate");
    return kNoMemory;
  } catch (const std::system_error& error) {
    print_message("error", terse::Error(terse::ErrorClass::io, error.what()).what());
    return kRefused;
  }
}

// Throws CLI::Error, also where an option's value is refused with an error class.
void parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const terse::Error& error) {
    print_message("error", error.what());
    throw CLI::RuntimeError(kWrongUsage);
  }
}

int main(int argc, char** argv) {
  exit_on_signals();
  CLI::App app("Reranks and embeds texts with models of the bge family.", "terse");
  app.set_version_flag("--version", std::string("terse ") + TERSE_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  Action action;
  add_all_commands(app, action);
  try {
    parse(app, argc, argv);
    return run(action);
  } catch (const CLI::Error& error) {  // also from a subcommand that finds options at odds
    return app.exit(error) == 0 ? kSuccess : kWrongUsage;
  }
}

}  // namespace

}  // namespace terse_tools

int main(int argc, char** argv) { return terse_tools::main(argc, argv); }
