// Every subcommand: one file each, one line here, one line in terse.cpp.
#pragma once

#include "command.h"

namespace terse_tools {

void add_score_command(CLI::App& app, Action& action);
void add_rerank_command(CLI::App& app, Action& action);
void add_embed_command(CLI::App& app, Action& action);
void add_similarity_command(CLI::App& app, Action& action);
void add_tokenize_command(CLI::App& app, Action& action);
void add_inspect_command(CLI::App& app, Action& action);
void add_trace_command(CLI::App& app, Action& action);
void add_retrieve_command(CLI::App& app, Action& action);
void add_fuse_command(CLI::App& app, Action& action);
void add_eval_command(CLI::App& app, Action& action);
void add_calibrate_command(CLI::App& app, Action& action);
void add_sweep_command(CLI::App& app, Action& action);
void add_convert_command(CLI::App& app, Action& action);
void add_flops_command(CLI::App& app, Action& action);
void add_synth_command(CLI::App& app, Action& action);
void add_pack_command(CLI::App& app, Action& action);
void add_bench_command(CLI::App& app, Action& action);
void add_verify_command(CLI::App& app, Action& action);
void add_version_command(CLI::App& app, Action& action);

}  // namespace terse_tools
